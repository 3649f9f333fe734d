//! The engine, which serves HTTP over accepted connections, for any tower service.
//!
//! One loop accepts and makes the service of each connection. Each connection is a separate task. It holds its
//! `Conn` until all else of it is gone, and watches the switch that tells it to end.

use std::borrow::Cow;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Extensions, Request, Response};
use hyper::body::Incoming as Body;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::acceptor::Acceptor;
use super::answer::{Answer, Bounds, Protocol};
use super::body::GatedBody;
use super::conn::Conn;
use super::handshake::{Accepted, Handshake, Handshakes};
use super::io::Io;
use super::transport::{Incoming, Tls, Transport};
use crate::BoxError;
use crate::group::build_error::BuildError;
use crate::server::stop::Stop;
use crate::server::switch::Seat;

/// What is served over HTTP, either one service for all connections or one that is made for each.
pub trait App: Protocol + Send {
    /// Whether a connection over HTTP/1 may be upgraded, for example to a websocket.
    const UPGRADES: bool = true;

    /// How its connections are served.
    fn settings(&mut self) -> &mut Settings;

    /// Waits until the service of another connection can be made.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Makes the service of one connection.
    fn make(&mut self, incoming: Incoming<'_>) -> impl Future<Output = Self::Service> + Send;

    /// Returns the initial extensions of each request of the connection. `shared` has the [`Stop`].
    fn extensions(&self, _incoming: Incoming<'_>, shared: &Arc<Extensions>) -> Arc<Extensions> {
        Arc::clone(shared)
    }

    /// Converts a body into the type that the service takes.
    fn body(body: Body) -> Self::Request;
}

/// An app that can be served over a TLS stream of this type.
pub trait Over<T>: App {
    /// Asks the stream for what the requests of its connection should know.
    fn know(_stream: &T, _known: &mut Extensions) {}
}

/// How the connections of an app are served.
#[derive(Clone, Default)]
pub struct Settings {
    tls: Option<Handshake>,
    /// How long a response may take.
    pub(crate) timeout: Option<Duration>,
    /// How many requests of one connection are answered at once.
    pub(crate) turns: Option<usize>,
    #[cfg(feature = "http2")]
    pub(crate) http2: Http2,
}

/// The options of HTTP/2.
#[cfg(feature = "http2")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Http2 {
    /// Whether HTTP/1 is refused.
    pub(crate) only: bool,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) max_streams: Option<u32>,
    pub(crate) stream_window: Option<u32>,
    pub(crate) connection_window: Option<u32>,
}

#[cfg(feature = "http2")]
impl Http2 {
    /// hyper's default.
    const MAX_STREAMS: u32 = 200;
    /// The largest window.
    const LARGEST_WINDOW: u32 = (1 << 31) - 1;

    fn check(&self, server: &str) -> Result<(), BuildError> {
        if self.keepalive == Some(Duration::ZERO) {
            let why = "it would send PINGs without a pause";
            return refuse(server, "http2_keepalive", "0s", why);
        }
        if self.max_streams == Some(0) {
            let why = "it would let no request in";
            return refuse(server, "http2_max_streams", "0", why);
        }
        let windows = [self.stream_window, self.connection_window];
        let is_invalid = |window: &u32| *window == 0 || *window > Self::LARGEST_WINDOW;
        if let Some(window) = windows.into_iter().flatten().find(is_invalid) {
            let why = "a window has room for 1 byte to 2147483647 bytes";
            return refuse(server, "http2_windows", window.to_string(), why);
        }
        Ok(())
    }
}

#[cfg(feature = "http2")]
impl Default for Http2 {
    fn default() -> Self {
        Self {
            only: false,
            keepalive: None,
            max_streams: Some(Self::MAX_STREAMS),
            stream_window: None,
            connection_window: None,
        }
    }
}

fn refuse(
    server: &str,
    option: &'static str,
    value: impl Into<Cow<'static, str>>,
    why: &'static str,
) -> Result<(), BuildError> {
    let what = format!("server `{server}`");
    Err(BuildError::new(what, option, value, why))
}

impl Settings {
    pub(crate) fn set_tls<A, F, R, T>(&mut self, handshake: F)
    where
        A: Over<T>,
        F: Fn(Io) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.tls = Some(Arc::new(move |io| {
            let handshake = handshake(io);
            Box::pin(async move {
                let stream = handshake.await?;
                let mut known = Extensions::new();
                A::know(&stream, &mut known);
                Ok(Transport::Tls(Tls::new(stream, known)))
            })
        }));
    }

    /// Rejects options that would leave the server unable to serve anybody.
    pub(crate) fn check(&self, server: &str) -> Result<(), BuildError> {
        if self.turns == Some(0) {
            let why = "it would answer nobody";
            return refuse(server, "concurrency_per_connection", "0", why);
        }
        #[cfg(feature = "http2")]
        self.http2.check(server)?;
        Ok(())
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        #[cfg_attr(not(feature = "http2"), allow(unused_mut))]
        let mut builder = Builder::new(TokioExecutor::new());
        // The stream times the head of a request. hyper would need a timer for each request.
        builder.http1().header_read_timeout(None);
        #[cfg(feature = "http2")]
        {
            let Http2 {
                only,
                keepalive,
                max_streams,
                stream_window,
                connection_window,
            } = self.http2;
            if only {
                builder = builder.http2_only();
            }
            builder
                .http2()
                .timer(hyper_util::rt::TokioTimer::new())
                // For websockets.
                .enable_connect_protocol()
                .keep_alive_interval(keepalive)
                .max_concurrent_streams(max_streams)
                .initial_stream_window_size(stream_window)
                .initial_connection_window_size(connection_window);
        }
        builder
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            timeout: self.timeout,
            turns: self
                .turns
                .map(|turns| Arc::new(Semaphore::new(turns.min(Semaphore::MAX_PERMITS)))),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut settings = f.debug_struct("Settings");
        settings
            .field("tls", &self.tls.is_some())
            .field("timeout", &self.timeout)
            .field("turns", &self.turns);
        #[cfg(feature = "http2")]
        settings.field("http2", &self.http2);
        settings.finish()
    }
}

/// Serves what `acceptor` accepts, until `stop` fires.
pub(crate) async fn serve<A: App>(
    mut app: A,
    acceptor: Acceptor,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let settings = std::mem::take(app.settings());
    let builder = Arc::new(settings.builder());
    let extensions = Arc::new(roomy(acceptor.gate().stop()));
    let mut connections = Connections {
        acceptor,
        handshakes: settings.tls.clone().map(Handshakes::new),
    };
    let mut stop = pin!(stop.cancelled());
    loop {
        let (io, peer) = tokio::select! {
            biased;
            () = stop.as_mut() => return Ok(()),
            accepted = connections.next() => accepted,
        };
        poll_fn(|cx| app.poll_ready(cx)).await;
        let incoming = Incoming { io: &io, peer };
        let connection = Connection {
            conn: Arc::clone(io.conn()),
            extensions: app.extensions(incoming, &extensions),
            bounds: settings.bounds(),
            service: app.make(incoming).await,
        };
        tokio::spawn(run::<A>(io, connection, Arc::clone(&builder)));
    }
}

/// The accepted connections that are ready to be served.
struct Connections {
    acceptor: Acceptor,
    handshakes: Option<Handshakes>,
}

impl Connections {
    async fn next(&mut self) -> Accepted {
        let Some(handshakes) = &mut self.handshakes else {
            let (io, peer) = self.acceptor.accept().await;
            return (io.map(Transport::Tcp), peer);
        };
        loop {
            tokio::select! {
                (io, peer) = self.acceptor.accept() => handshakes.begin(io, peer),
                accepted = handshakes.next() => return accepted,
            }
        }
    }
}

/// One connection as hyper serves it.
struct Connection<A: App> {
    service: A::Service,
    /// The initial extensions of each request.
    extensions: Arc<Extensions>,
    bounds: Bounds,
    /// Last, by the invariants of `Conn`.
    conn: Arc<Conn>,
}

impl<A: App> hyper::service::Service<Request<Body>> for Connection<A> {
    type Response = Response<GatedBody<A::Response>>;
    type Error = BoxError;
    type Future = Answer<A>;

    #[inline]
    fn call(&self, mut request: Request<Body>) -> Answer<A> {
        let extensions = request.extensions_mut();
        if extensions.is_empty() {
            *extensions = Extensions::clone(&self.extensions);
        } else {
            // An upgrade, or a CONNECT.
            extensions.extend(Extensions::clone(&self.extensions));
        }
        Answer::begin(
            self.service.clone(),
            request.map(A::body),
            Arc::clone(&self.conn),
            &self.bounds,
        )
    }
}

/// Serves one connection to its end.
async fn run<A: App>(
    io: Io<Transport>,
    connection: Connection<A>,
    builder: Arc<Builder<TokioExecutor>>,
) {
    // Declared before the connection, and so dropped after all of it.
    let mut told = Told::new(&connection.conn);
    let io = TokioIo::new(io);
    // The result is ignored. The peer knows how the connection ended, and no other code needs it.
    if A::UPGRADES {
        let connection = pin!(builder.serve_connection_with_upgrades(io, connection));
        let _ = told
            .drive(connection, |connection| connection.graceful_shutdown())
            .await;
    } else {
        let connection = pin!(builder.serve_connection(io, connection));
        let _ = told
            .drive(connection, |connection| connection.graceful_shutdown())
            .await;
    }
}

/// Tells a connection to end after what is in flight, when the gate tells all of them.
struct Told {
    seat: Seat,
    is_told: bool,
    conn: Arc<Conn>,
}

impl Told {
    fn new(conn: &Arc<Conn>) -> Self {
        Self {
            seat: Seat::default(),
            is_told: false,
            conn: Arc::clone(conn),
        }
    }

    async fn drive<C: Future>(
        &mut self,
        mut connection: Pin<&mut C>,
        tell: impl Fn(Pin<&mut C>),
    ) -> C::Output {
        poll_fn(|cx| {
            self.conn.set_polled(true);
            let mut end = connection.as_mut().poll(cx);
            if end.is_pending() && self.is_told_now(cx) {
                tell(connection.as_mut());
                end = connection.as_mut().poll(cx);
            }
            self.conn.set_polled(false);
            end
        })
        .await
    }

    #[inline]
    fn is_told_now(&mut self, cx: &Context<'_>) -> bool {
        if self.is_told {
            return false;
        }
        self.is_told = self.conn.gate().told.watch(&mut self.seat, cx, || ());
        self.is_told
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.conn.gate().told.leave(&mut self.seat);
    }
}

/// Makes extensions with a [`Stop`] and with room for what the app adds.
///
/// A copy has the same room. Extensions that have to grow, as new ones do, cost as much again.
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
