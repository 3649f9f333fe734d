//! A server that really stops (feature `http`).
//!
//! [`Serve`] is a server behind the gate, with all there is to set. [`serve`] makes one of any tower service,
//! [`serve_each`] of a service for each connection, `axum::serve` and `tonic::serve` of what these frameworks
//! have; [`serve_loop`] makes one of a loop of one's own, for what is not HTTP.

use std::borrow::Cow;
use std::fmt;
use std::future::ready;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;
use tower_service::Service;

use crate::BoxError;
use crate::group::build_error::BuildError;
use crate::group::run_future::RunFuture;
use crate::server::drain::DrainReport;
use crate::server::gate;
use crate::server::gate::Cuts;
use crate::server::gate::Gate;
use crate::server::gate::Limits;
use crate::server::gate::OnReport;
use crate::server::gate::Plan;
use crate::server::gate::Protocol;
use crate::server::gate::conclude;
use crate::server::gate::engine;
use crate::server::gate::engine::{Over, Settings};
use crate::server::gate::limited;
use crate::server::lame_duck::LameDuck;
use crate::server::sidecar::Sidecar;
use crate::server::sidecar::SidecarError;
use crate::server::stop_signal::{Parts, StopSignal};

pub use crate::server::gate::{Acceptor, Incoming, Io, Tls, Transport};

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

/// How long the clients of what was cut have to take their answer.
const FLUSH: Duration = Duration::from_millis(100);

/// A server that is about to run.
///
/// It is made by [`serve`], [`serve_each`], [`serve_loop`], `axum::serve` or `tonic::serve`; `S` is what is
/// served.
///
/// # Examples
///
/// All there is to set:
///
/// ```
/// use std::time::Duration;
/// use taskgroup::CancellationToken;
///
/// # #[cfg(feature = "axum")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let token = CancellationToken::new();
/// let http = taskgroup::server::axum::serve("http", listener, axum::Router::new())
///     .also_on(tokio::net::TcpListener::bind("127.0.0.1:0").await?)
///     .lame_duck(Duration::from_secs(5))
///     .grace(Duration::from_secs(20))
///     .linger(Duration::from_millis(500))
///     .idle_grace(Duration::from_secs(2))
///     .kill_grace(Duration::from_secs(1))
///     .max_connections(10_000)
///     .first_byte_timeout(Duration::from_secs(10))
///     .header_timeout(Duration::from_secs(10))
///     .nodelay(true)
///     .catch_panics()
///     .lenient()
///     .on_report(|report| assert!(report.is_clean()))
///     .run(&token);
///
/// token.cancel();
/// assert!(http.await.is_ok());
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "axum"))]
/// # fn main() {}
/// ```
#[must_use = "a server does nothing until it is run"]
pub struct Serve<S> {
    name: Cow<'static, str>,
    listeners: Vec<TcpListener>,
    server: S,
    options: Options,
}

struct Options {
    limits: Limits,
    lame_duck: LameDuck,
    plan: Plan,
    /// The grace, if it is not the default one.
    grace: Option<Duration>,
    cuts: Cuts,
    on_report: Option<OnReport>,
    then: Option<DropGuard>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits {
                max_connections: None,
                first_byte_timeout: Some(DEFAULT_FIRST_BYTE_TIMEOUT),
                header_timeout: Some(DEFAULT_HEADER_TIMEOUT),
                nodelay: false,
                catch_panics: false,
            },
            lame_duck: LameDuck::new(Duration::ZERO),
            plan: Plan {
                grace: Sidecar::DEFAULT_GRACE,
                linger: DEFAULT_LINGER,
                idle_grace: DEFAULT_IDLE_GRACE,
                flush: FLUSH,
                kill_grace: DEFAULT_KILL_GRACE,
            },
            grace: None,
            cuts: Cuts::AreErrors,
            on_report: None,
            then: None,
        }
    }
}

/// What can be served: a tower service, an app of axum, routes of tonic, a loop of one's own.
///
/// A closure that takes an [`Acceptor`] and a token and returns a future is one; see [`serve_loop`].
pub trait Server: Send + 'static {
    /// How it may fail.
    type Error: Into<BoxError> + Send;

    /// Refuses an option of `server` under which it would serve nobody, by name.
    ///
    /// # Errors
    ///
    /// A [`BuildError`] that names the option. By default there is none.
    fn check(&self, server: &str) -> Result<(), BuildError> {
        let _ = server;
        Ok(())
    }

    /// Serves what `acceptor` accepts until `stop` fires.
    ///
    /// An end before `stop` has fired is a failure. It may end right after that, or wait for what is in
    /// flight: connections that are still open some time after are cut.
    fn start(
        self,
        acceptor: Acceptor,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

impl<F, R> Server for F
where
    F: FnOnce(Acceptor, CancellationToken) -> R + Send + 'static,
    R: Future<Output = Result<(), BoxError>> + Send,
{
    type Error = BoxError;

    fn start(
        self,
        acceptor: Acceptor,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        self(acceptor, stop)
    }
}

/// Makes a server of a bound listener and of any tower service that answers HTTP.
///
/// `name` is what the report and the errors call it. The service is cloned for each request, and its clone is
/// asked whether it is ready. A request that waits for that is in flight.
///
/// HTTP/1 is spoken, and with the feature `http2` HTTP/2 with clients that begin with it. Every request has
/// the [`Stop`](crate::server::Stop) of the server in its extensions.
///
/// Nothing happens before the future of [`run`](Serve::run) is polled, but the listener is bound: clients
/// that connect until then wait.
///
/// # Examples
///
/// A router of axum without its defaults. `examples/tower_service.rs` has a service without any framework.
///
/// ```
/// # #[cfg(feature = "axum")]
/// # async fn f() -> std::io::Result<()> {
/// let app = axum::Router::new().route("/", axum::routing::get(async || "hello"));
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let http = taskgroup::serve("http", listener, app);
/// # drop(http);
/// # Ok(())
/// # }
/// ```
pub fn serve<S, B>(
    name: impl Into<Cow<'static, str>>,
    listener: TcpListener,
    service: S,
) -> Serve<App<S>>
where
    S: Service<Request<hyper::body::Incoming>, Response = Response<B>, Error: Into<BoxError>>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let settings = Settings::default();
    Serve::new(name, listener, App { service, settings })
}

/// Makes a server of a bound listener and of a service for each connection.
///
/// `make` is called with each connection before anything is read of it, or over TLS after its handshake.
/// For all else see [`serve`].
///
/// # Panics
///
/// A panic of `make` goes through the future of [`run`](Serve::run).
///
/// # Examples
///
/// The address of the client:
///
/// ```
/// # #[cfg(feature = "axum")]
/// # async fn f() -> std::io::Result<()> {
/// use taskgroup::server::{Incoming, serve_each};
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let http = serve_each("http", listener, |incoming: Incoming<'_>| {
///     let peer = incoming.remote_addr();
///     axum::Router::new().route("/", axum::routing::get(async move || peer.to_string()))
/// });
/// # drop(http);
/// # Ok(())
/// # }
/// ```
pub fn serve_each<F, S, B>(
    name: impl Into<Cow<'static, str>>,
    listener: TcpListener,
    make: F,
) -> Serve<Each<F>>
where
    F: FnMut(Incoming<'_>) -> S + Send + 'static,
    S: Service<Request<hyper::body::Incoming>, Response = Response<B>, Error: Into<BoxError>>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let settings = Settings::default();
    Serve::new(name, listener, Each { make, settings })
}

/// What [`serve`] serves: one service for all connections.
pub struct App<S> {
    service: S,
    settings: Settings,
}

impl<S, B> Protocol for App<S>
where
    S: Service<Request<hyper::body::Incoming>, Response = Response<B>, Error: Into<BoxError>>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Request = hyper::body::Incoming;
    type Response = B;
    type Service = S;
}

impl<S> engine::App for App<S>
where
    Self: Protocol<Request = hyper::body::Incoming, Service = S>,
    S: Clone + Send + 'static,
{
    fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    fn make(&mut self, _incoming: Incoming<'_>) -> impl Future<Output = S> + Send {
        ready(self.service.clone())
    }

    fn body(body: hyper::body::Incoming) -> hyper::body::Incoming {
        body
    }
}

impl<S, T> Over<T> for App<S> where Self: engine::App {}

impl<S> Server for App<S>
where
    Self: engine::App,
    S: Send + 'static,
{
    type Error = BoxError;

    fn check(&self, server: &str) -> Result<(), BuildError> {
        self.settings.check(server)
    }

    fn start(
        self,
        acceptor: Acceptor,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        engine::serve(self, acceptor, stop)
    }
}

impl<S> fmt::Debug for App<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What [`serve_each`] serves: a service for each connection.
pub struct Each<F> {
    make: F,
    settings: Settings,
}

impl<F, S, B> Protocol for Each<F>
where
    F: FnMut(Incoming<'_>) -> S + Send + 'static,
    S: Service<Request<hyper::body::Incoming>, Response = Response<B>, Error: Into<BoxError>>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Request = hyper::body::Incoming;
    type Response = B;
    type Service = S;
}

impl<F, S> engine::App for Each<F>
where
    Self: Protocol<Request = hyper::body::Incoming, Service = S>,
    F: FnMut(Incoming<'_>) -> S + Send + 'static,
    S: Send,
{
    fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    fn make(&mut self, incoming: Incoming<'_>) -> impl Future<Output = S> + Send {
        ready((self.make)(incoming))
    }

    fn body(body: hyper::body::Incoming) -> hyper::body::Incoming {
        body
    }
}

impl<F, T> Over<T> for Each<F> where Self: engine::App {}

impl<F> Server for Each<F>
where
    Self: engine::App,
    F: Send + 'static,
{
    type Error = BoxError;

    fn check(&self, server: &str) -> Result<(), BuildError> {
        self.settings.check(server)
    }

    fn start(
        self,
        acceptor: Acceptor,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        engine::serve(self, acceptor, stop)
    }
}

impl<F> fmt::Debug for Each<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Each")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Makes a server of a bound listener and a loop of one's own, for what is not HTTP.
///
/// `name` is what the report and the errors call it. The loop is given an [`Acceptor`] and the token it
/// is to be told to stop by, which fires after the linger. It may spawn its connections however it
/// likes; they are cut when their time is up. The loop has to go on accepting, also while it
/// serves: until the queue has been taken in, the stop does not get on.
///
/// Nothing happens before the future of [`run`](Serve::run) is polled, but the listener is bound:
/// clients that connect until then wait.
///
/// # Examples
///
/// Of each connection no more than a line:
///
/// ```
/// use taskgroup::server::{Acceptor, serve_loop};
/// use taskgroup::{BoxError, CancellationToken};
/// use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
///
/// async fn echo(mut acceptor: Acceptor, stop: CancellationToken) -> Result<(), BoxError> {
///     while let Some((io, _peer)) = stop.run_until_cancelled(acceptor.accept()).await {
///         tokio::spawn(async move {
///             let (mut io, mut line) = (BufStream::new(io), String::new());
///             if io.read_line(&mut line).await.is_ok() {
///                 let _ = io.write_all(line.as_bytes()).await;
///                 let _ = io.flush().await;
///             }
///         });
///     }
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let mut group = taskgroup::TaskGroup::new();
/// group.spawn(serve_loop("echo", listener, echo).run(group.token()));
/// # group.cancel();
/// # group.wait().await?;
/// # Ok(())
/// # }
/// ```
pub fn serve_loop<F, R>(
    name: impl Into<Cow<'static, str>>,
    listener: TcpListener,
    server: F,
) -> Serve<F>
where
    F: FnOnce(Acceptor, CancellationToken) -> R + Send + 'static,
    R: Future<Output = Result<(), BoxError>> + Send,
{
    Serve::new(name, listener, server)
}

impl<S> Serve<S> {
    pub(crate) fn new(
        name: impl Into<Cow<'static, str>>,
        listener: TcpListener,
        server: S,
    ) -> Self {
        Self {
            name: name.into(),
            listeners: vec![listener],
            server,
            options: Options::default(),
        }
    }

    pub(crate) fn served(&mut self) -> &mut S {
        &mut self.server
    }

    /// Serves on one more bound listener.
    ///
    /// All of them are one server: one limit of connections, one stop, one report.
    pub fn also_on(mut self, listener: TcpListener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Sets how long it goes on serving when the token has fired; not at all by default.
    ///
    /// [`Readiness::drain_on`](crate::lifecycle::Readiness::drain_on) the same token says at once that it is not
    /// ready any more. The stop, and with it the grace, begins when this is over; [`LameDuck`] says
    /// what happens in it, and how to skip it. A server that is run when its token has fired
    /// already is none.
    pub fn lame_duck(mut self, lame_duck: impl Into<LameDuck>) -> Self {
        self.options.lame_duck = lame_duck.into();
        self
    }

    /// Sets the time from the stop to the cut, the linger included.
    ///
    /// It is counted from the moment the token fires, or the lame duck is over. Any duration will do;
    /// with [`Duration::MAX`] nothing with a request in flight is ever cut, and a single client can keep the
    /// stop from ending: one that does not read, or whose websocket goes on sending. The default is
    /// [10 seconds](Sidecar::DEFAULT_GRACE), and in a component all that it has; it never has more than that.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.options.plan.grace = grace;
        self.options.grace = Some(grace);
        self
    }

    /// Sets the time between the stop and the moment in which the server itself is told of it.
    ///
    /// A server throws away what it has not read when it is told. A request that is on its way at the
    /// stop, on a new connection or on an old one, is answered if it arrives within the linger. The
    /// default is [200 milliseconds](DEFAULT_LINGER); without a connection there is no linger. It is a part
    /// of the grace, and ends with it, also with [`Duration::MAX`]. With zero the server is told at once.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.options.plan.linger = linger;
        self
    }

    /// Sets how long a connection without a request in flight may stay when the server was told.
    ///
    /// It is for clients that cannot be told that it is over: those that have sent half a request, have
    /// not begun with TLS or HTTP/2, say nothing at all, or do not answer a PING. One that has not taken all of
    /// its answer is none of them, however long that has been waiting for it; over HTTP/2 this is known
    /// of bodies whose data are [`Bytes`](https://docs.rs/bytes), as those of axum and tonic are. No more
    /// than half of what the grace leaves after the linger is used, also with [`Duration::MAX`]. With zero
    /// such a connection is cut at once. The default is [1 second](DEFAULT_IDLE_GRACE).
    pub fn idle_grace(mut self, idle_grace: Duration) -> Self {
        self.options.plan.idle_grace = idle_grace;
        self
    }

    /// Sets how long what was cut has to end before it is reported as stuck.
    ///
    /// This comes after the grace. Only what blocks its thread needs more than a moment here. The tasks of
    /// what was cut need that moment to get their turn, so less than 10 milliseconds is an error of
    /// [`run`](Self::run). With [`Duration::MAX`] it waits until all has ended, and nothing is ever stuck. A
    /// server that ends by itself gives what it leaves behind as long. The default is [1
    /// second](DEFAULT_KILL_GRACE).
    pub fn kill_grace(mut self, kill_grace: Duration) -> Self {
        self.options.plan.kill_grace = kill_grace;
        self
    }

    /// Sets how many connections may be open at once; there is no limit by default.
    ///
    /// Who comes when the limit is reached waits in the accept queue of the system. Those who wait
    /// there at the stop are let in all the same. Zero is an error of [`run`](Self::run);
    /// [`usize::MAX`] is as good as no limit.
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.options.limits.max_connections = Some(limit);
        self
    }

    /// Sets how long a client may say nothing after it has connected.
    ///
    /// A client that takes longer is cut, a quarter of the time later at most; with
    /// [`Duration::MAX`] none is. The default is [30 seconds](DEFAULT_FIRST_BYTE_TIMEOUT). Zero is an
    /// error of [`run`](Self::run).
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.options.limits.first_byte_timeout = limited(timeout);
        self
    }

    /// Sets how long a client may take from the first byte of a request to the end of its head.
    ///
    /// This is also the time for the handshake of TLS, and the time to begin with HTTP/2; a connection
    /// that speaks it is free afterwards. A client that takes longer is cut, later by a quarter of
    /// this and a quarter of the first byte's timeout at most; with [`Duration::MAX`] none is. The default
    /// is [30 seconds](DEFAULT_HEADER_TIMEOUT). Zero is an error of [`run`](Self::run).
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.options.limits.header_timeout = limited(timeout);
        self
    }

    /// Sets `TCP_NODELAY` on every connection: answers in several pieces arrive sooner.
    ///
    /// As with the servers themselves it is off for axum and on for tonic by default.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.options.limits.nodelay = nodelay;
        self
    }

    /// Ends a panic of a handler, or of the body it has answered with, with its request.
    ///
    /// Without this the panic goes through: the connection is closed without an answer, over HTTP/2 the
    /// stream is reset. With this the client gets a 500, or the status `INTERNAL` of gRPC, the
    /// connection lives on, and the panic is logged at ERROR with method and path. A body of HTTP that
    /// has begun ends as broken either way. [`DrainReport::panicked`] counts all of them, with this and
    /// without. In a program that is built with `panic = "abort"` there is nothing to catch.
    pub fn catch_panics(mut self) -> Self {
        self.options.limits.catch_panics = true;
        self
    }

    /// Takes a drain in which something was cut for a success that is logged at WARN.
    ///
    /// What is [stuck](DrainReport::stuck), or [took](DrainReport::took) too long, is an error all the
    /// same: nobody can say that it is over.
    pub fn lenient(mut self) -> Self {
        self.options.cuts = Cuts::AreLogged;
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
    /// use taskgroup::{BoxError, CancellationToken};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let (sender, reports) = mpsc::channel();
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// let token = CancellationToken::new();
    /// token.cancel();
    /// taskgroup::server::serve_loop("echo", listener, async |_, stop| Ok(stop.cancelled().await))
    ///     .on_report(move |report| sender.send(report.clone()).unwrap())
    ///     .run(&token)
    ///     .await?;
    /// assert_eq!(reports.recv()?.requests_at_stop(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_report(mut self, f: impl FnOnce(&DrainReport) + Send + 'static) -> Self {
        self.options.on_report = Some(Box::new(f));
        self
    }

    /// Fires `token` when this server has ended: for what it needs up to its last request.
    ///
    /// A back that its handlers call stops by that token, and so after it, whichever way it ends: also by a
    /// failure, a panic, or when it is dropped, before it was run even. A second call replaces the first,
    /// whose token fires then.
    ///
    /// When its future is dropped, it fires at once: handlers have been cut by then, and are gone only when
    /// the runtime gets to them. A call that one of them makes in this moment may find its back gone.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::server::serve_loop;
    /// use taskgroup::{CancellationToken, TaskGroup};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// # let front = async |_, stop: CancellationToken| Ok(stop.cancelled().await);
    /// # let back = front;
    /// # let listen = async || tokio::net::TcpListener::bind("127.0.0.1:0").await;
    /// let mut group = TaskGroup::new();
    /// let front_is_down = CancellationToken::new();
    /// let front = serve_loop("front", listen().await?, front).then_cancel(&front_is_down);
    /// group.spawn(front.run(group.token()));
    /// group.spawn(serve_loop("back", listen().await?, back).run(&front_is_down));
    ///
    /// group.cancel();
    /// group.wait().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn then_cancel(mut self, token: &CancellationToken) -> Self {
        self.options.then = Some(token.clone().drop_guard());
        self
    }
}

impl<S: engine::App> Serve<S> {
    /// Speaks TLS: `handshake` is what every connection begins with.
    ///
    /// Any number of them are under way at once. A client has the [first byte's](Serve::first_byte_timeout)
    /// timeout to begin with its handshake and the [header's](Serve::header_timeout) for the rest of it. At the
    /// stop it has the [linger](Serve::linger), with which what is under way is closed. A handshake that fails is
    /// logged at DEBUG, and nothing else comes of it. For HTTP/2 the configuration has to offer it (ALPN `h2` and
    /// `http/1.1`). A second call replaces the first.
    ///
    /// # Panics
    ///
    /// A panic of `handshake` goes through the future of [`run`](Serve::run).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
    ///
    /// # #[cfg(feature = "axum")]
    /// # async fn f(config: ServerConfig) -> std::io::Result<()> {
    /// let tls = TlsAcceptor::from(Arc::new(config));
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// let https = taskgroup::serve("https", listener, axum::Router::new())
    ///     .tls(move |io| tls.accept(io));
    /// # drop(https);
    /// # Ok(())
    /// # }
    /// ```
    pub fn tls<F, R, T>(mut self, handshake: F) -> Self
    where
        S: Over<T>,
        F: Fn(Io) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.server.settings().set_tls::<S, F, R, T>(handshake);
        self
    }

    /// Sets how many requests of one connection are answered at once; there is no limit by default.
    ///
    /// Those beyond it wait, and are in flight. One is over for this when its response begins: the body does
    /// not count. Zero is an error of [`run`](Serve::run).
    pub fn concurrency_per_connection(mut self, limit: usize) -> Self {
        self.server.settings().turns = Some(limit);
        self
    }

    /// Sends clients over HTTP/2 a PING this often, and cuts those that do not answer within 20 seconds.
    ///
    /// It is how a client is noticed that has vanished. It is off by default, and 30 seconds for tonic; with
    /// [`Duration::MAX`] it is off. Zero is an error of [`run`](Serve::run).
    #[cfg(feature = "http2")]
    pub fn http2_keepalive(mut self, interval: Duration) -> Self {
        self.server.settings().http2.keepalive = limited(interval);
        self
    }

    /// Sets how many streams a client may have open over HTTP/2 on one connection.
    ///
    /// The default is 200, as it is hyper's, and no limit for tonic. Zero is an error of
    /// [`run`](Serve::run).
    #[cfg(feature = "http2")]
    pub fn http2_max_streams(mut self, limit: u32) -> Self {
        self.server.settings().http2.max_streams = Some(limit);
        self
    }

    /// Sets how many bytes a client may send over HTTP/2 before they are read: of each stream, and of the
    /// whole connection.
    ///
    /// The default is hyper's, 1 MiB each. What is not between 1 byte and 2 GiB less 1 byte is an error of
    /// [`run`](Serve::run).
    #[cfg(feature = "http2")]
    pub fn http2_windows(mut self, stream: u32, connection: u32) -> Self {
        let http2 = &mut self.server.settings().http2;
        http2.stream_window = Some(stream);
        http2.connection_window = Some(connection);
        self
    }
}

impl<S: Server> Serve<S> {
    /// Runs the server until `stop` fires, a token or the context of a component, and then through its lame duck and its stop.
    ///
    /// When the returned future has ended, no connection, handler, body or websocket of the server
    /// is left, except for what the report calls stuck: code that blocks its thread, and tasks that
    /// handlers have spawned and that do not end when their stream does. From the stop on it takes no
    /// longer than the grace, the kill grace and 100 milliseconds, unless the runtime itself is blocked;
    /// then it is late, and that is an error.
    ///
    /// The report of a clean drain is logged at INFO.
    ///
    /// # Errors
    ///
    /// A [`SidecarError`] when something had to be cut, was stuck, or the stop took longer than the grace, as with a server that does not end when it is told
    /// ([`is_timed_out`](SidecarError::is_timed_out), with its
    /// [report](SidecarError::drain_report)); when the server ended by itself, which axum and tonic
    /// do not; or when an option has an invalid value, with the [`BuildError`](crate::BuildError) as its source.
    ///
    /// # Panics
    ///
    /// A panic of the server itself, of a make-service say, goes through the returned future. One of a
    /// handler does not: it ends its connection, or its stream over HTTP/2; see
    /// [`catch_panics`](Self::catch_panics).
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future forces the server down: the sockets are closed, handlers and bodies
    /// are dropped and streams closed as soon as the runtime gets to them. Nobody is told, nothing is
    /// counted.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "axum")]
    /// #[tokio::main(flavor = "current_thread")]
    /// async fn main() -> anyhow::Result<()> {
    ///     let token = taskgroup::CancellationToken::new();
    ///     # token.cancel();
    ///     let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    ///     let app = axum::Router::new();
    ///     taskgroup::server::axum::serve("http", listener, app).run(&token).await?;
    ///     Ok(())
    /// }
    /// # #[cfg(not(feature = "axum"))]
    /// # fn main() {}
    /// ```
    pub fn run(
        mut self,
        stop: &dyn StopSignal,
    ) -> RunFuture<impl Future<Output = Result<(), SidecarError>> + Send + use<S>, SidecarError>
    {
        // Asked now, and not when the future is polled: by then the service may have been called ready.
        let stop = stop.parts();
        if stop.token.is_cancelled() {
            self.options.lame_duck = LameDuck::new(Duration::ZERO);
        }
        RunFuture::new(async move { self.supervised(&stop).await })
    }

    async fn supervised(self, told: &Parts) -> Result<(), SidecarError> {
        let Self {
            name,
            listeners,
            server,
            options,
        } = self;
        // Whatever happens, a panic included, it fires when all else is over.
        let _then = options.then;
        let mut plan = options.plan;
        plan.grace = told.limit.grace(options.grace, plan.grace);
        let checked = options.limits.check(&name);
        let checked = checked.and_then(|()| plan.check(&name));
        if let Err(error) = checked.and_then(|()| server.check(&name)) {
            return Err(SidecarError::early(name, plan.grace, Err(error.into())));
        }
        let gate = Gate::new(options.limits);
        let stop = CancellationToken::new();
        let server = server.start(Acceptor::new(listeners, Arc::clone(&gate)), stop.clone());
        let serving = gate::serving(&name, &gate, told, &options.lame_duck);
        let outcome = {
            let supervised = gate::supervise(Arc::clone(&gate), &mut plan, serving, stop, server);
            let supervised = pin!(supervised);
            // Dropped before the server, which takes what is in flight with it.
            let counting = Arc::clone(&gate);
            let _counted = told.count_in_flight(move || counting.in_flight());
            supervised.await
        };
        conclude(name, &plan, options.cuts, options.on_report, outcome)
    }
}

impl<S> fmt::Debug for Serve<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("name", &self.name)
            .field("listeners", &self.listeners)
            .field("limits", &self.options.limits)
            .field("lame_duck", &self.options.lame_duck)
            .field("plan", &self.options.plan)
            .finish_non_exhaustive()
    }
}
