//! [`Policy`]: how items are treated, apart from their handler.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::job::Job;
use super::parcel::{HandedBack, SharedError};
use super::run::{passed, run_until};
use crate::BoxError;
use crate::backoff::Backoff;
use crate::group::time::Rounded;

/// How items are treated, apart from their handler.
pub(super) struct Policy<T: Send + 'static, R: Send + 'static> {
    /// How often an item is tried, and how long it waits in between. `None` tries it once.
    pub(super) retry: Option<(Backoff, u32)>,
    pub(super) on_failure: OnFailure,
    pub(super) parks_failed_keys: bool,
    pub(super) dead_letter: Option<DeadLetter<T, R>>,
    pub(super) hand_back: Option<HandBack<T, R>>,
    pub(super) hand_back_within: Duration,
}

/// The effect of an item's last failure, if no dead-letter function takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// It stops the pool, and is a failure of its group.
    #[default]
    FailGroup,
    /// It is logged as a warning and counted, and the other items go on.
    Count,
}

pub(super) type Doing = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

pub(super) type DeadLetter<T, R> = Box<dyn Fn(Job<T, R>) -> Doing + Send + Sync>;

pub(super) type HandBack<T, R> = Box<dyn Fn(Vec<HandedBack<T, R>>) -> Doing + Send + Sync>;

/// Hands items back until this time.
pub(super) async fn run_hand_back<T: Send + 'static, R: Send + 'static>(
    hand_back: &HandBack<T, R>,
    items: Vec<HandedBack<T, R>>,
    until: Option<Instant>,
) -> Result<(), SharedError> {
    let began = Instant::now();
    match run_until(|| hand_back(items), pin!(passed(until))).await {
        Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(error.into()),
        Some(Err(panic)) => Err(Arc::new(panic)),
        None => Err(Arc::new(Late(began.elapsed()))),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it did not return within {time}", time = Rounded(*.0))]
struct Late(Duration);
