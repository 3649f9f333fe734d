//! The kit, through its public API.

mod fake;
mod leaks;
mod link;
mod simulate;
