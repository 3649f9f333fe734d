//! Stops the process, ends it in time, and decides its exit status.
//!
//! [`Signals`](crate::Signals), [`Exit`](crate::Exit) and the entry for programs are at the root of the
//! crate.

mod stop_file;
mod heartbeat;
#[cfg(feature = "signal")]
pub(crate) mod signals;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(all(feature = "systemd", unix))]
pub mod systemd;
mod termination;
pub(crate) mod exit;
#[cfg(feature = "signal")]
mod threads;
#[cfg(feature = "signal")]
mod watchdog;
#[cfg(feature = "signal")]
pub(crate) mod program;

pub use self::exit::ExitPolicy;
pub use self::heartbeat::{Heartbeat, HeartbeatMonitor};
pub use self::stop_file::StopFile;
#[cfg(feature = "signal")]
pub use self::watchdog::{ArmedWatchdog, Watchdog};
