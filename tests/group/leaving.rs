//! Rules 12 and 13: a shutdown with a grace, and a drop.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use taskgroup::{Cause, End, TaskGroup};
use tokio::time::{Instant, sleep};

use crate::fixtures::{OnDrop, hold, on_both};
use crate::support::alive::Alive;

// Rule 12.

#[tokio::test(start_paused = true)]
async fn a_shutdown_in_time_is_ok() {
    let start = Instant::now();
    let mut group = TaskGroup::new();
    let token = group.token().clone();
    group.spawn(async move {
        token.cancelled().await;
        Ok(sleep(Duration::from_secs(3)).await)
    });
    let done = tokio::spawn(async move { group.shutdown(Duration::from_secs(5)).await });
    done.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_out_of_time_aborts_and_joins_and_is_never_ok() {
    let start = Instant::now();
    let mut group = TaskGroup::new();
    let alive = Alive::default();
    for _ in 0..10 {
        group.spawn(hold::<(), _>(alive.guard()));
    }
    let done = tokio::spawn(async move { (group.shutdown(Duration::from_secs(5)).await, group) });
    let (outcome, group) = done.await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    let error = outcome.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(error.stragglers().count(), 10);
    assert!(error.still_running().is_empty());
    assert_eq!(alive.count(), 0);
    assert!(group.running().is_empty());
}

#[test]
fn a_task_that_is_always_ready_is_aborted_too() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let rounds = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&rounds);
        group.task("busy").spawn(async move {
            loop {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
            #[expect(unreachable_code, reason = "it gives the task its type")]
            Ok(())
        });
        let error = group.shutdown(Duration::ZERO).await.unwrap_err();
        assert_eq!(
            error.stragglers().iter().next().unwrap().name(),
            Some("busy")
        );
        let at_return = rounds.load(Ordering::SeqCst);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(rounds.load(Ordering::SeqCst), at_return);
    });
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_never_polled_is_aborted_too() {
    let group = TaskGroup::new();
    let polled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&polled);
    let start = Instant::now();
    group.cancel();
    // Nothing yields between this spawn and the end of a grace of zero.
    group.spawn(async move {
        counter.fetch_add(1, Ordering::SeqCst);
        pending::<Result<(), _>>().await
    });
    drop(group);
    tokio::task::yield_now().await;
    assert_eq!(polled.load(Ordering::SeqCst), 0);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_forced_shutdown_keeps_the_first_failure_and_names_the_stragglers() {
    let mut group = TaskGroup::new();
    group
        .task("disk")
        .spawn(async { Err::<(), _>("full".into()) });
    group.task("deaf").spawn(pending::<Result<(), _>>());
    tokio::task::yield_now().await;
    let error = group.shutdown(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.name(), Some("disk"));
    assert_eq!(error.end(), End::Failed);
    assert!(error.is_timed_out());
    assert_eq!(
        error.stragglers().iter().next().unwrap().name(),
        Some("deaf")
    );
}

#[tokio::test(start_paused = true)]
async fn a_grace_of_zero_aborts_at_once() {
    let start = Instant::now();
    let mut group = TaskGroup::new();
    let alive = Alive::default();
    group.spawn(hold::<(), _>(alive.guard()));
    tokio::task::yield_now().await;
    let error = group.shutdown(Duration::ZERO).await.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!((alive.count(), start.elapsed()), (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_grace_of_zero_of_an_empty_group_is_ok() {
    TaskGroup::new().shutdown(Duration::ZERO).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_grace_without_end_waits() {
    let start = Instant::now();
    let mut group = TaskGroup::new();
    let token = group.token().clone();
    group.spawn(async move {
        token.cancelled().await;
        Ok(sleep(Duration::from_secs(1_000_000)).await)
    });
    let done = tokio::spawn(async move { group.shutdown(Duration::MAX).await });
    done.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(1_000_000));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_shutdown_leaves_the_group_cancelled_and_a_second_has_a_fresh_grace() {
    let start = Instant::now();
    let mut group = TaskGroup::new();
    group.spawn(async { Ok(sleep(Duration::from_secs(4)).await) });
    let given_up = tokio::time::timeout(
        Duration::from_secs(1),
        group.shutdown(Duration::from_secs(2)),
    );
    assert!(given_up.await.is_err());
    assert!(group.is_cancelled() && !group.is_closed());
    let done = tokio::spawn(async move { group.shutdown(Duration::from_secs(4)).await });
    done.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(4));
}

#[test]
fn a_task_that_blocks_its_thread_is_named_as_still_running() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let (release, released) = mpsc::channel::<()>();
    let (started, starts) = mpsc::channel();
    let mut group = TaskGroup::new();
    let entered = runtime.enter();
    group.task("stuck").spawn(async move {
        started.send(()).unwrap();
        let _ = released.recv();
        Ok(())
    });
    drop(entered);
    starts.recv().unwrap();
    // A runtime of its own, so that the timer does not hang on the blocked worker.
    let watcher = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let error = watcher
        .block_on(group.shutdown(Duration::ZERO))
        .unwrap_err();
    assert_eq!(
        error.still_running().iter().next().unwrap().name(),
        Some("stuck")
    );
    release.send(()).unwrap();
    watcher.block_on(group.wait()).unwrap();
}

/// Blocks whoever wakes it, in the middle of the waking, until it is released.
struct Held {
    entered: mpsc::Sender<()>,
    released: Mutex<mpsc::Receiver<()>>,
}

impl Wake for Held {
    fn wake(self: Arc<Self>) {
        self.entered.send(()).unwrap();
        let _ = self.released.lock().unwrap().recv();
    }
}

/// A group with a member that no list shows: the last task of `child` is leaving, its thread is
/// held up in the waker of `child`'s wait, and it has not yet left the group above.
///
/// `then` gets the group, and what lets the thread go on.
fn with_a_member_that_is_in_no_list(
    group: impl FnOnce() -> TaskGroup,
    then: impl AsyncFnOnce(&mut TaskGroup, mpsc::Sender<()>),
) {
    let workers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let paused = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    paused.block_on(async {
        let mut group = group();
        let mut child = group.child("child");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let entered = workers.enter();
        child.task("last").spawn(async move { Ok(ended.await?) });
        drop(entered);

        let (entered, enters) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let released = Mutex::new(released);
        let waker = Waker::from(Arc::new(Held { entered, released }));
        let mut waiting = Box::pin(child.wait());
        let mut cx = Context::from_waker(&waker);
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        end.send(()).unwrap();
        enters.recv().unwrap();
        assert!(group.running().is_empty());
        then(&mut group, release).await;
    });
}

#[test]
fn a_forced_stop_is_never_ok_though_no_list_shows_a_task() {
    with_a_member_that_is_in_no_list(TaskGroup::new, async |group, release| {
        let error = group.shutdown(Duration::ZERO).await.unwrap_err();
        assert!(error.is_timed_out(), "{error}");
        release.send(()).unwrap();
    });
}

#[test]
fn a_deadline_is_a_failure_though_no_list_shows_a_task() {
    let deadline = Duration::from_secs(1);
    let build = || TaskGroup::builder().deadline(deadline).build().unwrap();
    with_a_member_that_is_in_no_list(build, async |group, release| {
        let token = group.token().clone();
        tokio::spawn(async move {
            token.cancelled().await;
            release.send(()).unwrap();
        });
        let error = group.wait().await.unwrap_err();
        assert!(error.is_timed_out(), "{error}");
    });
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_forced_takes_no_more_tasks() {
    let mut group = TaskGroup::new();
    let (spawner, refused) = (group.spawner(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&refused);
    let on_drop = OnDrop(move || {
        let late = spawner.try_spawn(async { Ok(()) });
        count.fetch_add(
            usize::from(late.is_err_and(|error| error.is_closed())),
            Ordering::SeqCst,
        );
    });
    group.spawn(async move {
        let _on_drop = on_drop;
        pending::<Result<(), _>>().await
    });
    tokio::task::yield_now().await;
    assert!(
        group
            .shutdown(Duration::ZERO)
            .await
            .unwrap_err()
            .is_timed_out()
    );
    assert_eq!(refused.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_was_forced_and_then_dropped_is_told_by_the_wait() {
    let mut group = TaskGroup::new();
    group.task("deaf").spawn(pending::<Result<(), _>>());
    tokio::task::yield_now().await;
    let mut shutdown = tokio_test::task::spawn(group.shutdown(Duration::ZERO));
    tokio_test::assert_pending!(shutdown.poll());
    drop(shutdown);
    let error = group.wait().await.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(error.stragglers().count(), 1);
}

// Rule 13.

#[test]
fn dropping_the_group_cancels_with_its_own_cause_and_aborts_everything() {
    on_both(|| async {
        let alive = Alive::default();
        let group = TaskGroup::new();
        let (spawner, token) = (group.spawner(), group.token().clone());
        let handles: Vec<_> = (0..10)
            .map(|_| group.spawn(hold::<(), _>(alive.guard())))
            .collect();
        tokio::task::yield_now().await;
        drop(group);
        assert!(token.is_cancelled());
        assert_eq!(spawner.cause(), Some(Cause::Dropped));
        for handle in handles {
            assert_eq!(handle.await.unwrap_err().end(), End::Aborted);
        }
        assert_eq!(alive.count(), 0);
    });
}

#[test]
fn a_group_dropped_while_it_is_waited_for_aborts_everything() {
    on_both(|| async {
        let alive = Alive::default();
        let mut group = TaskGroup::new();
        let handle = group.spawn(hold::<(), _>(alive.guard()));
        let waiting = tokio::spawn(async move { group.wait().await });
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert_eq!(handle.await.unwrap_err().end(), End::Aborted);
        assert_eq!(alive.count(), 0);
    });
}

#[test]
fn an_abort_reaches_tasks_that_are_just_being_parked() {
    on_both(|| async {
        for _ in 0..300 {
            let alive = Alive::default();
            let group = TaskGroup::new();
            let handles: Vec<_> = (0..8)
                .map(|_| group.spawn(hold::<(), _>(alive.guard())))
                .collect();
            drop(group);
            for handle in handles {
                assert_eq!(handle.await.unwrap_err().end(), End::Aborted);
            }
            assert_eq!(alive.count(), 0);
        }
    });
}

// One task.

#[test]
fn a_task_that_is_aborted_through_its_handle_is_joined_and_is_not_a_failure() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let alive = Alive::default();
        let (plain, named) = (
            group.spawn(hold::<(), _>(alive.guard())),
            group
                .task("named")
                .essential()
                .spawn(hold::<(), _>(alive.guard())),
        );
        let other = group.spawn(async { Ok(7) });
        tokio::task::yield_now().await;
        plain.abort();
        named.abort();
        named.abort();
        assert_eq!(plain.await.unwrap_err().end(), End::Aborted);
        assert_eq!(named.await.unwrap_err().end(), End::Aborted);
        assert_eq!(other.await, Ok(7));
        assert!(!group.is_cancelled());
        group.wait().await.unwrap();
        assert_eq!(alive.count(), 0);
    });
}

#[test]
fn an_abort_after_the_end_of_a_task_does_nothing() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        for _ in 0..100 {
            let mut task = group.spawn(async { Ok(7) });
            let value = (&mut task).await;
            task.abort();
            assert_eq!(value, Ok(7));
        }
        group.wait().await.unwrap();
    });
}

#[test]
fn an_abort_that_races_with_the_end_of_its_task_is_either() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        for _ in 0..200 {
            let task = group.spawn(async { Ok(tokio::task::yield_now().await) });
            task.abort();
            let ended = task.await.map_err(|error| error.end());
            assert!(matches!(ended, Ok(()) | Err(End::Aborted)));
        }
        group.wait().await.unwrap();
    });
}

#[tokio::test]
async fn an_aborted_task_frees_its_slot_and_its_place_in_the_queue() {
    let mut group = TaskGroup::builder().limit(1).build().unwrap();
    let first = group.spawn(pending::<Result<(), _>>());
    let second = group.spawn(pending::<Result<(), _>>());
    let third = group.spawn(async { Ok(3) });
    second.abort();
    assert_eq!(second.await.unwrap_err().end(), End::Aborted);
    first.abort();
    assert_eq!(third.await, Ok(3));
    group.wait().await.unwrap();
}

#[test]
fn a_destructor_that_panics_in_an_aborted_task_is_a_failure() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let bomb = crate::fixtures::Bomb("aborted");
        let task = group.spawn(async move {
            let _bomb = bomb;
            pending::<Result<(), _>>().await
        });
        tokio::task::yield_now().await;
        task.abort();
        assert_eq!(task.await.unwrap_err().end(), End::Aborted);
        assert_eq!(group.wait().await.unwrap_err().end(), End::Panicked);
    });
}

fn never_started(_: &taskgroup::CancellationToken) -> Result<(), taskgroup::BoxError> {
    unreachable!("it was aborted")
}

#[test]
fn a_closure_that_has_not_started_is_aborted_and_one_that_has_runs_on() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut group = TaskGroup::new();
        let (started, starts) = tokio::sync::oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        let running = group.spawn_blocking(move |_| {
            started.send(()).unwrap();
            Ok(released.recv()?)
        });
        let waiting = group.spawn_blocking(never_started);
        starts.await.unwrap();
        running.abort();
        waiting.abort();
        release.send(()).unwrap();
        assert_eq!(running.await, Ok(()));
        assert_eq!(waiting.await.unwrap_err().end(), End::Aborted);
        group.wait().await.unwrap();
    });
}
