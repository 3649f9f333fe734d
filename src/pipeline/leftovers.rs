//! [`Leftovers`]: the items that a pool has handed back without a function for it.

use std::fmt;
use std::sync::Arc;

use super::parcel::HandedBack;
use super::shared::Shared;

/// The items that a pool has handed back, if it has no hand-back function, and the rest of a pool that was
/// aborted.
///
/// It keeps late items too. A job that was reported as still running comes here if it ever ends.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
/// use taskgroup::pipeline::{AtStop, Job, Workers};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let mut group = TaskGroup::new();
/// let mail = Workers::new("mail", |_: Job<&str>| async { Ok(()) }).at_stop(AtStop::HandBack);
/// let (pusher, pool) = mail.queue(10)?;
/// let leftovers = pool.leftovers();
/// pusher.push("ann").await?;
/// group.cancel();
/// pool.spawn(&group);
/// group.wait().await?;
///
/// let left = leftovers.take();
/// assert_eq!(left[0].item(), Some(&"ann"));
/// assert!(!left[0].is_begun());
/// # Ok(())
/// # }
/// ```
pub struct Leftovers<T, R = ()>(pub(super) Arc<Shared<T, R>>);

impl<T, R> Leftovers<T, R> {
    /// Takes the items that were handed back since the last call, in the order of the intake.
    #[must_use = "what is taken is nowhere else"]
    pub fn take(&self) -> Vec<HandedBack<T, R>> {
        self.0.take_left()
    }
}

impl<T, R> fmt::Debug for Leftovers<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leftovers")
            .field("pipeline", &self.0.name)
            .field("count", &self.0.left())
            .finish_non_exhaustive()
    }
}
