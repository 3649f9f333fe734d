//! [`Label`]: method and path of a request, for the report.

use std::fmt;

/// As much of a method and a path as fits: `GET /slow`.
///
/// It is kept in place. A copy of the request's own would take part in its reference count, and
/// nearly no label is ever looked at. The query is left out: it may hold secrets.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    length: u8,
    bytes: [u8; Label::SIZE],
}

impl Label {
    const SIZE: usize = 63;

    #[inline]
    pub(crate) fn new(method: &str, path: &str) -> Self {
        let mut label = Self {
            length: 0,
            bytes: [0; Self::SIZE],
        };
        label.push(method);
        label.push(" ");
        label.push(path);
        label
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "it is bounded by `SIZE`")]
    fn push(&mut self, text: &str) {
        let room = &mut self.bytes[usize::from(self.length)..];
        let taken = room.len().min(text.len());
        room[..taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken as u8;
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.bytes[..usize::from(self.length)]);
        // What was cut through the middle of a character.
        f.write_str(text.trim_end_matches(char::REPLACEMENT_CHARACTER))?;
        if usize::from(self.length) == Self::SIZE {
            f.write_str("…")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_path_is_whole() {
        assert_eq!(Label::new("GET", "/slow").to_string(), "GET /slow");
    }

    #[test]
    fn a_long_path_is_shortened_between_two_characters() {
        let label = Label::new("GET", &format!("/{}", "ä".repeat(100)));

        assert_eq!(label.to_string(), format!("GET /{}…", "ä".repeat(29)));
    }
}
