//! The commit watermark of a partition.

use std::sync::Arc;

use taskgroup::TaskGroup;
use taskgroup::pipeline::{
    Job, JobError, Mark, OnFailure, Reason, Receipt, Received, Watermark, Workers, from_stream,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};

use crate::support::{SECOND, settle};

fn watermark(most: usize) -> Watermark<u32> {
    Watermark::new("orders", most).unwrap()
}

/// A stream of these offsets of partition 0.
async fn offsets(watermark: &Watermark<u32>, all: &[u64]) -> Vec<Received<u64, Mark>> {
    let mut items = Vec::new();
    for offset in all {
        items.push(Received::new(*offset, watermark.take_in(0, *offset).await));
    }
    items
}

#[tokio::test(start_paused = true)]
async fn it_moves_over_what_is_acknowledged_and_is_held_by_the_rest() {
    let watermark = watermark(100);
    let items = offsets(&watermark, &[5, 6, 9, 12]).await;
    let mut group = TaskGroup::new();
    // 9 has failed and is not acknowledged; 6 is dead, which is.
    let pool = Workers::new("orders", |job: Job<u64, Mark>| async move {
        match *job {
            6 => Err(JobError::permanent("bad")),
            9 => Err(JobError::hand_back("not now")),
            _ => Ok(()),
        }
    })
    .dead_letter(|_| async { Ok(()) })
    .source(from_stream(futures_util::stream::iter(items)))
    .unwrap();
    let leftovers = pool.leftovers();
    assert_eq!(watermark.next(&0), None);
    let report = pool.spawn(&group).await.unwrap();
    assert_eq!(report.to_string(), "2 done, 1 failed, 1 handed back");
    assert_eq!(watermark.next(&0), Some(9));
    assert_eq!(watermark.all(), [(0, 9)]);
    let (_, mark) = leftovers.take().remove(0).into_parts();
    mark.ack().await.unwrap();
    assert_eq!(watermark.next(&0), Some(13));
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_open_above_it_is_bounded_and_the_intake_of_that_partition_waits() {
    let watermark = watermark(2);
    let first = watermark.take_in(0, 1).await;
    let second = watermark.take_in(0, 2).await;
    let mut third = spawn(watermark.take_in(0, 3));
    assert_pending!(third.poll());
    assert!(watermark.is_full(&0) && !watermark.is_full(&1));
    // Another partition goes on.
    assert_ready!(spawn(watermark.take_in(1, 1)).poll());
    second.ack().await.unwrap();
    assert_pending!(third.poll());
    first.ack().await.unwrap();
    assert!(third.is_woken());
    assert_eq!(assert_ready!(third.poll()).offset(), 3);
    assert_eq!(watermark.open(&0), 1);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_partition_drains_and_begins_nothing_more_while_others_go_on() {
    let watermark = watermark(100);
    let mut items = offsets(&watermark, &[1, 2, 3]).await;
    items.push(Received::new(100, watermark.take_in(1, 100).await));
    let gate = Arc::new(Semaphore::new(0));
    let opens = Arc::clone(&gate);
    let mut group = TaskGroup::new();
    let pool = Workers::new("orders", move |_: Job<u64, Mark>| {
        let gate = Arc::clone(&opens);
        async move { Ok(gate.acquire().await?.forget()) }
    })
    .buffer(10)
    .source(from_stream(futures_util::stream::iter(items)))
    .unwrap();
    let leftovers = pool.leftovers();
    let report = pool.spawn(&group);
    settle().await;
    let mut revoked = spawn(watermark.revoke(&0, Instant::now() + 10 * SECOND));
    assert_pending!(revoked.poll());
    gate.add_permits(10);
    settle().await;
    let revoked = assert_ready!(revoked.poll());
    assert_eq!((revoked.next(), revoked.still_running()), (Some(2), 0));
    assert_eq!(
        report.await.unwrap().to_string(),
        "2 done, 2 handed back (2 never begun)"
    );
    let left = leftovers.take();
    assert!(left.iter().all(|item| item.reason() == Reason::Refused));
    assert_eq!(watermark.next(&1), Some(101));
    assert_eq!(watermark.next(&0), None);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_done_after_the_deadline_of_a_revocation_is_counted_and_moves_nothing() {
    let watermark = watermark(100);
    let old = watermark.take_in(0, 1).await;
    assert!(old.begin());
    let began = Instant::now();
    let revoked = watermark.revoke(&0, began + 5 * SECOND).await;
    assert_eq!(began.elapsed().as_secs(), 5);
    assert_eq!((revoked.next(), revoked.still_running()), (None, 1));
    assert!(!old.begin());
    // The partition comes straight back.
    let new = watermark.take_in(0, 1).await;
    old.ack().await.unwrap();
    assert_eq!((watermark.late(), watermark.next(&0)), (1, None));
    new.ack().await.unwrap();
    assert_eq!((watermark.late(), watermark.next(&0)), (1, Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_only_counts_holds_it() {
    let watermark = watermark(100);
    let items = offsets(&watermark, &[1, 2]).await;
    let mut group = TaskGroup::new();
    let pool = Workers::new("orders", |job: Job<u64, Mark>| async move {
        match *job {
            1 => panic!("poison"),
            _ => Ok(()),
        }
    })
    .on_failure(OnFailure::Count)
    .source(from_stream(futures_util::stream::iter(items)))
    .unwrap();
    assert_eq!(
        pool.spawn(&group).await.unwrap().to_string(),
        "1 done, 1 panicked"
    );
    assert_eq!(watermark.next(&0), None);
    assert!(group.wait().await.is_ok());
}

#[test]
fn a_watermark_that_lets_nothing_in_is_refused() {
    let error = Watermark::<u32>::new("orders", 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "watermark `orders`: `most` cannot be 0: no item could be taken in"
    );
    let error = Watermark::<u32>::new("", 1).unwrap_err();
    assert_eq!(error.option(), "name");
}
