//! [`HandedBack`]: an item that was not worked off; and an item as the engine has it.

use std::collections::hash_map::RandomState;
use std::error::Error;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::JobError;
use super::queue::Entry;
use crate::backoff::{Backoff, Delays};

/// The error of an attempt, which all items of a batch have in common.
pub(super) type SharedError = Arc<dyn Error + Send + Sync>;

/// An item with all that the engine knows of it.
pub(super) struct Parcel<T, R> {
    pub(super) seq: u64,
    pub(super) key: Option<u64>,
    pub(super) taken_in: Instant,
    /// Nothing once the handler has taken it.
    pub(super) item: Option<T>,
    pub(super) receipt: R,
    /// How many attempts have failed, those before the intake included.
    pub(super) failed: u32,
    pub(super) is_begun: bool,
    /// Whether there was an attempt at it.
    pub(super) is_tried: bool,
    /// The job was told itself that it is done.
    pub(super) is_told_done: bool,
    /// What most items never have, so that they are small.
    pub(super) trouble: Option<Box<Trouble>>,
}

/// What is known of an item that has failed.
#[derive(Default)]
pub(super) struct Trouble {
    error: Option<SharedError>,
    /// What the job was told itself.
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

    /// The job is told its end itself.
    pub(super) fn tell(&mut self, answer: Answer) {
        match answer {
            Answer::Done => self.is_told_done = true,
            Answer::Error(error) => self.trouble.get_or_insert_default().told = Some(error),
        }
    }

    /// Takes what the job was told itself.
    pub(super) fn take_answer(&mut self) -> Option<Answer> {
        if take(&mut self.is_told_done) {
            return Some(Answer::Done);
        }
        Some(Answer::Error(self.trouble.as_mut()?.told.take()?))
    }

    /// Returns how long it waits for its next attempt.
    pub(super) fn next_delay(&mut self, backoff: &Backoff) -> Duration {
        let delays = &mut self.trouble.get_or_insert_default().delays;
        delays.get_or_insert_with(|| backoff.delays()).draw()
    }
}

impl<T, R> Entry for Parcel<T, R> {
    fn seq(&self) -> u64 {
        self.seq
    }

    fn key(&self) -> Option<u64> {
        self.key
    }

    fn taken_in(&self) -> Instant {
        self.taken_in
    }
}

/// How the key of an item is found; the hash of it is all that is kept.
pub(super) type KeyOf<T> = Arc<dyn Fn(&T) -> Option<u64> + Send + Sync>;

pub(super) fn key_of<T, K: Hash>(
    key: impl Fn(&T) -> Option<K> + Send + Sync + 'static,
) -> KeyOf<T> {
    let hasher = RandomState::new();
    Arc::new(move |item| Some(hasher.hash_one(key(item)?)))
}

/// How an attempt has ended, as the job was told itself.
pub(super) enum Answer {
    Done,
    Error(JobError),
}

/// An item that was not worked off, and where it stood.
///
/// Its end is neither done nor failed. To hand an item back costs no attempt.
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
    /// Nobody had begun it when the stop came, or when it was cut.
    NeverBegun,
    /// It waited for its next attempt.
    BetweenAttempts,
    /// It was under way at the deadline of the stop, and was cut.
    Cut,
    /// Its handler handed it back.
    Asked,
    /// It was passed on to a later stage, which has not brought it to its end.
    Downstream,
    /// Its receipt did not let it begin: its partition was taken away.
    Refused,
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
            Self::Refused => "refused by its receipt",
            Self::NotAcknowledged => "done, but not acknowledged",
            Self::NoDeadLetter => "not taken by the dead letters",
            Self::Taken => "failed without its item",
        })
    }
}

impl<T, R> HandedBack<T, R> {
    /// Returns the item; nothing if its handler had [taken](super::Job::take) it.
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

    /// Returns whether a handler has begun it, so that a part of its effect may have happened.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.parcel.is_begun
    }

    /// Returns why it was handed back.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Returns how many attempts have failed, those before the intake included.
    #[must_use]
    pub fn failed_attempts(&self) -> u32 {
        self.parcel.failed
    }

    /// Returns the last error: that of the last failed attempt, of the acknowledgement, or of the dead letter.
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
