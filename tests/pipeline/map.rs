//! The ordered map: results in the order of the items, and those that are there at a stop.

use std::time::Duration;

use taskgroup::TaskGroup;
use taskgroup::pipeline::{Job, JobError, Workers, from_iter};
use taskgroup::supervise::Backoff;
use tokio::time::sleep;

use crate::support::{SECOND, failed};

/// The later an item, the sooner it is done.
async fn square(job: Job<u64>) -> Result<u64, JobError> {
    sleep(Duration::from_millis(100 - *job % 100)).await;
    Ok(*job * *job)
}

#[tokio::test(start_paused = true)]
async fn results_are_in_the_order_of_the_items() {
    let mut group = TaskGroup::new();
    let (workers, squares) = Workers::map("squares", square);
    let pool = workers.limit(64).source(from_iter(0..10_000)).unwrap();
    let report = pool.spawn(&group);
    assert_eq!(report.await.unwrap().to_string(), "10000 done");
    let expected: Vec<_> = (0..10_000).map(|item| (item, item * item)).collect();
    assert_eq!(squares.take(), expected);
    assert!(squares.is_empty());
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stop_keeps_what_is_done_and_takes_no_more_items() {
    let mut group = TaskGroup::new();
    let (workers, squares) = Workers::map("squares", square);
    let pool = workers.limit(64).source(from_iter(0..10_000)).unwrap();
    let report = pool.spawn(&group);
    sleep(SECOND).await;
    group.cancel();
    let report = report.await.unwrap();
    assert!((64..5_000).contains(&report.done()), "{report}");
    assert_eq!(report.taken_in(), report.done(), "{report}");
    // Items are begun in order, so that no gap appears.
    let done = report.done() as u64;
    let expected: Vec<_> = (0..done).map(|item| (item, item * item)).collect();
    assert_eq!(squares.take(), expected);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_what_is_done_and_a_retry_has_one_result() {
    let mut group = TaskGroup::new();
    let (workers, results) = Workers::map("numbers", |job: Job<u64>| async move {
        match *job {
            1 if job.attempt() == 1 => Err(JobError::failed("again")),
            5 => {
                sleep(60 * SECOND).await;
                Err(JobError::permanent("no such number"))
            }
            number => Ok(number),
        }
    });
    let workers = workers.limit(2).retry(Backoff::default(), 3);
    let pool = workers.source(from_iter(0..10)).unwrap();
    pool.spawn(&group);
    let (report, message) = failed(&mut group).await;
    assert!(
        message.ends_with("an item failed: no such number"),
        "{message}"
    );
    assert_eq!(
        (report.done(), report.failed(), report.attempts()),
        (9, 1, 11)
    );
    let numbers: Vec<_> = results
        .take()
        .into_iter()
        .map(|(_, number)| number)
        .collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 6, 7, 8, 9]);
}
