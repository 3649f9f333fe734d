//! Draws `docs/shutdown.txt`: as the picture `docs/shutdown.svg`, and as the text drawings inside
//! `docs/shutdown.md`. One source, so that the two cannot tell different stories.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::source::Panel;

mod source;
mod svg;
mod text;

/// What stands in the page before each drawing.
const BEFORE: &str = "<!-- drawn by timeline -->\n```text\n";
const AFTER: &str = "```\n";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let panels = source::parse(&fs::read_to_string(docs("shutdown.txt"))?)?;
    let crowded = svg::crowded(&panels);
    if !crowded.is_empty() {
        return Err(format!("no room for these words: {crowded:#?}").into());
    }
    fs::write(docs("shutdown.svg"), svg::draw(&panels))?;
    let page = fs::read_to_string(docs("shutdown.md"))?;
    fs::write(docs("shutdown.md"), with_drawings(&page, &panels)?)?;
    Ok(())
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// The page with each of its drawings drawn anew.
fn with_drawings(page: &str, panels: &[Panel]) -> io::Result<String> {
    let mut parts = page.split(BEFORE);
    let mut drawn = parts.next().unwrap_or_default().to_owned();
    let mut panels = panels.iter();
    for part in parts {
        let (Some(panel), Some((_, rest))) = (panels.next(), part.split_once(AFTER)) else {
            return Err(io::Error::other(
                "the page has a drawing too many, or one without an end",
            ));
        };
        drawn += &[BEFORE, &text::draw(panel), AFTER, rest].concat();
    }
    match panels.next() {
        Some(panel) => Err(io::Error::other(format!(
            "no place in the page for: {}",
            panel.title
        ))),
        None => Ok(drawn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADVICE: &str = "draw it anew: cargo run -p timeline";

    fn panels() -> Vec<Panel> {
        source::parse(&fs::read_to_string(docs("shutdown.txt")).unwrap()).unwrap()
    }

    #[test]
    fn the_committed_picture_is_what_the_source_says() {
        let committed = fs::read_to_string(docs("shutdown.svg")).unwrap();
        assert!(committed == svg::draw(&panels()), "{ADVICE}");
    }

    #[test]
    fn the_committed_drawings_are_what_the_source_says() {
        let committed = fs::read_to_string(docs("shutdown.md")).unwrap();
        assert!(
            committed == with_drawings(&committed, &panels()).unwrap(),
            "{ADVICE}"
        );
    }

    #[test]
    fn every_word_has_room_in_the_picture() {
        assert_eq!(svg::crowded(&panels()), Vec::<String>::new());
    }

    #[test]
    fn a_drawing_without_a_place_is_refused() {
        assert!(with_drawings("no drawing here", &panels()).is_err());
        let page = format!("{BEFORE}{AFTER}").repeat(panels().len() + 1);
        assert!(with_drawings(&page, &panels()).is_err());
    }

    #[test]
    fn a_bar_is_drawn_from_its_beginning_to_its_end() {
        let panels = source::parse("panel p\nspan -1 1\nrow r\nbar -1 -0.5 work\nbar 0 1 work\n");
        let panels = panels.unwrap();

        let drawing = text::draw(&panels[0]);
        assert!(
            drawing.contains("r               ████    ████████\n"),
            "{drawing}"
        );
        assert!(svg::draw(&panels).contains(r#"<rect class="work" x="561""#));
    }

    #[test]
    fn a_word_without_room_is_found() {
        let panels = source::parse("panel p\nspan 0 9\nrow r\nbar 0 1 work far too long a word\n");

        assert_eq!(
            svg::crowded(&panels.unwrap()),
            ["p: r: far too long a word"]
        );
    }

    #[test]
    fn a_word_that_means_nothing_is_refused_with_its_line() {
        for (line, what) in [
            ("bars 0 1 work", "what is `bars`?"),
            ("bar 0 1 nap", "what is `nap`?"),
            ("bar 0 x work", "what time is `x`?"),
            ("mark 5 done", "5000 ms is outside of the span"),
        ] {
            let source = format!("panel p\nspan -1 1\nrow r\n{line}\n");
            assert_eq!(
                source::parse(&source).unwrap_err().to_string(),
                format!("line 4: {what}")
            );
        }
    }
}
