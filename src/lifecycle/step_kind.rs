//! [`StepKind`]: the kinds of steps in a lifecycle.

use std::fmt;

/// The kind of a step in a lifecycle.
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
    /// The load balancers get time to see that the service is not ready.
    LameDuck,
    /// A component is told to drain, which is the first phase of a two-phase stop.
    Drain,
    /// A component is told to stop, until it has ended or was cut.
    Stop,
    /// The cleanup closes what was opened.
    Cleanup,
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
