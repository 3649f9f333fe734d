//! [`StopAfter`]: stops a group when its time is up.

use std::time::Duration;

use tokio::time::sleep;

use crate::group::Spawner;
use crate::group::cause::Cause;
use crate::group::trigger::sealed::Listen;
use crate::group::trigger::{Trigger, listen_for};

/// Stops a group after a time, which is no failure.
///
/// It is for [`TaskGroup::cancel_on`](crate::TaskGroup::cancel_on), and counts from that call. The
/// cause is [`Cause::Deadline`].
///
/// With [`Duration::ZERO`] the group is cancelled as soon as the runtime gets to it, with
/// [`Duration::MAX`] never.
///
/// # Comparison to `Builder::deadline`
///
/// [`Builder::deadline`](crate::group::Builder::deadline) is for work that should have been done by then:
/// tasks that are still running are a failure. `StopAfter` is for work that has no end of its own:
/// a worker that makes place for a fresh one every night.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::TaskGroup;
/// use taskgroup::process::StopAfter;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let mut group = TaskGroup::new();
/// group.cancel_on(StopAfter::new(Duration::from_secs(24 * 3600)));
/// let token = group.token().clone();
/// group.task("worker").spawn(async move { Ok(token.cancelled().await) });
///
/// assert!(group.wait().await.is_ok());
/// assert_eq!(group.cause().unwrap().to_string(), "the deadline of 86400s passed");
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a trigger does nothing until it is given to `TaskGroup::cancel_on`"]
pub struct StopAfter {
    time: Duration,
}

impl StopAfter {
    /// Makes a trigger that comes `time` after a group has begun to listen.
    pub fn new(time: Duration) -> Self {
        Self { time }
    }
}

impl Listen for StopAfter {
    fn listen<E: Send + 'static>(self, group: &Spawner<E>) -> Box<dyn Send> {
        let up = sleep(self.time);
        listen_for(group, async move {
            up.await;
            Cause::Deadline(self.time)
        })
    }
}

impl Trigger for StopAfter {}
