//! Compiles `docs/recipes.md`, each recipe with the library that it is about.

#[cfg(doctest)]
#[doc = include_str!("../../recipes.md")]
struct Recipes;
