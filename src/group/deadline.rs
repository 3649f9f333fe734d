//! [`DeadlinePassed`] limits work that may use up a stop, but not more.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// The part of a stop that is kept free for answers, after outgoing work has been given up.
const PART_FOR_ANSWERS: u32 = 10;

/// At most this much is kept free.
const MOST_FOR_ANSWERS: Duration = Duration::from_millis(250);

/// The deadline of a stop passed before the work was done.
///
/// # Examples
///
/// ```
/// use taskgroup::group::DeadlinePassed;
/// # #[cfg(feature = "lifecycle")]
/// use taskgroup::lifecycle::Context;
///
/// # #[cfg(feature = "lifecycle")]
/// async fn flush(ctx: &Context) -> Result<(), DeadlinePassed> {
///     ctx.until_deadline(async { /* write to a disk that may hang */ }).await
/// }
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the deadline of the stop passed")]
pub struct DeadlinePassed(());

/// The message, because `main` prints a returned error with `Debug`.
impl fmt::Debug for DeadlinePassed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl DeadlinePassed {
    #[cfg(feature = "ws")]
    pub(crate) fn new() -> Self {
        Self(())
    }
}

/// Returns when to give up outgoing work in a stop that has this long from `now`, so that there is time
/// to answer. `None` means that the stop may take forever.
pub(crate) fn of_work(now: Instant, stop: Duration) -> Option<Instant> {
    let for_answers = (stop / PART_FOR_ANSWERS).min(MOST_FOR_ANSWERS);
    now.checked_add(stop - for_answers)
}

/// Returns a timeout that ends no later than the deadline, if there is one.
pub(crate) fn clip(timeout: Duration, deadline: Option<Instant>) -> Duration {
    match deadline {
        Some(deadline) => timeout.min(deadline.saturating_duration_since(Instant::now())),
        None => timeout,
    }
}

/// Does the work, unless the deadline passes first, which returns `None`.
pub(crate) async fn by<F: Future>(deadline: Option<Instant>, work: F) -> Option<F::Output> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

/// Does the work, unless `passed` ends first. Work that is done at that very moment counts as done.
pub(crate) async fn until<F: Future>(
    work: F,
    passed: impl Future<Output = ()>,
) -> Result<F::Output, DeadlinePassed> {
    let mut work = pin!(work);
    let mut passed = pin!(passed);
    // Polls the work first, so that a finished answer is never thrown away.
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => passed.as_mut().poll(cx).map(|()| Err(DeadlinePassed(()))),
    })
    .await
}
