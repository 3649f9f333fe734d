//! [`Stage`]: passes a job on to the next stage of a chain.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::admission::Place;
use super::error::{JobError, Stopped};
use super::job::Job;
use super::receipt::Receipt;
use super::shared::Shared;
use crate::BoxError;
use crate::group::lock::Lock;

/// Passes jobs on to the next stage of a chain, with the output of this stage.
///
/// [`Workers::stage`](super::Workers::stage) makes one. A job that was passed on ends in the last stage, and
/// so does its item. The item is done, and acknowledged, when all its outputs are done. If one of its outputs
/// fails for good, the item has failed with that error. If one is handed back, the stage that took the item
/// in hands the original item back, once.
///
/// A clone is a further handle on the same stage. When the last one is dropped, the stage works off its items
/// and ends, so a chain drains from the front.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
/// use taskgroup::pipeline::{Job, Origin, Workers};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let mut group = TaskGroup::new();
/// let (rows, store) = Workers::new("store", |_: Job<u32, Origin>| async { Ok(()) }).limit(4).stage(10)?;
/// let (lines, parse) = Workers::new("parse", move |line: Job<&str>| {
///     let rows = rows.clone();
///     async move {
///         let row = line.parse()?;
///         Ok(rows.pass(line, row).await?)
///     }
/// })
/// .queue(10)?;
/// let (parsed, stored) = (parse.spawn(&group), store.spawn(&group));
/// lines.push("1").await?;
/// lines.push("2").await?;
///
/// group.cancel();
/// assert_eq!(parsed.await?.to_string(), "2 done");
/// assert_eq!(stored.await?.to_string(), "2 done");
/// # group.wait().await?;
/// # Ok(())
/// # }
/// ```
pub struct Stage<T> {
    shared: Arc<Shared<T, Origin>>,
}

/// The job of an earlier stage, as the receipt of its outputs.
pub struct Origin {
    shared: Arc<Outputs>,
    is_told: AtomicBool,
}

/// The outputs of one job.
struct Outputs {
    job: Lock<Option<Box<dyn Passed>>>,
    open: AtomicUsize,
}

/// A job of any type that is in a later stage.
trait Passed: Send {
    fn done(self: Box<Self>);
    fn fail(self: Box<Self>, error: Arc<dyn Error + Send + Sync>);
}

impl<T: Send + 'static, R: Receipt> Passed for Job<T, R> {
    fn done(self: Box<Self>) {
        Job::done(*self);
    }

    fn fail(self: Box<Self>, error: Arc<dyn Error + Send + Sync>) {
        Job::fail(*self, JobError::permanent(Box::new(error) as BoxError));
    }
}

impl<T: Send + 'static> Stage<T> {
    pub(super) fn new(shared: &Arc<Shared<T, Origin>>) -> Self {
        shared.add_pusher();
        Self {
            shared: Arc::clone(shared),
        }
    }

    /// Passes a job on with its output. Waits while the queue of the stage is full.
    ///
    /// The worker of the job is free from then on, and the later result of the handler is ignored.
    ///
    /// # Errors
    ///
    /// The stage has stopped, now or while the caller waits. The job is handed back.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the job, which goes back to its engine, and the output.
    pub async fn pass<U, R>(&self, job: Job<U, R>, output: T) -> Result<(), Stopped>
    where
        U: Send + 'static,
        R: Receipt,
    {
        self.pass_all(job, [output]).await
    }

    /// Passes a job on with several outputs. It is done when all of them are done, or at once if there are
    /// none.
    ///
    /// # Errors
    ///
    /// As [`pass`](Self::pass). Outputs that were passed before continue, but the item is handed back.
    ///
    /// # Cancel safety
    ///
    /// As [`pass`](Self::pass).
    pub async fn pass_all<U, R, I>(&self, job: Job<U, R>, outputs: I) -> Result<(), Stopped>
    where
        U: Send + 'static,
        R: Receipt,
        I: IntoIterator<Item = T>,
    {
        let outputs: Vec<T> = outputs.into_iter().collect();
        let mut job = Some(job);
        let shared = Arc::new(Outputs {
            job: Lock::default(),
            open: AtomicUsize::new(outputs.len()),
        });
        let mut origins: Vec<_> = outputs.iter().map(|_| Origin::new(&shared)).collect();
        if origins.is_empty() {
            job.take().into_iter().for_each(Job::done);
        }
        for output in outputs {
            if self.shared.reserve().await.is_err() {
                let stopped = || "the next stage has stopped";
                job.take()
                    .into_iter()
                    .for_each(|job| job.hand_back(stopped()));
                return Err(Stopped(()));
            }
            if let Some(mut job) = job.take() {
                job.pass_on(&self.shared.recalled);
                *shared.job.lock() = Some(Box::new(job));
            }
            let Some(origin) = origins.pop() else {
                continue;
            };
            // The origin of one that is not taken in is dropped, which hands the item back.
            let taken_in = self.shared.take_in(output, origin, 0, Place::Reserved);
            taken_in.map_err(|_| Stopped(()))?;
        }
        Ok(())
    }
}

impl Origin {
    fn new(shared: &Arc<Outputs>) -> Self {
        Self {
            shared: Arc::clone(shared),
            is_told: AtomicBool::new(false),
        }
    }

    /// Returns the job to the first caller.
    fn take(&self) -> Option<Box<dyn Passed>> {
        self.shared.job.lock().take()
    }
}

impl Receipt for Origin {
    async fn ack(&self) -> Result<(), BoxError> {
        let is_first = !self.is_told.swap(true, Ordering::Relaxed);
        if is_first && self.shared.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            if let Some(job) = self.take() {
                job.done();
            }
        }
        Ok(())
    }

    fn failed(&self, error: &Arc<dyn Error + Send + Sync>) {
        self.is_told.store(true, Ordering::Relaxed);
        if let Some(job) = self.take() {
            job.fail(Arc::clone(error));
        }
    }
}

/// Hands the item back unless it has ended.
impl Drop for Origin {
    fn drop(&mut self) {
        if !self.is_told.load(Ordering::Relaxed) {
            drop(self.take());
        }
    }
}

impl<T> Clone for Stage<T> {
    fn clone(&self) -> Self {
        self.shared.add_pusher();
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Drop for Stage<T> {
    fn drop(&mut self) {
        self.shared.remove_pusher();
    }
}

impl<T> fmt::Debug for Stage<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage")
            .field("pipeline", &self.shared.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.shared.open.load(Ordering::Relaxed);
        f.debug_struct("Origin").field("open", &open).finish()
    }
}
