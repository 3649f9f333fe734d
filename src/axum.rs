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
//! | the token fires | the accept queue is emptied and the socket closed; [`Stop`] tells the handlers; answers over HTTP/1 say `Connection: close` |
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

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderValue, Method, StatusCode, Version, header};
use axum::response::Response;
use axum::serve::{IncomingStream, ListenerExt, TapIo};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::drain::DrainReport;
use crate::gate;
use crate::gate::Acceptor;
use crate::gate::Conn;
use crate::gate::Cuts;
use crate::gate::Gate;
use crate::gate::Limits;
use crate::gate::OnReport;
use crate::gate::Plan;
use crate::gate::Tracked;
use crate::gate::conclude;
use crate::gate::limited;
use crate::sidecar::Sidecar;
use crate::sidecar::SidecarError;
use crate::stop::Stop;

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

/// A connection as [`serve`] shows it to a make-service; of interest to those who write their own.
pub type Incoming<'a> = IncomingStream<'a, TapIo<Listener, fn(&mut Io)>>;

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
    /// ends its connection, or its stream over HTTP/2.
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
            let app = MakeGated {
                app,
                extensions: Arc::new(roomy(gate.stop())),
            };
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

/// For the one thing `TapIo` is needed for: with it, axum knows the connect info of any listener.
fn untouched(_io: &mut Io) {}

/// The listener that [`serve`] gives to axum; it appears in the type of [`Incoming`].
#[derive(Debug)]
pub struct Listener(Acceptor);

impl axum::serve::Listener for Listener {
    type Io = Io;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Io, SocketAddr) {
        let (io, peer) = self.0.accept().await;
        (Io(io), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// The stream of one connection, which can be cut.
#[derive(Debug)]
pub struct Io(gate::Io<TcpStream>);

impl Io {
    /// Returns the stream itself, to ask for its addresses or to set options.
    #[must_use]
    pub fn get_ref(&self) -> &TcpStream {
        self.0.stream()
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Takes the [`Stop`] of the server out of a request.
///
/// Outside of a server of [`serve`], in a test of a router say, it is one that
/// [never](Stop::never) comes.
impl<S: Sync> FromRequestParts<S> for Stop {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts
            .extensions
            .get::<Self>()
            .cloned()
            .unwrap_or_else(Self::never))
    }
}

/// Makes the service of each connection, under the gate.
#[derive(Clone, Debug)]
struct MakeGated<M> {
    app: M,
    extensions: Arc<Extensions>,
}

impl<'a, M> Service<Incoming<'a>> for MakeGated<M>
where
    M: Service<Incoming<'a>, Error = Infallible>,
{
    type Response = Gated<M::Response>;
    type Error = Infallible;
    type Future = Making<M::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.app.poll_ready(cx)
    }

    fn call(&mut self, incoming: Incoming<'a>) -> Self::Future {
        let conn = Arc::clone(incoming.io().0.conn());
        Making {
            service: self.app.call(incoming),
            extensions: Arc::clone(&self.extensions),
            conn,
        }
    }
}

pin_project! {
    struct Making<F> {
        #[pin]
        service: F,
        extensions: Arc<Extensions>,
        conn: Arc<Conn>,
    }
}

impl<F, S> Future for Making<F>
where
    F: Future<Output = Result<S, Infallible>>,
{
    type Output = Result<Gated<S>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(service) = ready!(this.service.poll(cx));
        Poll::Ready(Ok(Gated {
            service,
            extensions: Arc::clone(this.extensions),
            conn: Arc::clone(this.conn),
        }))
    }
}

/// The service of one connection.
#[derive(Clone, Debug)]
struct Gated<S> {
    service: S,
    /// What each request begins with.
    extensions: Arc<Extensions>,
    conn: Arc<Conn>,
}

impl<S> Gated<S> {
    fn add_stop(&self, extensions: &mut Extensions) {
        if extensions.is_empty() {
            extensions.clone_from(&self.extensions);
        } else {
            extensions.insert(self.conn.gate().stop().clone());
        }
    }
}

/// Makes extensions with a [`Stop`] and with room for what axum adds.
///
/// A copy has the same room. One that has to grow, as each new one does, costs as much again.
fn roomy(stop: &Stop) -> Extensions {
    let mut extensions = Extensions::new();
    extensions.insert([(); 1]);
    extensions.insert([(); 2]);
    extensions.insert([(); 3]);
    extensions.insert([(); 4]);
    extensions.clear();
    extensions.insert(stop.clone());
    extensions
}

impl<S> Service<Request> for Gated<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let (method, path) = (request.method().as_str(), request.uri().path());
        let in_flight = gate::Request::begin(Arc::clone(&self.conn), method, path);
        let is_connect = request.method() == Method::CONNECT;
        let is_http1 = request.version() < Version::HTTP_2;
        self.add_stop(request.extensions_mut());
        Answer {
            handler: Some(self.service.call(request)),
            request: Some(in_flight),
            is_connect,
            is_http1,
        }
    }
}

pin_project! {
    /// A handler that is raced with the cut.
    struct Answer<F> {
        // Before the request, which says when it is dropped that nothing is left.
        #[pin]
        handler: Option<F>,
        // Nothing once the response has it.
        request: Option<gate::Request>,
        is_connect: bool,
        is_http1: bool,
    }
}

impl<F> Future for Answer<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(request) = this.request.as_mut() else {
            return Poll::Pending;
        };
        let answer = match this.handler.as_mut().as_pin_mut() {
            Some(handler) if !request.is_cut() => handler.poll(cx),
            _ => Poll::Pending,
        };
        let is_late = answer.is_pending() && request.watch(cx);
        if answer.is_pending() && !is_late {
            return Poll::Pending;
        }
        // Gone before its request is, whatever it holds.
        this.handler.set(None);
        let Some(request) = this.request.take() else {
            return Poll::Pending;
        };
        let Poll::Ready(Ok(mut response)) = answer else {
            return Poll::Ready(Ok(farewell(request)));
        };
        if is_upgrade(response.status(), *this.is_connect) {
            request.conn().add_upgrade();
        } else if *this.is_http1 && request.conn().gate().is_stopping() {
            say_close(&mut response);
        }
        let response = response.map(|body| Body::new(Tracked::new(body, request, cx)));
        Poll::Ready(Ok(response))
    }
}

fn is_upgrade(status: StatusCode, is_connect: bool) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || (is_connect && status.is_success())
}

fn say_close(response: &mut Response) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
}

/// What a client gets whose handler was cut. HTTP/2 has no `Connection` header; hyper takes it away.
fn farewell(request: gate::Request) -> Response {
    let body = Tracked::farewell(Body::from("the server is shutting down\n"), request);
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    say_close(&mut response);
    response
}
