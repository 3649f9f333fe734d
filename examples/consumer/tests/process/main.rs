//! The built binary against a real broker, as processes that are stopped and killed.
#![cfg(unix)]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod broker;
mod consumer;
mod demo;
mod kills;
mod leases;
mod poison;
mod stops;
mod support;
