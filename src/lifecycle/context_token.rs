//! [`ContextToken`]: the token of a component.

use std::fmt;
use std::ops::Deref;

use tokio_util::sync::CancellationToken;

use crate::server::stop_signal::sealed::StopParts;
use crate::server::stop_signal::{Parts, StopSignal};

/// The token of a component, which is all that a [`CancellationToken`] is.
///
/// It also tells a server what the [`Context`](super::Context) tells it, so `serve.run(ctx.token())` is the same
/// as `serve.run(&ctx)`. The server has the time that is left to its component, and its requests are counted
/// there. A function that takes a `&CancellationToken` takes this, and [`clone`](Self::clone) returns a
/// `CancellationToken`. A server that is run with such a clone has its own grace and is not counted.
///
/// # Examples
///
/// ```
/// use taskgroup::{BoxError, CancellationToken};
/// use taskgroup::lifecycle::Context;
///
/// async fn worker(ctx: Context) -> Result<(), BoxError> {
///     let token: CancellationToken = ctx.token().clone();
///     tokio::spawn(async move { token.cancelled().await });
///     ctx.token().cancelled().await;
///     Ok(())
/// }
/// # let _ = worker;
/// ```
pub struct ContextToken(Parts);

impl ContextToken {
    pub(super) fn new(parts: Parts) -> Self {
        Self(parts)
    }

    pub(super) fn signal(&self) -> Parts {
        self.0.clone()
    }

    /// Returns the plain token, for an API that takes one by value.
    // `Clone` would return this type. Nearly everything that takes a token by value takes a `CancellationToken`.
    #[allow(clippy::should_implement_trait)]
    #[must_use]
    pub fn clone(&self) -> CancellationToken {
        self.0.token.clone()
    }
}

impl Deref for ContextToken {
    type Target = CancellationToken;

    fn deref(&self) -> &CancellationToken {
        &self.0.token
    }
}

impl StopSignal for ContextToken {}

impl StopParts for ContextToken {
    fn parts(&self) -> Parts {
        self.signal()
    }
}

impl fmt::Debug for ContextToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_cancelled = self.is_cancelled();
        f.debug_struct("ContextToken")
            .field("is_cancelled", &is_cancelled)
            .finish_non_exhaustive()
    }
}
