//! Rule 18: the values of tasks whose handles were dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use taskgroup::{End, TaskGroup};
use tokio_test::{assert_pending, assert_ready};

use crate::fixtures::{Bomb, OnDrop, on_both};
use crate::support::alive::Alive;

#[test]
fn a_wait_returns_after_the_value_of_a_dropped_handle_was_dropped() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let (dropping, drops) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let mut group = TaskGroup::new();
    let entered = runtime.enter();
    drop(group.spawn(async move {
        Ok(OnDrop(move || {
            dropping.send(()).unwrap();
            let _ = released.recv();
        }))
    }));
    drop(entered);
    drops.recv().unwrap();
    let mut wait = tokio_test::task::spawn(group.wait());
    assert_pending!(wait.poll(), "the value is being dropped");
    release.send(()).unwrap();
    runtime.block_on(wait).unwrap();
}

#[test]
fn a_value_of_a_dropped_handle_that_panics_as_it_is_dropped_is_a_failure() {
    on_both(|| async {
        let mut group = TaskGroup::builder().limit(1).build().unwrap();
        drop(group.task("task").spawn(async { Ok(Bomb("in the value")) }));
        drop(
            group
                .task("queued")
                .spawn(async { Ok(Bomb("in the value")) }),
        );
        let error = group.wait().await.unwrap_err();
        assert_eq!(error.name(), Some("task"));
        assert!(
            format!("{error:#}").ends_with(" panicked: in the value"),
            "{error}"
        );

        let mut group = TaskGroup::new();
        drop(
            group
                .task("thread")
                .spawn_blocking(|_| Ok(Bomb("in the value"))),
        );
        let error = group.wait().await.unwrap_err();
        assert_eq!(error.name(), Some("thread"));
        assert_eq!(error.end(), End::Panicked);
    });
}

#[tokio::test]
async fn a_handle_that_is_dropped_after_the_end_drops_the_value_itself() {
    let alive = Alive::default();
    let mut group = TaskGroup::new();
    let guard = alive.guard();
    let handle = group.spawn(async move { Ok(guard) });
    let armed = group.spawn(async { Ok(Bomb("for whoever drops the handle")) });
    group.wait().await.unwrap();
    assert_eq!(alive.count(), 1, "the handle may still be awaited");
    drop(handle);
    assert_eq!(alive.count(), 0);
    let dropped = std::panic::AssertUnwindSafe(|| drop(armed));
    assert!(std::panic::catch_unwind(dropped).is_err());
}

#[tokio::test]
async fn a_value_comes_back_from_every_way_to_spawn() {
    let group = TaskGroup::builder().limit(1).build().unwrap();
    let text = || String::from("a value with a destructor");
    let first = group.spawn(async move { Ok(text()) });
    let queued = group.spawn(async move { Ok(text()) });
    let full = group.try_spawn(async move { Ok(text()) }).unwrap_err();
    assert!(full.is_full());
    assert_eq!(full.into_future().await.unwrap(), text());
    let ready = group.spawn_when_ready(async move { Ok(text()) });
    let ready = ready.await.unwrap();
    let blocking = group.spawn_blocking(move |_| Ok(text()));
    for handle in [first, queued, ready, blocking] {
        assert_eq!(handle.await.unwrap(), text());
    }
    let local = tokio::task::LocalSet::new();
    let value = local.run_until(async {
        let rc = group.spawn_local(async move { Ok(std::rc::Rc::new(text())) });
        rc.await.unwrap()
    });
    assert_eq!(*value.await, text());

    let failed = group.spawn(async { Err::<String, _>("no value".into()) });
    assert_eq!(failed.await.unwrap_err().end(), End::Failed);
    group.close();
    let refused = group.spawn(async move { Ok(text()) });
    assert_eq!(refused.await.unwrap_err().end(), End::Skipped);
}

#[tokio::test]
async fn a_handle_that_was_polled_and_then_dropped_leaves_its_value_to_the_task() {
    let alive = Alive::default();
    let mut group = TaskGroup::new();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let guard = alive.guard();
    let handle = group.spawn(async move {
        ended.await?;
        Ok(guard)
    });
    let mut handle = tokio_test::task::spawn(handle);
    assert_pending!(handle.poll());
    drop(handle);
    end.send(()).unwrap();
    let mut wait = tokio_test::task::spawn(group.wait());
    assert_pending!(wait.poll());
    tokio::task::yield_now().await;
    assert_eq!(alive.count(), 0);
    assert!(wait.is_woken());
    assert_ready!(wait.poll()).unwrap();
}

#[tokio::test]
async fn a_value_is_dropped_once() {
    let drops = Arc::new(AtomicUsize::new(0));
    let mut group = TaskGroup::new();
    let value = |drops: &Arc<AtomicUsize>| {
        let drops = Arc::clone(drops);
        OnDrop(move || {
            drops.fetch_add(1, Ordering::SeqCst);
        })
    };
    let (kept, dropped) = (value(&drops), value(&drops));
    let handle = group.spawn(async move { Ok(kept) });
    drop(group.spawn(async move { Ok(dropped) }));
    group.wait().await.unwrap();
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    drop(handle.await);
    assert_eq!(drops.load(Ordering::SeqCst), 2);
}
