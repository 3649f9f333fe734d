//! A worker, which takes items, and runs their handler in place.

use std::future::Future;
use std::mem::{swap, take};
use std::pin::{Pin, pin};
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::error::{JobError, JobErrorKind};
use super::handler::Handle;
use super::home::Home;
use super::parcel::{Parcel, Reason, SharedError};
use super::policy::Policy;
use super::queue::Found;
use super::receipt::Receipt;
use super::run::{Turns, passed, run_if_any};
use super::shared::Shared;
use super::state::Work;
use super::valve::Valve;
use crate::group::deadline;
use crate::group::panic::Panic;

/// One worker, with all items in its hands. Dropping it at any time hands them back.
pub(super) struct Worker<T: Send + 'static, R: Send + 'static> {
    pub(super) shared: Arc<Shared<T, R>>,
    pub(super) policy: Arc<Policy<T, R>>,
    pub(super) home: Arc<Home<T, R>>,
    index: usize,
    /// Before an attempt, the items taken for it, and after it those that have come back.
    pub(super) batch: Vec<Parcel<T, R>>,
    /// The items that have come back from jobs.
    pub(super) back: Vec<Parcel<T, R>>,
    /// The item that is being brought to its end.
    pub(super) hand: Option<Parcel<T, R>>,
    /// How many items are done since the last look at the queue.
    pub(super) done: usize,
    pub(super) turns: Turns,
    pub(super) cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// How an attempt has ended.
pub(super) enum Outcome {
    Done,
    Failed(Failure),
    Cut,
    /// A later stage has not brought it to its end.
    Left,
}

#[derive(Clone)]
pub(super) struct Failure {
    pub(super) kind: JobErrorKind,
    pub(super) is_panic: bool,
    pub(super) error: SharedError,
}

impl Outcome {
    /// Returns the same outcome for the next item of a batch.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Done => Self::Done,
            Self::Failed(failure) => Self::Failed(failure.clone()),
            Self::Cut => Self::Cut,
            Self::Left => Self::Left,
        }
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        Self {
            kind: error.kind,
            is_panic: false,
            error: error.source.into(),
        }
    }
}

impl From<Panic> for Failure {
    fn from(panic: Panic) -> Self {
        Self {
            kind: JobErrorKind::Failed,
            is_panic: true,
            error: Arc::new(panic),
        }
    }
}

impl<T: Send + 'static, R: Receipt> Worker<T, R> {
    pub(super) fn new(
        shared: &Arc<Shared<T, R>>,
        policy: &Arc<Policy<T, R>>,
        index: usize,
    ) -> Self {
        shared.set_worker(index, Work::Running, &mut 0);
        Self {
            shared: Arc::clone(shared),
            policy: Arc::clone(policy),
            home: Arc::new(Home::new(Arc::clone(shared))),
            index,
            batch: Vec::new(),
            back: Vec::with_capacity(1),
            hand: None,
            done: 0,
            turns: Turns::default(),
            cut: Box::pin(shared.cut.clone().cancelled_owned()),
        }
    }

    /// Takes the next work, and waits for it.
    ///
    /// Returns whether it is an item that a later stage has given back.
    pub(super) async fn take(&mut self) -> Option<bool> {
        let mut is_woken = false;
        loop {
            match self.take_now(is_woken) {
                Found::Taken { .. } => return Some(false),
                Found::Returned => return Some(true),
                Found::Over => return None,
                Found::Wait(_) => {}
            }
            // Made before the second look, so that a change in between wakes it.
            let mut woken = pin!(self.shared.woken().notified());
            woken.as_mut().enable();
            match self.shared.take(&mut self.done, &mut self.batch, false) {
                Found::Taken { .. } => return Some(false),
                Found::Returned => return Some(true),
                Found::Over => return None,
                Found::Wait(at) => wait(self.shared.valve.as_ref(), woken, at).await,
            }
            is_woken = true;
        }
    }

    /// Takes the next work, if there is some.
    pub(super) fn take_now(&mut self, is_woken: bool) -> Found {
        self.shared.take(&mut self.done, &mut self.batch, is_woken)
    }

    /// Runs the handler, and gets the items back.
    pub(super) async fn attempt<H: Handle<T, R>>(&mut self, handler: &H) -> Outcome {
        let expected = self.batch.len();
        let (batch, home) = (&mut self.batch, &self.home);
        let call = || handler.call(batch, home);
        let ended = run_if_any(call, self.cut.as_mut()).await;
        // The parcels that the handler did not get, because calling it panicked.
        self.back.append(&mut self.batch);
        let missing = self.collect_now(expected);
        if missing > 0 {
            self.collect_more(self.back.len() + missing).await;
        }
        swap(&mut self.batch, &mut self.back);
        match ended {
            Some(Ok(Ok(()))) => Outcome::Done,
            Some(Ok(Err(error))) => Outcome::Failed(error.into()),
            Some(Err(panic)) => Outcome::Failed(panic.into()),
            None => Outcome::Cut,
        }
    }

    /// Takes the jobs that are back, and returns for how many a worker has to wait.
    fn collect_now(&mut self, expected: usize) -> usize {
        let passed = Home::collect(&mut self.home, expected, &mut self.back);
        (expected - passed).saturating_sub(self.back.len())
    }

    /// Waits until `expected` jobs are back. A job that does not come before the cut is still running.
    pub(super) async fn collect(&mut self, expected: usize) {
        let missing = self.collect_now(expected);
        if missing > 0 {
            self.collect_more(self.back.len() + missing).await;
        }
    }

    async fn collect_more(&mut self, mut expected: usize) {
        while self.back.len() < expected {
            let mut home = Arc::clone(&self.home);
            let mut changed = pin!(self.home.changed.notified());
            changed.as_mut().enable();
            expected -= Home::collect(&mut home, expected, &mut self.back);
            if self.back.len() < expected
                && deadline::until(changed, self.cut.as_mut()).await.is_err()
            {
                expected -= self.home.leave(&mut self.back);
                break;
            }
        }
        if self.back.len() < expected {
            self.shared
                .set_worker(self.index, Work::Kept, &mut self.done);
        }
    }
}

/// Waits until the worker is woken, or this time has come, or the valve resumes the pool.
async fn wait(valve: Option<&Valve>, woken: impl Future<Output = ()>, at: Option<Instant>) {
    match valve {
        Some(valve) if valve.is_paused() => drop(deadline::until(woken, valve.resumed()).await),
        _ => drop(deadline::until(woken, passed(at)).await),
    }
}

impl<T: Send + 'static, R: Send + 'static> Drop for Worker<T, R> {
    fn drop(&mut self) {
        self.home.leave(&mut self.back);
        let held = take(&mut self.batch)
            .into_iter()
            .chain(take(&mut self.back))
            .chain(self.hand.take());
        let held: Vec<_> = held.map(|parcel| (parcel, Reason::Cut)).collect();
        if !held.is_empty() {
            self.shared.leave(held);
        }
        self.shared
            .set_worker(self.index, Work::Gone, &mut self.done);
    }
}
