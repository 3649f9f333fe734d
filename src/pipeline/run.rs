//! Runs code of the user, with a bound and without its panics.

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::group::panic::Panic;

/// Makes a future of the user and runs it until it or `cut` ends, and drops it. Catches a panic of any step.
pub(super) async fn run_until<F: Future>(
    make: impl FnOnce() -> F,
    cut: Pin<&mut (impl Future<Output = ()> + ?Sized)>,
) -> Option<Result<F::Output, Panic>> {
    run_if_any(|| Some(make()), cut).await
}

/// As [`run_until`], unless no future is made.
///
/// The future runs in place, without a box. It is made in the first poll, so that one `catch_unwind` is enough
/// for a future that never waits.
pub(super) async fn run_if_any<F: Future>(
    make: impl FnOnce() -> Option<F>,
    mut cut: Pin<&mut (impl Future<Output = ()> + ?Sized)>,
) -> Option<Result<F::Output, Panic>> {
    let mut make = Some(make);
    let mut slot = pin!(None);
    let ended = poll_fn(|cx| {
        let polled = Panic::catch(|| {
            if let Some(make) = make.take() {
                slot.set(make());
            }
            let Some(future) = slot.as_mut().as_pin_mut() else {
                return Poll::Ready(None);
            };
            let polled = future.poll(cx);
            if polled.is_ready() {
                slot.set(None);
            }
            polled.map(Some)
        });
        match polled {
            Ok(Poll::Pending) => cut.as_mut().poll(cx).map(|()| None),
            Ok(Poll::Ready(output)) => Poll::Ready(output.map(Ok)),
            Err(panic) => Poll::Ready(Some(Err(panic))),
        }
    })
    .await;
    if slot.is_some() {
        if let Err(panic) = Panic::catch(|| slot.set(None)) {
            if ended.is_none() {
                return Some(Err(panic));
            }
            panic.discard();
        }
    }
    ended
}

/// Returns the time after `time`, or `None` if it is too far away ever to come.
pub(super) fn after(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

/// Tells a task at intervals to let the other tasks of the thread have their turn.
#[derive(Debug, Default)]
pub(super) struct Turns(u8);

impl Turns {
    /// How many items one task may work on in a row.
    const MOST: u8 = 32;

    /// Notes that an item was worked on. Returns whether it is the turn of other tasks.
    pub(super) fn is_over(&mut self) -> bool {
        self.0 += 1;
        let is_over = self.0 == Self::MOST;
        if is_over {
            self.0 = 0;
        }
        is_over
    }
}

/// Ends at this time, or never.
pub(super) async fn passed(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
