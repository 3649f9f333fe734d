//! [`Journal`]: the events of a test, with their times.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::group::lock::Lock;
use crate::group::time::Rounded;

/// The events of a test in order, each line with the time since the journal was made.
///
/// A clone is the same journal. Its time is that of Tokio, so it stands still on a paused clock unless that
/// moves. If it is made within a runtime on a paused clock, the same program writes the same text each time.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::testing::Journal;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let journal = Journal::new();
/// journal.note("the database opens");
/// tokio::time::sleep(Duration::from_millis(1500)).await;
/// journal.note("the database is open");
/// assert_eq!(journal.lines(), ["0s the database opens", "1.5s the database is open"]);
/// # }
/// ```
#[derive(Clone)]
pub struct Journal {
    began: Instant,
    lines: Arc<Lock<Vec<String>>>,
}

impl Journal {
    /// Makes an empty journal, whose time begins now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            lines: Arc::default(),
        }
    }

    /// Adds a line.
    pub fn note(&self, line: impl fmt::Display) {
        let line = format!("{} {line}", Rounded(self.began.elapsed()));
        self.lines.lock().push(line);
    }

    /// Returns a journal of the lines so far, without any later ones.
    pub(super) fn at_its_end(&self) -> Self {
        Self {
            began: self.began,
            lines: Arc::new(Lock::new(self.lines())),
        }
    }

    /// Returns the lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}

/// Prints the lines, each followed by a line break.
impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines()
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Journal").field(&self.lines()).finish()
    }
}
