//! Kills, of the consumer and of the broker, and of the consumer at the two worst moments.

use serde_json::{Value, json};
use taskgroup::Signal;

use crate::broker::{Broker, order};
use crate::consumer::Database;

/// An order whose work takes a little.
fn short(id: u64) -> Value {
    json!({ "id": id, "item": "tea", "quantity": 1, "ms": 5 })
}

#[test]
fn a_consumer_that_is_killed_again_and_again_loses_nothing() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let database = Database::new();
    let options = ["--ack-wait", "1", "--attempts", "20"];
    let mut next = database.consume(&broker, &options);
    broker.send((1..=300).map(short));
    for _ in 0..4 {
        database.wait_for_rows(database.rows().len() + 20);
        next.kill();
        assert_eq!(next.wait().code(), None);
        database.assert_acknowledged_is_committed(&broker);
        next = database.consume(&broker, &options);
    }
    database.assert_all_are_done(&broker, 300);
    assert!(
        database.rows().values().any(|delivery| *delivery > 1),
        "nothing was in flight"
    );
    assert_eq!(broker.dead_letters(), [] as [Value; 0]);
    next.signal(Signal::Terminate);
    next.wait().assert_code(0);
}

#[test]
fn a_broker_that_is_killed_and_comes_back_loses_nothing() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    let database = Database::new();
    let process = database.consume(&broker, &["--ack-wait", "2"]);
    broker.send((1..=300).map(short));
    database.wait_for_rows(30);
    broker.kill_and_restart();
    database.assert_acknowledged_is_committed(&broker);
    database.assert_all_are_done(&broker, 300);
    process.signal(Signal::Terminate);
    process.wait().assert_code(0);
}

#[test]
fn a_broker_that_hangs_and_goes_on_loses_nothing() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let database = Database::new();
    let process = database.consume(&broker, &["--ack-wait", "2"]);
    broker.send((1..=300).map(short));
    database.wait_for_rows(30);
    broker.hang();
    // The broker does not answer, whatever it was asked last.
    process.line("timed out");
    broker.go_on();
    database.assert_acknowledged_is_committed(&broker);
    database.assert_all_are_done(&broker, 300);
    process.signal(Signal::Terminate);
    process.wait().assert_code(0);
}

/// The process is gone at this point of some order; the next one publishes its event with the same id.
#[track_caller]
fn it_is_aborted_after(point: &str) {
    let Some(broker) = Broker::start() else {
        return;
    };
    let database = Database::new();
    let ack_wait = ["--ack-wait", "1"];
    let abort = [&ack_wait[..], &["--abort-after", point]].concat();
    let first = database.consume(&broker, &abort);
    broker.send((1..=10).map(order));
    assert_eq!(first.wait().code(), None);
    let rows = database.rows().len();
    assert!(rows > 0, "nothing is committed");
    let state = broker.state();
    assert_eq!(state.acknowledged(), 0, "{state:?}");
    match point {
        "commit" => assert_eq!(broker.events().len(), 0),
        _ => assert!(!broker.events().is_empty()),
    }

    let second = database.consume(&broker, &ack_wait);
    database.assert_all_are_done(&broker, 10);
    second.signal(Signal::Terminate);
    let end = second.wait();
    end.assert_code(0);
    end.assert_says("its event is published again");
}

#[test]
fn an_order_that_is_committed_and_not_published_is_published_by_the_next_one() {
    it_is_aborted_after("commit");
}

#[test]
fn an_order_that_is_published_and_not_acknowledged_has_one_event() {
    it_is_aborted_after("publish");
}
