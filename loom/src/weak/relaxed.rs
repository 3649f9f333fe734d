//! Atomics whose every access is relaxed.

use loom::sync::atomic::Ordering;

mod sync {
    pub(super) use crate::sync::Lock;
    pub(super) use crate::sync::Ordering;
    pub(super) use crate::sync::wake;

    #[derive(Debug)]
    pub(super) struct AtomicUsize(loom::sync::atomic::AtomicUsize);

    impl AtomicUsize {
        pub(super) fn new(value: usize) -> Self {
            Self(loom::sync::atomic::AtomicUsize::new(value))
        }

        pub(super) fn load(&self, _: Ordering) -> usize {
            self.0.load(Ordering::Relaxed)
        }

        pub(super) fn fetch_add(&self, value: usize, _: Ordering) -> usize {
            self.0.fetch_add(value, Ordering::Relaxed)
        }

        pub(super) fn fetch_sub(&self, value: usize, _: Ordering) -> usize {
            self.0.fetch_sub(value, Ordering::Relaxed)
        }

        pub(super) fn fetch_or(&self, value: usize, _: Ordering) -> usize {
            self.0.fetch_or(value, Ordering::Relaxed)
        }

        pub(super) fn fetch_and(&self, value: usize, _: Ordering) -> usize {
            self.0.fetch_and(value, Ordering::Relaxed)
        }

        pub(super) fn fetch_update(
            &self,
            _: Ordering,
            _: Ordering,
            update: impl FnMut(usize) -> Option<usize>,
        ) -> Result<usize, usize> {
            self.0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update)
        }
    }
}

#[allow(dead_code)]
#[path = "../../../src/group/engine/latch.rs"]
mod latch;

#[test]
#[should_panic(expected = "what the member did is not seen")]
fn without_its_orderings_the_latch_hides_what_a_member_did() {
    crate::harness::model(|| {
        let latch = loom::sync::Arc::new(latch::Latch::new());
        let done = loom::sync::Arc::new(loom::sync::atomic::AtomicBool::new(false));
        assert!(latch.enter());
        let member = loom::thread::spawn({
            let latch = loom::sync::Arc::clone(&latch);
            let done = loom::sync::Arc::clone(&done);
            move || {
                done.store(true, Ordering::Relaxed);
                latch.leave()
            }
        });
        loom::future::block_on(latch.alone());
        assert!(
            done.load(Ordering::Relaxed),
            "what the member did is not seen"
        );
        member.join().unwrap();
    });
}
