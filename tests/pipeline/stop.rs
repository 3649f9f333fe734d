//! The stop of a pool, and what is left of it.

use std::future::pending;
use std::time::Duration;

use taskgroup::pipeline::{AtStop, Job, JobError, PipelineReport, Reason, Workers};
use taskgroup::supervise::Backoff;
use taskgroup::{End, TaskGroup};
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, Seen, failed, keep, settle};

/// A handler that takes so many seconds.
async fn seconds(job: Job<u32>) -> Result<(), JobError> {
    Ok(sleep(*job * SECOND).await)
}

#[tokio::test(start_paused = true)]
async fn what_is_buffered_is_worked_off_before_the_pool_ends() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::new("mail", seconds).queue(10).unwrap();
    let report = pool.spawn(&group);
    for _ in 0..5 {
        pusher.push(1).await.unwrap();
    }
    settle().await;
    group.cancel();
    let report = report.await.unwrap();
    assert_eq!(report.to_string(), "5 done");
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_buffered_is_handed_back_at_once_if_chosen_and_that_is_clean() {
    let mut group = TaskGroup::new();
    let back = Seen::default();
    let (pusher, pool) = Workers::new("mail", seconds)
        .at_stop(AtStop::HandBack)
        .hand_back(keep(&back))
        .queue(10)
        .unwrap();
    let report = pool.spawn(&group);
    for item in [5, 6, 7] {
        pusher.push(item).await.unwrap();
    }
    settle().await;
    let began = Instant::now();
    group.cancel();
    let report = report.await.unwrap();
    assert_eq!(report.to_string(), "1 done, 2 handed back (2 never begun)");
    assert!(report.is_clean());
    assert_eq!(began.elapsed().as_secs(), 4);
    assert_eq!(back.all(), [(6, false), (7, false)]);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_what_is_left_is_cut_and_handed_back_in_order_and_that_is_an_error() {
    let mut group = TaskGroup::new();
    let back = Seen::default();
    let (pusher, pool) = Workers::new("mail", seconds)
        .limit(2)
        .grace(10 * SECOND)
        .hand_back(keep(&back))
        .queue(10)
        .unwrap();
    pool.spawn(&group);
    for item in [100, 1, 101, 102, 103] {
        pusher.push(item).await.unwrap();
    }
    settle().await;
    let began = Instant::now();
    group.cancel();
    let (report, message) = failed(&mut group).await;
    assert_eq!(
        message,
        "pipeline `mail`: 1 done, 4 handed back (2 cut, 2 never begun)"
    );
    assert_eq!(began.elapsed().as_secs(), 10);
    assert_eq!(report.cut(), 2);
    assert_eq!(
        back.all(),
        [(100, true), (101, true), (102, false), (103, false)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_handler_sees_the_stop_and_its_deadline_and_may_finish() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let handled = seen.clone();
    let (pusher, pool) = Workers::new("mail", move |job: Job<u32>| {
        let handled = handled.clone();
        async move {
            assert_eq!(job.deadline(), None);
            assert_eq!(job.clip(100 * SECOND), 100 * SECOND);
            job.token().cancelled().await;
            let left = job.deadline().unwrap() - Instant::now();
            let clipped = job.clip(100 * SECOND);
            let late = job.until_deadline(pending::<()>()).await.is_err();
            Ok(handled.push((left, clipped, late)))
        }
    })
    .grace(10 * SECOND)
    .queue(10)
    .unwrap();
    let report = pool.spawn(&group);
    pusher.push(1).await.unwrap();
    settle().await;
    group.cancel();
    assert_eq!(report.await.unwrap().to_string(), "1 done");
    assert_eq!(
        seen.all(),
        [(10 * SECOND, Duration::from_millis(9_750), true)]
    );
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_backoff_ends_at_the_stop_unless_the_next_attempt_is_due_in_time() {
    let mut group = TaskGroup::new();
    let waits = [3, 60];
    let back = Seen::default();
    let (mut reports, mut pushers) = (Vec::new(), Vec::new());
    for wait in waits {
        let (pusher, pool) = Workers::new("mail", |job: Job<u32>| async move {
            match job.attempt() {
                1 => Err(JobError::failed("later")),
                _ => Ok(()),
            }
        })
        .retry(Backoff::new(wait * SECOND, wait * SECOND).no_jitter(), 2)
        .grace(10 * SECOND)
        .hand_back(keep(&back))
        .queue(10)
        .unwrap();
        reports.push(pool.spawn(&group));
        pusher.push(wait).await.unwrap();
        settle().await;
        pushers.push(pusher);
    }
    let began = Instant::now();
    group.cancel();
    let [soon, late] = reports.try_into().unwrap();
    assert_eq!(late.await.unwrap().to_string(), "1 handed back");
    assert_eq!(began.elapsed().as_secs(), 0);
    assert_eq!(soon.await.unwrap().to_string(), "1 done");
    assert_eq!(back.all(), [(60, true)]);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn only_items_that_drain_begin_after_the_stop() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let handled = seen.clone();
    let (pusher, pool) = Workers::new("mail", move |job: Job<u32>| {
        handled.push(*job);
        async move { Ok(sleep(SECOND).await) }
    })
    .at_stop(AtStop::HandBack)
    .queue(10)
    .unwrap();
    let leftovers = pool.leftovers();
    let report = pool.spawn(&group);
    for item in 0..3 {
        pusher.push(item).await.unwrap();
    }
    settle().await;
    group.cancel();
    assert!(report.await.is_ok());
    assert_eq!(seen.all(), [0]);
    assert_eq!(leftovers.take().len(), 2);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_hand_back_that_fails_panics_or_is_late_is_an_error() {
    for how in ["fails", "panics", "is late"] {
        let mut group = TaskGroup::new();
        let (pusher, pool) = Workers::new("mail", seconds)
            .at_stop(AtStop::HandBack)
            .hand_back_within(2 * SECOND)
            .hand_back(move |_| async move {
                match how {
                    "fails" => Err("the table is gone".into()),
                    "panics" => panic!("the table is wrong"),
                    _ => Ok(pending().await),
                }
            })
            .queue(10)
            .unwrap();
        pusher.push(1).await.unwrap();
        group.cancel();
        let began = Instant::now();
        pool.spawn(&group);
        let (report, message) = failed(&mut group).await;
        assert_eq!(report.hand_backs_failed(), 1);
        let why = match how {
            "fails" => "the table is gone",
            "panics" => "the table is wrong",
            _ => "it did not return within 2s",
        };
        assert!(
            message.ends_with(&format!("the hand-back failed: {why}")),
            "{message}"
        );
        assert!(began.elapsed() <= 2 * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn items_that_nobody_claims_are_an_error() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::new("mail", seconds)
        .at_stop(AtStop::HandBack)
        .queue(10)
        .unwrap();
    pusher.push(1).await.unwrap();
    group.cancel();
    pool.spawn(&group);
    let (report, message) = failed(&mut group).await;
    assert_eq!(report.unclaimed(), 1);
    assert_eq!(
        message,
        "pipeline `mail`: 1 handed back (1 never begun, 1 not claimed)"
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_kept_is_still_running_by_name_and_comes_back_late() {
    let mut group = TaskGroup::new();
    let kept = std::sync::Arc::new(std::sync::Mutex::new(None));
    let keeps = std::sync::Arc::clone(&kept);
    let (pusher, pool) = Workers::new("mail", move |job: Job<u32>| {
        *keeps.lock().unwrap() = Some(job);
        async { Ok(()) }
    })
    .limit(2)
    .grace(5 * SECOND)
    .queue(10)
    .unwrap();
    let leftovers = pool.leftovers();
    pool.spawn(&group);
    pusher.push(7).await.unwrap();
    settle().await;
    group.cancel();
    let error = group.wait().await.unwrap_err().into_error().unwrap();
    let error: &taskgroup::pipeline::PipelineError = error.downcast_ref().unwrap();
    assert_eq!(error.end(), End::StillRunning);
    assert_eq!(
        error.to_string(),
        "pipeline `mail`: 1 still running (in `mail/worker-0`)"
    );
    assert_eq!(error.report().handed_back(), 0);
    assert!(leftovers.take().is_empty());
    drop(kept.lock().unwrap().take());
    let late = leftovers.take();
    assert_eq!((late[0].item(), late[0].reason()), (Some(&7), Reason::Cut));
}

#[tokio::test(start_paused = true)]
async fn an_abort_leaves_everything_in_the_leftovers() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::new("mail", |_: Job<u32>| async { Ok(pending().await) })
        .limit(2)
        .queue(10)
        .unwrap();
    let leftovers = pool.leftovers();
    pool.spawn(&group);
    for item in 0..4 {
        pusher.push(item).await.unwrap();
    }
    settle().await;
    group.abort();
    let _ = group.wait().await;
    let left = leftovers.take();
    let left: Vec<_> = left
        .iter()
        .map(|item| (*item.item().unwrap(), item.is_begun()))
        .collect();
    assert_eq!(left, [(0, true), (1, true), (2, false), (3, false)]);
}

#[test]
fn a_runtime_that_goes_away_leaves_everything_in_the_leftovers() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (leftovers, _group, _pusher) = runtime.block_on(async {
        let group = TaskGroup::new();
        let (pusher, pool) = Workers::new("mail", |_: Job<u32>| async { Ok(pending().await) })
            .queue(10)
            .unwrap();
        let leftovers = pool.leftovers();
        pool.spawn(&group);
        pusher.push(1).await.unwrap();
        pusher.push(2).await.unwrap();
        tokio::task::yield_now().await;
        (leftovers, group, pusher)
    });
    drop(runtime);
    assert_eq!(leftovers.take().len(), 2);
}

#[test]
fn a_blocked_thread_is_still_running_and_its_item_is_not_handed_back() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = std::sync::Mutex::new(blocked);
    let (began, has_begun) = tokio::sync::oneshot::channel();
    let began = std::sync::Mutex::new(Some(began));
    let error = runtime.block_on(async {
        let mut group = TaskGroup::new();
        let (pusher, pool) = Workers::new("mail", move |job: Job<u32>| {
            let _ = began.lock().unwrap().take().unwrap().send(());
            let _ = blocked.lock().unwrap().recv();
            drop(job);
            async { Ok(()) }
        })
        .grace(Duration::ZERO)
        .queue(10)
        .unwrap();
        let leftovers = pool.leftovers();
        let report = pool.spawn(&group);
        pusher.push(1).await.unwrap();
        has_begun.await.unwrap();
        group.cancel();
        // It gives the thread up, which takes it a second.
        drop(report.await);
        assert!(leftovers.take().is_empty());
        unblock.send(()).unwrap();
        group.wait().await.unwrap_err().to_string()
    });
    assert!(error.contains("mail"), "{error}");
}

/// One worker blocks its thread. The others are cut, and all items but its own are handed back in time.
#[test]
fn a_blocked_worker_does_not_keep_the_other_items_from_being_handed_back() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build()
        .unwrap();
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = std::sync::Mutex::new(blocked);
    let (began, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let back = Seen::default();
    let (report, message) = runtime.block_on(async {
        let mut group = TaskGroup::new();
        let (pusher, pool) = Workers::new("mail", move |job: Job<u32>| {
            let _ = began.send(*job);
            if *job == 1 {
                let _ = blocked.lock().unwrap().recv();
            }
            async move {
                let _job = job;
                Ok(pending().await)
            }
        })
        .limit(2)
        .grace(Duration::ZERO)
        .hand_back(keep(&back))
        .queue(10)
        .unwrap();
        let report = pool.spawn(&group);
        for item in 0..5 {
            pusher.push(item).await.unwrap();
            // The one that blocks comes last, since a task that is woken on a blocked thread stays there.
            if item < 2 {
                assert_eq!(has_begun.recv().await, Some(item));
            }
        }
        group.cancel();
        // The task ends although its worker does not.
        drop(report.await);
        unblock.send(()).unwrap();
        failed(&mut group).await
    });
    assert_eq!(back.all(), [(0, true), (2, false), (3, false), (4, false)]);
    assert_eq!(report.still_running(), 1);
    let workers: Vec<_> = report.running_workers().collect();
    assert!(workers[0].starts_with("mail/worker-"), "{workers:?}");
    assert!(message.contains("1 still running"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_before_the_deadline_is_cut_and_costs_no_attempt() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::new("mail", |job: Job<u32>| async move {
        Ok(job.until_deadline(pending::<()>()).await?)
    })
    .retry(Backoff::default(), 2)
    .grace(SECOND)
    .queue(10)
    .unwrap();
    let leftovers = pool.leftovers();
    pool.spawn(&group);
    pusher.push(1).await.unwrap();
    settle().await;
    group.cancel();
    let (report, _) = failed(&mut group).await;
    assert_eq!(report.to_string(), "1 handed back (1 cut)");
    assert_eq!(leftovers.take()[0].failed_attempts(), 0);
}

/// Two stages in one group, and how many items the first one has; the second one stops so.
async fn chain(
    at_stop: AtStop,
    orders: u32,
) -> (TaskGroup, Vec<taskgroup::TaskHandle<PipelineReport>>) {
    let group = TaskGroup::new();
    let (rows, store) = Workers::new("store", |_: Job<u32>| async { Ok(sleep(SECOND / 2).await) })
        .at_stop(at_stop)
        .queue(1)
        .unwrap();
    let (pusher, parse) = Workers::new("parse", move |order: Job<u32>| {
        let rows = rows.clone();
        async move {
            sleep(SECOND).await;
            Ok(rows.push(*order).await?)
        }
    })
    .queue(10)
    .unwrap();
    let reports = vec![parse.spawn(&group), store.spawn(&group)];
    for order in 0..orders {
        pusher.push(order).await.unwrap();
    }
    settle().await;
    (group, reports)
}

#[tokio::test(start_paused = true)]
async fn stages_of_one_group_drain_in_order_if_the_later_one_waits_for_its_pushers() {
    let (mut group, reports) = chain(AtStop::AfterPushers, 5).await;
    group.cancel();
    for report in reports {
        assert_eq!(report.await.unwrap().to_string(), "5 done");
    }
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_waits_for_its_pushers_is_cut_at_its_deadline() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::new("store", |_: Job<u32>| async { Ok(()) })
        .at_stop(AtStop::AfterPushers)
        .grace(5 * SECOND)
        .queue(1)
        .unwrap();
    let report = pool.spawn(&group);
    settle().await;
    let began = Instant::now();
    group.cancel();
    settle().await;
    pusher.push(1).await.unwrap();
    assert_eq!(report.await.unwrap().to_string(), "1 done");
    assert_eq!(began.elapsed().as_secs(), 5);
    assert_eq!(pusher.push(2).await.unwrap_err().into_item(), 2);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_last_stage_of_a_chain_drains_when_the_one_before_it_has() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let stored = seen.clone();
    let (rows, store) = Workers::new("store", move |row: Job<u32>| {
        let stored = stored.clone();
        async move { Ok(stored.push(*row)) }
    })
    .queue(1)
    .unwrap();
    let (orders, parse) = Workers::new("parse", move |order: Job<&str>| {
        let rows = rows.clone();
        async move {
            sleep(SECOND).await;
            Ok(rows.push(order.parse()?).await?)
        }
    })
    .limit(2)
    .queue(10)
    .unwrap();
    let (parsed, stored) = (parse.spawn(&group), store.spawn(&group));
    for order in ["1", "2", "3", "4", "5"] {
        orders.push(order).await.unwrap();
    }
    drop(orders);
    assert_eq!(parsed.await.unwrap().to_string(), "5 done");
    assert_eq!(stored.await.unwrap().to_string(), "5 done");
    assert_eq!(seen.len(), 5);
    assert!(group.wait().await.is_ok());
}
