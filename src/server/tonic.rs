//! A tonic server that really stops (feature `tonic`).
//!
//! [`serve`] serves tonic's routes and is a member of a group. It counts connections and calls, tells clients
//! and handlers when the server stops, and cuts what is left at the end of its grace. tonic's own `Server`
//! waits forever for a server stream that does not end, for a client that does not answer a PING, and for a
//! TCP connection on which nothing was ever sent. It leaves every connection running when its future is
//! dropped.
//!
//! # The stop
//!
//! | when | what |
//! |---|---|
//! | the token fires | the [lame duck](Serve::lame_duck) begins, if it has one, and everything is still served |
//! | the stop | the accept queue is emptied and the socket closed; [`Stop`](crate::server::Stop) tells the handlers |
//! | `linger` later (200 ms) | the connections are told: clients get a GOAWAY, idle ones are closed |
//! | `idle_grace` later (1 s) | connections without a call in flight are cut: a client that says nothing, or does not answer |
//! | `grace` after the stop (10 s) | what is in flight is counted, then cut: a handler that has not answered is dropped, a stream ends where it is; clients get the status `UNAVAILABLE`, "the server is shutting down" |
//! | when for 100 ms nothing more of that has ended | all connections are cut |
//! | `kill_grace` after the cut (1 s) | code that blocks its thread is given up and reported as stuck |
//!
//! Thousands of connections are told and cut a few at a time, so that everything else on the thread has its turn.
//!
//! The stop is over as soon as nothing is left. A call is in flight until the last message of its response has
//! been handed over, also while it waits for its turn. A call that a client makes in the moment of the GOAWAY
//! may fail in the client with `CANCELLED` instead of `UNAVAILABLE`. If the call can be repeated, retry that
//! too.
//!
//! # The stop, for a handler
//!
//! Every request has a [`Stop`](crate::server::Stop) in its extensions. A server stream looks at it to end by
//! itself, with a status of its choice.
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
//! # What tonic's `Server` has
//!
//! | `tonic::transport::Server` | here |
//! |---|---|
//! | `timeout`, and the `grpc-timeout` of a client | [`request_timeout`](Serve::request_timeout); what a client asks for is kept as well, and the shorter one counts |
//! | `concurrency_limit_per_connection` | [`concurrency_per_connection`](Serve::concurrency_per_connection) |
//! | `accept_http1` | [`accept_http1`](Serve::accept_http1) |
//! | `http2_keepalive_interval` | [`http2_keepalive`](Serve::http2_keepalive), 30 seconds by default |
//! | `max_concurrent_streams`, windows | [`http2_max_streams`](Serve::http2_max_streams), [`http2_windows`](Serve::http2_windows) |
//! | `tls_config` | [`tls`](Serve::tls), with a `TlsAcceptor` of tokio-rustls; `remote_addr()` and `peer_certs()` know the peer |
//! | `layer`, `trace_fn`, `load_shed` | layers of tower around the routes, see [`serve_with`] |
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

use std::borrow::Cow;
use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use tonic::Status;
use tonic::codegen::http::{Extensions, HeaderMap, Request, Response};
use tonic::service::Routes;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tower_service::Service;

use crate::BoxError;
use crate::server::address::Address;
use crate::server::gate::Protocol;
use crate::server::gate::engine;
use crate::server::gate::engine::Over;
use crate::server::listening::Listening;
use crate::server::serve::Incoming;
use crate::server::serve::Io;
use crate::server::serve::Serve;
use crate::server::transport::Transport;

/// How often a client is sent a PING (every 30 seconds). It has 20 seconds to answer.
pub const DEFAULT_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Makes a server from a bound listener and the services to be served.
///
/// It is [`serve`](crate::serve()) with the defaults of tonic. It speaks only HTTP/2, with any number of
/// streams, answers with the status of a service that fails, and sets `TCP_NODELAY` on every connection. For
/// routes with layers around them see [`serve_with`].
///
/// The report and the errors call it `name`. The server starts when the future of [`run`](Serve::run) is first
/// polled. The listener is already bound, so clients that connect earlier wait.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
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
/// let grpc = taskgroup::server::tonic::serve("grpc", listener, Routes::new(health))
///     .request_timeout(Duration::from_secs(30))
///     .concurrency_per_connection(32);
/// # drop(grpc);
/// # Ok(())
/// # }
/// ```
pub fn serve(
    name: impl Into<Cow<'static, str>>,
    listener: impl Into<Listening>,
    routes: Routes,
) -> Serve<App<Routes>> {
    // Otherwise they would be made for each call.
    serve_with(name, listener, routes.prepare())
}

/// Makes a server from a bound listener and any gRPC service, usually routes with layers around them.
///
/// Everything else is as with [`serve`], which is the same without layers.
///
/// # Examples
///
/// ```
/// use taskgroup::CancellationToken;
/// # #[cfg(feature = "lifecycle")]
/// use taskgroup::lifecycle::Readiness;
/// use tonic::service::{InterceptorLayer, Routes};
/// use tonic::{Request, Status};
/// use tower_layer::Layer;
///
/// # #[cfg(feature = "lifecycle")]
/// # async fn f() -> std::io::Result<()> {
/// # let token = CancellationToken::new();
/// let health = Readiness::drain_on(&token).health_service(&[]);
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let layer = InterceptorLayer::new(|request: Request<()>| match request.metadata().get("let-me") {
///     Some(_) => Ok(request),
///     None => Err(Status::permission_denied("no")),
/// });
/// let service = layer.layer(Routes::new(health).prepare());
/// let grpc = taskgroup::server::tonic::serve_with("grpc", listener, service);
/// # drop(grpc);
/// # Ok(())
/// # }
/// ```
pub fn serve_with<S, B>(
    name: impl Into<Cow<'static, str>>,
    listener: impl Into<Listening>,
    service: S,
) -> Serve<App<S>>
where
    S: Service<Request<tonic::body::Body>, Response = Response<B>, Error: Into<BoxError>>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let mut serve = Serve::new(name, listener, App { service });
    let options = serve.options();
    options.http2.only = true;
    options.http2.max_streams = None;
    options.http2.keepalive = Some(DEFAULT_KEEPALIVE_INTERVAL);
    // Without it a GOAWAY waits for the acknowledgement of what was sent before.
    options.nodelay = true;
    serve
}

/// A gRPC service, which [`serve`] serves.
pub struct App<S> {
    service: S,
}

impl<S> Serve<App<S>>
where
    App<S>: engine::App,
{
    /// Speaks HTTP/1 as well, for gRPC-Web, which also needs a layer.
    pub fn accept_http1(mut self) -> Self {
        self.options().http2.only = false;
        self
    }
}

impl<S, B> Protocol for App<S>
where
    S: Service<Request<tonic::body::Body>, Response = Response<B>, Error: Into<BoxError>>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Request = tonic::body::Body;
    type Response = B;
    type Service = S;

    #[inline]
    fn patience(headers: &HeaderMap) -> Option<Duration> {
        headers
            .get("grpc-timeout")
            .and_then(|timeout| patience(timeout.to_str().ok()?))
    }

    fn recover(error: BoxError) -> Result<Response<()>, BoxError> {
        Status::try_from_error(error).map(Status::into_http)
    }

    fn timed_out() -> Option<BoxError> {
        Some(Status::cancelled("Timeout expired").into())
    }
}

/// Reads a `grpc-timeout` of at most eight digits and a unit, or returns `None` if it is invalid.
fn patience(timeout: &str) -> Option<Duration> {
    let (digits, unit) = timeout.split_at_checked(timeout.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit())
    {
        return None;
    }
    let number = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(3600 * number)),
        "M" => Some(Duration::from_secs(60 * number)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

impl<S> engine::App for App<S>
where
    Self: Protocol<Request = tonic::body::Body, Service = S>,
    S: Clone + Send + 'static,
{
    const UPGRADES: bool = false;

    fn make(&mut self, _incoming: Incoming<'_>) -> impl Future<Output = S> + Send {
        ready(self.service.clone())
    }

    /// tonic reads what its own server puts there, to answer `remote_addr()` and `peer_certs()`.
    fn extensions(&self, incoming: Incoming<'_>, shared: &Arc<Extensions>) -> Arc<Extensions> {
        let mut extensions = Extensions::clone(shared);
        match incoming.transport() {
            Transport::Tcp(_) => {
                extensions.insert(info(incoming.transport(), Some(incoming.remote_addr())));
            }
            #[cfg(unix)]
            Transport::Unix(stream) => {
                extensions.insert(stream.connect_info());
            }
            other => extensions.extend(other.known().cloned().unwrap_or_default()),
        }
        Arc::new(extensions)
    }

    fn body(body: hyper::body::Incoming) -> tonic::body::Body {
        tonic::body::Body::new(body)
    }
}

fn info(transport: &Transport, peer: Option<&Address>) -> TcpConnectInfo {
    let Transport::Tcp(stream) = transport else {
        return TcpConnectInfo {
            local_addr: None,
            remote_addr: None,
        };
    };
    let peer = peer.and_then(Address::socket_addr);
    TcpConnectInfo {
        local_addr: stream.local_addr().ok(),
        remote_addr: peer.or_else(|| stream.peer_addr().ok()),
    }
}

/// The same as for a plain `TcpStream`, and without addresses over what is no TCP.
impl Connected for Io {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        info(self.get_ref(), None)
    }
}

impl<S, T> Over<T> for App<S>
where
    Self: engine::App,
    T: Connected,
{
    fn know(stream: &T, known: &mut Extensions) {
        known.insert(stream.connect_info());
    }
}

impl<S> fmt::Debug for App<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_is_willing_to_wait_is_read_as_grpc_writes_it() {
        assert_eq!(patience("3S"), Some(Duration::from_secs(3)));
        assert_eq!(patience("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(patience("2M"), Some(Duration::from_secs(120)));
        assert_eq!(
            patience("99999999m"),
            Some(Duration::from_millis(99_999_999))
        );
        assert_eq!(patience("7u"), Some(Duration::from_micros(7)));
        assert_eq!(patience("7n"), Some(Duration::from_nanos(7)));
        for invalid in ["", "S", "3", "3s", "+3S", "123456789S", "3ö", "ö"] {
            assert_eq!(patience(invalid), None, "{invalid}");
        }
    }
}
