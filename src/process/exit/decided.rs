//! The last decision about how the process ends, for code that must not wait for the end.

use std::fmt;
use std::sync::Mutex;
use std::time::Instant;

use crate::group::lock::lock;

/// How the process would end if nothing held it up.
///
/// Its `Display` is one line: `status 1: no database; also: no table`.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    status: u8,
    report: String,
    at: Instant,
}

static LAST: Mutex<Option<Decided>> = Mutex::new(None);

/// Keeps an exit status and the report that goes with it as the last one.
pub(super) fn note(status: u8, report: &str) {
    let decided = Decided {
        status,
        report: report.to_owned(),
        at: Instant::now(),
    };
    let before = lock(&LAST).replace(decided);
    drop(before);
}

/// Returns the last one.
pub(crate) fn last() -> Option<Decided> {
    lock(&LAST).clone()
}

impl Decided {
    /// Returns the exit status.
    pub(crate) fn status(&self) -> u8 {
        self.status
    }

    /// Returns when it was decided.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }
}

impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status)?;
        let lines: Vec<_> = self.report.lines().collect();
        match lines.join("; ").strip_prefix("error: ") {
            Some(errors) => write!(f, ": {errors}"),
            None => Ok(()),
        }
    }
}
