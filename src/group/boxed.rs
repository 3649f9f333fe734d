//! Boxes whose drop is one call.
//!
//! The compiler writes the destructor of a `Box` out in each codegen unit that drops one, with the
//! destructors of all fields. For the errors of this crate that was a tenth of the code of a small
//! program. Here the destructor is a function that is never inlined, so it exists once.

use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A `Box` whose drop is one call.
// The field has no destructor of its own. `drop` takes the box out of it.
pub(crate) struct OneBox<T>(ManuallyDrop<Option<Box<T>>>);

impl<T> OneBox<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(ManuallyDrop::new(Some(Box::new(value))))
    }

    pub(crate) fn into_inner(mut self) -> T {
        match self.0.take() {
            Some(value) => *value,
            None => unreachable!("only this call and the drop empty it"),
        }
    }
}

impl<T> Drop for OneBox<T> {
    #[inline(never)]
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

impl<T> Deref for OneBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &*self.0 {
            Some(value) => value,
            None => unreachable!("it is only empty after its end"),
        }
    }
}

impl<T> DerefMut for OneBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut *self.0 {
            Some(value) => value,
            None => unreachable!("it is only empty after its end"),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for OneBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A boxed future whose drop is one call.
pub(crate) struct OneFuture<F>(ManuallyDrop<Option<Pin<Box<F>>>>);

impl<F> OneFuture<F> {
    pub(crate) fn new(future: F) -> Self {
        Self(ManuallyDrop::new(Some(Box::pin(future))))
    }
}

impl<F> Drop for OneFuture<F> {
    #[inline(never)]
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

impl<F: Future> Future for OneFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match &mut *self.0 {
            Some(future) => future.as_mut().poll(cx),
            None => unreachable!("it is only empty after its end"),
        }
    }
}
