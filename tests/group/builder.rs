//! The options of a group, and its deadline.

use std::future::pending;
use std::time::Duration;

use taskgroup::{CancellationToken, Cause, TaskGroup};
use tokio::time::{Instant, sleep};

#[test]
fn options_can_be_printed_and_used_more_than_once() {
    let options = TaskGroup::builder().name("resize").limit(8);
    assert!(format!("{options:?}").contains("\"resize\""));
    assert_eq!(options.build().unwrap().name(), Some("resize"));
    assert_eq!(options.build().unwrap().name(), Some("resize"));
}

#[test]
fn a_limit_beyond_all_measure_is_accepted() {
    TaskGroup::builder().limit(usize::MAX).build().unwrap();
}

#[tokio::test]
async fn a_token_above_cancels_the_group() {
    let parent = CancellationToken::new();
    let mut group = TaskGroup::builder().parent(&parent).build().unwrap();
    let token = group.token().clone();
    group.spawn(async move { Ok(token.cancelled().await) });
    parent.cancel();
    group.wait().await.unwrap();
    assert_eq!(group.cause(), Some(Cause::Token));
}

#[tokio::test]
async fn a_group_does_not_cancel_the_token_above() {
    let parent = CancellationToken::new();
    let group = TaskGroup::builder().parent(&parent).build().unwrap();
    group.cancel();
    assert!(group.token().is_cancelled());
    assert!(!parent.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_cancels_and_fails_a_group_whose_tasks_are_running() {
    let start = Instant::now();
    let mut group = TaskGroup::builder()
        .deadline(Duration::from_secs(30))
        .build()
        .unwrap();
    let token = group.token().clone();
    group.task("import").spawn(async move {
        token.cancelled().await;
        sleep(Duration::from_secs(2)).await;
        Ok(())
    });
    let waited = tokio::spawn(async move { (group.wait().await, group) });
    let (outcome, group) = waited.await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(32));
    let error = outcome.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(
        error.stragglers().iter().next().unwrap().name(),
        Some("import")
    );
    assert_eq!(
        group.cause(),
        Some(Cause::Deadline(Duration::from_secs(30)))
    );
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_an_idle_group_only_cancels() {
    let mut group = TaskGroup::builder()
        .deadline(Duration::from_secs(30))
        .build()
        .unwrap();
    sleep(Duration::from_secs(31)).await;
    assert_eq!(
        group.cause(),
        Some(Cause::Deadline(Duration::from_secs(30)))
    );
    group.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_with_the_group() {
    let mut group = TaskGroup::builder()
        .deadline(Duration::from_secs(30))
        .build()
        .unwrap();
    group.spawn(async { Ok(()) });
    group.wait().await.unwrap();
    let metrics = tokio::runtime::Handle::current().metrics();
    tokio::task::yield_now().await;
    assert_eq!(metrics.num_alive_tasks(), 0);
    assert_eq!(group.cause(), None);

    let dropped = TaskGroup::builder()
        .deadline(Duration::from_secs(30))
        .build()
        .unwrap();
    drop(dropped);
    tokio::task::yield_now().await;
    assert_eq!(metrics.num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_the_deadline_stays_the_first() {
    let mut group = TaskGroup::builder()
        .deadline(Duration::from_secs(30))
        .build()
        .unwrap();
    group.spawn(async { Err::<(), _>("early".into()) });
    let deaf = group.spawn(async { Ok(sleep(Duration::from_secs(60)).await) });
    let error = group.wait().await.unwrap_err();
    assert!(format!("{error:#}").ends_with("failed: early"), "{error:#}");
    assert!(matches!(group.cause(), Some(Cause::Failed(_))));
    assert!(error.suppressed()[0].is_timed_out());
    deaf.await.unwrap();
}

#[tokio::test]
async fn a_group_without_options_waits_for_ever_for_a_task_that_never_ends() {
    let mut group = TaskGroup::new();
    group.spawn(pending::<Result<(), _>>());
    let mut wait = tokio_test::task::spawn(group.wait());
    tokio_test::assert_pending!(wait.poll());
    tokio::task::yield_now().await;
    assert!(!wait.is_woken());
}
