//! A [`Panic`] holds the payload of a task's panic.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::task::Poll;

use crate::group::boxed::OneBox;
use crate::group::lock::into_inner;

/// The payload of a panic that was caught in a task.
///
/// It is the [`source`](std::error::Error::source) of the error that reports the panic, and prints as
/// the panic's message.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::new();
/// group.spawn(async { if true { panic!("no such table") } Ok(()) });
///
/// let panic = group.wait().await.unwrap_err().into_panic().unwrap();
/// assert_eq!(panic.message(), "no such table");
/// # });
/// ```
// Boxed, because the poll of every task reserves space for one.
pub struct Panic(OneBox<Thrown>);

struct Thrown {
    message: String,
    // A payload is only `Send`. The lock makes it `Sync`, so that errors can be shared.
    payload: Mutex<Box<dyn Any + Send>>,
}

impl Panic {
    /// Returns the panic's message, or a note that the payload was not a string.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the payload as it was thrown.
    #[must_use]
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        into_inner(self.0.into_inner().payload)
    }

    /// Continues the panic in the calling thread, without running the panic hook again.
    pub fn resume(self) -> ! {
        panic::resume_unwind(self.into_payload())
    }

    /// Runs `f` and catches its panic.
    ///
    /// This crate never looks at state that `f` leaves half done. It only drops a future that panicked.
    pub(crate) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, Self> {
        panic::catch_unwind(AssertUnwindSafe(f)).map_err(Self::new)
    }

    /// Runs `future` to its end and drops it, and catches the panic of either.
    pub(crate) async fn catch_future<F: Future>(future: F) -> Result<F::Output, Self> {
        let mut future = Box::pin(future);
        let output = poll_fn(|cx| match Self::catch(|| future.as_mut().poll(cx)) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        })
        .await;
        let dropped = Self::catch(|| drop(future));
        output.and_then(|output| dropped.map(|()| output))
    }

    /// Drops a user's value, and catches the panic of its destructor.
    pub(crate) fn catch_drop<T>(value: T) -> Result<(), Self> {
        Self::catch(|| drop(value))
    }

    /// Drops the payload, whose destructor is user code too.
    pub(crate) fn discard(self) {
        let payload = self.into_payload();
        if let Err(again) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            // A second payload that might panic is leaked, because this could go on forever.
            let _: &mut _ = Box::leak(again);
        }
    }

    // Out of line, because it would otherwise be part of the poll of every task.
    #[cold]
    #[inline(never)]
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        Self(OneBox::new(Thrown {
            message: message(&*payload).to_owned(),
            payload: Mutex::new(payload),
        }))
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(message) = payload.downcast_ref::<&str>() {
        message
    } else if let Some(message) = payload.downcast_ref::<String>() {
        message
    } else {
        "(the payload is no string)"
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Panic {}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Panic")
            .field("message", &self.0.message)
            .finish_non_exhaustive()
    }
}
