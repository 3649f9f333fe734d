//! A wait that is bounded by a grace, and an abort.

use std::future::pending;
use std::time::Duration;

use taskgroup::group::Builder;
use taskgroup::{Cause, End, TaskGroup};
use tokio::time::{Instant, sleep};

use crate::fixtures::hold;
use crate::support::alive::Alive;

const GRACE: Duration = Duration::from_secs(10);

/// A trigger that comes after this time.
async fn after(time: Duration) -> Cause {
    sleep(time).await;
    Cause::Deadline(time)
}

fn bounded() -> Builder {
    TaskGroup::builder().grace(GRACE)
}

#[tokio::test(start_paused = true)]
async fn a_wait_forces_and_names_what_is_left_after_the_grace() {
    let mut group = bounded().build().unwrap();
    let alive = Alive::default();
    group.task("deaf").spawn(hold::<(), _>(alive.guard()));
    let start = Instant::now();
    let spawner = group.spawner();
    tokio::spawn(async move {
        sleep(Duration::from_secs(100)).await;
        spawner.cancel();
    });
    let error = group.wait().await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_secs(100) + GRACE);
    assert!(error.is_timed_out());
    let stragglers = error.stragglers();
    assert_eq!(stragglers.iter().next().unwrap().name(), Some("deaf"));
    assert!(error.still_running().is_empty());
    assert_eq!(alive.count(), 0);
    // It has been handed over.
    group.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_grace_counts_from_the_cancel_whatever_its_cause() {
    let cancels: [fn(&TaskGroup); 4] = [
        |group| group.cancel_on(after(Duration::ZERO)),
        |group| group.cancel(),
        |group| group.token().cancel(),
        |group| drop(group.spawn(async { Err::<(), _>("disk full".into()) })),
    ];
    for cancel in cancels {
        let mut group = bounded().build().unwrap();
        group.task("deaf").spawn(pending::<Result<(), _>>());
        let start = Instant::now();
        cancel(&group);
        let error = group.wait().await.unwrap_err();
        assert_eq!(start.elapsed(), GRACE);
        assert!(error.is_timed_out());
    }
}

#[tokio::test(start_paused = true)]
async fn the_grace_does_not_start_over_with_each_wait() {
    let mut group = bounded().build().unwrap();
    group.spawn(pending::<Result<(), _>>());
    let start = Instant::now();
    group.cancel();
    let error = loop {
        tokio::select! {
            biased;
            outcome = group.wait() => break outcome.unwrap_err(),
            () = sleep(Duration::from_secs(3)) => {}
        }
    };
    assert_eq!(start.elapsed(), GRACE);
    assert!(error.is_timed_out());
}

#[tokio::test(start_paused = true)]
async fn the_grace_goes_on_while_nobody_waits() {
    let mut group = bounded().build().unwrap();
    let deaf = group.spawn(pending::<Result<(), _>>());
    group.cancel();
    sleep(GRACE * 2).await;
    assert_eq!(deaf.await.unwrap_err().end(), End::Aborted);
    assert!(group.wait().await.unwrap_err().is_timed_out());
}

#[tokio::test(start_paused = true)]
async fn a_group_that_ends_within_its_grace_is_ok() {
    let mut group = bounded().build().unwrap();
    let token = group.token().clone();
    group.spawn(async move {
        token.cancelled().await;
        Ok(sleep(GRACE / 2).await)
    });
    group.cancel();
    group.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_and_a_grace_bound_a_group_as_a_whole() {
    let deadline = Duration::from_secs(30);
    let mut group = bounded().deadline(deadline).build().unwrap();
    group.task("deaf").spawn(pending::<Result<(), _>>());
    let start = Instant::now();
    let error = group.wait().await.unwrap_err();
    assert_eq!(start.elapsed(), deadline + GRACE);
    assert!(error.is_timed_out());
    assert_eq!(error.cause(), Some(&Cause::Deadline(deadline)));
}

#[tokio::test(start_paused = true)]
async fn a_grace_of_zero_aborts_at_the_cancel_and_one_without_end_never_does() {
    let mut group = TaskGroup::builder().grace(Duration::ZERO).build().unwrap();
    group.spawn(pending::<Result<(), _>>());
    group.cancel();
    let start = Instant::now();
    assert!(group.wait().await.unwrap_err().is_timed_out());
    assert_eq!(start.elapsed(), Duration::ZERO);

    let mut group = TaskGroup::builder().grace(Duration::MAX).build().unwrap();
    group.spawn(async { Ok(sleep(Duration::from_secs(1_000_000)).await) });
    group.cancel();
    group.wait().await.unwrap();
}

#[tokio::test]
async fn a_closure_that_does_not_end_is_named_and_left_behind() {
    tokio::time::pause();
    let mut group = TaskGroup::builder()
        .grace(Duration::from_secs(5))
        .build()
        .unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (started, starts) = tokio::sync::oneshot::channel();
    group.task("stuck").spawn_blocking(move |_| {
        started.send(()).unwrap();
        let _ = released.recv();
        Ok(())
    });
    starts.await.unwrap();
    group.cancel();
    // Time does not pass by itself while a thread of the runtime is at work.
    let mut wait = Box::pin(group.wait());
    let error = loop {
        tokio::select! {
            biased;
            outcome = &mut wait => break outcome.unwrap_err(),
            () = tokio::time::advance(Duration::from_millis(500)) => {}
        }
    };
    drop(wait);
    let still = error.still_running();
    assert_eq!(still.iter().next().unwrap().name(), Some("stuck"));
    // While it is there, no wait is `Ok`; and none hangs.
    assert!(group.wait().await.unwrap_err().is_timed_out());
    release.send(()).unwrap();
    while !group.running().is_empty() {
        tokio::task::yield_now().await;
    }
    group.wait().await.unwrap();
}

#[tokio::test]
async fn an_aborted_group_is_joined_by_its_wait_and_is_not_ok() {
    let mut group = TaskGroup::new();
    let alive = Alive::default();
    let child = group.child("child");
    group.task("deaf").spawn(hold::<(), _>(alive.guard()));
    child.spawn(hold::<(), _>(alive.guard()));
    tokio::task::yield_now().await;
    group.abort();
    let error = group.wait().await.unwrap_err();
    assert_eq!(alive.count(), 0);
    assert!(error.is_timed_out());
    assert_eq!(error.stragglers().count(), 2);
    let message = error.to_string();
    assert!(
        message.contains("was aborted with 2 tasks: `deaf` ("),
        "{message}"
    );
    assert_eq!(
        group.cause(),
        Some(Cause::Requested(taskgroup::group::StopRequest::default()))
    );
}

#[tokio::test]
async fn an_abort_of_a_group_without_tasks_is_ok() {
    let mut group = TaskGroup::new();
    group.abort();
    group.wait().await.unwrap();
}

#[tokio::test]
async fn an_abort_of_a_child_leaves_its_parent_alone() {
    let mut group = TaskGroup::new();
    let mut child = group.child("child");
    child.spawn(pending::<Result<(), _>>());
    child.abort();
    assert!(child.wait().await.unwrap_err().is_timed_out());
    assert!(!group.is_cancelled());
    group.wait().await.unwrap();
}
