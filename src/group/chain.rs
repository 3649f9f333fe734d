//! The chain of an error and its sources, and how they print.
//!
//! All errors of this crate print by the same rules. `Display` says what happened and
//! [`source`](Error::source) says why, so a reporter that walks the chain prints each message once.
//! `{:#}` prints the chain on one line. `Debug`, which `main` uses to print a returned error, is a text
//! of several lines. `{:#?}` shows the fields.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter;
use std::ops::Deref;
use std::sync::Arc;

use crate::group::panic::Panic;

/// Comes before the other errors in the message of an error that stands for several.
const ALSO: &str = " (also: ";

/// The error and its sources, including an error inside an [`io::Error`], whose own `source` skips it.
pub(crate) fn errors<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |error| below(*error))
}

/// The next error of a chain. `source` is user code, and a panic in it ends the chain.
#[inline(never)]
pub(crate) fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let below = Panic::catch(|| next(error));
    below.unwrap_or_else(|panic| {
        panic.discard();
        None
    })
}

/// The next error of a chain, even if `source` skips it. The standard library's wrappers return the
/// source of the error they wrap.
pub(crate) fn next<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let io = error.downcast_ref::<io::Error>();
    if let Some(inner) = io.and_then(io::Error::get_ref) {
        return Some(inner);
    }
    behind::<Box<io::Error>, _>(error)
        .or_else(|| behind::<Arc<io::Error>, _>(error))
        .or_else(|| {
            let shared = error.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
            Some(&**shared)
        })
        .or_else(|| error.source())
}

/// The error that `error` points to, if it is a pointer of type `P`.
pub(crate) fn behind<'a, P, T>(
    error: &'a (dyn Error + 'static),
) -> Option<&'a (dyn Error + 'static)>
where
    P: Error + Deref<Target = T> + 'static,
    T: Error + 'static,
{
    let pointer: &P = error.downcast_ref()?;
    Some(&**pointer)
}

/// The messages of a chain on one line, each message once.
pub(crate) fn line_of(error: &(dyn Error + 'static)) -> String {
    line(&message_of(error), below(error))
}

/// A message and the chain below it on one line.
#[cold]
pub(crate) fn line(message: &str, why: Option<&(dyn Error + 'static)>) -> String {
    let mut line = message.to_owned();
    for source in sources(message, why) {
        line.push_str(": ");
        line.push_str(&source);
    }
    line
}

/// Prints a message, and with `{:#}` the chain below it.
pub(crate) fn show(
    f: &mut fmt::Formatter<'_>,
    message: &str,
    why: Option<&(dyn Error + 'static)>,
) -> fmt::Result {
    if f.alternate() {
        f.write_str(&line(message, why))
    } else {
        f.write_str(message)
    }
}

/// The same for an error that stands for several. Prints the first error, and the others with their
/// reasons.
///
/// A reporter that walks the chain prints the reason of the first error after this text, so the others
/// come before it in brackets.
pub(crate) fn show_all(
    f: &mut fmt::Formatter<'_>,
    message: &str,
    why: Option<&(dyn Error + 'static)>,
    others: impl IntoIterator<Item = String>,
) -> fmt::Result {
    show(f, message, why)?;
    let mut all = String::new();
    for other in others {
        if !all.is_empty() {
            all.push_str("; ");
        }
        all.push_str(&other);
    }
    match all {
        all if all.is_empty() => Ok(()),
        all if f.alternate() => write!(f, "; {all}"),
        all => write!(f, "{ALSO}{all})"),
    }
}

/// Prints a message, the chain below it and the other failures, for a person to read.
pub(crate) fn explain(
    f: &mut fmt::Formatter<'_>,
    message: &str,
    why: Option<&(dyn Error + 'static)>,
    also: impl IntoIterator<Item = String>,
) -> fmt::Result {
    let also: Vec<_> = also.into_iter().collect();
    explain_all(f, message, why, &also)
}

#[cold]
fn explain_all(
    f: &mut fmt::Formatter<'_>,
    message: &str,
    why: Option<&(dyn Error + 'static)>,
    also: &[String],
) -> fmt::Result {
    f.write_str(message)?;
    let sources = sources(message, why);
    if !sources.is_empty() {
        f.write_str("\n\nCaused by:")?;
    }
    for (index, source) in sources.iter().enumerate() {
        match sources.len() {
            1 => write!(f, "\n    {source}")?,
            _ => write!(f, "\n    {index}: {source}")?,
        }
    }
    if !also.is_empty() {
        f.write_str("\n\nAlso:")?;
    }
    for other in also {
        write!(f, "\n    {other}")?;
    }
    Ok(())
}

/// The messages of the chain below a message, except those that the message above contains.
///
/// Many errors repeat their source's message in their own, as was long the custom.
#[cold]
fn sources(message: &str, why: Option<&(dyn Error + 'static)>) -> Vec<String> {
    let mut above = message.to_owned();
    let mut sources = Vec::new();
    let mut next = why;
    while let Some(error) = next {
        let message = message_of(error);
        if !contains(&above, &message) {
            sources.push(message.clone());
        }
        above = message;
        next = below(error);
    }
    sources
}

/// Whether `above` contains `message` as whole words, and not as the reason of another error.
#[inline(never)]
fn contains(above: &str, message: &str) -> bool {
    let above = above.find(ALSO).map_or(above, |also| &above[..also]);
    let Some(first) = message.chars().next() else {
        return true;
    };
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut from = 0;
    while let Some(at) = above[from..].find(message) {
        let at = from + at;
        let before = above[..at].chars().next_back();
        let after = above[at + message.len()..].chars().next();
        let joins_before = is_word(before) && is_word(Some(first));
        let joins_after = is_word(after) && is_word(message.chars().next_back());
        if !joins_before && !joins_after {
            return true;
        }
        from = at + first.len_utf8();
    }
    false
}

/// The message of an error. `Display` is user code.
#[inline(never)]
fn message_of(error: &(dyn Error + 'static)) -> String {
    let message = Panic::catch(|| error.to_string());
    message.unwrap_or_else(|panic| {
        let message = format!("(its message panicked: {})", panic.message());
        panic.discard();
        message
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Said(&'static str, #[source] Option<Box<dyn Error + 'static>>);

    fn chain(messages: &[&'static str]) -> Said {
        let source = match &messages[1..] {
            [] => None,
            below => Some(chain(below).into()),
        };
        Said(messages[0], source)
    }

    #[test]
    fn each_message_is_said_once() {
        for (messages, line) in [
            (&["no quorum"][..], "no quorum"),
            (&["start failed", "no route"], "start failed: no route"),
            (&["start: no route", "no route"], "start: no route"),
            (&["a: b: c", "b: c", "c"], "a: b: c"),
            (&["no (tcp: refused)", "refused"], "no (tcp: refused)"),
            (&["task `notify` failed", "no"], "task `notify` failed: no"),
            (&["a", ""], "a"),
            (&["a (also: b: no)", "no"], "a (also: b: no): no"),
        ] {
            assert_eq!(line_of(&chain(messages)), line);
        }
    }

    #[test]
    fn an_io_error_does_not_hide_what_it_wraps() {
        let error = io::Error::other(chain(&["half a page", "disk full"]).0);
        assert_eq!(line_of(&error), "half a page");

        #[derive(Debug, thiserror::Error)]
        #[error("half a page")]
        struct Half(#[source] fmt::Error);
        let error = io::Error::other(Half(fmt::Error));
        assert!(errors(&error).any(|error| error.is::<Half>()));
        assert_eq!(line_of(&error), format!("half a page: {}", fmt::Error));
    }

    #[test]
    fn a_message_that_panics_is_told_as_such() {
        #[derive(Debug)]
        struct Loud;
        impl fmt::Display for Loud {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                std::panic::resume_unwind(Box::new("loud"))
            }
        }
        impl Error for Loud {}

        assert_eq!(line_of(&Loud), "(its message panicked: loud)");
    }
}
