//! The lifecycle, through its public API, on a paused clock.

mod after_stop;
mod blocked_observer;
mod budget;
mod composed;
mod context;
mod done;
mod failure;
mod force;
mod kinds;
mod nested;
mod observe;
mod odd;
mod one;
mod order;
mod printing;
mod random;
mod running;
#[cfg(feature = "axum")]
mod servers;
mod stages;
mod start;
mod stop;
mod support;
mod threads;
mod traits;
mod urgent;
mod user;
mod values;
