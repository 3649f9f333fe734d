//! What a worker does with the items that it takes, up to their ends.

use std::cmp::Reverse;
use std::mem::needs_drop;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{sleep, sleep_until};

use super::error::{Fault, JobError, JobErrorKind};
use super::handler::Handle;
use super::job::Job;
use super::parcel::{Answer, HandedBack, Parcel, Reason, SharedError};
use super::policy::{DeadLetter, OnFailure, run_hand_back};
use super::queue::Found;
use super::receipt::Receipt;
use super::run::{after, run_until};
use super::shared::is_nothing;
use super::worker::{Failure, Outcome, Worker};
use crate::backoff::Backoff;
use crate::group::chain;
use crate::group::deadline;
use crate::group::log;
use crate::group::panic::Panic;

impl<T: Send + 'static, R: Receipt> Worker<T, R> {
    /// Works until the queue is empty and will stay empty.
    pub(super) async fn work<H: Handle<T, R>>(mut self, handler: Arc<H>) {
        loop {
            if self.turns.is_over() {
                yield_now().await;
            }
            // Most often there is work, which costs less without a further future.
            let is_returned = match self.take_now(false) {
                Found::Taken { .. } => false,
                Found::Returned => true,
                Found::Over => return,
                Found::Wait(_) => match self.take().await {
                    Some(is_returned) => is_returned,
                    None => return,
                },
            };
            if is_returned {
                self.settle(&Outcome::Left).await;
                continue;
            }
            if self.may_turn_away() {
                self.turn_revoked_away().await;
                self.turn_exhausted_away().await;
            }
            let outcome = self.attempt(&*handler).await;
            if !self.settled_at_once(&outcome) {
                self.settle(&outcome).await;
            }
        }
    }

    /// Returns whether an item may have to be turned away. Most have no mark, and have not failed before.
    fn may_turn_away(&self) -> bool {
        let mut items = self.batch.iter();
        items.any(|parcel| parcel.failed > 0 || parcel.mark.is_some())
    }

    /// Ends an item that is done and needs no acknowledgement, if its handler gave no answer on the job. Most
    /// often it is the only one.
    fn settled_at_once(&mut self, outcome: &Outcome) -> bool {
        let is_plain = |parcel: &Parcel<T, R>| {
            let has_answer = parcel.is_told_done || parcel.trouble.is_some();
            !has_answer && parcel.key.is_none()
        };
        let is_done = is_nothing::<R>() && matches!(outcome, Outcome::Done);
        if !is_done || self.batch.len() != 1 || !self.batch.iter().all(is_plain) {
            return false;
        }
        if needs_drop::<T>() || self.shared.has_leases() {
            self.hand = self.batch.pop();
            self.end(Ending::Done);
        } else {
            self.batch.clear();
            self.done += 1;
        }
        true
    }

    /// Hands back the items whose partition was revoked.
    async fn turn_revoked_away(&mut self) {
        while let Some(mut parcel) = self.next_revoked() {
            let is_new = !parcel.was_begun;
            parcel.is_begun = parcel.was_begun;
            self.shared.count(|numbers| {
                numbers.attempts -= 1;
                numbers.begun -= usize::from(is_new);
            });
            self.hand = Some(parcel);
            self.hand_back(Reason::Revoked).await;
        }
    }

    fn next_revoked(&mut self) -> Option<Parcel<T, R>> {
        let index = self.batch.iter().position(is_revoked)?;
        Some(self.batch.remove(index))
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

    /// Ends the items that have come back, or puts them aside for their next attempt.
    async fn settle(&mut self, outcome: &Outcome) {
        // Taken from the back, in the order of the intake.
        self.batch.sort_by_key(|parcel| Reverse(parcel.seq));
        // A handler that tells the items of a batch that are done has forgotten the others.
        let is_told = self.batch.len() > 1 && self.batch.iter().any(|parcel| parcel.is_told_done);
        while let Some(mut parcel) = self.batch.pop() {
            let own = match parcel.take_answer() {
                Some(Answer::Done) => Outcome::Done,
                Some(Answer::Error(error)) => Outcome::Failed(error.into()),
                None if is_told && matches!(outcome, Outcome::Done) => {
                    Outcome::Failed(JobError::failed(NoAnswer).into())
                }
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
        let ended = run_until(|| dead_letter(job), self.cut.as_mut()).await;
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
            let receipt = &parcel.receipt;
            let error: SharedError = match run_until(|| receipt.ack(), self.cut.as_mut()).await {
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
        self.shared.handed_back(&parcel, reason);
        let items = vec![HandedBack { parcel, reason }];
        let until = after(policy.hand_back_within);
        if let Err(error) = run_hand_back(hand_back, items, until).await {
            self.shared.count(|numbers| numbers.hand_backs_failed += 1);
            let name = &*self.shared.name;
            log::guarded(|| {
                let error = chain::line_of(&*error);
                tracing::warn!(target: "taskgroup", pipeline = name, error, "an item could not be handed back");
            });
        }
    }
}

/// The end of an item that is not handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Done,
    Failed,
    Panicked,
}

/// Notes that an attempt begins, unless the partition of the item was revoked.
fn is_revoked<T, R>(parcel: &Parcel<T, R>) -> bool {
    parcel.mark.as_ref().is_some_and(|mark| !mark.begin())
}

#[derive(Debug, thiserror::Error)]
#[error("it was begun {0} times before it came here, and never ended")]
struct Exhausted(u32);

#[derive(Debug, thiserror::Error)]
#[error("the handler told other items of its batch that they are done, and not this one")]
struct NoAnswer;

const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
