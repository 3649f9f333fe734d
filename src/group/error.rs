//! A [`TaskError`] says how a group failed.

use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::BoxError;
use crate::group::boxed::OneBox;
use crate::group::cause::{Cause, LostHeartbeat};
use crate::group::chain;
use crate::group::end::End;
use crate::group::failure::{Failure, View};
use crate::group::label::Label;
use crate::group::panic::Panic;
use crate::group::running::Running;
use crate::group::time::Rounded;
use crate::group::verdict;
use crate::group::verdict::Ended;

/// The failure of a group, with the task that failed, how it failed, and the failures after it.
///
/// [`TaskGroup::wait`](crate::TaskGroup::wait) returns it. It contains the task's own error as the task
/// gave it, and [`into_error`](Self::into_error) takes that out.
///
/// The message names the task and its place of spawn, as in ``task `http` (src/main.rs:42) failed``.
/// The [`source`](Error::source) is the task's error itself, or its [`Panic`]. `{:#}` prints both on
/// one line, ``task `http` (src/main.rs:42) failed: address in use``. `Debug`, which `main` uses to
/// print a returned error, prints them on several lines, with the later failures.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::new();
/// group.task("port").spawn(async { Ok("http".parse::<u16>()?) });
///
/// let error = group.wait().await.unwrap_err();
/// assert_eq!(error.name(), Some("port"));
/// assert!(error.to_string().starts_with("task `port` (") && error.to_string().ends_with(") failed"));
/// assert!(format!("{error:#}").ends_with(") failed: invalid digit found in string"));
/// let error = error.into_error().unwrap();
/// assert!(error.is::<std::num::ParseIntError>());
/// # });
/// ```
pub struct TaskError<E = BoxError>(OneBox<Inner<E>>);

struct Inner<E> {
    label: Label,
    fault: Fault<E>,
    view: View<E>,
    suppressed: Vec<TaskError<E>>,
    cause: Option<Cause>,
}

/// Whose failure it is.
pub(crate) enum Fault<E> {
    OfTask(Failure<E>),
    OfGroup(GroupFault),
}

/// How the group as a whole failed.
pub(crate) enum GroupFault {
    /// Tasks did not end within the time the group was given.
    TimedOut(TimedOut),
    /// A [`Heartbeat`](crate::process::Heartbeat) that the group listened to was lost.
    HeartbeatLost(LostHeartbeat),
}

/// Tasks that did not end within the time their group was given.
#[derive(Clone, Debug)]
pub(crate) struct TimedOut {
    limit: Limit,
    stragglers: Running,
    still_running: Running,
}

/// Which limit passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Grace(Duration),
    Deadline(Duration),
    /// It was aborted on purpose, at once.
    Aborted,
}

impl<E> TaskError<E> {
    pub(crate) fn new(label: Label, failure: Failure<E>, view: View<E>) -> Self {
        Self::with_fault(label, Fault::OfTask(failure), view)
    }

    pub(crate) fn of_group(label: Label, fault: GroupFault, view: View<E>) -> Self {
        Self::with_fault(label, Fault::OfGroup(fault), view)
    }

    fn with_fault(label: Label, fault: Fault<E>, view: View<E>) -> Self {
        Self(OneBox::new(Inner {
            label,
            fault,
            view,
            suppressed: Vec::new(),
            cause: None,
        }))
    }

    pub(crate) fn suppress(&mut self, later: Vec<Self>) {
        self.0.suppressed = later;
    }

    /// Takes the later failures out, to be reported one by one.
    pub(crate) fn take_suppressed(&mut self) -> Vec<Self> {
        std::mem::take(&mut self.0.suppressed)
    }

    pub(crate) fn set_cause(&mut self, cause: Cause) {
        self.0.cause = Some(cause);
    }

    /// Stores the tasks that survived the abort, in the failure that describes the timeout.
    pub(crate) fn set_still_running(&mut self, running: Running) {
        if let Fault::OfGroup(GroupFault::TimedOut(timed_out)) = &mut self.0.fault {
            timed_out.still_running = running;
        } else if let Some(later) = self
            .0
            .suppressed
            .iter_mut()
            .rfind(|error| error.timed_out())
        {
            later.set_still_running(running);
        }
    }

    /// Returns the name of the task that failed, as a path such as `orders/http`.
    ///
    /// If the group as a whole timed out or lost a heartbeat, this is the group's name. A task without
    /// a name gives `None`.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        if self.is_of_group() {
            self.0.label.group()
        } else {
            self.0.label.name()
        }
    }

    /// Returns the place where the task was spawned. If the group timed out or lost a heartbeat,
    /// returns the place where the group was made.
    #[must_use]
    pub fn place(&self) -> &'static Location<'static> {
        self.0.label.place()
    }

    /// Returns whether this is the error of a task that only says that it was cancelled.
    pub(crate) fn is_cancellation(&self) -> bool {
        matches!(&self.0.fault, Fault::OfTask(failure) if failure.is_cancellation(self.0.view))
    }

    /// Returns how the task or the group ended.
    ///
    /// A group that ran out of time is [`TimedOut`](End::TimedOut), or
    /// [`StillRunning`](End::StillRunning) if some tasks could not be aborted. A group that lost a
    /// heartbeat is [`Failed`](End::Failed), and its [cause](Self::cause) is [`Cause::Heartbeat`].
    ///
    /// # Examples
    ///
    /// See [`End`].
    #[must_use]
    pub fn end(&self) -> End {
        match &self.0.fault {
            Fault::OfTask(failure) => failure.end(),
            Fault::OfGroup(fault) => fault.end(),
        }
    }

    /// Returns the error the task returned, or `None` if it did not end with its own error.
    #[must_use]
    pub fn error(&self) -> Option<&E> {
        match &self.0.fault {
            Fault::OfTask(Failure::Failed(error)) => Some(error),
            _ => None,
        }
    }

    /// Returns the error the task returned, as it was given.
    ///
    /// # Errors
    ///
    /// Gives the `TaskError` back if the task did not end with its own error.
    pub fn into_error(self) -> Result<E, Self> {
        let inner = self.0.into_inner();
        match inner.fault {
            Fault::OfTask(Failure::Failed(error)) => Ok(error),
            fault => Err(Self(OneBox::new(Inner { fault, ..inner }))),
        }
    }

    /// Returns the panic of the task.
    ///
    /// # Errors
    ///
    /// Gives the `TaskError` back if the task did not panic.
    pub fn into_panic(self) -> Result<Panic, Self> {
        let inner = self.0.into_inner();
        match inner.fault {
            Fault::OfTask(Failure::Panicked(panic)) => Ok(panic),
            fault => Err(Self(OneBox::new(Inner { fault, ..inner }))),
        }
    }

    /// Returns whether the group ran out of the time it was given, here or after another failure.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.timed_out() || self.0.suppressed.iter().any(Self::timed_out)
    }

    /// Returns why the group was cancelled. The first cause wins, so it may differ from this failure.
    ///
    /// `None` for [suppressed](Self::suppressed) failures.
    #[must_use]
    pub fn cause(&self) -> Option<&Cause> {
        self.0.cause.as_ref()
    }

    /// Returns the failures that came after this one, in their order.
    #[must_use]
    pub fn suppressed(&self) -> &[Self] {
        &self.0.suppressed
    }

    /// Returns the tasks that were running when the time was up. Empty if the group did not time out.
    ///
    /// After a [`shutdown`](crate::TaskGroup::shutdown) they have been aborted. After a deadline they
    /// were cancelled and could still end by themselves.
    #[must_use]
    pub fn stragglers(&self) -> Running {
        self.find_timed_out()
            .map(|timed_out| timed_out.stragglers.clone())
            .unwrap_or_default()
    }

    /// Returns the tasks that could not be confirmed dead after the abort.
    ///
    /// These are closures on threads, which cannot be aborted, and tasks that block their thread.
    #[must_use]
    pub fn still_running(&self) -> Running {
        self.find_timed_out()
            .map(|timed_out| timed_out.still_running.clone())
            .unwrap_or_default()
    }

    fn timed_out(&self) -> bool {
        self.own_timed_out().is_some()
    }

    /// Whether the group as a whole failed, rather than a task.
    fn is_of_group(&self) -> bool {
        matches!(self.0.fault, Fault::OfGroup(_))
    }

    fn message(&self) -> String {
        let label = &self.0.label;
        match &self.0.fault {
            Fault::OfTask(failure) => {
                let what = match failure.end() {
                    End::Aborted => "was dropped before it ended",
                    End::EndedEarly => "is essential and ended early",
                    End::Panicked => "panicked",
                    _ => "failed",
                };
                format!("{label} {what}")
            }
            Fault::OfGroup(fault) => format!("{} {fault}", Group(label)),
        }
    }

    fn why(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.fault {
            Fault::OfTask(failure) => failure.why(self.0.view),
            Fault::OfGroup(GroupFault::HeartbeatLost(lost)) => Some(lost),
            Fault::OfGroup(GroupFault::TimedOut(_)) => None,
        }
    }

    fn own_timed_out(&self) -> Option<&TimedOut> {
        match &self.0.fault {
            Fault::OfGroup(GroupFault::TimedOut(timed_out)) => Some(timed_out),
            _ => None,
        }
    }

    fn find_timed_out(&self) -> Option<&TimedOut> {
        let mut errors = std::iter::once(self).chain(&self.0.suppressed);
        errors.find_map(Self::own_timed_out)
    }
}

impl GroupFault {
    fn end(&self) -> End {
        match self {
            Self::HeartbeatLost(_) => End::Failed,
            Self::TimedOut(timed_out) if timed_out.still_running.is_empty() => End::TimedOut,
            Self::TimedOut(_) => End::StillRunning,
        }
    }
}

impl fmt::Display for GroupFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeartbeatLost(_) => f.write_str("failed"),
            Self::TimedOut(timed_out) => timed_out.fmt(f),
        }
    }
}

impl TimedOut {
    pub(crate) fn grace(grace: Duration, stragglers: Running) -> Self {
        Self {
            limit: Limit::Grace(grace),
            stragglers,
            still_running: Running::default(),
        }
    }

    pub(crate) fn deadline(deadline: Duration, stragglers: Running) -> Self {
        Self {
            limit: Limit::Deadline(deadline),
            stragglers,
            still_running: Running::default(),
        }
    }

    pub(crate) fn aborted(stragglers: Running) -> Self {
        Self {
            limit: Limit::Aborted,
            stragglers,
            still_running: Running::default(),
        }
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            limit,
            stragglers,
            still_running,
        } = self;
        match limit {
            Limit::Grace(grace) => {
                write!(
                    f,
                    "did not stop within {} and was aborted with {stragglers}",
                    Rounded(*grace)
                )?;
            }
            Limit::Deadline(deadline) if stragglers.is_empty() => {
                let deadline = Rounded(*deadline);
                write!(f, "passed its deadline of {deadline} before its first task")?;
            }
            Limit::Aborted => write!(f, "was aborted with {stragglers}")?,
            Limit::Deadline(deadline) => {
                write!(
                    f,
                    "passed its deadline of {} with {stragglers}",
                    Rounded(*deadline)
                )?;
            }
        }
        if !still_running.is_empty() {
            write!(f, "; still running: {still_running}")?;
        }
        Ok(())
    }
}

impl<E> fmt::Display for TaskError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        chain::show(f, &self.message(), self.why())
    }
}

/// The label of a failure of the group as a whole, such as ``group `orders` (src/main.rs:42)``.
struct Group<'a>(&'a Label);

impl fmt::Display for Group<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line) = (self.0.place().file(), self.0.place().line());
        match self.0.group() {
            Some(group) => write!(f, "group `{group}` ({file}:{line})"),
            None => write!(f, "group ({file}:{line})"),
        }
    }
}

impl<E: 'static> Error for TaskError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        verdict::tell(self);
        self.why()
    }
}

impl<E: 'static> Ended for TaskError<E> {
    fn end(&self) -> End {
        self.end()
    }

    fn cause(&self) -> Option<&Cause> {
        self.cause()
    }

    fn later(&self) -> Vec<&dyn Ended> {
        self.suppressed().iter().map(|error| error as _).collect()
    }

    fn as_error(&self) -> &(dyn Error + 'static) {
        self
    }
}

/// For [`Exit`](crate::Exit).
impl<E: Send + Sync + 'static> AsRef<dyn Error + Send + Sync> for TaskError<E> {
    fn as_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }
}

impl<E> fmt::Debug for TaskError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f
                .debug_struct("TaskError")
                .field("message", &self.message())
                .field("source", &self.why())
                .field("cause", &self.0.cause)
                .field("suppressed", &self.0.suppressed)
                .finish();
        }
        let also = self.0.suppressed.iter().map(|error| format!("{error:#}"));
        chain::explain(f, &self.message(), self.why(), also)
    }
}
