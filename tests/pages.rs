//! The pages of `docs/` are modules of the crate. Their links work in the repository and on docs.rs, and their code is
//! compiled.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const GUIDE: &str = include_str!("../src/guide.rs");

/// The pages, by name.
fn pages() -> BTreeMap<String, String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let files = fs::read_dir(docs)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let pages = files.filter(|path| path.extension().is_some_and(|it| it == "md"));
    let page = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    pages.map(page).collect()
}

/// The lines outside of code, and the info strings of the blocks of code.
fn split(page: &str) -> (Vec<&str>, Vec<(&str, &str)>) {
    let (mut prose, mut blocks, mut open) = (Vec::new(), Vec::new(), false);
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(info) => {
                if !open {
                    let before = prose.iter().rev().find(|line: &&&str| !line.is_empty());
                    blocks.push((info, before.copied().unwrap_or("")));
                }
                open = !open;
            }
            None if !open => prose.push(line),
            None => {}
        }
    }
    assert!(!open, "a block of code has no end");
    (prose, blocks)
}

/// The names of links and where they lead: `[name]: target`.
fn definitions<'a>(lines: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, &'a str> {
    let definition = |line: &'a str| line.strip_prefix('[')?.split_once("]: ");
    lines.into_iter().filter_map(definition).collect()
}

#[test]
fn each_page_is_a_module_and_has_a_row_in_the_table() {
    for name in pages().keys() {
        assert!(
            GUIDE.contains(&format!("    {name} = \"../docs/{name}.md\",")),
            "{name}"
        );
        assert!(GUIDE.contains(&format!("| [`{name}`] |")), "{name}");
    }
}

#[test]
fn each_link_to_a_file_has_a_name_that_leads_to_a_module_or_a_source_on_docs_rs() {
    let lines = GUIDE
        .lines()
        .map(|line| line.trim_start().trim_start_matches("//! "));
    let on_docs_rs = definitions(lines);
    for (page, text) in pages() {
        let (prose, _) = split(&text);
        for (name, target) in definitions(prose.iter().copied()) {
            if target.contains("://") {
                continue;
            }
            assert!(on_docs_rs.contains_key(name), "{page}: [{name}]");
            let file = target.split('#').next().unwrap();
            let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
            assert!(docs.join(file).exists(), "{page}: {target}");
        }
        for link in prose.iter().flat_map(|line| line.split("](").skip(1)) {
            let target = link.split(')').next().unwrap();
            assert!(
                target.starts_with("http") || target.starts_with('#'),
                "{page}: a link to `{target}` does not work on docs.rs. Give it a name at the end of the page"
            );
        }
    }
}

#[test]
fn each_block_of_code_says_its_language_and_rust_that_is_not_compiled_says_why() {
    for (page, text) in pages() {
        for (info, before) in split(&text).1 {
            assert!(
                !info.is_empty(),
                "{page}: a block without a language is Rust for rustdoc"
            );
            let is_rust = info.split(',').any(|word| word == "rust");
            let is_ignored = info.split(',').any(|word| word == "ignore");
            assert!(is_rust || !is_ignored, "{page}: {info}");
            assert!(
                !is_ignored || before.contains("not compiled"),
                "{page}: {before}"
            );
        }
    }
}
