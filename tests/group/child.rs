//! Groups below groups: cancel flows down, completion and failures flow up.

use std::future::pending;
use std::time::Duration;

use taskgroup::{JoinError, TaskGroup};
use tokio_test::{assert_pending, assert_ready};

use crate::support::{Alive, hold, on_both};

#[test]
fn names_become_paths() {
    let group = TaskGroup::builder().name("orders").build().unwrap();
    let http = group.child("http");
    assert_eq!(http.name(), Some("orders/http"));
    assert_eq!(http.child("v2").name(), Some("orders/http/v2"));
    assert_eq!(TaskGroup::new().child("http").name(), Some("http"));
}

#[test]
fn cancel_flows_down_and_not_up() {
    let group = TaskGroup::new();
    let (left, right) = (group.child("left"), group.child("right"));
    let below = left.child("below");
    left.cancel();
    assert!(below.is_cancelled() && below.token().is_cancelled());
    assert!(!right.is_cancelled() && !group.is_cancelled());
    group.cancel();
    assert!(right.token().is_cancelled());
}

#[tokio::test]
async fn a_parent_waits_for_the_tasks_of_its_children() {
    let mut group = TaskGroup::new();
    let mut child = group.child("child");
    let token = child.token().clone();
    child.spawn(async move { Ok(token.cancelled().await) });
    let token = child.token().clone();
    let mut waiting = tokio_test::task::spawn(group.wait());
    assert_pending!(waiting.poll());
    token.cancel();
    child.wait().await.unwrap();
    assert!(waiting.is_woken());
    assert_ready!(waiting.poll()).unwrap();
}

#[tokio::test]
async fn a_parent_waits_until_an_idle_child_is_dropped() {
    let mut group = TaskGroup::new();
    let child = group.child("child");
    let mut waiting = tokio_test::task::spawn(group.wait());
    assert_pending!(waiting.poll());
    drop(child);
    assert!(waiting.is_woken());
    assert_ready!(waiting.poll()).unwrap();
}

#[tokio::test]
async fn a_parent_waits_for_the_tasks_of_a_dropped_child() {
    let mut group = TaskGroup::new();
    let alive = Alive::default();
    let child = group.child("child");
    child.spawn(hold::<(), _>(alive.guard()));
    tokio::task::yield_now().await;
    drop(child);
    group.wait().await.unwrap();
    assert_eq!(alive.count(), 0);
}

#[tokio::test]
async fn a_spawner_of_a_child_does_not_hold_the_parent() {
    let mut group = TaskGroup::new();
    let child = group.child("child");
    let spawner = child.spawner();
    drop(child);
    group.wait().await.unwrap();
    assert!(spawner.is_closed());
}

#[test]
fn a_failure_that_was_waited_for_is_passed_on_by_the_one_who_waited() {
    on_both(|| async {
        let mut group = TaskGroup::builder().name("orders").build().unwrap();
        let mut http = group.child("http");
        group.task("supervisor").spawn(async move {
            http.task("accept")
                .spawn(async { Err::<(), _>("no descriptors".into()) });
            assert!(http.wait().await.is_err());
            // Handled here: the parent is not told.
            Ok(())
        });
        group.wait().await.unwrap();
    });
}

#[test]
fn a_failure_that_nobody_took_is_the_parents() {
    on_both(|| async {
        let mut group = TaskGroup::builder().name("orders").build().unwrap();
        let child = group.child("http");
        let failed = child
            .task("accept")
            .spawn(async { Err::<(), _>("no descriptors".into()) });
        failed.await.unwrap_err();
        assert!(!group.is_cancelled());
        drop(child);
        let error = group.wait().await.unwrap_err();
        assert_eq!(error.name(), Some("orders/http/accept"));
        assert!(
            group
                .cause()
                .unwrap()
                .to_string()
                .contains("no descriptors")
        );
    });
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_of_the_parent_aborts_and_names_the_tasks_of_its_children() {
    let mut group = TaskGroup::builder().name("orders").build().unwrap();
    let alive = Alive::default();
    let mut http = group.child("http");
    http.task("accept").spawn(hold::<(), _>(alive.guard()));
    let waiting = tokio::spawn(async move { http.wait().await });
    let error = group.shutdown(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(alive.count(), 0);
    assert!(waiting.await.unwrap().is_ok());
    let stragglers = error.stragglers();
    assert_eq!(
        stragglers.iter().next().unwrap().name(),
        Some("orders/http/accept")
    );
    assert!(error.still_running().is_empty());
}

#[tokio::test]
async fn a_dropped_parent_aborts_the_tasks_of_its_children() {
    let group = TaskGroup::new();
    let alive = Alive::default();
    let child = group.child("child");
    let grandchild = child.child("grandchild");
    let handles = [
        child.spawn(hold::<(), _>(alive.guard())),
        grandchild.spawn(hold::<(), _>(alive.guard())),
    ];
    tokio::task::yield_now().await;
    drop(group);
    for handle in handles {
        assert_eq!(handle.await, Err(JoinError::Aborted));
    }
    assert_eq!(alive.count(), 0);
}

#[tokio::test]
async fn a_child_of_a_closed_group_is_born_closed_and_cancelled() {
    let mut group = TaskGroup::new();
    group.wait().await.unwrap();
    let mut child = group.child("late");
    assert!(child.is_closed() && child.is_cancelled());
    assert_eq!(child.spawn(async { Ok(()) }).await, Err(JoinError::Refused));
    child.wait().await.unwrap();
}

#[tokio::test]
async fn a_child_made_during_the_wait_is_waited_for() {
    let mut group = TaskGroup::new();
    let mut child = group.child("first");
    child.spawn(async { Ok(tokio::task::yield_now().await) });
    group.spawn(async move {
        let mut second = child.child("second");
        second.spawn(async { Err::<(), _>("late".into()) });
        child.wait_both(&mut second).await
    });
    let error = group.wait().await.unwrap_err();
    assert!(error.to_string().contains("late"), "{error}");
}

/// Waits for a group and one below it.
trait WaitBoth {
    async fn wait_both(&mut self, below: &mut TaskGroup) -> Result<(), taskgroup::BoxError>;
}

impl WaitBoth for TaskGroup {
    async fn wait_both(&mut self, below: &mut TaskGroup) -> Result<(), taskgroup::BoxError> {
        below.wait().await?;
        self.wait().await?;
        Ok(())
    }
}

#[tokio::test]
async fn many_short_lived_children_leave_nothing_behind() {
    let mut group = TaskGroup::new();
    for _ in 0..1000 {
        let mut child = group.child("request");
        child.spawn(async { Ok(()) });
        child.wait().await.unwrap();
    }
    assert!(group.running().is_empty());
    group.wait().await.unwrap();
}

#[tokio::test]
async fn running_shows_the_tasks_of_children_under_their_paths() {
    let group = TaskGroup::builder().name("orders").build().unwrap();
    let child = group.child("http");
    child.spawn(pending::<Result<(), _>>());
    group.task("worker").spawn(pending::<Result<(), _>>());
    let running = group.running();
    assert_eq!(running.count(), 2);
    let groups: Vec<_> = running
        .iter()
        .map(|task| task.group().unwrap().to_owned())
        .collect();
    assert_eq!(groups, ["orders", "orders/http"]);
}
