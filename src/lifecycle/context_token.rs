//! [`ContextToken`]: the token of a component.

use std::fmt;
use std::ops::Deref;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::server::stop_signal::sealed::StopParts;
use crate::server::stop_signal::{Parts, StopSignal};

/// The token of a component, which is all that a [`CancellationToken`] is.
///
/// It also tells a server what the [`Context`](super::Context) tells it, so `serve.run(ctx.token())` is the same
/// as `serve.run(&ctx)`. The server has the time that is left to its component, and its requests are counted
/// there. A function that takes a `&CancellationToken` takes this. For a `CancellationToken` by value, use
/// [`into_plain`](Self::into_plain). A server that is run with a plain token has its own grace and is not
/// counted.
///
/// # Examples
///
/// ```
/// use taskgroup::BoxError;
/// use taskgroup::lifecycle::Context;
///
/// async fn worker(ctx: Context) -> Result<(), BoxError> {
///     let token = ctx.token().clone();
///     tokio::spawn(async move { token.cancelled().await });
///     ctx.token().cancelled().await;
///     Ok(())
/// }
/// # let _ = worker;
/// ```
#[derive(Clone)]
pub struct ContextToken(Parts);

impl ContextToken {
    pub(super) fn new(parts: Parts) -> Self {
        Self(parts)
    }

    pub(super) fn signal(&self) -> Parts {
        self.0.clone()
    }

    /// Waits until the component is to stop, and owns what it needs for that.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub fn cancelled_owned(self) -> WaitForCancellationFutureOwned {
        self.into_plain().cancelled_owned()
    }

    /// Returns it as a plain token, for an API that takes one by value.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::CancellationToken;
    /// use taskgroup::lifecycle::Context;
    ///
    /// fn plain(ctx: &Context) -> CancellationToken {
    ///     ctx.token().clone().into_plain()
    /// }
    /// # let _ = plain;
    /// ```
    #[must_use]
    pub fn into_plain(self) -> CancellationToken {
        self.0.token
    }
}

impl Deref for ContextToken {
    type Target = CancellationToken;

    fn deref(&self) -> &CancellationToken {
        &self.0.token
    }
}

impl From<ContextToken> for CancellationToken {
    fn from(token: ContextToken) -> Self {
        token.into_plain()
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
