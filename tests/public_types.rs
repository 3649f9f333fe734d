//! `docs/public-types.txt` lists the public types of the crate, each with its only path.
//!
//! The list is read from the sources: the types that a public module defines, and those that it re-exports. Run the
//! test with `UPDATE=1` to write it anew. A change of the list is a change of what users see, so the diff shows it.
//! `grep -c '^  ' docs/public-types.txt` counts them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// The names of a module's types by the path of the module.
type Types = BTreeMap<String, Vec<String>>;

#[test]
fn the_list_of_public_types_is_that_of_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = root.join("docs/public-types.txt");
    let read = |file: &str| fs::read_to_string(root.join("src").join(file)).ok();

    let list = list(&types(&read));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&page, &list).unwrap();
    }
    let known = fs::read_to_string(&page).unwrap();
    let hint = "run `UPDATE=1 cargo test --all-features --test public_types`, and look at the diff";
    assert_eq!(list, known, "docs/public-types.txt is out of date: {hint}");
}

#[test]
fn a_type_has_one_path() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let types = types(&|file| fs::read_to_string(root.join("src").join(file)).ok());

    let of_root = &types["taskgroup"];
    let lower = types.iter().filter(|(module, _)| *module != "taskgroup");
    let twice = lower.flat_map(|(_, names)| names.iter().filter(|name| of_root.contains(name)));
    assert_eq!(twice.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn what_is_defined_and_what_is_exported_counts_and_the_rest_does_not() {
    let read = |file: &str| {
        let text = match file {
            "lib.rs" => {
                "pub mod low;\nmod high;\npub use crate::high::{Deep, LIMIT, inner::Other as Named, run};\n\
                 pub use tokio::Theirs;\n/// pub struct InDocs;\n"
            }
            "low.rs" => "pub enum Kind { A }\npub fn go() {}\nmod tests { pub struct Hidden; }",
            "high.rs" => "pub struct Deep;\npub trait Unexported {}",
            _ => return None,
        };
        Some(text.to_owned())
    };

    assert_eq!(
        list(&types(&read)),
        "taskgroup: 2\n  Deep\n  Named\ntaskgroup::low: 1\n  Kind\n"
    );
}

/// The types of the crate whose files, by their paths below `src`, are what `read` returns.
fn types(read: &dyn Fn(&str) -> Option<String>) -> Types {
    let mut types = Types::new();
    let mut modules = vec![("taskgroup".to_owned(), String::new())];
    while let Some((module, folder)) = modules.pop() {
        let file = match folder.as_str() {
            "" => "lib.rs".to_owned(),
            folder => format!("{folder}.rs"),
        };
        let text = read(&file).unwrap_or_else(|| panic!("no file src/{file}"));
        let found = types.entry(module.clone()).or_default();
        for statement in statements(&text) {
            if let Some(name) = statement.strip_prefix("pub mod ") {
                let inner = format!("{folder}/{name}");
                let inner = inner.trim_start_matches('/').to_owned();
                modules.push((format!("{module}::{name}"), inner));
            } else if let Some(path) = statement.strip_prefix("pub use ") {
                let own = ["crate::", "self::", "super::"];
                if own.iter().any(|own| path.starts_with(own)) {
                    found.extend(leaves(path).into_iter().filter(|name| is_type(name)));
                }
            } else {
                let kinds = ["struct", "enum", "trait", "type", "union"];
                let rest = kinds
                    .iter()
                    .find_map(|kind| statement.strip_prefix(&format!("pub {kind} ")));
                let name = rest.and_then(|rest| rest.split(|c: char| !c.is_alphanumeric()).next());
                found.extend(name.map(str::to_owned));
            }
        }
        found.sort();
    }
    types
}

/// What begins with `pub` in the first column: a use up to its semicolon, and the first line of an item.
fn statements(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    let mut statements = Vec::new();
    while let Some(line) = lines.next() {
        if !line.starts_with("pub ") {
            continue;
        }
        let mut statement = line.to_owned();
        while statement.starts_with("pub use ") && !statement.contains(';') {
            statement.push_str(lines.next().unwrap_or(";").trim());
        }
        let end = statement.find(';').unwrap_or(statement.len());
        statement.truncate(end);
        statements.push(statement);
    }
    statements
}

/// The names that a use brings in. Braces are not nested.
fn leaves(path: &str) -> Vec<String> {
    let list = match path.split_once('{') {
        Some((_, list)) => list.trim_end_matches('}'),
        None => path,
    };
    let names = list.split(',').map(|leaf| {
        let leaf = leaf.trim();
        let name = leaf.rsplit_once(" as ").map(|(_, name)| name);
        name.unwrap_or_else(|| leaf.rsplit("::").next().unwrap_or(leaf))
    });
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Functions begin with a small letter, and constants have no small letter.
fn is_type(name: &str) -> bool {
    name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase)
}

fn list(types: &Types) -> String {
    let mut list = String::new();
    for (module, names) in types.iter().filter(|(_, names)| !names.is_empty()) {
        let _ = writeln!(list, "{module}: {}", names.len());
        for name in names {
            let _ = writeln!(list, "  {name}");
        }
    }
    list
}
