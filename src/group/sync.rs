//! The primitives the group's engine stands on; the loom models put their own in this place.

pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(super) use crate::lock::Lock;
