//! The kit, through its public API.

mod fake;
mod leaks;
mod link;
#[cfg(unix)]
mod process;
mod simulate;
