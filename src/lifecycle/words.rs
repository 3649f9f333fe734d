//! Times and text as the report shows them.

use std::time::Duration;

/// A time in a sentence, cut to milliseconds: `1.5s`, `120ms`.
pub(super) fn in_words(time: Duration) -> String {
    let cut = Duration::from_nanos(u64::from(time.subsec_nanos() % 1_000_000));
    match time - cut {
        Duration::ZERO => "0ms".to_owned(),
        time => format!("{time:?}"),
    }
}

/// A text without what would break a line.
pub(super) fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A text of at most `limit` characters.
pub(super) fn shortened(text: &str, limit: usize) -> String {
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
    fn a_time_is_cut_to_milliseconds() {
        assert_eq!(in_words(Duration::from_nanos(999_999)), "0ms");
        assert_eq!(in_words(Duration::from_nanos(1_999_999_999)), "1.999s");
        assert_eq!(in_words(Duration::from_secs(90)), "90s");
    }

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
