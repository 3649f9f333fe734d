//! A kit for the tests of a service; with the feature `test-util`.
//!
//! | to | use |
//! |---|---|
//! | fail a test that leaves a task, a thread, a descriptor or a child process behind | [`Leaks`] |
//!
//! The kit is for `[dev-dependencies]`: its types panic where a test should fail.

// A test fails by a panic, and says why on stderr.
#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod leaks;

pub use self::leaks::Leaks;
