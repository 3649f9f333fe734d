//! Structured concurrency and graceful shutdown for Tokio.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod signal;
#[cfg(feature = "signal")]
mod signals;

pub use crate::signal::Signal;
#[cfg(feature = "signal")]
pub use crate::signals::Signals;

pub use tokio_util::sync::CancellationToken;

/// The error of a plain group: any error, so that `?` takes all of them.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
