//! [`StopSignal`]: what tells a server to stop.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::in_flight::{Counted, InFlight};
use crate::lock::lock;

/// What tells a server to stop: a token, or the [`Context`](crate::lifecycle::Context) of a component.
///
/// With a token, the server has its own grace. With a context it has no more than what is left of
/// the time of its component, so that the budget of the lifecycle holds, and all of that if it
/// asked for no grace.
///
/// This trait is sealed.
///
/// # Examples
///
/// ```
/// use taskgroup::{CancellationToken, Sidecar, SidecarError, StopSignal};
///
/// async fn serve(stop: &impl StopSignal) -> Result<(), SidecarError> {
///     let server = |stop| async move { Ok::<_, std::io::Error>(drop(stop.await)) };
///     Sidecar::new("echo").serve(stop, server).await
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), SidecarError> {
/// let token = CancellationToken::new();
/// token.cancel();
/// serve(&token).await
/// # }
/// ```
pub trait StopSignal: sealed::Parts {}

impl StopSignal for CancellationToken {}

impl sealed::Parts for CancellationToken {
    fn parts(&self) -> Parts {
        Parts {
            token: self.clone(),
            leaving: None,
            limit: Limit::default(),
            in_flight: None,
        }
    }
}

/// What a server needs of a [`StopSignal`].
#[derive(Clone, Debug)]
pub struct Parts {
    pub(crate) token: CancellationToken,
    /// Fires in the middle of a lame duck that somebody else is.
    #[cfg_attr(not(any(feature = "axum", feature = "tonic")), allow(dead_code))]
    pub(crate) leaving: Option<CancellationToken>,
    pub(crate) limit: Limit,
    in_flight: Option<Arc<InFlight>>,
}

impl Parts {
    pub(crate) fn new(
        token: CancellationToken,
        leaving: CancellationToken,
        limit: Limit,
        in_flight: Arc<InFlight>,
    ) -> Self {
        Self {
            token,
            leaving: Some(leaving),
            limit,
            in_flight: Some(in_flight),
        }
    }

    /// Lets whoever stops the server know what is in flight in it, at any time; see [`InFlight::add`].
    #[cfg_attr(not(any(feature = "axum", feature = "tonic")), allow(dead_code))]
    #[must_use]
    pub(crate) fn count_in_flight(
        &self,
        count: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Option<Counted> {
        Some(self.in_flight.as_ref()?.add(count))
    }
}

/// What is kept of the time that a server may take.
const KEPT: Duration = Duration::from_millis(50);

/// Until when a stop may take, which is known once it has begun. It is set before the token fires,
/// and may come nearer afterwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limit(Option<Arc<Mutex<Option<Instant>>>>);

impl Limit {
    pub(crate) fn to_be_set() -> Self {
        Self(Some(Arc::default()))
    }

    /// Returns the grace of a server: the one it asked for, or else all that there will be if that is
    /// limited, and `default` if it is not.
    pub(crate) fn grace(&self, asked: Option<Duration>, default: Duration) -> Duration {
        let all = self.0.as_ref().map(|_| Duration::MAX);
        asked.or(all).unwrap_or(default)
    }

    /// `None` is no limit.
    pub(crate) fn set(&self, deadline: Option<Instant>) {
        if let Some(limit) = &self.0 {
            *lock(limit) = deadline;
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let limit = self.0.as_ref()?;
        *lock(limit)
    }

    /// Returns what is left, if there is a limit. A little is kept, so that a server that uses up
    /// all of it ends by itself, with its own error, before it is forced.
    pub(crate) fn left(&self) -> Option<Duration> {
        let left = self.deadline()?.saturating_duration_since(Instant::now());
        Some(left.saturating_sub(KEPT.min(left / 10)))
    }
}

mod sealed {
    pub trait Parts {
        #[doc(hidden)]
        fn parts(&self) -> super::Parts;
    }
}

pub(crate) use sealed::Parts as StopParts;
