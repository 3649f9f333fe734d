//! The count of a group's members, and the door that closes behind the last one.
//!
//! Invariants:
//!
//! 1. The count and the two flags are one word, so "is it closed" and "who is in" are one question
//!    with one answer. A spawn that races with the end of a wait is counted before the door closes,
//!    or it finds the door closed; there is no third way.
//! 2. The owner holds one share of the count from the start until its wait has returned or it is
//!    dropped. So the count is zero when the owner is gone and all members are, and only a refused
//!    entry lifts it again, for a moment.
//! 3. `CLOSED` is never taken back.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use super::sync::{AtomicUsize, Lock, Ordering, wake};

const CLOSED: usize = 1;
/// Somebody waits to be alone; only then is it worth telling.
const WAITED: usize = 2;
const ONE: usize = 4;

#[derive(Debug)]
pub(crate) struct Latch {
    state: AtomicUsize,
    /// There is one owner, so there is one who waits; a `Notify` keeps a list and costs more.
    waiter: Lock<Option<Waker>>,
}

impl Latch {
    /// An open latch with the owner's share taken.
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicUsize::new(ONE),
            waiter: Lock::default(),
        }
    }

    /// Takes a share. The caller must [`leave`](Self::leave) in either case.
    ///
    /// Relaxed is enough: entering publishes nothing, and closing against entering is decided by
    /// the order of changes to this one word (invariant 1). `tokio_util`'s `TaskTracker` does the
    /// same. One addition, undone on refusal, is cheaper than a loop of compare-and-swap.
    #[inline]
    #[must_use = "a refused entry must leave"]
    pub(crate) fn enter(&self) -> bool {
        self.state.fetch_add(ONE, Ordering::Relaxed) & CLOSED == 0
    }

    /// Gives a share back.
    ///
    /// Release, so that all a member did is seen by the one who finds the count down; its partner is
    /// the acquire in `close_if_alone`.
    #[inline]
    pub(crate) fn leave(&self) {
        let before = self.state.fetch_sub(ONE, Ordering::Release);
        // Two shares, and somebody waits.
        if before & !CLOSED == (2 * ONE) | WAITED {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Before the waker is taken: whoever puts another one there sets the flag again.
        self.state.fetch_and(!WAITED, Ordering::Relaxed);
        let waiter = self.waiter.lock().take();
        if let Some(waiter) = waiter {
            wake(waiter);
        }
    }

    /// Closes, and returns the number of shares at that moment, the owner's among them.
    ///
    /// It is the number of those that were let in and have not left, and nobody is let in afterwards: so
    /// it says whether an abort that follows has anything to abort. Only if the latch was closed before
    /// can it be too high, by the refused entries of that moment.
    pub(crate) fn close(&self) -> usize {
        self.state.fetch_or(CLOSED, Ordering::AcqRel) / ONE
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Returns the number of shares, the owner's among them.
    pub(crate) fn shares(&self) -> usize {
        self.state.load(Ordering::Acquire) / ONE
    }

    /// Waits until only the owner is left, then closes and gives the owner's share back.
    ///
    /// Called only while the owner has its share. Dropping the future changes nothing.
    ///
    /// No wake-up is lost: the waker is there before `WAITED` is set, and that is set before the count is
    /// looked at, in the same word. A member that left before is seen in the count. One that leaves after
    /// sees the flag, and wakes the waker.
    pub(crate) async fn alone(&self) {
        let _waiting = Waiting(self);
        poll_fn(|cx| self.poll_alone(cx)).await;
    }

    fn poll_alone(&self, cx: &Context<'_>) -> Poll<()> {
        if self.close_if_alone() {
            return Poll::Ready(());
        }
        // A waker is code of the user: it is cloned and dropped outside the lock.
        let waker = cx.waker().clone();
        let before = self.waiter.lock().replace(waker);
        drop(before);
        self.state.fetch_or(WAITED, Ordering::AcqRel);
        if self.close_if_alone() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn close_if_alone(&self) -> bool {
        let alone = |state| (state / ONE == 1).then_some((state % ONE) | CLOSED);
        self.state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, alone)
            .is_ok()
    }
}

/// A wait that is under way; afterwards there is no waker.
struct Waiting<'a>(&'a Latch);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // In most cases it was woken, and the waker was taken for that.
        if self.0.state.fetch_and(!WAITED, Ordering::AcqRel) & WAITED != 0 {
            let waiter = self.0.waiter.lock().take();
            drop(waiter);
        }
    }
}
