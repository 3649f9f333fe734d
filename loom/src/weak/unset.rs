//! An abort, or a cut, that goes by the wakers alone, without the flag.

mod sync {
    pub(super) use crate::sync::Lock;
    pub(super) use crate::sync::Ordering;

    #[derive(Debug, Default)]
    pub(super) struct AtomicBool;

    impl AtomicBool {
        pub(super) fn new(_: bool) -> Self {
            Self
        }

        pub(super) fn load(&self, _: Ordering) -> bool {
            false
        }

        pub(super) fn store(&self, _: bool, _: Ordering) {}
    }
}

#[allow(dead_code)]
#[path = "../../../src/group/engine/wakers.rs"]
mod wakers;

#[allow(dead_code)]
#[path = "../../../src/server/switch.rs"]
mod switch;

#[test]
#[should_panic(expected = "the abort is lost")]
fn without_the_flag_an_abort_is_lost() {
    crate::harness::model(|| {
        let wakers = loom::sync::Arc::new(wakers::Wakers::default());
        let task = loom::thread::spawn({
            let wakers = loom::sync::Arc::clone(&wakers);
            move || {
                let bell = crate::harness::Bell::new();
                wakers.insert(bell.waker());
                (wakers.is_aborted(), bell)
            }
        });
        wakers.abort();
        let (seen, bell) = task.join().unwrap();
        assert!(seen || bell.has_rung(), "the abort is lost");
    });
}

#[test]
#[should_panic(expected = "the cut is lost")]
fn without_the_flag_a_cut_is_lost() {
    crate::harness::model(|| {
        let switch = loom::sync::Arc::new(switch::Switch::new());
        let pending = loom::thread::spawn({
            let switch = loom::sync::Arc::clone(&switch);
            move || {
                let bell = crate::harness::Bell::new();
                let waker = bell.waker();
                let cx = std::task::Context::from_waker(&waker);
                let seen = switch.watch(&mut switch::Seat::default(), &cx, || ());
                (seen, bell)
            }
        });
        switch.fire();
        let (seen, bell) = pending.join().unwrap();
        assert!(seen || bell.has_rung(), "the cut is lost");
    });
}
