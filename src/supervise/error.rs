//! [`SupervisorError`]: failures that a supervisor has not mended.

use std::borrow::Cow;
use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::group::chain;
use crate::group::end::End;
use crate::group::failure::Failure;
use crate::group::time::CONFIRMATION;
use crate::group::time::Rounded;
use crate::group::verdict;
use crate::group::verdict::Ended;

/// How a supervisor failed.
///
/// The message names the child and the exceeded limit, as in
/// ``supervisor `kafka`: child `consumer` failed after 5 restarts within 60s``.
/// [`source`](Error::source) is the child's last error, or its panic.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::TaskGroup;
/// use taskgroup::supervise::{Supervisor, SupervisorError};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let mut group = TaskGroup::new();
/// Supervisor::new("kafka")
///     .intensity(2, Duration::from_secs(10))
///     .child("consumer", |_token| async { Err("the broker is gone".into()) })
///     .spawn(&group)?;
///
/// let error = group.wait().await.unwrap_err().into_error().unwrap();
/// let error = error.downcast_ref::<SupervisorError>().unwrap();
/// assert!(error.is_escalated());
/// assert_eq!(error.child(), "consumer");
/// assert_eq!(
///     format!("{error:#}"),
///     "supervisor `kafka`: child `consumer` failed after 2 restarts within 10s: the broker is gone"
/// );
/// # Ok(())
/// # }
/// ```
pub struct SupervisorError(pub(super) Box<Report>);

pub(super) struct Report {
    pub(super) supervisor: Cow<'static, str>,
    pub(super) fault: Option<Fault>,
    /// The children that were aborted at the end.
    pub(super) forced: Vec<Overrun>,
    /// Those of them that were still running afterwards.
    pub(super) lost: Vec<Overrun>,
}

/// A child that had not stopped when its time was up.
#[derive(Clone)]
pub(super) struct Overrun {
    pub(super) child: Cow<'static, str>,
    /// The time that it had.
    pub(super) within: Duration,
}

/// A failure that was not mended.
pub(super) struct Fault {
    pub(super) child: Cow<'static, str>,
    pub(super) failure: Failure,
    /// The intensity, if it was exceeded. `None` if the child failed when it was to stop.
    pub(super) exceeded: Option<(usize, Duration)>,
}

impl SupervisorError {
    /// Returns the name of the supervisor.
    #[must_use]
    pub fn supervisor(&self) -> &str {
        &self.0.supervisor
    }

    /// Returns the name of the child that failed, or of the first that had to be aborted.
    #[must_use]
    pub fn child(&self) -> &str {
        let fault = self.0.fault.as_ref().map(|fault| &*fault.child);
        let mut others = self.forced().chain(self.still_running());
        fault.or_else(|| others.next()).unwrap_or_default()
    }

    /// Returns whether a child failed more often than the intensity allows.
    #[must_use]
    pub fn is_escalated(&self) -> bool {
        let fault = self.0.fault.as_ref();
        fault.is_some_and(|fault| fault.exceeded.is_some())
    }

    /// Returns how the child that failed has ended. Without a failure it is
    /// [`TimedOut`](End::TimedOut), or [`StillRunning`](End::StillRunning) if a child could not be
    /// aborted.
    #[must_use]
    pub fn end(&self) -> End {
        match &self.0.fault {
            Some(fault) => fault.failure.end(),
            None if self.0.lost.is_empty() => End::TimedOut,
            None => End::StillRunning,
        }
    }

    /// Returns the names of the children that had to be aborted at the end.
    pub fn forced(&self) -> impl Iterator<Item = &str> {
        self.0.forced.iter().map(|overrun| &*overrun.child)
    }

    /// Returns the names of the children that could not be aborted because they block their
    /// threads.
    pub fn still_running(&self) -> impl Iterator<Item = &str> {
        self.0.lost.iter().map(|overrun| &*overrun.child)
    }
}

impl SupervisorError {
    fn why(&self) -> Option<&(dyn Error + 'static)> {
        self.0.fault.as_ref()?.failure.source()
    }
}

impl fmt::Display for SupervisorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        chain::show(f, &self.0.to_string(), self.why())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            supervisor,
            fault,
            forced,
            lost,
        } = self;
        write!(f, "supervisor `{supervisor}`")?;
        let mut separator = ": ";
        let is_lost: HashSet<_> = lost.iter().map(|overrun| &overrun.child).collect();
        let gone = forced
            .iter()
            .filter(|overrun| !is_lost.contains(&overrun.child));
        for Overrun { child, within } in gone {
            write!(
                f,
                "{separator}child `{child}` did not stop within {} and was aborted",
                Rounded(*within)
            )?;
            separator = "; ";
        }
        for Overrun { child, within } in lost {
            write!(
                f,
                "{separator}child `{child}` did not stop within {} and is still running {} after its abort",
                Rounded(*within),
                Rounded(CONFIRMATION)
            )?;
            separator = "; ";
        }
        // Last, so that the source follows it.
        match fault {
            Some(fault) => write!(f, "{separator}{fault}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            child,
            failure,
            exceeded,
        } = self;
        let when = match exceeded {
            Some((1, window)) => format!(" after 1 restart within {}", Rounded(*window)),
            Some((restarts, window)) => {
                format!(" after {restarts} restarts within {}", Rounded(*window))
            }
            None => " while stopping".to_owned(),
        };
        write!(f, "child `{child}` {}", Described(failure, &when))
    }
}

/// A child's failure and its time, such as `failed after 3 restarts within 60s`, without the error.
pub(super) struct Described<'a>(pub(super) &'a Failure, pub(super) &'a str);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(failure, when) = self;
        match failure {
            Failure::Failed(_) => write!(f, "failed{when}"),
            Failure::Panicked(_) => write!(f, "panicked{when}"),
            Failure::EndedEarly => write!(f, "is permanent and returned{when}"),
            Failure::Aborted => write!(f, "was dropped before it ended{when}"),
        }
    }
}

impl Error for SupervisorError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        verdict::tell(self);
        self.why()
    }
}

impl Ended for SupervisorError {
    fn end(&self) -> End {
        self.end()
    }

    fn as_error(&self) -> &(dyn Error + 'static) {
        self
    }
}

/// Lets [`Exit`](crate::Exit) take the error.
impl AsRef<dyn Error + Send + Sync> for SupervisorError {
    fn as_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }
}

impl fmt::Debug for SupervisorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f
                .debug_struct("SupervisorError")
                .field("message", &self.0.to_string())
                .field("source", &self.why())
                .finish();
        }
        chain::explain(f, &self.0.to_string(), self.why(), None)
    }
}
