//! The README and the crate docs open with the same words, and the blueprint fits on a screen.

const README: &str = include_str!("../README.md");
const CRATE: &str = include_str!("../src/lib.rs");

#[test]
fn readme_and_crate_docs_open_with_the_same_lines() {
    let readme = README.strip_prefix("# taskgroup\n\n").unwrap();
    let opening: Vec<_> = readme
        .lines()
        .take_while(|line| !line.starts_with('#'))
        .collect();
    let docs: Vec<_> = CRATE
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .take_while(|line| !line.starts_with('#'))
        .collect();
    assert!(opening.len() >= 10);
    assert_eq!(opening, docs);
}

#[test]
fn the_blueprint_is_40_lines_at_most() {
    let (_, blueprint) = README.split_once("```rust,no_run\n").unwrap();
    let lines = blueprint.lines().take_while(|line| *line != "```").count();
    assert!((1..=40).contains(&lines), "{lines} lines");
}
