//! A worker, which takes an item, runs its handler in place, and brings it to its end.

use std::any::TypeId;
use std::cmp::Reverse;
use std::future::Future;
use std::mem::take;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::error::{Fault, JobError, JobErrorKind};
use super::home::Home;
use super::intake::Receipt;
use super::job::Job;
use super::parcel::{Answer, HandedBack, Parcel, Reason, SharedError};
use super::queue::Found;
use super::shared::{Shared, Work, after, consume_budget, run_until};
use crate::BoxError;
use crate::backoff::Backoff;
use crate::group::chain;
use crate::group::deadline;
use crate::group::log;
use crate::group::panic::Panic;
use crate::group::time::Rounded;

/// How items are treated, apart from their handler.
pub(super) struct Policy<T: Send + 'static, R: Send + 'static> {
    /// How often an item is tried, and how long it waits in between. `None` tries it once.
    pub(super) retry: Option<(Backoff, u32)>,
    pub(super) on_failure: OnFailure,
    pub(super) parks_failed_keys: bool,
    pub(super) dead_letter: Option<DeadLetter<T, R>>,
    pub(super) hand_back: Option<HandBack<T, R>>,
    pub(super) hand_back_within: Duration,
}

/// The effect of an item's last failure, if no dead-letter function takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// It stops the pool, and is a failure of its group.
    #[default]
    FailGroup,
    /// It is logged as a warning and counted, and the other items go on.
    Count,
}

pub(super) type Doing = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

pub(super) type DeadLetter<T, R> = Box<dyn Fn(Job<T, R>) -> Doing + Send + Sync>;

pub(super) type HandBack<T, R> = Box<dyn Fn(Vec<HandedBack<T, R>>) -> Doing + Send + Sync>;

/// Calls the handler of the user, with one job or with several.
pub(super) trait Handle<T: Send + 'static, R: Send + 'static>:
    Send + Sync + 'static
{
    type Future: Future<Output = Result<(), JobError>> + Send;

    /// Calls the handler with the whole batch, unless the batch is empty.
    fn call(&self, batch: &mut Vec<Parcel<T, R>>, home: &Arc<Home<T, R>>) -> Option<Self::Future>;
}

/// A handler of one job.
pub(super) struct Each<F>(pub(super) F);

impl<T, R, F, W> Handle<T, R> for Each<F>
where
    T: Send + 'static,
    R: Send + 'static,
    F: Fn(Job<T, R>) -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), JobError>> + Send,
{
    type Future = W;

    fn call(&self, batch: &mut Vec<Parcel<T, R>>, home: &Arc<Home<T, R>>) -> Option<W> {
        let job = Job::new(batch.pop()?, home);
        Some((self.0)(job))
    }
}

/// A handler of several jobs at once.
pub(super) struct Several<F>(pub(super) F);

impl<T, R, F, W> Handle<T, R> for Several<F>
where
    T: Send + 'static,
    R: Send + 'static,
    F: Fn(Vec<Job<T, R>>) -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), JobError>> + Send,
{
    type Future = W;

    fn call(&self, batch: &mut Vec<Parcel<T, R>>, home: &Arc<Home<T, R>>) -> Option<W> {
        let jobs: Vec<_> = batch.drain(..).map(|item| Job::new(item, home)).collect();
        (!jobs.is_empty()).then(|| (self.0)(jobs))
    }
}

/// One worker, with all items in its hands. Dropping it at any time hands them back.
pub(super) struct Worker<T: Send + 'static, R: Send + 'static> {
    shared: Arc<Shared<T, R>>,
    policy: Arc<Policy<T, R>>,
    home: Arc<Home<T, R>>,
    index: usize,
    /// Before an attempt, the items taken for it, and after it those that have come back.
    batch: Vec<Parcel<T, R>>,
    /// The items that have come back from jobs.
    back: Vec<Parcel<T, R>>,
    /// The item that is being brought to its end.
    hand: Option<Parcel<T, R>>,
    /// How many items are done since the last look at the queue.
    done: usize,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// How an attempt has ended.
enum Outcome {
    Done,
    Failed(Failure),
    Cut,
    /// A later stage has not brought it to its end.
    Left,
}

#[derive(Clone)]
struct Failure {
    kind: JobErrorKind,
    is_panic: bool,
    error: SharedError,
}

impl Outcome {
    /// Returns the same outcome for the next item of a batch.
    fn again(&self) -> Self {
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
            back: Vec::new(),
            hand: None,
            done: 0,
            cut: Box::pin(shared.cut.clone().cancelled_owned()),
        }
    }

    /// Works until the queue is empty and will stay empty.
    pub(super) async fn work<H: Handle<T, R>>(mut self, handler: Arc<H>) {
        while let Some(is_returned) = self.take().await {
            if is_returned {
                self.settle(&Outcome::Left).await;
                continue;
            }
            if self.may_turn_away() {
                self.turn_refused_away().await;
                self.turn_exhausted_away().await;
            }
            let outcome = self.attempt(&*handler).await;
            if !self.settled_at_once(&outcome) {
                self.settle(&outcome).await;
            }
        }
    }

    /// Takes the next work, and waits for it.
    ///
    /// Returns whether it is an item that a later stage has given back.
    async fn take(&mut self) -> Option<bool> {
        consume_budget().await;
        let mut is_woken = false;
        loop {
            let found = self.shared.take(&mut self.done, &mut self.batch, is_woken);
            match found {
                Found::Taken { .. } => return Some(false),
                Found::Returned => return Some(true),
                Found::Over => return None,
                Found::Wait(_) => {}
            }
            // Made before the second look, so that a change in between wakes it.
            let mut woken = pin!(self.shared.woken().notified());
            woken.as_mut().enable();
            let found = self.shared.take(&mut self.done, &mut self.batch, false);
            match found {
                Found::Taken { .. } => return Some(false),
                Found::Returned => return Some(true),
                Found::Over => return None,
                Found::Wait(None) => woken.await,
                Found::Wait(Some(at)) => drop(deadline::until(woken, sleep_until(at)).await),
            }
            is_woken = true;
        }
    }

    /// Returns whether an item may have to be turned away. Most have no receipt, and have not failed before.
    fn may_turn_away(&self) -> bool {
        !is_nothing::<R>() || self.batch.iter().any(|parcel| parcel.failed > 0)
    }

    /// Ends an item that is done and needs no acknowledgement, if its handler gave no answer on the job. Most
    /// often it is the only one.
    fn settled_at_once(&mut self, outcome: &Outcome) -> bool {
        let is_plain = |parcel: &Parcel<T, R>| !parcel.is_told_done && parcel.trouble.is_none();
        let is_done = is_nothing::<R>() && matches!(outcome, Outcome::Done);
        if !is_done || self.batch.len() != 1 || !self.batch.iter().all(is_plain) {
            return false;
        }
        self.hand = self.batch.pop();
        self.end(Ending::Done);
        true
    }

    /// Hands back the items whose receipts do not let them begin.
    async fn turn_refused_away(&mut self) {
        if is_nothing::<R>() {
            return;
        }
        let is_refused = |parcel: &mut Parcel<T, R>| match Panic::catch(|| parcel.receipt.begin()) {
            Ok(may_begin) => !may_begin,
            Err(panic) => {
                parcel.set_error(Arc::new(panic));
                true
            }
        };
        let (refused, batch) = take(&mut self.batch)
            .into_iter()
            .map(|mut parcel| (is_refused(&mut parcel), parcel))
            .partition::<Vec<_>, _>(|(is_refused, _)| *is_refused);
        self.batch
            .extend(batch.into_iter().map(|(_, parcel)| parcel));
        for (_, mut parcel) in refused {
            let is_new = !parcel.is_tried;
            parcel.is_begun = !is_new;
            self.shared.count(|numbers| {
                numbers.attempts -= 1;
                numbers.begun -= usize::from(is_new);
            });
            self.hand = Some(parcel);
            self.hand_back(Reason::Refused).await;
        }
    }

    /// Ends the items that have used up all their attempts before they came here.
    async fn turn_exhausted_away(&mut self) {
        let attempts = match &self.policy.retry {
            Some((_, attempts)) => *attempts,
            None => return,
        };
        while let Some(error) = self.next_exhausted(attempts) {
            self.failed_for_good(error, false).await;
        }
    }

    fn next_exhausted(&mut self, attempts: u32) -> Option<SharedError> {
        let mut items = self.batch.iter();
        let index = items.position(|item| item.failed >= attempts)?;
        let mut parcel = self.batch.remove(index);
        let exhausted = || -> SharedError { Arc::new(Exhausted(parcel.failed)) };
        let error = parcel.error().cloned().unwrap_or_else(exhausted);
        parcel.set_error(Arc::clone(&error));
        self.hand = Some(parcel);
        self.shared.count(|numbers| numbers.attempts -= 1);
        Some(error)
    }

    /// Runs the handler, and gets the items back.
    async fn attempt<H: Handle<T, R>>(&mut self, handler: &H) -> Outcome {
        let expected = self.batch.len();
        for parcel in &mut self.batch {
            parcel.is_tried = true;
        }
        let called = Panic::catch(|| handler.call(&mut self.batch, &self.home));
        let ended = match called {
            Ok(Some(future)) => run_until(future, self.cut.as_mut()).await,
            Ok(None) => Some(Ok(Ok(()))),
            Err(panic) => Some(Err(panic)),
        };
        // The parcels that the handler did not get, because calling it panicked.
        self.back.append(&mut self.batch);
        self.collect(expected).await;
        std::mem::swap(&mut self.batch, &mut self.back);
        match ended {
            Some(Ok(Ok(()))) => Outcome::Done,
            Some(Ok(Err(error))) => Outcome::Failed(error.into()),
            Some(Err(panic)) => Outcome::Failed(panic.into()),
            None => Outcome::Cut,
        }
    }

    /// Waits until `expected` jobs are back. A job that does not come before the cut is still running.
    async fn collect(&mut self, expected: usize) {
        let passed = self.home.collect(expected, &mut self.back);
        if self.back.len() + passed < expected {
            self.collect_more(expected - passed).await;
        }
    }

    async fn collect_more(&mut self, mut expected: usize) {
        while self.back.len() < expected {
            let mut changed = pin!(self.home.changed.notified());
            changed.as_mut().enable();
            expected -= self.home.collect(expected, &mut self.back);
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

    /// Ends the items that have come back, or puts them aside for their next attempt.
    async fn settle(&mut self, outcome: &Outcome) {
        // Taken from the back, in the order of the intake.
        self.batch.sort_by_key(|parcel| Reverse(parcel.seq));
        while let Some(mut parcel) = self.batch.pop() {
            let own = match parcel.take_answer() {
                Some(Answer::Done) => Outcome::Done,
                Some(Answer::Error(error)) => Outcome::Failed(error.into()),
                None => outcome.again(),
            };
            self.hand = Some(parcel);
            match own {
                Outcome::Done => self.acknowledge(Ending::Done).await,
                Outcome::Failed(failure) => self.failed(failure).await,
                Outcome::Cut => self.leave(Reason::Cut),
                Outcome::Left => self.hand_back(Reason::Downstream).await,
            }
        }
    }

    async fn failed(&mut self, failure: Failure) {
        let Failure {
            kind,
            is_panic,
            error,
        } = failure;
        let Some(parcel) = &mut self.hand else {
            return;
        };
        parcel.set_error(Arc::clone(&error));
        if kind == JobErrorKind::HandBack {
            return self.hand_back(Reason::Asked).await;
        }
        if kind == JobErrorKind::Late {
            return self.leave(Reason::Cut);
        }
        parcel.failed = parcel.failed.saturating_add(1);
        if parcel.item.is_none() {
            return self.hand_back(Reason::Taken).await;
        }
        let delay = match &self.policy.retry {
            Some((backoff, attempts))
                if kind == JobErrorKind::Failed && parcel.failed < *attempts =>
            {
                Some(parcel.next_delay(backoff))
            }
            _ => None,
        };
        match delay {
            Some(delay) => {
                let (name, attempt) = (&*self.shared.name, parcel.failed);
                log::guarded(|| {
                    let error = chain::line_of(&*error);
                    tracing::debug!(target: "taskgroup", pipeline = name, attempt, error, "an attempt failed and is repeated");
                });
                self.wait_to_repeat(delay).await;
            }
            None => self.failed_for_good(error, is_panic).await,
        }
    }

    async fn wait_to_repeat(&mut self, delay: Duration) {
        // A year stands for a time that never comes.
        let due = after(delay).or_else(|| after(A_YEAR));
        let (Some(parcel), Some(due)) = (self.hand.take(), due) else {
            return;
        };
        if let Err(parcel) = self.shared.put_aside(parcel, due, false) {
            // Too many wait already, so this worker waits as well.
            self.hand = Some(parcel);
            let stopping = self.shared.stopping.cancelled();
            let _ = deadline::until(sleep_until(due), stopping).await;
            if let Some(parcel) = self.hand.take() {
                // This call always takes it.
                let _ = self.shared.put_aside(parcel, due, true);
            }
        }
    }

    /// Passes the item to the dead letters, or lets its failure count.
    async fn failed_for_good(&mut self, error: SharedError, is_panic: bool) {
        let ending = if is_panic {
            Ending::Panicked
        } else {
            Ending::Failed
        };
        let policy = Arc::clone(&self.policy);
        if let Some(dead_letter) = &policy.dead_letter {
            return self.pass_to(dead_letter, ending).await;
        }
        if let Some(parcel) = &self.hand {
            if let Err(panic) = Panic::catch(|| parcel.receipt.failed(&error)) {
                panic.discard();
            }
        }
        let name = Arc::clone(&self.shared.name);
        match policy.on_failure {
            OnFailure::FailGroup => self.shared.fail(Fault::Item { error, is_panic }),
            OnFailure::Count => log::guarded(|| {
                let error = chain::line_of(&*error);
                tracing::warn!(target: "taskgroup", pipeline = &*name, error, "an item failed");
            }),
        }
        self.end(ending);
    }

    async fn pass_to(&mut self, dead_letter: &DeadLetter<T, R>, ending: Ending) {
        let Some(parcel) = self.hand.take() else {
            return;
        };
        let job = Job::new(parcel, &self.home);
        let called = Panic::catch(|| dead_letter(job));
        let ended = match called {
            Ok(doing) => run_until(doing, self.cut.as_mut()).await,
            Err(panic) => Some(Err(panic)),
        };
        self.collect(1).await;
        let Some(mut parcel) = self.back.pop() else {
            return;
        };
        // Only the result of the function counts.
        parcel.take_answer();
        let failure: Option<SharedError> = match ended {
            Some(Ok(Ok(()))) => {
                self.shared.count(|numbers| numbers.dead_letters += 1);
                self.hand = Some(parcel);
                return self.acknowledge(ending).await;
            }
            Some(Ok(Err(error))) => Some(error.into()),
            Some(Err(panic)) => Some(Arc::new(panic)),
            None => None,
        };
        let is_cut = failure.is_none();
        if let Some(failure) = failure {
            parcel.set_error(failure);
        }
        self.hand = Some(parcel);
        self.shared
            .count(|numbers| numbers.dead_letters_failed += 1);
        match is_cut {
            true => self.leave(Reason::NoDeadLetter),
            false => self.hand_back(Reason::NoDeadLetter).await,
        }
    }

    /// Acknowledges the item until the broker confirms that, and ends it.
    async fn acknowledge(&mut self, ending: Ending) {
        if !is_nothing::<R>() {
            if let Err(error) = self.confirm().await {
                if let (Some(parcel), Some(error)) = (&mut self.hand, error) {
                    parcel.set_error(error);
                }
                return self.leave(Reason::NotAcknowledged);
            }
        }
        self.end(ending);
    }

    async fn confirm(&mut self) -> Result<(), Option<SharedError>> {
        let mut last = None;
        let mut delays = None;
        loop {
            let Some(parcel) = &self.hand else {
                return Ok(());
            };
            let error: SharedError = match run_until(parcel.receipt.ack(), self.cut.as_mut()).await
            {
                Some(Ok(Ok(()))) => return Ok(()),
                Some(Ok(Err(error))) => error.into(),
                Some(Err(panic)) => Arc::new(panic),
                None => return Err(last),
            };
            self.shared.count(|numbers| numbers.acks_failed += 1);
            let name = &*self.shared.name;
            log::guarded(|| {
                let error = chain::line_of(&*error);
                tracing::warn!(target: "taskgroup", pipeline = name, error, "an acknowledgement failed and is repeated");
            });
            last = Some(error);
            let delays = delays.get_or_insert_with(|| Backoff::default().delays());
            let wait = sleep(delays.draw());
            if deadline::until(wait, self.cut.as_mut()).await.is_err() {
                return Err(last);
            }
        }
    }

    fn end(&mut self, ending: Ending) {
        let Some(parcel) = self.hand.take() else {
            return;
        };
        match ending {
            Ending::Done => self.done += 1,
            Ending::Failed => self.shared.count(|numbers| numbers.failed += 1),
            Ending::Panicked => self.shared.count(|numbers| numbers.panicked += 1),
        }
        let parks = ending != Ending::Done && self.policy.parks_failed_keys;
        self.shared.ended(&parcel, parks);
        if let Err(panic) = Panic::catch_drop(parcel) {
            let name = &*self.shared.name;
            log::guarded(|| {
                tracing::warn!(target: "taskgroup", pipeline = name, panic = panic.message(), "the destructor of an item panicked");
            });
            panic.discard();
        }
    }

    fn leave(&mut self, reason: Reason) {
        let parcel = self.hand.take();
        self.shared.leave(parcel.map(|parcel| (parcel, reason)));
    }

    /// Hands an item back at once, or at the end of a stop that has begun.
    async fn hand_back(&mut self, reason: Reason) {
        let policy = Arc::clone(&self.policy);
        let hand_back = match &policy.hand_back {
            Some(hand_back) if !self.shared.stopping.is_cancelled() => hand_back,
            _ => return self.leave(reason),
        };
        let Some(parcel) = self.hand.take() else {
            return;
        };
        self.shared.count(|numbers| match parcel.is_begun {
            true => numbers.handed_back_begun += 1,
            false => numbers.handed_back_unbegun += 1,
        });
        self.shared.ended(&parcel, true);
        let items = vec![HandedBack { parcel, reason }];
        let within = policy.hand_back_within;
        if let Err(error) = run_hand_back(hand_back, items, within).await {
            self.shared.count(|numbers| numbers.hand_backs_failed += 1);
            let name = &*self.shared.name;
            log::guarded(|| {
                let error = chain::line_of(&*error);
                tracing::warn!(target: "taskgroup", pipeline = name, error, "an item could not be handed back");
            });
        }
    }
}

/// Hands items back within the time for the hand-back.
pub(super) async fn run_hand_back<T, R>(
    hand_back: &HandBack<T, R>,
    items: Vec<HandedBack<T, R>>,
    within: Duration,
) -> Result<(), SharedError> {
    let called = Panic::catch(|| hand_back(items));
    let ended = match called {
        Ok(doing) => run_until(doing, pin!(sleep(within))).await,
        Err(panic) => Some(Err(panic)),
    };
    match ended {
        Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(error.into()),
        Some(Err(panic)) => Err(Arc::new(panic)),
        None => Err(Arc::new(Late(within))),
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

/// Returns whether `R` is `()`, which needs no acknowledgement.
fn is_nothing<R: 'static>() -> bool {
    TypeId::of::<R>() == TypeId::of::<()>()
}

/// The end of an item that is not handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Done,
    Failed,
    Panicked,
}

#[derive(Debug, thiserror::Error)]
#[error("it was begun {0} times before it came here, and never ended")]
struct Exhausted(u32);

#[derive(Debug, thiserror::Error)]
#[error("it did not return within {time}", time = Rounded(*.0))]
struct Late(Duration);

const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
