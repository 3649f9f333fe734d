//! [`RestartError`]: why a restart in place has failed.

use std::fmt;
use std::io;

/// Why a restart in place has failed, or why a process cannot take part in one.
///
/// # Examples
///
/// ```no_run
/// # async fn f() {
/// match taskgroup::restart::request("/run/orders/restart.sock").await {
///     Ok(pid) => println!("process {pid} has taken over"),
///     Err(error) if error.is_refused() => println!("not now: {error}"),
///     Err(error) => println!("the old process goes on: {error}"),
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct RestartError {
    kind: Kind,
    why: String,
    source: Option<io::Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Refused,
    Failed,
    Io,
}

impl RestartError {
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self::new(Kind::Refused, why.into(), None)
    }

    pub(super) fn failed(why: impl Into<String>) -> Self {
        Self::new(Kind::Failed, why.into(), None)
    }

    pub(super) fn io(what: impl fmt::Display, error: io::Error) -> Self {
        Self::new(Kind::Io, what.to_string(), Some(error))
    }

    fn new(kind: Kind, why: String, source: Option<io::Error>) -> Self {
        Self { kind, why, source }
    }

    /// Returns the reason without the words around it.
    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// Returns whether the running process has refused to begin, because it starts, stops, or hands over to
    /// another process already.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.kind == Kind::Refused
    }
}

impl fmt::Display for RestartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, &self.source) {
            (Kind::Refused, _) => write!(f, "the restart was refused: {}", self.why),
            (Kind::Failed, _) => write!(f, "the restart has failed: {}", self.why),
            (Kind::Io, Some(source)) if f.alternate() => write!(f, "{}: {source}", self.why),
            (Kind::Io, _) => f.write_str(&self.why),
        }
    }
}

impl std::error::Error for RestartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}
