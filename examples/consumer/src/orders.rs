//! The workers: each order is written into the database, and passed on to the publisher.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use taskgroup::lifecycle::Context;
use taskgroup::pipeline::{HandedBack, Job, JobError, Reason, Stage, Workers};
use taskgroup::supervise::Backoff;
use taskgroup::{BoxError, CancellationToken};
use tokio::sync::RwLock;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::broker::{Broker, DEAD_LETTERS, Delivery, give_back};
use crate::events::Event;
use crate::options::{Options, Point};
use crate::order::Order;
use crate::store::Store;

/// How long the broker may take to send no more.
const PAUSE: Duration = Duration::from_secs(1);
/// How long it may take to give orders back.
const HAND_BACK: Duration = Duration::from_secs(2);
/// How long an order waits whose dead letter could not be published.
const NO_DEAD_LETTER: Duration = Duration::from_secs(5);

/// What the workers have in common.
struct Parts {
    store: Store,
    broker: Broker,
    events: Stage<Event>,
    options: Arc<Options>,
    /// An order that was begun before, and had no end, may have taken its process along. It is tried alone, so that it
    /// takes no other order along again.
    suspects: RwLock<()>,
}

/// Runs the workers until the stop comes to them, and they are drained.
pub(crate) async fn run(
    ctx: &Context,
    store: Store,
    broker: Broker,
    events: Stage<Event>,
    options: Arc<Options>,
) -> Result<(), BoxError> {
    let pause = CancellationToken::new();
    let orders = broker.orders(&options, store.clone(), pause.clone());
    let orders = orders.await?;
    let parts = Arc::new(Parts {
        store,
        broker,
        events,
        options,
        suspects: RwLock::default(),
    });
    let pool = pool(&parts, pause)?.source(orders)?;
    ctx.ready();
    let report = pool.run(ctx).await?;
    Ok(info!("orders: drained, {report}"))
}

fn pool(
    parts: &Arc<Parts>,
    pause: CancellationToken,
) -> Result<Workers<Bytes, Delivery>, BoxError> {
    let (writing, burying, returning) = (parts.clone(), parts.clone(), parts.clone());
    let options = &parts.options;
    let write = move |order| write(order, Arc::clone(&writing));
    Ok(Workers::new("orders", write)
        .limit(options.limit)
        .buffer(options.prefetch)
        .retry(
            Backoff::new(options.backoff, 10 * options.backoff),
            options.attempts,
        )
        .dead_letter(move |order| bury(order, Arc::clone(&burying)))
        .keep_alive(options.ack_wait / 3, extend)
        .at_stop(options.at_stop)
        .grace(options.grace)
        .pause(PAUSE, || async move {
            pause.cancel();
            Ok(info!("orders: paused"))
        })
        .hand_back(move |orders| hand_back(orders, Arc::clone(&returning)))
        .hand_back_within(HAND_BACK))
}

async fn write(order: Job<Bytes, Delivery>, parts: Arc<Parts>) -> Result<(), JobError> {
    let Some(&Delivery {
        sequence, delivery, ..
    }) = order.receipt()
    else {
        return Err(JobError::permanent("no receipt"));
    };
    let (mut with_others, mut alone) = (None, None);
    match order.attempt() {
        1 => with_others = Some(parts.suspects.read().await),
        _ => alone = Some(parts.suspects.write().await),
    }
    parts.store.begin(sequence, order.attempt()).await?;
    let read: Order = serde_json::from_slice(&order).map_err(JobError::permanent)?;
    if let Some(fault) = read.fault.filter(|_| parts.options.faults) {
        fault.happen(order.attempt()).await?;
    }
    if read.ms > 0 {
        sleep(Duration::from_millis(read.ms)).await;
    }
    let is_new = parts.store.write(sequence, &read, delivery).await?;
    if !is_new {
        info!(
            order = read.id,
            "orders: known, and its event is published again"
        );
    }
    drop((with_others.take(), alone.take()));
    parts.options.reach(Point::Commit);
    let event = Event { order: read.id };
    Ok(parts.events.pass(order, event).await?)
}

/// Publishes an order that has failed for the last time to the dead letters. It is acknowledged afterwards.
async fn bury(order: Job<Bytes, Delivery>, parts: Arc<Parts>) -> Result<(), BoxError> {
    let sequence = order.receipt().map(|receipt| receipt.sequence);
    let sequence = sequence.unwrap_or_default();
    let why = order.last_error().map(ToString::to_string);
    warn!(sequence, why, "orders: to the dead letters");
    let id = format!("dead-{sequence}");
    let letter = Bytes::clone(&order);
    parts.broker.publish(DEAD_LETTERS.0, &id, letter).await?;
    parts.store.set_failed([(sequence, 0)]).await?;
    Ok(())
}

/// Extends the leases of all that is held.
async fn extend(held: Vec<Delivery>) -> Result<(), BoxError> {
    for delivery in held {
        delivery.extend().await?;
    }
    Ok(())
}

/// Gives orders back to the broker, which delivers them to the next consumer at once.
async fn hand_back(
    orders: Vec<HandedBack<Bytes, Delivery>>,
    parts: Arc<Parts>,
) -> Result<(), BoxError> {
    let begun = orders.iter().filter(|order| order.is_begun());
    let failed = begun.map(|order| (order.receipt().sequence, order.failed_attempts()));
    let counted = parts.store.set_failed(failed.collect::<Vec<_>>()).await;
    let given = orders.iter().map(|order| {
        let waits = order.reason() == Reason::NoDeadLetter;
        (order.receipt(), waits.then_some(NO_DEAD_LETTER))
    });
    // Even if the attempts could not be set.
    give_back(given).await?;
    Ok(counted?)
}
