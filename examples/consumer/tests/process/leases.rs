//! What the broker waits for while an order is held.

use serde_json::json;
use taskgroup::Signal;

use crate::broker::Broker;
use crate::consumer::Database;

/// Each of the work, the time in the buffer and the backoff is longer than the broker waits.
#[test]
fn nothing_is_delivered_again_while_it_is_held() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let database = Database::new();
    let options = [
        "--faults",
        "--ack-wait",
        "1",
        "--limit",
        "2",
        "--backoff",
        "1.5",
    ];
    let process = database.consume(&broker, &options);
    let fails = |id| json!({ "id": id, "item": "tea", "quantity": 1, "fault": "fail-twice" });
    let slow = |id| json!({ "id": id, "item": "tea", "quantity": 1, "ms": 1300 });
    broker.send([1].map(fails).into_iter().chain((2..=7).map(slow)));
    database.assert_all_are_done(&broker, 7);
    let deliveries: Vec<_> = database.rows().into_values().collect();
    assert_eq!(deliveries, [1; 7]);
    process.signal(Signal::Terminate);
    process.wait().assert_code(0);
}
