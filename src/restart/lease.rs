//! [`Lease`]: something that only one of two processes may have.

use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::shared::Shared;

/// Something that only one process may have at a time, such as the only worker on a queue, or the only writer
/// of a database.
///
/// [`Restart::lease`](super::Restart::lease) waits for it. The old process gives it up when its lease is
/// dropped, at the latest when it has ended.
///
/// # Drop
///
/// Gives it up. A new process that waits for it goes on.
///
/// # Examples
///
/// A worker that does not run twice. It gives way as soon as a new process has taken over.
///
/// ```
/// use taskgroup::BoxError;
/// use taskgroup::lifecycle::Context;
/// use taskgroup::restart::Restart;
///
/// async fn worker(ctx: Context, restart: Restart) -> Result<(), BoxError> {
///     let Some(lease) = restart.lease(&ctx).await else {
///         return Ok(()); // it is to stop
///     };
///     ctx.ready();
///     let work = async { /* one job after another */ std::future::pending::<()>().await };
///     tokio::select! {
///         () = work => {}
///         () = lease.wanted() => {}
///         () = ctx.stopping() => {}
///     }
///     drop(lease);
///     Ok(ctx.stopping().await)
/// }
/// # let _ = worker;
/// ```
#[must_use = "a lease that is dropped is given up"]
pub struct Lease {
    pub(super) name: Arc<str>,
    pub(super) wanted: CancellationToken,
    pub(super) shared: Arc<Shared>,
}

impl Lease {
    /// Waits until another process has taken over the sockets of this one. It may be waiting for the lease.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn wanted(&self) {
        self.wanted.cancelled().await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.give(&self.name);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
