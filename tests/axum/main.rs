//! Servers of `taskgroup::server::axum` and their peers, over real sockets. The names begin with the number
//! of the requirement that they show.
//!
//! Time is real, and nothing depends on it, except that what hangs on purpose is given a short grace.
//! Time that is paused runs ahead of sockets; it is used only where what is waited for is a timeout.

mod lame_duck;
mod drain;
mod cut;
mod ends;
mod limits;
#[cfg(unix)]
mod listeners;
mod services;
mod tls;
mod panics;
#[cfg(feature = "ws")]
mod ws;
mod peers;
#[path = "../pki/mod.rs"]
mod pki;
#[path = "../support/mod.rs"]
mod support;
