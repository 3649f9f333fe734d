//! The rules of the group, through its public API.
//!
//! The rules are numbered in docs/design.md; the tests of each are named after what it says.

mod fixtures;
#[path = "../support/mod.rs"]
mod support;

mod broadcast;
mod builder;
mod cause;
mod child;
mod errors;
mod grace;
mod isolated;
mod leaving;
mod limit;
mod messages;
mod outside;
mod running;
mod runtime;
mod scope;
mod spans;
mod spawning;
mod traits;
mod values;
mod waiting;
