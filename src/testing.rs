//! A kit for the tests of a service, with the feature `test-util`.
//!
//! | to | use |
//! |---|---|
//! | fail a test that leaves a task, a thread, a descriptor or a child process behind | [`Leaks`] |
//! | have a component or a task behave badly, and see what was asked of it | [`Fake`], [`Journal`] |
//! | run a lifecycle through a scripted stop, on a paused clock | [`simulate`] |
//! | the same with many random scenarios, each of which can be run again | [`Seeds`], [`Dice`] |
//! | connect two parts on a paused clock, well or badly | [`Link`] |
//! | start the built program, signal it, and see how it ends and what it leaves (Unix) | [`Binary`], [`Process`] |
//! | have clients ask while it stops, and count what is lost (Unix) | [`Load`] |
//!
//! `docs/testing.md` has five tests that every service should have.
//!
//! The kit is for `[dev-dependencies]`. Its types panic where a test should fail.

// A test fails by a panic, and gives the reason on stderr.
#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod say;
mod leaks;
mod journal;
mod dice;
mod fake;
mod link;
mod stage;
mod simulation;
mod seeds;
#[cfg(unix)]
mod directory;
#[cfg(unix)]
mod ended;
#[cfg(unix)]
mod process;
#[cfg(unix)]
mod binary;
#[cfg(unix)]
mod load;

#[cfg(unix)]
pub use self::binary::Binary;
pub use self::dice::Dice;
#[cfg(unix)]
pub use self::ended::Ended;
pub use self::fake::{Act, Fake, Moment};
pub use self::journal::Journal;
pub use self::leaks::Leaks;
pub use self::link::{Link, LinkEnd};
#[cfg(unix)]
pub use self::load::{Load, Loaded, Reply};
#[cfg(unix)]
pub use self::process::Process;
pub use self::seeds::Seeds;
pub use self::simulation::{Outcome, simulate};
pub use self::stage::Stage;
