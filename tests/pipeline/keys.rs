//! Keys: one item of a key at a time, in order.

use taskgroup::TaskGroup;
use taskgroup::pipeline::{Job, JobError, OnFailure, Workers};
use taskgroup::supervise::Backoff;
use tokio::time::sleep;

use crate::support::{SECOND, Seen, keep, settle};

type Item = (&'static str, u32);

fn key(item: &Item) -> Option<&'static str> {
    Some(item.0).filter(|key| !key.is_empty())
}

#[tokio::test(start_paused = true)]
async fn items_of_a_key_are_worked_on_one_at_a_time_in_order_with_their_retries() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let handled = seen.clone();
    let (pusher, pool) = Workers::new("mail", move |job: Job<Item>| {
        let handled = handled.clone();
        async move {
            handled.push(*job);
            sleep(SECOND).await;
            match (*job, job.attempt()) {
                (("a", 1), 1) => Err(JobError::failed("later")),
                _ => Ok(()),
            }
        }
    })
    .limit(4)
    .retry(Backoff::new(10 * SECOND, 10 * SECOND), 2)
    .keys(key)
    .queue(10)
    .unwrap();
    let report = pool.spawn(&group);
    for item in [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("a", 3)] {
        pusher.push(item).await.unwrap();
    }
    drop(pusher);
    assert_eq!(report.await.unwrap().done(), 5);
    assert_eq!(
        seen.all(),
        [("a", 1), ("b", 1), ("b", 2), ("a", 1), ("a", 2), ("a", 3)]
    );
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_ready_take_turns_and_items_without_one_go_on() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let handled = seen.clone();
    let (pusher, pool) = Workers::new("mail", move |job: Job<Item>| {
        handled.push(*job);
        async { Ok(()) }
    })
    .keys(key)
    .queue(10)
    .unwrap();
    for item in [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("", 1)] {
        pusher.push(item).await.unwrap();
    }
    drop(pusher);
    assert_eq!(pool.spawn(&group).await.unwrap().done(), 6);
    assert_eq!(
        seen.all(),
        [("a", 1), ("b", 1), ("", 1), ("a", 2), ("b", 2), ("a", 3)]
    );
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_key_goes_on_after_its_last_failure_or_is_parked() {
    for parks in [false, true] {
        let mut group = TaskGroup::new();
        let back = Seen::default();
        let workers = Workers::new("mail", |job: Job<Item>| async move {
            match *job {
                ("a", 1) => Err(JobError::permanent("no")),
                _ => Ok(()),
            }
        })
        .on_failure(OnFailure::Count)
        .keys(key)
        .hand_back(keep(&back));
        let workers = match parks {
            true => workers.park_failed_keys(),
            false => workers,
        };
        let (pusher, pool) = workers.queue(10).unwrap();
        let report = pool.spawn(&group);
        for item in [("a", 1), ("a", 2), ("b", 1), ("a", 3)] {
            pusher.push(item).await.unwrap();
        }
        settle().await;
        pusher.push(("a", 4)).await.unwrap();
        drop(pusher);
        let report = report.await.unwrap();
        assert_eq!(report.failed(), 1);
        assert_eq!(report.done(), if parks { 1 } else { 4 });
        let parked = [(("a", 2), false), (("a", 3), false), (("a", 4), false)];
        assert_eq!(back.all(), if parks { &parked[..] } else { &[] });
        assert!(group.wait().await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_later_of_a_key_begins_after_a_hand_back() {
    let mut group = TaskGroup::new();
    let back = Seen::default();
    let (pusher, pool) = Workers::new("mail", |job: Job<Item>| async move {
        match *job {
            ("a", 1) => Err(JobError::hand_back("not now")),
            _ => Ok(()),
        }
    })
    .keys(key)
    .hand_back(keep(&back))
    .queue(10)
    .unwrap();
    let report = pool.spawn(&group);
    for item in [("a", 1), ("a", 2), ("b", 1)] {
        pusher.push(item).await.unwrap();
    }
    settle().await;
    assert_eq!(back.all(), [(("a", 1), true)]);
    group.cancel();
    assert_eq!(report.await.unwrap().done(), 1);
    assert_eq!(back.all(), [(("a", 1), true), (("a", 2), false)]);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_panics_is_an_error_and_its_item_is_handed_back() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::new("mail", |_: Job<Item>| async { Ok(()) })
        .keys(|_: &Item| -> Option<u32> { panic!("no key") })
        .queue(10)
        .unwrap();
    let leftovers = pool.leftovers();
    pool.spawn(&group);
    pusher.push(("a", 1)).await.unwrap();
    let (_, message) = crate::support::failed(&mut group).await;
    assert!(
        message.ends_with("the key, weight or mark of an item panicked: no key"),
        "{message}"
    );
    assert_eq!(leftovers.take().len(), 1);
}
