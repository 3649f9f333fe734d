//! The primitives the group's engine stands on; the loom models put their own in this place.

use std::task::Waker;

pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(crate) use tokio_util::sync::CancellationToken;

pub(crate) use crate::group::lock::Lock;
use crate::group::panic::Panic;

/// Wakes a task of the user's, and swallows the panic of its waker: whoever wakes has a group to leave.
pub(crate) fn wake(waker: Waker) {
    if let Err(panic) = Panic::catch(|| waker.wake()) {
        panic.discard();
    }
}
