//! [`Sidecar`] makes a member of a group from a server that runs until it is told to stop.
//!
//! Each of the four kinds of server is adapted to a future for the server and a future that asks it to stop.
//! [`Sidecar::drive`] runs the two by the rules, and [`fate`] decides what their results mean.

#[cfg(feature = "process")]
mod process;
mod thread;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::BoxError;
use crate::group::build_error::BuildError;
use crate::group::chain;
use crate::group::end::End;
use crate::group::log;
use crate::group::panic::Panic;
use crate::group::run_future::RunFuture;
use crate::group::time::Rounded;
use crate::group::time::is_late;
use crate::group::verdict;
use crate::group::verdict::Ended;
#[cfg(feature = "http")]
use crate::server::drain::DrainReport;
use crate::server::stop_signal::{Parts, StopSignal};

/// Runs a server beside the tasks of a group. When the group's token fires, the server is asked to stop and
/// gets its grace to do so.
///
/// A server's own serve call runs until it is told to stop, and a group's task runs until its token fires. A
/// sidecar connects the two, for each way to stop a server.
///
/// | the server | the method |
/// |---|---|
/// | takes a future that tells it to stop (axum, tonic) | [`serve`](Self::serve) |
/// | is stopped by a function or a handle (axum-server, actix-web) | [`serve_with_stop`](Self::serve_with_stop) |
/// | blocks a thread (tiny_http, a C library) | [`serve_blocking`](Self::serve_blocking) |
/// | is a child process | `serve_process` (feature `process`) |
///
/// # The rules
///
/// 1. The server starts when the returned future is first polled, even if the token has already fired. Such a
///    server is asked to stop at once.
/// 2. The clock starts when the token fires, with the full grace. Sidecars in separate tasks drain in parallel,
///    each by its own clock.
/// 3. The server is asked to stop at most once, and not at all if it ended by itself.
/// 4. The outcome is never silently `Ok`.
///
/// | the server | before the token fired | after |
/// |---|---|---|
/// | returned `Ok` | ended early | `Ok` |
/// | returned an error | failed | failed while draining |
/// | is running at the end of the grace | | timed out |
/// | returned at last, later than its grace | | timed out |
///
/// The last row happens when the runtime was blocked. The clock was not checked in time, and a stop that took
/// too long is not called clean. A server that returns `Ok` in the very moment in which the token fires has
/// stopped in time.
///
/// # What is left when the grace is over
///
/// A server is forced by dropping its future. Many servers, axum's and tonic's among them, run each connection
/// in a separate task that survives this, and the error says so. A thread cannot be forced at all, and the
/// error names it. A child process is killed.
///
/// # Drop
///
/// Dropping the returned future forces the server down at once. The server's future is dropped, and the stop
/// future that [`serve`](Self::serve) gave it resolves, so that connection tasks which have outlived the server
/// still see the stop. A blocking server's stop function is called with a grace of zero, on a separate thread.
/// A child process is killed.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::{CancellationToken, Sidecar};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let token = CancellationToken::new();
/// let http = Sidecar::new("http")
///     .grace(Duration::from_secs(5))
///     .serve(&token, |stop| async move {
///         stop.await; // a real server drains here
///         Ok::<_, std::io::Error>(())
///     });
///
/// token.cancel();
/// let stopped = http.await;
/// assert!(stopped.is_ok());
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a sidecar does nothing until it is given a server"]
pub struct Sidecar {
    name: Cow<'static, str>,
    grace: Duration,
    /// The grace, if it is not the default.
    asked: Option<Duration>,
}

impl Sidecar {
    /// The default grace of a sidecar (10 seconds).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::Sidecar;
    ///
    /// assert_eq!(Sidecar::DEFAULT_GRACE, Duration::from_secs(10));
    /// ```
    pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

    /// Makes a sidecar whose errors call the server `name`.
    ///
    /// An empty name makes the server fail before it starts.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::Sidecar;
    ///
    /// let sidecar = Sidecar::new("http");
    /// assert_ne!(sidecar, Sidecar::new("grpc"));
    /// ```
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            grace: Self::DEFAULT_GRACE,
            asked: None,
        }
    }

    /// Sets the time the server gets to stop, counted from the moment the token fires.
    ///
    /// Any duration is valid. With zero the server is asked to stop, polled once, and forced. With
    /// [`Duration::MAX`] it is never forced. The default is [10 seconds](Self::DEFAULT_GRACE). In a component
    /// the default is all the time that the component has, which is also the maximum.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::Sidecar;
    ///
    /// let patient = Sidecar::new("http").grace(Duration::from_secs(60));
    /// assert_ne!(patient, Sidecar::new("http"));
    /// ```
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self.asked = Some(grace);
        self
    }

    /// Runs a server that takes a future which tells it to stop.
    ///
    /// `server` is called with the stop future when the returned future is first polled. It returns the future
    /// that serves, or anything that turns into one, such as the value of `axum::serve(…)`. The stop future
    /// resolves when `token` has fired. It is a [`tokio_util::sync::WaitForCancellationFutureOwned`].
    ///
    /// The returned future owns all it needs, and is `Send` if `server` and the server are.
    ///
    /// # Errors
    ///
    /// A [`SidecarError`] if the server ended before it was asked to, failed, or was not down at the end of its
    /// grace. In the last case the server has been dropped, and some of its connections may remain.
    ///
    /// # Panics
    ///
    /// A panic of the server goes through the returned future, and a group records it with the name of the
    /// task. The stop future has resolved by then, as it does on every drop.
    ///
    /// When the token fires, the future panics outside of a Tokio runtime whose timers are enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future forces the server down, see [Drop](Self#drop).
    ///
    /// # Examples
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use taskgroup::{CancellationToken, Sidecar};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = Router::new().route("/", get(async || "hello"));
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    ///
    /// let token = CancellationToken::new();
    /// let http = Sidecar::new("http").serve(&token, |stop| {
    ///     axum::serve(listener, app).with_graceful_shutdown(stop)
    /// });
    /// let http = tokio::spawn(http); // in a group: group.spawn(http)
    ///
    /// token.cancel();
    /// assert!(http.await?.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn serve<F, S, T, Err>(
        mut self,
        stop: &dyn StopSignal,
        server: F,
    ) -> RunFuture<impl Future<Output = Result<(), SidecarError>> + use<F, S, T, Err>, SidecarError>
    where
        F: FnOnce(WaitForCancellationFutureOwned) -> S,
        S: IntoFuture<Output = Result<T, Err>>,
        Err: Into<BoxError>,
    {
        let told = stop.parts();
        RunFuture::new(async move {
            self.check()?;
            let stop = CancellationToken::new();
            // Declared before the server and so dropped after it, however this future ends. Even when the
            // server panics in its destructor, the tasks it leaves behind see the stop.
            let _force = stop.clone().drop_guard();
            let server = plain(server(stop.clone().cancelled_owned()));
            let ask = |_| async move { stop.cancel() };
            let outcome = self.drive(&told, server, ask).await;
            self.conclude(outcome)
        })
    }

    /// Runs a server that is stopped by a function, often through a handle.
    ///
    /// `stop` is called with the grace when `token` has fired. The future it returns runs beside the server,
    /// and both have until the end of the grace. If the server is down in time but the stop function is still
    /// running at the end of the grace, it is dropped with a warning and the outcome is `Ok`. `stop` is never
    /// called when the server ends by itself or when the returned future is dropped.
    ///
    /// Pass a handle with a synchronous stop call as `|grace| async move { handle.stop(grace) }`, provided that
    /// the call does not block. Pass a server that does not return a `Result` as
    /// `async { server.await; Ok::<_, Infallible>(()) }`.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve). A panic of the stop function is also an error. The panic is caught, the
    /// server still has its grace, and the error reports both.
    ///
    /// # Panics
    ///
    /// A panic of the server goes through the returned future.
    ///
    /// When the token fires, the future panics outside of a Tokio runtime whose timers are enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the server and the stop function, if it is running.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use taskgroup::{CancellationToken, Sidecar};
    /// use tokio::sync::Notify;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let handle = Arc::new(Notify::new());
    /// let server = {
    ///     let handle = handle.clone();
    ///     async move {
    ///         handle.notified().await;
    ///         Ok::<_, std::io::Error>(())
    ///     }
    /// };
    ///
    /// let token = CancellationToken::new();
    /// token.cancel();
    /// let stopped = Sidecar::new("http")
    ///     .serve_with_stop(&token, server, |grace| async move {
    ///         assert_eq!(grace, Sidecar::DEFAULT_GRACE);
    ///         handle.notify_one();
    ///     })
    ///     .await;
    /// assert!(stopped.is_ok());
    /// # }
    /// ```
    pub fn serve_with_stop<S, T, Err, F, A>(
        mut self,
        when: &dyn StopSignal,
        server: S,
        stop: F,
    ) -> RunFuture<
        impl Future<Output = Result<(), SidecarError>> + use<S, T, Err, F, A>,
        SidecarError,
    >
    where
        S: IntoFuture<Output = Result<T, Err>>,
        Err: Into<BoxError>,
        F: FnOnce(Duration) -> A,
        A: Future<Output = ()>,
    {
        let told = when.parts();
        RunFuture::new(async move {
            self.check()?;
            let outcome = self.drive(&told, plain(server), stop).await;
            self.conclude(outcome)
        })
    }

    /// Rejects a name that no message could show.
    fn check(&self) -> Result<(), SidecarError> {
        if self.name.is_empty() {
            let error = BuildError::empty_name("a server");
            return Err(SidecarError(Box::new(Inner {
                server: self.name.clone(),
                grace: self.grace,
                fate: Fate::Failed(When::Serving, Fault::Error(error.into())),
                stop_panic: None,
            })));
        }
        Ok(())
    }

    /// Runs the server until it ends, or until the token fires and its grace is over.
    async fn drive<S, F, A>(&mut self, told: &Parts, server: S, ask: F) -> Outcome
    where
        S: Future<Output = Result<(), Fault>>,
        F: FnOnce(Duration) -> A,
        A: Future<Output = ()>,
    {
        let mut server = pin!(server);
        let Some(end) = told.token.run_until_cancelled(server.as_mut()).await else {
            let left = told.limit.left().unwrap_or(Duration::MAX);
            let grace = told.limit.grace(self.asked, self.grace);
            self.grace = grace.min(left);
            return self.drain(server, ask).await;
        };
        let phase = if told.token.is_cancelled() {
            Phase::Cancelled
        } else {
            Phase::Serving
        };
        Outcome {
            fate: fate(phase, end, self.grace),
            stop: Stop::NotAsked,
        }
    }

    /// Asks the server to stop, and runs the stop function and the server until the grace is over.
    async fn drain<S, F, A>(&self, mut server: Pin<&mut S>, ask: F) -> Outcome
    where
        S: Future<Output = Result<(), Fault>>,
        F: FnOnce(Duration) -> A,
        A: Future<Output = ()>,
    {
        let Self { name, grace, .. } = self;
        log::guarded(|| {
            tracing::debug!(target: "taskgroup", "server `{name}` is asked to stop within {}", Rounded(*grace));
        });
        let asked = Instant::now();
        let mut end = None;
        let mut stopped = None;
        // The call itself is inside the future, so that its panics are caught too.
        let mut stop = pin!(Panic::catch_future(async { ask(self.grace).await }));
        let both = poll_fn(|cx| {
            // The stop goes first, so that a server with a grace of zero sees it in its only poll.
            if stopped.is_none() {
                stopped = ready(stop.as_mut().poll(cx));
            }
            if end.is_none() {
                end = ready(server.as_mut().poll(cx)).map(|end| (end, asked.elapsed()));
            }
            if stopped.is_some() && end.is_some() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        // The timeout itself is ignored, because both results are checked below.
        let _ = timeout(self.grace, both).await;

        Outcome {
            fate: match end {
                Some((end, took)) => fate(Phase::Draining(took), end, self.grace),
                None => Fate::TimedOut(Remains::Connections),
            },
            stop: match stopped {
                Some(Ok(())) => Stop::Returned,
                Some(Err(panic)) => Stop::Panicked(panic),
                None => Stop::Running,
            },
        }
    }

    /// Turns an outcome into the result of the sidecar.
    fn conclude(self, Outcome { fate, stop }: Outcome) -> Result<(), SidecarError> {
        let stop_panic = match (&fate, stop) {
            (Fate::Drained, Stop::NotAsked | Stop::Returned) => return Ok(()),
            (Fate::Drained, Stop::Running) => {
                let Self { name, grace, .. } = self;
                log::guarded(|| {
                    tracing::warn!(
                        target: "taskgroup",
                        "server `{name}` has drained, but its stop function did not end within {}",
                        Rounded(grace)
                    );
                });
                return Ok(());
            }
            (_, Stop::Panicked(panic)) => Some(panic),
            (_, Stop::NotAsked | Stop::Returned | Stop::Running) => None,
        };
        Err(SidecarError(Box::new(Inner {
            server: self.name,
            grace: self.grace,
            fate,
            stop_panic,
        })))
    }
}

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
pub struct SidecarError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    server: Cow<'static, str>,
    grace: Duration,
    fate: Fate,
    stop_panic: Option<Panic>,
}

impl SidecarError {
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
    /// - [`Panicked`](End::Panicked) if a [blocking](Sidecar::serve_blocking) server panicked, or if the server
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
        let Inner {
            fate, stop_panic, ..
        } = &*self.0;
        match fate {
            Fate::EndedEarly => End::EndedEarly,
            Fate::Failed(_, Fault::Error(_)) => End::Failed,
            Fate::Failed(_, Fault::Panic(_)) => End::Panicked,
            Fate::TimedOut(Remains::Threads(_)) => End::StillRunning,
            #[cfg(feature = "process")]
            Fate::TimedOut(Remains::Process(_)) => End::StillRunning,
            Fate::TimedOut(_) | Fate::Late(_) => End::TimedOut,
            #[cfg(feature = "http")]
            Fate::Cut(report) if !report.is_over() => End::StillRunning,
            #[cfg(feature = "http")]
            Fate::Cut(_) => End::TimedOut,
            Fate::Drained if stop_panic.is_some() => End::Panicked,
            Fate::Drained => End::Done,
        }
    }

    /// Returns the panic of a [blocking](Sidecar::serve_blocking) server.
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
        let inner = *self.0;
        match inner.fate {
            Fate::Failed(_, Fault::Panic(panic)) => Ok(panic),
            fate => Err(Self(Box::new(Inner { fate, ..inner }))),
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
        self.0.stop_panic.is_some()
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
        match &self.0.fate {
            Fate::Cut(report) => Some(report),
            _ => None,
        }
    }

    pub(crate) fn cut(server: Cow<'static, str>, grace: Duration, report: DrainReport) -> Self {
        Self::with_fate(server, grace, Fate::Cut(Box::new(report)))
    }

    /// For a server that returned before it was asked to stop.
    pub(crate) fn early(
        server: Cow<'static, str>,
        grace: Duration,
        end: Result<(), BoxError>,
    ) -> Self {
        let end = end.map_err(Fault::Error);
        Self::with_fate(server, grace, fate(Phase::Serving, end, grace))
    }

    pub(crate) fn failed_draining(
        server: Cow<'static, str>,
        grace: Duration,
        error: BoxError,
    ) -> Self {
        Self::with_fate(
            server,
            grace,
            Fate::Failed(When::Draining, Fault::Error(error)),
        )
    }

    fn with_fate(server: Cow<'static, str>, grace: Duration, fate: Fate) -> Self {
        Self(Box::new(Inner {
            server,
            grace,
            fate,
            stop_panic: None,
        }))
    }
}

impl SidecarError {
    fn message(&self) -> String {
        let Inner {
            server,
            grace,
            fate,
            stop_panic,
        } = &*self.0;
        let what = match fate {
            Fate::Drained => "drained".to_owned(),
            Fate::EndedEarly => "ended before it was asked to stop".to_owned(),
            Fate::Failed(when, fault) => {
                let what = match fault {
                    Fault::Error(_) => "failed",
                    Fault::Panic(_) => "panicked",
                };
                match when {
                    When::Serving => what.to_owned(),
                    When::Draining => format!("{what} while draining"),
                }
            }
            #[cfg(feature = "http")]
            Fate::Cut(report) => return report.to_string(),
            Fate::TimedOut(remains) => {
                format!("did not drain within {}: {remains}", Rounded(*grace))
            }
            Fate::Late(took) => {
                format!(
                    "did not drain within {}: it took {}",
                    Rounded(*grace),
                    Rounded(*took)
                )
            }
        };
        let stop = match stop_panic {
            Some(panic) => format!(" (its stop function panicked: {})", panic.message()),
            None => String::new(),
        };
        format!("server `{server}` {what}{stop}")
    }

    fn why(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.fate {
            Fate::Failed(_, Fault::Error(error)) => Some(&**error),
            Fate::Failed(_, Fault::Panic(panic)) => Some(panic),
            _ => None,
        }
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
        chain::show(f, &self.message(), self.why())
    }
}

impl fmt::Debug for SidecarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f.debug_tuple("SidecarError").field(&self.0).finish();
        }
        chain::explain(f, &self.message(), self.why(), None)
    }
}

/// Adapts an external server.
async fn plain<S, T, Err>(server: S) -> Result<(), Fault>
where
    S: IntoFuture<Output = Result<T, Err>>,
    Err: Into<BoxError>,
{
    match server.into_future().await {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::Error(error.into())),
    }
}

fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// The state of the sidecar when its server ended.
enum Phase {
    /// The token had not fired.
    Serving,
    /// The token fired in the very poll in which the server ended, before the server was asked to stop.
    Cancelled,
    /// The server had been asked to stop, and took this long.
    Draining(Duration),
}

/// The results of a server and of its stop function.
struct Outcome {
    fate: Fate,
    stop: Stop,
}

/// The result of a server.
#[derive(Debug)]
enum Fate {
    /// It was down in time. The only good end.
    Drained,
    EndedEarly,
    Failed(When, Fault),
    /// It was running at the end of the grace.
    TimedOut(Remains),
    /// It drained, but took longer than its grace, because the runtime was blocked at the end.
    Late(Duration),
    /// Its gate had to cut something, or had to wait for too long.
    #[cfg(feature = "http")]
    Cut(Box<DrainReport>),
}

#[derive(Debug)]
enum When {
    Serving,
    Draining,
}

/// What makes a server's end a failure.
#[derive(Debug)]
enum Fault {
    Error(BoxError),
    Panic(Panic),
}

/// What may remain of a server that was forced.
#[derive(Debug)]
enum Remains {
    Connections,
    /// Threads, by their names.
    Threads(String),
    /// Nothing. The process was killed and has ended.
    #[cfg(feature = "process")]
    Killed,
    /// The process with this id, which does not die.
    #[cfg(feature = "process")]
    Process(u32),
}

/// The result of the stop function.
enum Stop {
    NotAsked,
    Returned,
    Panicked(Panic),
    Running,
}

/// Decides what the end of a server means.
fn fate(phase: Phase, end: Result<(), Fault>, grace: Duration) -> Fate {
    match (end, phase) {
        (Ok(()), Phase::Serving) => Fate::EndedEarly,
        (Ok(()), Phase::Cancelled) => Fate::Drained,
        (Ok(()), Phase::Draining(took)) if is_late(took, grace) => Fate::Late(took),
        (Ok(()), Phase::Draining(_)) => Fate::Drained,
        (Err(fault), Phase::Serving | Phase::Cancelled) => Fate::Failed(When::Serving, fault),
        (Err(fault), Phase::Draining(_)) => Fate::Failed(When::Draining, fault),
    }
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connections => f.write_str("it was let go of, connections of it may remain"),
            Self::Threads(names) => write!(f, "still running: {names}"),
            #[cfg(feature = "process")]
            Self::Killed => f.write_str("it was killed"),
            #[cfg(feature = "process")]
            Self::Process(id) => write!(f, "process {id} was killed and does not end"),
        }
    }
}
