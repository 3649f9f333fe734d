//! The README and the crate page open with the same words and the same programs, and they are short.

const README: &str = include_str!("../README.md");
const CRATE: &str = include_str!("../src/lib.rs");

/// The lines of the crate page, as Markdown.
fn crate_page() -> Vec<&'static str> {
    let line = |line: &'static str| {
        let doc = line
            .strip_prefix("//!")
            .map(|line| line.strip_prefix(' ').unwrap_or(line));
        // The fence of a program that needs features.
        doc.or_else(|| line.contains("doc = \"```no_run\"").then_some("```"))
    };
    CRATE.lines().filter_map(line).collect()
}

fn readme() -> Vec<&'static str> {
    README.lines().skip(2).collect()
}

/// The programs of a page: its blocks in Rust.
fn programs(page: &[&str]) -> Vec<String> {
    let mut programs = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in page {
        match (&mut open, line.strip_prefix("```")) {
            (Some(program), None) => program.push(line),
            (Some(program), Some(_)) => {
                programs.push(program.join("\n"));
                open = None;
            }
            // A block in another language is opened and closed too, and is not a program.
            (None, Some(_)) => open = Some(Vec::new()),
            (None, None) => {}
        }
    }
    programs
}

fn before_the_first_program<'a>(page: &[&'a str]) -> Vec<&'a str> {
    let lines = page.iter().take_while(|line| !line.starts_with("```"));
    lines.copied().collect()
}

fn words(lines: &[&str]) -> usize {
    lines
        .iter()
        .flat_map(|line| line.split_whitespace())
        .filter(|word| *word != "-")
        .count()
}

#[test]
fn the_readme_and_the_crate_page_open_with_the_same_words() {
    let opening = before_the_first_program(&readme());
    assert!(opening.len() >= 5, "{opening:?}");
    assert_eq!(opening, before_the_first_program(&crate_page()));
}

#[test]
fn the_readme_and_the_crate_page_have_the_same_two_programs() {
    let (readme, page) = (programs(&readme()), programs(&crate_page()));
    assert_eq!(readme[..2], page[..2]);
}

#[test]
fn the_first_programs_are_short() {
    let shown = |program: &String| {
        program
            .lines()
            .filter(|line| !line.starts_with("# "))
            .count()
    };
    let lines: Vec<_> = programs(&readme()).iter().take(2).map(shown).collect();
    assert!(lines[0] <= 10, "{lines:?}");
    assert!(lines[1] <= 15, "{lines:?}");
}

#[test]
fn the_first_screens_are_short() {
    assert!(README.lines().count() <= 120);
    assert!(crate_page().len() <= 250);
    assert!(words(&before_the_first_program(&readme())) <= 70);
    assert!(words(&before_the_first_program(&crate_page())) <= 90);
}

#[test]
fn the_pages_that_the_readme_links_to_are_there() {
    let links = README
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    for link in links.filter(|link| !link.contains("://")) {
        let path = link.split('#').next().unwrap_or_default();
        assert!(
            std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(path)
                .exists(),
            "{link}"
        );
    }
}
