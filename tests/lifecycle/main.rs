//! The lifecycle, through its public API, on a paused clock.

mod start;
mod stop;
mod support;
