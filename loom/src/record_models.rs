//! The record: no failure is lost on its way up, and no token is made that a cancel has missed.

use loom::sync::Arc;
use loom::sync::Mutex;
use loom::thread;

use crate::group::cause::Cause;
use crate::group::error::TaskError;
use crate::harness::model;
use crate::harness::model_with;
use crate::latch::Latch;
use crate::record::Record;
use crate::record::Recorded;
use crate::record::first_of;

fn failure(error: u8) -> Recorded<u8> {
    Recorded::now(TaskError::new(error))
}

fn fail(record: &Record<u8>, error: u8) {
    assert!(record.keep(vec![failure(error)]).is_empty());
}

/// As the crate's `group/hub.rs` does it: the groups below first.
fn take(below: &Record<u8>, above: &Record<u8>) -> Option<TaskError<u8>> {
    let mut failures = below.take();
    failures.append(&mut above.take());
    first_of(failures)
}

/// Takes the failures of two groups while `move_up` moves them from the one to the other; returns
/// whether the failure was there.
pub(crate) fn is_found_while_it_moves(move_up: fn(&Record<u8>, &Record<u8>)) -> bool {
    let groups = Arc::new((Record::new(None), Record::new(None)));
    fail(&groups.0, 1);
    let dropped = thread::spawn({
        let groups = Arc::clone(&groups);
        move || move_up(&groups.0, &groups.1)
    });
    // A third thread that asks for the cause held up the one that moves the failure, in the field.
    let asks = thread::spawn({
        let groups = Arc::clone(&groups);
        move || groups.1.cause()
    });
    let found = take(&groups.0, &groups.1);

    dropped.join().unwrap();
    asks.join().unwrap();
    found == Some(TaskError::new(1))
}

#[test]
fn the_failure_of_a_child_that_is_dropped_during_the_wait_is_found() {
    model(|| {
        assert!(is_found_while_it_moves(|child, parent| {
            assert!(child.hand_up([parent]).is_empty());
        }));
    });
}

#[test]
fn a_failure_passes_a_group_whose_owner_goes_at_the_same_time() {
    model(|| {
        let groups = Arc::new([(); 3].map(|()| Record::new(None)));
        fail(&groups[0], 1);
        fail(&groups[1], 2);
        let below = thread::spawn({
            let groups = Arc::clone(&groups);
            move || groups[0].hand_up([&groups[1], &groups[2]]).len()
        });
        assert!(groups[1].hand_up([&groups[2]]).is_empty());

        assert_eq!(below.join().unwrap(), 0);
        assert!(groups[0].take().is_empty() && groups[1].take().is_empty());
        let first = first_of(groups[2].take()).unwrap();
        assert_eq!(first, TaskError(1, vec![TaskError::new(2)]));
    });
}

#[test]
fn a_task_that_fails_while_its_owner_goes_is_found_above() {
    model(|| {
        let groups = Arc::new((Record::new(None), Record::new(None)));
        let task = thread::spawn({
            let groups = Arc::clone(&groups);
            move || {
                // As the crate's `group/shared.rs` does it.
                let refused = groups.0.keep(vec![failure(1)]);
                assert!(groups.1.keep(refused).is_empty());
            }
        });
        assert!(groups.0.hand_up([&groups.1]).is_empty());

        task.join().unwrap();
        assert!(groups.0.take().is_empty());
        assert_eq!(first_of(groups.1.take()), Some(TaskError::new(1)));
    });
}

/// A group that may be forgotten by the one above it, as in the crate's `group/hub.rs`.
pub(crate) struct Child {
    pub(crate) latch: Latch,
    pub(crate) record: Record<u8>,
}

/// Forgets a child that is over and then takes the failures, while `go` lets its owner go; returns
/// whether the failure was there.
pub(crate) fn is_found_after_the_child_was_forgotten(go: fn(&Child, &Record<u8>)) -> bool {
    let child = Child {
        latch: Latch::new(),
        record: Record::new(None),
    };
    fail(&child.record, 1);
    let child = Arc::new(child);
    let parent = Arc::new(Record::new(None));
    let children = Arc::new(Mutex::new(vec![Arc::clone(&child)]));
    let owner = thread::spawn({
        let (child, parent) = (Arc::clone(&child), Arc::clone(&parent));
        move || go(&child, &parent)
    });
    children
        .lock()
        .unwrap()
        .retain(|child| child.latch.shares() > 0);
    let below = children.lock().unwrap().clone();
    let mut failures: Vec<_> = below.iter().flat_map(|child| child.record.take()).collect();
    failures.append(&mut parent.take());

    owner.join().unwrap();
    first_of(failures).is_some()
}

#[test]
fn a_child_that_is_forgotten_has_handed_its_failures_up() {
    model(|| {
        assert!(is_found_after_the_child_was_forgotten(|child, parent| {
            assert!(child.record.hand_up([parent]).is_empty());
            child.latch.leave();
        }));
    });
}

#[test]
fn once_a_cancel_has_returned_the_token_has_fired_whoever_made_it() {
    model(|| {
        let record = Arc::new(Record::<u8>::new(None));
        let others = [(); 2].map(|()| {
            let record = Arc::clone(&record);
            thread::spawn(move || record.token().clone())
        });
        assert!(record.cancel(Cause(1)));

        assert!(record.token().is_cancelled());
        for other in others {
            assert!(other.join().unwrap().is_cancelled());
        }
    });
}

#[test]
fn whoever_sees_the_token_can_read_the_cause_and_the_failure() {
    // With three, a token that fires before the cause is recorded is not noticed.
    model_with(4, || {
        let record = Arc::new(Record::new(None));
        let task = thread::spawn({
            let record = Arc::clone(&record);
            move || {
                fail(&record, 1);
                record.cancel(Cause(1));
            }
        });
        if record.token().is_cancelled() {
            assert_eq!(record.cause(), Some(Cause(1)));
            assert_eq!(first_of(record.take()), Some(TaskError::new(1)));
        }
        task.join().unwrap();
    });
}

#[test]
fn of_two_cancels_at_once_one_is_the_first() {
    model(|| {
        let record = Arc::new(Record::<u8>::new(None));
        let other = thread::spawn({
            let record = Arc::clone(&record);
            move || record.cancel(Cause(1))
        });
        let first = record.cancel(Cause(2));

        let cause = if other.join().unwrap() { 1 } else { 2 };
        assert_eq!(first, cause == 2);
        assert_eq!(record.cause(), Some(Cause(cause)));
    });
}
