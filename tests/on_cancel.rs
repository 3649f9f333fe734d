//! Callbacks after cancellation.

mod support;

use std::fmt::Debug;
use std::future::Ready;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use taskgroup::group::OnCancel;
use taskgroup::{CancellationToken, End};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use crate::support::wait::turns;

/// A callback that counts its runs.
fn counting(token: &CancellationToken) -> (OnCancel, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let callback = OnCancel::new(token, move || async move {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    (callback, runs)
}

#[tokio::test]
async fn callback_runs_after_the_token_has_fired_and_not_before() {
    let token = CancellationToken::new();
    let (callback, runs) = counting(&token);
    turns().await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);

    token.cancel();
    assert_eq!(callback.finished().await, End::Done);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn callback_runs_at_most_once() {
    let token = CancellationToken::new();
    let (callback, runs) = counting(&token);
    token.cancel();
    token.cancel();
    callback.finished().await;
    assert!(!callback.withdraw());
    token.cancel();
    turns().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn callback_on_a_fired_token_runs_at_once_in_its_own_task() {
    let token = CancellationToken::new();
    token.cancel();
    let (ids, seen) = oneshot::channel();
    let callback = OnCancel::new(&token, move || async move {
        ids.send(tokio::task::id()).unwrap();
    });
    let other = OnCancel::new(&token, || async {});
    let first = seen.await.unwrap();
    assert_eq!(callback.finished().await, End::Done);
    assert_eq!(other.finished().await, End::Done);
    let here = tokio::spawn(async { tokio::task::id() }).await.unwrap();
    assert_ne!(first, here);
}

#[tokio::test]
async fn callback_on_a_fired_token_does_not_run_inside_new() {
    let token = CancellationToken::new();
    token.cancel();
    let (callback, runs) = counting(&token);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    callback.finished().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn withdrawal_before_the_token_comes_in_time() {
    let token = CancellationToken::new();
    let (callback, runs) = counting(&token);
    assert!(callback.withdraw());
    token.cancel();
    turns().await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert_eq!(callback.finished().await, End::Skipped);
}

#[tokio::test]
async fn withdrawal_after_the_token_comes_in_time_while_the_callback_has_not_begun() {
    let token = CancellationToken::new();
    let (callback, runs) = counting(&token);
    // On this runtime the task cannot run before the next await.
    token.cancel();
    assert!(callback.withdraw());
    turns().await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert_eq!(callback.finished().await, End::Skipped);
}

#[tokio::test]
async fn withdrawal_is_too_late_while_the_callback_runs_and_does_not_disturb_it() {
    let token = CancellationToken::new();
    let (begun, seen) = oneshot::channel();
    let (release, released) = oneshot::channel::<()>();
    let callback = OnCancel::new(&token, move || async move {
        begun.send(()).unwrap();
        released.await.unwrap();
    });
    token.cancel();
    seen.await.unwrap();
    assert!(!callback.withdraw());
    release.send(()).unwrap();
    assert_eq!(callback.finished().await, End::Done);
}

#[tokio::test]
async fn every_withdrawal_gives_the_answer_of_the_first() {
    let token = CancellationToken::new();
    let (early, _) = counting(&token);
    let (late, _) = counting(&token);
    assert!(early.withdraw());
    token.cancel();
    late.finished().await;
    for _ in 0..3 {
        assert!(early.withdraw());
        assert!(!late.withdraw());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn withdrawal_that_races_with_the_token_tells_the_truth() {
    for _ in 0..1000 {
        let token = CancellationToken::new();
        let (callback, runs) = counting(&token);
        let cancel = tokio::spawn(async move { token.cancel() });
        let withdrawn = callback.withdraw();
        cancel.await.unwrap();
        let outcome = callback.finished().await;
        turns().await;
        let expected = match withdrawn {
            true => (End::Skipped, 0),
            false => (End::Done, 1),
        };
        assert_eq!((outcome, runs.load(Ordering::SeqCst)), expected);
    }
}

#[tokio::test]
async fn callbacks_on_one_token_are_independent() {
    let token = CancellationToken::new();
    let hanging = OnCancel::new(&token, std::future::pending);
    let panicking = OnCancel::new(&token, || async { panic!("boom") });
    let (withdrawn, never) = counting(&token);
    let (callback, runs) = counting(&token);
    assert!(withdrawn.withdraw());
    token.cancel();

    assert_eq!(callback.finished().await, End::Done);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(never.load(Ordering::SeqCst), 0);
    assert_eq!(panicking.finished().await, End::Panicked);
    assert!(format!("{hanging:?}").contains("Begun"), "{hanging:?}");
}

#[tokio::test(start_paused = true)]
async fn finished_waits_until_the_callback_has_ended_and_can_be_awaited_by_many() {
    let token = CancellationToken::new();
    let callback = Arc::new(OnCancel::new(&token, || sleep(Duration::from_secs(3))));
    let start = Instant::now();
    let waiters: Vec<_> = (0..5)
        .map(|_| {
            let callback = Arc::clone(&callback);
            tokio::spawn(async move { (callback.finished().await, start.elapsed()) })
        })
        .collect();
    sleep(Duration::from_secs(1)).await;
    token.cancel();
    for waiter in waiters {
        let expected = (End::Done, Duration::from_secs(4));
        assert_eq!(waiter.await.unwrap(), expected);
    }
    assert_eq!(callback.finished().await, End::Done);
    assert_eq!(start.elapsed(), Duration::from_secs(4));
}

#[tokio::test]
async fn finished_wakes_a_waiter_when_the_callback_is_withdrawn() {
    let token = CancellationToken::new();
    let callback = Arc::new(OnCancel::new(&token, || async {}));
    let waiter = tokio::spawn({
        let callback = Arc::clone(&callback);
        async move { callback.finished().await }
    });
    turns().await;
    assert!(!waiter.is_finished());
    assert!(callback.withdraw());
    assert_eq!(waiter.await.unwrap(), End::Skipped);
}

#[tokio::test]
async fn panic_of_the_closure_or_the_future_is_caught_and_told() {
    let token = CancellationToken::new();
    token.cancel();
    let closure = OnCancel::new(&token, || -> Ready<()> { panic!("boom in the closure") });
    let future = OnCancel::new(&token, || async { panic!("boom in the future") });
    let destructor = OnCancel::new(&token, || {
        let bomb = PanicsOnDrop;
        async move {
            let _bomb = &bomb;
        }
    });
    for panicking in [closure, future, destructor] {
        assert_eq!(panicking.finished().await, End::Panicked);
    }
}

#[tokio::test]
async fn withdrawn_callback_and_its_captures_are_dropped_at_the_withdrawal() {
    let token = CancellationToken::new();
    let captured = Arc::new(());
    let callback = OnCancel::new(&token, {
        let captured = Arc::clone(&captured);
        move || async move { drop(captured) }
    });
    assert_eq!(Arc::strong_count(&captured), 2);
    assert!(callback.withdraw());
    assert_eq!(Arc::strong_count(&captured), 1);
}

#[tokio::test]
async fn withdrawn_callbacks_leave_no_task_behind_on_a_long_lived_token() {
    let token = CancellationToken::new();
    let before = Handle::current().metrics().num_alive_tasks();
    for _ in 0..1000 {
        let callback = OnCancel::new(&token, || async {});
        yield_now().await;
        assert!(callback.withdraw());
    }
    turns().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), before);
}

#[tokio::test]
async fn withdrawal_survives_a_panic_in_what_the_callback_has_captured() {
    let token = CancellationToken::new();
    let bomb = PanicsOnDrop;
    let callback = OnCancel::new(&token, move || async move { drop(bomb) });
    catch_unwind(AssertUnwindSafe(|| callback.withdraw())).unwrap_err();
    assert!(callback.withdraw());
    assert_eq!(callback.finished().await, End::Skipped);
}

#[tokio::test]
async fn callback_stays_armed_when_its_handle_is_dropped() {
    let token = CancellationToken::new();
    let (callback, runs) = counting(&token);
    drop(callback);
    turns().await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    token.cancel();
    turns().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn callback_can_withdraw_itself_and_others_without_a_deadlock() {
    let token = CancellationToken::new();
    let (other, runs) = counting(&CancellationToken::new());
    let (handle, given) = oneshot::channel::<OnCancel>();
    let (answers, answered) = oneshot::channel();
    let callback = OnCancel::new(&token, move || async move {
        let own = given.await.unwrap();
        answers.send((own.withdraw(), other.withdraw())).unwrap();
    });
    token.cancel();
    handle.send(callback).unwrap();
    assert_eq!(answered.await, Ok((false, true)));
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[test]
fn end_of_the_runtime_aborts_what_has_not_ended() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let token = CancellationToken::new();
    let captured = Arc::new(());
    let (waiting, running) = runtime.block_on(async {
        let waiting = OnCancel::new(&token, {
            let captured = Arc::clone(&captured);
            move || async move { drop(captured) }
        });
        let fired = CancellationToken::new();
        fired.cancel();
        let running = OnCancel::new(&fired, std::future::pending);
        turns().await;
        (waiting, running)
    });
    drop(runtime);

    assert_eq!(Arc::strong_count(&captured), 1);
    assert!(waiting.withdraw(), "it never began");
    assert!(!running.withdraw(), "it had begun");
    let other = Builder::new_current_thread().build().unwrap();
    other.block_on(async {
        assert_eq!(waiting.finished().await, End::Aborted);
        assert_eq!(running.finished().await, End::Aborted);
    });
}

#[test]
#[should_panic(expected = "no reactor running")]
fn new_panics_outside_a_runtime() {
    OnCancel::new(&CancellationToken::new(), || async {});
}

#[test]
fn types_are_send_and_sync_and_print_their_state() {
    fn check<T: Send + Sync + Debug>() {}
    check::<OnCancel>();
}

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("boom in the destructor");
    }
}
