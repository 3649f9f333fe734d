//! [`StopSignal`]: what tells a server to stop.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::group::deadline::of_work;
use crate::group::lock::lock;
use crate::server::in_flight::{Counted, InFlight};

/// What tells a server to stop, either a token or the [`Context`](crate::lifecycle::Context) of a component.
///
/// With a token, the server has its own grace. With a context it has at most the time left to its component, so
/// that the budget of the lifecycle holds, and all of that time if no grace is set.
///
/// This trait is sealed.
///
/// # Examples
///
/// ```
/// use taskgroup::{CancellationToken, Sidecar, SidecarError};
/// use taskgroup::server::StopSignal;
///
/// async fn serve(stop: &impl StopSignal) -> Result<(), SidecarError> {
///     let server = |stop| async move { Ok::<_, std::io::Error>(drop(stop.await)) };
///     Sidecar::new("echo").serve(stop, server).await
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), SidecarError> {
/// let token = CancellationToken::new();
/// token.cancel();
/// serve(&token).await
/// # }
/// ```
pub trait StopSignal: sealed::StopParts {}

impl StopSignal for CancellationToken {}

impl sealed::StopParts for CancellationToken {
    fn parts(&self) -> Parts {
        Parts {
            token: self.clone(),
            leaving: None,
            limit: Limit::default(),
            in_flight: None,
        }
    }
}

/// What a server needs from a [`StopSignal`].
#[derive(Clone, Debug)]
pub struct Parts {
    pub(crate) token: CancellationToken,
    /// Fires halfway through the enclosing lifecycle's lame-duck period.
    pub(crate) leaving: Option<CancellationToken>,
    pub(crate) limit: Limit,
    in_flight: Option<Arc<InFlight>>,
}

impl Parts {
    pub(crate) fn new(
        token: CancellationToken,
        leaving: CancellationToken,
        limit: Limit,
        in_flight: Arc<InFlight>,
    ) -> Self {
        Self {
            token,
            leaving: Some(leaving),
            limit,
            in_flight: Some(in_flight),
        }
    }

    /// Lets the component count what is in flight in the server at any time. See [`InFlight::add`].
    #[must_use]
    pub(crate) fn count_in_flight(
        &self,
        count: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Option<Counted> {
        Some(self.in_flight.as_ref()?.add(count))
    }
}

/// The limit on the time that a server may take to stop.
const KEPT: Duration = Duration::from_millis(50);

/// The deadline of the stop, known once it has begun. It is set before the token fires, and may come nearer
/// afterwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limit(Option<Arc<Deadline>>);

#[derive(Debug, Default)]
struct Deadline {
    times: Mutex<Times>,
    /// Tells waiting tasks that the deadline has changed.
    changed: Notify,
}

/// `None` if the stop has not begun, or has no limit.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    deadline: Option<Instant>,
    /// When outgoing work is given up, so that there is time to answer.
    work: Option<Instant>,
}

impl Limit {
    pub(crate) fn to_be_set() -> Self {
        Self(Some(Arc::default()))
    }

    /// Returns the grace of a server. That is the one it asked for, else all the time left if that is limited,
    /// else `default`.
    pub(crate) fn grace(&self, asked: Option<Duration>, default: Duration) -> Duration {
        let all = self.0.as_ref().map(|_| Duration::MAX);
        asked.or(all).unwrap_or(default)
    }

    /// `None` means unlimited.
    pub(crate) fn set(&self, deadline: Option<Instant>) {
        let Some(limit) = &self.0 else { return };
        let now = Instant::now();
        let work = deadline.and_then(|at| of_work(now, at.saturating_duration_since(now)));
        *lock(&limit.times) = Times { deadline, work };
        limit.changed.notify_waiters();
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        lock(&self.0.as_ref()?.times).deadline
    }

    /// Returns when outgoing work is given up.
    pub(crate) fn work_deadline(&self) -> Option<Instant> {
        lock(&self.0.as_ref()?.times).work
    }

    /// Waits until outgoing work is given up, or forever if the time is unlimited.
    pub(crate) async fn work_deadline_passed(&self) {
        let Some(limit) = &self.0 else {
            return pending().await;
        };
        loop {
            // Made before the times are read, so that a change in between wakes it.
            let mut changed = pin!(limit.changed.notified());
            changed.as_mut().enable();
            let Some(deadline) = self.work_deadline() else {
                changed.await;
                continue;
            };
            let mut passed = pin!(sleep_until(deadline));
            let is_over = poll_fn(|cx| match passed.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending => changed.as_mut().poll(cx).map(|()| false),
            });
            if is_over.await {
                return;
            }
        }
    }

    /// Returns when a server has to be down, if its time is limited. A little is kept back, so that a server that
    /// uses all of it ends by itself, with its own error, before it is forced.
    pub(crate) fn of_server(&self) -> Option<Instant> {
        let (deadline, now) = (self.deadline()?, Instant::now());
        let left = deadline.saturating_duration_since(now);
        deadline.checked_sub(KEPT.min(left / 10))
    }

    /// Returns how long a server may take from now on, if its time is limited.
    pub(crate) fn left(&self) -> Option<Duration> {
        Some(self.of_server()?.saturating_duration_since(Instant::now()))
    }

    /// Waits until the deadline has changed since this was called.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + '_ {
        // Made before the deadline is read, so that a change in between wakes it.
        let changed = self.0.as_ref().map(|limit| limit.changed.notified());
        async move {
            match changed {
                Some(changed) => changed.await,
                None => pending().await,
            }
        }
    }
}

pub(crate) mod sealed {
    pub trait StopParts {
        #[doc(hidden)]
        fn parts(&self) -> super::Parts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_is_under_way_notices_a_deadline_that_comes_nearer() {
        const SECOND: Duration = Duration::from_secs(1);
        let (limit, began) = (Limit::to_be_set(), Instant::now());
        let mut passed = tokio_test::task::spawn(limit.work_deadline_passed());
        tokio_test::assert_pending!(passed.poll());
        limit.set(Some(began + 100 * SECOND));
        assert!(passed.is_woken());
        tokio_test::assert_pending!(passed.poll());
        limit.set(Some(began + SECOND));
        passed.await;
        assert_eq!(began.elapsed(), SECOND * 9 / 10);
    }
}
