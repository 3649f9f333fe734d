//! Rules 11 and 15: waiting again and again, and what is kept meanwhile.

use std::time::Duration;

use taskgroup::{Cause, End, TaskGroup};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_test::{assert_pending, assert_ready};

use crate::fixtures::on_both;
use crate::support::alive::Alive;

// Rule 11.

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_changes_nothing() {
    let start = Instant::now();
    let mut group = TaskGroup::new();
    group.spawn(async { Ok(sleep(Duration::from_secs(10)).await) });
    for _ in 0..3 {
        assert!(timeout(Duration::from_secs(1), group.wait()).await.is_err());
    }
    assert!(!group.is_closed() && !group.is_cancelled());
    group.spawn(async { Ok(sleep(Duration::from_secs(10)).await) });
    let waited = tokio::spawn(async move { group.wait().await });
    waited.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(13));
}

#[tokio::test]
async fn a_wait_in_a_select_loses_no_error() {
    let mut group = TaskGroup::new();
    let (fail, failing) = oneshot::channel::<()>();
    group.spawn(async move {
        let _ = failing.await;
        Err::<(), _>("kept".into())
    });
    for _ in 0..10 {
        tokio::select! {
            biased;
            _ = group.wait() => panic!("nothing has ended"),
            () = tokio::task::yield_now() => {}
        }
    }
    fail.send(()).unwrap();
    assert!(format!("{:#}", group.wait().await.unwrap_err()).ends_with("failed: kept"));
}

#[tokio::test]
async fn a_second_wait_returns_ok_at_once_and_the_cause_still_tells() {
    let mut group = TaskGroup::new();
    group.spawn(async { Err::<(), _>("handed over".into()) });
    group.wait().await.unwrap_err();
    let mut again = tokio_test::task::spawn(group.wait());
    assert_ready!(again.poll()).unwrap();
    drop(again);
    assert!(matches!(group.cause(), Some(Cause::Failed(_))));
    group.shutdown(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_group_that_was_closed_stays_closed_after_the_wait() {
    let mut group = TaskGroup::new();
    group.close();
    group.wait().await.unwrap();
    assert!(group.is_closed());
    let late = group.spawn(async { Ok(()) });
    assert_eq!(late.await.unwrap_err().end(), End::Skipped);
}

#[tokio::test]
async fn a_wait_is_woken_once_by_the_last_task() {
    let mut group = TaskGroup::new();
    let mut ends = Vec::new();
    for _ in 0..3 {
        let (end, ended) = oneshot::channel::<()>();
        group.spawn(async move { Ok(ended.await?) });
        ends.push(end);
    }
    let mut wait = tokio_test::task::spawn(group.wait());
    assert_pending!(wait.poll());
    while let Some(end) = ends.pop() {
        assert!(!wait.is_woken());
        end.send(()).unwrap();
        tokio::task::yield_now().await;
    }
    assert!(wait.is_woken());
    assert_ready!(wait.poll()).unwrap();
}

/// That none can be lost is proved by `loom/src/latch_models.rs`. Here many are tried on real threads, where a lost one
/// hangs the test.
#[test]
fn no_wake_up_is_lost_between_the_last_task_and_the_wait() {
    on_both(|| async {
        for _ in 0..2000 {
            let mut group = TaskGroup::new();
            group.spawn(async { Ok(()) });
            group.wait().await.unwrap();
        }
    });
}

#[test]
fn a_wait_sees_tasks_that_are_spawned_by_tasks() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let spawner = group.spawner();
        let depth = 100;
        fn dig(spawner: &taskgroup::Spawner, depth: u32) {
            let inner = spawner.clone();
            spawner.spawn(async move {
                tokio::task::yield_now().await;
                if depth == 0 {
                    return Err::<(), _>("the bottom".into());
                }
                dig(&inner, depth - 1);
                Ok(())
            });
        }
        dig(&spawner, depth);
        assert!(format!("{:#}", group.wait().await.unwrap_err()).ends_with("the bottom"));
    });
}

// Rule 15.

#[tokio::test]
async fn a_group_keeps_nothing_of_an_ended_task() {
    let alive = Alive::default();
    let mut group = TaskGroup::new();
    for index in 0..1000 {
        let (owned, value) = (alive.guard(), alive.guard());
        let task = async move {
            let _owned = owned;
            if index % 2 == 0 {
                tokio::task::yield_now().await;
            }
            Ok(value)
        };
        if index % 10 == 0 {
            group.task(format!("task-{index}")).spawn(task);
        } else {
            group.spawn(task);
        }
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(alive.count(), 0, "before anybody waited");
    }
    assert!(group.running().is_empty());
    group.wait().await.unwrap();
}
