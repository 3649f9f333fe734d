//! The future, and the closure, that wrap a member of a group.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio_util::sync::CancellationToken;

use super::handle::JoinError;
use super::seat::Seat;
use crate::error::Failure;
use crate::panic::Panic;

pin_project! {
    /// A task: the user's future, then its seat.
    ///
    /// An `async` block in its place would store the future twice. The future is dropped before the
    /// seat, here and in no other place, so that a task is over when nothing of it is left.
    pub(super) struct Member<F, E> {
        #[pin]
        future: Option<F>,
        seat: Seat<E>,
    }

    impl<F, E> PinnedDrop for Member<F, E> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let future = &mut this.future;
            this.seat.release(|| future.set(None));
        }
    }
}

impl<F, E> Member<F, E> {
    pub(super) fn new(future: F, seat: Seat<E>) -> Self {
        Self {
            future: Some(future),
            seat,
        }
    }
}

impl<F, T, E> Future for Member<F, E>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let seat = this.seat;
        let Some(future) = this.future.as_pin_mut() else {
            return Poll::Ready(Err(JoinError::Aborted));
        };
        if seat.is_aborted() {
            seat.set_ended();
            return Poll::Ready(Err(JoinError::Aborted));
        }
        // Whatever the result, tokio drops this future next, and with it the user's.
        match Panic::catch(|| future.poll(cx)) {
            Ok(Poll::Pending) if seat.park(cx.waker()) => {
                seat.set_ended();
                Poll::Ready(Err(JoinError::Aborted))
            }
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(value))) => {
                seat.returned();
                Poll::Ready(Ok(value))
            }
            Ok(Poll::Ready(Err(error))) => {
                seat.fail(Failure::Failed(error));
                Poll::Ready(Err(JoinError::Failed))
            }
            Err(panic) => {
                seat.fail(Failure::Panicked(panic));
                Poll::Ready(Err(JoinError::Panicked))
            }
        }
    }
}

pin_project! {
    /// A task that must get a slot of its group before it starts.
    pub(super) struct Queued<F, E> {
        // Boxed, so that a task which is past the queue carries no more than a pointer for it.
        admission: Option<Admission>,
        #[pin]
        member: Member<F, E>,
    }
}

/// Resolves to whether a slot was kept for the task; none is once the group has been cancelled.
pub(super) type Admission = Pin<Box<dyn Future<Output = bool> + Send>>;

impl<F, E> Queued<F, E> {
    pub(super) fn new(admission: Admission, member: Member<F, E>) -> Self {
        Self {
            admission: Some(admission),
            member,
        }
    }
}

impl<F, T, E> Future for Queued<F, E>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(admission) = this.admission {
            let admitted = std::task::ready!(admission.as_mut().poll(cx));
            *this.admission = None;
            let seat = this.member.as_mut().project().seat;
            if !admitted {
                seat.set_ended();
                return Poll::Ready(Err(JoinError::Refused));
            }
            seat.hold_kept_slot();
        }
        this.member.poll(cx)
    }
}

/// A closure for a thread: the user's closure, then its seat.
pub(super) struct BlockingMember<F, E> {
    closure: Option<F>,
    seat: Seat<E>,
}

impl<F, E> BlockingMember<F, E> {
    pub(super) fn new(closure: F, seat: Seat<E>) -> Self {
        Self {
            closure: Some(closure),
            seat,
        }
    }

    pub(super) fn seat(&mut self) -> &mut Seat<E> {
        &mut self.seat
    }

    pub(super) fn run<T>(mut self) -> Result<T, JoinError>
    where
        F: FnOnce(&CancellationToken) -> Result<T, E>,
    {
        let Some(closure) = self.closure.take_if(|_| !self.seat.is_aborted()) else {
            self.seat.set_ended();
            return Err(JoinError::Aborted);
        };
        let token = self.seat.shared().token().clone();
        match Panic::catch(|| closure(&token)) {
            Ok(Ok(value)) => {
                self.seat.returned();
                Ok(value)
            }
            Ok(Err(error)) => {
                self.seat.fail(Failure::Failed(error));
                Err(JoinError::Failed)
            }
            Err(panic) => {
                self.seat.fail(Failure::Panicked(panic));
                Err(JoinError::Panicked)
            }
        }
    }
}

/// The closure of a thread pool that shuts down is dropped without having run.
impl<F, E> Drop for BlockingMember<F, E> {
    fn drop(&mut self) {
        let closure = self.closure.take();
        self.seat.release(|| drop(closure));
    }
}
