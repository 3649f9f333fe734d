//! What goes wrong with an order, for tests and for the curious. Only with `--faults`.

use std::future::pending;

use serde::{Deserialize, Serialize};
use taskgroup::pipeline::JobError;

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fault {
    /// Each attempt fails.
    Fail,
    /// Each attempt fails but the last.
    FailTwice,
    Panic,
    /// It never ends.
    Hang,
    /// It takes the process along.
    Abort,
}

impl Fault {
    pub(crate) async fn happen(self, attempt: u32) -> Result<(), JobError> {
        match self {
            Self::FailTwice if attempt > 2 => Ok(()),
            Self::Fail | Self::FailTwice => Err(JobError::failed("a fault was asked for: failure")),
            Self::Panic => panic!("a fault was asked for: panic"),
            Self::Hang => Ok(pending().await),
            Self::Abort => std::process::abort(),
        }
    }
}
