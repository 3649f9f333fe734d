//! A tonic server that really stops (feature `tonic`).
//!
//! [`serve`] is tonic's `Server` as a member of a group. It runs the unmodified server, and around it
//! a gate that counts connections and calls, tells clients and handlers when the server stops, and at
//! the end of its grace cuts what is left. Left to itself, a tonic server waits for ever for a
//! server stream that does not end, for a client that does not answer a PING, and for a TCP connection
//! on which nothing was ever sent; and it leaves every connection running when its future is dropped.
//!
//! # The stop
//!
//! | when | what |
//! |---|---|
//! | the token fires | the accept queue is emptied and the socket closed; [`Stop`](crate::Stop) tells the handlers |
//! | `linger` later (200 ms) | tonic is told: clients get a GOAWAY, idle connections are closed |
//! | `idle_grace` later (1 s) | connections without a call in flight are cut: a client that says nothing, or does not answer |
//! | `grace` after the token fired (10 s) | what is in flight is counted, then cut: a handler that has not answered is dropped, a stream ends where it is; clients get the status `UNAVAILABLE`, "the server is shutting down" |
//! | 100 ms later | all connections are cut |
//! | `kill_grace` later (1 s) | what blocks its thread is given up and reported as stuck |
//!
//! It is over as soon as nothing is left. A call is in flight until its response has been handed over
//! to the last message. One that waits for its turn, behind
//! [`concurrency_limit_per_connection`](tonic::transport::Server::concurrency_limit_per_connection),
//! is not counted before it has come.
//!
//! # The stop, for a handler
//!
//! Every request has a [`Stop`](crate::Stop) in its extensions. A server stream looks at it to end by
//! itself, with whatever status is right:
//!
//! ```
//! use taskgroup::Stop;
//! use tonic::{Request, Status};
//!
//! async fn next_event<T>(request: &Request<T>) -> Result<&'static str, Status> {
//!     let stop = request.extensions().get::<Stop>().cloned();
//!     let stop = stop.unwrap_or_else(Stop::never);
//!     tokio::select! {
//!         () = stop.stopping() => Err(Status::unavailable("moving to another server")),
//!         () = std::future::ready(()) => Ok("event"),
//!     }
//! }
//! # let _ = next_event::<()>;
//! ```
//!
//! # tonic's own settings
//!
//! `max_connection_age_grace` cuts connections without a GOAWAY (tonic 0.14.9), and
//! `max_connection_age` panics in the task of the connection (0.14.5): leave both alone. A call that
//! a client makes in the moment of the GOAWAY fails there with `CANCELLED` and not with
//! `UNAVAILABLE`; where it can be repeated, that is to be retried too.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use taskgroup::{Readiness, TaskGroup};
//! use tonic::service::Routes;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let mut group = TaskGroup::new();
//! let health = Readiness::drain_on(group.token()).health_service(&[]);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//!
//! let grpc = taskgroup::tonic::serve("grpc", listener, Routes::new(health))
//!     .grace(Duration::from_secs(5))
//!     .run(group.token());
//! group.spawn(grpc);
//!
//! group.cancel();
//! group.wait().await?;
//! # Ok(())
//! # }
//! ```

mod layer;
mod incoming;

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Response};
use tonic::service::Routes;
use tonic::transport::server::Router;
use tower_layer::{Identity, Layer, Stack};
use tower_service::Service;

use self::incoming::Incoming;
use self::layer::Conns;
use crate::BoxError;
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

pub use self::layer::GateLayer;

/// Makes a server of a bound listener and of the services to be served.
///
/// `name` is what the report and the errors call it. Nothing happens before the future of
/// [`run`](Serve::run) is polled, but the listener is bound: clients that connect until then wait.
/// For a server with settings or layers of its own see [`serve_with`].
///
/// # Examples
///
/// ```
/// use taskgroup::{CancellationToken, Readiness};
/// use tonic::service::Routes;
///
/// # async fn f() -> std::io::Result<()> {
/// # let token = CancellationToken::new();
/// let health = Readiness::drain_on(&token).health_service(&[]);
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let grpc = taskgroup::tonic::serve("grpc", listener, Routes::new(health));
/// # drop(grpc);
/// # Ok(())
/// # }
/// ```
pub fn serve(name: impl Into<Cow<'static, str>>, listener: TcpListener, routes: Routes) -> Serve {
    serve_with(name, listener, |mut server| server.add_routes(routes))
}

/// Makes a server of a bound listener and of what `router` makes of the [`Server`] it is given.
///
/// That is tonic's builder, with the gate as its first layer: layers that are added are inside of
/// the gate. Its HTTP/2 keepalive is [30 seconds](DEFAULT_KEEPALIVE_INTERVAL), so that clients that
/// have vanished are noticed, and can be set to something else. tonic's settings of the socket
/// have no effect here: `TCP_NODELAY` is set on every connection. With a TLS configuration only its
/// own timeout bounds the handshake, and the idle grace at the stop.
///
/// For [`serve`], which is the same without the settings, see there.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::{CancellationToken, Readiness};
///
/// # async fn f() -> std::io::Result<()> {
/// # let token = CancellationToken::new();
/// let health = Readiness::drain_on(&token).health_service(&[]);
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let grpc = taskgroup::tonic::serve_with("grpc", listener, |server| {
///     server
///         .timeout(Duration::from_secs(30))
///         .concurrency_limit_per_connection(32)
///         .add_service(health)
/// });
/// # drop(grpc);
/// # Ok(())
/// # }
/// ```
///
/// A router of another server has no gate in it, and does not compile:
///
/// ```compile_fail,E0277
/// use tonic::service::Routes;
///
/// # async fn f() -> std::io::Result<()> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let router = tonic::transport::Server::builder().add_routes(Routes::default());
/// let grpc = taskgroup::tonic::serve_with("grpc", listener, |_| router);
/// # Ok(())
/// # }
/// ```
pub fn serve_with<L, B>(
    name: impl Into<Cow<'static, str>>,
    listener: TcpListener,
    router: impl FnOnce(Server) -> Router<L>,
) -> Serve
where
    L: Gated + Layer<Routes> + Send + 'static,
    L::Service:
        Service<Request<tonic::body::Body>, Response = Response<B>> + Clone + Send + 'static,
    <L::Service as Service<Request<tonic::body::Body>>>::Future: Send,
    <L::Service as Service<Request<tonic::body::Body>>>::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let conns = Conns::default();
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(DEFAULT_KEEPALIVE_INTERVAL))
        .layer(GateLayer(conns.clone()));
    let router = router(server);
    Serve {
        name: name.into(),
        listener,
        server: Box::new(|acceptor, signal| {
            let incoming = Incoming::new(acceptor, conns);
            Box::pin(router.serve_with_incoming_shutdown(incoming, signal.cancelled_owned()))
        }),
        limits: Limits {
            max_connections: None,
            first_byte_timeout: Some(DEFAULT_FIRST_BYTE_TIMEOUT),
            header_timeout: Some(DEFAULT_HEADER_TIMEOUT),
            // Without it a GOAWAY waits for the acknowledgement of what was sent before.
            nodelay: true,
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
    }
}

/// How long clients may take to notice the stop: 200 milliseconds.
pub const DEFAULT_LINGER: Duration = Duration::from_millis(200);

/// How long a connection without a call in flight is left alone in the drain: 1 second.
pub const DEFAULT_IDLE_GRACE: Duration = Duration::from_secs(1);

/// How long what was cut has to end: 1 second.
pub const DEFAULT_KILL_GRACE: Duration = Duration::from_secs(1);

/// How long a client may say nothing after it has connected: 30 seconds.
pub const DEFAULT_FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take to begin with HTTP/2: 30 seconds.
pub const DEFAULT_HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a client is sent a PING: every 30 seconds. tonic gives it 20 seconds to answer.
pub const DEFAULT_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How long the clients of what was cut have to take their status.
const FLUSH: Duration = Duration::from_millis(100);

/// tonic's builder with the gate in it, as [`serve_with`] hands it over.
pub type Server = tonic::transport::Server<Stack<GateLayer, Identity>>;

/// Layers with the gate as the first of them.
///
/// All that was made of the [`Server`] that [`serve_with`] hands over has it, and nothing else.
#[diagnostic::on_unimplemented(
    message = "this router was not made of the server that `serve_with` handed over",
    label = "the gate is not among its layers"
)]
pub trait Gated: sealed::Sealed {}

impl<T: sealed::Sealed> Gated for T {}

mod sealed {
    use super::{GateLayer, Identity, Stack};

    pub trait Sealed {}

    impl Sealed for Stack<GateLayer, Identity> {}
    impl<T, L: Sealed> Sealed for Stack<T, L> {}
}

/// A tonic server that is about to run; see [`serve`].
#[must_use = "a server does nothing until it is run"]
pub struct Serve {
    name: Cow<'static, str>,
    listener: TcpListener,
    server: Start,
    limits: Limits,
    plan: Plan,
    cuts: Cuts,
    on_report: Option<OnReport>,
}

/// Starts the unmodified server on connections, with what it is told to stop by.
type Start = Box<dyn FnOnce(Acceptor, CancellationToken) -> Running + Send>;

type Running = Pin<Box<dyn Future<Output = Result<(), tonic::transport::Error>> + Send>>;

impl Serve {
    /// Sets the time from the stop to the cut, the linger included.
    ///
    /// It is counted from the moment the token fires. Any duration will do; with
    /// [`Duration::MAX`] nothing with a call in flight is ever cut. The default is
    /// [10 seconds](Sidecar::DEFAULT_GRACE).
    pub fn grace(mut self, grace: Duration) -> Self {
        self.plan.grace = grace;
        self
    }

    /// Sets how long a connection without a call in flight may stay after tonic was told to stop.
    ///
    /// It is for clients that cannot be told that it is over: those that have not begun with HTTP/2,
    /// or do not answer its PING. No more than half of what the grace leaves after the linger is
    /// used. The default is [1 second](DEFAULT_IDLE_GRACE).
    pub fn idle_grace(mut self, idle_grace: Duration) -> Self {
        self.plan.idle_grace = idle_grace;
        self
    }

    /// Sets the time between the stop and the moment tonic is told of it.
    ///
    /// A call that is on its way at the stop, on a new connection or on an old one, is answered if it
    /// arrives within the linger. The default is [200 milliseconds](DEFAULT_LINGER); without a
    /// connection there is no linger.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.plan.linger = linger;
        self
    }

    /// Sets how long what was cut has to end before it is reported as stuck.
    ///
    /// This comes after the grace. Only what blocks its thread needs any time here. The default is
    /// [1 second](DEFAULT_KILL_GRACE).
    pub fn kill_grace(mut self, kill_grace: Duration) -> Self {
        self.plan.kill_grace = kill_grace;
        self
    }

    /// Sets how many connections may be open at once; there is no limit by default.
    ///
    /// Who comes when the limit is reached waits in the accept queue of the system. Those who wait
    /// there at the stop are let in all the same. Zero is an error of [`run`](Self::run).
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.limits.max_connections = Some(limit);
        self
    }

    /// Sets how long a client may say nothing after it has connected.
    ///
    /// A client that takes longer is cut; with [`Duration::MAX`] none is. The default is
    /// [30 seconds](DEFAULT_FIRST_BYTE_TIMEOUT).
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.limits.first_byte_timeout = limited(timeout);
        self
    }

    /// Sets how long a client may take from its first byte until it has begun with HTTP/2; for a
    /// server that accepts HTTP/1, until the end of the head of each request.
    ///
    /// A client that takes longer is cut; with [`Duration::MAX`] none is. It has no effect on TLS,
    /// whose handshake has a timeout of its own. The default is
    /// [30 seconds](DEFAULT_HEADER_TIMEOUT).
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.limits.header_timeout = limited(timeout);
        self
    }

    /// Ends a panic of a handler, or of the stream it has answered with, in a status for its client.
    ///
    /// Without this the panic goes through: the stream is reset, and a client of tonic sees
    /// `CANCELLED`. With this it gets `INTERNAL` (over plain HTTP a 500), and the panic is logged at
    /// ERROR with the path. [`DrainReport::panicked`] counts all of them, with this and without. In a
    /// program that is built with `panic = "abort"` there is nothing to catch.
    pub fn catch_panics(mut self) -> Self {
        self.limits.catch_panics = true;
        self
    }

    /// Takes a drain in which something was cut for a success that is logged at WARN.
    ///
    /// What is [stuck](DrainReport::stuck), or [took](DrainReport::took) too long, is an error all the
    /// same: nobody can say that it is over.
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
    /// use tonic::service::Routes;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (sender, reports) = mpsc::channel();
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// let token = CancellationToken::new();
    /// token.cancel();
    /// taskgroup::tonic::serve("grpc", listener, Routes::default())
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
    /// When the returned future has ended, no connection, handler or stream of the server is left,
    /// except for what the report calls stuck: code that blocks its thread. Tasks that handlers have
    /// spawned are theirs. It ends within the grace, the kill grace and 100 milliseconds, unless the
    /// runtime itself is blocked; then it is late, and that is an error.
    ///
    /// The report of a clean drain is logged at INFO.
    ///
    /// # Errors
    ///
    /// A [`SidecarError`], converted into the caller's error type, when something had to be cut, was
    /// stuck, or the stop took longer than the grace
    /// ([`is_timed_out`](SidecarError::is_timed_out), with its
    /// [report](SidecarError::drain_report)), or when tonic returned by itself, which it does not.
    ///
    /// # Panics
    ///
    /// A panic of a handler ends its call, and nothing else; see [`catch_panics`](Self::catch_panics).
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future forces the server down: the socket is closed, handlers and streams
    /// are dropped and connections closed as soon as the runtime gets to them. Nobody is told, nothing
    /// is counted.
    ///
    /// # Examples
    ///
    /// See the [module](self).
    pub fn run<E>(
        self,
        token: &CancellationToken,
    ) -> impl Future<Output = Result<(), E>> + Send + use<E>
    where
        E: From<SidecarError>,
    {
        let token = token.clone();
        let Self {
            name,
            listener,
            server,
            limits,
            plan,
            cuts,
            on_report,
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
            let acceptor = Acceptor::new(listener, Arc::clone(&gate));
            let server = server(acceptor, signal.clone());
            let outcome = gate::supervise(gate, &plan, &token, signal, server).await;
            Ok(conclude(name, &plan, cuts, on_report, outcome)?)
        }
    }
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("name", &self.name)
            .field("listener", &self.listener)
            .field("limits", &self.limits)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}
