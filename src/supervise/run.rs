//! One run of a child of a [`Supervisor`](super::Supervisor).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::BoxError;
use crate::group::failure::Failure;
use crate::group::panic::Panic;

pub(super) type Start = Arc<dyn Fn(CancellationToken) -> Work + Send + Sync>;

pub(super) type Work = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// The end of a run. A run that was forced is [`Failure::Aborted`].
pub(super) type RunEnd = Result<(), Failure>;

pub(super) fn boxed<F, W>(start: F) -> Start
where
    F: Fn(CancellationToken) -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    Arc::new(move |token| Box::pin(start(token)))
}

/// One run of a child, until it has ended or is forced. Its future is dropped by then.
pub(super) async fn run<E>(
    start: Start,
    token: CancellationToken,
    force: CancellationToken,
    mut ended: Ended,
) -> Result<(), E> {
    let mut work = Box::pin(async move { start(token).await });
    let result = poll_fn(|cx| match Panic::catch(|| work.as_mut().poll(cx)) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    });
    let result = force.run_until_cancelled(result).await;
    let dropped = Panic::catch_drop(work);
    ended.end = Some(match (result, dropped) {
        (Some(Err(panic)), _) | (_, Err(panic)) => Err(Failure::Panicked(panic)),
        (Some(Ok(result)), Ok(())) => result.map_err(Failure::Failed),
        (None, Ok(())) => Err(Failure::Aborted),
    });
    Ok(())
}

/// Tells the supervisor how a run has ended, also if the run's task is dropped with its runtime.
pub(super) struct Ended {
    pub(super) child: usize,
    pub(super) end: Option<RunEnd>,
    pub(super) send: mpsc::UnboundedSender<(usize, RunEnd)>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            // Fails only if the supervisor is gone.
            let _ = self.send.send((self.child, end));
        }
    }
}
