//! Steps in the wrong order, as they once were in the crate.

use crate::harness::model;
use crate::record_models;

#[test]
#[should_panic(expected = "the failure is lost")]
fn moved_with_one_lock_at_a_time_a_failure_is_lost() {
    model(|| {
        let found = record_models::is_found_while_it_moves(|child, parent| {
            // Nobody is above, so they come back, and the lock is given back before the next is taken.
            let failures = child.hand_up([]);
            assert!(parent.keep(failures).is_empty());
        });
        assert!(found, "the failure is lost");
    });
}

#[test]
#[should_panic(expected = "the failure is lost")]
fn handed_up_after_the_owner_has_left_a_failure_is_lost() {
    model(|| {
        let found = record_models::is_found_after_the_child_was_forgotten(|child, parent| {
            child.latch.leave();
            assert!(child.record.hand_up([parent]).is_empty());
        });
        assert!(found, "the failure is lost");
    });
}
