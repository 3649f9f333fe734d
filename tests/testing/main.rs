//! The kit, through its public API.

mod leaks;
