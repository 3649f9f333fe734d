//! Rules 7, 8 and 10: which tasks are accepted, which are refused, and on what thread.

use std::future::pending;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use taskgroup::{End, TaskGroup};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::fixtures::{OnDrop, hold, on_both};
use crate::support::alive::Alive;

// Rule 7.

#[test]
fn a_dropped_handle_loses_nothing() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        drop(group.spawn(async {
            tokio::task::yield_now().await;
            Err::<(), _>("told all the same".into())
        }));
        let error = group.wait().await.unwrap_err();
        assert!(format!("{error:#}").ends_with("failed: told all the same"));
    });
}

#[tokio::test]
async fn a_task_is_a_member_before_it_is_polled() {
    let group = TaskGroup::new();
    group.spawn(async { Ok(()) });
    assert_eq!(group.running().count(), 1);
}

#[tokio::test]
async fn a_value_that_nobody_awaits_is_dropped_when_the_task_has_ended() {
    let alive = Alive::default();
    let mut group = TaskGroup::new();
    let guard = alive.guard();
    drop(group.spawn(async move { Ok(guard) }));
    tokio::task::yield_now().await;
    assert_eq!(alive.count(), 0);
    group.wait().await.unwrap();
}

#[tokio::test]
async fn a_handle_gives_the_value_also_after_the_wait() {
    let mut group = TaskGroup::new();
    let handle = group.spawn(async { Ok(vec![1, 2, 3]) });
    group.wait().await.unwrap();
    assert!(handle.is_finished());
    assert_eq!(handle.await.unwrap(), [1, 2, 3]);
}

#[tokio::test]
async fn a_handle_tells_why_there_is_no_value() {
    let mut group = TaskGroup::new();
    let failed = group.spawn(async { Err::<(), _>("x".into()) });
    let panicked = group.spawn(async { if true { panic!("x") } else { Ok(()) } });
    let aborted = group.spawn(pending::<Result<(), _>>());
    tokio::task::yield_now().await;
    group.shutdown(Duration::ZERO).await.unwrap_err();
    assert_eq!(failed.await.unwrap_err().end(), End::Failed);
    assert_eq!(panicked.await.unwrap_err().end(), End::Panicked);
    assert_eq!(aborted.await.unwrap_err().end(), End::Aborted);
    assert_eq!(
        group.spawn(async { Ok(()) }).await.unwrap_err().end(),
        End::Skipped
    );
}

#[tokio::test]
async fn a_handle_can_be_awaited_by_reference_in_a_race() {
    let mut group = TaskGroup::new();
    let (send, receive) = oneshot::channel();
    let mut handle = group.spawn(async move { Ok(receive.await?) });
    tokio::select! {
        biased;
        _ = &mut handle => panic!("the task has nothing to give yet"),
        () = tokio::task::yield_now() => {}
    }
    send.send(7).unwrap();
    assert_eq!(handle.await, Ok(7));
    group.wait().await.unwrap();
}

// Rule 8.

#[test]
fn a_task_spawned_after_the_cancel_is_born_cancelled_and_waited_for() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        group.cancel();
        let token = group.token().clone();
        let ran = group.spawn(async move {
            tokio::task::yield_now().await;
            Ok(token.is_cancelled())
        });
        group.wait().await.unwrap();
        assert_eq!(ran.await, Ok(true));
    });
}

#[test]
fn a_task_that_is_finishing_its_work_may_spawn_helpers() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let helped = Arc::new(AtomicUsize::new(0));
        let (spawner, token) = (group.spawner(), group.token().clone());
        let counter = Arc::clone(&helped);
        group.spawn(async move {
            token.cancelled().await;
            for _ in 0..10 {
                let counter = Arc::clone(&counter);
                spawner.spawn(async move {
                    tokio::task::yield_now().await;
                    counter.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                });
            }
            Ok(())
        });
        group.cancel();
        group.wait().await.unwrap();
        assert_eq!(helped.load(Ordering::SeqCst), 10);
    });
}

#[tokio::test]
async fn a_closed_group_refuses_and_drops_the_future_unpolled() {
    let mut group = TaskGroup::new();
    let keeps_running = group.spawn(async { Ok(tokio::task::yield_now().await) });
    group.close();
    assert!(group.is_closed());

    let (polled, alive) = (Arc::new(AtomicBool::new(false)), Alive::default());
    let (flag, guard) = (Arc::clone(&polled), alive.guard());
    let handle = group.spawn(async move {
        flag.store(true, Ordering::SeqCst);
        drop(guard);
        Ok(())
    });
    assert_eq!(alive.count(), 0);
    assert!(handle.is_finished());
    assert_eq!(handle.await.unwrap_err().end(), End::Skipped);
    assert!(!polled.load(Ordering::SeqCst));

    group.wait().await.unwrap();
    assert_eq!(keeps_running.await, Ok(()));
}

#[tokio::test]
async fn after_the_wait_has_returned_spawning_is_refused() {
    let mut group = TaskGroup::new();
    let spawner = group.spawner();
    group.wait().await.unwrap();
    assert_eq!(
        group.spawn(async { Ok(()) }).await.unwrap_err().end(),
        End::Skipped
    );
    assert_eq!(
        spawner
            .task("late")
            .spawn(async { Ok(()) })
            .await
            .unwrap_err()
            .end(),
        End::Skipped
    );
    assert_eq!(
        spawner.spawn_blocking(|_| Ok(())).await.unwrap_err().end(),
        End::Skipped
    );
    group.wait().await.unwrap();
}

#[tokio::test]
async fn after_the_owner_is_gone_spawning_is_refused() {
    let group = TaskGroup::new();
    let spawner = group.spawner();
    drop(group);
    assert_eq!(
        spawner.spawn(async { Ok(()) }).await.unwrap_err().end(),
        End::Skipped
    );
}

#[tokio::test]
async fn try_spawn_gives_the_future_back() {
    let mut group = TaskGroup::new();
    group.close();
    let error = group.try_spawn(async { Ok(7) }).unwrap_err();
    assert!(error.is_closed());
    assert_eq!(format!("{error:#}"), "the group is closed");
    assert_eq!(error.into_future().await.unwrap(), 7);
    let error = group.spawn_when_ready(async { Ok(8) }).await.unwrap_err();
    assert!(error.is_closed());
    assert_eq!(error.into_future().await.unwrap(), 8);
    group.wait().await.unwrap();
}

#[test]
fn a_spawn_that_races_with_the_end_of_the_wait_is_waited_for_or_refused() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    for _ in 0..300 {
        let mut group = TaskGroup::new();
        let (spawner, runtime_handle) = (group.spawner(), runtime.handle().clone());
        let (accepted, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let ended_in_tasks = Arc::clone(&ended);
        let accepted_by_thread = Arc::clone(&accepted);
        let racer = std::thread::spawn(move || {
            let _entered = runtime_handle.enter();
            for _ in 0..1_000_000 {
                let ended = Arc::clone(&ended_in_tasks);
                let task = async move {
                    ended.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                };
                if spawner.try_spawn(task).is_err() {
                    break;
                }
                accepted_by_thread.fetch_add(1, Ordering::SeqCst);
            }
            // Whatever was accepted had ended when the wait returned, and nothing came after it.
        });
        runtime.block_on(group.wait()).unwrap();
        let ended_at_return = ended.load(Ordering::SeqCst);
        racer.join().unwrap();
        assert_eq!(ended_at_return, ended.load(Ordering::SeqCst));
        assert_eq!(ended_at_return, accepted.load(Ordering::SeqCst));
    }
}

#[test]
fn a_spawner_in_a_task_of_its_own_group_keeps_nothing_alive() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let spawner = group.spawner();
        group.spawn(async move {
            drop(spawner.clone());
            Ok(())
        });
        group.wait().await.unwrap();
    });
}

// Rule 10.

#[test]
fn a_blocking_closure_gets_a_token_to_look_at_and_is_waited_for() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let (started, starts) = oneshot::channel();
        let handle = group.spawn_blocking(move |token| {
            started.send(()).unwrap();
            let mut rounds = 0_u64;
            while !token.is_cancelled() {
                rounds += 1;
                std::thread::yield_now();
            }
            Ok(rounds)
        });
        starts.await.unwrap();
        group.cancel();
        group.wait().await.unwrap();
        assert!(handle.await.is_ok());
    });
}

#[test]
fn a_blocking_closure_that_fails_or_panics_cancels_the_group() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        group
            .task("reader")
            .spawn_blocking(|_| Err::<(), _>("no such file".into()));
        let error = group.wait().await.unwrap_err();
        assert!(
            format!("{error:#}").starts_with("task `reader` ("),
            "{error:#}"
        );
        assert!(
            format!("{error:#}").ends_with("failed: no such file"),
            "{error}"
        );

        let mut group = TaskGroup::new();
        let handle = group.spawn_blocking(|_| if true { panic!("bad block") } else { Ok(()) });
        assert!(format!("{:#}", group.wait().await.unwrap_err()).ends_with("panicked: bad block"));
        assert_eq!(handle.await.unwrap_err().end(), End::Panicked);
    });
}

#[test]
fn a_shutdown_cannot_end_a_blocking_closure_but_names_it() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let (release, released) = mpsc::channel::<()>();
        let (started, starts) = oneshot::channel();
        group.task("import").spawn_blocking(move |_| {
            started.send(()).unwrap();
            let _ = released.recv();
            Ok(())
        });
        starts.await.unwrap();
        let error = group.shutdown(Duration::ZERO).await.unwrap_err();
        assert!(error.is_timed_out());
        let still_running = error.still_running();
        let import = still_running.iter().next().unwrap();
        assert_eq!(import.name(), Some("import"));
        assert!(import.is_blocking());
        assert!(
            error
                .to_string()
                .contains("; still running: 1 task: `import` ("),
            "{error}"
        );
        assert!(group.is_closed());

        // It is still a member: a wait waits for it, and has nothing more to tell.
        release.send(()).unwrap();
        group.wait().await.unwrap();
        assert!(group.running().is_empty());
    });
}

#[test]
fn a_blocking_closure_that_has_not_started_when_the_group_is_dropped_never_starts() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let group = TaskGroup::new();
        let (release, released) = mpsc::channel::<()>();
        let occupied = tokio::task::spawn_blocking(move || released.recv());
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        let handle = group.spawn_blocking(move |_| Ok(flag.store(true, Ordering::SeqCst)));
        drop(group);
        release.send(()).unwrap();
        occupied.await.unwrap().unwrap();
        assert_eq!(handle.await.unwrap_err().end(), End::Aborted);
        assert!(!ran.load(Ordering::SeqCst));
    });
}

#[test]
fn a_local_task_is_a_member_like_any_other() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let mut group = TaskGroup::new();
        let shared = Rc::new(7);
        let theirs = Rc::clone(&shared);
        let value = group.spawn_local(async move {
            tokio::task::yield_now().await;
            Ok(*theirs)
        });
        assert_eq!(value.await, Ok(7));
        group
            .task("local")
            .spawn_local(async { Err::<(), _>("not here".into()) });
        let error = group.wait().await.unwrap_err();
        assert_eq!(error.name(), Some("local"));
        assert_eq!(Rc::strong_count(&shared), 1);
    });
}

#[test]
fn a_local_task_is_aborted_with_its_group() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let alive = Alive::default();
        let group = TaskGroup::new();
        let handle = group.spawn_local(hold::<(), _>(alive.guard()));
        tokio::task::yield_now().await;
        drop(group);
        assert_eq!(handle.await.unwrap_err().end(), End::Aborted);
        assert_eq!(alive.count(), 0);
    });
}

#[test]
#[should_panic(expected = "there is no reactor running")]
fn spawning_outside_of_a_runtime_panics() {
    TaskGroup::new().spawn(async { Ok(()) });
}

// Rule 16.

#[test]
fn destructors_may_use_the_group() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let spawner = group.spawner();
        let ran = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&ran);
        let on_drop = OnDrop(move || {
            spawner.cancel_because("from a destructor");
            assert!(spawner.cause().is_some());
            assert!(spawner.running().count() > 0);
            let counter = Arc::clone(&counter);
            spawner.task("from a destructor").spawn(async move {
                counter.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
        });
        group.task("with a destructor").spawn(async move {
            let _on_drop = on_drop;
            tokio::task::yield_now().await;
            Ok(())
        });
        group.wait().await.unwrap();
        assert_eq!(ran.load(Ordering::SeqCst), 1);
    });
}
