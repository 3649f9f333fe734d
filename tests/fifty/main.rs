//! Fifty components in a process of their own, each with work in flight, under load, and SIGTERM.
//!
//! The child is a shop of databases, caches, repositories, workers and real servers, and looks at itself when it
//! is over; the parent has the clients, and knows what was asked and what was answered. The longest chain to
//! the tick is in tests/lifecycle_fifty.rs, where the clock is paused.

#[cfg(unix)]
#[allow(dead_code)]
#[path = "../process/child.rs"]
mod child;
#[cfg(unix)]
mod clients;
#[cfg(unix)]
#[path = "../process/runner.rs"]
mod runner;
#[cfg(unix)]
mod shop;
#[cfg(unix)]
#[path = "../support/mod.rs"]
mod support;

#[cfg(unix)]
fn main() -> taskgroup::Exit {
    match std::env::var(child::ROLE) {
        Ok(_) => shop::play(),
        Err(_) => runner::run(&[clients::TESTS]),
    }
}

#[cfg(not(unix))]
fn main() {}
