//! The primitives of the gate's engine. The loom models replace this module with their own.

pub(super) use std::sync::atomic::{AtomicBool, Ordering};

pub(super) use crate::group::lock::Lock;
