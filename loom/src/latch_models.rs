//! The latch: nobody is waited for in vain, and nobody is forgotten.

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::sync::atomic::AtomicUsize;
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
    thread::spawn(move || assert!(!latch.leave(), "the owner is still there"))
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
fn what_a_member_did_is_seen_after_the_wait() {
    model(|| {
        let latch = Arc::new(Latch::new());
        let done = Arc::new(AtomicBool::new(false));
        assert!(latch.enter());
        let member = thread::spawn({
            let (latch, done) = (Arc::clone(&latch), Arc::clone(&done));
            move || {
                done.store(true, Relaxed);
                assert!(!latch.leave());
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

        // Whoever was let in before the wait returned has left by then, and nobody gets in after.
        let done_at_return = done.load(SeqCst);
        assert!(!latch.enter(), "closing is one-way");
        let _ = latch.leave();
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
                let _ = latch.leave();
            }
        });
        latch.close();
        block_on(latch.alone());

        assert!(!latch.enter(), "closing is one-way");
        let _ = latch.leave();
        spawner.join().unwrap();
        assert_eq!(latch.shares(), 0);
    });
}

/// How a group holds a share of its parent's latch: as in the crate's `group/shared.rs`, without
/// what has no part in the race.
struct Group {
    latch: Latch,
    parent: Arc<Latch>,
    seated: AtomicBool,
    given_up: AtomicUsize,
}

impl Group {
    fn below(parent: &Arc<Latch>) -> Arc<Self> {
        assert!(parent.enter());
        Arc::new(Self {
            latch: Latch::new(),
            parent: Arc::clone(parent),
            seated: AtomicBool::new(true),
            given_up: AtomicUsize::new(0),
        })
    }

    fn leave(&self) {
        if self.latch.leave() {
            self.over();
        }
    }

    fn over(&self) {
        if self.seated.swap(false, SeqCst) {
            self.given_up.fetch_add(1, SeqCst);
            let _ = self.parent.leave();
        }
    }
}

#[test]
fn a_nested_group_gives_up_its_parents_share_once_when_owner_and_members_are_gone() {
    model(|| {
        let parent = Arc::new(Latch::new());
        let child = Group::below(&parent);
        assert!(child.latch.enter());
        let member = thread::spawn({
            let child = Arc::clone(&child);
            move || child.leave()
        });
        let owner = thread::spawn({
            let child = Arc::clone(&child);
            move || {
                child.latch.close();
                child.leave();
            }
        });
        block_on(parent.alone());

        assert_eq!(child.latch.shares(), 0);
        assert_eq!(child.given_up.load(SeqCst), 1);
        member.join().unwrap();
        owner.join().unwrap();
    });
}

#[test]
fn a_nested_group_that_is_waited_for_gives_up_its_parents_share() {
    model(|| {
        let parent = Arc::new(Latch::new());
        let child = Group::below(&parent);
        assert!(child.latch.enter());
        let member = thread::spawn({
            let child = Arc::clone(&child);
            move || child.leave()
        });
        let owner = thread::spawn({
            let child = Arc::clone(&child);
            move || {
                block_on(child.latch.alone());
                child.over();
            }
        });
        block_on(parent.alone());

        assert_eq!(child.given_up.load(SeqCst), 1);
        member.join().unwrap();
        owner.join().unwrap();
    });
}

#[test]
fn a_spawn_refused_by_a_nested_group_gives_up_nothing_twice() {
    model(|| {
        let parent = Arc::new(Latch::new());
        let child = Group::below(&parent);
        let spawner = thread::spawn({
            let child = Arc::clone(&child);
            move || {
                let _ = child.latch.enter();
                child.leave();
            }
        });
        child.latch.close();
        child.leave();
        block_on(parent.alone());

        spawner.join().unwrap();
        assert_eq!(child.latch.shares(), 0);
        assert_eq!(child.given_up.load(SeqCst), 1);
        assert_eq!(parent.shares(), 0);
    });
}
