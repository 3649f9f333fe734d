//! A runtime that goes away under the group, and other threads.

use std::future::pending;
use std::sync::mpsc;
use std::time::Duration;

use taskgroup::{Cause, End, TaskGroup};
use tokio::runtime::{Builder, Runtime};

use crate::fixtures::hold;
use crate::support::alive::Alive;

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn spawn_on<R>(runtime: &Runtime, spawn: impl FnOnce() -> R) -> R {
    let _entered = runtime.enter();
    spawn()
}

#[test]
fn tasks_lost_with_their_runtime_are_a_failure() {
    for runtime in [current_thread(), multi_thread()] {
        let alive = Alive::default();
        let mut group = TaskGroup::new();
        let handle = spawn_on(&runtime, || group.spawn(hold::<(), _>(alive.guard())));
        drop(runtime);
        assert_eq!(alive.count(), 0);
        let error = current_thread().block_on(group.wait()).unwrap_err();
        assert_eq!(error.end(), End::Aborted);
        assert_eq!(
            current_thread().block_on(handle).unwrap_err().end(),
            End::Aborted
        );
    }
}

#[test]
fn tasks_lost_with_their_runtime_after_the_cancel_are_a_failure() {
    for runtime in [current_thread(), multi_thread()] {
        let mut group = TaskGroup::new();
        let token = group.token().clone();
        let (flushing, flushes) = mpsc::channel();
        let flush = async move {
            token.cancelled().await;
            flushing.send(()).unwrap();
            pending::<Result<(), _>>().await
        };
        spawn_on(&runtime, || group.task("flush").spawn(flush));
        group.cancel();
        runtime.block_on(tokio::task::yield_now());
        flushes.recv().unwrap();
        drop(runtime);
        let error = current_thread().block_on(group.wait()).unwrap_err();
        assert_eq!(error.end(), End::Aborted, "{error:#}");
        assert_eq!(error.name(), Some("flush"));
        assert_eq!(
            group.cause(),
            Some(Cause::Requested(taskgroup::group::StopRequest::default()))
        );
    }
}

#[test]
fn tasks_that_never_got_a_slot_are_not_lost_with_their_runtime_after_the_cancel() {
    let runtime = current_thread();
    let mut group = TaskGroup::builder().limit(1).build().unwrap();
    spawn_on(&runtime, || {
        group.task("runs").spawn(pending::<Result<(), _>>());
        group.task("queued").spawn(pending::<Result<(), _>>());
        group.task("thread").spawn_blocking(|_| Ok(()));
    });
    runtime.block_on(tokio::task::yield_now());
    group.cancel();
    drop(runtime);
    let error = current_thread().block_on(group.wait()).unwrap_err();
    assert_eq!(error.name(), Some("runs"));
    assert!(error.suppressed().is_empty(), "{error:?}");
}

#[test]
fn tasks_that_were_aborted_are_not_lost_with_their_runtime() {
    let runtime = current_thread();
    let group = TaskGroup::new();
    let mut child = group.child("child");
    spawn_on(&runtime, || child.spawn(pending::<Result<(), _>>()));
    runtime.block_on(tokio::task::yield_now());
    // Aborted, but never polled again.
    drop(group);
    drop(runtime);
    current_thread().block_on(child.wait()).unwrap();
}

#[test]
fn a_group_outlives_its_runtime_without_a_panic() {
    for runtime in [current_thread(), multi_thread()] {
        let alive = Alive::default();
        let group = TaskGroup::new();
        let child = group.child("child");
        runtime.block_on(async {
            group.spawn(hold::<(), _>(alive.guard()));
            child.spawn(hold::<(), _>(alive.guard()));
            tokio::task::yield_now().await;
        });
        drop(runtime);
        drop(child);
        drop(group);
        assert_eq!(alive.count(), 0);
    }
}

#[test]
fn a_group_dropped_by_its_runtime_aborts_without_a_panic() {
    for runtime in [current_thread(), multi_thread()] {
        let alive = Alive::default();
        let mut group = TaskGroup::new();
        let guard = alive.guard();
        runtime.spawn(async move {
            group.spawn(hold::<(), _>(guard));
            group.wait().await
        });
        runtime.block_on(tokio::task::yield_now());
        drop(runtime);
        assert_eq!(alive.count(), 0);
    }
}

#[test]
fn spawning_on_a_runtime_that_is_shutting_down_is_a_lost_task() {
    let runtime = current_thread();
    let handle = runtime.handle().clone();
    drop(runtime);
    let mut group = TaskGroup::new();
    let entered = handle.enter();
    let lost = group.spawn(async { Ok(()) });
    drop(entered);
    let other = current_thread();
    assert_eq!(
        other.block_on(group.wait()).unwrap_err().end(),
        End::Aborted
    );
    assert_eq!(other.block_on(lost).unwrap_err().end(), End::Aborted);
}

#[test]
fn a_group_may_be_cancelled_and_asked_from_a_thread_without_a_runtime() {
    let runtime = multi_thread();
    let mut group = TaskGroup::new();
    let token = group.token().clone();
    let server = async move { Ok(token.cancelled().await) };
    spawn_on(&runtime, || group.task("server").spawn(server));
    let spawner = group.spawner();
    let thread = std::thread::spawn(move || {
        assert_eq!(spawner.running().count(), 1);
        spawner.cancel();
    });
    thread.join().unwrap();
    runtime.block_on(group.wait()).unwrap();
}

#[test]
fn one_group_may_have_tasks_on_two_runtimes() {
    let (first, second) = (multi_thread(), current_thread());
    let mut group = TaskGroup::new();
    let alive = Alive::default();
    spawn_on(&first, || group.spawn(hold::<(), _>(alive.guard())));
    second.block_on(async {
        group.spawn(hold::<(), _>(alive.guard()));
        let error = group.shutdown(Duration::ZERO).await.unwrap_err();
        assert_eq!(error.stragglers().count(), 2);
        assert!(error.still_running().is_empty());
    });
    assert_eq!(alive.count(), 0);
}
