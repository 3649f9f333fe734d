//! [`Ended`]: how a process under test ended.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use crate::group::time::Rounded;
use crate::testing::journal::Journal;

/// How a process under test ended, with its whole output and what it has left behind.
///
/// Each failed assertion prints the whole story.
///
/// # Examples
///
/// ```
/// use taskgroup::testing::Binary;
///
/// let end = Binary::new("sh").args(["-c", "echo 'no database' >&2; exit 70"]).start().wait();
/// end.assert_code(70).assert_says("no database").assert_nothing_left();
/// ```
#[derive(Clone, Debug)]
pub struct Ended {
    status: Option<ExitStatus>,
    took: Duration,
    output: [String; 2],
    left: Vec<String>,
    story: Journal,
}

impl Ended {
    pub(super) fn new(
        status: Option<ExitStatus>,
        took: Duration,
        output: [String; 2],
        left: Vec<String>,
        story: Journal,
    ) -> Self {
        Self {
            status,
            took,
            output,
            left,
            story,
        }
    }

    /// Returns the exit status, or `None` if a signal killed the process.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status?.code()
    }

    /// Returns the number of the signal that killed it.
    #[must_use]
    pub fn killed_by(&self) -> Option<i32> {
        self.status?.signal()
    }

    /// Returns how long it took to end, from its first signal or else from its start.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Returns what it wrote to stdout.
    #[must_use]
    pub fn stdout(&self) -> &str {
        &self.output[0]
    }

    /// Returns what it wrote to stderr.
    #[must_use]
    pub fn stderr(&self) -> &str {
        &self.output[1]
    }

    /// Returns what it has left behind: processes of its group with the sockets that they hold (Linux), and
    /// files in a [new directory](super::Binary::in_a_new_directory), including sockets.
    #[must_use]
    pub fn left(&self) -> &[String] {
        &self.left
    }

    /// Fails unless the exit status is `code`.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        let story = &self.story;
        assert_eq!(
            self.code(),
            Some(code),
            "the exit status is wrong:\n{story}"
        );
        self
    }

    /// Fails unless a line on stderr contains `part`.
    #[track_caller]
    pub fn assert_says(&self, part: &str) -> &Self {
        let story = &self.story;
        let says = self.stderr().lines().any(|line| line.contains(part));
        assert!(says, "no line on stderr contains {part:?}:\n{story}");
        self
    }

    /// Fails if it [took](Self::took) longer than `limit`.
    #[track_caller]
    pub fn assert_within(&self, limit: Duration) -> &Self {
        let (took, limits, story) = (Rounded(self.took), Rounded(limit), &self.story);
        assert!(
            self.took <= limit,
            "it took {took}, and not {limits} at most:\n{story}"
        );
        self
    }

    /// Fails if it has [left](Self::left) anything behind.
    #[track_caller]
    pub fn assert_nothing_left(&self) -> &Self {
        let (left, story) = (self.left.join("\n  "), &self.story);
        assert!(
            self.left.is_empty(),
            "it has left behind\n  {left}\n{story}"
        );
        self
    }
}
