//! [`Valve`]: pauses pools by hand.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::group::lock::Lock;

/// Pauses and resumes pools by hand, for example while a service that their handlers need is down.
///
/// While it is paused, no item of a [pool that has it](super::Workers::valve) begins, whether it is new or due
/// for a further attempt, and the pool fetches nothing. Items that have begun go on, and the leases of all
/// held items are [kept alive](super::Workers::keep_alive). Pushers fill the queue and then wait. So a pause
/// costs no attempt. A second pause or resume has no effect.
///
/// If the pool has to stop while it is paused, the items that have not begun are handed back, as with
/// [`AtStop::HandBack`](super::AtStop::HandBack).
///
/// A clone is another handle on the same valve, and several pools can share one. Dropping all handles leaves
/// it as it is.
///
/// # Examples
///
/// A handler pauses its pool when the service that it needs is down, and a task resumes it later:
///
/// ```
/// use std::time::Duration;
/// use taskgroup::TaskGroup;
/// use taskgroup::pipeline::{Job, JobError, Valve, Workers};
///
/// # async fn call(_: &u32) -> Result<(), std::io::Error> { Ok(()) }
/// # async fn is_well() -> bool { true }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let mut group = TaskGroup::new();
/// let valve = Valve::new();
/// let breaker = valve.clone();
/// let workers = Workers::new("calls", move |order: Job<u32>| {
///     let breaker = breaker.clone();
///     async move {
///         call(&order).await.map_err(|error| {
///             breaker.pause();
///             JobError::hand_back(error) // costs no attempt
///         })
///     }
/// });
/// let (orders, pool) = workers.valve(&valve).queue(100)?;
/// let report = pool.spawn(&group);
/// orders.push(7).await?;
/// group.spawn(async move {
///     while !is_well().await {
///         tokio::time::sleep(Duration::from_secs(1)).await;
///     }
///     Ok(valve.resume())
/// });
/// drop(orders);
/// assert_eq!(report.await?.done(), 1);
/// # group.wait().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Valve(Arc<Inner>);

#[derive(Default)]
struct Inner {
    is_paused: Lock<bool>,
    resumed: Notify,
}

impl Valve {
    /// Makes a valve that is not paused.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Pauses the pools. Returns at once, and items that have begun go on.
    pub fn pause(&self) {
        *self.0.is_paused.lock() = true;
    }

    /// Resumes the pools.
    pub fn resume(&self) {
        *self.0.is_paused.lock() = false;
        self.0.resumed.notify_waiters();
    }

    /// Returns whether the pools are paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        *self.0.is_paused.lock()
    }

    /// Waits until the pools are not paused.
    pub(super) async fn resumed(&self) {
        loop {
            let mut resumed = pin!(self.0.resumed.notified());
            // Made before the look, so that a change in between wakes it.
            resumed.as_mut().enable();
            if !self.is_paused() {
                return;
            }
            resumed.await;
        }
    }
}

impl fmt::Debug for Valve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Valve")
            .field("is_paused", &self.is_paused())
            .finish_non_exhaustive()
    }
}
