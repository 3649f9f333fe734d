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
//! | the token fires | it is a [lame duck](Serve::lame_duck), if it has one: all is served as before |
//! | the stop | the accept queue is emptied and the socket closed; [`Stop`](crate::server::Stop) tells the handlers |
//! | `linger` later (200 ms) | tonic is told: clients get a GOAWAY, idle connections are closed |
//! | `idle_grace` later (1 s) | connections without a call in flight are cut: a client that says nothing, or does not answer |
//! | `grace` after the stop (10 s) | what is in flight is counted, then cut: a handler that has not answered is dropped, a stream ends where it is; clients get the status `UNAVAILABLE`, "the server is shutting down" |
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
//! Every request has a [`Stop`](crate::server::Stop) in its extensions. A server stream looks at it to end by
//! itself, with whatever status is right:
//!
//! ```
//! use taskgroup::server::Stop;
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
//! use taskgroup::TaskGroup;
//! # #[cfg(feature = "lifecycle")]
//! use taskgroup::lifecycle::Readiness;
//! use tonic::service::Routes;
//!
//! # #[cfg(feature = "lifecycle")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let mut group = TaskGroup::new();
//! let health = Readiness::drain_on(group.token()).health_service(&[]);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//!
//! let grpc = taskgroup::server::tonic::serve("grpc", listener, Routes::new(health))
//!     .grace(Duration::from_secs(5))
//!     .run(group.token());
//! group.spawn(grpc);
//!
//! group.cancel();
//! group.wait().await?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "lifecycle"))]
//! # fn main() {}
//! ```

mod layer;
mod incoming;

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use http_body::Body;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Response};
use tonic::service::Routes;
use tonic::transport::Error;
use tonic::transport::server::Router;
use tower_layer::{Identity, Layer, Stack};
use tower_service::Service;

use self::incoming::Incoming;
use self::layer::Conns;
use crate::BoxError;

use crate::server::serve::Acceptor;
use crate::server::serve::Serve;

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
/// use taskgroup::CancellationToken;
/// # #[cfg(feature = "lifecycle")]
/// use taskgroup::lifecycle::Readiness;
/// use tonic::service::Routes;
///
/// # #[cfg(feature = "lifecycle")]
/// # async fn f() -> std::io::Result<()> {
/// # let token = CancellationToken::new();
/// let health = Readiness::drain_on(&token).health_service(&[]);
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let grpc = taskgroup::server::tonic::serve("grpc", listener, Routes::new(health));
/// # drop(grpc);
/// # Ok(())
/// # }
/// ```
pub fn serve(
    name: impl Into<Cow<'static, str>>,
    listener: TcpListener,
    routes: Routes,
) -> Serve<App> {
    let (conns, mut server) = gated();
    app(name, listener, conns, server.add_routes(routes))
}

/// Makes a server of a bound listener and of what `router` makes of the [`Server`] it is given.
///
/// That is tonic's builder, with the gate as its first layer: layers that are added are inside of
/// the gate. Its HTTP/2 keepalive is [30 seconds](DEFAULT_KEEPALIVE_INTERVAL), so that clients that
/// have vanished are noticed, and can be set to something else. tonic's settings of the socket
/// have no effect here: `TCP_NODELAY` is set on every connection. The handshake of TLS is bounded by the
/// [header timeout](Serve::header_timeout), from its first byte to its end.
///
/// # Errors
///
/// What `router` returns: `tls_config` refuses a certificate that is none.
///
/// For [`serve`], which is the same without the settings, see there.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::CancellationToken;
/// # #[cfg(feature = "lifecycle")]
/// use taskgroup::lifecycle::Readiness;
///
/// # #[cfg(feature = "lifecycle")]
/// # async fn f() -> Result<(), taskgroup::BoxError> {
/// # let token = CancellationToken::new();
/// let health = Readiness::drain_on(&token).health_service(&[]);
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let grpc = taskgroup::server::tonic::serve_with("grpc", listener, |server| {
///     Ok(server
///         .timeout(Duration::from_secs(30))
///         .concurrency_limit_per_connection(32)
///         .add_service(health))
/// })?;
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
/// let grpc = taskgroup::server::tonic::serve_with("grpc", listener, |_| Ok(router));
/// # Ok(())
/// # }
/// ```
pub fn serve_with<L, B>(
    name: impl Into<Cow<'static, str>>,
    listener: TcpListener,
    router: impl FnOnce(Server) -> Result<Router<L>, Error>,
) -> Result<Serve<App>, Error>
where
    L: Gated + Layer<Routes> + Send + 'static,
    L::Service:
        Service<Request<tonic::body::Body>, Response = Response<B>> + Clone + Send + 'static,
    <L::Service as Service<Request<tonic::body::Body>>>::Future: Send,
    <L::Service as Service<Request<tonic::body::Body>>>::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (conns, server) = gated();
    Ok(app(name, listener, conns, router(server)?))
}

fn gated() -> (Conns, Server) {
    let conns = Conns::default();
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(DEFAULT_KEEPALIVE_INTERVAL))
        .layer(GateLayer(conns.clone()));
    (conns, server)
}

fn app<L, B>(
    name: impl Into<Cow<'static, str>>,
    listener: TcpListener,
    conns: Conns,
    router: Router<L>,
) -> Serve<App>
where
    L: Layer<Routes> + Send + 'static,
    L::Service:
        Service<Request<tonic::body::Body>, Response = Response<B>> + Clone + Send + 'static,
    <L::Service as Service<Request<tonic::body::Body>>>::Future: Send,
    <L::Service as Service<Request<tonic::body::Body>>>::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let app = App(Box::new(|acceptor, stop| {
        let incoming = Incoming::new(acceptor, conns);
        Box::pin(router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()))
    }));
    // Without it a GOAWAY waits for the acknowledgement of what was sent before.
    Serve::new(name, listener, app).nodelay(true)
}

/// How often a client is sent a PING: every 30 seconds. tonic gives it 20 seconds to answer.
pub const DEFAULT_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

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

/// What [`serve`] serves: a router of tonic.
pub struct App(Box<dyn FnOnce(Acceptor, CancellationToken) -> Running + Send>);

type Running = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

impl crate::server::serve::Server for App {
    type Error = Error;

    fn start(
        self,
        acceptor: Acceptor,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        self.0(acceptor, stop)
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}
