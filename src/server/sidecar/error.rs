//! A [`SidecarError`] says how a server ended, if that was not well.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

#[cfg(feature = "http")]
use crate::BoxError;
use crate::group::boxed::OneBox;
use crate::group::chain;
use crate::group::end::End;
use crate::group::failure::Failure;
use crate::group::panic::Panic;
use crate::group::verdict;
use crate::group::verdict::Ended;
#[cfg(feature = "http")]
use crate::server::drain::DrainReport;

/// Why a server did not succeed, because it ended early, failed, or did not stop in time.
///
/// The message names the server and says what happened. The [`source`](Error::source) is the server's own error
/// or its panic, and `{:#}` prints both on one line.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::{CancellationToken, Sidecar};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let token = CancellationToken::new();
/// token.cancel();
/// let stubborn = Sidecar::new("http")
///     .grace(Duration::from_secs(5))
///     .serve(&token, |_stop| std::future::pending::<std::io::Result<()>>())
///     .await;
///
/// let error = stubborn.unwrap_err();
/// assert!(error.is_timed_out());
/// assert_eq!(error.name(), "http");
/// assert_eq!(
///     error.to_string(),
///     "server `http` did not drain within 5s: it was let go of, connections of it may remain",
/// );
/// # }
/// ```
pub struct SidecarError(OneBox<Inner>);

struct Inner {
    server: Cow<'static, str>,
    grace: Duration,
    end: End,
    message: String,
    /// The server's own failure, if that is the reason.
    failure: Option<Failure>,
    stop_panicked: bool,
    #[cfg(feature = "http")]
    report: Option<DrainReport>,
}

/// What was wrong with the end of a server, without its name.
pub(super) struct Fault {
    pub(super) end: End,
    /// What the server did, as the message tells it.
    pub(super) what: Cow<'static, str>,
    pub(super) failure: Option<Failure>,
}

impl Fault {
    pub(super) fn new(end: End, what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            end,
            what: what.into(),
            failure: None,
        }
    }

    /// The server failed before it was asked to stop.
    pub(super) fn serving(failure: Failure) -> Self {
        Self {
            end: failure.end(),
            what: failure.end().to_string().into(),
            failure: Some(failure),
        }
    }

    /// The server failed after it was asked to stop.
    pub(super) fn draining(failure: Failure) -> Self {
        Self {
            what: format!("{} while draining", failure.end()).into(),
            ..Self::serving(failure)
        }
    }

    /// The server returned before it was asked to stop.
    pub(super) fn ended_early() -> Self {
        Self::new(End::EndedEarly, "ended before it was asked to stop")
    }
}

impl SidecarError {
    #[cold]
    pub(super) fn new(
        server: Cow<'static, str>,
        grace: Duration,
        fault: Fault,
        stop_panic: Option<Panic>,
    ) -> Self {
        let Fault { end, what, failure } = fault;
        let stop = match &stop_panic {
            Some(panic) => format!(" (its stop function panicked: {})", panic.message()),
            None => String::new(),
        };
        Self(OneBox::new(Inner {
            message: format!("server `{server}` {what}{stop}"),
            server,
            grace,
            end,
            failure,
            stop_panicked: stop_panic.map(Panic::discard).is_some(),
            #[cfg(feature = "http")]
            report: None,
        }))
    }

    /// Returns the name of the server.
    ///
    /// # Examples
    ///
    /// See [`SidecarError`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.server
    }

    /// Returns the grace the server had, or would have had.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::{CancellationToken, Sidecar};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let ended = Sidecar::new("http")
    ///     .grace(Duration::from_secs(5))
    ///     .serve(&CancellationToken::new(), |_stop| async { Ok::<_, std::io::Error>(()) })
    ///     .await;
    /// assert_eq!(ended.unwrap_err().grace(), Duration::from_secs(5));
    /// # }
    /// ```
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.0.grace
    }

    /// Returns how the server ended.
    ///
    /// - [`EndedEarly`](End::EndedEarly) if it returned `Ok` before the token had fired.
    /// - [`Failed`](End::Failed) if it returned an error, or could not be started.
    /// - [`Panicked`](End::Panicked) if a [blocking](crate::Sidecar::serve_blocking) server panicked, or if the server
    ///   was down in time and its stop function panicked. The panic of any other server goes through the
    ///   sidecar's future.
    /// - [`TimedOut`](End::TimedOut) if it was not down at the end of its grace.
    /// - [`StillRunning`](End::StillRunning) if it was not, and one of its threads or processes could not be
    ///   ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::{CancellationToken, End, Sidecar};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let failed = Sidecar::new("http")
    ///     .serve(&CancellationToken::new(), |_stop| async { Err::<(), _>("port in use") })
    ///     .await;
    /// let failed = failed.unwrap_err();
    /// assert_eq!(failed.end(), End::Failed);
    /// assert_eq!(failed.to_string(), "server `http` failed");
    /// assert_eq!(format!("{failed:#}"), "server `http` failed: port in use");
    /// # }
    /// ```
    #[must_use]
    pub fn end(&self) -> End {
        self.0.end
    }

    /// Returns the panic of a [blocking](crate::Sidecar::serve_blocking) server.
    ///
    /// # Errors
    ///
    /// Returns the error itself if the server did not panic.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::{CancellationToken, Sidecar};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let run = || -> std::io::Result<()> { panic!("boom") };
    /// let panicked = Sidecar::new("http")
    ///     .serve_blocking(&CancellationToken::new(), run, |_grace| {})
    ///     .await;
    /// assert_eq!(panicked.unwrap_err().into_panic().unwrap().message(), "boom");
    /// # }
    /// ```
    pub fn into_panic(self) -> Result<Panic, Self> {
        let inner = self.0.into_inner();
        match inner.failure {
            Some(Failure::Panicked(panic)) => Ok(panic),
            failure => Err(Self(OneBox::new(Inner { failure, ..inner }))),
        }
    }

    /// Returns whether the server was not down at the end of its grace.
    ///
    /// # Examples
    ///
    /// See [`SidecarError`].
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.end().is_forced()
    }

    /// Returns whether the stop function panicked.
    ///
    /// The server may have ended in any way. If this is the only fault, the server was down in time.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::{CancellationToken, Sidecar};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let token = CancellationToken::new();
    /// token.cancel();
    /// let ended = Sidecar::new("http")
    ///     .serve_with_stop(&token, async { Ok::<_, std::io::Error>(()) }, |_grace| async {
    ///         panic!("no handle")
    ///     })
    ///     .await;
    /// let error = ended.unwrap_err();
    /// assert!(error.is_stop_panicked());
    /// assert!(!error.is_timed_out());
    /// # }
    /// ```
    #[must_use]
    pub fn is_stop_panicked(&self) -> bool {
        self.0.stop_panicked
    }
}

#[cfg(feature = "http")]
impl SidecarError {
    /// Returns the report of a drain that was not clean.
    ///
    /// Only servers that count their requests have one, namely those of `taskgroup::server::axum`, and only
    /// after the server was forced, which is a [timeout](Self::is_timed_out).
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::SidecarError;
    ///
    /// fn requests_lost(error: &SidecarError) -> usize {
    ///     error.drain_report().map_or(0, |report| report.requests_cut())
    /// }
    /// # let _ = requests_lost;
    /// ```
    #[must_use]
    pub fn drain_report(&self) -> Option<&DrainReport> {
        self.0.report.as_ref()
    }

    pub(crate) fn cut(server: Cow<'static, str>, grace: Duration, report: DrainReport) -> Self {
        let is_left = !report.is_over();
        Self(OneBox::new(Inner {
            server,
            grace,
            end: if is_left {
                End::StillRunning
            } else {
                End::TimedOut
            },
            message: report.to_string(),
            failure: None,
            stop_panicked: false,
            report: Some(report),
        }))
    }

    /// For a server that returned before it was asked to stop.
    pub(crate) fn early(
        server: Cow<'static, str>,
        grace: Duration,
        end: Result<(), BoxError>,
    ) -> Self {
        let fault = match end {
            Ok(()) => Fault::ended_early(),
            Err(error) => Fault::serving(Failure::Failed(error)),
        };
        Self::new(server, grace, fault, None)
    }

    pub(crate) fn failed_draining(
        server: Cow<'static, str>,
        grace: Duration,
        error: BoxError,
    ) -> Self {
        let fault = Fault::draining(Failure::Failed(error));
        Self::new(server, grace, fault, None)
    }
}

impl SidecarError {
    fn why(&self) -> Option<&(dyn Error + 'static)> {
        self.0.failure.as_ref()?.source()
    }
}

impl Error for SidecarError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        verdict::tell(self);
        self.why()
    }
}

impl Ended for SidecarError {
    fn end(&self) -> End {
        self.end()
    }

    fn as_error(&self) -> &(dyn Error + 'static) {
        self
    }
}

/// [`Exit`](crate::Exit) takes an error by this.
impl AsRef<dyn Error + Send + Sync> for SidecarError {
    fn as_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }
}

impl fmt::Display for SidecarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        chain::show(f, &self.0.message, self.why())
    }
}

impl fmt::Debug for SidecarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f
                .debug_struct("SidecarError")
                .field("message", &self.0.message)
                .field("end", &self.0.end)
                .field("source", &self.why())
                .finish();
        }
        chain::explain(f, &self.0.message, self.why(), None)
    }
}
