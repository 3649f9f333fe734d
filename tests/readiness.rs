//! What a service says about itself, and who is told when it changes.

use taskgroup::ReadinessState::{self, Draining, Ready, Starting, Stopped};
use taskgroup::{CancellationToken, Readiness};
use tokio_test::{assert_pending, assert_ready_eq, task};

const ALL: [ReadinessState; 4] = [Starting, Ready, Draining, Stopped];

fn set(readiness: &Readiness, state: ReadinessState) -> bool {
    match state {
        Starting => false,
        Ready => readiness.set_ready(),
        Draining => readiness.set_draining(),
        Stopped => readiness.set_stopped(),
    }
}

fn in_state(state: ReadinessState) -> Readiness {
    let readiness = Readiness::new();
    set(&readiness, state);
    assert_eq!(readiness.state(), state);
    readiness
}

#[test]
fn a_service_is_starting_at_first() {
    assert_eq!(Readiness::new().state(), Starting);
    assert_eq!(Readiness::default().state(), Starting);
}

#[test]
fn a_later_state_is_taken_and_any_other_is_refused() {
    for from in ALL {
        for to in [Ready, Draining, Stopped] {
            let readiness = in_state(from);

            assert_eq!(set(&readiness, to), to > from, "{from} to {to}");
            assert_eq!(readiness.state(), from.max(to), "{from} to {to}");
        }
    }
}

#[test]
fn only_ready_is_ready() {
    for state in ALL {
        assert_eq!(in_state(state).is_ready(), state == Ready, "{state}");
    }
}

#[test]
fn the_token_makes_it_draining_whatever_was_before() {
    for from in ALL {
        let token = CancellationToken::new();
        let readiness = Readiness::drain_on(&token);
        set(&readiness, from);

        token.cancel();

        assert_eq!(readiness.state(), from.max(Draining), "{from}");
    }
}

#[test]
fn after_the_token_only_stopped_is_taken() {
    for to in [Ready, Draining, Stopped] {
        let token = CancellationToken::new();
        token.cancel();
        let readiness = Readiness::drain_on(&token);

        assert_eq!(set(&readiness, to), to == Stopped, "{to}");
        assert_eq!(readiness.state(), to.max(Draining), "{to}");
    }
}

#[test]
fn a_token_above_counts_like_the_token() {
    let parent = CancellationToken::new();
    let readiness = Readiness::drain_on(&parent.child_token());

    parent.cancel();

    assert_eq!(readiness.state(), Draining);
}

#[test]
fn draining_by_hand_does_not_fire_the_token() {
    let token = CancellationToken::new();
    let readiness = Readiness::drain_on(&token);

    readiness.set_draining();

    assert!(!token.is_cancelled());
}

#[test]
fn clones_share_one_state() {
    let readiness = Readiness::new();
    let clone = readiness.clone();

    assert!(clone.set_ready());
    assert!(readiness.is_ready());

    drop(readiness);
    assert!(clone.is_ready());
}

#[test]
fn one_of_many_threads_makes_the_change() {
    let readiness = Readiness::new();

    let made = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| readiness.set_ready()))
            .collect();
        let made = threads.into_iter().map(|thread| thread.join().unwrap());
        made.filter(|made| *made).count()
    });

    assert_eq!(made, 1);
}

#[test]
fn a_change_wakes_whoever_waits_for_one() {
    for to in [Ready, Draining, Stopped] {
        let readiness = Readiness::new();
        let mut changed = task::spawn(readiness.changed(Starting));
        assert_pending!(changed.poll());

        set(&readiness, to);

        assert!(changed.is_woken(), "{to}");
        assert_ready_eq!(changed.poll(), to);
    }
}

#[test]
fn the_token_wakes_whoever_waits_for_a_change() {
    for from in [Starting, Ready] {
        let token = CancellationToken::new();
        let readiness = Readiness::drain_on(&token);
        set(&readiness, from);
        let mut changed = task::spawn(readiness.changed(from));
        assert_pending!(changed.poll());

        token.cancel();

        assert!(changed.is_woken(), "{from}");
        assert_ready_eq!(changed.poll(), Draining);
    }
}

#[test]
fn what_is_refused_wakes_nobody() {
    let readiness = in_state(Draining);
    let mut changed = task::spawn(readiness.changed(Draining));
    assert_pending!(changed.poll());

    readiness.set_ready();
    readiness.set_draining();

    assert!(!changed.is_woken());
    assert_pending!(changed.poll());
}

#[test]
fn the_token_does_not_wake_a_service_that_is_draining() {
    let token = CancellationToken::new();
    let readiness = Readiness::drain_on(&token);
    readiness.set_draining();
    let mut changed = task::spawn(readiness.changed(Draining));
    assert_pending!(changed.poll());

    token.cancel();

    assert!(!changed.is_woken());
    readiness.set_stopped();
    assert!(changed.is_woken());
    assert_ready_eq!(changed.poll(), Stopped);
}

#[test]
fn a_change_before_the_wait_is_not_missed() {
    let readiness = Readiness::new();
    let seen = readiness.state();
    readiness.set_ready();
    readiness.set_draining();

    assert_ready_eq!(task::spawn(readiness.changed(seen)).poll(), Draining);
}

#[test]
fn a_change_by_the_token_before_the_wait_is_not_missed() {
    let token = CancellationToken::new();
    let readiness = Readiness::drain_on(&token);
    let seen = readiness.state();
    token.cancel();

    assert_ready_eq!(task::spawn(readiness.changed(seen)).poll(), Draining);
}

#[test]
fn a_wait_between_two_polls_sees_the_later_state() {
    let readiness = Readiness::new();
    let mut changed = task::spawn(readiness.changed(Starting));
    assert_pending!(changed.poll());

    readiness.set_ready();
    readiness.set_stopped();

    assert_ready_eq!(changed.poll(), Stopped);
}

#[test]
fn a_wait_that_is_dropped_loses_nothing() {
    let readiness = Readiness::new();
    let mut changed = task::spawn(readiness.changed(Starting));
    assert_pending!(changed.poll());
    readiness.set_ready();
    drop(changed);

    assert_ready_eq!(task::spawn(readiness.changed(Starting)).poll(), Ready);
}

#[test]
fn after_the_last_state_no_change_comes() {
    let token = CancellationToken::new();
    let readiness = Readiness::drain_on(&token);
    readiness.set_stopped();
    let mut changed = task::spawn(readiness.changed(Stopped));
    assert_pending!(changed.poll());

    token.cancel();

    assert_pending!(changed.poll());
}

#[test]
fn a_state_is_waited_for_until_it_is_reached_or_passed() {
    for wanted in ALL {
        for to in ALL {
            let readiness = in_state(to);
            let mut wait = task::spawn(readiness.wait_for(wanted));

            if to >= wanted {
                assert_ready_eq!(wait.poll(), to, "{wanted} in {to}");
            } else {
                assert_pending!(wait.poll(), "{wanted} in {to}");
            }
        }
    }
}

#[test]
fn a_wait_goes_on_over_the_states_before() {
    let token = CancellationToken::new();
    let readiness = Readiness::drain_on(&token);
    let mut wait = task::spawn(readiness.wait_for(Stopped));
    assert_pending!(wait.poll());

    readiness.set_ready();
    assert!(wait.is_woken());
    assert_pending!(wait.poll());

    token.cancel();
    assert!(wait.is_woken());
    assert_pending!(wait.poll());

    readiness.set_stopped();
    assert!(wait.is_woken());
    assert_ready_eq!(wait.poll(), Stopped);
}

#[test]
fn everybody_who_waits_is_told() {
    let readiness = Readiness::new();
    let mut waits: Vec<_> = (0..3)
        .map(|_| task::spawn(readiness.wait_for(Ready)))
        .collect();
    for wait in &mut waits {
        assert_pending!(wait.poll());
    }

    readiness.set_ready();

    for wait in &mut waits {
        assert!(wait.is_woken());
        assert_ready_eq!(wait.poll(), Ready);
    }
}

#[test]
fn it_prints_its_state() {
    let texts = ALL.map(|state| in_state(state).to_string());

    assert_eq!(texts, ["starting", "ready", "draining", "stopped"]);
    assert_eq!(format!("{:?}", in_state(Draining)), "Readiness(Draining)");
}

#[test]
fn it_can_be_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Readiness>();
    shared::<ReadinessState>();
}
