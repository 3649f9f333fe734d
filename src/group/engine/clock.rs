//! The clocks of a group, which are its deadline and the grace after a cancel.
//!
//! Each is a task beside the group, which holds the group weakly and ends with it. Its timer is made
//! before the task. So without timers the caller panics, and not a task that is not watched.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::abort_on_drop::AbortOnDrop;
use super::hub::Hub;
use crate::group::error::TimedOut;
use crate::group::time::{CONFIRMATION, LONG, THEN};

/// Cancels the group `after` this time from now. Tasks that are still running then are late.
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

/// Aborts the remaining tasks when the group has been cancelled for this long. Gives the group up if
/// they still do not end.
#[track_caller]
pub(crate) fn start_grace<E: Send + 'static>(hub: &Arc<Hub<E>>, grace: Duration) -> AbortOnDrop {
    let token = hub.shared.token().clone();
    let hub = Arc::downgrade(hub);
    let mut timer = Box::pin(sleep(Duration::ZERO));
    let task = tokio::spawn(async move {
        token.cancelled().await;
        // A time beyond the clock's range sets no limit.
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

/// Lets tasks run first that the same clock tick has woken. If a task and a clock end at the same
/// moment, the task wins.
async fn let_the_same_tick_run() {
    yield_now().await;
}
