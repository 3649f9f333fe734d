//! Structured concurrency and graceful shutdown for Tokio.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod panic;
mod signal;
mod on_cancel;
mod sidecar;

pub use crate::on_cancel::CallbackOutcome;
pub use crate::on_cancel::OnCancel;
pub use crate::sidecar::Sidecar;
pub use crate::sidecar::SidecarError;
pub use crate::signal::Signal;

pub use tokio_util::sync::CancellationToken;

/// The error of a plain group: any error, so that `?` takes all of them.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
