//! Rule 9: a limit, and the three ways to meet it.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use taskgroup::group::SpawnError;
use taskgroup::{End, TaskGroup, TaskHandle};
use tokio::sync::{Notify, oneshot};
use tokio_test::{assert_pending, assert_ready};

use crate::fixtures::{hold, on_both};
use crate::support::alive::Alive;

fn limited(limit: usize) -> TaskGroup {
    TaskGroup::builder().limit(limit).build().unwrap()
}

/// A group with one slot, and the task that has it until `end` is sent or dropped.
fn full() -> (TaskGroup, oneshot::Sender<()>, TaskHandle<()>) {
    let group = limited(1);
    let (end, ended) = oneshot::channel();
    let first = group.spawn(async move { Ok(ended.await?) });
    (group, end, first)
}

#[test]
fn no_more_than_the_limit_run_at_once() {
    on_both(|| async {
        let mut group = limited(3);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let task = || {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        };
        for _ in 0..100 {
            group.spawn(task());
            group.spawn_when_ready(task()).await.unwrap();
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            group.spawn_blocking(move |_| {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            });
        }
        group.wait().await.unwrap();
        assert!(most.load(Ordering::SeqCst) <= 3);
        assert_eq!(running.load(Ordering::SeqCst), 0);
    });
}

#[tokio::test]
async fn spawn_queues_without_blocking_and_serves_in_order() {
    let mut group = limited(1);
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    for index in 0..100 {
        let order = Arc::clone(&order);
        group.spawn(async move {
            tokio::task::yield_now().await;
            order.lock().unwrap().push(index);
            Ok(())
        });
    }
    group.wait().await.unwrap();
    assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn try_spawn_refuses_when_all_slots_are_taken_and_takes_the_next_free_one() {
    let mut group = limited(1);
    let (end, ended) = oneshot::channel::<()>();
    let first = group.try_spawn(async move { Ok(ended.await?) }).unwrap();
    let error = group.try_spawn(async { Ok(7) }).unwrap_err();
    assert!(error.is_full() && !error.is_closed());
    assert_eq!(format!("{error:#}"), "the group is full");
    end.send(()).unwrap();
    first.await.unwrap();
    assert_eq!(group.try_spawn(error.into_future()).unwrap().await, Ok(7));
    group.wait().await.unwrap();
}

#[tokio::test]
async fn try_spawn_does_not_overtake_waiting_tasks() {
    let (mut group, end, first) = full();
    let mut second = tokio_test::task::spawn(group.spawn_when_ready(async { Ok(()) }));
    assert_pending!(second.poll());
    end.send(()).unwrap();
    first.await.unwrap();
    // The slot is free, and it is the waiting caller's.
    assert!(second.is_woken());
    assert!(group.try_spawn(async { Ok(()) }).unwrap_err().is_full());
    assert_ready!(second.poll()).unwrap();
    drop(second);
    group.wait().await.unwrap();
}

#[tokio::test]
async fn spawn_when_ready_holds_the_caller_back_until_a_slot_is_free() {
    let (mut group, end, first) = full();
    let mut second = tokio_test::task::spawn(group.spawn_when_ready(async { Ok(7) }));
    assert_pending!(second.poll());
    tokio::task::yield_now().await;
    assert_pending!(second.poll());

    end.send(()).unwrap();
    first.await.unwrap();
    assert!(second.is_woken());
    let handle = assert_ready!(second.poll()).unwrap();
    drop(second);
    assert_eq!(handle.await, Ok(7));
    group.wait().await.unwrap();
}

#[tokio::test]
async fn a_caller_that_gives_up_waiting_takes_no_slot() {
    let (mut group, end, first) = full();
    let mut given_up = tokio_test::task::spawn(group.spawn_when_ready(async { Ok(()) }));
    assert_pending!(given_up.poll());
    end.send(()).unwrap();
    first.await.unwrap();
    assert!(given_up.is_woken());
    drop(given_up);
    group.try_spawn(async { Ok(()) }).unwrap().await.unwrap();
    group.wait().await.unwrap();
}

#[test]
fn after_the_cancel_nothing_that_was_queued_starts() {
    on_both(|| async {
        let mut group = limited(1);
        let (started, starts) = oneshot::channel();
        let token = group.token().clone();
        group.spawn(async move {
            started.send(()).unwrap();
            Ok(token.cancelled().await)
        });
        starts.await.unwrap();
        let (ran, alive) = (Arc::new(AtomicUsize::new(0)), Alive::default());
        let mut handles = Vec::new();
        for index in 0..20 {
            let (ran, guard) = (Arc::clone(&ran), alive.guard());
            handles.push(if index % 2 == 0 {
                group.spawn(async move {
                    ran.fetch_add(1, Ordering::SeqCst);
                    drop(guard);
                    Ok(())
                })
            } else {
                group.spawn_blocking(move |_| {
                    ran.fetch_add(1, Ordering::SeqCst);
                    drop(guard);
                    Ok(())
                })
            });
        }
        tokio::task::yield_now().await;
        group.cancel();
        group.wait().await.unwrap();
        assert_eq!(ran.load(Ordering::SeqCst), 0);
        assert_eq!(alive.count(), 0);
        for handle in handles {
            assert_eq!(handle.await.unwrap_err().end(), End::Skipped);
        }
    });
}

#[tokio::test]
async fn after_the_cancel_a_caller_that_waits_for_a_slot_wakes() {
    let mut group = limited(1);
    let token = group.token().clone();
    group.spawn(async move { Ok(token.cancelled().await) });
    let spawner = group.spawner();
    let mut waiting = tokio_test::task::spawn(spawner.spawn_when_ready(async { Ok(7) }));
    assert_pending!(waiting.poll());
    group.cancel();
    assert!(waiting.is_woken());
    let error = assert_ready!(waiting.poll()).unwrap_err();
    assert!(error.is_cancelled());
    assert_eq!(
        format!("{error:#}"),
        "the group was cancelled before a slot was free"
    );
    assert_eq!(error.into_future().await.unwrap(), 7);
    drop(waiting);
    group.wait().await.unwrap();
}

#[tokio::test]
async fn a_group_dropped_under_a_caller_that_waits_wakes_it() {
    let group = limited(1);
    group.spawn(pending::<Result<(), _>>());
    let spawner = group.spawner();
    let mut waiting = tokio_test::task::spawn(spawner.spawn_when_ready(async { Ok(()) }));
    assert_pending!(waiting.poll());
    drop(group);
    assert!(waiting.is_woken());
    assert!(assert_ready!(waiting.poll()).is_err());
}

#[tokio::test]
async fn a_helper_may_start_after_the_cancel_if_a_slot_is_free() {
    let mut group = limited(2);
    let token = group.token().clone();
    group.spawn(async move { Ok(token.cancelled().await) });
    group.cancel();
    assert_eq!(group.spawn(async { Ok(7) }).await, Ok(7));
    group.wait().await.unwrap();
}

#[test]
fn a_slot_is_freed_however_the_task_ends() {
    on_both(|| async {
        let mut group = limited(1);
        group.spawn_when_ready(async { Ok(()) }).await.unwrap();
        group
            .spawn_when_ready(async { Ok(tokio::task::yield_now().await) })
            .await
            .unwrap();
        group
            .task("named")
            .spawn_when_ready(async { Ok(()) })
            .await
            .unwrap()
            .await
            .unwrap();
        group.spawn_blocking(|_| Ok(())).await.unwrap();
        // A panic cancels; the slot of the panicked task is free for a helper all the same.
        let panicked = group.spawn(async { if true { panic!("x") } else { Ok(()) } });
        panicked.await.unwrap_err();
        group.wait().await.unwrap_err();
    });
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_of_a_full_group_ends_the_queue_too() {
    let mut group = limited(1);
    let alive = Alive::default();
    for _ in 0..10 {
        group.spawn(hold::<(), _>(alive.guard()));
    }
    let error = group.shutdown(Duration::from_secs(1)).await.unwrap_err();
    // The nine in the queue were never stragglers: they ended at the cancel.
    assert_eq!(error.stragglers().count(), 1);
    assert_eq!(alive.count(), 0);
}

#[tokio::test]
async fn a_child_takes_no_slot_of_its_parent() {
    let mut group = limited(1);
    let mut child = group.child("child");
    let go = Arc::new(Notify::new());
    for _ in 0..3 {
        let go = Arc::clone(&go);
        child.spawn(async move { Ok(go.notified().await) });
    }
    group.try_spawn(async { Ok(()) }).unwrap().await.unwrap();
    tokio::task::yield_now().await;
    go.notify_waiters();
    child.wait().await.unwrap();
    group.wait().await.unwrap();
}

/// Spawns five tasks in each of the ways that wait in the queue, and returns the order of their start.
async fn order_of(group: &TaskGroup) -> Vec<usize> {
    let (said, mut order) = tokio::sync::mpsc::unbounded_channel();
    for index in 0..12 {
        let said = said.clone();
        match index % 3 {
            0 => drop(group.spawn(async move { Ok(said.send(index)?) })),
            1 => drop(group.spawn_blocking(move |_| Ok(said.send(index)?))),
            _ => drop(
                group
                    .task("named")
                    .spawn(async move { Ok(said.send(index)?) }),
            ),
        }
    }
    drop(said);
    let mut indices = Vec::new();
    while let Some(index) = order.recv().await {
        indices.push(index);
    }
    indices
}

#[test]
fn the_first_to_be_spawned_by_a_task_on_a_worker_is_the_first_to_run() {
    on_both(|| async {
        for _ in 0..20 {
            let mut group = limited(1);
            assert_eq!(order_of(&group).await, (0..12).collect::<Vec<_>>());
            group.wait().await.unwrap();
        }
    });
}

#[test]
fn a_local_task_keeps_its_place_in_the_queue() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut group = limited(1);
        for index in 0..10 {
            let order = Arc::clone(&order);
            let task = async move {
                order.lock().unwrap().push(index);
                Ok(tokio::task::yield_now().await)
            };
            if index % 2 == 0 {
                group.spawn_local(task);
            } else {
                group.spawn(task);
            }
        }
        group.wait().await.unwrap();
    });
    assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_task_with_no_budget_left_keeps_the_place_in_the_queue_that_it_takes() {
    let (mut group, end, _) = full();
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let task = |index| {
        let order = Arc::clone(&order);
        async move { Ok(order.lock().unwrap().push(index)) }
    };
    // Tokio lets a task do so much in one poll; here it has done all of that.
    while tokio::task::coop::has_budget_remaining() {
        tokio::task::consume_budget().await;
    }
    group.spawn(task(0));
    let mut second = tokio_test::task::spawn(group.spawn_when_ready(task(1)));
    assert_pending!(second.poll());
    group.spawn(task(2));
    end.send(()).unwrap();
    second.await.unwrap();
    group.wait().await.unwrap();
    assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
}

#[tokio::test]
async fn a_caller_that_waits_for_a_slot_keeps_its_place_before_a_later_spawn() {
    let (mut group, end, _) = full();
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let task = |index| {
        let order = Arc::clone(&order);
        async move { Ok(order.lock().unwrap().push(index)) }
    };
    let mut first = tokio_test::task::spawn(group.spawn_when_ready(task(0)));
    assert_pending!(first.poll());
    group.spawn(task(1));
    end.send(()).unwrap();
    first.await.unwrap();
    group.wait().await.unwrap();
    assert_eq!(*order.lock().unwrap(), [0, 1]);
}

#[tokio::test]
async fn a_refused_spawn_has_one_reason() {
    type Task = std::future::Ready<Result<(), taskgroup::BoxError>>;
    let reasons = |error: &SpawnError<Task>| {
        let is = (error.is_full(), error.is_closed());
        [is.0, is.1, error.is_cancelled(), error.is_deadlock()]
    };
    let ready = || std::future::ready(Ok(()));
    let (group, _end, _) = full();
    let full = group.try_spawn(ready()).unwrap_err();
    assert_eq!(reasons(&full), [true, false, false, false]);
    let spawner = group.spawner();
    let mut waiting = tokio_test::task::spawn(spawner.spawn_when_ready(ready()));
    assert_pending!(waiting.poll());
    group.cancel();
    let cancelled = assert_ready!(waiting.poll()).unwrap_err();
    assert_eq!(reasons(&cancelled), [false, false, true, false]);
    group.close();
    let closed = group.try_spawn(ready()).unwrap_err();
    assert_eq!(reasons(&closed), [false, true, false, false]);
}

#[tokio::test]
async fn a_close_wakes_and_refuses_a_caller_that_waits_for_a_slot() {
    let (mut group, end, _) = full();
    let spawner = group.spawner();
    let mut waiting = tokio_test::task::spawn(spawner.spawn_when_ready(async { Ok(7) }));
    assert_pending!(waiting.poll());
    group.close();
    assert!(waiting.is_woken());
    let error = assert_ready!(waiting.poll()).unwrap_err();
    assert!(error.is_closed() && !error.is_cancelled());
    assert_eq!(error.into_future().await.unwrap(), 7);
    end.send(()).unwrap();
    group.wait().await.unwrap();
}

#[tokio::test]
async fn spawn_when_ready_into_a_closed_full_group_returns_at_once() {
    let (mut group, end, _) = full();
    group.close();
    let mut refused = tokio_test::task::spawn(group.spawn_when_ready(async { Ok(()) }));
    assert!(assert_ready!(refused.poll()).unwrap_err().is_closed());
    end.send(()).unwrap();
    drop(refused);
    group.wait().await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_wait_refuses_a_caller_behind_one_that_does_not_take_its_slot() {
    let mut group = limited(1);
    let spawner = group.spawner();
    let (end, ended) = oneshot::channel::<()>();
    group.spawn(async move { Ok(ended.await?) });
    let mut idle = tokio_test::task::spawn(spawner.spawn_when_ready(async { Ok(()) }));
    let mut behind = tokio_test::task::spawn(spawner.spawn_when_ready(async { Ok(()) }));
    assert_pending!(idle.poll());
    assert_pending!(behind.poll());
    end.send(()).unwrap();
    group.wait().await.unwrap();
    assert!(behind.is_woken());
    assert!(assert_ready!(behind.poll()).unwrap_err().is_closed());
}

#[test]
fn a_close_lets_those_run_that_are_in_the_queue() {
    on_both(|| async {
        let mut group = limited(1);
        let handles: Vec<_> = (0..5)
            .map(|index| group.spawn(async move { Ok(index) }))
            .collect();
        group.close();
        for (index, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.await, Ok(index));
        }
        group.wait().await.unwrap();
    });
}

#[test]
fn a_task_that_waits_for_a_slot_of_its_own_full_group_is_refused() {
    on_both(|| async {
        let mut group = limited(1);
        let spawner = group.spawner();
        let task = group.spawn(async move {
            let error = spawner.spawn_when_ready(async { Ok(7) }).await.unwrap_err();
            assert!(error.is_deadlock());
            assert_eq!(
                error.to_string(),
                "each slot of the group is held by a task that waits for a slot: it would wait for itself"
            );
            // It gives the future back, so that the task can do the work itself.
            error.into_future().await
        });
        assert_eq!(task.await, Ok(7));
        group.wait().await.unwrap();
    });
}

#[tokio::test]
async fn a_thread_that_waits_for_a_slot_of_its_own_full_group_is_refused() {
    let mut group = limited(1);
    let spawner = group.spawner();
    let runtime = tokio::runtime::Handle::current();
    let closure = group.spawn_blocking(move |_| {
        let waited = runtime.block_on(spawner.spawn_when_ready(async { Ok(()) }));
        Ok(waited.unwrap_err().is_deadlock())
    });
    assert_eq!(closure.await, Ok(true));
    group.wait().await.unwrap();
}

#[tokio::test]
async fn the_last_of_the_tasks_that_all_wait_for_a_slot_of_their_group_is_refused() {
    let mut group = limited(2);
    let (begin, begun) = oneshot::channel::<()>();
    let spawner = group.spawner();
    let first = group.spawn(async move {
        let below = spawner.spawn_when_ready(async { Ok("below the first") });
        let (begin, below) = (begin, tokio_test::task::spawn(below));
        // Its wait is under way before the other one begins.
        let mut below = below;
        assert_pending!(below.poll());
        begin.send(()).unwrap();
        Ok(below.await?.await?)
    });
    let spawner = group.spawner();
    let second = group.spawn(async move {
        begun.await?;
        let refused = spawner.spawn_when_ready(async { Ok(()) }).await;
        assert!(refused.unwrap_err().is_deadlock());
        Ok("ended instead")
    });
    assert_eq!(second.await, Ok("ended instead"));
    assert_eq!(first.await, Ok("below the first"));
    group.wait().await.unwrap();
}

#[tokio::test]
async fn a_task_that_waits_for_two_slots_counts_once() {
    let mut group = limited(2);
    let (end, ended) = oneshot::channel::<()>();
    group.spawn(async move { Ok(ended.await?) });
    let spawner = group.spawner();
    let both = group.spawn(async move {
        let mut one = tokio_test::task::spawn(spawner.spawn_when_ready(async { Ok(1) }));
        let mut two = tokio_test::task::spawn(spawner.spawn_when_ready(async { Ok(2) }));
        assert_pending!(one.poll());
        assert_pending!(two.poll());
        end.send(()).unwrap();
        Ok((one.await?.await?, two.await?.await?))
    });
    assert_eq!(both.await, Ok((1, 2)));
    group.wait().await.unwrap();
}

#[tokio::test]
async fn a_task_of_another_group_that_waits_for_a_slot_does_not_wait_for_itself() {
    let (mut full, mut other) = (limited(1), limited(1));
    let (end, ended) = oneshot::channel::<()>();
    full.spawn(async move { Ok(ended.await?) });
    let spawner = full.spawner();
    let waiting = other.spawn(async move {
        let mut slot = tokio_test::task::spawn(spawner.spawn_when_ready(async { Ok(7) }));
        assert_pending!(slot.poll());
        end.send(()).unwrap();
        Ok(slot.await?.await?)
    });
    assert_eq!(waiting.await, Ok(7));
    other.wait().await.unwrap();
    full.wait().await.unwrap();
}

#[tokio::test]
async fn a_close_of_the_group_above_wakes_a_caller_that_waits_for_a_slot_below() {
    let mut group = TaskGroup::new();
    let (end, ended) = oneshot::channel::<()>();
    let below = group.child_with(&TaskGroup::builder().limit(1)).unwrap();
    below.spawn(async move { Ok(ended.await?) });
    let mut waiting = tokio_test::task::spawn(below.spawn_when_ready(async { Ok(()) }));
    assert_pending!(waiting.poll());
    group.close();
    assert!(waiting.is_woken());
    assert!(assert_ready!(waiting.poll()).unwrap_err().is_closed());
    end.send(()).unwrap();
    drop(waiting);
    group.wait().await.unwrap();
}
