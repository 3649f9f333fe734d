//! What every model needs: the bound, and a waker that remembers.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;

use loom::sync::atomic::AtomicBool;
use loom::sync::atomic::Ordering;

/// Runs a model with at most three preemptions in one interleaving, which is what the races that are
/// known from the field need; `LOOM_MAX_PREEMPTIONS` sets another bound.
pub(crate) fn model(run: impl Fn() + Send + Sync + 'static) {
    model_with(3, run);
}

/// The same with another bound. Loom leaves out interleavings that it takes for equal, and with a low bound
/// some of those that it means are not reached.
pub(crate) fn model_with(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(run);
}

/// A waker that notes that it was woken.
#[derive(Debug)]
pub(crate) struct Bell(AtomicBool);

impl Bell {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(false)))
    }

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    pub(crate) fn has_rung(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls `future` once; if it is pending, does the rest and returns whether it was woken for it.
///
/// A lost wake-up is found this way as an assertion of the caller, where waiting for it would be a
/// deadlock, which loom can only answer with an abort of the whole process.
pub(crate) fn is_ready_or_woken(future: impl Future<Output = ()>, rest: impl FnOnce()) -> bool {
    let bell = Bell::new();
    let mut future = pin!(future);
    let first = future
        .as_mut()
        .poll(&mut Context::from_waker(&bell.waker()));
    rest();
    first == Poll::Ready(()) || bell.has_rung()
}

/// Polls `future` once, drops it, and returns whether it was ready.
pub(crate) fn is_ready_at_once(future: impl Future<Output = ()>) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
}
