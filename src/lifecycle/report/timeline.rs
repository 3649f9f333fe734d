//! [`TimelineStep`]: what was done, from when to when.

use std::fmt;
use std::time::Duration;

use crate::group::time::Rounded;

/// A step of a lifecycle: what was done with whom, from when to when; plain data.
///
/// # Examples
///
/// See [`Report`](super::Report).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimelineStep {
    /// The component, the step of the cleanup, or the lifecycle itself.
    pub subject: String,
    /// What was done.
    pub kind: StepKind,
    /// When it began, since the start of the run.
    pub began: Duration,
    /// When it ended or was given up, since the start of the run; not before it began.
    pub ended: Duration,
    /// How it ended.
    pub result: StepEnd,
}

/// What is done in a step of a lifecycle.
///
/// # Examples
///
/// ```
/// use taskgroup::lifecycle::StepKind;
///
/// assert_eq!(StepKind::LameDuck.to_string(), "lame duck");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StepKind {
    /// A component is started, until it is ready.
    Start,
    /// The stop waits a random time, so that not all replicas stop at once.
    Jitter,
    /// The load balancers are given time to see that the service is not ready.
    LameDuck,
    /// A component is told to drain, the first part of a stop in two parts.
    Drain,
    /// A component is told to stop, until it has ended or was cut.
    Stop,
    /// What was opened is closed.
    Cleanup,
}

/// How a step of a lifecycle ended.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::lifecycle::StepEnd;
///
/// let forced = StepEnd::Forced(Duration::from_secs(10));
/// assert_eq!(forced.to_string(), "forced after 10s");
/// assert!(forced.is_trouble());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepEnd {
    /// It did what it was to do.
    Done,
    /// It failed with this message.
    Failed(String),
    /// It had not ended after this time.
    TimedOut(Duration),
    /// It panicked with this message.
    Panicked(String),
    /// It had not ended after this time, and was cut.
    Forced(Duration),
    /// It had not ended after this time, and could not be cut.
    StillRunning(Duration),
    /// It was not done, or was broken off, for this reason.
    Skipped(String),
}

impl TimelineStep {
    /// Makes a step that ended at `ended`, or at its begin if that is later.
    pub(in crate::lifecycle) fn new(
        kind: StepKind,
        subject: impl Into<String>,
        (began, ended): (Duration, Duration),
        result: StepEnd,
    ) -> Self {
        Self {
            subject: subject.into(),
            kind,
            began,
            ended: ended.max(began),
            result,
        }
    }

    /// Returns how long the step took.
    ///
    /// # Examples
    ///
    /// See [`Report`](crate::lifecycle::Report).
    #[must_use]
    pub fn took(&self) -> Duration {
        self.ended.saturating_sub(self.began)
    }
}

impl StepEnd {
    /// Returns whether it is neither done nor skipped.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::StepEnd;
    ///
    /// assert!(StepEnd::Failed("disk full".into()).is_trouble());
    /// assert!(!StepEnd::Done.is_trouble());
    /// ```
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        !matches!(self, Self::Done | Self::Skipped(_))
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Start => "start",
            Self::Jitter => "jitter",
            Self::LameDuck => "lame duck",
            Self::Drain => "drain",
            Self::Stop => "stop",
            Self::Cleanup => "cleanup",
        })
    }
}

impl fmt::Display for StepEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(message) => write!(f, "failed: {message}"),
            Self::TimedOut(limit) => write!(f, "timed out after {}", Rounded(*limit)),
            Self::Panicked(message) => write!(f, "panicked: {message}"),
            Self::Forced(limit) => write!(f, "forced after {}", Rounded(*limit)),
            Self::StillRunning(limit) => write!(f, "still running after {}", Rounded(*limit)),
            Self::Skipped(reason) => write!(f, "skipped: {reason}"),
        }
    }
}
