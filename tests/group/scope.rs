//! A scope: a body that is the first member of its group.

use std::future::pending;
use std::time::Duration;

use taskgroup::{BoxError, Cancelled, Cause, End, TaskError, TaskGroup};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use tokio_test::assert_pending;

use crate::fixtures::{Bomb, OnDrop, hold, on_both};
use crate::support::alive::Alive;

#[test]
fn a_scope_returns_the_value_of_its_body_when_all_tasks_have_ended() {
    on_both(|| async {
        let alive = Alive::default();
        let value = TaskGroup::new()
            .scope(async |spawner| {
                let guard = alive.guard();
                spawner.spawn(async move {
                    yield_now().await;
                    Ok(drop(guard))
                });
                Ok(7)
            })
            .await;
        assert_eq!(value.unwrap(), 7);
        assert_eq!(alive.count(), 0);
    });
}

#[tokio::test(start_paused = true)]
async fn a_question_mark_in_the_body_cancels_and_joins_the_tasks_in_their_clean_up() {
    let (cleaned, clean) = oneshot::channel();
    let start = Instant::now();
    let outcome: Result<(), TaskError> = TaskGroup::new()
        .scope(async |spawner| {
            let token = spawner.token().clone();
            spawner.spawn(async move {
                token.cancelled().await;
                sleep(Duration::from_secs(2)).await;
                cleaned.send("cleaned up").unwrap();
                Ok(())
            });
            yield_now().await;
            "x".parse::<u16>()?;
            Ok(())
        })
        .await;
    let error = outcome.unwrap_err();
    assert_eq!(error.end(), End::Failed);
    assert!(error.into_error().unwrap().is::<std::num::ParseIntError>());
    assert_eq!(clean.await, Ok("cleaned up"));
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

#[test]
fn a_body_may_borrow() {
    on_both(|| async {
        let text = String::from("one two three");
        let mut seen = 0;
        TaskGroup::new()
            .scope(async |_| {
                for _word in text.split(' ') {
                    yield_now().await;
                    seen += 1;
                }
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!((seen, text.len()), (3, 13));
    });
}

#[tokio::test]
async fn the_body_is_told_when_a_task_fails_and_the_error_is_the_tasks() {
    let outcome: Result<(), TaskError> = TaskGroup::new()
        .scope(async |spawner| {
            spawner
                .task("disk")
                .spawn(async { Err::<(), _>("full".into()) });
            spawner.token().cancelled().await;
            Err(Cancelled.into())
        })
        .await;
    let error = outcome.unwrap_err();
    assert_eq!(error.name(), Some("disk"));
    assert!(error.suppressed().is_empty());
}

#[tokio::test]
async fn a_body_that_leaves_because_the_scope_was_cancelled_has_no_value_to_return() {
    let outcome: Result<(), TaskError> = TaskGroup::new()
        .scope(async |spawner| {
            spawner.cancel_because("enough");
            Err(Cancelled.into())
        })
        .await;
    let error = outcome.unwrap_err();
    assert_eq!(error.cause(), Some(&Cause::Requested("enough".into())));
    assert!(error.into_error().unwrap().is::<Cancelled>());
}

#[test]
fn a_panic_of_the_body_is_its_failure_and_cancels_the_tasks() {
    on_both(|| async {
        let line = line!() + 2;
        let outcome: Result<(), TaskError> = TaskGroup::new()
            .scope(async |spawner| {
                let token = spawner.token().clone();
                spawner.spawn(async move { Ok(token.cancelled().await) });
                if true {
                    panic!("in the body");
                }
                Ok(())
            })
            .await;
        let error = outcome.unwrap_err();
        assert_eq!(error.end(), End::Panicked);
        assert_eq!(
            (error.place().file(), error.place().line()),
            (file!(), line)
        );
    });
}

#[tokio::test]
async fn a_destructor_of_the_body_that_panics_is_its_failure() {
    let bomb = Bomb("at the end of the body");
    let outcome: Result<(), TaskError> = TaskGroup::new()
        .scope(async move |_| {
            yield_now().await;
            let _still_there = &bomb;
            Ok(())
        })
        .await;
    assert_eq!(outcome.unwrap_err().end(), End::Panicked);
}

#[tokio::test(start_paused = true)]
async fn a_deaf_body_is_dropped_after_the_grace() {
    let grace = Duration::from_secs(5);
    let alive = Alive::default();
    let group = TaskGroup::builder().grace(grace).build().unwrap();
    let start = Instant::now();
    let outcome: Result<(), TaskError> = group
        .scope(async |spawner| {
            spawner.cancel();
            hold(alive.guard()).await
        })
        .await;
    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!((start.elapsed(), alive.count()), (grace, 0));
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_moves_between_tasks_is_aborted_anyway() {
    let grace = Duration::from_secs(5);
    let group = TaskGroup::builder().grace(grace).build().unwrap();
    let mut scope = Box::pin(group.scope(async |spawner| {
        spawner.cancel();
        pending::<Result<(), BoxError>>().await
    }));
    // Its first poll is another task's.
    let mut first = tokio_test::task::spawn(scope.as_mut());
    assert_pending!(first.poll());
    drop(first);
    let moved = tokio::spawn(async move { scope.await.unwrap_err().is_timed_out() });
    assert!(moved.await.unwrap());
}

#[tokio::test]
async fn a_dropped_scope_aborts_its_tasks_and_its_body_sees_the_cause() {
    let alive = Alive::default();
    let mut seen = None;
    {
        let seen = &mut seen;
        let mut scope = tokio_test::task::spawn(TaskGroup::new().scope(async |spawner| {
            spawner.spawn(hold::<(), _>(alive.guard()));
            let watcher = spawner.clone();
            let _at_the_end = OnDrop(move || *seen = watcher.cause());
            pending::<Result<(), BoxError>>().await
        }));
        assert_pending!(scope.poll());
        yield_now().await;
        drop(scope);
    }
    yield_now().await;
    assert_eq!(alive.count(), 0);
    assert_eq!(seen, Some(Cause::Dropped));
}

#[tokio::test]
async fn the_body_is_listed_and_takes_no_slot() {
    let group = TaskGroup::builder().limit(1).build().unwrap();
    let outcome: Result<_, TaskError> = group
        .scope(async |spawner| {
            assert_eq!(spawner.running().count(), 1);
            let first = spawner.spawn_when_ready(async { Ok(1) }).await?.await?;
            Ok(first + spawner.spawn_when_ready(async { Ok(2) }).await?.await?)
        })
        .await;
    assert_eq!(outcome.unwrap(), 3);
}

#[tokio::test]
async fn in_a_closed_group_the_body_does_not_run() {
    let group = TaskGroup::new();
    group.close();
    let outcome: Result<(), TaskError> = group.scope(async |_| unreachable!()).await;
    assert_eq!(outcome.unwrap_err().end(), End::Aborted);
}

#[tokio::test]
async fn a_scope_can_be_a_task_of_another_group() {
    let mut group = TaskGroup::new();
    let inner = group.child("inner");
    let task = group.spawn(async move {
        let sum = inner.scope(async |spawner| Ok(spawner.spawn(async { Ok(1) }).await? + 1));
        Ok(sum.await?)
    });
    assert_eq!(task.await, Ok(2));
    group.wait().await.unwrap();
}

#[test]
fn a_scope_that_is_never_polled_runs_nothing() {
    let scope = TaskGroup::new().scope(async |_| -> Result<(), BoxError> { unreachable!() });
    drop(Box::pin(scope));
}

#[tokio::test]
async fn a_task_that_is_aborted_in_the_middle_of_its_scope_is_not_a_failure() {
    let mut group = TaskGroup::new();
    let alive = Alive::default();
    let guards = [alive.guard(), alive.guard()];
    let task = group.spawn(async move {
        let [inside, body] = guards;
        let scope = TaskGroup::new().scope(async |spawner| {
            spawner.spawn(hold::<(), _>(inside));
            hold::<(), BoxError>(body).await
        });
        Ok(scope.await?)
    });
    yield_now().await;
    task.abort();
    assert_eq!(task.await.unwrap_err().end(), End::Aborted);
    group.wait().await.unwrap();
    yield_now().await;
    assert_eq!(alive.count(), 0);
}
