//! The lifecycle, through its public API, on a paused clock.

mod random;
mod start;
mod stop;
mod support;
