//! Options that make no pool are refused when it is built, by name.

use std::time::Duration;

use taskgroup::pipeline::{Job, Workers};
use taskgroup::supervise::Backoff;

use crate::support::SECOND;

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
    assert_eq!(refused(workers(""), 1), "a pipeline has an empty name");
    assert_eq!(
        refused(workers("mail").limit(0), 1),
        "pipeline `mail` has a limit of 0: no item could ever begin"
    );
    assert!(refused(workers("mail"), 0).starts_with("pipeline `mail` has a buffer of 0"));
    assert!(refused(workers("mail"), usize::MAX).starts_with("pipeline `mail` has a buffer of"));
    assert_eq!(
        refused(workers("mail").retry(Backoff::default(), 0), 1),
        "pipeline `mail` tries an item 0 times: it must be tried once at least"
    );
    assert_eq!(
        refused(
            workers("mail").keep_alive(Duration::ZERO, |_| async { Ok(()) }),
            1
        ),
        "pipeline `mail` keeps its items alive every 0s: it would do nothing else"
    );
}

#[test]
fn a_batch_that_could_never_be_full_is_refused() {
    assert_eq!(
        refused(batches(0, SECOND), 10),
        "pipeline `rows` has batches of 0 items: none could ever be full"
    );
    assert_eq!(
        refused(batches(11, SECOND), 10),
        "pipeline `rows` has batches of 11 items and a buffer of 10: a batch could never be full"
    );
    let keyed = batches(5, Duration::MAX).keys(|item: &u32| Some(*item));
    assert!(refused(keyed, 10).starts_with("pipeline `rows` has keys, and batches"));
}
