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

#[tokio::test(start_paused = true)]
async fn a_deadline_of_zero_is_a_group_that_is_over_its_deadline() {
    let mut group = TaskGroup::builder()
        .name("import")
        .deadline(Duration::ZERO)
        .build()
        .unwrap();
    assert!(group.token().is_cancelled());
    assert_eq!(group.cause(), Some(Cause::Deadline(Duration::ZERO)));
    // Born cancelled, waited for, and late.
    let token = group.token().clone();
    let task = group.spawn(async move { Ok(token.is_cancelled()) });
    assert_eq!(task.await, Ok(true));
    let error = group.wait().await.unwrap_err();
    assert!(error.is_timed_out());
    let message = error.to_string();
    assert!(
        message.ends_with("passed its deadline of 0s before its first task"),
        "{message}"
    );
    group.wait().await.unwrap();
}

#[test]
fn a_deadline_of_zero_needs_no_runtime() {
    let options = TaskGroup::builder().deadline(Duration::ZERO);
    let group = options.build().unwrap();
    assert_eq!(group.cause(), Some(Cause::Deadline(Duration::ZERO)));
}

#[tokio::test(start_paused = true)]
async fn a_passed_deadline_is_not_a_failure_if_nothing_was_spawned() {
    let mut group = TaskGroup::builder()
        .deadline(Duration::ZERO)
        .build()
        .unwrap();
    group.wait().await.unwrap();
    assert_eq!(group.cause(), Some(Cause::Deadline(Duration::ZERO)));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passed_before_the_first_task_makes_the_task_late() {
    for below in [false, true] {
        let mut group = TaskGroup::builder()
            .deadline(Duration::from_secs(1))
            .build()
            .unwrap();
        sleep(Duration::from_secs(2)).await;
        if below {
            group.child("below").task("late").spawn(async { Ok(()) });
        } else {
            group.task("late").spawn(async { Ok(()) });
        }
        assert!(group.wait().await.unwrap_err().is_timed_out());
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_at_the_deadline_wins_over_it() {
    let deadline = Duration::from_secs(30);
    let mut group = TaskGroup::builder().deadline(deadline).build().unwrap();
    let start = Instant::now();
    // The timer of the deadline is the older one, so it fires first.
    let task = group.spawn(async move { Ok(sleep(deadline).await) });
    task.await.unwrap();
    assert_eq!(start.elapsed(), deadline);
    group.token().cancelled().await;
    assert_eq!(group.cause(), Some(Cause::Deadline(deadline)));
    group.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_at_the_end_of_the_grace_wins_over_it() {
    let grace = Duration::from_secs(5);
    let mut group = TaskGroup::builder().grace(grace).build().unwrap();
    let token = group.token().clone();
    group.spawn(async move {
        token.cancelled().await;
        Ok(sleep(grace).await)
    });
    tokio::task::yield_now().await;
    group.cancel();
    let start = Instant::now();
    let waited = tokio::spawn(async move { group.wait().await });
    waited.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), grace);
}

#[test]
fn a_group_has_one_parent() {
    let token = CancellationToken::new();
    let options = TaskGroup::builder().name("http").parent(&token);
    let error = TaskGroup::new().child_with(&options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "group `http`: `parent` cannot be set: it is made below another group, and can have one parent"
    );
}

#[test]
fn a_group_below_no_other_one_is_not_isolated() {
    let error = TaskGroup::builder().isolated().build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "a group without a name: `isolated` cannot be set: it is below no other group, and its failures are its own anyhow"
    );
}

#[tokio::test]
async fn a_builder_makes_groups_of_one_type_of_error_and_of_reports() {
    let options = TaskGroup::builder().name("import");
    let mut typed = options.build_typed().unwrap();
    typed.spawn(async { "x".parse::<u8>() });
    let error = typed.wait().await.unwrap_err();
    assert_eq!(error.into_error().unwrap(), "x".parse::<u8>().unwrap_err());

    let mut reports = options.build_reports().unwrap();
    assert_eq!(reports.name(), Some("import"));
    reports.spawn(async { Err::<(), _>(anyhow::anyhow!("no table")) });
    let error = reports.wait().await.unwrap_err();
    assert_eq!(error.error().unwrap().to_string(), "no table");
}
