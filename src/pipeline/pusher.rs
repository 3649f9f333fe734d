//! [`Pusher`]: puts items into a pool with a queue of its own.

use std::fmt;
use std::sync::Arc;

use super::admission::{Place, Rejected};
use super::error::{PushError, Stopped};
use super::shared::Shared;

/// Pushes items into the queue of a pool. A clone is a further pusher of the same queue.
///
/// The queue has a capacity for items that have not begun. A caller that finds it full waits, first come,
/// first served. When the pool has stopped, every push returns its item in the error, and waiting pushes do
/// so at once.
///
/// When the last pusher is dropped, the pool works off its items and ends cleanly. A handler of the pool that
/// holds a pusher keeps it from ending by itself, so that pool ends with its group.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
/// use taskgroup::pipeline::{Job, Workers};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let mut group = TaskGroup::new();
/// let (pusher, pool) = Workers::new("mail", |_: Job<&str>| async { Ok(()) }).queue(10)?;
/// pool.spawn(&group);
/// pusher.push("ann").await?;
///
/// group.cancel();
/// group.wait().await?;
/// assert_eq!(pusher.push("bob").await.unwrap_err().into_item(), "bob");
/// # Ok(())
/// # }
/// ```
pub struct Pusher<T> {
    shared: Arc<Shared<T, ()>>,
}

/// A reserved place in the queue for one item.
///
/// [`Pusher::reserve`] returns it. Dropping it gives the place to the next caller that waits.
#[must_use = "a place that is not used is given back"]
pub struct Permit<'a, T> {
    /// `None` once the place is used.
    shared: Option<&'a Shared<T, ()>>,
}

impl<T> Pusher<T> {
    pub(super) fn new(shared: &Arc<Shared<T, ()>>) -> Self {
        shared.add_pusher();
        Self {
            shared: Arc::clone(shared),
        }
    }

    /// Pushes an item, and waits for a place while the queue is full.
    ///
    /// If all workers at once push into the queue of their own pool, they can wait for each other forever. A
    /// handler that does so has to use [`try_push`](Self::try_push).
    ///
    /// # Errors
    ///
    /// The pool has stopped, now or while the caller waits. The error has the item.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the item without pushing it. [`reserve`](Self::reserve) waits without an
    /// item.
    pub async fn push(&self, item: T) -> Result<(), PushError<T>> {
        let item = match self.shared.has_questions() {
            // The questions are asked once, when there is a place.
            true => item,
            false => match self.try_push(item) {
                Err(refused) if refused.is_full() => refused.into_item(),
                pushed => return pushed,
            },
        };
        match self.reserve().await {
            Ok(permit) => permit.send(item),
            Err(Stopped(())) => Err(PushError::stopped(item)),
        }
    }

    /// Pushes an item if there is a place for it now. It does not overtake callers that wait.
    ///
    /// # Errors
    ///
    /// The queue is full, or the pool has stopped. The error has the item.
    pub fn try_push(&self, item: T) -> Result<(), PushError<T>> {
        let taken_in = self.shared.take_in(item, (), 0, Place::Free);
        taken_in.map(drop).map_err(refused)
    }

    /// Waits for a place in the queue, and keeps it.
    ///
    /// # Errors
    ///
    /// The pool has stopped, now or while the caller waits.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. Dropping the future only loses the place in the line of waiting callers.
    pub async fn reserve(&self) -> Result<Permit<'_, T>, Stopped> {
        self.shared.reserve().await?;
        let shared = Some(&*self.shared);
        Ok(Permit { shared })
    }

    /// Returns whether the pool has stopped taking items in.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        !self.shared.is_open()
    }
}

impl<T> Permit<'_, T> {
    /// Pushes an item into the reserved place. It never waits.
    ///
    /// # Errors
    ///
    /// The pool has stopped meanwhile. The error has the item.
    pub fn send(mut self, item: T) -> Result<(), PushError<T>> {
        let Some(shared) = self.shared.take() else {
            // Only this call takes it.
            return Err(PushError::stopped(item));
        };
        // The worker that takes the item gives the place back.
        let taken_in = shared.take_in(item, (), 0, Place::Reserved);
        taken_in.map(drop).map_err(refused)
    }
}

impl<T> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared {
            shared.give_back(1);
        }
    }
}

fn refused<T>(rejected: Rejected<T, ()>) -> PushError<T> {
    let Some(item) = rejected.parcel.item else {
        unreachable!("only a handler takes the item out");
    };
    match rejected.is_full {
        true => PushError::full(item),
        false => PushError::stopped(item),
    }
}

impl<T> Clone for Pusher<T> {
    fn clone(&self) -> Self {
        Self::new(&self.shared)
    }
}

impl<T> Drop for Pusher<T> {
    fn drop(&mut self) {
        self.shared.remove_pusher();
    }
}

impl<T> fmt::Debug for Pusher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pusher")
            .field("pipeline", &self.shared.name)
            .field("is_stopped", &self.is_stopped())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Permit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("pipeline", &self.shared.map(|shared| &shared.name))
            .finish_non_exhaustive()
    }
}
