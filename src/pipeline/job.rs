//! [`Job`]: an item in the hands of its handler.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::JobError;
use super::home::Home;
use super::parcel::{Answer, Parcel};
use crate::BoxError;
use crate::group::deadline;
use crate::group::deadline::DeadlinePassed;

/// An item in the hands of its handler.
///
/// It derefs to the item. The engine gets the item and the receipt of its broker back when the job is
/// dropped, by the end of the handler, a panic, the deadline of a stop, or an abort. It can then try the item
/// again, pass it to the dead letters, or hand it back. The result of the handler ends the job, unless the
/// handler has called [`done`](Self::done), [`fail`](Self::fail) or [`hand_back`](Self::hand_back).
///
/// A job that is kept beyond its handler, in a spawned task for example, keeps its worker, which waits until
/// the job comes back. If the job has not come back when the stop is over, it is reported as still running.
/// It is not handed back, because it would run twice at once.
///
/// # Examples
///
/// See [`Workers`](super::Workers).
pub struct Job<T: Send + 'static, R: Send + 'static = ()> {
    parcel: Option<Parcel<T, R>>,
    home: Arc<Home<T, R>>,
    /// Whether the job is in a later stage.
    is_passed: bool,
}

impl<T: Send + 'static, R: Send + 'static> Job<T, R> {
    pub(super) fn new(parcel: Parcel<T, R>, home: &Arc<Home<T, R>>) -> Self {
        Self {
            parcel: Some(parcel),
            home: Arc::clone(home),
            is_passed: false,
        }
    }

    /// Returns the number of this attempt, from 1 upwards.
    ///
    /// It counts the earlier failed attempts, including those that the [intake](super::Received::attempt)
    /// reports. Attempts that ended in a hand-back do not count.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        let failed = self.parcel.as_ref().map(|parcel| parcel.failed);
        failed.unwrap_or_default().saturating_add(1)
    }

    /// Returns the place of the item in the order of the intake, from 0 upwards.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.parcel.as_ref().map_or(0, |parcel| parcel.seq)
    }

    /// Returns the error of the last failed attempt. For a panic it is the [`Panic`](crate::group::Panic).
    #[must_use]
    pub fn last_error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        let error = self.parcel.as_ref()?.error()?;
        Some(&**error)
    }

    /// Returns the receipt that came with the item.
    #[must_use]
    pub fn receipt(&self) -> Option<&R> {
        self.parcel.as_ref().map(|parcel| &parcel.receipt)
    }

    /// Returns the token that fires when the pool has to stop.
    ///
    /// A handler can check it, but should finish what is under way, and has until the
    /// [`deadline`](Self::deadline).
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.home.shared().stopping
    }

    /// Returns when jobs that are under way are cut. Returns `None` before the stop, and for an unlimited
    /// grace.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.home.shared().limit.deadline()
    }

    /// Clips the timeout of the next call to the time that is left for it.
    ///
    /// That time ends a little before the [`deadline`](Self::deadline), by a tenth of the grace and at most
    /// 250 ms. Before the stop the timeout does not change.
    #[must_use]
    pub fn clip(&self, timeout: Duration) -> Duration {
        deadline::clip(timeout, self.home.shared().limit.work_deadline())
    }

    /// Does the work, and gives up a little before the [`deadline`](Self::deadline).
    ///
    /// # Errors
    ///
    /// The deadline passed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the work with it.
    pub async fn until_deadline<F: Future>(&self, work: F) -> Result<F::Output, DeadlinePassed> {
        let passed = self.home.shared().limit.work_deadline_passed();
        deadline::until(work, passed).await
    }

    /// Marks the job as done, even if its handler then returns an error or is cut.
    pub fn done(mut self) {
        self.answer(Answer::Done);
    }

    /// Marks this attempt as failed, whatever the handler returns.
    pub fn fail(mut self, error: impl Into<JobError>) {
        self.answer(Answer::Error(error.into()));
    }

    /// Hands the item back, whatever the handler returns. It costs no attempt.
    pub fn hand_back(mut self, why: impl Into<BoxError>) {
        self.answer(Answer::Error(JobError::hand_back(why)));
    }

    /// Prepares the job for a later stage, so that its worker goes on without it.
    pub(super) fn pass_on(&mut self, recall: &Arc<CancellationToken>) {
        if !self.is_passed {
            self.is_passed = true;
            self.home.pass_on(recall);
        }
    }

    fn answer(&mut self, answer: Answer) {
        if let Some(parcel) = &mut self.parcel {
            parcel.tell(answer);
        }
    }

    /// Takes the item out. The engine keeps the receipt. A second call returns `None`.
    ///
    /// The job can then be done, or be handed back as a receipt alone. It cannot be tried again, so it is
    /// handed back if its handler fails.
    pub fn take(&mut self) -> Option<T> {
        self.parcel.as_mut()?.item.take()
    }
}

/// # Panics
///
/// When the item was [taken](Job::take).
impl<T: Send + 'static, R: Send + 'static> Deref for Job<T, R> {
    type Target = T;

    fn deref(&self) -> &T {
        let item = self.parcel.as_ref().and_then(|parcel| parcel.item.as_ref());
        match item {
            Some(item) => item,
            None => panic!("the item of this job was taken"),
        }
    }
}

/// Returns the item to the engine.
impl<T: Send + 'static, R: Send + 'static> Drop for Job<T, R> {
    fn drop(&mut self) {
        match self.parcel.take() {
            Some(parcel) if self.is_passed => self.home.shared().return_passed(parcel),
            Some(parcel) => self.home.take_back(parcel),
            None => {}
        }
    }
}

impl<T: Send + 'static, R: Send + 'static> fmt::Debug for Job<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("pipeline", &self.home.shared().name)
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}
