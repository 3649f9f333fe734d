//! Loom's primitives under the names that the crate's `group/sync.rs` and
//! `gate/sync.rs` give.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

pub(crate) use loom::sync::atomic::AtomicBool;
pub(crate) use loom::sync::atomic::AtomicUsize;
pub(crate) use loom::sync::atomic::Ordering;

/// A mutex whose poison is ignored.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(loom::sync::Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What the latch uses of Tokio's `Notify`: one waiter, and one permit that is kept for it.
///
/// Tokio's own is built with the standard library's atomics, which loom cannot interleave.
#[derive(Debug, Default)]
pub(crate) struct Notify(Lock<Permit>);

#[derive(Debug, Default)]
struct Permit {
    given: bool,
    waiter: Option<Waker>,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notify_one(&self) {
        let waiter = {
            let mut permit = self.0.lock();
            permit.given = true;
            permit.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        Notified(self)
    }
}

pub(crate) struct Notified<'a>(&'a Notify);

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut permit = self.0.0.lock();
        if std::mem::take(&mut permit.given) {
            return Poll::Ready(());
        }
        permit.waiter = Some(cx.waker().clone());
        Poll::Pending
    }
}
