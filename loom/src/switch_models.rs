//! The cut of a server's connections: it reaches all that is pending.

use std::sync::Arc as StdArc;
use std::task::Context;

use loom::sync::Arc;
use loom::thread;

use crate::harness::Bell;
use crate::harness::model;
use crate::switch::Seat;
use crate::switch::Switch;

/// A poll that has nothing to do. Returns whether it has seen the firing.
fn poll(switch: &Switch<()>, seat: &mut Seat, bell: &StdArc<Bell>) -> bool {
    switch.watch(seat, &Context::from_waker(&bell.waker()), || ())
}

#[test]
fn a_firing_that_races_with_the_first_pending_poll_is_never_lost() {
    model(|| {
        let switch = Arc::new(Switch::new());
        let pending = [(); 2].map(|()| {
            let (switch, bell) = (Arc::clone(&switch), Bell::new());
            thread::spawn(move || (poll(&switch, &mut Seat::default(), &bell), bell))
        });
        switch.fire();

        for thread in pending {
            let (seen, bell) = thread.join().unwrap();
            assert!(seen || bell.has_rung());
        }
    });
}

#[test]
fn a_firing_that_races_with_a_change_of_tasks_reaches_the_new_one() {
    model(|| {
        let switch = Arc::new(Switch::new());
        let mut seat = Seat::default();
        poll(&switch, &mut seat, &Bell::new());
        let other = thread::spawn({
            let switch = Arc::clone(&switch);
            move || switch.fire()
        });
        let new = Bell::new();
        let seen = poll(&switch, &mut seat, &new);

        other.join().unwrap();
        assert!(seen || new.has_rung());
    });
}

#[test]
fn a_poll_with_the_same_waker_does_not_lose_the_firing() {
    model(|| {
        let switch = Arc::new(Switch::new());
        let (mut seat, bell) = (Seat::default(), Bell::new());
        let waker = bell.waker();
        let cx = Context::from_waker(&waker);
        switch.watch(&mut seat, &cx, || ());
        let other = thread::spawn({
            let switch = Arc::clone(&switch);
            move || switch.fire()
        });
        let seen = switch.watch(&mut seat, &cx, || ());

        other.join().unwrap();
        assert!(seen || bell.has_rung());
    });
}

#[test]
fn a_firing_in_slices_reaches_who_sits_down_between_them() {
    model(|| {
        let switch = Arc::new(Switch::new());
        let (mut first, bell) = (Seat::default(), Bell::new());
        poll(&switch, &mut first, &bell);
        let late = thread::spawn({
            let (switch, bell) = (Arc::clone(&switch), Bell::new());
            move || (poll(&switch, &mut Seat::default(), &bell), bell)
        });
        switch.raise();
        let mut next = Some(0);
        while let Some(from) = next {
            next = switch.wake(from, 1);
        }

        let (seen, late) = late.join().unwrap();
        assert!(seen || late.has_rung());
        assert!(bell.has_rung());
    });
}

#[test]
fn who_leaves_during_the_firing_disturbs_nobody() {
    model(|| {
        let switch = Arc::new(Switch::new());
        let (mut stays, mut leaves) = (Seat::default(), Seat::default());
        let bell = Bell::new();
        poll(&switch, &mut leaves, &Bell::new());
        poll(&switch, &mut stays, &bell);
        let other = thread::spawn({
            let switch = Arc::clone(&switch);
            move || switch.fire()
        });
        switch.leave(&mut leaves);

        other.join().unwrap();
        assert!(bell.has_rung());
    });
}
