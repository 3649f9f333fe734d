//! The latch: nobody is waited for in vain, and nobody is forgotten.

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::sync::atomic::Ordering::Relaxed;
use loom::sync::atomic::Ordering::SeqCst;
use loom::thread;

use crate::harness::is_ready_at_once;
use crate::harness::is_ready_or_woken;
use crate::harness::model;
use crate::latch::Latch;

fn member(latch: &Arc<Latch>) -> thread::JoinHandle<()> {
    assert!(latch.enter());
    let latch = Arc::clone(latch);
    thread::spawn(move || latch.leave())
}

#[test]
fn the_wait_ends_when_the_last_member_leaves() {
    model(|| {
        let latch = Arc::new(Latch::new());
        let members = [member(&latch), member(&latch)];
        block_on(latch.alone());

        assert!(latch.is_closed());
        assert_eq!(latch.shares(), 0);
        members
            .into_iter()
            .for_each(|member| member.join().unwrap());
    });
}

#[test]
fn the_last_member_wakes_a_wait_that_is_pending() {
    model(|| {
        let latch = Arc::new(Latch::new());
        let members = [member(&latch), member(&latch)];

        assert!(is_ready_or_woken(latch.alone(), || {
            members
                .into_iter()
                .for_each(|member| member.join().unwrap());
        }));
    });
}

#[test]
fn a_wait_that_was_dropped_takes_no_wake_up_with_it() {
    model(|| {
        let latch = Arc::new(Latch::new());
        let member = member(&latch);

        if !is_ready_at_once(latch.alone()) {
            // The member may be leaving right now, and may have told the wait that is gone.
            block_on(latch.alone());
        }
        assert_eq!(latch.shares(), 0);
        member.join().unwrap();
    });
}

#[test]
fn a_member_that_leaves_does_not_silence_the_next_wait() {
    model(|| {
        let latch = Arc::new(Latch::new());
        let first = member(&latch);
        if is_ready_at_once(latch.alone()) {
            first.join().unwrap();
            return;
        }
        // The first member may be on its way to the waker of the wait that is gone.
        if latch.enter() {
            let second = thread::spawn({
                let latch = Arc::clone(&latch);
                move || latch.leave()
            });
            assert!(is_ready_or_woken(latch.alone(), || {
                first.join().unwrap();
                second.join().unwrap();
            }));
        }
    });
}

#[test]
fn what_a_member_did_is_seen_after_the_wait() {
    model(|| {
        let latch = Arc::new(Latch::new());
        let done = Arc::new(AtomicBool::new(false));
        assert!(latch.enter());
        let member = thread::spawn({
            let (latch, done) = (Arc::clone(&latch), Arc::clone(&done));
            move || {
                done.store(true, Relaxed);
                latch.leave();
            }
        });
        block_on(latch.alone());

        assert!(done.load(Relaxed));
        member.join().unwrap();
    });
}

#[test]
fn a_spawn_that_races_with_the_end_of_the_wait_is_waited_for_or_refused() {
    model(|| {
        let latch = Arc::new(Latch::new());
        let (accepted, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let member = member(&latch);
        let spawner = thread::spawn({
            let (latch, accepted, done) =
                (Arc::clone(&latch), Arc::clone(&accepted), Arc::clone(&done));
            move || {
                if latch.enter() {
                    accepted.store(true, SeqCst);
                    done.store(true, SeqCst);
                }
                latch.leave()
            }
        });
        block_on(latch.alone());

        // Every task that was let in before the wait returned has left by then, and none gets in after.
        let done_at_return = done.load(SeqCst);
        assert!(!latch.enter(), "closing is one-way");
        latch.leave();
        member.join().unwrap();
        spawner.join().unwrap();
        assert_eq!(accepted.load(SeqCst), done_at_return);
        assert_eq!(latch.shares(), 0);
    });
}

#[test]
fn a_spawn_that_races_with_close_is_waited_for_or_refused() {
    model(|| {
        let latch = Arc::new(Latch::new());
        let spawner = thread::spawn({
            let latch = Arc::clone(&latch);
            move || {
                let _ = latch.enter();
                latch.leave();
            }
        });
        latch.close();
        block_on(latch.alone());

        assert!(!latch.enter(), "closing is one-way");
        latch.leave();
        spawner.join().unwrap();
        assert_eq!(latch.shares(), 0);
    });
}

#[test]
fn a_spawn_that_races_with_a_forced_stop_is_refused_or_counted_by_it() {
    model(|| {
        let latch = Arc::new(Latch::new());
        let spawner = thread::spawn({
            let latch = Arc::clone(&latch);
            move || {
                let entered = latch.enter();
                if !entered {
                    latch.leave();
                }
                entered
            }
        });
        let left = latch.close();

        // A task that was let in is there to be aborted, and the force knows of it.
        let entered = spawner.join().unwrap();
        assert_eq!(left, if entered { 2 } else { 1 });
        assert!(!latch.enter(), "what is spawned later is refused");
        latch.leave();
    });
}

/// A group below another: as in the crate's `group/shared.rs`, without what has no part in the race.
struct Group {
    latch: Latch,
    parent: Latch,
}

impl Group {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            latch: Latch::new(),
            parent: Latch::new(),
        })
    }

    fn enter(&self) -> bool {
        let entered = self.latch.enter();
        self.parent.enter() && entered
    }

    fn leave(&self) {
        self.latch.leave();
        self.parent.leave();
    }
}

#[test]
fn a_member_of_a_nested_group_is_waited_for_by_both() {
    model(|| {
        let group = Group::new();
        assert!(group.enter());
        let member = thread::spawn({
            let group = Arc::clone(&group);
            move || group.leave()
        });
        let above = thread::spawn({
            let group = Arc::clone(&group);
            move || {
                block_on(group.parent.alone());
                assert!(group.latch.shares() <= 1, "the member has left below");
            }
        });
        block_on(group.latch.alone());

        member.join().unwrap();
        above.join().unwrap();
        assert_eq!(group.latch.shares(), 0);
        assert_eq!(group.parent.shares(), 0);
    });
}

#[test]
fn a_spawn_below_that_races_with_the_end_of_the_wait_above_is_waited_for_or_refused() {
    model(|| {
        let group = Group::new();
        let (accepted, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let spawner = thread::spawn({
            let (group, accepted, done) =
                (Arc::clone(&group), Arc::clone(&accepted), Arc::clone(&done));
            move || {
                if group.enter() {
                    accepted.store(true, SeqCst);
                    done.store(true, SeqCst);
                }
                group.leave();
            }
        });
        block_on(group.parent.alone());

        let done_at_return = done.load(SeqCst);
        assert!(!group.enter(), "the group above is closed");
        group.leave();
        spawner.join().unwrap();
        assert_eq!(accepted.load(SeqCst), done_at_return);
        assert_eq!(group.latch.shares(), 1, "the owner below is still there");
        assert_eq!(group.parent.shares(), 0);
    });
}
