//! A [`RunFuture`] is the future of a server, a supervisor or a periodic task.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::BoxError;
use crate::group::boxed::OneFuture;
use crate::group::into_task::{Inside, IntoTask};
use crate::group::verdict::Ended;

/// The future that runs a server, a supervisor or a periodic task. It is boxed, and so `Unpin`.
///
/// It resolves with the error type `X` of its kind, such as [`SidecarError`](crate::SidecarError)
/// for a server. So a `?` after the `await` needs no type annotation. You can spawn it directly
/// into a group of boxed errors, or into a group whose error is `X`. See [`IntoTask`].
///
/// # Examples
///
/// ```
/// use taskgroup::{CancellationToken, Sidecar};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> anyhow::Result<()> {
///     let token = CancellationToken::new();
///     # token.cancel();
///     let http = Sidecar::new("http").serve(&token, |stop| async {
///         Ok::<_, std::io::Error>(stop.await)
///     });
///     http.await?;
///     Ok(())
/// }
/// ```
#[must_use = "futures do nothing unless they are awaited or spawned"]
pub struct RunFuture<F, X, E = X> {
    run: OneFuture<F>,
    // The error type of the future, and the type it is converted into.
    errors: PhantomData<fn(X) -> E>,
}
impl<F, X> RunFuture<F, X> {
    pub(crate) fn new(run: F) -> Self {
        Self {
            run: OneFuture::new(run),
            errors: PhantomData,
        }
    }

    /// The same future with the error type of the group it is spawned into.
    pub(crate) fn with_error<E: From<X>>(self) -> RunFuture<F, X, E> {
        RunFuture {
            run: self.run,
            errors: PhantomData,
        }
    }
}

impl<F, T, X, E> Future for RunFuture<F, X, E>
where
    F: Future<Output = Result<T, X>>,
    E: From<X>,
{
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.run).poll(cx).map_err(E::from)
    }
}

impl<F, T, X> IntoTask<BoxError> for RunFuture<F, X>
where
    F: Future<Output = Result<T, X>>,
    // `X` is a type of this crate, so the compiler knows that it is not a `BoxError`, and that this
    // impl does not overlap with the one for futures.
    X: Ended + Send + Sync + 'static,
{
    type Value = T;
    type Task = RunFuture<F, X, BoxError>;

    fn into_task(self, _: Inside) -> Self::Task {
        self.with_error()
    }
}

impl<F, X, E> fmt::Debug for RunFuture<F, X, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunFuture").finish_non_exhaustive()
    }
}
