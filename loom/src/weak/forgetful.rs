//! A `Notify` that keeps no permit for a waiter who is not there yet.

mod sync {
    pub(super) use crate::sync::AtomicUsize;
    pub(super) use crate::sync::Lock;
    pub(super) use crate::sync::Ordering;

    #[derive(Debug)]
    pub(super) struct Notify(Lock<Option<std::task::Waker>>);

    impl Notify {
        pub(super) fn new() -> Self {
            Self(Lock::default())
        }

        pub(super) fn notify_one(&self) {
            let waiter = self.0.lock().take();
            if let Some(waiter) = waiter {
                waiter.wake();
            }
        }

        pub(super) async fn notified(&self) {
            let mut waited = false;
            std::future::poll_fn(|cx| {
                if std::mem::replace(&mut waited, true) {
                    return std::task::Poll::Ready(());
                }
                *self.0.lock() = Some(cx.waker().clone());
                std::task::Poll::Pending
            })
            .await;
        }
    }
}

#[allow(dead_code)]
#[path = "../../../src/group/latch.rs"]
mod latch;

#[test]
#[should_panic(expected = "the wake-up is lost")]
fn without_the_permit_a_wake_up_is_lost() {
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
