//! [`HandedBack`], an item that was not worked off, and the engine's own form of an item.

use std::collections::hash_map::RandomState;
use std::error::Error;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::JobError;
use super::queue::{Entry, Key};
use super::watermark::Mark;
use crate::backoff::{Backoff, Delays};

/// The error of an attempt, which all items of a batch share.
pub(super) type SharedError = Arc<dyn Error + Send + Sync>;

/// An item with all that the engine knows about it.
pub(super) struct Parcel<T, R> {
    pub(super) seq: u64,
    pub(super) key: Option<Key>,
    pub(super) taken_in: Instant,
    /// `None` once the handler has taken it.
    pub(super) item: Option<T>,
    pub(super) receipt: R,
    /// The mark of the receipt.
    pub(super) mark: Option<Mark>,
    /// How much it weighs, for the batch that it will be in.
    pub(super) weight: u64,
    /// How many attempts have failed, including those before the intake.
    pub(super) failed: u32,
    pub(super) is_begun: bool,
    /// Whether it was begun before the attempt that it was taken for.
    pub(super) was_begun: bool,
    /// Whether the handler called `done` on the job.
    pub(super) is_told_done: bool,
    /// Details that most items never have, boxed to keep items small.
    pub(super) trouble: Option<Box<Trouble>>,
}

/// The details of an item that has failed.
#[derive(Default)]
pub(super) struct Trouble {
    error: Option<SharedError>,
    /// The answer that the handler gave on the job.
    told: Option<JobError>,
    /// The waits between the attempts, once there was one.
    delays: Option<Delays>,
}

impl<T, R> Parcel<T, R> {
    pub(super) fn error(&self) -> Option<&SharedError> {
        self.trouble.as_ref()?.error.as_ref()
    }

    pub(super) fn set_error(&mut self, error: SharedError) {
        self.trouble.get_or_insert_default().error = Some(error);
    }

    /// Stores the answer that the handler gave on the job.
    pub(super) fn tell(&mut self, answer: Answer) {
        match answer {
            Answer::Done => self.is_told_done = true,
            Answer::Error(error) => self.trouble.get_or_insert_default().told = Some(error),
        }
    }

    /// Takes the answer that the handler gave on the job.
    pub(super) fn take_answer(&mut self) -> Option<Answer> {
        if take(&mut self.is_told_done) {
            return Some(Answer::Done);
        }
        Some(Answer::Error(self.trouble.as_mut()?.told.take()?))
    }

    /// Returns how long the item waits for its next attempt.
    pub(super) fn next_delay(&mut self, backoff: &Backoff) -> Duration {
        let delays = &mut self.trouble.get_or_insert_default().delays;
        delays.get_or_insert_with(|| backoff.delays()).draw()
    }
}

impl<T, R> Entry for Parcel<T, R> {
    fn seq(&self) -> u64 {
        self.seq
    }

    fn key(&self) -> Option<Key> {
        self.key
    }

    fn taken_in(&self) -> Instant {
        self.taken_in
    }

    fn weight(&self) -> u64 {
        self.weight
    }
}

/// Finds the weight of an item.
pub(super) type WeightOf<T> = Arc<dyn Fn(&T) -> u64 + Send + Sync>;

/// Finds the key of an item. The pool keeps only the hash of the key.
pub(super) type KeyOf<T> = Arc<dyn Fn(&T) -> Option<Key> + Send + Sync>;

pub(super) fn key_of<T, K: Hash>(
    key: impl Fn(&T) -> Option<K> + Send + Sync + 'static,
) -> KeyOf<T> {
    let hasher = RandomState::new();
    Arc::new(move |item| Some(Key::MIN | hasher.hash_one(key(item)?)))
}

/// The end of an attempt, as the handler gave it on the job.
pub(super) enum Answer {
    Done,
    Error(JobError),
}

/// An item that was not worked off, and how far it came.
///
/// It is neither done nor failed. Handing an item back costs no attempt.
///
/// # Examples
///
/// See [`Workers::hand_back`](super::Workers::hand_back).
pub struct HandedBack<T, R = ()> {
    pub(super) parcel: Parcel<T, R>,
    pub(super) reason: Reason,
}

/// Why an item was handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It had not been begun when the stop came, or when it was cut.
    NeverBegun,
    /// It waited for its next attempt.
    BetweenAttempts,
    /// It was under way at the deadline of the stop, and was cut.
    Cut,
    /// Its handler handed it back.
    Asked,
    /// It was passed on to a later stage, which has not brought it to its end.
    Downstream,
    /// Its partition was [revoked](super::Watermark::revoke) before it could begin.
    Revoked,
    /// It is done, and the broker did not confirm the acknowledgement in time.
    NotAcknowledged,
    /// It had failed for the last time, and the dead-letter function failed, panicked or was late.
    NoDeadLetter,
    /// It had failed for the last time, and its handler had taken the item out.
    Taken,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NeverBegun => "never begun",
            Self::BetweenAttempts => "between two attempts",
            Self::Cut => "cut",
            Self::Asked => "handed back by its handler",
            Self::Downstream => "not ended by a later stage",
            Self::Revoked => "of a revoked partition",
            Self::NotAcknowledged => "done, but not acknowledged",
            Self::NoDeadLetter => "not taken by the dead letters",
            Self::Taken => "failed without its item",
        })
    }
}

impl<T, R> HandedBack<T, R> {
    /// Returns the item, or `None` if its handler had [taken](super::Job::take) it.
    #[must_use]
    pub fn item(&self) -> Option<&T> {
        self.parcel.item.as_ref()
    }

    /// Returns the receipt that came with the item.
    #[must_use]
    pub fn receipt(&self) -> &R {
        &self.parcel.receipt
    }

    /// Returns the item and its receipt by value.
    #[must_use]
    pub fn into_parts(self) -> (Option<T>, R) {
        (self.parcel.item, self.parcel.receipt)
    }

    /// Returns whether a handler has begun it, so that part of its effect may have happened.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.parcel.is_begun
    }

    /// Returns why it was handed back.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Returns how many attempts have failed, including those before the intake.
    #[must_use]
    pub fn failed_attempts(&self) -> u32 {
        self.parcel.failed
    }

    /// Returns the last error, which may be that of a failed attempt, of the acknowledgement, or of the dead
    /// letter.
    #[must_use]
    pub fn last_error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.parcel.error().map(|error| &**error as _)
    }
}

impl<T, R> fmt::Debug for HandedBack<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandedBack")
            .field("reason", &self.reason)
            .field("is_begun", &self.is_begun())
            .field("failed_attempts", &self.failed_attempts())
            .field("last_error", &self.last_error())
            .finish_non_exhaustive()
    }
}
