//! Groups below groups: cancel flows down, completion and failures flow up.

use std::future::pending;
use std::time::Duration;

use taskgroup::{End, TaskGroup};
use tokio_test::{assert_pending, assert_ready};

use crate::fixtures::{Bomb, hold, on_both};
use crate::support::alive::Alive;

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
async fn an_idle_child_does_not_hold_its_parent_and_is_closed_with_it() {
    let mut group = TaskGroup::new();
    let mut child = group.child("child");
    child.spawn(async { Ok(()) }).await.unwrap();
    group.wait().await.unwrap();
    assert!(child.is_closed() && child.spawner().is_closed());
    assert_eq!(
        child.spawn(async { Ok(()) }).await.unwrap_err().end(),
        End::Skipped
    );
    child.wait().await.unwrap();
}

#[tokio::test]
async fn a_child_of_a_group_that_is_closed_later_is_closed_with_it() {
    let group = TaskGroup::new();
    let child = group.child("child");
    let below = child.child("below");
    let spawner = below.spawner();
    assert!(!below.is_closed() && !spawner.is_closed());
    group.close();
    assert!(child.is_closed() && below.is_closed() && spawner.is_closed());
    assert!(!below.is_cancelled(), "closing cancels nothing");
    // One that is made now is refused by the group at the top, so it is born closed as well.
    let late = below.child("late");
    assert!(late.is_closed() && late.is_cancelled());
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
fn a_failure_below_cancels_the_groups_above_at_once() {
    on_both(|| async {
        let mut group = TaskGroup::builder().name("orders").build().unwrap();
        let http = group.child("http");
        let below = http.child("v2");
        let token = group.token().clone();
        group.spawn(async move { Ok(token.cancelled().await) });
        below
            .task("accept")
            .spawn(async { Err::<(), _>("no descriptors".into()) });
        // The children are alive and nobody waits for them: the failure is not lost with them.
        let error = group.wait().await.unwrap_err();
        assert_eq!(error.name(), Some("orders/http/v2/accept"));
        for cancelled in [&group, &http, &below] {
            let cause = cancelled.cause().unwrap().to_string();
            assert!(cause.ends_with("failed: no descriptors"), "{cause}");
        }
    });
}

#[test]
fn a_failure_goes_to_the_first_waiter() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let mut child = group.child("child");
        child.spawn(async { Err::<(), _>("once".into()) });
        assert!(child.wait().await.is_err());
        group.wait().await.unwrap();
        assert!(group.is_cancelled());

        let mut group = TaskGroup::new();
        let mut child = group.child("child");
        child.spawn(async { Err::<(), _>("once".into()) });
        assert!(group.wait().await.is_err());
        child.wait().await.unwrap();
    });
}

#[tokio::test]
async fn failures_of_several_groups_are_in_the_order_in_which_they_happened() {
    let mut group = TaskGroup::new();
    let (left, right) = (group.child("left"), group.child("right"));
    for (group, name) in [(&right, "1"), (&group, "2"), (&left, "3"), (&right, "4")] {
        let failed = group.task(name).spawn(async { Err::<(), _>("x".into()) });
        failed.await.unwrap_err();
    }
    let error = group.wait().await.unwrap_err();
    let later: Vec<_> = error
        .suppressed()
        .iter()
        .map(|error| error.name().unwrap())
        .collect();
    assert_eq!(error.name(), Some("right/1"));
    assert_eq!(later, ["2", "left/3", "right/4"]);
}

#[test]
fn a_failure_of_a_dropped_child_is_its_parents() {
    on_both(|| async {
        let mut group = TaskGroup::builder().name("orders").build().unwrap();
        let child = group.child("http");
        let below = child.child("v2");
        let failed = below
            .task("accept")
            .spawn(async { Err::<(), _>("no descriptors".into()) });
        failed.await.unwrap_err();
        drop(below);
        drop(child);
        let error = group.wait().await.unwrap_err();
        assert_eq!(error.name(), Some("orders/http/v2/accept"));
    });
}

#[tokio::test]
async fn a_destructor_that_panics_in_a_dropped_child_is_its_parents_failure() {
    let mut group = TaskGroup::new();
    let child = group.child("child");
    let bomb = Bomb("after the owner has gone");
    child.spawn(async move {
        let _bomb = bomb;
        pending::<Result<(), _>>().await
    });
    tokio::task::yield_now().await;
    drop(child);
    let error = group.wait().await.unwrap_err();
    assert_eq!(error.end(), End::Panicked, "{error:#}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_of_a_child_that_was_forced_is_told_to_its_caller_alone() {
    let mut group = TaskGroup::new();
    let mut child = group.child("child");
    child.spawn(pending::<Result<(), _>>());
    let error = child.shutdown(Duration::from_secs(1)).await.unwrap_err();
    assert!(error.is_timed_out());
    assert!(!group.is_cancelled());
    group.wait().await.unwrap();
}

#[tokio::test]
async fn the_failure_of_a_dropped_child_is_kept_while_its_parent_makes_more_children() {
    let mut group = TaskGroup::new();
    let child = group.child("child");
    let failed = child.task("first");
    let failed = failed.spawn(async { Err::<(), _>("before the drop".into()) });
    failed.await.unwrap_err();
    let bomb = Bomb("after the drop");
    child.task("second").spawn(async move {
        let _bomb = bomb;
        pending::<Result<(), _>>().await
    });
    tokio::task::yield_now().await;
    drop(child);
    // Children that are over are forgotten when others are made, in one of the rounds.
    for _ in 0..100 {
        drop(group.child("next"));
        tokio::task::yield_now().await;
    }
    let error = group.wait().await.unwrap_err();
    assert_eq!(error.name(), Some("child/first"));
    assert_eq!(error.suppressed()[0].name(), Some("child/second"));
}

#[tokio::test(start_paused = true)]
async fn a_forced_shutdown_of_a_child_is_told_to_its_caller_while_its_parent_is_waited_for() {
    let mut group = TaskGroup::new();
    let mut child = group.child("child");
    child.task("deaf").spawn(pending::<Result<(), _>>());
    group.cancel();
    let (parent, child) = tokio::join!(group.wait(), child.shutdown(Duration::from_secs(1)));
    let error = child.unwrap_err();
    assert!(error.is_timed_out());
    let straggler = error.stragglers();
    assert_eq!(straggler.iter().next().unwrap().name(), Some("child/deaf"));
    parent.unwrap();
}

#[test]
fn a_thread_of_a_dropped_child_is_waited_for_and_named() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let child = group.child("child");
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (started, starts) = tokio::sync::oneshot::channel();
        child.spawn_blocking(move |_| {
            started.send(()).unwrap();
            let _ = released.recv();
            Ok(())
        });
        starts.await.unwrap();
        drop(child);
        let running = group.running();
        assert_eq!(running.iter().next().unwrap().group(), Some("child"));
        let mut wait = tokio_test::task::spawn(group.wait());
        assert_pending!(wait.poll());
        drop(wait);
        release.send(()).unwrap();
        group.wait().await.unwrap();
    });
}

#[tokio::test]
async fn a_group_under_the_token_alone_keeps_its_failures_to_itself() {
    let mut group = TaskGroup::new();
    let token = group.token().clone();
    group.task("supervisor").spawn(async move {
        let mut part = TaskGroup::builder().parent(&token).build()?;
        part.spawn(async { Err::<(), _>("handled".into()) });
        assert!(part.wait().await.is_err());
        assert!(!token.is_cancelled());
        Ok(())
    });
    group.wait().await.unwrap();
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
        assert_eq!(handle.await.unwrap_err().end(), End::Aborted);
    }
    assert_eq!(alive.count(), 0);
}

#[tokio::test]
async fn a_child_of_a_closed_group_is_born_closed_and_cancelled() {
    let mut group = TaskGroup::new();
    group.wait().await.unwrap();
    let mut child = group.child("late");
    assert!(child.is_closed() && child.is_cancelled());
    assert_eq!(
        child.spawn(async { Ok(()) }).await.unwrap_err().end(),
        End::Skipped
    );
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
    assert!(format!("{error:#}").contains("late"), "{error:#}");
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
async fn children_that_are_over_are_not_listed() {
    let mut group = TaskGroup::new();
    for _ in 0..1000 {
        let mut child = group.child("request");
        child.spawn(async { Ok(()) });
        assert_eq!(group.running().count(), 1);
        child.wait().await.unwrap();
        assert!(group.running().is_empty());
    }
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

fn options() -> taskgroup::group::Builder {
    TaskGroup::builder()
}

#[tokio::test]
async fn a_child_can_have_a_limit_of_its_own() {
    let mut group = options().name("orders").build().unwrap();
    let http = group.child_with(&options().name("http").limit(1)).unwrap();
    assert_eq!(http.name(), Some("orders/http"));
    let first = http.spawn(pending::<Result<(), _>>());
    assert!(http.try_spawn(async { Ok(()) }).unwrap_err().is_full());
    group.try_spawn(async { Ok(()) }).unwrap().await.unwrap();
    first.abort();
    group.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_child_can_have_a_deadline_of_its_own() {
    let mut group = TaskGroup::new();
    let deadline = Duration::from_secs(3);
    let import = options().name("import").deadline(deadline);
    let mut import = group.child_with(&import).unwrap();
    let token = import.token().clone();
    import.spawn(async move { Ok(token.cancelled().await) });
    assert!(import.wait().await.unwrap_err().is_timed_out());
    assert_eq!(import.cause(), Some(taskgroup::Cause::Deadline(deadline)));
    assert!(!group.is_cancelled());
    group.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_grace_of_a_child_is_kept_when_only_the_parent_waits() {
    let start = tokio::time::Instant::now();
    let mut group = TaskGroup::new();
    let child = options().name("child").grace(Duration::from_secs(5));
    let child = group.child_with(&child).unwrap();
    child.task("deaf").spawn(pending::<Result<(), _>>());
    group.cancel_because("the parent's cause");
    assert_eq!(child.cause(), group.cause());
    let error = group.wait().await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert_eq!(
        error.stragglers().iter().next().unwrap().name(),
        Some("child/deaf")
    );
}

#[tokio::test]
async fn an_isolated_child_keeps_its_failures() {
    let mut group = TaskGroup::new();
    let mut mails = group
        .child_with(&options().name("mails").isolated())
        .unwrap();
    let below = mails.child("smtp");
    below.spawn(async { Err::<(), _>("no such host".into()) });
    assert!(mails.wait().await.is_err());
    assert!(!group.is_cancelled());
    group.wait().await.unwrap();
}

#[tokio::test]
async fn a_failure_of_an_isolated_child_is_not_told_by_the_parents_wait() {
    let mut group = TaskGroup::new();
    let options = options().name("mails").isolated();
    let (alive, dropped) = (
        group.child_with(&options).unwrap(),
        group.child_with(&options).unwrap(),
    );
    for mails in [&alive, &dropped] {
        let failed = mails.spawn(async { Err::<(), _>("no such host".into()) });
        assert_eq!(failed.await.unwrap_err().end(), End::Failed);
    }
    drop(dropped);
    group.wait().await.unwrap();
    drop(alive);
}

#[tokio::test]
async fn an_isolated_child_is_cancelled_and_waited_for_with_its_parent() {
    let mut group = TaskGroup::new();
    let mails = group.child_with(&options().isolated()).unwrap();
    let token = mails.token().clone();
    mails.spawn(async move { Ok(token.cancelled().await) });
    let mut waiting = tokio_test::task::spawn(group.wait());
    assert_pending!(waiting.poll());
    drop(waiting);
    group.cancel_because("enough");
    assert_eq!(mails.cause(), group.cause());
    group.wait().await.unwrap();
}

#[tokio::test]
async fn a_spawner_makes_children_and_closes() {
    let mut group = options().name("orders").build().unwrap();
    let spawner = group.spawner();
    let child = spawner.child("http");
    assert_eq!(child.name(), Some("orders/http"));
    let limited = spawner.child_with(&options().limit(1)).unwrap();
    assert_eq!(limited.name(), Some("orders"));
    child.spawn(async { Err::<(), _>("up it goes".into()) });
    assert!(group.wait().await.is_err());

    let group = TaskGroup::new();
    let child = group.child("child");
    group.spawner().close();
    assert!(group.is_closed() && child.is_closed());
}

#[test]
fn a_group_in_the_middle_that_is_dropped_at_once_is_a_path_for_the_one_below() {
    on_both(|| async {
        let mut group = options().name("orders").build().unwrap();
        let v2 = group.child("http").child("v2");
        assert_eq!(v2.name(), Some("orders/http/v2"));
        assert!(!v2.is_closed() && !v2.is_cancelled());
        assert_eq!(v2.spawn(async { Ok(7) }).await, Ok(7));
        // It is waited for, and its failures go up.
        let failed = v2
            .task("accept")
            .spawn(async { Err::<(), _>("gone".into()) });
        failed.await.unwrap_err();
        assert!(group.is_cancelled());
        let error = group.wait().await.unwrap_err();
        assert_eq!(error.name(), Some("orders/http/v2/accept"));
    });
}

#[tokio::test(start_paused = true)]
async fn a_group_below_a_path_is_told_listed_and_aborted_with_the_group_above() {
    let mut group = TaskGroup::new();
    let alive = Alive::default();
    let below = group.child("a").child("b").child("c");
    let deaf = below.spawn(hold::<(), _>(alive.guard()));
    assert_eq!(
        group.running().iter().next().unwrap().group(),
        Some("a/b/c")
    );
    let error = group.shutdown(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.stragglers().count(), 1);
    assert_eq!(deaf.await.unwrap_err().end(), End::Aborted);
    assert_eq!(alive.count(), 0);
    assert!(below.is_cancelled());
}

#[test]
fn a_path_is_over_when_the_last_group_below_it_is() {
    let group = TaskGroup::new();
    let a = group.child("a");
    let spawner = a.spawner();
    let (b, c) = (a.child("b"), a.child("c"));
    drop(a);
    assert!(!spawner.is_closed());
    drop(b);
    assert!(!spawner.is_closed());
    drop(c);
    assert!(spawner.is_closed());
    assert_eq!(spawner.cause(), Some(taskgroup::Cause::Dropped));
}

#[tokio::test]
async fn a_group_with_tasks_takes_those_below_along_when_it_is_dropped() {
    let mut group = TaskGroup::new();
    let alive = Alive::default();
    let a = group.child("a");
    let b = a.child("b");
    a.spawn(hold::<(), _>(alive.guard()));
    b.spawn(hold::<(), _>(alive.guard()));
    tokio::task::yield_now().await;
    drop(a);
    assert!(b.is_cancelled() && b.is_closed());
    group.wait().await.unwrap();
    assert_eq!(alive.count(), 0);
}
