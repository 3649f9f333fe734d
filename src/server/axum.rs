//! An axum server that really stops (feature `axum`).
//!
//! [`serve`] takes what `axum::serve` takes and is a member of a group. It counts connections and requests,
//! tells clients and handlers when the server stops, and cuts what is left at the end of its grace.
//! `axum::serve` waits forever for a client that has sent half a request or does not read its answer. It does
//! not wait for websockets at all, and it leaves every connection running when its future is dropped.
//!
//! # The stop
//!
//! | when | what |
//! |---|---|
//! | the token fires | the [lame duck](Serve::lame_duck) begins, if it has one, and everything is still served |
//! | the stop | the accept queue is emptied and the socket closed; [`Stop`] tells the handlers; answers over HTTP/1 say `Connection: close` |
//! | `linger` later (200 ms) | the connections are told: idle ones are closed, those over HTTP/2 get a GOAWAY |
//! | `idle_grace` later (1 s) | connections without a request in flight are cut: half a request, a client that says nothing |
//! | `grace` after the stop (10 s) | what is in flight is counted, then cut: a handler that has not answered is dropped and its client gets a 503; a body that has begun fails and never seems complete |
//! | when for 100 ms nothing more of that has ended | all connections are cut, upgraded ones too |
//! | `kill_grace` after the cut (1 s) | code that blocks its thread is given up and reported as stuck |
//!
//! Thousands of connections are told and cut a few at a time, so that everything else on the thread has its turn.
//!
//! The stop is over as soon as nothing is left. A request is in flight until the last byte of its response body
//! has been handed over. A connection that was upgraded over HTTP/1, usually to a websocket, is open until its
//! stream is dropped. Over HTTP/2 the end of a single stream is not visible, so a connection that has carried a
//! websocket counts as upgraded until it is closed.
//!
//! [`Serve`] documents all options. `ws` (feature `ws`) has a websocket that sends a Close at the stop.
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

#[cfg(feature = "ws")]
pub mod ws;

use std::any::TypeId;
use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::Request;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::handler::HandlerService;
use axum::http::request::Parts;
use axum::middleware::AddExtension;
use axum::response::Response;
use axum::routing::MethodRouter;
use tower_service::Service;

use crate::server::address::Address;
use crate::server::gate::Protocol;
use crate::server::gate::engine;
use crate::server::gate::engine::Over;
use crate::server::listening::Listening;
use crate::server::serve::Incoming;
use crate::server::serve::Serve;
use crate::server::stop::Stop;

/// Makes a server from a bound listener and anything that `axum::serve` takes. That is a router, a method
/// router or a handler's make-service, with or without connect info.
///
/// It is [`serve`](crate::serve()) for services that take axum's body.
///
/// The report and the errors call it `name`. The server starts when the future of [`run`](Serve::run) is first
/// polled. The listener is already bound, so clients that connect earlier wait.
///
/// # Examples
///
/// The address of the client, as with `axum::serve` itself.
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
    listener: impl Into<Listening>,
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
        service: PhantomData,
    };
    Serve::new(name, listener, app).wants_ip(wants_socket_addr::<S>())
}

/// A maker of services for each connection, which [`serve`] serves.
pub struct App<M, S> {
    app: M,
    service: PhantomData<fn() -> S>,
}

impl<M, S> Protocol for App<M, S>
where
    M: 'static,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Request = Body;
    type Response = Body;
    type Service = S;
}

impl<M, S> engine::App for App<M, S>
where
    M: for<'a> Service<Incoming<'a>, Error = Infallible, Response = S> + Send + 'static,
    for<'a> <M as Service<Incoming<'a>>>::Future: Send,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.app.poll_ready(cx).map(|Ok(())| ())
    }

    fn make(&mut self, incoming: Incoming<'_>) -> impl Future<Output = S> + Send {
        let making = self.app.call(incoming);
        async move {
            let Ok(service) = making.await;
            service
        }
    }

    fn body(body: hyper::body::Incoming) -> Body {
        Body::new(body)
    }
}

impl<M, S, T> Over<T> for App<M, S> where Self: engine::App {}

impl<M, S> fmt::Debug for App<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}

/// Extracts the [`Stop`] of the server from a request.
///
/// Outside of a server of this crate, for example in a test of a router, it is a stop that [never](Stop::never)
/// begins.
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

/// Returns whether the service of a connection is a router with the address of the peer.
fn wants_socket_addr<S: 'static>() -> bool {
    let is = TypeId::of::<S>();
    is == TypeId::of::<AddExtension<Router, ConnectInfo<SocketAddr>>>()
        || is == TypeId::of::<AddExtension<MethodRouter, ConnectInfo<SocketAddr>>>()
}

/// The address of the peer, as the connect info of a request.
///
/// # Panics
///
/// The peer has no such address, because it is at a Unix socket or at a
/// [`Listener`](crate::server::Listener) of another kind. For a router the server does not even start then.
impl Connected<Incoming<'_>> for SocketAddr {
    fn connect_info(incoming: Incoming<'_>) -> Self {
        let peer = incoming.remote_addr();
        match peer.socket_addr() {
            Some(address) => address,
            None => panic!("`{peer}` has no `SocketAddr`, which the app takes as connect info"),
        }
    }
}

/// The address of the peer, of any kind, as the connect info of a request.
impl Connected<Incoming<'_>> for Address {
    fn connect_info(incoming: Incoming<'_>) -> Self {
        incoming.remote_addr().clone()
    }
}

/// A router is its own service for each connection. Its routes are made once per connection, not per request.
impl Service<Incoming<'_>> for Router {
    type Response = Self;
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _incoming: Incoming<'_>) -> Self::Future {
        ready(Ok(self.clone().with_state(())))
    }
}

/// As a router.
impl Service<Incoming<'_>> for MethodRouter {
    type Response = Self;
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _incoming: Incoming<'_>) -> Self::Future {
        ready(Ok(self.clone().with_state(())))
    }
}

/// A handler is its own service for each connection.
impl<H, T, S> Service<Incoming<'_>> for HandlerService<H, T, S>
where
    H: Clone,
    S: Clone,
{
    type Response = Self;
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _incoming: Incoming<'_>) -> Self::Future {
        ready(Ok(self.clone()))
    }
}
