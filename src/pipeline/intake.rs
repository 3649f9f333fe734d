//! [`Source`]: where a pool gets its items, if it has no queue of its own.

use std::future::{Future, pending, poll_fn};
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream;
use tokio::task::yield_now;

use super::admission::Place;
use super::error::Fault;
use super::receipt::Receipt;
use super::run::{Turns, after, passed, run_until};
use super::shared::Shared;
use crate::BoxError;
use crate::group::deadline;
use crate::group::panic::Panic;

/// Supplies the items of a pool, for example from a broker, a table of jobs, or a stream.
///
/// [`from_stream`] makes one of a [`Stream`], and [`from_iter`] one of an iterator.
///
/// # Examples
///
/// ```
/// use taskgroup::pipeline::{Received, Source};
/// use taskgroup::BoxError;
///
/// struct Countdown(u32);
///
/// impl Source for Countdown {
///     type Item = u32;
///     type Receipt = ();
///
///     async fn next(&mut self, _room: usize) -> Result<Option<Received<u32>>, BoxError> {
///         let next = self.0.checked_sub(1);
///         self.0 = next.unwrap_or_default();
///         Ok(next.map(Received::from))
///     }
/// }
/// ```
pub trait Source: Send + 'static {
    /// The item that the handler gets.
    type Item: Send + 'static;

    /// Acknowledges an item. Use `()` if items need no acknowledgement.
    type Receipt: Receipt;

    /// Fetches the next item. `None` ends the pool, once all items are worked off.
    ///
    /// The pool calls it when there is a place in the buffer. `room` is the number of free places and
    /// at least 1. A source that asks its broker for no more than this holds no item whose lease the pool does not
    /// [keep alive](super::Workers::keep_alive). After the stop `room` is 1, and the items that still come
    /// are handed back. A call that is under way at the stop gets a [bounded time](super::Workers::pause) to
    /// return, and is then dropped.
    ///
    /// # Errors
    ///
    /// An error stops the pool, and becomes its error. A source has to handle the errors it can recover from.
    #[allow(clippy::type_complexity)]
    fn next(
        &mut self,
        room: usize,
    ) -> impl Future<Output = Result<Option<Received<Self::Item, Self::Receipt>>, BoxError>> + Send;
}

/// An item from a [`Source`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received<T, R = ()> {
    item: T,
    receipt: R,
    attempt: u32,
}

impl<T, R> Received<T, R> {
    /// Makes an item with its receipt.
    pub fn new(item: T, receipt: R) -> Self {
        Self {
            item,
            receipt,
            attempt: 1,
        }
    }

    /// Sets the number of the next attempt, if the broker counts them. The default is 1, and 0 counts as 1.
    ///
    /// [`Workers::retry`](super::Workers::retry) includes these attempts, so an item that ends the process
    /// each time is not tried forever.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt.max(1);
        self
    }
}

/// An item that needs no acknowledgement.
impl<T> From<T> for Received<T> {
    fn from(item: T) -> Self {
        Self::new(item, ())
    }
}

/// Makes a source of a stream, whose items are plain, or are [`Received`] with a receipt. The end of the stream
/// ends the pool.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
/// use taskgroup::pipeline::{Job, Workers, from_stream};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let mut group = TaskGroup::new();
/// let numbers = futures_util::stream::iter(1..=3);
/// let pool = Workers::new("numbers", |_: Job<u32>| async { Ok(()) }).source(from_stream(numbers))?;
/// let report = pool.spawn(&group);
/// assert_eq!(report.await?.done(), 3);
/// # group.wait().await?;
/// # Ok(())
/// # }
/// ```
pub fn from_stream<S, T, R>(stream: S) -> impl Source<Item = T, Receipt = R>
where
    S: Stream<Item: Into<Received<T, R>>> + Send + 'static,
    T: Send + 'static,
    R: Receipt,
{
    let stream = Box::pin(stream);
    let received = PhantomData;
    FromStream { stream, received }
}

struct FromStream<S, T, R> {
    stream: Pin<Box<S>>,
    received: PhantomData<fn() -> (T, R)>,
}

impl<S, T, R> Source for FromStream<S, T, R>
where
    S: Stream<Item: Into<Received<T, R>>> + Send + 'static,
    T: Send + 'static,
    R: Receipt,
{
    type Item = T;
    type Receipt = R;

    async fn next(&mut self, _room: usize) -> Result<Option<Received<T, R>>, BoxError> {
        let next = poll_fn(|cx| self.stream.as_mut().poll_next(cx)).await;
        Ok(next.map(Into::into))
    }
}

/// Makes a source of an iterator. The end of the iterator ends the pool.
///
/// The pool takes an item from it when there is a place in the buffer, and takes none after the stop.
///
/// # Examples
///
/// See [`Workers::map`](super::Workers::map).
pub fn from_iter<I>(items: I) -> impl Source<Item = I::Item, Receipt = ()>
where
    I: IntoIterator,
    I::IntoIter: Send + 'static,
    I::Item: Send + 'static,
{
    FromIter(items.into_iter())
}

struct FromIter<I>(I);

impl<I> Source for FromIter<I>
where
    I: Iterator + Send + 'static,
    I::Item: Send + 'static,
{
    type Item = I::Item;
    type Receipt = ();

    async fn next(&mut self, _room: usize) -> Result<Option<Received<I::Item>>, BoxError> {
        Ok(self.0.next().map(Received::from))
    }
}

pub(super) type Pause = Box<dyn FnOnce() -> Pausing + Send>;

pub(super) type Pausing = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// Takes items in until the source ends or fails, or has to stop.
///
/// Items that do not come within this time after the stop stay at the broker.
pub(super) async fn take_in<S: Source>(
    shared: Arc<Shared<S::Item, S::Receipt>>,
    source: S,
    pause: Option<Pause>,
    within: Duration,
) {
    let mut fetching = pin!(fetch(&shared, source, pause.is_some()));
    let stopping = shared.stopping.cancelled();
    if deadline::until(fetching.as_mut(), stopping).await.is_ok() {
        shared.close();
        return;
    }
    let until = after(within);
    let told = async {
        let Some(pause) = pause else { return };
        if let Some(Err(error)) = run_until(pause, pin!(pending())).await.map(flatten) {
            shared.fail(Fault::Pause(error));
        }
    };
    let _ = deadline::until(both(fetching, told), passed(until)).await;
}

/// Fetches until the source ends. After the stop it fetches only the items that come before the source
/// notices its pause.
async fn fetch<S: Source>(
    shared: &Shared<S::Item, S::Receipt>,
    mut source: S,
    is_paused_at_stop: bool,
) {
    let mut turns = Turns::default();
    let mut reserved = 0;
    loop {
        if turns.is_over() {
            yield_now().await;
        }
        if let Some(valve) = &shared.valve {
            let _ = deadline::until(valve.resumed(), shared.stopping.cancelled()).await;
        }
        if reserved == 0 {
            reserved = shared.reserve().await.unwrap_or(0);
        }
        if reserved == 0 && !is_paused_at_stop {
            return;
        }
        let fetched = run_until(|| source.next(reserved.max(1)), pin!(pending())).await;
        let received = match fetched.map(flatten) {
            Some(Ok(Some(received))) => received,
            Some(Ok(None)) | None => return,
            Some(Err(error)) => return shared.fail(Fault::Intake(error)),
        };
        let Received {
            item,
            receipt,
            attempt,
        } = received;
        reserved = match shared.take_in(item, receipt, attempt - 1, Place::AndNext) {
            Ok(reserved) => reserved,
            Err(rejected) => {
                shared.accept_late(rejected.parcel);
                0
            }
        };
        if reserved == 0 && !is_paused_at_stop && shared.stopping.is_cancelled() {
            return;
        }
    }
}

fn flatten<T>(result: Result<Result<T, BoxError>, Panic>) -> Result<T, BoxError> {
    result.unwrap_or_else(|panic| Err(panic.into()))
}

/// Runs both futures to their ends.
async fn both(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut one_ended, mut other_ended) = (false, false);
    poll_fn(|cx| {
        one_ended = one_ended || one.as_mut().poll(cx).is_ready();
        other_ended = other_ended || other.as_mut().poll(cx).is_ready();
        if one_ended && other_ended {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
