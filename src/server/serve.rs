//! A server that really stops (feature `http`).
//!
//! [`Serve`] is a server behind the gate, with all its options. [`serve`] makes one from any tower service and
//! [`serve_each`] from a service for each connection. `axum::serve` and `tonic::serve` take what these
//! frameworks build, and [`serve_loop`] takes an accept loop, for protocols other than HTTP.

mod housekeeping;

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
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;
use tower_service::Service;

use crate::BoxError;
use crate::group::build_error::BuildError;
use crate::group::run_future::RunFuture;
use crate::server::drain::DrainReport;
use crate::server::gate;
use crate::server::gate::Gate;
use crate::server::gate::Handshake;
use crate::server::gate::OnReport;
use crate::server::gate::Protocol;
use crate::server::gate::conclude;
use crate::server::gate::engine;
use crate::server::gate::engine::Over;
use crate::server::gate::limited;
use crate::server::gate::options::{Cuts, Options};
use crate::server::lame_duck::LameDuck;
use crate::server::listening::{Listening, Open};
use crate::server::sidecar::Sidecar;
use crate::server::sidecar::error::SidecarError;
use crate::server::stop_signal::{Parts, StopSignal};

pub use crate::server::gate::options::{
    DEFAULT_FIRST_BYTE_TIMEOUT, DEFAULT_HEADER_TIMEOUT, DEFAULT_IDLE_GRACE, DEFAULT_KILL_GRACE,
    DEFAULT_LINGER,
};
pub use crate::server::gate::{Acceptor, Busy, Incoming, Io};

/// A server that is about to run.
///
/// It is made by [`serve`], [`serve_each`], [`serve_loop`], `axum::serve` or `tonic::serve`. `S` is the
/// [`Server`] that it runs.
///
/// # Examples
///
/// All options.
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
    listeners: Vec<Listening>,
    /// Whether the app takes the IP address of its clients.
    wants_ip: bool,
    server: S,
    options: Options,
    handshake: Option<Handshake>,
    on_report: Option<OnReport>,
    then: Option<DropGuard>,
}

/// What can be served: a tower service, an axum app, tonic routes or an accept loop.
///
/// [`serve`], [`serve_each`], [`serve_loop`], `axum::serve` and `tonic::serve` make them.
pub trait Server: Send + 'static {
    /// The error of the server.
    type Error: Into<BoxError> + Send;

    /// Serves what `acceptor` accepts until `stop` fires.
    ///
    /// It fails if it ends before `stop` has fired. After that it may end at once, or wait for what is in
    /// flight. Connections that are still open some time later are cut.
    fn start(
        self,
        acceptor: Acceptor,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

impl<A: engine::App> Server for A {
    type Error = BoxError;

    fn start(
        self,
        acceptor: Acceptor,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        engine::serve(self, acceptor, stop)
    }
}

/// Makes a server from a bound listener and any tower service that answers HTTP.
///
/// The report and the errors call it `name`. The service is cloned for each request, and the clone is polled
/// for readiness. A request that waits for readiness is in flight.
///
/// The server speaks HTTP/1, and with the feature `http2` also HTTP/2 to clients that begin with it. Every
/// request has the [`Stop`](crate::server::Stop) of the server in its extensions.
///
/// The server starts when the future of [`run`](Serve::run) is first polled. The listener is already bound, so
/// clients that connect earlier wait.
///
/// # Examples
///
/// An axum router without axum's defaults. `examples/tower_service.rs` has a service without any framework.
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
    listener: impl Into<Listening>,
    service: S,
) -> Serve<Each<impl FnMut(Incoming<'_>) -> S + Send + 'static>>
where
    S: Service<Request<hyper::body::Incoming>, Response = Response<B>, Error: Into<BoxError>>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    serve_each(name, listener, move |_: Incoming<'_>| service.clone())
}

/// Makes a server from a bound listener and a service for each connection.
///
/// `make` is called for each connection before anything is read from it, or after its handshake with TLS.
/// Everything else is as with [`serve`].
///
/// # Panics
///
/// A panic of `make` goes through the future of [`run`](Serve::run).
///
/// # Examples
///
/// The address of the client.
///
/// ```
/// # #[cfg(feature = "axum")]
/// # async fn f() -> std::io::Result<()> {
/// use taskgroup::server::{Incoming, serve_each};
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let http = serve_each("http", listener, |incoming: Incoming<'_>| {
///     let peer = incoming.remote_addr().clone();
///     axum::Router::new().route("/", axum::routing::get(async move || peer.to_string()))
/// });
/// # drop(http);
/// # Ok(())
/// # }
/// ```
pub fn serve_each<F, S, B>(
    name: impl Into<Cow<'static, str>>,
    listener: impl Into<Listening>,
    make: F,
) -> Serve<Each<F>>
where
    F: FnMut(Incoming<'_>) -> S + Send + 'static,
    S: Service<Request<hyper::body::Incoming>, Response = Response<B>, Error: Into<BoxError>>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    Serve::new(name, listener, Each { make })
}

/// A service for each connection, which [`serve_each`] serves.
pub struct Each<F> {
    make: F,
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
    fn make(&mut self, incoming: Incoming<'_>) -> impl Future<Output = S> + Send {
        ready((self.make)(incoming))
    }

    fn body(body: hyper::body::Incoming) -> hyper::body::Incoming {
        body
    }
}

impl<F, T> Over<T> for Each<F> where Self: engine::App {}

impl<F> fmt::Debug for Each<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Each").finish_non_exhaustive()
    }
}

/// Makes a server from a bound listener and an accept loop, for protocols other than HTTP.
///
/// The report and the errors call it `name`. The loop gets an [`Acceptor`], and a token that fires after the
/// linger and tells it to stop. It may spawn its connections in any way. They are cut when their time is up.
/// The loop must keep accepting while it serves, because the stop does not proceed until the accept queue is
/// empty.
///
/// The server guesses nothing about the protocol. A connection has no timeout unless you set the one for the
/// [first byte](Serve::first_byte_timeout), or the [other](Serve::header_timeout), which then counts from the
/// first byte of a message until the connection says that it is busy. [`Io::busy`] says so, and the connection
/// is then in flight. [`Busy`] says what the stop does with connections that say so, and with those that never
/// do.
///
/// The server starts when the future of [`run`](Serve::run) is first polled. The listener is already bound, so
/// clients that connect earlier wait.
///
/// # Examples
///
/// An echo of lines. A line that has come is echoed, also during a stop. A connection between two lines is idle.
///
/// ```
/// use taskgroup::server::{Acceptor, Io, serve_loop};
/// use taskgroup::{BoxError, CancellationToken};
/// use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
///
/// async fn echo(mut acceptor: Acceptor, stop: CancellationToken) -> Result<(), BoxError> {
///     while let Some((io, _peer)) = stop.run_until_cancelled(acceptor.accept()).await {
///         tokio::spawn(echo_lines(io));
///     }
///     Ok(())
/// }
///
/// async fn echo_lines(io: Io) -> std::io::Result<()> {
///     let (mut io, mut line) = (BufStream::new(io), String::new());
///     while io.read_line(&mut line).await? > 0 {
///         let _busy = io.get_ref().busy();
///         io.write_all(line.as_bytes()).await?;
///         io.flush().await?;
///         line.clear();
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
    listener: impl Into<Listening>,
    server: F,
) -> Serve<Loop<F>>
where
    F: FnOnce(Acceptor, CancellationToken) -> R + Send + 'static,
    R: Future<Output = Result<(), BoxError>> + Send,
{
    let mut serve = Serve::new(name, listener, Loop(server));
    // A peer may wait for the server to speak first, and heads are a matter of HTTP.
    serve.options.first_byte_timeout = None;
    serve.options.header_timeout = None;
    serve
}

/// An accept loop, which [`serve_loop`] runs.
pub struct Loop<F>(F);

impl<F, R> Server for Loop<F>
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
        (self.0)(acceptor, stop)
    }
}

impl<F> fmt::Debug for Loop<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loop").finish_non_exhaustive()
    }
}

impl<S> Serve<S> {
    /// Says that the app takes the IP address of its clients, so that it is not served where they have none.
    #[cfg(feature = "axum")]
    pub(crate) fn wants_ip(mut self, wants_ip: bool) -> Self {
        self.wants_ip = wants_ip;
        self
    }

    pub(crate) fn new(
        name: impl Into<Cow<'static, str>>,
        listener: impl Into<Listening>,
        server: S,
    ) -> Self {
        Self {
            name: name.into(),
            listeners: vec![listener.into()],
            wants_ip: false,
            server,
            options: Options::default(),
            handshake: None,
            on_report: None,
            then: None,
        }
    }

    pub(crate) fn options(&mut self) -> &mut Options {
        &mut self.options
    }

    /// Serves on one more bound listener.
    ///
    /// All listeners form one server, with one connection limit, one stop and one report.
    pub fn also_on(mut self, listener: impl Into<Listening>) -> Self {
        self.listeners.push(listener.into());
        self
    }

    /// Sets how long the server goes on serving after the token has fired; zero by default.
    ///
    /// [`Readiness::drain_on`](crate::lifecycle::Readiness::drain_on) with the same token reports at once that
    /// the server is no longer ready. The stop, and with it the grace, begins after the lame duck. [`LameDuck`]
    /// says what happens meanwhile, and how to skip it. A server that is run when its token has already fired
    /// has no lame duck.
    pub fn lame_duck(mut self, lame_duck: impl Into<LameDuck>) -> Self {
        self.options.lame_duck = lame_duck.into();
        self
    }

    /// Sets the time from the stop to the cut, the linger included.
    ///
    /// It is counted from the moment the token fires, or from the end of the lame duck. Any duration is valid.
    /// With [`Duration::MAX`] no connection with a request in flight is ever cut, so a single client that does
    /// not read, or whose websocket goes on sending, can prevent the stop from ending. The default is
    /// [10 seconds](Sidecar::DEFAULT_GRACE). In a component the default is all the time that the component has,
    /// which is also the maximum.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.options.grace = Some(grace);
        self
    }

    /// Sets the time between the stop and the moment in which the server itself is told of it.
    ///
    /// A server that is told to stop discards what it has not read. A request that is on its way at the stop,
    /// on a new or an open connection, is answered if it arrives within the linger. The default is
    /// [200 milliseconds](DEFAULT_LINGER). Without connections the linger is skipped. It is part of the grace
    /// and ends with it, also with [`Duration::MAX`]. With zero the server is told at once.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.options.linger = linger;
        self
    }

    /// Sets how long a connection without a request in flight may stay after the server was told.
    ///
    /// It is for clients that cannot be told of the stop. They have sent half a request, have not begun with
    /// TLS or HTTP/2, say nothing at all, or do not answer a PING. A client that is still reading a response is
    /// not idle. Over HTTP/2 this is known of bodies whose data are [`Bytes`](https://docs.rs/bytes), as in
    /// axum and tonic. At most half of what the grace leaves after the linger is used, also with
    /// [`Duration::MAX`]. With zero an idle connection is cut at once. The default is
    /// [1 second](DEFAULT_IDLE_GRACE).
    pub fn idle_grace(mut self, idle_grace: Duration) -> Self {
        self.options.idle_grace = idle_grace;
        self
    }

    /// Sets how long handlers and connections that were cut have to end before they are given up.
    ///
    /// This comes after the grace. Only code that blocks its thread needs more than a moment. The tasks that
    /// were cut need that moment to be polled, so less than 10 milliseconds is an error of [`run`](Self::run).
    /// With [`Duration::MAX`] the server waits until all of them have ended, and never reports any as stuck.
    /// When the server ends by itself, its remaining connections get the same time. The default is
    /// [1 second](DEFAULT_KILL_GRACE).
    pub fn kill_grace(mut self, kill_grace: Duration) -> Self {
        self.options.kill_grace = kill_grace;
        self
    }

    /// Sets how many connections may be open at once; unlimited by default.
    ///
    /// At the limit the connection that has been idle for longest gives way to a client that waits, so that idle
    /// clients cannot hold the limit. Over HTTP/2 it is told with a GOAWAY. If none is idle, one client is
    /// accepted and waits for a place, and further ones wait in the accept queue of the system. Those that wait at
    /// the stop are served all the same. A connection with a request in flight, one that has sent a part of a
    /// request, one that was upgraded, and one of a [`serve_loop`] never give way. Zero is an error of [`run`](Self::run). [`usize::MAX`] is as good as
    /// unlimited.
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.options.max_connections = Some(limit);
        self
    }

    /// Sets how long a client may stay silent after it has connected.
    ///
    /// A client that takes longer is cut. With [`Duration::MAX`] no client is, and the other timeouts still hold.
    /// The default is [30 seconds](DEFAULT_FIRST_BYTE_TIMEOUT), and none for a [`serve_loop`]. Zero is an error
    /// of [`run`](Self::run).
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.options.first_byte_timeout = limited(timeout);
        self
    }

    /// Sets how long a client may take from the first byte of a request to the end of its head.
    ///
    /// It is also the time for the TLS handshake, and for the client to begin with HTTP/2. An HTTP/2 connection
    /// is no longer timed after that. A client that takes longer is cut, at most a quarter of this timeout later,
    /// and in a TLS handshake at once. It is no idle timeout, because it does not run between two requests. With
    /// [`Duration::MAX`] no client is cut. The default is [30 seconds](DEFAULT_HEADER_TIMEOUT), and none for a
    /// [`serve_loop`]. Zero is an error of [`run`](Self::run).
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.options.header_timeout = limited(timeout);
        self
    }

    /// Limits a panic of a handler, or of its response body, to its request.
    ///
    /// Without this option a panic closes the connection without an answer, or resets the stream over HTTP/2.
    /// With it the client gets a 500, or the gRPC status `INTERNAL`, the connection stays open, and the panic
    /// is logged at ERROR with method and path. An HTTP body that has begun is cut off either way.
    /// [`DrainReport::panicked`] counts all panics, with this option and without. A program built with
    /// `panic = "abort"` cannot catch a panic.
    pub fn catch_panics(mut self) -> Self {
        self.options.catch_panics = true;
        self
    }

    /// Treats a drain in which something was cut as a success, and logs it at WARN.
    ///
    /// A drain that is [stuck](DrainReport::stuck) or [took](DrainReport::took) too long remains an error,
    /// because it is not known to be over.
    pub fn lenient(mut self) -> Self {
        self.options.cuts = Cuts::AreLogged;
        self
    }

    /// Calls `f` with the report of the drain, clean or not, before the outcome is returned.
    ///
    /// It is not called without a drain, when the server ended early, panicked or was dropped.
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
        self.on_report = Some(Box::new(f));
        self
    }

    /// Fires `token` when this server has ended, for whatever it needs up to its last request.
    ///
    /// A back-end server that the handlers call stops by that token, and so after this server. The token fires
    /// however this server ends, also after a failure or a panic, and when it is dropped, even before it was
    /// run. A second call replaces the first, and fires the first token.
    ///
    /// When the server's future is dropped, the token fires at once. The handlers have been cut by then, but
    /// are dropped only when the runtime gets to them. A call that one of them makes meanwhile may find the
    /// back end gone.
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
        self.then = Some(token.clone().drop_guard());
        self
    }
}

impl<S: engine::App> Serve<S> {
    /// Sets whether each request has the [`Stop`](crate::server::Stop) of the server in its extensions; true by
    /// default.
    ///
    /// Without it a request is about 2 % cheaper. An app that is made for each connection gets the stop from
    /// [`Incoming::stop`]. An extractor of axum then finds a stop that never begins.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "axum")]
    /// # async fn f() -> std::io::Result<()> {
    /// use taskgroup::server::{Incoming, serve_each};
    ///
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// let http = serve_each("http", listener, |incoming: Incoming<'_>| {
    ///     let stop = incoming.stop().clone();
    ///     axum::Router::new().route("/", axum::routing::get(async move || {
    ///         if stop.is_stopping() { "going" } else { "here" }
    ///     }))
    /// })
    /// .stop_in_requests(false);
    /// # drop(http);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop_in_requests(mut self, stop_in_requests: bool) -> Self {
        self.options.stop_in_requests = stop_in_requests;
        self
    }

    /// Speaks TLS. Every connection begins with `handshake`.
    ///
    /// Any number of handshakes may be under way at once. A client has the
    /// [first byte's](Serve::first_byte_timeout) timeout to begin its handshake and the
    /// [header's](Serve::header_timeout) to finish it. At the stop it has the [linger](Serve::linger), and
    /// unfinished handshakes are closed at its end. A failed handshake is logged at DEBUG and has no other
    /// effect. For HTTP/2 the configuration must offer it (ALPN `h2` and `http/1.1`). A second call replaces
    /// the first.
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
        self.handshake = Some(Handshake::new(handshake, S::know));
        self
    }
}

impl<S: Server> Serve<S> {
    /// Runs the server until `stop` fires, a token or the context of a component, and then through its lame
    /// duck and its stop.
    ///
    /// When the returned future has ended, no connection, handler, body or websocket of the server is left,
    /// except for what the report calls stuck. That is code that blocks its thread, and tasks that handlers
    /// have spawned and that do not end when their stream does. The stop takes at most the grace, the kill
    /// grace and 100 milliseconds. It takes longer only if the runtime itself is blocked, which is an error.
    ///
    /// The report of a clean drain is logged at INFO.
    ///
    /// # Errors
    ///
    /// A [`SidecarError`] in these cases:
    ///
    /// * Something was cut or stuck, or the stop took longer than the grace, for example because the server did
    ///   not end when it was told ([`is_timed_out`](SidecarError::is_timed_out), with its
    ///   [report](SidecarError::drain_report)).
    /// * The server ended by itself, which axum and tonic do not.
    /// * An option has an invalid value. The [`BuildError`](crate::BuildError) is the source.
    ///
    /// # Panics
    ///
    /// A panic of the server itself, for example of a make-service, goes through the returned future. A panic
    /// of a handler ends only its connection, or its stream over HTTP/2. See
    /// [`catch_panics`](Self::catch_panics).
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future forces the server down. Sockets are closed, handlers and bodies dropped,
    /// and streams closed as soon as the runtime gets to them. Clients are not told, and no report is made.
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
        // Checked now and not when the future is polled, because by then the service may have been polled for
        // readiness.
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
            wants_ip,
            server,
            options,
            handshake,
            on_report,
            then,
        } = self;
        // Whatever happens, a panic included, the token fires when all else is over.
        let _then = then;
        let grace = told.limit.grace(options.grace, Sidecar::DEFAULT_GRACE);
        let checked = options.check(&name);
        let listeners = match checked.and_then(|()| open(&name, listeners, wants_ip)) {
            Ok(listeners) => listeners,
            Err(error) => return Err(SidecarError::early(name, grace, Err(error.into()))),
        };
        let mut plan = options.plan(grace);
        let (lame_duck, cuts) = (options.lame_duck.clone(), options.cuts);
        let gate = Gate::new(options);
        let stop = CancellationToken::new();
        let is_of_others = of_others(&listeners);
        let acceptor = Acceptor::new(listeners, Arc::clone(&gate), handshake);
        let server = server.start(acceptor, stop.clone());
        let serving = gate::serving(&name, &gate, told, &lame_duck, is_of_others);
        let outcome = {
            let supervised = gate::supervise(
                Arc::clone(&gate),
                &mut plan,
                &told.limit,
                serving,
                stop,
                server,
            );
            let supervised = pin!(supervised);
            // Dropped before the server, which drops what is in flight.
            let counting = Arc::clone(&gate);
            let _counted = told.count_in_flight(move || counting.in_flight());
            supervised.await
        };
        conclude(name, &plan, cuts, on_report, outcome)
    }
}

/// Returns what knows whether the sockets are another process's, which has taken them over or has kept them.
#[cfg(all(feature = "restart", unix))]
fn of_others(listeners: &[Open]) -> impl Fn() -> bool + Send + use<> {
    let hatch = listeners.iter().find_map(Open::hatch).cloned();
    move || hatch.as_ref().is_some_and(|hatch| !hatch.is_ours())
}

#[cfg(not(all(feature = "restart", unix)))]
fn of_others(_listeners: &[Open]) -> impl Fn() -> bool + Send + use<> {
    || false
}

/// Checks all listeners and begins to listen.
fn open(server: &str, listeners: Vec<Listening>, wants_ip: bool) -> Result<Vec<Open>, BuildError> {
    let mut opened = Vec::new();
    for listener in listeners {
        let listener = listener.open(server)?;
        let address = listener.address();
        if wants_ip && address.socket_addr().is_none() {
            let what = format!("server `{server}`");
            let why = "its clients have no `SocketAddr`, which the app takes as connect info";
            return Err(BuildError::new(what, "listener", address.to_string(), why));
        }
        opened.push(listener);
    }
    Ok(opened)
}

impl<S> fmt::Debug for Serve<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("name", &self.name)
            .field("listeners", &self.listeners)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
