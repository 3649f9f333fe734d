//! The abort: it reaches every task, whatever the task is doing at that moment.

use std::sync::Arc as StdArc;
use std::task::Waker;

use loom::sync::Arc;
use loom::thread;

use crate::harness::Bell;
use crate::harness::model;
use crate::wakers::Wakers;

/// A task that becomes pending for the first time, as the crate's `group/seat.rs` does it. Returns
/// whether it has seen the abort.
fn park(wakers: &Wakers, bell: &StdArc<Bell>) -> bool {
    if wakers.is_aborted() {
        return true;
    }
    wakers.insert(bell.waker());
    wakers.is_aborted()
}

#[test]
fn an_abort_that_races_with_the_first_pending_poll_is_never_lost() {
    model(|| {
        let wakers = Arc::new(Wakers::default());
        let tasks = [(); 2].map(|()| {
            let (wakers, bell) = (Arc::clone(&wakers), Bell::new());
            thread::spawn(move || (park(&wakers, &bell), bell))
        });
        wakers.abort();

        for task in tasks {
            let (seen, bell) = task.join().unwrap();
            assert!(seen || bell.has_rung());
        }
    });
}

#[test]
fn a_woken_task_sees_the_abort() {
    model(|| {
        let wakers = Arc::new(Wakers::default());
        let aborter = thread::spawn({
            let wakers = Arc::clone(&wakers);
            move || wakers.abort()
        });
        let mut parked = false;
        loom::future::block_on(std::future::poll_fn(|cx| {
            if !wakers.is_aborted() && !parked {
                parked = true;
                wakers.insert(cx.waker().clone());
            }
            if wakers.is_aborted() {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        }));

        aborter.join().unwrap();
    });
}

#[test]
fn a_task_that_ends_during_the_abort_disturbs_nobody() {
    model(|| {
        let wakers = Arc::new(Wakers::default());
        let stays = Bell::new();
        let leaves = wakers.insert(Waker::noop().clone());
        wakers.insert(stays.waker());
        let aborter = thread::spawn({
            let wakers = Arc::clone(&wakers);
            move || wakers.abort()
        });
        wakers.remove(leaves);
        let late = Bell::new();
        let seen = park(&wakers, &late);

        aborter.join().unwrap();
        assert!(stays.has_rung());
        assert!(seen || late.has_rung());
    });
}

#[test]
fn two_aborts_at_once_wake_every_task() {
    model(|| {
        let wakers = Arc::new(Wakers::default());
        let bell = Bell::new();
        wakers.insert(bell.waker());
        let other = thread::spawn({
            let wakers = Arc::clone(&wakers);
            move || wakers.abort()
        });
        wakers.abort();

        other.join().unwrap();
        assert!(bell.has_rung());
    });
}
