//! [`Stop`]: tells a handler of the stop of its server.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::group::deadline;
use crate::group::deadline::DeadlinePassed;
use crate::server::switch::{Seat, Switch};

/// Tells a handler that its server is stopping, and how long the drain may take.
///
/// A server that stops takes no new requests. Those in flight have until the drain deadline to be answered, and
/// are cut if they are still running then. A `Stop` gives a handler both moments, for different purposes:
///
/// - **The stop is a hint.** Endless work, such as an event stream, a long poll or a websocket, looks at
///   [`stopping`](Self::stopping) and ends by itself. Never bind work that an answer needs to it. A call that
///   is given up when the stop begins is a failed request that the drain had time for.
/// - **The deadline is a bound.** A call to another service, a query, or a task of a handler may run until
///   then, by [`until_deadline`](Self::until_deadline) or with a [clipped](Self::clip) timeout, so that the
///   handler can still say what went wrong.
///
/// A clone is another handle on the same stop, at the cost of a reference count.
///
/// # Drop
///
/// Dropping it changes nothing. If the server is dropped without having been stopped, the stop
/// begins in that moment, with no time left.
///
/// # Comparison to `CancellationToken`
///
/// The token of a group says *that* everything is to stop. A `Stop` belongs to one server and says *by when*.
/// Its token fires when that server begins to drain, after the lame duck, if it has one.
///
/// # Examples
///
/// A long poll that answers at once when the server stops, and whose query may use up the drain.
///
/// ```
/// use std::time::Duration;
/// use taskgroup::server::Stop;
///
/// async fn poll(stop: Stop) -> &'static str {
///     tokio::select! {
///         () = stop.stopping() => {}
///         () = tokio::time::sleep(Duration::from_secs(60)) => return "news",
///     }
///     let query = async { "no news" };
///     stop.until_deadline(query).await.unwrap_or("no time left")
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// assert_eq!(poll(Stop::begun(Duration::from_secs(5))).await, "no news");
/// assert_eq!(poll(Stop::begun(Duration::ZERO)).await, "no news");
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Stop {
    shared: Arc<Shared>,
}

/// The server's end of a [`Stop`].
#[derive(Debug)]
pub(crate) struct StopSource {
    stop: Stop,
}

/// Invariant: the times are set once, before the switch and the token fire.
#[derive(Debug)]
struct Shared {
    times: OnceLock<Times>,
    /// Wakes the handlers, a few at a time. The token would wake all of them in one go.
    begun: Switch<()>,
    token: CancellationToken,
}

/// Fixed when the stop begins. `None` is a drain without a limit.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// When what is in flight is cut.
    deadline: Option<Instant>,
    /// When outgoing work is given up, so that there is time to answer.
    work: Option<Instant>,
}

impl Stop {
    /// Returns a stop that never begins, for calling a handler without a server, for example in a test.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::server::Stop;
    ///
    /// let stop = Stop::never();
    /// assert!(!stop.is_stopping());
    /// assert_eq!(stop.deadline(), None);
    /// ```
    #[must_use]
    pub fn never() -> Self {
        Self {
            shared: Arc::new(Shared {
                times: OnceLock::new(),
                begun: Switch::new(),
                token: CancellationToken::new(),
            }),
        }
    }

    /// Returns a stop that has just begun with `drain` to go, for the test of a handler.
    ///
    /// Any duration is valid. With zero the deadline has passed, and with [`Duration::MAX`] the drain is
    /// unlimited.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::server::Stop;
    ///
    /// let stop = Stop::begun(Duration::from_secs(5));
    /// assert!(stop.is_stopping());
    /// assert!(stop.remaining() <= Some(Duration::from_secs(5)));
    /// ```
    #[must_use]
    pub fn begun(drain: Duration) -> Self {
        let source = StopSource::new();
        source.begin(drain);
        source.stop().clone()
    }

    /// Returns the token that fires when the server begins to drain.
    ///
    /// It is the hint, for work that ends by itself. Do not bind [outgoing work](Self::until_deadline) to it.
    /// It fires foreverybody at once, so where thousands wait, use [`stopping`](Self::stopping), which wakes
    /// them a few at a time. All requests of the server share the token. Cancelling it stops nothing but what
    /// waits for the token.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::server::Stop;
    ///
    /// assert!(!Stop::never().token().is_cancelled());
    /// ```
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.shared.token
    }

    /// Waits until the server begins to drain. Returns at once if it has begun.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. Dropping the future loses nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::server::Stop;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let stop = Stop::begun(Duration::from_secs(5));
    /// stop.stopping().await;
    /// assert!(stop.is_stopping());
    /// # }
    /// ```
    pub async fn stopping(&self) {
        let mut waiting = Waiting::new(self.clone());
        poll_fn(|cx| waiting.poll(cx)).await;
    }

    /// Returns whether the server has begun to drain.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::server::Stop;
    ///
    /// assert!(!Stop::never().is_stopping());
    /// assert!(Stop::begun(Duration::ZERO).is_stopping());
    /// ```
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shared.times.get().is_some()
    }

    /// Returns the moment at which what is still in flight is cut.
    ///
    /// It is known as soon as [`is_stopping`](Self::is_stopping) returns `true`, and does not change after
    /// that. `None` before that, and for a drain without a limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::server::Stop;
    ///
    /// assert!(Stop::begun(Duration::from_secs(5)).deadline().is_some());
    /// assert_eq!(Stop::begun(Duration::MAX).deadline(), None);
    /// ```
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.shared.times.get()?.deadline
    }

    /// Returns the time left until the [deadline](Self::deadline), zero once it has passed, or `None` without a
    /// deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::server::Stop;
    ///
    /// assert_eq!(Stop::never().remaining(), None);
    /// assert_eq!(Stop::begun(Duration::ZERO).remaining(), Some(Duration::ZERO));
    /// ```
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline().map(until)
    }

    /// Clips the timeout of a call that is about to be made to the time left for it.
    ///
    /// It is for clients that take a duration, and for protocols that carry one, such as `grpc-timeout`. The
    /// time left ends before the deadline by a tenth of the drain (at most 250 ms), so that there is time to
    /// answer. Before the stop the deadline is unknown, and the timeout is returned unchanged. For a long call
    /// prefer [`until_deadline`](Self::until_deadline), which also sees a stop that begins later.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::server::Stop;
    ///
    /// let timeout = Duration::from_secs(30);
    /// assert_eq!(Stop::never().clip(timeout), timeout);
    /// assert!(Stop::begun(Duration::from_secs(5)).clip(timeout) < Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn clip(&self, timeout: Duration) -> Duration {
        deadline::clip(timeout, self.work_deadline())
    }

    /// Runs outgoing work that may use up the drain, but not more.
    ///
    /// The stop alone does not touch the work. The work is dropped before the drain deadline by a tenth of the
    /// drain (at most 250 ms), so that there is time to answer. Work that finishes in that very moment counts
    /// as done. Without a stop this waits for the work.
    ///
    /// # Errors
    ///
    /// [`DeadlinePassed`] if the work was dropped. Work that is ready at once is never dropped, even long after
    /// the deadline.
    ///
    /// # Panics
    ///
    /// Panics if the runtime has no timer and the work is running when the stop begins.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the work.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::server::Stop;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let call = async { "stock: 7" };
    /// let stop = Stop::begun(Duration::from_secs(5));
    /// assert_eq!(stop.until_deadline(call).await, Ok("stock: 7"));
    ///
    /// let hangs = std::future::pending::<()>();
    /// let stop = Stop::begun(Duration::from_millis(20));
    /// assert!(stop.until_deadline(hangs).await.is_err());
    /// # }
    /// ```
    pub async fn until_deadline<F: Future>(&self, work: F) -> Result<F::Output, DeadlinePassed> {
        deadline::until(work, self.work_deadline_passed()).await
    }

    fn work_deadline(&self) -> Option<Instant> {
        self.shared.times.get()?.work
    }

    async fn work_deadline_passed(&self) {
        let mut passed = WorkDeadline::new(self.clone());
        poll_fn(|cx| passed.poll(cx)).await;
    }
}

/// A place among those that wait for the stop.
#[derive(Debug)]
struct Waiting {
    stop: Stop,
    seat: Seat,
}

impl Waiting {
    fn new(stop: Stop) -> Self {
        let seat = Seat::default();
        Self { stop, seat }
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Shared { times, begun, .. } = &*self.stop.shared;
        if times.get().is_none() && !begun.watch(&mut self.seat, cx, || ()) {
            return Poll::Pending;
        }
        // Code that sees the switch fired also sees the times.
        fence(Ordering::Acquire);
        Poll::Ready(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.stop.shared.begun.leave(&mut self.seat);
    }
}

/// The end of the time for outgoing work, which leaves some time to answer.
#[derive(Debug)]
pub(crate) struct WorkDeadline {
    waiting: Waiting,
    passed: Option<Pin<Box<Sleep>>>,
}

impl WorkDeadline {
    pub(crate) fn new(stop: Stop) -> Self {
        let waiting = Waiting::new(stop);
        let passed = None;
        Self { waiting, passed }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.waiting.poll(cx));
        let Some(deadline) = self.waiting.stop.work_deadline() else {
            return Poll::Pending;
        };
        let passed = self
            .passed
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        passed.as_mut().poll(cx)
    }
}

impl StopSource {
    pub(crate) fn new() -> Self {
        Self {
            stop: Stop::never(),
        }
    }

    /// The handle that handlers get, cloned for each request.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Fixes the deadline, and tells everybody in one go. Does nothing if the stop has begun.
    pub(crate) fn begin(&self, drain: Duration) {
        self.announce(drain);
        self.stop.shared.begun.fire();
    }

    /// Fixes the deadline, and fires the token. [`tell`](Self::tell) must follow, for all places.
    pub(crate) fn announce(&self, drain: Duration) {
        let _ = self.stop.shared.times.set(Times::of(drain));
        self.stop.shared.begun.raise();
        self.stop.shared.token.cancel();
    }

    /// Wakes the handlers in so many of the places, and returns the first of the rest.
    pub(crate) fn tell(&self, from: usize, places: usize) -> Option<usize> {
        self.stop.shared.begun.wake(from, places)
    }
}

impl Times {
    fn of(drain: Duration) -> Self {
        let now = Instant::now();
        Self {
            deadline: now.checked_add(drain),
            work: deadline::of_work(now, drain),
        }
    }
}

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Handlers may outlive a server that was dropped, and must not wait for a stop forever.
impl Drop for StopSource {
    fn drop(&mut self) {
        self.begin(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::future::pending;

    use tokio::time::sleep;
    use tokio_test::{assert_pending, assert_ready, task};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_task_that_sees_the_stop_knows_the_deadline() {
        let source = StopSource::new();
        let stop = source.stop().clone();
        let mut stopping = task::spawn(stop.stopping());
        assert_pending!(stopping.poll());
        assert_eq!(stop.deadline(), None);

        source.begin(5 * SECOND);

        assert!(stopping.is_woken());
        assert_ready!(stopping.poll());
        assert_eq!(stop.deadline(), Some(Instant::now() + 5 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn what_remains_shrinks_and_ends_at_zero() {
        let stop = Stop::begun(5 * SECOND);

        sleep(2 * SECOND).await;
        assert_eq!(stop.remaining(), Some(3 * SECOND));
        sleep(4 * SECOND).await;
        assert_eq!(stop.remaining(), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_stop_does_not_move_the_deadline() {
        let source = StopSource::new();
        source.begin(5 * SECOND);
        let first = source.stop().deadline();

        sleep(SECOND).await;
        source.begin(9 * SECOND);

        assert_eq!(source.stop().deadline(), first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_is_dropped_stops_with_nothing_left() {
        let stop = StopSource::new().stop().clone();

        assert!(stop.is_stopping());
        assert_eq!(stop.remaining(), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_is_dropped_after_the_stop_leaves_the_deadline() {
        let source = StopSource::new();
        source.begin(5 * SECOND);
        let stop = source.stop().clone();
        drop(source);

        assert_eq!(stop.remaining(), Some(5 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_without_an_end_has_no_deadline() {
        let stop = Stop::begun(Duration::MAX);

        assert!(stop.is_stopping());
        assert_eq!(stop.deadline(), None);
        assert_eq!(stop.remaining(), None);
        assert_eq!(stop.clip(SECOND), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_is_clipped_to_what_is_left_for_it() {
        let stop = Stop::begun(5 * SECOND);

        assert_eq!(stop.clip(SECOND), SECOND);
        assert_eq!(stop.clip(9 * SECOND), Duration::from_millis(4750));
        sleep(3 * SECOND).await;
        assert_eq!(stop.clip(9 * SECOND), Duration::from_millis(1750));
        sleep(3 * SECOND).await;
        assert_eq!(stop.clip(9 * SECOND), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_drain_keeps_a_tenth_for_answers() {
        let stop = Stop::begun(Duration::from_millis(100));

        assert_eq!(stop.clip(SECOND), Duration::from_millis(90));
    }

    #[tokio::test(start_paused = true)]
    async fn the_stop_leaves_outgoing_work_alone() {
        let source = StopSource::new();
        let stop = source.stop().clone();
        let mut work = task::spawn(stop.until_deadline(async {
            sleep(3 * SECOND).await;
            7
        }));
        assert_pending!(work.poll());

        source.begin(5 * SECOND);

        assert_pending!(work.poll());
        sleep(4 * SECOND).await;
        assert_eq!(assert_ready!(work.poll()), Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn outgoing_work_is_given_up_in_time_for_an_answer() {
        let source = StopSource::new();
        let stop = source.stop().clone();
        let started = Instant::now();
        let call = tokio::spawn(async move { stop.until_deadline(pending::<()>()).await });
        sleep(SECOND).await;

        source.begin(5 * SECOND);

        assert!(call.await.unwrap().is_err());
        assert_eq!(started.elapsed(), Duration::from_millis(5750));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_done_counts_after_the_deadline_too() {
        let stop = Stop::begun(Duration::ZERO);

        assert_eq!(stop.until_deadline(async { 7 }).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn work_outlives_a_drain_without_an_end() {
        let stop = Stop::begun(Duration::MAX);
        let year = 365 * 24 * 3600 * SECOND;

        assert_eq!(stop.until_deadline(sleep(year)).await, Ok(()));
    }

    #[test]
    fn a_stop_can_be_shared_between_threads() {
        fn shared<T: Clone + Send + Sync + 'static>() {}
        shared::<Stop>();
        shared::<DeadlinePassed>();
    }
}
