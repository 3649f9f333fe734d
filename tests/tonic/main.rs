//! Servers of `taskgroup::server::tonic` and their peers, over real sockets. The names begin with the number
//! of the requirement that they show.
//!
//! Time is real, and nothing depends on it, except that what hangs on purpose is given a short grace.

mod drain;
mod cut;
mod tls;
mod panics;
mod limits;
mod calls;
#[cfg(unix)]
mod unix;
#[path = "../pki/mod.rs"]
mod pki;
#[path = "../support/mod.rs"]
mod support;
