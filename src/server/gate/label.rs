//! [`Label`]: method and path of a request, for the report.

use std::fmt;

use http::Method;

/// As much of a method and a path as fits, such as `GET /slow`.
///
/// It is stored inline. A clone of the request's own would touch a reference count, and nearly no label is ever
/// read. The query is left out, because it may hold secrets.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    length: u8,
    bytes: [u8; Label::SIZE],
}

impl Label {
    const SIZE: usize = 63;

    /// The label of a request whose service has not been ready yet.
    pub(crate) const NONE: Self = Self {
        length: 0,
        bytes: [0; Self::SIZE],
    };

    /// Makes it as good as [`NONE`](Self::NONE).
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.length = 0;
    }

    /// Must be called once.
    #[inline]
    pub(crate) fn write(&mut self, method: &Method, path: &str) {
        match word(method) {
            // The whole word is written, because that is one store.
            Some((word, length)) => {
                self.bytes[..WORD].copy_from_slice(word);
                self.length = length;
            }
            None => self.push_other(method),
        }
        self.push(path);
    }

    #[cold]
    fn push_other(&mut self, method: &Method) {
        self.push(method.as_str());
        self.push(" ");
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

const WORD: usize = 8;

/// Returns a method as it is written before a path, and its length.
#[inline]
fn word(method: &Method) -> Option<(&'static [u8; WORD], u8)> {
    Some(match *method {
        Method::GET => (b"GET     ", 4),
        Method::PUT => (b"PUT     ", 4),
        Method::HEAD => (b"HEAD    ", 5),
        Method::POST => (b"POST    ", 5),
        Method::PATCH => (b"PATCH   ", 6),
        Method::DELETE => (b"DELETE  ", 7),
        Method::OPTIONS => (b"OPTIONS ", 8),
        _ => return None,
    })
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.bytes[..usize::from(self.length)]);
        if text.is_empty() {
            return f.write_str("(not begun)");
        }
        // The rest of a character that was cut in the middle.
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

    fn label(method: &str, path: &str) -> Label {
        let mut label = Label::NONE;
        label.write(&method.parse().unwrap(), path);
        label
    }

    #[test]
    fn a_short_path_is_whole() {
        assert_eq!(label("GET", "/slow").to_string(), "GET /slow");
    }

    #[test]
    fn each_method_is_shown_as_it_is_written() {
        for method in [
            "GET",
            "PUT",
            "HEAD",
            "POST",
            "PATCH",
            "TRACE",
            "DELETE",
            "OPTIONS",
            "CONNECT",
            "PROPPATCH",
        ] {
            assert_eq!(label(method, "/a").to_string(), format!("{method} /a"));
        }
        assert_eq!(Label::NONE.to_string(), "(not begun)");
    }

    #[test]
    fn a_long_path_is_shortened_between_two_characters() {
        let label = label("GET", &format!("/{}", "ä".repeat(100)));

        assert_eq!(label.to_string(), format!("GET /{}…", "ä".repeat(29)));
    }
}
