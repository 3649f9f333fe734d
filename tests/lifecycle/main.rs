//! The lifecycle, through its public API, on a paused clock.

mod context;
mod nested;
mod random;
mod stages;
mod start;
mod stop;
mod support;
