//! The commit watermark of a partition.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use taskgroup::TaskGroup;
use taskgroup::pipeline::{
    HandedBack, Job, JobError, Mark, OnFailure, Reason, Receipt, Received, Watermark, Workers,
    from_stream,
};
use taskgroup::supervise::Backoff;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};

use crate::support::{SECOND, Seen, settle};

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
    assert!(left.iter().all(|item| item.reason() == Reason::Revoked));
    assert_eq!(watermark.next(&1), Some(101));
    assert_eq!(watermark.next(&0), None);
    assert!(group.wait().await.is_ok());
}

/// The only worker is busy with partition 1, and still the items of partition 0 are handed back at once, in order.
#[tokio::test(start_paused = true)]
async fn a_revocation_empties_the_buffer_at_once_and_the_partition_may_come_back() {
    let watermark = watermark(100);
    let gate = Arc::new(Semaphore::new(0));
    let (opens, back) = (Arc::clone(&gate), Seen::default());
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let receiver = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let returned = back.clone();
    let mut group = TaskGroup::new();
    let began = Instant::now();
    let pool = Workers::new("orders", move |job: Job<u64, Mark>| {
        let gate = Arc::clone(&opens);
        async move {
            match *job {
                // It fails once, and waits for its next attempt.
                10 if job.attempt() == 1 => Err(JobError::failed("later")),
                _ => Ok(gate.acquire().await?.forget()),
            }
        }
    })
    .buffer(10)
    .retry(Backoff::new(60 * SECOND, 60 * SECOND), 3)
    // All items of partition 0 have one key.
    .keys(|order| (*order < 100).then_some(0))
    .watermark(&watermark)
    .hand_back(move |items: Vec<HandedBack<u64, Mark>>| {
        let items = items.into_iter();
        let each = items.map(|item| (*item.item().unwrap(), item.is_begun(), item.reason()));
        returned.push((began.elapsed().as_secs(), each.collect::<Vec<_>>()));
        std::future::ready(Ok(()))
    })
    .source(from_stream(receiver))
    .unwrap();
    let report = pool.spawn(&group);
    for (partition, offset) in [(0, 10), (1, 100), (0, 11), (1, 101), (0, 12)] {
        let mark = watermark.take_in(partition, offset).await;
        sender.send(Received::new(offset, mark)).unwrap();
    }
    settle().await;
    // 10 is in backoff, 100 is under way, and the rest is buffered.
    let revoked = watermark.revoke(&0, began + 50 * SECOND).await;
    assert_eq!((revoked.next(), revoked.still_running()), (None, 0));
    settle().await;
    let expected = [(10, true), (11, false), (12, false)];
    let expected = expected.map(|(offset, is_begun)| (offset, is_begun, Reason::Revoked));
    assert_eq!(back.all(), [(0, expected.to_vec())]);

    // The partition comes straight back, with the same key.
    for offset in [10, 11] {
        let mark = watermark.take_in(0, offset).await;
        sender.send(Received::new(offset, mark)).unwrap();
    }
    gate.add_permits(10);
    drop(sender);
    let report = report.await.unwrap();
    assert_eq!(report.to_string(), "4 done, 3 handed back (2 never begun)");
    assert_eq!(watermark.all().len(), 2);
    assert_eq!(
        (watermark.next(&0), watermark.next(&1)),
        (Some(12), Some(102))
    );
    assert!(group.wait().await.is_ok());
}

/// The receipt of a user that contains a mark.
struct Record {
    mark: Mark,
}

impl Receipt for Record {
    async fn ack(&self) -> Result<(), taskgroup::BoxError> {
        self.mark.ack().await
    }

    fn mark(&self) -> Option<&Mark> {
        Some(&self.mark)
    }
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_contains_a_mark_is_revoked_with_it() {
    let watermark = watermark(100);
    let mut items = Vec::new();
    for offset in [1, 2, 3] {
        let mark = watermark.take_in(0, offset).await;
        items.push(Received::new(offset, Record { mark }));
    }
    let mut group = TaskGroup::new();
    let pool = Workers::new("orders", |_: Job<u64, Record>| async { Ok(()) })
        .watermark(&watermark)
        .source(from_stream(futures_util::stream::iter(items)))
        .unwrap();
    let leftovers = pool.leftovers();
    watermark.revoke(&0, Instant::now()).await;
    let report = pool.spawn(&group).await.unwrap();
    assert_eq!(report.to_string(), "3 handed back (3 never begun)");
    assert_eq!(leftovers.take().len(), 3);
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

/// Items of two partitions that take a time each, and a revocation of partition 0.
async fn run(times: Vec<(bool, u64)>, limit: usize, at: u64, within: u64) {
    let watermark = Watermark::new("orders", 100).unwrap();
    let mut items = Vec::new();
    for (offset, (is_other, millis)) in (0..).zip(&times) {
        let partition = u32::from(*is_other);
        let mark = watermark.take_in(partition, offset).await;
        items.push(Received::new((partition, offset, *millis), mark));
    }
    let (begun, done, back) = (Seen::default(), Seen::default(), Seen::default());
    let (begins, ends, returned) = (begun.clone(), done.clone(), back.clone());
    let mut group = TaskGroup::new();
    let pool = Workers::new("orders", move |job: Job<(u32, u64, u64), Mark>| {
        begins.push(*job);
        let ends = ends.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(job.2)).await;
            Ok(ends.push(*job))
        }
    })
    .limit(limit)
    .buffer(100)
    .watermark(&watermark)
    .hand_back(move |items: Vec<HandedBack<(u32, u64, u64), Mark>>| {
        items
            .iter()
            .for_each(|item| returned.push(*item.item().unwrap()));
        std::future::ready(Ok(()))
    })
    .source(from_stream(futures_util::stream::iter(items)))
    .unwrap();
    let report = pool.spawn(&group);
    tokio::time::sleep(Duration::from_millis(at)).await;
    let before = begun.all();
    let deadline = Instant::now() + Duration::from_millis(within);
    let revoked = watermark.revoke(&0, deadline).await;
    let done_by_then = done.all();
    let report = report.await.unwrap();
    assert!(group.wait().await.is_ok());

    let of = |partition: u32, all: &[(u32, u64, u64)]| -> BTreeSet<u64> {
        let all = all.iter().filter(|item| item.0 == partition);
        all.map(|item| item.1).collect()
    };
    // None of the partition begins later, and each of its items is done or handed back, and never both.
    assert_eq!(of(0, &begun.all()), of(0, &before));
    let (ended, left) = (of(0, &done.all()), of(0, &back.all()));
    let all: BTreeSet<_> = ended.union(&left).copied().collect();
    assert!(ended.is_disjoint(&left), "{ended:?}, {left:?}");
    assert_eq!(
        all.len(),
        times.iter().filter(|(is_other, _)| !is_other).count()
    );
    // The other partition has lost nothing.
    assert_eq!(of(1, &done.all()).len(), times.len() - all.len());
    assert_eq!(report.done() + report.handed_back(), times.len());
    // No offset is passed that was not done by then.
    let by_then = of(0, &done_by_then);
    let open = all.iter().filter(|offset| !by_then.contains(offset));
    let first = open.min().copied();
    assert!(
        revoked
            .next()
            .is_none_or(|next| first.is_none_or(|first| next <= first))
    );
    assert_eq!(
        revoked.still_running(),
        of(0, &before).difference(&by_then).count()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_revocation_at_any_time_loses_nothing_and_passes_nothing_over(
        times in prop::collection::vec((any::<bool>(), 0..1000u64), 0..20),
        limit in 1..5usize,
        at in 0..3000u64,
        within in 0..1500u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(times, limit, at, within));
    }
}
