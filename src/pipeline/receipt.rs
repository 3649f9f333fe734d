//! [`Receipt`]: acknowledges an item at its broker.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;

use super::watermark::Mark;
use crate::BoxError;

/// Acknowledges an item at its broker.
pub trait Receipt: Send + Sync + 'static {
    /// Acknowledges the item, and returns when the broker has confirmed it.
    ///
    /// The pool calls it when the handler has returned `Ok`, or when the dead-letter function has. A call
    /// that fails is repeated until the deadline of the stop, so it must be safe to repeat.
    ///
    /// # Errors
    ///
    /// The broker did not confirm it.
    fn ack(&self) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Notes that the item has failed for the last time, without a dead-letter function to take it.
    ///
    /// It must not block. By default it has no effect.
    fn failed(&self, error: &Arc<dyn Error + Send + Sync>) {
        let _ = error;
    }

    /// Returns the mark of the item in a [`Watermark`](super::Watermark), if it has one.
    ///
    /// A receipt that has a mark returns it here, and acknowledges it in its own [`ack`](Self::ack). Once the
    /// partition of the mark was [revoked](super::Watermark::revoke), no attempt at the item begins, and it is
    /// handed back. By default there is no mark.
    fn mark(&self) -> Option<&Mark> {
        None
    }
}

/// The receipt of an item that needs no acknowledgement.
impl Receipt for () {
    async fn ack(&self) -> Result<(), BoxError> {
        Ok(())
    }
}

/// The receipt of an item of a log, whose acknowledgement moves the watermark if it can.
impl Receipt for Mark {
    async fn ack(&self) -> Result<(), BoxError> {
        self.acknowledge();
        Ok(())
    }

    fn mark(&self) -> Option<&Mark> {
        Some(self)
    }
}
