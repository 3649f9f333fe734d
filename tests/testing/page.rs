//! The page about tests.

const PAGE: &str = include_str!("../../docs/testing.md");

/// Imports and hidden lines left aside.
#[test]
fn there_are_five_tests_of_less_than_ten_lines_each() {
    let (_, tests) = PAGE.split_once("## Five tests").expect("the section");
    let sections: Vec<_> = tests.split("\n### ").skip(1).collect();
    assert_eq!(sections.len(), 5);
    for section in sections {
        let (_, block) = section.split_once("```rust").expect("a block");
        let (block, _) = block.split_once("```").expect("its end");
        let lines = block.lines().skip(1).map(str::trim);
        let is_code =
            |line: &&str| !line.is_empty() && !line.starts_with("# ") && !line.starts_with("use ");
        let count = lines.filter(is_code).count();
        assert!((1..10).contains(&count), "{count} lines:\n{block}");
    }
}
