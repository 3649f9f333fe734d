//! Options that make no pool are refused when it is built, by name.

use std::time::Duration;

use taskgroup::pipeline::{Job, Origin, Workers, from_iter};
use taskgroup::supervise::Backoff;
use tokio::sync::Semaphore;

use crate::support::SECOND;

/// As many items as a queue can hold.
const MOST: usize = Semaphore::MAX_PERMITS;

fn workers(name: &'static str) -> Workers<u32> {
    Workers::new(name, |_: Job<u32>| async { Ok(()) })
}

fn batches(size: usize, longest: Duration) -> Workers<u32> {
    Workers::batches("rows", size, longest, |_: Vec<Job<u32>>| async { Ok(()) })
}

fn refused(workers: Workers<u32>, capacity: usize) -> String {
    workers.queue(capacity).unwrap_err().to_string()
}

#[test]
fn bad_options_are_refused_by_name() {
    let mail = || workers("mail");
    for (workers, capacity, message) in [
        (
            workers(""),
            1,
            "a pipeline: `name` cannot be empty: no message could name it".to_owned(),
        ),
        (
            mail().limit(0),
            1,
            "pipeline `mail`: `limit` cannot be 0: no item could ever begin".to_owned(),
        ),
        (
            mail(),
            0,
            format!("pipeline `mail`: `capacity` cannot be 0: it must hold 1 to {MOST} items"),
        ),
        (
            mail(),
            MOST + 1,
            format!(
                "pipeline `mail`: `capacity` cannot be {}: it must hold 1 to {MOST} items",
                MOST + 1
            ),
        ),
        (
            mail().retry(Backoff::default(), 0),
            1,
            "pipeline `mail`: `attempts` cannot be 0: an item has to be tried once at least"
                .to_owned(),
        ),
        (
            mail().retry(Backoff::default().factor(0), 2),
            1,
            "pipeline `mail`: `factor` cannot be 0: all waits but the first would be 0s".to_owned(),
        ),
        (
            mail().keep_alive(Duration::ZERO, |_| async { Ok(()) }),
            1,
            "pipeline `mail`: `keep_alive` cannot be 0s: it would do nothing else".to_owned(),
        ),
        (
            mail()
                .hand_back(|_| async { Ok(()) })
                .hand_back_within(Duration::ZERO),
            1,
            "pipeline `mail`: `hand_back_within` cannot be 0s: no hand-back could be done in time"
                .to_owned(),
        ),
    ] {
        assert_eq!(refused(workers, capacity), message);
    }
}

#[test]
fn a_batch_that_could_never_be_full_is_refused() {
    assert_eq!(
        refused(batches(0, SECOND), 10),
        "pipeline `rows`: `size` cannot be 0: no batch could ever be full"
    );
    assert_eq!(
        refused(batches(11, SECOND), 10),
        "pipeline `rows`: `size` cannot be 11: with a `capacity` of 10 no batch could ever be full"
    );
    let keyed = batches(5, Duration::MAX).keys(|item: &u32| Some(*item));
    assert_eq!(
        refused(keyed, 10),
        "pipeline `rows`: `longest` cannot be any time: it has keys, and one busy key could keep a batch from being full"
    );
    assert_eq!(
        refused(batches(5, SECOND).batch_weight(0, |_| 1), 10),
        "pipeline `rows`: `batch_weight` cannot be 0: no item could be in a batch"
    );
    assert_eq!(
        refused(workers("mail").batch_weight(9, |_| 1), 10),
        "pipeline `mail`: `batch_weight` cannot be 9: its handler takes one item, and only a batch has a weight"
    );
}

#[test]
fn a_source_and_a_stage_without_room_are_refused_by_name() {
    let source = workers("mail").buffer(0).source(from_iter(0..3));
    assert_eq!(
        source.unwrap_err().to_string(),
        format!("pipeline `mail`: `buffer` cannot be 0: it must hold 1 to {MOST} items")
    );
    let (map, _) = Workers::map("fetch", |job: Job<u32>| async move { Ok(*job) });
    assert_eq!(
        map.limit(0).source(from_iter(0..3)).unwrap_err().option(),
        "limit"
    );
    let stage = Workers::new("rows", |_: Job<u32, Origin>| async { Ok(()) });
    assert_eq!(stage.stage(0).unwrap_err().option(), "capacity");
    let rows = Workers::batches("rows", 20, SECOND, |_: Vec<Job<u32>>| async { Ok(()) });
    assert_eq!(
        rows.buffer(10)
            .source(from_iter(0..3))
            .unwrap_err()
            .to_string(),
        "pipeline `rows`: `size` cannot be 20: with a `buffer` of 10 no batch could ever be full"
    );
}
