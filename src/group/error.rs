//! [`TaskError`]: how a group failed.

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

/// How to look at an `E` as an error; a group captures it when it is made.
///
/// One blanket impl over `E: Error` and over report types such as `anyhow::Error`, which are no
/// `Error`, is refused by coherence; a function pointer is not.
pub(crate) type View<E> = fn(&E) -> &(dyn Error + 'static);

/// The failure of a group: which task, what happened, and what failed after it.
///
/// It is what [`TaskGroup::wait`](crate::TaskGroup::wait) returns. The task's own error is inside as
/// the value that the task gave; [`into_error`](Self::into_error) takes it out.
///
/// The message names the task and its place of spawn: ``task `http` (src/main.rs:42) failed``. The
/// [`source`](Error::source) says why, and is the task's error itself, or its [`Panic`]. `{:#}` prints
/// both on one line, ``task `http` (src/main.rs:42) failed: address in use``. `Debug`, which is how
/// `main` prints an error that it returns, prints them on several lines, and what failed afterwards.
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

/// What happened to the task, or to the group, that failed.
#[derive(Debug)]
pub(crate) enum Failure<E = BoxError> {
    /// The task returned this error.
    Failed(E),
    /// The task panicked, or a destructor did while its future was being dropped.
    Panicked(Panic),
    /// The task's future was dropped before it ended, by someone else than its group: its runtime
    /// went away.
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

/// Which limit it was that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Grace(Duration),
    Deadline(Duration),
    /// It was aborted on purpose, at once.
    Aborted,
}

/// The error of a task that ended because it was cancelled.
///
/// A group does not count it as a failure once its token has fired, wherever in the chain of
/// [`source`](Error::source)s it stands. Before that it is an error like any other.
///
/// It is also found inside of an [`io::Error`](std::io::Error), and behind a `Box` or an `Arc`, though their `source`
/// passes over it. Two things hide it: thiserror's `#[error(transparent)]`, so mark the field with
/// `#[from]` or `#[source]` and give the variant a message of its own; and an `anyhow::Error` without
/// context that is turned into a boxed error, so spawn such tasks into a group made by
/// [`reports`](crate::TaskGroup::reports).
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

    /// Takes the later failures out, to be told one by one.
    pub(crate) fn take_suppressed(&mut self) -> Vec<Self> {
        std::mem::take(&mut self.0.suppressed)
    }

    pub(crate) fn set_cause(&mut self, cause: Cause) {
        self.0.cause = Some(cause);
    }

    /// Notes who was still there after the abort, in the part that tells of the timeout.
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
    /// `None` for a task without a name; the group's name if the group as a whole timed out or lost a
    /// heartbeat.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        if self.is_of_group() {
            self.0.label.group()
        } else {
            self.0.label.name()
        }
    }

    /// Returns the place where the task was spawned, or where the group was made if it timed out or lost
    /// a heartbeat.
    #[must_use]
    pub fn place(&self) -> &'static Location<'static> {
        self.0.label.place()
    }

    pub(crate) fn failure(&self) -> &Failure<E> {
        &self.0.failure
    }

    /// Returns how the task ended, or the group.
    ///
    /// A group that ran out of time is [`TimedOut`](End::TimedOut), or
    /// [`StillRunning`](End::StillRunning) if something could not be aborted. One that lost a
    /// heartbeat has [`Failed`](End::Failed), and its [cause](Self::cause) is
    /// [`Cause::Heartbeat`].
    ///
    /// # Examples
    ///
    /// See [`End`].
    #[must_use]
    pub fn end(&self) -> End {
        self.0.failure.end()
    }

    /// Returns the error the task returned; `None` if it did not end with an error of its own.
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
    /// Gives the `TaskError` back if the task did not end with an error of its own.
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

    /// Returns why the group was cancelled, which need not be this failure: the first cause wins.
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

    /// Returns the tasks that were running when the time was up; empty if it never was.
    ///
    /// After a [`shutdown`](crate::TaskGroup::shutdown) they have been aborted. After a deadline
    /// they were cancelled and had their chance to end by themselves.
    #[must_use]
    pub fn stragglers(&self) -> Running {
        self.find_timed_out()
            .map(|timed_out| timed_out.stragglers.clone())
            .unwrap_or_default()
    }

    /// Returns the tasks that could not be confirmed dead after they had been aborted.
    ///
    /// These are blocking closures, which nothing can end, and tasks that block their thread.
    #[must_use]
    pub fn still_running(&self) -> Running {
        self.find_timed_out()
            .map(|timed_out| timed_out.still_running.clone())
            .unwrap_or_default()
    }

    fn timed_out(&self) -> bool {
        matches!(self.0.failure, Failure::TimedOut(_))
    }

    /// Whether it is no task that failed, but the group as a whole.
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

    /// Returns whether this is an error that says no more than that the task was cancelled.
    pub(crate) fn is_cancellation(&self, view: View<E>) -> bool {
        matches!(self, Self::Failed(error) if Cancelled::is_behind(view(error)))
    }
}

impl Cancelled {
    /// Returns whether this stands anywhere in the chain of an error.
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

/// Returns the error below this one, also where `source` passes over a `Cancelled`.
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

/// The label of a failure of the group as a whole: ``group `orders` (src/main.rs:42)``.
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

/// What [`Exit`](crate::Exit) takes.
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
