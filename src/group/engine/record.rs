//! The failures of a group in order, the cause of its cancel, and the token that tells its tasks.
//!
//! Invariants:
//!
//! 1. The cause, and the failure behind it, are recorded before the token fires.
//! 2. The token is made under the lock, after reading the cause. A cancel records its cause under the
//!    lock, then looks for a token. So the cancel finds the token, or the token is made later and fired
//!    before any task can have it. In both cases the token has fired once a cancel has returned.
//! 3. A failure is moved between two records with both of them locked, the record of the child group
//!    first and then that of a group above. No code locks them in the other order. Code that collects
//!    the failures of both reads the child first, and so finds the failure in one of them.
//! 4. No value of a user is dropped, printed or woken under the lock.

use std::sync::atomic::{AtomicU64, Ordering};

use super::sync::{CancellationToken, Lock, OnceLock};
use crate::group::cause::Cause;
use crate::group::error::TaskError;
use crate::group::in_order::in_order;

#[derive(Debug)]
pub(crate) struct Record<E> {
    /// Made on first use. A group that is never cancelled or watched does not need one.
    token: OnceLock<CancellationToken>,
    entries: Lock<Entries<E>>,
}

/// The failures are only split into the first and the later ones when they are handed over. Until then
/// they are a list.
#[derive(Debug)]
struct Entries<E> {
    cause: Option<Cause>,
    failures: Vec<Recorded<E>>,
    /// Whether the owner is gone, so that no caller will ask for failures here.
    orphaned: bool,
}

/// A failure with its position among all failures of the process, so that the failures of a group and
/// its child groups can be put in one order.
#[derive(Debug)]
pub(crate) struct Recorded<E> {
    moment: u64,
    error: TaskError<E>,
}

impl<E> Recorded<E> {
    pub(crate) fn now(error: TaskError<E>) -> Self {
        static MOMENTS: AtomicU64 = AtomicU64::new(0);
        let moment = MOMENTS.fetch_add(1, Ordering::Relaxed);
        Self { moment, error }
    }
}

impl<E> Record<E> {
    #[inline]
    pub(crate) fn new(token: Option<CancellationToken>) -> Self {
        Self {
            token: token.map_or_else(OnceLock::new, OnceLock::from),
            entries: Lock::new(Entries {
                cause: None,
                failures: Vec::new(),
                orphaned: false,
            }),
        }
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        self.token.get().unwrap_or_else(|| self.make_token())
    }

    #[cold]
    fn make_token(&self) -> &CancellationToken {
        let entries = self.entries.lock();
        self.token.get_or_init(|| {
            let token = CancellationToken::new();
            if entries.cause.is_some() {
                // The token is not shared yet, so this wakes no task.
                token.cancel();
            }
            token
        })
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.get().is_some()
    }

    pub(crate) fn has_token_fired(&self) -> bool {
        self.token
            .get()
            .is_some_and(CancellationToken::is_cancelled)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.has_token_fired() || self.entries.lock().cause.is_some()
    }

    /// Returns the cause that was recorded here, or `None` if other code fired the token.
    pub(crate) fn cause(&self) -> Option<Cause> {
        self.entries.lock().cause.clone()
    }

    /// Cancels for this cause, and returns whether it was the first.
    pub(crate) fn cancel(&self, cause: Cause) -> bool {
        let first = {
            let mut entries = self.entries.lock();
            // If other code fired the token first, that was the first cause.
            let first = !self.has_token_fired() && entries.cause.is_none();
            if first {
                entries.cause = Some(cause);
            }
            first
        };
        if let Some(token) = self.token.get() {
            token.cancel();
        }
        first
    }

    /// Keeps a failure and its cause, if it is the first cause. Does not fire the token.
    pub(crate) fn keep_first(&self, cause: Cause, failure: Recorded<E>) -> bool {
        let mut entries = self.entries.lock();
        let first = !self.has_token_fired() && entries.cause.is_none();
        if first {
            entries.cause = Some(cause);
            entries.failures.push(failure);
        }
        first
    }

    /// Keeps failures, or returns them if no owner will ask for them here.
    pub(crate) fn keep(&self, mut failures: Vec<Recorded<E>>) -> Vec<Recorded<E>> {
        let mut entries = self.entries.lock();
        if !entries.orphaned {
            entries.failures.append(&mut failures);
        }
        failures
    }

    pub(crate) fn take(&self) -> Vec<Recorded<E>> {
        std::mem::take(&mut self.entries.lock().failures)
    }

    /// Hands the failures to the first record above that keeps them, and keeps none from now on.
    /// Returns those that no record keeps.
    pub(crate) fn hand_up<'a>(&self, above: impl IntoIterator<Item = &'a Self>) -> Vec<Recorded<E>>
    where
        E: 'a,
    {
        // Held until the end (invariant 3).
        let mut entries = self.entries.lock();
        entries.orphaned = true;
        let mut failures = std::mem::take(&mut entries.failures);
        for record in above {
            if failures.is_empty() {
                break;
            }
            failures = record.keep(failures);
        }
        failures
    }
}

/// Sorts the failures and attaches the later ones to the first.
#[cold]
pub(crate) fn first_of<E>(failures: Vec<Recorded<E>>) -> Option<TaskError<E>> {
    let failures = in_order(failures, |recorded| recorded.moment);
    let mut errors = failures.map(|recorded| recorded.error);
    let mut first = errors.next()?;
    first.suppress(errors.collect());
    Some(first)
}
