//! Structured concurrency and graceful shutdown for Tokio.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod panic;
mod bounded;
mod label;
mod signal;
mod cause;
mod running;
mod error;
mod group;
#[cfg(feature = "signal")]
mod signals;
mod exit;

pub use crate::cause::{Cause, FailedTask};
pub use crate::error::{Cancelled, Failure, TaskError, TimedOut};
pub use crate::exit::{Exit, ExitError, ExitPolicy, SignalStatus};
pub use crate::group::{
    BuildError, Builder, JoinError, SpawnError, Spawner, Task, TaskGroup, TaskHandle,
};
pub use crate::panic::Panic;
pub use crate::running::{Running, RunningTask};
pub use crate::signal::Signal;
#[cfg(feature = "signal")]
pub use crate::signals::Signals;

pub use tokio_util::sync::CancellationToken;

/// The error of a plain group: any error, so that `?` takes all of them.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
