//! `docs/requirements.md` names real things: each module, test and example in its tables is in the
//! tree, and every requirement has a row.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The families of requirements and the number of the last one in each.
const FAMILIES: [(&str, usize); 8] = [
    ("G", 19),
    ("S", 15),
    ("X", 14),
    ("L", 25),
    ("V", 2),
    ("P", 7),
    ("T", 5),
    ("D", 4),
];

/// What stands in the row of a requirement that nothing meets yet.
const LATER: &str = "later";

#[test]
fn every_requirement_has_a_row_and_every_name_in_it_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| {
        let path = root.join(path);
        if path.is_dir() {
            Some(String::new())
        } else {
            fs::read_to_string(path).ok()
        }
    };
    let page = read("docs/requirements.md").unwrap_or_default();

    assert_eq!(problems(&page, &all(), read), Vec::<String>::new());
}

#[test]
fn a_row_that_is_missing_or_there_twice_is_found() {
    let page = "| G2 | cancels | later | | |\n| G2 | cancels | later | | |";

    let found = problems(page, &["G1".into(), "G2".into()], |_| None);
    assert_eq!(found, ["G1: 0 rows", "G2: 2 rows"]);
}

#[test]
fn a_row_with_a_cell_that_names_nothing_is_found() {
    let row = |cells: &str| problems(&format!("| G1 | waits | {cells} |"), &["G1".into()], tree);

    assert_eq!(
        row("`src/a.rs` | `tests/a.rs::waits` | `examples/a.rs`"),
        [""; 0]
    );
    assert_eq!(row("later | | "), [""; 0]);
    assert_eq!(
        row("| `tests/a.rs::waits` | `examples/a.rs`"),
        ["G1: no module"]
    );
    assert_eq!(
        row("`src/a.rs` | `tests/a.rs` | `examples/a.rs`"),
        ["G1: no test"]
    );
    assert_eq!(
        row("`src/a.rs` | `tests/a.rs::waits` | see there"),
        ["G1: no example"]
    );
    assert_eq!(row("`src/a.rs` | `tests/a.rs::waits`"), ["G1: no example"]);
}

#[test]
fn a_name_that_is_not_in_the_tree_is_found() {
    let row = |cells: &str| problems(&format!("| G1 | waits | {cells} |"), &["G1".into()], tree);

    assert_eq!(
        row("`src/b.rs` | `tests/a.rs::waits`, `tests/a.rs::wait` | `examples/a.rs`"),
        [
            "G1: there is no `src/b.rs`",
            "G1: there is no `tests/a.rs::wait`"
        ]
    );
    assert_eq!(
        row("`src/a.rs` | `tests/b.rs::waits` | `examples/a.rs`"),
        ["G1: there is no `tests/b.rs::waits`"]
    );
}

/// The tree of the small pages above.
fn tree(path: &str) -> Option<String> {
    match path {
        "src/a.rs" | "examples/a.rs" => Some(String::new()),
        "tests/a.rs" => Some("#[test]\nfn waits() {}".to_owned()),
        _ => None,
    }
}

fn all() -> Vec<String> {
    let numbered = |&(family, last): &(&str, usize)| {
        let family = family.to_owned();
        (1..=last).map(move |number| format!("{family}{number}"))
    };
    FAMILIES.iter().flat_map(numbered).collect()
}

/// What is wrong with the page, given how to read a file of the tree; folders are empty files.
fn problems(page: &str, ids: &[String], read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut rows: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
    for line in page.lines() {
        let mut cells = line.trim().trim_matches('|').split('|').map(str::trim);
        if let Some(id) = cells
            .next()
            .filter(|id| ids.iter().any(|known| known == id))
        {
            rows.entry(id).or_default().push(cells.collect());
        }
    }
    let mut problems = Vec::new();
    for id in ids {
        match rows.get(id.as_str()).map(Vec::as_slice) {
            Some([row]) => problems.extend(problems_of_row(id, row, &read)),
            other => problems.push(format!("{id}: {} rows", other.map_or(0, <[_]>::len))),
        }
    }
    problems
}

fn problems_of_row(id: &str, row: &[&str], read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    if row.get(1) == Some(&LATER) {
        return Vec::new();
    }
    let is_test = |name: &&str| name.contains("::");
    let mut problems = Vec::new();
    for (column, what) in [(1, "module"), (2, "test"), (3, "example")] {
        let names = names(row.get(column).unwrap_or(&""));
        if names
            .iter()
            .filter(|name| is_test(name) == (what == "test"))
            .count()
            == 0
        {
            problems.push(format!("{id}: no {what}"));
        }
        let lost = names.iter().filter(|name| !exists(name, &read));
        problems.extend(lost.map(|name| format!("{id}: there is no `{name}`")));
    }
    problems
}

/// The names in backticks.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Whether `path`, or the function of `path::function`, is in the tree.
fn exists(name: &str, read: impl Fn(&str) -> Option<String>) -> bool {
    match name.split_once("::") {
        Some((path, function)) => {
            read(path).is_some_and(|text| text.contains(&format!("fn {function}(")))
        }
        None => read(name).is_some(),
    }
}
