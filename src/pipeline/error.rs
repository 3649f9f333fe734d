//! The errors of a pipeline, for a rejected push, a failed job, or an unclean run.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::report::PipelineReport;
use crate::BoxError;
use crate::group::DeadlinePassed;
use crate::group::chain;
use crate::group::end::End;
use crate::group::panic::Panic;
use crate::group::verdict;
use crate::group::verdict::Ended;

/// An item that the pool did not take in, and that the caller gets back.
pub struct PushError<T> {
    item: T,
    is_full: bool,
}

impl<T> PushError<T> {
    pub(super) fn stopped(item: T) -> Self {
        Self {
            item,
            is_full: false,
        }
    }

    pub(super) fn full(item: T) -> Self {
        Self {
            item,
            is_full: true,
        }
    }

    /// Returns the item.
    #[must_use]
    pub fn into_item(self) -> T {
        self.item
    }

    /// Returns whether the queue is full. If not, the pool has stopped and no longer takes items in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full
    }
}

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_full {
            "the queue is full"
        } else {
            "the pool has stopped"
        })
    }
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushError")
            .field("is_full", &self.is_full)
            .finish_non_exhaustive()
    }
}

impl<T> Error for PushError<T> {}

/// The pool has stopped and no longer takes items in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pool has stopped")]
pub struct Stopped(pub(super) ());

/// Tells how an attempt at a job failed, and what follows.
///
/// A `?` converts any error, and the attempt may be repeated. A [`DeadlinePassed`] of
/// [`until_deadline`](super::Job::until_deadline) costs no attempt, because the item was cut. Like
/// `anyhow::Error`, this type does not implement [`Error`], which makes that conversion possible.
///
/// # Examples
///
/// ```
/// use taskgroup::pipeline::JobError;
///
/// fn total(order: &str) -> Result<u32, JobError> {
///     if order.is_empty() {
///         // No attempt will ever make it better.
///         return Err(JobError::permanent("an order without items"));
///     }
///     Ok(order.parse()?)
/// }
/// assert!(total("").unwrap_err().is_permanent());
/// assert_eq!(total("x").unwrap_err().to_string(), "invalid digit found in string");
/// ```
pub struct JobError {
    pub(super) kind: JobErrorKind,
    pub(super) source: BoxError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobErrorKind {
    Failed,
    Permanent,
    HandBack,
    /// The handler gave up a little before the deadline of the stop.
    Late,
}

impl JobError {
    /// The attempt failed, and may be repeated. A `?` makes this kind.
    pub fn failed(error: impl Into<BoxError>) -> Self {
        Self {
            kind: JobErrorKind::Failed,
            source: error.into(),
        }
    }

    /// The attempt failed, and every further one would, so the item has failed for the last time.
    pub fn permanent(error: impl Into<BoxError>) -> Self {
        Self {
            kind: JobErrorKind::Permanent,
            source: error.into(),
        }
    }

    /// The item has to be handed back, which costs no attempt.
    pub fn hand_back(why: impl Into<BoxError>) -> Self {
        Self {
            kind: JobErrorKind::HandBack,
            source: why.into(),
        }
    }

    /// Returns whether the attempts end here.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.kind == JobErrorKind::Permanent
    }

    /// Returns whether the item has to be handed back.
    #[must_use]
    pub fn is_hand_back(&self) -> bool {
        self.kind == JobErrorKind::HandBack
    }

    /// Returns the error.
    #[must_use]
    pub fn into_source(self) -> BoxError {
        self.source
    }
}

/// A [`DeadlinePassed`] is not a failure. The item was cut at the deadline of the stop, and is handed back.
impl<E: Error + Send + Sync + 'static> From<E> for JobError {
    fn from(error: E) -> Self {
        let is_late = (&error as &dyn Any).is::<DeadlinePassed>();
        Self {
            kind: if is_late {
                JobErrorKind::Late
            } else {
                JobErrorKind::Failed
            },
            source: Box::new(error),
        }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobError")
            .field("kind", &self.kind)
            .field("source", &self.source)
            .finish()
    }
}

/// The first fault of a pipeline, as far as an error reports it.
#[derive(Debug)]
pub(super) enum Fault {
    /// An item failed for the last time, which is a failure of the group.
    Item {
        error: Arc<dyn Error + Send + Sync>,
        is_panic: bool,
    },
    /// The function that finds the key, the weight or the mark of an item panicked.
    Key(Panic),
    /// The intake failed.
    Intake(BoxError),
    /// The function that pauses the intake failed.
    Pause(BoxError),
    /// Items could not be handed back.
    HandBack(Arc<dyn Error + Send + Sync>),
}

impl Fault {
    /// Returns how the pool ends for it.
    pub(super) fn end(&self) -> End {
        match self {
            Self::Item { is_panic: true, .. } | Self::Key(_) => End::Panicked,
            _ => End::Failed,
        }
    }

    fn words(&self) -> &'static str {
        match self {
            Self::Item { is_panic, .. } if *is_panic => "an item panicked",
            Self::Item { .. } => "an item failed",
            Self::Key(_) => "the key, weight or mark of an item panicked",
            Self::Intake(_) => "the intake failed",
            Self::Pause(_) => "the pause of the intake failed",
            Self::HandBack(_) => "the hand-back failed",
        }
    }

    fn source(&self) -> &(dyn Error + 'static) {
        match self {
            Self::Key(panic) => panic,
            Self::Intake(error) | Self::Pause(error) => &**error,
            Self::Item { error, .. } | Self::HandBack(error) => &**error,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        chain::show(f, self.words(), Some(self.source()))
    }
}

/// A pipeline that did not end cleanly.
///
/// The message has the [report](PipelineReport), which tells the end of each item. The
/// [`source`](Error::source) is the error that came first, if there was one.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
/// use taskgroup::pipeline::{Job, PipelineError, Workers};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let mut group = TaskGroup::new();
/// let ports = Workers::new("ports", |job: Job<&str>| async move {
///     job.parse::<u16>()?;
///     Ok(())
/// });
/// let (pusher, pool) = ports.queue(10)?;
/// pool.spawn(&group);
/// pusher.push("http").await?;
///
/// let error = group.wait().await.unwrap_err().into_error().unwrap();
/// let error = error.downcast_ref::<PipelineError>().unwrap();
/// assert_eq!(error.report().failed(), 1);
/// assert!(format!("{error:#}").ends_with("an item failed: invalid digit found in string"));
/// # Ok(())
/// # }
/// ```
pub struct PipelineError(pub(super) Box<Unclean>);

pub(super) struct Unclean {
    pub(super) name: Arc<str>,
    pub(super) report: PipelineReport,
    pub(super) fault: Option<Fault>,
}

impl PipelineError {
    /// Returns the name of the pipeline.
    #[must_use]
    pub fn pipeline(&self) -> &str {
        &self.0.name
    }

    /// Returns the report on the items.
    #[must_use]
    pub fn report(&self) -> &PipelineReport {
        &self.0.report
    }

    /// Returns how it ended. This is [`StillRunning`](End::StillRunning) if something could not be cut, else
    /// [`TimedOut`](End::TimedOut) if something had to be cut, else [`Panicked`](End::Panicked) or
    /// [`Failed`](End::Failed).
    #[must_use]
    pub fn end(&self) -> End {
        match &self.0.fault {
            _ if self.0.report.still_running() > 0 => End::StillRunning,
            _ if self.0.report.cut() > 0 => End::TimedOut,
            Some(fault) => fault.end(),
            None => End::Failed,
        }
    }

    fn why(&self) -> Option<&(dyn Error + 'static)> {
        self.0.fault.as_ref().map(Fault::source)
    }
}

impl fmt::Display for Unclean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pipeline `{}`: {}", self.name, self.report)?;
        match &self.fault {
            // Last, so that the source follows it.
            Some(fault) => write!(f, ": {}", fault.words()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for PipelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        chain::show(f, &self.0.to_string(), self.why())
    }
}

impl fmt::Debug for PipelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f
                .debug_struct("PipelineError")
                .field("message", &self.0.to_string())
                .field("source", &self.why())
                .finish();
        }
        chain::explain(f, &self.0.to_string(), self.why(), None)
    }
}

impl Error for PipelineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        verdict::tell(self);
        self.why()
    }
}

impl Ended for PipelineError {
    fn end(&self) -> End {
        self.end()
    }

    fn as_error(&self) -> &(dyn Error + 'static) {
        self
    }
}

/// For [`Exit`](crate::Exit).
impl AsRef<dyn Error + Send + Sync> for PipelineError {
    fn as_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }
}
