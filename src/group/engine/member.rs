//! The future and the closure that wrap a member of a group.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;
use tokio_util::sync::CancellationToken;
use tracing::Span;
use tracing::span::Entered;

use super::handle::NoValue;
use super::seat::{Class, Marks, Seat};
use super::slots::Holding;
use super::value::Place;
use crate::group::panic::Panic;

pin_project! {
    /// A task, which is the user's future and then its seat.
    ///
    /// An `async` block would store the future twice. The future is dropped before the seat is left,
    /// here and nowhere else, so nothing of a task remains when it is over.
    pub(crate) struct Member<F, E> {
        #[pin]
        body: Body<F>,
        class: Arc<Class<E>>,
    }

    impl<F, E> PinnedDrop for Member<F, E> {
        fn drop(this: Pin<&mut Self>) {
            if !this.is_over() {
                this.end_early();
            }
        }
    }
}

pin_project! {
    /// The seat's marks are stored here, so that the tag fits into one of them. An `Option` of the
    /// future would need 8 bytes of its own, and Tokio rounds the memory of a task up to 128.
    #[project = BodyParts]
    enum Body<F> {
        Alive {
            #[pin]
            future: F,
            marks: Marks,
        },
        Over,
    }
}

impl<F, E> Member<F, E> {
    pub(crate) fn new(future: F, Seat { class, marks }: Seat<E>) -> Self {
        Self {
            body: Body::Alive { future, marks },
            class,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.body, Body::Over)
    }

    /// Ends a member that is dropped before its future is ready.
    #[cold]
    #[inline(never)]
    fn end_early(self: Pin<&mut Self>) {
        self.end(Class::leave);
    }

    /// Drops the future, then gives the seat up with `leave`. Does this only once.
    #[inline(always)]
    fn end(self: Pin<&mut Self>, leave: impl FnOnce(&Class<E>, Marks)) {
        let mut this = self.project();
        if let BodyParts::Alive { marks, .. } = this.body.as_mut().project() {
            let mut marks = marks.take();
            let body = &mut this.body;
            this.class.release(&mut marks, || body.set(Body::Over));
            leave(this.class, marks);
        }
    }

    /// Notes that this member's code is running now, if it has a slot.
    fn hold(&self) -> Option<Holding> {
        match &self.body {
            Body::Alive { marks, .. } => self.class.hold(marks),
            Body::Over => None,
        }
    }

    fn marks(self: Pin<&mut Self>) -> Option<&mut Marks> {
        match self.project().body.project() {
            BodyParts::Alive { marks, .. } => Some(marks),
            BodyParts::Over => None,
        }
    }
}

impl<F, E> Member<F, E> {
    /// Makes an abort wake the task that polls this now, and returns whether there has been an abort.
    /// For a member that is not a task of its own, and so may be polled by several tasks.
    pub(crate) fn repark(self: Pin<&mut Self>, waker: &Waker) -> bool {
        let this = self.project();
        match this.body.project() {
            BodyParts::Alive { marks, .. } => this.class.repark(marks, waker),
            BodyParts::Over => false,
        }
    }

    /// Polls the future, and lets the caller end the member when it is ready.
    #[inline(always)]
    pub(crate) fn poll_unended<T>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, NoValue>>
    where
        F: Future<Output = Result<Option<T>, E>>,
    {
        let this = self.project();
        let class = this.class;
        let BodyParts::Alive { future, marks } = this.body.project() else {
            return Poll::Ready(Err(NoValue::Aborted));
        };
        if class.is_aborted() {
            marks.set_ended();
            return Poll::Ready(Err(NoValue::Aborted));
        }
        match Panic::catch(|| future.poll(cx).map(|output| class.end(marks, output))) {
            Ok(Poll::Pending) => {
                if class.park(marks, cx.waker()) {
                    marks.set_ended();
                    return Poll::Ready(Err(NoValue::Aborted));
                }
                Poll::Pending
            }
            Ok(Poll::Ready(ended)) => Poll::Ready(ended),
            Err(panic) => Poll::Ready(Err(class.end_by_panic(marks, panic))),
        }
    }
}

impl<F, T, E> Future for Member<F, E>
where
    F: Future<Output = Result<Option<T>, E>>,
{
    type Output = Result<T, NoValue>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let poll = self.as_mut().poll_unended(cx);
        if poll.is_ready() {
            // Tokio would drop it next. Here the marks are at hand, and only a few must be checked.
            self.end(Class::leave_ended);
        }
        poll
    }
}

/// Resolves to whether the task got a slot. It gets none once the group has been cancelled.
pub(crate) type Admission = Pin<Box<dyn Future<Output = bool> + Send>>;

pin_project! {
    /// A task of a limited group, or one that runs in a span.
    pub(crate) struct Wrapped<F, E> {
        // Boxed, so that a task that has left the queue only carries a pointer for it.
        admission: Option<Admission>,
        span: Option<Span>,
        #[pin]
        member: Member<F, E>,
    }

    impl<F, E> PinnedDrop for Wrapped<F, E> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if !this.member.is_over() {
                let _entered = enter(this.span.as_ref());
                this.member.end_early();
            }
        }
    }
}

impl<F, E> Wrapped<F, E> {
    pub(crate) fn new(
        admission: Option<Admission>,
        span: Option<Span>,
        member: Member<F, E>,
    ) -> Self {
        Self {
            admission,
            span,
            member,
        }
    }
}

impl<F, T, E> Future for Wrapped<F, E>
where
    F: Future<Output = Result<Option<T>, E>>,
{
    type Output = Result<T, NoValue>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(marks) = this.member.as_mut().marks() else {
            return Poll::Ready(Err(NoValue::Refused));
        };
        if let Some(admission) = this.admission {
            let admitted = ready!(admission.as_mut().poll(cx));
            *this.admission = None;
            if !admitted {
                marks.set_ended();
                return Poll::Ready(Err(NoValue::Refused));
            }
            marks.hold_kept_slot();
        }
        let _entered = enter(this.span.as_ref());
        let _holding = this.member.hold();
        this.member.poll(cx)
    }
}

/// A subscriber is user code, and it must not be able to end the task.
fn enter(span: Option<&Span>) -> Option<Entered<'_>> {
    span.and_then(|span| Panic::catch(|| span.enter()).ok())
}

pin_project! {
    /// A future whose value Tokio stores.
    pub(crate) struct Returning<F> {
        #[pin]
        future: F,
    }
}

impl<F> Returning<F> {
    #[inline]
    pub(crate) fn new(future: F) -> Self {
        Self { future }
    }
}

impl<F, T, E> Future for Returning<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<Option<T>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll(cx).map_ok(Some)
    }
}

pin_project! {
    /// A future whose value goes to the place.
    pub(crate) struct Sending<F, T> {
        #[pin]
        future: F,
        place: Place<T>,
    }
}

impl<F, T> Sending<F, T> {
    pub(crate) fn new(future: F, place: Place<T>) -> Self {
        Self { future, place }
    }
}

impl<F, T, E> Future for Sending<F, T>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<Option<T>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let output = ready!(this.future.poll(cx));
        Poll::Ready(output.map(|value| {
            this.place.put(value);
            None
        }))
    }
}

/// A closure for a thread, which is the user's closure and then its seat.
pub(crate) struct BlockingMember<F, E> {
    closure: Option<F>,
    span: Option<Span>,
    seat: Seat<E>,
}

impl<F, E> BlockingMember<F, E> {
    pub(crate) fn new(closure: F, seat: Seat<E>, span: Option<Span>) -> Self {
        Self {
            closure: Some(closure),
            span,
            seat,
        }
    }

    pub(crate) fn marks(&mut self) -> &mut Marks {
        &mut self.seat.marks
    }

    pub(crate) fn run<T>(mut self) -> Result<T, NoValue>
    where
        F: FnOnce(&CancellationToken) -> Result<Option<T>, E>,
    {
        let Seat { class, marks } = &mut self.seat;
        let Some(closure) = self.closure.take_if(|_| !class.is_aborted()) else {
            marks.set_ended();
            return Err(NoValue::Aborted);
        };
        let token = class.shared().token().clone();
        let _holding = class.hold(marks);
        let _entered = enter(self.span.as_ref());
        match Panic::catch(|| class.end(marks, closure(&token))) {
            Ok(ended) => ended,
            Err(panic) => Err(class.end_by_panic(marks, panic)),
        }
    }
}

/// A thread pool that shuts down drops its closure without running it.
impl<F, E> Drop for BlockingMember<F, E> {
    fn drop(&mut self) {
        let Seat { class, marks } = &mut self.seat;
        let closure = self.closure.take();
        class.release(marks, || drop(closure));
        class.leave(*marks);
    }
}
