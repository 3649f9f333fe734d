//! Stops that are asked for by a signal.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskgroup::Signal;

use crate::broker::{Broker, order};
use crate::consumer::Database;

/// An order whose work takes so long.
fn slow(id: u64, ms: u64) -> Value {
    json!({ "id": id, "item": "tea", "quantity": 1, "ms": ms })
}

fn hanging(id: u64) -> Value {
    json!({ "id": id, "item": "tea", "quantity": 1, "fault": "hang" })
}

#[track_caller]
fn under_load_it_stops_clean_and_the_next_one_goes_on(signal: Signal) {
    let Some(broker) = Broker::start() else {
        return;
    };
    let database = Database::new();
    let first = database.consume(&broker, &["--prefetch", "50"]);
    broker.send((1..=400).map(|id| slow(id, 10)));
    database.wait_for_rows(50);
    first.signal(signal);
    let end = first.wait();
    end.assert_code(0);
    let done = database.rows().len();
    assert!(done < 400, "there was nothing left to stop");
    assert_eq!(
        broker.events().len(),
        done,
        "what is committed is published"
    );
    database.assert_acknowledged_is_committed(&broker);

    let second = database.consume(&broker, &[]);
    database.assert_all_are_done(&broker, 400);
    second.signal(signal);
    let end = second.wait();
    end.assert_code(0);
    // What the first has committed it has acknowledged, too.
    let again = end.stderr().contains("its event is published again");
    assert!(!again, "{}", end.stderr());
}

#[test]
fn sigterm_under_load_ends_it_with_0_and_the_next_one_goes_on() {
    under_load_it_stops_clean_and_the_next_one_goes_on(Signal::Terminate);
}

#[test]
fn sigint_under_load_ends_it_with_0_and_the_next_one_goes_on() {
    under_load_it_stops_clean_and_the_next_one_goes_on(Signal::Interrupt);
}

#[test]
fn a_second_signal_ends_it_at_once_and_what_was_in_flight_comes_again() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let database = Database::new();
    let options = ["--ack-wait", "1", "--grace", "60", "--budget", "70"];
    let first = database.consume(&broker, &[&options[..], &["--faults"]].concat());
    broker.send([hanging(1)].into_iter().chain((2..=20).map(order)));
    database.wait_for_rows(19);
    first.signal(Signal::Terminate);
    first.line("orders: paused");
    first.insist(Signal::Terminate).assert_code(143);
    database.assert_acknowledged_is_committed(&broker);

    let second = database.consume(&broker, &options);
    database.assert_all_are_done(&broker, 20);
    assert!(database.rows()[&1] > 1, "it was delivered again");
    second.signal(Signal::Terminate);
    second.wait().assert_code(0);
}

/// Four orders are in flight, and 200 are fetched and not begun.
#[track_caller]
fn another_consumer_has_the_rest_within_a_second(
    options: &[&str],
    orders: impl Fn(u64) -> Value,
    code: i32,
) {
    let Some(broker) = Broker::start() else {
        return;
    };
    let database = Database::new();
    let fetch = ["--limit", "4", "--prefetch", "200", "--ack-wait", "30"];
    let first = database.consume(&broker, &[&fetch, options].concat());
    broker.send((1..=204).map(orders));
    database.wait_until_begun(4);
    broker.wait_for_held(204);
    first.signal(Signal::Terminate);
    let end = first.wait();
    let gone = Instant::now();
    end.assert_code(code);

    let done: BTreeSet<_> = database.rows().into_keys().collect();
    let left: BTreeSet<_> = (1..=204).filter(|id| !done.contains(id)).collect();
    assert!(left.len() >= 200, "{} are left", left.len());
    let (taken, at) = broker.take(left.len());
    let late = at.saturating_duration_since(gone);
    assert_eq!(taken.into_keys().collect::<BTreeSet<_>>(), left);
    assert!(late < Duration::from_secs(1), "{late:?}: {}", end.stderr());
    end.assert_says("orders given back");
}

#[test]
fn two_hundred_prefetched_orders_are_with_another_consumer_within_a_second() {
    let options = ["--at-stop", "hand-back"];
    another_consumer_has_the_rest_within_a_second(&options, |id| slow(id, 500), 0);
}

#[test]
fn what_is_cut_at_the_deadline_is_with_another_consumer_within_a_second_too() {
    let options = ["--faults", "--grace", "0.5"];
    another_consumer_has_the_rest_within_a_second(&options, hanging, 1);
}

#[test]
fn a_broker_that_hangs_during_the_stop_does_not_hold_the_exit_beyond_the_budget() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let database = Database::new();
    let options = ["--ack-wait", "1", "--grace", "2", "--budget", "12"];
    let first = database.consume(&broker, &options);
    broker.send((1..=40).map(|id| slow(id, 200)));
    broker.wait_for_held(40);
    broker.hang();
    let begin = Instant::now();
    first.signal(Signal::Terminate);
    let end = first.wait();
    let took = begin.elapsed();
    broker.go_on();
    end.assert_code(1);
    assert!(took < Duration::from_secs(12), "{took:?}: {}", end.stderr());
    end.assert_says("orders could not be given back");
    database.assert_acknowledged_is_committed(&broker);

    let second = database.consume(&broker, &options);
    database.assert_all_are_done(&broker, 40);
    second.signal(Signal::Terminate);
    second.wait().assert_code(0);
}

/// While somebody else writes, nothing can be committed, and so nothing is acknowledged.
#[test]
fn nothing_is_acknowledged_before_it_is_committed() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let database = Database::new();
    let process = database.consume(&broker, &[]);
    let lock = database.lock();
    broker.send((1..=8).map(order));
    broker.wait_for_held(8);
    for _ in 0..20 {
        assert_eq!((broker.state().floor, broker.state().pending), (0, 8));
        thread::yield_now();
    }
    lock.release();
    database.assert_all_are_done(&broker, 8);
    process.signal(Signal::Terminate);
    process.wait().assert_code(0);
}
