//! Text for the report.

use std::time::Duration;

use crate::group::end::End;
use crate::group::time::Rounded;

/// How something ended, such as `done`, `failed: disk full` or `timed out after 5s`.
pub(crate) fn ended(end: End, limit: Option<Duration>, message: &str) -> String {
    match limit {
        _ if !message.is_empty() => format!("{end}: {message}"),
        Some(limit) => format!("{end} after {}", Rounded(limit)),
        None => end.to_string(),
    }
}

/// The text on one line, with a space for each control character.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A text of at most `limit` characters.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    kept.trim_end().to_owned() + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shortened_by_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
        assert_eq!(shortened("a bcd", 3), "a…");
    }

    #[test]
    fn a_line_stays_one() {
        assert_eq!(one_line("a\r\nb\u{1b}[1m"), "a  b [1m");
    }
}
