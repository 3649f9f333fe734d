//! The built binary, as a process: what clients, shells and supervisors see of it.
#![cfg(unix)]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod check_deploy;
mod database;
mod demo;
mod failure;
mod health;
mod http;
mod lame_duck;
mod metrics;
mod orders;
mod plan;
mod postgres;
mod service;
mod start;
mod stop;
mod stop_file;
mod watchdog;
mod ws;
