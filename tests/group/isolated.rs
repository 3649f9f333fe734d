//! Isolated tasks: a failure goes to the handle, with the error, and not to the group.

use std::future::pending;
use std::io;
use std::panic::panic_any;

use taskgroup::group::JoinError;
use taskgroup::{BoxError, End, TaskGroup};
use tokio::task::{LocalSet, yield_now};

use crate::fixtures::{Bomb, on_both};

async fn refused() -> Result<(), BoxError> {
    Err(io::Error::from(io::ErrorKind::ConnectionRefused).into())
}

#[test]
fn the_error_of_an_isolated_task_goes_to_its_handle_and_not_to_the_group() {
    on_both(|| async {
        let mut group = TaskGroup::builder().name("orders").build().unwrap();
        let token = group.token().clone();
        let sibling = group.spawn(async move { Ok(token.is_cancelled()) });
        let task = group.task("connection").isolated().spawn(refused());
        let error = task.await.unwrap().unwrap_err();
        assert_eq!(error.name(), Some("orders/connection"));
        let error = error.into_error().unwrap();
        let kind = error.downcast_ref::<io::Error>().unwrap().kind();
        assert_eq!(kind, io::ErrorKind::ConnectionRefused);
        assert!(!group.is_cancelled());
        assert_eq!(sibling.await, Ok(false));
        group.wait().await.unwrap();
    });
}

#[test]
fn the_panic_of_an_isolated_task_goes_to_its_handle() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let task = group.task("message").isolated().spawn(async {
            if true {
                panic_any(7_u8);
            }
            Ok(())
        });
        let error = task.await.unwrap().unwrap_err();
        let payload = error.into_panic().unwrap().into_payload();
        assert_eq!(payload.downcast_ref::<u8>(), Some(&7));
        group.wait().await.unwrap();
    });
}

#[test]
fn a_destructor_that_panics_in_an_isolated_task_is_its_own_failure() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let bomb = Bomb("at the end");
        let task = group.task("message").isolated().spawn(async move {
            yield_now().await;
            let _still_there = &bomb;
            Ok(())
        });
        assert_eq!(task.await.unwrap().unwrap_err().end(), End::Panicked);

        let bomb = Bomb("when it is aborted");
        let task = group.task("message").isolated().spawn(async move {
            let _bomb = bomb;
            pending::<Result<(), _>>().await
        });
        yield_now().await;
        task.abort();
        assert_eq!(task.await.unwrap_err().end(), End::Aborted);
        group.wait().await.unwrap();
    });
}

#[test]
fn the_value_of_an_isolated_task_comes_from_its_handle() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let task = group.task("message").isolated().spawn(async { Ok(7) });
        assert_eq!(task.await.unwrap().unwrap(), 7);
        group.wait().await.unwrap();
    });
}

#[tokio::test]
async fn an_isolated_task_can_be_spawned_in_every_way() {
    let mut group = TaskGroup::builder().limit(1).build().unwrap();
    let isolated = || group.task("message").isolated();
    let failed = |task: Result<Result<(), taskgroup::TaskError>, JoinError>| {
        assert_eq!(task.unwrap().unwrap_err().end(), End::Failed);
    };
    failed(isolated().try_spawn(refused()).unwrap().await);
    failed(isolated().spawn_when_ready(refused()).await.unwrap().await);
    failed(isolated().spawn_blocking(|_| Err("refused".into())).await);
    let local = LocalSet::new();
    failed(
        local
            .run_until(async { isolated().spawn_local(refused()).await })
            .await,
    );
    // And refused, with the future.
    let held = group.spawn(pending::<Result<(), _>>());
    let error = isolated().try_spawn(async { Ok(7) }).unwrap_err();
    assert_eq!(error.into_future().await.unwrap(), 7);
    held.abort();
    group.wait().await.unwrap();
}

#[tokio::test]
async fn an_essential_isolated_task_that_ends_early_tells_its_handle() {
    let mut group = TaskGroup::new();
    let task = group.task("consumer").essential().isolated();
    let error = task.spawn(async { Ok(()) }).await.unwrap().unwrap_err();
    assert_eq!(error.end(), End::EndedEarly);
    assert!(!group.is_cancelled());
    group.cancel();
    let task = group.task("consumer").essential().isolated();
    task.spawn(async { Ok(()) }).await.unwrap().unwrap();
    group.wait().await.unwrap();
}

#[tokio::test]
async fn an_isolated_task_is_a_member_like_any_other() {
    let mut group = TaskGroup::new();
    let token = group.token().clone();
    let task = group.task("message").isolated().spawn(async move {
        token.cancelled().await;
        Err::<(), _>("told".into())
    });
    assert_eq!(
        group.running().iter().next().unwrap().name(),
        Some("message")
    );
    let mut wait = tokio_test::task::spawn(group.wait());
    tokio_test::assert_pending!(wait.poll());
    drop(wait);
    group.cancel();
    group.wait().await.unwrap();
    let error = task.await.unwrap().unwrap_err().into_error().unwrap();
    assert_eq!(error.to_string(), "told");
}

#[test]
fn an_isolated_task_that_is_lost_with_its_runtime_is_not_a_failure_of_the_group() {
    let other = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut group = TaskGroup::new();
    let entered = runtime.enter();
    let task = group
        .task("message")
        .isolated()
        .spawn(pending::<Result<(), BoxError>>());
    drop(entered);
    drop(runtime);
    assert_eq!(other.block_on(task).unwrap_err().end(), End::Aborted);
    other.block_on(group.wait()).unwrap();
}
