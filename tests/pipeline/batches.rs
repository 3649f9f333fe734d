//! Batches: so many, or so long after the first.

use std::time::Duration;

use taskgroup::TaskGroup;
use taskgroup::pipeline::{Job, JobError, OnFailure, Pool, Pusher, Workers};
use taskgroup::supervise::Backoff;
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, Seen, failed, settle};

/// The seconds and the items of each batch.
type Batches = Seen<(u64, Vec<u32>)>;

/// A pool of batches of 3 items, or 10 s, and what it has seen, with the seconds.
fn batches() -> (Pusher<u32>, Pool<u32>, Batches) {
    let (seen, began) = (Seen::default(), Instant::now());
    let handled = seen.clone();
    let workers = Workers::batches("rows", 3, 10 * SECOND, move |jobs: Vec<Job<u32>>| {
        let items = jobs.iter().map(|job| **job).collect();
        handled.push((began.elapsed().as_secs(), items));
        async move {
            drop(jobs);
            Ok(())
        }
    });
    let (pusher, pool) = workers.limit(2).queue(10).unwrap();
    (pusher, pool, seen)
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_full_by_number_or_so_long_after_its_first_item() {
    let mut group = TaskGroup::new();
    let (pusher, pool, seen) = batches();
    let report = pool.spawn(&group);
    for item in 1..=4 {
        pusher.push(item).await.unwrap();
    }
    sleep(5 * SECOND).await;
    pusher.push(5).await.unwrap();
    sleep(20 * SECOND).await;
    assert_eq!(seen.all(), [(0, vec![1, 2, 3]), (10, vec![4, 5])]);
    drop(pusher);
    let report = report.await.unwrap();
    assert_eq!((report.done(), report.attempts()), (5, 5));
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_full_by_weight_too_and_one_item_may_weigh_more() {
    let mut group = TaskGroup::new();
    let (seen, began) = (Seen::default(), Instant::now());
    let handled = seen.clone();
    let workers = Workers::batches("rows", 5, 10 * SECOND, move |jobs: Vec<Job<&str>>| {
        let items: Vec<_> = jobs.iter().map(|job| **job).collect();
        handled.push((began.elapsed().as_secs(), items.concat()));
        async move {
            drop(jobs);
            Ok(())
        }
    });
    let (pusher, pool) = workers
        .batch_weight(10, |row| row.len() as u64)
        .queue(20)
        .unwrap();
    for row in ["aaaa", "bbbb", "cccc", "d", "eeeeeeeeeeeeeee", "ffffff"] {
        pusher.push(row).await.unwrap();
    }
    let report = pool.spawn(&group);
    settle().await;
    let full = [(0, "aaaabbbb".to_owned()), (0, "ccccd".to_owned())];
    assert_eq!(seen.all()[..2], full);
    assert_eq!(seen.all()[2..], [(0, "eeeeeeeeeeeeeee".to_owned())]);
    // By time.
    sleep(20 * SECOND).await;
    assert_eq!(seen.all()[3..], [(10, "ffffff".to_owned())]);
    // By number.
    for row in ["1", "2", "3", "4", "5", "6"] {
        pusher.push(row).await.unwrap();
    }
    settle().await;
    assert_eq!(seen.all()[4].1, "12345");
    group.cancel();
    assert_eq!(report.await.unwrap().to_string(), "12 done");
    assert_eq!(seen.all()[5].1, "6");
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_weight_that_panics_is_an_error_and_its_item_is_handed_back() {
    let mut group = TaskGroup::new();
    let rows = Workers::batches("rows", 5, SECOND, |_: Vec<Job<u32>>| async { Ok(()) });
    let (pusher, pool) = rows
        .batch_weight(10, |_| panic!("no scale"))
        .queue(20)
        .unwrap();
    let leftovers = pool.leftovers();
    pool.spawn(&group);
    pusher.push(7).await.unwrap();
    let (_, message) = failed(&mut group).await;
    assert!(message.ends_with("panicked: no scale"), "{message}");
    assert_eq!(leftovers.take()[0].item(), Some(&7));
}

#[tokio::test(start_paused = true)]
async fn the_last_batch_is_flushed_at_once_at_the_stop() {
    let mut group = TaskGroup::new();
    let (pusher, pool, seen) = batches();
    let report = pool.spawn(&group);
    for item in 1..=5 {
        pusher.push(item).await.unwrap();
    }
    settle().await;
    assert_eq!(seen.len(), 1);
    group.cancel();
    assert_eq!(report.await.unwrap().to_string(), "5 done");
    assert_eq!(seen.all(), [(0, vec![1, 2, 3]), (0, vec![4, 5])]);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn each_item_of_a_batch_has_its_own_end_and_its_own_retries() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let handled = seen.clone();
    let (pusher, pool) = Workers::batches("rows", 4, SECOND, move |jobs: Vec<Job<u32>>| {
        let items: Vec<_> = jobs.iter().map(|job| **job).collect();
        handled.push(items);
        async move {
            for job in jobs {
                match *job {
                    1 => job.done(),
                    2 => job.fail(JobError::permanent("bad row")),
                    3 => job.hand_back("not mine"),
                    // What has no answer of its own has that of the batch.
                    _ => {}
                }
            }
            Err(JobError::failed("the rest has failed"))
        }
    })
    .retry(Backoff::new(SECOND, SECOND).no_jitter(), 2)
    .on_failure(OnFailure::Count)
    .queue(10)
    .unwrap();
    let _leftovers = pool.leftovers();
    let report = pool.spawn(&group);
    for item in 1..=4 {
        pusher.push(item).await.unwrap();
    }
    drop(pusher);
    let report = report.await.unwrap();
    assert_eq!(report.to_string(), "1 done, 2 failed, 1 handed back");
    assert_eq!(seen.all(), [vec![1, 2, 3, 4], vec![4]]);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_item_that_is_forgotten_among_answers_has_failed_and_is_tried_again() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let handled = seen.clone();
    let (pusher, pool) = Workers::batches("rows", 3, SECOND, move |jobs: Vec<Job<u32>>| {
        let items: Vec<_> = jobs.iter().map(|job| **job).collect();
        handled.push(items);
        async move {
            // It answers for the first one alone.
            jobs.into_iter().next().into_iter().for_each(Job::done);
            Ok(())
        }
    })
    .retry(Backoff::new(SECOND, SECOND).no_jitter(), 2)
    .queue(10)
    .unwrap();
    for item in 1..=3 {
        pusher.push(item).await.unwrap();
    }
    drop(pusher);
    let report = pool.spawn(&group).await.unwrap();
    assert_eq!((report.done(), report.attempts()), (3, 5));
    assert_eq!(seen.all(), [vec![1, 2, 3], vec![2], vec![3]]);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn after_a_panic_the_items_without_an_answer_have_panicked() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::batches("rows", 3, SECOND, |jobs: Vec<Job<u32>>| async {
        for job in jobs {
            match *job {
                1 => job.done(),
                _ => panic!("bad row"),
            }
        }
        Ok(())
    })
    .on_failure(OnFailure::Count)
    .queue(10)
    .unwrap();
    for item in 1..=3 {
        pusher.push(item).await.unwrap();
    }
    drop(pusher);
    let report = pool.spawn(&group).await.unwrap();
    assert_eq!(report.to_string(), "1 done, 2 panicked");
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_cut_batch_is_handed_back_except_for_what_was_done() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::batches("rows", 3, SECOND, |jobs: Vec<Job<u32>>| async {
        let mut jobs = jobs.into_iter();
        jobs.next().unwrap().done();
        Ok(std::future::pending().await)
    })
    .grace(5 * SECOND)
    .queue(10)
    .unwrap();
    let leftovers = pool.leftovers();
    pool.spawn(&group);
    for item in 1..=4 {
        pusher.push(item).await.unwrap();
    }
    settle().await;
    group.cancel();
    let (report, _) = failed(&mut group).await;
    assert_eq!(
        report.to_string(),
        "1 done, 3 handed back (2 cut, 1 never begun)"
    );
    let left = leftovers.take();
    let left: Vec<_> = left.iter().map(|item| *item.item().unwrap()).collect();
    assert_eq!(left, [2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_without_a_time_waits_until_it_is_full() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::batches("rows", 2, Duration::MAX, |_: Vec<Job<u32>>| async {
        Ok(())
    })
    .queue(2)
    .unwrap();
    let report = pool.spawn(&group);
    pusher.push(1).await.unwrap();
    sleep(1000 * SECOND).await;
    assert!(!report.is_finished());
    drop(pusher);
    assert_eq!(report.await.unwrap().done(), 1);
    assert!(group.wait().await.is_ok());
}
