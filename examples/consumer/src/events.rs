//! The publisher: an event for each order that is in the database.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use taskgroup::BoxError;
use taskgroup::lifecycle::Context;
use taskgroup::pipeline::{Job, JobError, Origin, Pool, Stage, Workers};
use taskgroup::supervise::Backoff;
use tracing::{info, warn};

use crate::broker::{Broker, EVENTS};
use crate::options::{Options, Point};

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    pub(crate) order: i64,
}

impl Event {
    /// The same for the same order, so that the broker keeps one of them.
    pub(crate) fn id(&self) -> String {
        format!("order-{}", self.order)
    }
}

/// Publishes the events of so many orders at once.
const BATCH: usize = 32;
/// How long the first event of a batch waits for others.
const LONGEST: Duration = Duration::from_millis(5);

/// Makes the last stage: an order is done when its event is published.
pub(crate) fn publisher(
    broker: Broker,
    options: &Arc<Options>,
) -> Result<(Stage<Event>, Pool<Event, Origin>), BoxError> {
    let for_each = Arc::clone(options);
    let publish = move |events: Vec<Job<Event, Origin>>| {
        let (broker, options) = (broker.clone(), Arc::clone(&for_each));
        async move { publish_all(&broker, &options, events).await }
    };
    // The database has the orders, so there is nothing else to do than to try again.
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let workers = Workers::batches("events", BATCH, LONGEST, publish)
        .limit(2)
        .grace(options.grace)
        .retry(backoff, u32::MAX);
    Ok(workers.stage(options.prefetch.max(BATCH))?)
}

/// Runs the publisher until the stop comes to it, and it is flushed.
pub(crate) async fn run(ctx: &Context, pool: Pool<Event, Origin>) -> Result<(), BoxError> {
    let report = pool.run(ctx).await?;
    Ok(info!("events: flushed, {report}"))
}

async fn publish_all(
    broker: &Broker,
    options: &Options,
    events: Vec<Job<Event, Origin>>,
) -> Result<(), JobError> {
    let published = events.into_iter().map(async |event| {
        let payload = match serde_json::to_vec(&*event) {
            Ok(payload) => payload,
            Err(error) => return event.fail(error),
        };
        match broker.publish(EVENTS.0, &event.id(), payload.into()).await {
            Ok(()) => {
                options.reach(Point::Publish);
                event.done();
            }
            Err(error) => {
                warn!(order = event.order, %error, "events: not published yet");
                event.fail(JobError::failed(error));
            }
        }
    });
    join_all(published).await;
    Ok(())
}
