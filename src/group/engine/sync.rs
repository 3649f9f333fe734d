//! The primitives of the group's engine. The loom models replace them with their own.

use std::task::Waker;

pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(crate) use tokio_util::sync::CancellationToken;

pub(crate) use crate::group::lock::Lock;
use crate::group::panic::Panic;

/// Wakes a user's task, and swallows a panic of its waker, because the caller still has a group to
/// leave.
pub(crate) fn wake(waker: Waker) {
    if let Err(panic) = Panic::catch(|| waker.wake()) {
        panic.discard();
    }
}
