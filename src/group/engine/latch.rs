//! The count of a group's members, and the door that closes behind the last one.
//!
//! Invariants:
//!
//! 1. The count and the two flags are one word, so "is it closed" and "which members are in" are
//!    answered together. A spawn that races with the end of a wait is either counted before the door
//!    closes, or finds the door closed.
//! 2. The owner holds one share of the count from the start until its wait has returned or it is
//!    dropped. So the count is zero when the owner and all members are gone. Only a refused entry
//!    raises it again, for a moment.
//! 3. `CLOSED` is never reset.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use super::sync::{AtomicUsize, Lock, Ordering, wake};

const CLOSED: usize = 1;
/// A caller waits to be alone. Members only notify if this is set.
const WAITED: usize = 2;
const ONE: usize = 4;

#[derive(Debug)]
pub(crate) struct Latch {
    state: AtomicUsize,
    /// Only the one owner can wait. A `Notify` keeps a list and costs more.
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
    /// Relaxed is enough, because entering publishes no data. The modification order of this one word
    /// decides between closing and entering (invariant 1). `tokio_util`'s `TaskTracker` does the same.
    /// One addition, undone on refusal, is cheaper than a loop of compare-and-swap.
    #[inline]
    #[must_use = "a refused entry must leave"]
    pub(crate) fn enter(&self) -> bool {
        self.state.fetch_add(ONE, Ordering::Relaxed) & CLOSED == 0
    }

    /// Gives a share back.
    ///
    /// Release, so that the thread that reads the lowered count sees everything the member did. Its
    /// partner is the acquire in `close_if_alone`.
    #[inline]
    pub(crate) fn leave(&self) {
        let before = self.state.fetch_sub(ONE, Ordering::Release);
        // Two shares are left, and the owner waits.
        if before & !CLOSED == (2 * ONE) | WAITED {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Reset before the waker is taken, because a thread that stores another waker sets the flag
        // again.
        self.state.fetch_and(!WAITED, Ordering::Relaxed);
        let waiter = self.waiter.lock().take();
        if let Some(waiter) = waiter {
            wake(waiter);
        }
    }

    /// Closes, and returns the number of shares at that moment, including the owner's.
    ///
    /// This counts the members that have entered and not left. No member can enter afterwards, so the
    /// number tells whether a following abort has anything to abort. It can only be too high if the
    /// latch was already closed, by entries that were being refused at that moment.
    pub(crate) fn close(&self) -> usize {
        self.state.fetch_or(CLOSED, Ordering::AcqRel) / ONE
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Returns the number of shares, including the owner's.
    pub(crate) fn shares(&self) -> usize {
        self.state.load(Ordering::Acquire) / ONE
    }

    /// Waits until only the owner is left, then closes and gives the owner's share back.
    ///
    /// Called only while the owner has its share. Dropping the future changes nothing.
    ///
    /// No wake-up is lost. The waker is stored before `WAITED` is set, and `WAITED` is set before the
    /// count is read, in the same word. If a member left before, the count shows it. If it leaves
    /// after, it sees the flag and wakes the waker.
    pub(crate) async fn alone(&self) {
        let _waiting = Waiting(self);
        poll_fn(|cx| self.poll_alone(cx)).await;
    }

    fn poll_alone(&self, cx: &Context<'_>) -> Poll<()> {
        if self.close_if_alone() {
            return Poll::Ready(());
        }
        // A waker is user code, so it is cloned and dropped outside the lock.
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

/// A wait that is under way. Its drop removes the waker.
struct Waiting<'a>(&'a Latch);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Usually the wait was woken, which has already taken the waker.
        if self.0.state.fetch_and(!WAITED, Ordering::AcqRel) & WAITED != 0 {
            let waiter = self.0.waiter.lock().take();
            drop(waiter);
        }
    }
}
