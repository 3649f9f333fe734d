//! The clocks of a group: its deadline, and the grace that it has once it is cancelled.
//!
//! Each is a task beside the group, which holds the group weakly and ends with it. Its timer is made
//! before the task: where there are no timers the caller panics, not a task that nobody looks at.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::abort_on_drop::AbortOnDrop;
use super::hub::Hub;
use crate::group::error::TimedOut;
use crate::group::time::{CONFIRMATION, LONG, THEN};

/// Cancels the group `after` this time from now; tasks that are running then are late.
#[track_caller]
pub(crate) fn start_deadline<E: Send + 'static>(hub: &Arc<Hub<E>>, after: Duration) -> AbortOnDrop {
    let hub = Arc::downgrade(hub);
    let over = sleep(after);
    let task = tokio::spawn(async move {
        over.await;
        let_the_same_tick_run().await;
        if let Some(hub) = hub.upgrade() {
            hub.pass_deadline(after);
        }
    });
    AbortOnDrop::new(&task)
}

/// Aborts what is left of the group when it has been cancelled for this long, and gives it up when that
/// has not ended either.
#[track_caller]
pub(crate) fn start_grace<E: Send + 'static>(hub: &Arc<Hub<E>>, grace: Duration) -> AbortOnDrop {
    let token = hub.shared.token().clone();
    let hub = Arc::downgrade(hub);
    let mut timer = Box::pin(sleep(Duration::ZERO));
    let task = tokio::spawn(async move {
        token.cancelled().await;
        // A time that no clock can show is no bound.
        let Some(over) = Instant::now().checked_add(grace) else {
            return;
        };
        let mut say = Instant::now() + LONG;
        loop {
            timer.as_mut().reset(over.min(say));
            timer.as_mut().await;
            let now = Instant::now();
            if now >= over {
                break;
            }
            let Some(hub) = hub.upgrade() else { return };
            hub.shared.log_waiting(&hub.running(), over - now);
            say = now + THEN;
        }
        let_the_same_tick_run().await;
        let Some(forced) = hub.upgrade() else { return };
        forced.force_and_fail(|stragglers| TimedOut::grace(grace, stragglers));
        drop(forced);
        sleep(CONFIRMATION).await;
        if let Some(hub) = hub.upgrade() {
            hub.shared.give_up();
        }
    });
    AbortOnDrop::new(&task)
}

/// Whatever the tick of the clock has woken that woke the caller runs first: of a task and a clock that
/// are over in the same moment, the task wins.
async fn let_the_same_tick_run() {
    yield_now().await;
}
