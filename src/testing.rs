//! A kit for the tests of a service; with the feature `test-util`.
//!
//! | to | use |
//! |---|---|
//! | fail a test that leaves a task, a thread, a descriptor or a child process behind | [`Leaks`] |
//! | have a component or a task behave badly, and see what was asked of it | [`Fake`], [`Journal`] |
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
mod journal;
mod dice;
mod fake;

pub use self::dice::Dice;
pub use self::fake::{Act, Fake, Moment};
pub use self::journal::Journal;
pub use self::leaks::Leaks;
