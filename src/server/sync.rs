//! The primitives of [`switch`](super::switch). The loom models replace this module with their own.

pub(crate) use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use crate::group::lock::Lock;
