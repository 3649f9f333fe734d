//! An axum server that really stops (feature `axum`).
//!
//! [`serve`] is `axum::serve` as a member of a group. It runs the unmodified `axum::serve`, and around
//! it a gate that counts connections and requests, tells clients and handlers when the server
//! stops, and at the end of its grace cuts what is left. Left to itself, `axum::serve` waits for ever
//! for a client that has sent half a request or does not read its answer, does not wait for
//! websockets at all, and leaves every connection running when its future is dropped.
//!
//! # The stop
//!
//! | when | what |
//! |---|---|
//! | the token fires | the accept queue is emptied and the socket closed; [`Stop`](crate::Stop) tells the handlers; answers over HTTP/1 say `Connection: close` |
//! | `linger` later (200 ms) | axum is told: idle connections are closed, those over HTTP/2 get a GOAWAY |
//! | `idle_grace` later (1 s) | connections without a request in flight are cut: half a request, a client that says nothing |
//! | `grace` after the token fired (10 s) | what is in flight is counted, then cut: a handler that has not answered is dropped and its client gets a 503; a body that has begun ends as broken, never as whole |
//! | 100 ms later | all connections are cut, upgraded ones too |
//! | `kill_grace` later (1 s) | what blocks its thread is given up and reported as stuck |
//!
//! It is over as soon as nothing is left. A request is in flight until its response body has been
//! handed over to the last byte. A connection that was upgraded over HTTP/1, a websocket mostly, is open
//! until its stream is dropped. One that carried a websocket over HTTP/2 is taken to carry it until
//! it is closed; that a single stream ended is not to be seen.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use axum::{Router, routing::get};
//! use taskgroup::TaskGroup;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let app = Router::new().route("/", get(async || "hello"));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//!
//! let mut group = TaskGroup::new();
//! let http = taskgroup::axum::serve("http", listener, app)
//!     .grace(Duration::from_secs(5))
//!     .run(group.token());
//! group.spawn(http);
//!
//! group.cancel();
//! group.wait().await?;
//! # Ok(())
//! # }
//! ```

mod listener;
mod layer;

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use self::layer::MakeGated;
use self::listener::untouched;
use crate::drain::DrainReport;
use crate::gate;
use crate::gate::Acceptor;
use crate::gate::Cuts;
use crate::gate::Gate;
use crate::gate::Limits;
use crate::gate::OnReport;
use crate::gate::Plan;
use crate::gate::conclude;
use crate::gate::limited;
use crate::sidecar::Sidecar;
use crate::sidecar::SidecarError;

pub use self::listener::{Incoming, Io, Listener};

/// Makes a server of a bound listener and of what `axum::serve` takes: a router, a method router, a
/// handler's make-service, with or without connect info.
///
/// `name` is what the report and the errors call it. Nothing happens before the future of
/// [`run`](Serve::run) is polled, but the listener is bound: clients that connect until then wait.
///
/// # Examples
///
/// The address of the client, as with `axum::serve` itself:
///
/// ```
/// use std::net::SocketAddr;
/// use axum::{Router, extract::ConnectInfo, routing::get};
///
/// # async fn f() -> std::io::Result<()> {
/// let app = Router::new().route(
///     "/",
///     get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string()),
/// );
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let app = app.into_make_service_with_connect_info::<SocketAddr>();
/// let http = taskgroup::axum::serve("http", listener, app);
/// # drop(http);
/// # Ok(())
/// # }
/// ```
pub fn serve<M, S>(name: impl Into<Cow<'static, str>>, listener: TcpListener, app: M) -> Serve<M, S>
where
    M: for<'a> Service<Incoming<'a>, Error = Infallible, Response = S> + Send + 'static,
    for<'a> <M as Service<Incoming<'a>>>::Future: Send,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    Serve {
        name: name.into(),
        listener,
        app,
        limits: Limits {
            max_connections: None,
            first_byte_timeout: Some(DEFAULT_FIRST_BYTE_TIMEOUT),
            header_timeout: Some(DEFAULT_HEADER_TIMEOUT),
            nodelay: false,
            catch_panics: false,
        },
        plan: Plan {
            grace: Sidecar::DEFAULT_GRACE,
            linger: DEFAULT_LINGER,
            idle_grace: DEFAULT_IDLE_GRACE,
            flush: FLUSH,
            kill_grace: DEFAULT_KILL_GRACE,
        },
        cuts: Cuts::AreErrors,
        on_report: None,
        service: PhantomData,
    }
}

/// How long clients may take to notice the stop: 200 milliseconds.
pub const DEFAULT_LINGER: Duration = Duration::from_millis(200);

/// How long a connection without a request in flight is left alone in the drain: 1 second.
pub const DEFAULT_IDLE_GRACE: Duration = Duration::from_secs(1);

/// How long what was cut has to end: 1 second.
pub const DEFAULT_KILL_GRACE: Duration = Duration::from_secs(1);

/// How long a client may say nothing after it has connected: 30 seconds.
pub const DEFAULT_FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take to send the head of a request: 30 seconds.
pub const DEFAULT_HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the clients of what was cut have to take their 503.
const FLUSH: Duration = Duration::from_millis(100);

/// An axum server that is about to run; see [`serve`].
///
/// # Examples
///
/// All there is to set:
///
/// ```
/// use std::time::Duration;
/// use axum::Router;
/// use taskgroup::{CancellationToken, SidecarError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let token = CancellationToken::new();
/// let http = taskgroup::axum::serve("http", listener, Router::new())
///     .grace(Duration::from_secs(20))
///     .linger(Duration::from_millis(500))
///     .idle_grace(Duration::from_secs(2))
///     .kill_grace(Duration::from_secs(1))
///     .max_connections(10_000)
///     .first_byte_timeout(Duration::from_secs(10))
///     .header_timeout(Duration::from_secs(10))
///     .nodelay()
///     .catch_panics()
///     .lenient()
///     .on_report(|report| assert!(report.is_clean()))
///     .run::<SidecarError>(&token);
///
/// token.cancel();
/// assert!(http.await.is_ok());
/// # Ok(())
/// # }
/// ```
#[must_use = "a server does nothing until it is run"]
pub struct Serve<M, S> {
    name: Cow<'static, str>,
    listener: TcpListener,
    app: M,
    limits: Limits,
    plan: Plan,
    cuts: Cuts,
    on_report: Option<OnReport>,
    service: PhantomData<fn() -> S>,
}

impl<M, S> Serve<M, S> {
    /// Sets the time from the stop to the cut, the linger included.
    ///
    /// It is counted from the moment the token fires. Any duration will do; with
    /// [`Duration::MAX`] nothing with a request in flight is ever cut. The default is
    /// [10 seconds](Sidecar::DEFAULT_GRACE).
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn grace(mut self, grace: Duration) -> Self {
        self.plan.grace = grace;
        self
    }

    /// Sets how long a connection without a request in flight may stay after axum was told to stop.
    ///
    /// It is for clients that cannot be told that it is over: those that have sent half a request, say
    /// nothing at all, or do not answer the PING of HTTP/2. No more than half of what the grace leaves
    /// after the linger is used. The default is [1 second](DEFAULT_IDLE_GRACE).
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn idle_grace(mut self, idle_grace: Duration) -> Self {
        self.plan.idle_grace = idle_grace;
        self
    }

    /// Sets the time between the stop and the moment axum is told of it.
    ///
    /// Axum throws away what it has not read when it is told. A request that is on its way at the stop,
    /// on a new connection or on an old one, is answered if it arrives within the linger. The default is
    /// [200 milliseconds](DEFAULT_LINGER); without a connection there is no linger.
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn linger(mut self, linger: Duration) -> Self {
        self.plan.linger = linger;
        self
    }

    /// Sets how long what was cut has to end before it is reported as stuck.
    ///
    /// This comes after the grace. Only what blocks its thread needs any time here. The default is
    /// [1 second](DEFAULT_KILL_GRACE).
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn kill_grace(mut self, kill_grace: Duration) -> Self {
        self.plan.kill_grace = kill_grace;
        self
    }

    /// Sets how many connections may be open at once; there is no limit by default.
    ///
    /// Who comes when the limit is reached waits in the accept queue of the system. Those who wait
    /// there at the stop are let in all the same. Zero is an error of [`run`](Self::run).
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.limits.max_connections = Some(limit);
        self
    }

    /// Sets how long a client may say nothing after it has connected.
    ///
    /// A client that takes longer is cut, a quarter of the time later at most; with
    /// [`Duration::MAX`] none is. The default is [30 seconds](DEFAULT_FIRST_BYTE_TIMEOUT).
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.limits.first_byte_timeout = limited(timeout);
        self
    }

    /// Sets how long a client may take from the first byte of a request to the end of its head.
    ///
    /// This is also the time to begin with HTTP/2; a connection that speaks it is free afterwards.
    /// A client that takes longer is cut, later by a quarter of this and a quarter of the first byte's
    /// timeout at most; with [`Duration::MAX`] none is. The default is
    /// [30 seconds](DEFAULT_HEADER_TIMEOUT).
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.limits.header_timeout = limited(timeout);
        self
    }

    /// Sets `TCP_NODELAY` on every connection: answers in several pieces arrive sooner.
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn nodelay(mut self) -> Self {
        self.limits.nodelay = true;
        self
    }

    /// Ends a panic of a handler, or of a response body, with its request.
    ///
    /// Without this the panic goes through: the connection is closed without an answer, over HTTP/2 the
    /// stream is reset. With this the client gets a 500 (a call of gRPC the status `INTERNAL`), the
    /// connection lives on, and the panic is logged at ERROR with method and path. A body that has
    /// begun ends as broken either way. [`DrainReport::panicked`] counts all of them, with this and
    /// without. In a program that is built with `panic = "abort"` there is nothing to catch.
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn catch_panics(mut self) -> Self {
        self.limits.catch_panics = true;
        self
    }

    /// Takes a drain in which something was cut for a success that is logged at WARN.
    ///
    /// What is [stuck](DrainReport::stuck), or [took](DrainReport::took) too long, is an error all the
    /// same: nobody can say that it is over.
    ///
    /// # Examples
    ///
    /// See [`Serve`].
    pub fn lenient(mut self) -> Self {
        self.cuts = Cuts::AreLogged;
        self
    }

    /// Calls `f` with the report of the drain, clean or not, before the outcome is returned.
    ///
    /// It is not called when there was no drain: the server ended early, panicked or was dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use taskgroup::{CancellationToken, SidecarError};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (sender, reports) = mpsc::channel();
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// let token = CancellationToken::new();
    /// token.cancel();
    /// taskgroup::axum::serve("http", listener, axum::Router::new())
    ///     .on_report(move |report| sender.send(report.clone()).unwrap())
    ///     .run::<SidecarError>(&token)
    ///     .await?;
    /// assert_eq!(reports.recv()?.requests_at_stop(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_report(mut self, f: impl FnOnce(&DrainReport) + Send + 'static) -> Self {
        self.on_report = Some(Box::new(f));
        self
    }

    /// Runs the server until `token` fires, and then through its stop.
    ///
    /// When the returned future has ended, no connection, handler, body or websocket of the server
    /// is left, except for what the report calls stuck: code that blocks its thread, and tasks that
    /// handlers have spawned and that do not end when their stream does. It ends within the grace, the
    /// kill grace and 100 milliseconds, unless the runtime itself is blocked; then it is late, and
    /// that is an error.
    ///
    /// The report of a clean drain is logged at INFO.
    ///
    /// # Errors
    ///
    /// A [`SidecarError`], converted into the caller's error type, when something had to be cut, was
    /// stuck, or the stop took longer than the grace
    /// ([`is_timed_out`](SidecarError::is_timed_out), with its
    /// [report](SidecarError::drain_report)), or when axum returned by itself, which it does not.
    ///
    /// # Panics
    ///
    /// A panic of the make-service goes through the returned future. One of a handler does not: it
    /// ends its connection, or its stream over HTTP/2; see [`catch_panics`](Self::catch_panics).
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future forces the server down: the socket is closed, handlers and bodies
    /// are dropped and streams closed as soon as the runtime gets to them. Nobody is told, nothing is
    /// counted.
    ///
    /// # Examples
    ///
    /// See the [module](self).
    pub fn run<E>(
        self,
        token: &CancellationToken,
    ) -> impl Future<Output = Result<(), E>> + Send + use<E, M, S>
    where
        E: From<SidecarError>,
        M: for<'a> Service<Incoming<'a>, Error = Infallible, Response = S> + Send + 'static,
        for<'a> <M as Service<Incoming<'a>>>::Future: Send,
        S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let token = token.clone();
        let Self {
            name,
            listener,
            app,
            limits,
            plan,
            cuts,
            on_report,
            service: _,
        } = self;
        async move {
            if let Err(error) = limits.check() {
                Err(SidecarError::early(
                    name.clone(),
                    plan.grace,
                    Err(error.into()),
                ))?;
            }
            let gate = Gate::new(limits);
            let signal = CancellationToken::new();
            let listener = Listener(Acceptor::new(listener, Arc::clone(&gate)));
            let app = MakeGated::new(app, gate.stop());
            let server = axum::serve(listener.tap_io(untouched as fn(&mut Io)), app)
                .with_graceful_shutdown(signal.clone().cancelled_owned())
                .into_future();
            let outcome = gate::supervise(gate, &plan, &token, signal, server).await;
            Ok(conclude(name, &plan, cuts, on_report, outcome)?)
        }
    }
}

impl<M, S> fmt::Debug for Serve<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("name", &self.name)
            .field("listener", &self.listener)
            .field("limits", &self.limits)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}
