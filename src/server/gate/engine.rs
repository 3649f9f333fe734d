//! The engine, which serves HTTP over accepted connections, for any tower service.
//!
//! One loop accepts and makes the service of each connection. Each connection is a separate task. It holds its
//! `Conn` until all else of it is gone, and watches the switch that tells it to end.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Extensions, Request, Response};
use hyper::body::Incoming as Body;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_util::sync::CancellationToken;

use super::acceptor::Acceptor;
use super::answer::{Answer, Bounds, Protocol};
use super::body::GatedBody;
use super::conn::Conn;
use super::handshake::{Accepted, Handshakes};
use super::incoming::Incoming;
use super::io::Io;
use super::options::{HyperBuilder, Options};
use crate::BoxError;
use crate::server::stop::Stop;
use crate::server::switch::Seat;

/// What is served over HTTP, either one service for all connections or one that is made for each.
pub trait App: Protocol + Send {
    /// Whether a connection over HTTP/1 may be upgraded, for example to a websocket.
    const UPGRADES: bool = true;

    /// Waits until the service of another connection can be made.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Makes the service of one connection.
    fn make(&mut self, incoming: Incoming<'_>) -> impl Future<Output = Self::Service> + Send;

    /// Returns the initial extensions of each request of the connection. `shared` has the [`Stop`].
    fn extensions(&self, incoming: Incoming<'_>, shared: &Arc<Extensions>) -> Arc<Extensions> {
        match incoming.transport().known() {
            Some(known) => {
                let mut extensions = Extensions::clone(shared);
                extensions.extend(known.clone());
                Arc::new(extensions)
            }
            None => Arc::clone(shared),
        }
    }

    /// Converts a body into the type that the service takes.
    fn body(body: Body) -> Self::Request;
}

/// An app that can be served over a TLS stream of this type.
pub trait Over<T>: App {
    /// Asks the stream for what the requests of its connection should know.
    fn know(_stream: &T, _known: &mut Extensions) {}
}

fn builder(options: &Options) -> HyperBuilder {
    let mut builder = HyperBuilder::new(TokioExecutor::new());
    let http1 = &options.http1;
    builder
        .http1()
        // The stream times the head of a request. hyper would need a timer for each request.
        .header_read_timeout(None)
        .half_close(http1.half_close);
    if let Some(bytes) = http1.max_head_bytes {
        builder.http1().max_buf_size(bytes);
    }
    if let Some(headers) = http1.max_headers {
        builder.http1().max_headers(headers);
    }
    #[cfg(feature = "http2")]
    {
        let http2 = &options.http2;
        if http2.only {
            builder = builder.http2_only();
        }
        builder
            .http2()
            .timer(hyper_util::rt::TokioTimer::new())
            // For websockets.
            .enable_connect_protocol()
            .keep_alive_interval(http2.keepalive)
            .keep_alive_timeout(http2.keepalive_timeout)
            .max_concurrent_streams(http2.max_streams)
            .initial_stream_window_size(http2.stream_window)
            .initial_connection_window_size(http2.connection_window)
            .max_frame_size(http2.max_frame_bytes);
        if let Some(bytes) = http2.max_head_bytes {
            builder.http2().max_header_list_size(bytes);
        }
    }
    #[cfg(feature = "hyper-builder")]
    options.hyper.apply(&mut builder);
    builder
}

/// Serves what `acceptor` accepts, until `stop` fires.
pub(crate) async fn serve<A: App>(
    mut app: A,
    mut acceptor: Acceptor,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let gate = Arc::clone(acceptor.gate());
    let options = gate.options();
    let builder = Arc::new(builder(options));
    let stop_in_requests = options.stop_in_requests.then(|| gate.stop());
    let extensions = Arc::new(roomy(stop_in_requests));
    let mut connections = Connections {
        handshakes: acceptor.handshake().map(Handshakes::new),
        acceptor,
    };
    let mut stop = pin!(stop.cancelled());
    loop {
        let (io, peer) = tokio::select! {
            biased;
            () = stop.as_mut() => return Ok(()),
            accepted = connections.next() => accepted,
        };
        poll_fn(|cx| app.poll_ready(cx)).await;
        let incoming = Incoming {
            io: &io,
            peer: &peer,
        };
        let connection = Connection {
            conn: Arc::clone(io.conn()),
            extensions: app.extensions(incoming, &extensions),
            bounds: Bounds::new(options),
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
            return self.acceptor.accept().await;
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
async fn run<A: App>(io: Io, connection: Connection<A>, builder: Arc<HyperBuilder>) {
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

/// Makes extensions with a [`Stop`], if it is to be there, and with room for what the app adds.
///
/// A copy has the same room. Extensions that have to grow, as new ones do, cost as much again.
fn roomy(stop: Option<&Stop>) -> Extensions {
    let mut extensions = Extensions::new();
    extensions.insert([(); 1]);
    extensions.insert([(); 2]);
    extensions.insert([(); 3]);
    extensions.insert([(); 4]);
    extensions.clear();
    if let Some(stop) = stop {
        extensions.insert(stop.clone());
    }
    extensions
}
