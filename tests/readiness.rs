//! What a service says about itself, and which observers are told when it changes.

use taskgroup::CancellationToken;
use taskgroup::lifecycle::ReadinessState::{Draining, Ready, Starting, Stopped};
use taskgroup::lifecycle::{Readiness, ReadinessState};
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
fn a_change_wakes_its_waiters() {
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
fn the_token_wakes_a_waiter_for_a_change() {
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
fn a_refused_change_wakes_no_waiter() {
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
fn every_waiter_is_told() {
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
    assert_eq!(
        format!("{:?}", in_state(Draining)),
        "Readiness { state: Draining, failing: [] }"
    );
}

#[test]
fn it_can_be_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Readiness>();
    shared::<ReadinessState>();
}

mod checks {
    //! Checks that fail and recover while the service runs.

    use std::future::pending;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use taskgroup::BoxError;
    use taskgroup::lifecycle::{Check, Component, Lifecycle, Readiness};
    use tokio::time::{Instant, sleep};

    const SECOND: Duration = Duration::from_secs(1);

    /// Passes while the switch is 0, fails while it is 1, panics while it is 2, hangs while it is 3.
    fn switched(name: &'static str) -> (Check, Arc<AtomicUsize>) {
        let switch = Arc::new(AtomicUsize::new(0));
        let now = Arc::clone(&switch);
        let check = Check::new(name, move || {
            let now = now.load(Ordering::SeqCst);
            async move {
                match now {
                    0 => Ok(()),
                    1 => Err::<(), BoxError>("connection refused".into()),
                    2 => std::panic::resume_unwind(Box::new("bad byte")),
                    _ => pending().await,
                }
            }
        });
        (check.every(SECOND).timeout(SECOND), switch)
    }

    fn failing(readiness: &Readiness) -> Vec<String> {
        let failing = readiness.failing().into_iter();
        failing
            .map(|(name, why)| format!("{name}: {why}"))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn with_every_of_zero_the_next_attempt_comes_at_once() {
        let (attempts, mut attempted) = tokio::sync::mpsc::unbounded_channel();
        let attempt = move || {
            let sent = attempts.send(());
            async move { Ok(sent?) }
        };
        let start = Instant::now();
        let check = Check::new("database", attempt).every(Duration::ZERO);
        let checking = tokio::spawn(Readiness::new().check(check));
        for _ in 0..3 {
            attempted.recv().await.unwrap();
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        checking.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_timeout_of_zero_only_an_attempt_that_is_ready_at_once_passes() {
        let readiness = Readiness::new();
        let checks = [
            Check::new("ready", async || Ok(())),
            Check::new("slow", async || Ok(sleep(SECOND).await)),
        ];
        for check in checks {
            tokio::spawn(readiness.check(check.timeout(Duration::ZERO)));
        }
        sleep(SECOND).await;
        assert_eq!(failing(&readiness), ["slow: took longer than 0s"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_fails_and_recovers_while_the_service_runs() {
        let readiness = Readiness::new();
        readiness.set_ready();
        let (check, switch) = switched("database");
        tokio::spawn(readiness.check(check));
        assert_eq!(failing(&readiness), ["database: has not been run yet"]);
        assert!(!readiness.is_ready());

        for (now, why) in [
            (0, None),
            (1, Some("database: connection refused")),
            (0, None),
            (2, Some("database: panicked: bad byte")),
            (0, None),
            (3, Some("database: took longer than 1s")),
            (0, None),
        ] {
            switch.store(now, Ordering::SeqCst);
            sleep(5 * SECOND).await;
            assert_eq!(failing(&readiness), why.into_iter().collect::<Vec<_>>());
            assert_eq!(readiness.is_ready(), why.is_none());
            // That is about the stop alone.
            assert_eq!(readiness.to_string(), "ready");
            let names: Vec<_> = why.iter().map(|_| "database").collect();
            let shown = format!("Readiness {{ state: Ready, failing: {names:?} }}");
            assert_eq!(format!("{readiness:?}"), shown);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_check_is_gone_once_the_service_drains() {
        let readiness = Readiness::new();
        let (check, switch) = switched("database");
        switch.store(3, Ordering::SeqCst);
        let checking = tokio::spawn(readiness.check(check));
        sleep(SECOND / 2).await;
        readiness.set_draining();
        checking.await.unwrap();
        assert_eq!(failing(&readiness), [""; 0]);
        assert!(!readiness.is_ready());
    }

    #[test]
    fn a_check_whose_future_is_dropped_no_longer_counts() {
        let readiness = Readiness::new();
        readiness.set_ready();
        let checking = readiness.check(switched("database").0);
        assert!(!readiness.is_ready());
        drop(checking);
        assert!(readiness.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_of_named_services_counts_for_them_alone() {
        let readiness = Readiness::new();
        readiness.set_ready();
        let (check, switch) = switched("warehouse");
        switch.store(1, Ordering::SeqCst);
        tokio::spawn(readiness.check(check.services(["shop.Orders"])));
        sleep(SECOND / 2).await;
        assert!(readiness.is_ready());
        assert!(!readiness.is_serving("shop.Orders"));
        assert!(readiness.is_serving("shop.Carts"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lifecycle_runs_its_checks_until_it_drains() {
        let (check, switch) = switched("database");
        let worker = Component::new("worker", |ctx| async move {
            ctx.ready();
            Ok(ctx.stopping().await)
        });
        let lifecycle = Lifecycle::new("orders").check(check).component(worker);
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        assert_eq!(handle.ready().await, Ok(()));
        sleep(SECOND / 2).await;
        assert!(handle.readiness().is_ready());
        switch.store(1, Ordering::SeqCst);
        sleep(2 * SECOND).await;
        assert!(!handle.readiness().is_ready());
        assert_eq!(
            failing(handle.readiness()),
            ["database: connection refused"]
        );
        assert_eq!(handle.cause(), None, "a check stops nothing");

        handle.stop("enough");
        assert!(run.await.unwrap().unwrap().is_clean());
        assert_eq!(failing(handle.readiness()), [""; 0]);
        assert_eq!(Arc::strong_count(&switch), 1, "the check is gone");
    }
}
