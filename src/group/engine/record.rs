//! What went wrong in a group, in order, why it was cancelled, and the token that tells its tasks.
//!
//! Invariants:
//!
//! 1. The cause, and the failure behind it, are recorded before the token fires.
//! 2. The token is made under the lock, with a look at the cause. A cancel records its cause under the
//!    lock, then looks for a token. So either the cancel finds the token, or the token is made later and
//!    fired before anybody can have it: once a cancel has returned, the token has fired.
//! 3. A failure is moved from one record to another with both of them locked: first the record of the
//!    group below, then that of a group above it. Nobody locks them in the other order. Whoever collects
//!    the failures of both looks below first, and so finds the failure in one of them.
//! 4. Nothing of a user is dropped, printed or woken under the lock.

use std::sync::atomic::{AtomicU64, Ordering};

use super::sync::{CancellationToken, Lock, OnceLock};
use crate::group::cause::Cause;
use crate::group::error::TaskError;

#[derive(Debug)]
pub(crate) struct Record<E> {
    /// Made when first asked for: a group that nobody cancels and nobody watches needs none.
    token: OnceLock<CancellationToken>,
    entries: Lock<Entries<E>>,
}

/// The first failure is told apart from the later ones only when they are handed over: until then it
/// is simply the first in a list.
#[derive(Debug)]
struct Entries<E> {
    cause: Option<Cause>,
    failures: Vec<Recorded<E>>,
    /// Whether the owner is gone, so that nobody will ask for failures here.
    orphaned: bool,
}

/// A failure with the moment in which it happened, among all failures of the process: those of a
/// group and of the groups below it are put in one order.
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
                // Nobody has it yet, so this wakes nobody.
                token.cancel();
            }
            token
        })
    }

    pub(crate) fn has_token_fired(&self) -> bool {
        self.token
            .get()
            .is_some_and(CancellationToken::is_cancelled)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.has_token_fired() || self.entries.lock().cause.is_some()
    }

    /// Returns the cause that was recorded here; none if the token was fired by somebody else.
    pub(crate) fn cause(&self) -> Option<Cause> {
        self.entries.lock().cause.clone()
    }

    /// Cancels for this cause, and returns whether it was the first.
    pub(crate) fn cancel(&self, cause: Cause) -> bool {
        let first = {
            let mut entries = self.entries.lock();
            // Whoever fired the token without us came first: its cause is read through.
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

    /// Keeps a failure and its cause, if it is the first cause. It does not fire the token.
    pub(crate) fn keep_first(&self, cause: Cause, failure: Recorded<E>) -> bool {
        let mut entries = self.entries.lock();
        let first = !self.has_token_fired() && entries.cause.is_none();
        if first {
            entries.cause = Some(cause);
            entries.failures.push(failure);
        }
        first
    }

    /// Keeps failures, or gives them back if nobody will ask for them here.
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
        // Held to the end (invariant 3).
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

/// Puts failures in order, and the later ones into the first.
pub(crate) fn first_of<E>(mut failures: Vec<Recorded<E>>) -> Option<TaskError<E>> {
    failures.sort_unstable_by_key(|recorded| recorded.moment);
    let mut errors = failures.into_iter().map(|recorded| recorded.error);
    let mut first = errors.next()?;
    first.suppress(errors.collect());
    Some(first)
}
