//! Steps in the wrong order, as they once were in the crate.

use loom::sync::Arc;
use loom::thread;

use crate::harness::model;
use crate::record_models;
use crate::sync::CancellationToken;
use crate::sync::Lock;
use crate::sync::OnceLock;

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

/// A token that is made first, and looks for a cause afterwards.
struct Early {
    token: OnceLock<CancellationToken>,
    is_cancelled: Lock<bool>,
}

impl Early {
    fn token(&self) -> &CancellationToken {
        self.token.get().unwrap_or_else(|| {
            let token = self.token.get_or_init(CancellationToken::new);
            if *self.is_cancelled.lock() {
                token.cancel();
            }
            token
        })
    }

    fn cancel(&self) {
        *self.is_cancelled.lock() = true;
        if let Some(token) = self.token.get() {
            token.cancel();
        }
    }
}

#[test]
#[should_panic(expected = "the token has not fired")]
fn made_before_the_look_at_the_cause_a_token_misses_the_cancel() {
    model(|| {
        let record = Arc::new(Early {
            token: OnceLock::new(),
            is_cancelled: Lock::new(false),
        });
        let other = thread::spawn({
            let record = Arc::clone(&record);
            move || record.token().clone()
        });
        record.cancel();
        assert!(record.token().is_cancelled(), "the token has not fired");
        other.join().unwrap();
    });
}
