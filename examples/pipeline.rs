//! A consumer that loses nothing at its stop: orders come in, some fail, and a stop comes in the middle.
//!
//! ```text
//! cargo run --example pipeline --features pipeline
//! ```

use std::time::Duration;

use taskgroup::pipeline::{HandedBack, Job, JobError, Workers};
use taskgroup::supervise::Backoff;
use taskgroup::{BoxError, TaskGroup};
use tokio::time::sleep;

async fn store(order: Job<u32>) -> Result<(), JobError> {
    // A call that is bounded by the stop, too.
    order
        .until_deadline(sleep(Duration::from_millis(50)))
        .await?;
    match *order % 10 {
        3 => Err(JobError::permanent("no such customer")),
        7 if order.attempt() < 3 => Err(JobError::failed("the database is busy")),
        _ => Ok(()),
    }
}

async fn publish_dead(order: Job<u32>) -> Result<(), BoxError> {
    let why = order.last_error().map(ToString::to_string);
    println!(
        "order {}: dead, {}",
        *order,
        why.as_deref().unwrap_or("for no reason")
    );
    Ok(())
}

async fn hand_back(orders: Vec<HandedBack<u32>>) -> Result<(), BoxError> {
    for order in orders {
        if let Some(id) = order.item() {
            println!("order {id}: handed back, {}", order.reason());
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut group = TaskGroup::new();
    let (orders, pool) = Workers::new("orders", store)
        .limit(4)
        .retry(
            Backoff::new(Duration::from_millis(100), Duration::from_secs(1)),
            5,
        )
        .dead_letter(publish_dead)
        .grace(Duration::from_millis(200))
        .hand_back(hand_back)
        .queue(20)?;
    let report = pool.spawn(&group);
    group.task("client").spawn(async move {
        for order in 0.. {
            if let Err(refused) = orders.push(order).await {
                println!("order {}: refused", refused.into_item());
                break;
            }
        }
        Ok(())
    });

    sleep(Duration::from_millis(500)).await;
    group.cancel();
    // Twenty orders are buffered, and there is time for fewer: the others are cut, or never begin.
    match report.await {
        Ok(report) => println!("clean: {report}"),
        Err(_) => println!("not clean: {:#}", group.wait().await.unwrap_err()),
    }
    Ok(())
}
