//! The primitives the gate's engine stands on; the loom models put their own in this place.

pub(super) use std::sync::atomic::{AtomicBool, Ordering};

pub(super) use crate::group::lock::Lock;
