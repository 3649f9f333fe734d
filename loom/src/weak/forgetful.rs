//! A flag that cannot be seen, so that a waiting task is not known to wait.

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

        pub(super) fn load(&self, order: Ordering) -> usize {
            self.0.load(order)
        }

        pub(super) fn fetch_add(&self, value: usize, order: Ordering) -> usize {
            self.0.fetch_add(value, order)
        }

        pub(super) fn fetch_sub(&self, value: usize, order: Ordering) -> usize {
            self.0.fetch_sub(value, order)
        }

        /// Forgets what it was told.
        pub(super) fn fetch_or(&self, _: usize, order: Ordering) -> usize {
            self.0.fetch_or(0, order)
        }

        pub(super) fn fetch_and(&self, value: usize, order: Ordering) -> usize {
            self.0.fetch_and(value, order)
        }

        pub(super) fn fetch_update(
            &self,
            set: Ordering,
            fetch: Ordering,
            update: impl FnMut(usize) -> Option<usize>,
        ) -> Result<usize, usize> {
            self.0.fetch_update(set, fetch, update)
        }
    }
}

#[allow(dead_code)]
#[path = "../../../src/group/engine/latch.rs"]
mod latch;

#[test]
#[should_panic(expected = "the wake-up is lost")]
fn without_the_flag_a_wake_up_is_lost() {
    crate::harness::model(|| {
        let latch = loom::sync::Arc::new(latch::Latch::new());
        assert!(latch.enter());
        let member = loom::thread::spawn({
            let latch = loom::sync::Arc::clone(&latch);
            move || latch.leave()
        });
        let woken = crate::harness::is_ready_or_woken(latch.alone(), || {
            member.join().unwrap();
        });
        assert!(woken, "the wake-up is lost");
    });
}
