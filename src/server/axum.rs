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
//! | the token fires | it is a [lame duck](Serve::lame_duck), if it has one: all is served as before |
//! | the stop | the accept queue is emptied and the socket closed; [`Stop`](crate::server::Stop) tells the handlers; answers over HTTP/1 say `Connection: close` |
//! | `linger` later (200 ms) | axum is told: idle connections are closed, those over HTTP/2 get a GOAWAY |
//! | `idle_grace` later (1 s) | connections without a request in flight are cut: half a request, a client that says nothing |
//! | `grace` after the stop (10 s) | what is in flight is counted, then cut: a handler that has not answered is dropped and its client gets a 503; a body that has begun ends as broken, never as whole |
//! | 100 ms later | all connections are cut, upgraded ones too |
//! | `kill_grace` later (1 s) | what blocks its thread is given up and reported as stuck |
//!
//! It is over as soon as nothing is left. A request is in flight until its response body has been
//! handed over to the last byte. A connection that was upgraded over HTTP/1, a websocket mostly, is open
//! until its stream is dropped. One that carried a websocket over HTTP/2 is taken to carry it until
//! it is closed; that a single stream ended is not to be seen.
//!
//! All there is to set is at [`Serve`]; a websocket that says goodbye is in `ws` (feature `ws`).
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
//! let http = taskgroup::server::axum::serve("http", listener, app)
//!     .grace(Duration::from_secs(5))
//!     .run(group.token());
//! group.spawn(http);
//!
//! group.cancel();
//! group.wait().await?;
//! # Ok(())
//! # }
//! ```

mod transport;
mod listener;
mod layer;
#[cfg(feature = "ws")]
pub mod ws;

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::marker::PhantomData;

use axum::extract::Request;
use axum::response::Response;
use axum::serve::ListenerExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use self::layer::MakeGated;
use self::listener::{Handshake, untouched};
use crate::server::serve::Acceptor;
use crate::server::serve::Io;
use crate::server::serve::Serve;
use crate::server::serve::Server;

pub use self::listener::{Incoming, Listener};
pub use self::transport::{Tls, Transport};

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
/// let http = taskgroup::server::axum::serve("http", listener, app);
/// # drop(http);
/// # Ok(())
/// # }
/// ```
pub fn serve<M, S>(
    name: impl Into<Cow<'static, str>>,
    listener: TcpListener,
    app: M,
) -> Serve<App<M, S>>
where
    M: for<'a> Service<Incoming<'a>, Error = Infallible, Response = S> + Send + 'static,
    for<'a> <M as Service<Incoming<'a>>>::Future: Send,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let app = App {
        app,
        tls: None,
        service: PhantomData,
    };
    Serve::new(name, listener, app)
}

impl<M, S> Serve<App<M, S>> {
    /// Speaks TLS: `handshake` is what every connection begins with.
    ///
    /// Any number of them are under way at once. One takes the timeouts of the [first
    /// byte](Serve::first_byte_timeout) and of the [header](Serve::header_timeout) at most, and at the stop the [linger](Serve::linger), with which
    /// it is closed. One that fails is logged at DEBUG, and nothing else comes of it.
    /// HTTP/2 is spoken with clients that begin with it; for browsers the configuration has to offer it
    /// (ALPN `h2` and `http/1.1`). A second call replaces the first.
    ///
    /// # Panics
    ///
    /// A panic of `handshake` goes through the future of [`run`](Serve::run).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use axum::Router;
    /// use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
    ///
    /// # async fn f(config: ServerConfig) -> std::io::Result<()> {
    /// let tls = TlsAcceptor::from(Arc::new(config));
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// let https = taskgroup::server::axum::serve("https", listener, Router::new())
    ///     .tls(move |io| tls.accept(io));
    /// # drop(https);
    /// # Ok(())
    /// # }
    /// ```
    pub fn tls<F, R, T>(self, handshake: F) -> Self
    where
        F: Fn(Io) -> R + Send + 'static,
        R: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake: Handshake = Box::new(move |io| {
            let handshake = handshake(io);
            Box::pin(async move { Ok(Transport::Tls(Tls::new(handshake.await?))) })
        });
        self.map(|app| App {
            tls: Some(handshake),
            ..app
        })
    }
}

/// What [`serve`] serves: what axum makes a service of for each connection.
pub struct App<M, S> {
    app: M,
    tls: Option<Handshake>,
    service: PhantomData<fn() -> S>,
}

impl<M, S> Server for App<M, S>
where
    M: for<'a> Service<Incoming<'a>, Error = Infallible, Response = S> + Send + 'static,
    for<'a> <M as Service<Incoming<'a>>>::Future: Send,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Error = io::Error;

    fn start(
        self,
        acceptor: Acceptor,
        stop: CancellationToken,
    ) -> impl Future<Output = io::Result<()>> + Send {
        let app = MakeGated::new(self.app, acceptor.gate().stop());
        let listener = Listener::new(acceptor, self.tls);
        axum::serve(listener.tap_io(untouched as fn(&mut Io<Transport>)), app)
            .with_graceful_shutdown(stop.cancelled_owned())
            .into_future()
    }
}

impl<M, S> fmt::Debug for App<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}
