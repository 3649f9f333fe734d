//! Structured concurrency and graceful shutdown for Tokio.
#![cfg_attr(docsrs, feature(doc_cfg))]
// A `println!` on the way out panics when the reader has closed the pipe, and the rest have no place
// in a library. Tests and examples may.
#![warn(
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used
)]

mod panic;
mod bounded;
mod label;
mod signal;
mod cause;
mod running;
mod error;
mod group;
mod on_cancel;
mod sidecar;
#[cfg(feature = "signal")]
mod signals;
mod exit;

pub use crate::cause::{Cause, FailedTask};
pub use crate::error::{Cancelled, Failure, TaskError, TimedOut};
pub use crate::exit::{Exit, ExitError, ExitPolicy, SignalStatus};
pub use crate::group::{
    BuildError, Builder, JoinError, SpawnError, Spawner, Task, TaskGroup, TaskHandle,
};
pub use crate::on_cancel::{CallbackOutcome, OnCancel};
pub use crate::panic::Panic;
pub use crate::running::{Running, RunningTask};
pub use crate::sidecar::{Sidecar, SidecarError};
pub use crate::signal::Signal;
#[cfg(feature = "signal")]
pub use crate::signals::Signals;

pub use tokio_util::sync::CancellationToken;

/// The error of a plain group: any error, so that `?` takes all of them.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
