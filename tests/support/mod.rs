//! What the tests of several binaries share. Each binary uses a part of it.
#![allow(dead_code, reason = "each binary uses a part")]

pub(crate) mod alive;
pub(crate) mod leaks;
#[cfg(unix)]
pub(crate) mod place;
#[cfg(any(feature = "axum", feature = "tonic"))]
pub(crate) mod server;
pub(crate) mod wait;
