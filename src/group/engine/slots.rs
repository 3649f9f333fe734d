//! The slots of a group with a limit, and the queue for them.
//!
//! Invariants:
//!
//! 1. The semaphore is fair. A free slot goes to the first task in its queue, and `try_acquire` fails
//!    while the queue is not empty. So no task is overtaken.
//! 2. A task takes its place in the queue in the first poll of [`Slots::take`]. `unconstrained` makes
//!    this independent of the task's remaining Tokio budget.
//! 3. `waiting` holds the members that wait for a slot while they hold one. When there are as many of
//!    them as slots, no slot can ever become free, because each holder waits for another one to end.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::unconstrained;
use tokio_util::sync::CancellationToken;

use super::sync::Lock;

/// As many slots as the limit, or unlimited slots without a limit.
#[derive(Debug)]
pub(crate) struct Slots(Option<Box<Limited>>);

#[derive(Debug)]
struct Limited {
    semaphore: Semaphore,
    limit: usize,
    closed: CancellationToken,
    /// How many waits each holder of a slot has (invariant 3).
    waiting: Lock<BTreeMap<Holder, usize>>,
}

/// A slot that was taken. Dropping it frees the slot.
#[derive(Debug)]
pub(crate) struct Slot<'a>(Option<SemaphorePermit<'a>>);

/// Why a caller did not get a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSlot {
    /// The token has fired.
    Cancelled,
    /// The group is closed.
    Closed,
    /// All slots are held by tasks that wait for one, the caller's task among them.
    Deadlock,
}

impl Slots {
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self(limit.map(|limit| {
            Box::new(Limited {
                // No group can reach a limit beyond what the semaphore can count.
                semaphore: Semaphore::new(limit.min(Semaphore::MAX_PERMITS)),
                limit,
                closed: CancellationToken::new(),
                waiting: Lock::default(),
            })
        }))
    }

    /// Takes a slot if one is free and the queue is empty.
    #[inline]
    pub(crate) fn try_take(&self) -> Option<Slot<'_>> {
        match &self.0 {
            None => Some(Slot(None)),
            Some(limited) => limited.try_take(),
        }
    }

    /// Waits for a slot, first come, first served, until the token has fired.
    ///
    /// A closed group still serves its queue, because those tasks were accepted before.
    pub(crate) async fn take(&self, token: &CancellationToken) -> Result<Slot<'_>, NoSlot> {
        let Some(limited) = &self.0 else {
            return Ok(Slot(None));
        };
        let slot = unconstrained(token.run_until_cancelled(limited.semaphore.acquire())).await;
        match slot {
            // A slot that became free because of the cancel must not start a task.
            Some(Ok(permit)) if !token.is_cancelled() => Ok(Slot(Some(permit))),
            _ => Err(NoSlot::Cancelled),
        }
    }

    /// Waits for a slot as [`take`](Self::take) does, for a caller that is not in the group yet. The
    /// caller is refused when the group is closed, or when it would wait for itself.
    pub(crate) async fn take_as_caller(
        &self,
        token: &CancellationToken,
    ) -> Result<Slot<'_>, NoSlot> {
        let Some(limited) = &self.0 else {
            return Ok(Slot(None));
        };
        let mut slot = pin!(limited.closed.run_until_cancelled(self.take(token)));
        let mut wait = Wait {
            limited,
            holder: None,
        };
        poll_fn(|cx| match slot.as_mut().poll(cx) {
            Poll::Ready(slot) => Poll::Ready(slot.unwrap_or(Err(NoSlot::Closed))),
            Poll::Pending if wait.is_endless() => Poll::Ready(Err(NoSlot::Deadlock)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Refuses the callers that wait for a slot, and all later ones.
    pub(crate) fn close(&self) {
        if let Some(limited) = &self.0 {
            limited.closed.cancel();
        }
    }

    /// Gives back a slot that was kept.
    #[inline]
    pub(crate) fn free(&self) {
        if let Some(limited) = &self.0 {
            limited.semaphore.add_permits(1);
        }
    }
}

impl Limited {
    fn try_take(&self) -> Option<Slot<'_>> {
        let permit = self.semaphore.try_acquire().ok()?;
        Some(Slot(Some(permit)))
    }
}

impl Slot<'_> {
    /// Takes the slot for good and returns whether [`Slots::free`] must give it back.
    #[inline]
    pub(crate) fn keep(self) -> bool {
        self.0.map(SemaphorePermit::forget).is_some()
    }
}

/// The wait of one caller, which may be a task that holds a slot of the same group.
struct Wait<'a> {
    limited: &'a Limited,
    holder: Option<Holder>,
}

impl Wait<'_> {
    /// Notes the member that waits, and returns whether no slot can ever become free.
    ///
    /// Only this call can enter that state. A limit never changes, and a holder that waits does not end
    /// before it has stopped waiting. So a check at the beginning of each wait is enough. A future may
    /// move to another task, so each poll checks its holder.
    fn is_endless(&mut self) -> bool {
        let holder = Holder::current().filter(|holder| holder.slots == id(self.limited));
        if holder == self.holder {
            return false;
        }
        self.forget();
        self.holder = holder;
        let Some(holder) = holder else { return false };
        let mut waiting = self.limited.waiting.lock();
        *waiting.entry(holder).or_default() += 1;
        waiting.len() >= self.limited.limit
    }

    fn forget(&mut self) {
        let Some(holder) = self.holder.take() else {
            return;
        };
        let mut waiting = self.limited.waiting.lock();
        if let Some(count) = waiting.get_mut(&holder) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&holder);
            }
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.forget();
    }
}

/// A member that holds a slot, identified by the addresses of its marks and of its group's slots. Both
/// stay in place while the member is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Holder {
    member: usize,
    slots: usize,
}

thread_local! {
    /// The member with a slot whose code runs on this thread.
    static CURRENT: Cell<Option<Holder>> = const { Cell::new(None) };
}

impl Holder {
    fn current() -> Option<Self> {
        CURRENT.try_with(Cell::get).ok().flatten()
    }

    fn replace(holder: Option<Self>) -> Option<Self> {
        CURRENT.try_with(|current| current.replace(holder)).ok()?
    }
}

/// While this lives, the code on this thread belongs to one member with a slot.
#[derive(Debug)]
pub(crate) struct Holding(Option<Holder>);

impl Slots {
    /// Notes that the code of a member with a slot is running now. `marks` are the member's own.
    pub(crate) fn hold<M>(&self, marks: &M) -> Option<Holding> {
        let limited = self.0.as_deref()?;
        let holder = Holder {
            member: id(marks),
            slots: id(limited),
        };
        Some(Holding(Holder::replace(Some(holder))))
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        Holder::replace(self.0);
    }
}

fn id<T>(value: &T) -> usize {
    std::ptr::from_ref(value).addr()
}
