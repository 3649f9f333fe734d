//! [`Sidecar`] makes a member of a group from a server that runs until it is told to stop.
//!
//! Each of the four kinds of server is adapted to a future for the server and a future that asks it to stop.
//! [`Sidecar::drive`] runs the two by the rules, and [`judge`] decides what their results mean.

pub(crate) mod error;
#[cfg(feature = "process")]
mod process;
mod thread;

use std::borrow::Cow;
use std::future::{poll_fn, ready};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::BoxError;
use crate::group::build_error::BuildError;
use crate::group::end::End;
use crate::group::failure::Failure;
use crate::group::log;
use crate::group::panic::Panic;
use crate::group::run_future::RunFuture;
use crate::group::time::Rounded;
use crate::group::time::is_late;
use crate::server::sidecar::error::{Fault, SidecarError};
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
            // A waker of the server's tasks may panic.
            let ask = |_| ready(Panic::catch(|| stop.cancel()));
            let outcome = self.drive(&told, server, ask).await;
            self.conclude(outcome, Remains::CONNECTIONS)
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
            // The call itself is inside the future, so that its panics are caught too.
            let ask = |grace| Panic::catch_future(async move { stop(grace).await });
            let outcome = self.drive(&told, plain(server), ask).await;
            self.conclude(outcome, Remains::CONNECTIONS)
        })
    }

    /// Rejects a name that no message could show.
    fn check(&self) -> Result<(), SidecarError> {
        if self.name.is_empty() {
            let error = BuildError::empty_name("a server");
            let fault = Fault::serving(Failure::Failed(error.into()));
            let server = self.name.clone();
            return Err(SidecarError::new(server, self.grace, fault, None));
        }
        Ok(())
    }

    /// Runs the server until it ends, or until the token fires and its grace is over.
    async fn drive<S, F, A>(&mut self, told: &Parts, server: S, ask: F) -> Outcome
    where
        S: Future<Output = Result<(), Failure>>,
        F: FnOnce(Duration) -> A,
        A: Future<Output = Result<(), Panic>>,
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
            end: Some(judge(phase, end, self.grace)),
            stop: Stop::NotAsked,
        }
    }

    /// Asks the server to stop, and runs the stop function and the server until the grace is over.
    async fn drain<S, F, A>(&self, mut server: Pin<&mut S>, ask: F) -> Outcome
    where
        S: Future<Output = Result<(), Failure>>,
        F: FnOnce(Duration) -> A,
        A: Future<Output = Result<(), Panic>>,
    {
        self.log_asked();
        let asked = Instant::now();
        let mut end = None;
        let mut stopped = None;
        let mut stop = pin!(ask(self.grace));
        let both = poll_fn(|cx| {
            // The stop goes first, so that a server with a grace of zero sees it in its only poll.
            if stopped.is_none() {
                stopped = ended(stop.as_mut().poll(cx));
            }
            if end.is_none() {
                end = ended(server.as_mut().poll(cx)).map(|end| (end, asked.elapsed()));
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
            end: end.map(|(end, took)| judge(Phase::Draining(took), end, self.grace)),
            stop: match stopped {
                Some(Ok(())) => Stop::Returned,
                Some(Err(panic)) => Stop::Panicked(panic),
                None => Stop::Running,
            },
        }
    }

    fn log_asked(&self) {
        let Self { name, grace, .. } = self;
        log::guarded(|| {
            tracing::debug!(target: "taskgroup", "server `{name}` is asked to stop within {}", Rounded(*grace));
        });
    }

    /// Turns an outcome into the result of the sidecar. `remains` describes a server that was forced.
    fn conclude(
        self,
        Outcome { end, stop }: Outcome,
        remains: Remains,
    ) -> Result<(), SidecarError> {
        let Self { name, grace, .. } = self;
        let end = end.unwrap_or_else(|| {
            let Remains(end, what) = remains;
            let what = format!("did not drain within {}: {what}", Rounded(grace));
            Err(Fault::new(end, what))
        });
        let (fault, panic) = match (end, stop) {
            (Ok(()), Stop::NotAsked | Stop::Returned) => return Ok(()),
            (Ok(()), Stop::Running) => {
                log::guarded(|| {
                    tracing::warn!(
                        target: "taskgroup",
                        "server `{name}` has drained, but its stop function did not end within {}",
                        Rounded(grace)
                    );
                });
                return Ok(());
            }
            (Ok(()), Stop::Panicked(panic)) => (Fault::new(End::Panicked, "drained"), Some(panic)),
            (Err(fault), Stop::Panicked(panic)) => (fault, Some(panic)),
            (Err(fault), _) => (fault, None),
        };
        Err(SidecarError::new(name, grace, fault, panic))
    }
}

/// Adapts an external server.
async fn plain<S, T, Err>(server: S) -> Result<(), Failure>
where
    S: IntoFuture<Output = Result<T, Err>>,
    Err: Into<BoxError>,
{
    match server.into_future().await {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::Failed(error.into())),
    }
}

fn ended<T>(poll: Poll<T>) -> Option<T> {
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
    /// `None` if the server was running at the end of the grace.
    end: Option<Result<(), Fault>>,
    stop: Stop,
}

/// What may remain of a server that was forced, with its end.
struct Remains(End, Cow<'static, str>);

impl Remains {
    const CONNECTIONS: Self = Self(
        End::TimedOut,
        Cow::Borrowed("it was let go of, connections of it may remain"),
    );
}

/// The result of the stop function.
enum Stop {
    NotAsked,
    Returned,
    Panicked(Panic),
    Running,
}

/// Decides what the end of a server means.
fn judge(phase: Phase, end: Result<(), Failure>, grace: Duration) -> Result<(), Fault> {
    match (end, phase) {
        (Ok(()), Phase::Serving) => Err(Fault::ended_early()),
        // It drained, but the runtime was blocked at the end of the grace.
        (Ok(()), Phase::Draining(took)) if is_late(took, grace) => {
            let (grace, took) = (Rounded(grace), Rounded(took));
            let what = format!("did not drain within {grace}: it took {took}");
            Err(Fault::new(End::TimedOut, what))
        }
        (Ok(()), Phase::Cancelled | Phase::Draining(_)) => Ok(()),
        (Err(failure), Phase::Serving | Phase::Cancelled) => Err(Fault::serving(failure)),
        (Err(failure), Phase::Draining(_)) => Err(Fault::draining(failure)),
    }
}
