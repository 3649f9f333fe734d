//! What a server does with its connections before any stop, over real sockets.
//!
//! Time is paused where a timeout is all that is waited for, and is moved by hand elsewhere.

mod age;
mod answers;
mod idle;
mod limit;
mod lingering;
mod raw;
mod proxy;
mod report;
mod upgrades;
#[path = "../axum/peers.rs"]
#[allow(dead_code, reason = "a part is used")]
mod peers;
#[path = "../support/mod.rs"]
mod support;
