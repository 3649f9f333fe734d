//! The primitives the group's engine stands on; the loom models put their own in this place.

use std::task::Waker;

pub(super) use std::sync::OnceLock;
pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(super) use tokio_util::sync::CancellationToken;

pub(super) use crate::lock::Lock;
use crate::panic::Panic;

/// Wakes a task of the user's, and swallows the panic of its waker: whoever wakes has a group to leave.
pub(super) fn wake(waker: Waker) {
    if let Err(panic) = Panic::catch(|| waker.wake()) {
        panic.discard();
    }
}
