//! A module uses only modules declared above it. The order of the `mod` lines is the order of
//! dependency, in `src/lib.rs` and inside every module that has modules of its own. Such a module
//! itself stands right below the last of its own modules that it uses: those above are its engine,
//! those below may add to what it defines.
//!
//! The compiler accepts cycles between modules, so nothing but this test keeps them out. It reads
//! the sources as text: paths that begin with `crate`, `self` or `super`, in `use` lines and in code.
//! Links in docs are free to point anywhere.
//!
//! A feature that turns on a module of its own name belongs to that module: a module below it does not ask
//! for the feature, so that it is the same with the feature and without.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

type ModulePath = Vec<String>;

/// What one file of the crate says about modules. An inline `mod` belongs to its file.
#[derive(Debug, Default)]
struct Module {
    file: String,
    /// The modules in files of their own, in the order of the `mod` lines.
    declares: Vec<String>,
    /// The names that `use` brings in, and the absolute paths they stand for.
    imports: BTreeMap<String, ModulePath>,
    /// The absolute paths that the file mentions, each with its line.
    uses: Vec<(usize, ModulePath)>,
    /// The features that the file asks for, each with its line.
    features: Vec<(usize, String)>,
    /// Which of the modules that it declares are there with the feature of their name alone.
    optional: Vec<String>,
}

/// One name of a `use` line: the line, the path as written, and the name that it brings in.
type Leaf = (usize, ModulePath, String);

type Tree = BTreeMap<ModulePath, Module>;

#[test]
fn a_module_uses_only_modules_declared_above_it() {
    let mut files = Vec::new();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    read_sources(&src, "", &mut files);
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();

    assert!(
        files.iter().any(|(name, _)| *name == "lib.rs"),
        "no sources in {}",
        src.display()
    );
    assert_eq!(violations(&files), Vec::<String>::new());
}

#[test]
fn a_use_of_a_module_below_is_found() {
    let found = violations(&[
        ("lib.rs", "mod low;\nmod high;\n"),
        ("low.rs", "use std::fmt;\nuse crate::high::High;\n"),
        ("high.rs", "use crate::low::Low;\n"),
    ]);

    assert_eq!(
        found,
        ["src/low.rs:2: uses `high`, which is declared below it in src/lib.rs"]
    );
}

#[test]
fn a_path_in_code_is_found_like_a_use() {
    let found = violations(&[
        ("lib.rs", "mod low; mod high;"),
        (
            "low.rs",
            "fn f<'a>(x: &'a str) {\n  let c = '\"'; crate::high::go(r#\"\"crate\"#)\n}",
        ),
        ("high.rs", ""),
    ]);

    assert_eq!(
        found,
        ["src/low.rs:2: uses `high`, which is declared below it in src/lib.rs"]
    );
}

#[test]
fn a_name_exported_by_the_root_counts_as_its_module() {
    let found = violations(&[
        (
            "lib.rs",
            "mod low; mod high;\npub use crate::high::{inner::Other as Renamed, High};",
        ),
        (
            "low.rs",
            "use crate::Renamed;\nuse crate::{\n  BoxError,\n  High,\n};",
        ),
        ("high.rs", "mod inner;"),
        ("high/inner.rs", ""),
    ]);

    assert_eq!(
        found,
        [
            "src/low.rs:1: uses `high::inner`, which is declared below it in src/lib.rs",
            "src/low.rs:4: uses `high`, which is declared below it in src/lib.rs",
        ]
    );
}

#[test]
fn the_order_inside_a_module_counts_too() {
    let found = violations(&[
        ("lib.rs", "mod group;"),
        ("group.rs", "mod latch; mod core;\nuse self::core::Core;"),
        (
            "group/latch.rs",
            "use super::core::Core;\nuse crate::group::core;\nuse super::Core;",
        ),
        (
            "group/core.rs",
            "use super::latch::Latch; use crate::group::latch;",
        ),
    ]);

    let each = |line| {
        format!(
            "src/group/latch.rs:{line}: uses `group::core`, which is declared below it in src/group.rs"
        )
    };
    assert_eq!(found, [each(1), each(2), each(3)]);
}

#[test]
fn a_module_does_not_use_the_one_that_stands_on_it() {
    let engine = "use super::Group;\nmod tests { use super::*; use super::super::Group; }";
    let found = violations(&[
        ("lib.rs", "mod group;"),
        (
            "group.rs",
            "mod early; mod latch;\nfn f() { latch::go() }\nmod tests { use super::*; use self::x; }",
        ),
        ("group/early.rs", "use crate::group::Group;"),
        ("group/latch.rs", engine),
    ]);

    assert_eq!(
        found,
        [
            "src/group/early.rs:1: uses `group`, which stands on it or on one below it",
            "src/group/latch.rs:1: uses `group`, which stands on it or on one below it",
            "src/group/latch.rs:2: uses `group`, which stands on it or on one below it",
        ]
    );
}

#[test]
fn a_module_may_add_to_one_that_does_not_stand_on_it() {
    let found = violations(&[
        ("lib.rs", "mod group;"),
        (
            "group.rs",
            "mod latch; mod extra;\nuse self::latch::Latch;\npub struct Group(Latch);",
        ),
        ("group/latch.rs", "pub(super) struct Latch;"),
        (
            "group/extra.rs",
            "use super::Group;\nuse super::latch::Latch;\nimpl super::Group {}",
        ),
    ]);

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn docs_strings_and_visibilities_are_no_uses() {
    let found = violations(&[
        (
            "lib.rs",
            "//! crate::high\nmod low; mod high; pub type BoxError = ();",
        ),
        (
            "low.rs",
            "/// [`High`](crate::high::High)\n/* crate::high /* nested */ crate::high */\n\
             pub(in crate::low) fn f() -> crate::BoxError { \"crate::high\"; b'\\''; }",
        ),
        ("high.rs", "use crate::low::f;"),
    ]);

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_file_under_another_name_is_followed() {
    let found = violations(&[
        ("lib.rs", "mod low;\nmod high;"),
        (
            "low.rs",
            "#[cfg(unix)]\n#[path = \"low/unix.rs\"]\npub(crate) mod engine;\nuse engine::Engine;",
        ),
        ("low/unix.rs", "use crate::high::High;"),
        ("high.rs", "use crate::low::engine::Engine;"),
    ]);

    assert_eq!(
        found,
        ["src/low/unix.rs:1: uses `high`, which is declared below it in src/lib.rs"]
    );
}

#[test]
fn a_file_that_no_module_declares_is_found() {
    let found = violations(&[("lib.rs", "mod low;"), ("low.rs", ""), ("lost.rs", "")]);

    assert_eq!(found, ["src/lost.rs: no `mod` line declares it"]);
}

#[test]
fn a_module_that_asks_for_the_feature_of_one_below_it_is_found() {
    let found = violations(&[
        (
            "lib.rs",
            "mod low;\n#[cfg(feature = \"high\")]\npub mod high;\n#[cfg(feature = \"high\")]\nmod top;",
        ),
        (
            "low.rs",
            "mod inner;\n#[cfg(any(unix, feature = \"high\"))]\nfn f() {}",
        ),
        (
            "low/inner.rs",
            "/// `feature = \"high\"`\n#[cfg(feature = \"top\")]\nfn f() {}",
        ),
        ("high.rs", "#[cfg(feature = \"high\")]\nfn f() {}"),
        ("top.rs", "#[cfg(feature = \"high\")]\nfn f() {}"),
    ]);

    assert_eq!(
        found,
        ["src/low.rs:2: asks for the feature of `high`, which is declared below it in src/lib.rs"]
    );
}

/// Every violation in a crate whose files, by their paths under `src/`, are `files`.
fn violations(files: &[(&str, &str)]) -> Vec<String> {
    let tree: Tree = files.iter().map(|(name, text)| parse(name, text)).collect();
    let mut found = Vec::new();
    for (path, module) in &tree {
        if let Some((name, parent)) = path.split_last() {
            if !tree
                .get(parent)
                .is_some_and(|parent| parent.declares.contains(name))
            {
                found.push(format!("{}: no `mod` line declares it", module.file));
            }
        }
        for (line, used) in &module.uses {
            let used = module_of(&tree, used);
            if let Some(why) = objection(&tree, path, &used) {
                found.push(format!(
                    "{}:{line}: uses `{}`, {why}",
                    module.file,
                    used.join("::")
                ));
            }
        }
        for (line, feature) in &module.features {
            if is_above(&tree, path, feature) {
                found.push(format!(
                    "{}:{line}: asks for the feature of `{feature}`, which is declared below it in src/lib.rs",
                    module.file
                ));
            }
        }
    }
    found
}

/// Whether the module `path` is declared above an optional module of this name.
fn is_above(tree: &Tree, path: &[String], optional: &str) -> bool {
    let root = &tree[&ModulePath::new()];
    let is_optional = root.optional.iter().any(|name| name == optional);
    let own = path.first().and_then(|name| place(root, name));
    is_optional && own.is_some_and(|own| Some(own) < place(root, optional))
}

/// Why the module `from` may not use the module `to`, or nothing when it may.
fn objection(tree: &Tree, from: &[String], to: &[String]) -> Option<String> {
    // What the root defines itself stands on no module; it is there for all.
    if to.is_empty() || to.starts_with(from) {
        return None;
    }
    if from.starts_with(to) {
        let stands_on_it = last_of_engine(tree, to) >= place(&tree[to], &from[to.len()]);
        return stands_on_it.then(|| "which stands on it or on one below it".to_owned());
    }
    let shared = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let parent = &tree[&from[..shared]];
    (place(parent, &to[shared]) > place(parent, &from[shared]))
        .then(|| format!("which is declared below it in {}", parent.file))
}

/// The place of a module among those that `parent` declares.
fn place(parent: &Module, name: &str) -> Option<usize> {
    parent.declares.iter().position(|declared| declared == name)
}

/// The place of the last module of its own that a module uses itself.
fn last_of_engine(tree: &Tree, path: &[String]) -> Option<usize> {
    let module = &tree[path];
    let used = module.uses.iter().map(|(_, used)| module_of(tree, used));
    used.filter(|used| used.len() > path.len() && used.starts_with(path))
        .filter_map(|used| place(module, &used[path.len()]))
        .max()
}

/// The module in a file of its own that defines what `path` names.
fn module_of(tree: &Tree, path: &[String]) -> ModulePath {
    let mut module = ModulePath::new();
    for (at, name) in path.iter().enumerate() {
        let known = &tree[&module];
        let mut inner = module.clone();
        inner.push(name.clone());
        if tree.contains_key(&inner) {
            module = inner;
        } else if let Some(target) = known.imports.get(name) {
            // A target that goes through the same name again is a module of that name outside.
            let target = [target, &path[at + 1..]].concat();
            return if target == path {
                module
            } else {
                module_of(tree, &target)
            };
        } else {
            break;
        }
    }
    module
}

fn parse(name: &str, text: &str) -> (ModulePath, Module) {
    let stem = name.trim_end_matches(".rs").trim_end_matches("/mod");
    let path: ModulePath = match stem {
        "lib" => ModulePath::new(),
        stem => stem.split('/').map(str::to_owned).collect(),
    };
    let mut module = Module {
        file: format!("src/{name}"),
        ..Module::default()
    };

    let tokens = tokens(text);
    let word = |at: usize| tokens.get(at).map_or("", |(_, token)| token.as_str());
    let mut depth = 0;
    // The inline modules around the current token, each with the depth of its braces.
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let scope: ModulePath = path
            .iter()
            .chain(inline.iter().map(|(name, _)| name))
            .cloned()
            .collect();
        match word(at) {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inline.retain(|(_, opened)| *opened <= depth);
            }
            "mod" if word(at + 2) == ";" => {
                let name = word(at + 1).to_owned();
                let attributes = &tokens[..at];
                if feature_attribute(attributes) == Some(&*name) {
                    module.optional.push(name.clone());
                }
                declare(&mut module, &path, name, file_attribute(attributes));
            }
            "feature" if word(at + 1) == "=" => {
                let feature = word(at + 2).trim_matches('"').to_owned();
                module.features.push((tokens[at].0, feature));
            }
            "mod" if word(at + 2) == "{" => inline.push((word(at + 1).to_owned(), depth + 1)),
            "use" => {
                let (end, leaves) = use_tree(&tokens, at + 1, &[]);
                for (line, leaf, imported) in leaves {
                    if let Some(absolute) = resolve(&scope, &module.declares, &leaf) {
                        module.imports.insert(imported, absolute.clone());
                        module.uses.push((line, absolute));
                    }
                }
                at = end;
                continue;
            }
            name if is_path(&word, at, &module.declares) => {
                let line = tokens[at].0;
                let mut leaf = vec![name.to_owned()];
                while word(at + 1) == "::" && is_name(word(at + 2)) {
                    leaf.push(word(at + 2).to_owned());
                    at += 2;
                }
                if let Some(absolute) = resolve(&scope, &module.declares, &leaf) {
                    module.uses.push((line, absolute));
                }
            }
            _ => {}
        }
        at += 1;
    }
    (path, module)
}

/// What stands in the `#[path = "…"]` right before a `mod` line, or right before its visibility.
fn file_attribute(tokens: &[(usize, String)]) -> Option<&str> {
    match attribute(tokens)[..] {
        [.., "#", "[", "path", "=", file] => Some(file.trim_matches('"')),
        _ => None,
    }
}

/// What stands in the `#[cfg(feature = "…")]` right before a `mod` line, or right before its visibility.
fn feature_attribute(tokens: &[(usize, String)]) -> Option<&str> {
    match attribute(tokens)[..] {
        [.., "#", "[", "cfg", "(", "feature", "=", feature, ")"] => Some(feature.trim_matches('"')),
        _ => None,
    }
}

/// The tokens up to the end of the attribute right before a `mod` line, or right before its visibility.
fn attribute(tokens: &[(usize, String)]) -> Vec<&str> {
    let line: Vec<_> = tokens.iter().map(|(_, token)| token.as_str()).collect();
    let Some(closing) = line.iter().rposition(|token| *token == "]") else {
        return Vec::new();
    };
    let visibility = line[closing + 1..]
        .iter()
        .all(|token| ["pub", "(", ")", "crate", "super"].contains(token));
    if visibility {
        line[..closing].to_vec()
    } else {
        Vec::new()
    }
}

/// Notes a `mod` line. A file with another name is known by its file: `engine` of two platforms is
/// two modules here.
fn declare(module: &mut Module, path: &[String], name: String, file: Option<&str>) {
    let Some(file) = file else {
        return module.declares.push(name);
    };
    let stem = file.trim_end_matches(".rs");
    let own = path
        .last()
        .map_or_else(String::new, |own| format!("{own}/"));
    let inner = stem.strip_prefix(&own).unwrap_or(stem).to_owned();
    module
        .imports
        .insert(name, [path, std::slice::from_ref(&inner)].concat());
    module.declares.push(inner);
}

/// Whether a path into the crate begins at `at`, and not a visibility.
fn is_path<'a>(word: &impl Fn(usize) -> &'a str, at: usize, declares: &[String]) -> bool {
    let before = |back| at.checked_sub(back).map_or("", word);
    let inside = ["crate", "self", "super"].contains(&word(at))
        || declares.iter().any(|declared| declared == word(at)) && before(1) != "::";
    let visibility = before(1) == "in" && before(2) == "(";
    inside && word(at + 1) == "::" && !visibility
}

/// Reads one tree of a `use` line and gives the place after it, and its leaves.
fn use_tree(tokens: &[(usize, String)], mut at: usize, before: &[String]) -> (usize, Vec<Leaf>) {
    let word = |at: usize| tokens.get(at).map_or("", |(_, token)| token.as_str());
    let mut path = before.to_vec();
    let mut line = 0;
    loop {
        match word(at) {
            "{" => {
                let mut leaves = Vec::new();
                at += 1;
                while !matches!(word(at), "}" | "") {
                    let (end, inner) = use_tree(tokens, at, &path);
                    leaves.extend(inner);
                    at = if word(end) == "," { end + 1 } else { end };
                }
                return (at + 1, leaves);
            }
            "self" if !before.is_empty() && path.len() == before.len() => line = tokens[at].0,
            "::" => {}
            name if is_name(name) && name != "as" => {
                line = tokens[at].0;
                path.push(name.to_owned());
            }
            "*" => line = tokens[at].0,
            _ => break,
        }
        at += 1;
    }
    let mut imported = path.last().cloned().unwrap_or_default();
    if word(at) == "as" {
        imported = word(at + 1).to_owned();
        at += 2;
    }
    (at, vec![(line, path, imported)])
}

/// The path from the root for one as written inside `scope`, if it stays inside the crate.
fn resolve(scope: &[String], declares: &[String], path: &[String]) -> Option<ModulePath> {
    let first = path.first()?;
    let mut base = match first.as_str() {
        "crate" => ModulePath::new(),
        "self" | "super" => scope.to_vec(),
        name if declares.iter().any(|declared| declared == name) => {
            return Some([scope, path].concat());
        }
        _ => return None,
    };
    for name in path.iter().skip(usize::from(first != "super")) {
        if name == "super" {
            base.pop();
        } else {
            base.push(name.clone());
        }
    }
    Some(base)
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The words, signs and literals of `text` with their lines; comments are left out.
fn tokens(text: &str) -> Vec<(usize, String)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
        let length = comment(rest).unwrap_or_else(|| {
            let name = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let length = match name {
                _ if literal(rest).is_some() => literal(rest).unwrap_or_default(),
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                name => name,
            };
            if !first.is_whitespace() {
                tokens.push((line, rest[..length].to_owned()));
            }
            length
        });
        rest = &rest[length..];
    }
    tokens
}

/// The length of the comment that `rest` begins with.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        Some(rest.find('\n').unwrap_or(rest.len()))
    } else if rest.starts_with("/*") {
        Some(block_comment(rest))
    } else {
        None
    }
}

/// The length of the string or character that `rest` begins with.
fn literal(rest: &str) -> Option<usize> {
    let plain = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - plain.len();
    let raw = plain
        .strip_prefix('r')
        .map(|raw| (raw, raw.trim_start_matches('#')));
    if let Some((raw, quoted)) = raw.filter(|(_, quoted)| quoted.starts_with('"')) {
        let hashes = raw.len() - quoted.len();
        let (from, end) = (prefix + 1 + hashes + 1, format!("\"{}", "#".repeat(hashes)));
        Some(
            rest[from..]
                .find(&end)
                .map_or(rest.len(), |at| from + at + end.len()),
        )
    } else if prefix <= 1 && plain.starts_with('"') {
        Some(prefix + quoted(plain, '"'))
    } else if prefix <= 1 && plain.starts_with('\'') && !is_lifetime(plain) {
        Some(prefix + quoted(plain, '\''))
    } else {
        None
    }
}

fn is_lifetime(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    chars.next().is_some_and(|c| c != '\\') && chars.next() != Some('\'')
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn read_sources(folder: &Path, below: &str, files: &mut Vec<(String, String)>) {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if path.is_dir() {
            read_sources(&path, &format!("{name}/"), files);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
            files.push((name, text));
        }
    }
}
