//! A [`TaskError`] says how a group failed.

use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::BoxError;
use crate::group::cause::{Cause, LostHeartbeat};
use crate::group::chain;
use crate::group::end::End;
use crate::group::label::Label;
use crate::group::panic::Panic;
use crate::group::running::Running;
use crate::group::time::Rounded;
use crate::group::verdict;
use crate::group::verdict::Ended;

/// How to look at an `E` as an error. A group stores this function when it is made.
///
/// It is a function pointer, because coherence rejects a blanket impl over both `E: Error` and report
/// types such as `anyhow::Error`, which do not implement `Error`.
pub(crate) type View<E> = fn(&E) -> &(dyn Error + 'static);

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
pub struct TaskError<E = BoxError>(Box<Inner<E>>);

struct Inner<E> {
    label: Label,
    failure: Failure<E>,
    view: View<E>,
    suppressed: Vec<TaskError<E>>,
    cause: Option<Cause>,
}

/// How the task or the group failed.
#[derive(Debug)]
pub(crate) enum Failure<E = BoxError> {
    /// The task returned this error.
    Failed(E),
    /// The task panicked, or a destructor did while its future was being dropped.
    Panicked(Panic),
    /// The task's future was dropped before it ended, but not by its group. For example, its runtime
    /// shut down.
    Aborted,
    /// An essential task returned `Ok` before the group was cancelled.
    EndedEarly,
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

/// The error of a task that ended because it was cancelled.
///
/// Once its token has fired, a group does not count this as a failure, wherever it stands in the chain
/// of [`source`](Error::source)s. Before that it is an error like any other.
///
/// A group also finds it inside an [`io::Error`](std::io::Error), and behind a `Box` or an `Arc`,
/// although their `source` skips it. Two things hide it. One is thiserror's `#[error(transparent)]`, so
/// mark the field with `#[from]` or `#[source]` and give the variant its own message. The other is an
/// `anyhow::Error` without context that is turned into a boxed error, so spawn such tasks into a group
/// made by [`reports`](crate::TaskGroup::reports).
///
/// # Examples
///
/// ```
/// use taskgroup::{Cancelled, TaskGroup};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::new();
/// let token = group.token().clone();
/// group.spawn(async move {
///     let line = token.run_until_cancelled(std::future::pending::<String>());
///     println!("{}", line.await.ok_or(Cancelled)?);
///     Ok(())
/// });
/// group.cancel();
/// assert!(group.wait().await.is_ok());
/// # });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Error)]
#[error("cancelled")]
pub struct Cancelled;

impl<E> TaskError<E> {
    pub(crate) fn new(label: Label, failure: Failure<E>, view: View<E>) -> Self {
        Self(Box::new(Inner {
            label,
            failure,
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
        if let Failure::TimedOut(timed_out) = &mut self.0.failure {
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

    pub(crate) fn failure(&self) -> &Failure<E> {
        &self.0.failure
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
        self.0.failure.end()
    }

    /// Returns the error the task returned, or `None` if it did not end with its own error.
    #[must_use]
    pub fn error(&self) -> Option<&E> {
        match &self.0.failure {
            Failure::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Returns the error the task returned, as it was given.
    ///
    /// # Errors
    ///
    /// Gives the `TaskError` back if the task did not end with its own error.
    pub fn into_error(self) -> Result<E, Self> {
        let inner = *self.0;
        match inner.failure {
            Failure::Failed(error) => Ok(error),
            failure => Err(Self(Box::new(Inner { failure, ..inner }))),
        }
    }

    /// Returns the panic of the task.
    ///
    /// # Errors
    ///
    /// Gives the `TaskError` back if the task did not panic.
    pub fn into_panic(self) -> Result<Panic, Self> {
        let inner = *self.0;
        match inner.failure {
            Failure::Panicked(panic) => Ok(panic),
            failure => Err(Self(Box::new(Inner { failure, ..inner }))),
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
        matches!(self.0.failure, Failure::TimedOut(_))
    }

    /// Whether the group as a whole failed, rather than a task.
    fn is_of_group(&self) -> bool {
        matches!(
            self.0.failure,
            Failure::TimedOut(_) | Failure::HeartbeatLost(_)
        )
    }

    fn message(&self) -> String {
        let Inner { label, failure, .. } = &*self.0;
        match failure {
            Failure::Failed(_) => format!("{label} failed"),
            Failure::Panicked(_) => format!("{label} panicked"),
            Failure::Aborted => format!("{label} was dropped before it ended"),
            Failure::EndedEarly => format!("{label} is essential and ended early"),
            Failure::TimedOut(timed_out) => format!("{} {timed_out}", Group(label)),
            Failure::HeartbeatLost(_) => format!("{} failed", Group(label)),
        }
    }

    fn why(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.failure {
            Failure::Failed(error) => Some((self.0.view)(error)),
            Failure::Panicked(panic) => Some(panic),
            Failure::HeartbeatLost(lost) => Some(lost),
            Failure::Aborted | Failure::EndedEarly | Failure::TimedOut(_) => None,
        }
    }

    fn find_timed_out(&self) -> Option<&TimedOut> {
        let mut errors = std::iter::once(self).chain(&self.0.suppressed);
        errors.find_map(|error| match &error.0.failure {
            Failure::TimedOut(timed_out) => Some(timed_out),
            _ => None,
        })
    }
}

impl<E> Failure<E> {
    pub(crate) fn end(&self) -> End {
        match self {
            Self::Failed(_) | Self::HeartbeatLost(_) => End::Failed,
            Self::Panicked(_) => End::Panicked,
            Self::Aborted => End::Aborted,
            Self::EndedEarly => End::EndedEarly,
            Self::TimedOut(timed_out) if timed_out.still_running.is_empty() => End::TimedOut,
            Self::TimedOut(_) => End::StillRunning,
        }
    }

    /// Returns whether this error only says that the task was cancelled.
    pub(crate) fn is_cancellation(&self, view: View<E>) -> bool {
        matches!(self, Self::Failed(error) if Cancelled::is_behind(view(error)))
    }
}

impl Cancelled {
    /// Returns whether a `Cancelled` stands anywhere in the chain of `error`.
    pub(crate) fn is_behind(error: &(dyn Error + 'static)) -> bool {
        let mut next = Some(error);
        while let Some(error) = next {
            if error.is::<Self>() {
                return true;
            }
            next = below(error);
        }
        false
    }
}

/// Returns the error below this one, even if `source` skips a `Cancelled`.
fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    chain::behind::<Box<Cancelled>, _>(error)
        .or_else(|| chain::behind::<Arc<Cancelled>, _>(error))
        .or_else(|| chain::next(error))
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
