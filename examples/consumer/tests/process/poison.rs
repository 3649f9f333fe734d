//! Orders that fail, and one that takes its process along each time.

use serde_json::{Value, json};
use taskgroup::Signal;

use crate::broker::{Broker, order};
use crate::consumer::Database;
use crate::support::wait_until;

fn poison(id: u64, fault: &str) -> Value {
    json!({ "id": id, "item": "tea", "quantity": 1, "fault": fault })
}

#[test]
fn an_order_that_aborts_the_process_is_a_dead_letter_after_its_attempts_and_hand_backs_do_not_count()
 {
    let Some(broker) = Broker::start() else {
        return;
    };
    let database = Database::new();
    // Their work takes longer than the grace.
    let slow = |id| json!({ "id": id, "item": "tea", "quantity": 1, "ms": 1500 });
    let faults = ["--faults", "--attempts", "3", "--ack-wait", "2"];

    // One before it is cut, and it is never begun. All are handed back.
    let one_by_one = [
        &faults[..],
        &["--limit", "1", "--grace", "0.2", "--verbose"],
    ]
    .concat();
    let mut sent = Some((1..=5).map(slow).chain([poison(6, "abort")]));
    for _ in 0..4 {
        let process = database.consume(&broker, &one_by_one);
        broker.send(sent.take().into_iter().flatten());
        database.wait_until_begun(1);
        process.until("six orders", |process| {
            process.stderr().matches("orders: fetched").count() >= 6
        });
        process.signal(Signal::Terminate);
        let end = process.wait();
        end.assert_code(1);
        end.assert_says("orders given back");
        assert!(
            database.attempts().is_empty(),
            "a hand-back costs no attempt"
        );
    }

    let (held, _) = broker.take(6);
    assert!(
        held[&6] > 3,
        "it was not handed back often enough: {held:?}"
    );

    broker.send((7..=20).map(order));
    for _ in 0..3 {
        let process = database.start(&broker, &faults);
        assert_eq!(process.wait().code(), None, "it has an attempt left");
    }
    let process = database.start(&broker, &faults);
    process.until("the dead letter", |_| !broker.dead_letters().is_empty());
    assert_eq!(broker.dead_letters(), [poison(6, "abort")]);
    wait_until("the others", || database.rows().len() == 19);
    wait_until("the acknowledgement of all", || broker.state().floor == 20);
    process.signal(Signal::Terminate);
    process.wait().assert_code(0);
    assert!(!database.rows().contains_key(&6));
}

#[test]
fn failures_panics_and_invalid_orders_go_to_the_dead_letters_and_block_nothing() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let database = Database::new();
    let options = ["--faults", "--attempts", "3", "--backoff", "0.05"];
    let process = database.consume(&broker, &options);
    broker.send_text("no order");
    broker.send([
        poison(2, "fail"),
        poison(3, "panic"),
        poison(4, "fail-twice"),
        order(5),
    ]);
    wait_until("the acknowledgement of all", || broker.state().floor == 5);
    let dead = broker.dead_letters();
    assert_eq!(dead.len(), 3, "{dead:?}");
    for letter in [
        Value::from("no order"),
        poison(2, "fail"),
        poison(3, "panic"),
    ] {
        assert!(dead.contains(&letter), "{letter}");
    }
    assert_eq!(database.rows().into_keys().collect::<Vec<_>>(), [4, 5]);
    process.signal(Signal::Terminate);
    let end = process.wait();
    end.assert_code(0);
    end.assert_says("orders: drained, 2 done, 2 failed, 1 panicked");
    assert!(database.attempts().is_empty());
}
