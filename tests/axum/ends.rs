//! Ends that are no stop: dropped, panicked.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::Router;
use taskgroup::CancellationToken;
use taskgroup::server::Incoming;
use taskgroup::testing::Leaks;
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service;

use crate::peers::{endless, read_to_end, read_until, request, websocket};
use crate::support::alive::Alive;
use crate::support::server::Server;
use crate::support::wait::soon;

#[tokio::test]
async fn r3_dropping_the_future_leaves_nothing() {
    let alive = Alive::default();
    let leaks = Leaks::watch();
    let server = Server::start(endless(&alive), |serve| serve).await;
    let mut idle = request(server.address, "GET / HTTP/1.1").await;
    read_until(&mut idle, "hello").await;
    let poll = request(server.address, "GET /poll HTTP/1.1").await;
    let mut events = request(server.address, "GET /events HTTP/1.1").await;
    read_until(&mut events, "tick\r\n").await;
    let flood = request(server.address, "GET /flood HTTP/1.1").await;
    let echo = websocket(server.address).await;
    server.settle().await;
    alive.reaches(4).await;

    server.task.abort();
    assert!(soon(server.task).await.unwrap_err().is_cancelled());

    alive.reaches(0).await;
    for client in [idle, events, echo] {
        assert_eq!(read_to_end(client).await, "");
    }
    drop((poll, flood));
    assert!(TcpStream::connect(server.address).await.is_err());
    leaks.check().await;
}

#[tokio::test]
async fn r3_dropping_the_future_in_the_drain_leaves_nothing() {
    let alive = Alive::default();
    let leaks = Leaks::watch();
    let server = Server::start(endless(&alive), |serve| serve).await;
    let poll = request(server.address, "GET /poll HTTP/1.1").await;
    let echo = websocket(server.address).await;
    alive.reaches(2).await;
    server.begin_stop().await;

    server.task.abort();
    assert!(soon(server.task).await.unwrap_err().is_cancelled());

    alive.reaches(0).await;
    assert_eq!(read_to_end(echo).await, "");
    drop(poll);
    leaks.check().await;
}

/// A make-service whose second call panics.
#[derive(Clone)]
struct Once(Option<Router>);

impl Service<Incoming<'_>> for Once {
    type Response = Router;
    type Error = Infallible;
    type Future = Ready<Result<Router, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _incoming: Incoming<'_>) -> Self::Future {
        match self.0.take() {
            Some(app) => ready(Ok(app)),
            None => std::panic::resume_unwind(Box::new("no hook")),
        }
    }
}

#[tokio::test]
async fn r19_a_panic_where_connections_are_accepted_comes_through_and_leaves_nothing() {
    let alive = Alive::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Once(Some(endless(&alive)));
    let server =
        taskgroup::server::axum::serve("http", listener, app).run(&CancellationToken::new());
    let server = tokio::spawn(server);
    let mut events = request(address, "GET /events HTTP/1.1").await;
    read_until(&mut events, "tick\r\n").await;

    let _second = TcpStream::connect(address).await.unwrap();

    assert!(soon(server).await.unwrap_err().is_panic());
    alive.reaches(0).await;
    assert_eq!(read_to_end(events).await, "");
}

#[tokio::test]
async fn r14_what_stops_after_a_server_is_told_when_it_has_ended() {
    let (entered, mut entering) = tokio::sync::mpsc::unbounded_channel();
    let release = CancellationToken::new();
    let app = Router::new().route("/", {
        let release = release.clone();
        axum::routing::get(async move || {
            entered.send(()).unwrap();
            release.cancelled().await;
            "hello"
        })
    });
    let then = CancellationToken::new();
    let server = Server::start(app, |serve| serve.then_cancel(&then)).await;
    let client = request(server.address, "GET / HTTP/1.1").await;
    soon(entering.recv()).await.unwrap();

    server.begin_stop().await;
    assert!(!then.is_cancelled());
    release.cancel();

    soon(then.cancelled()).await;
    assert!(read_to_end(client).await.ends_with("hello"));
    server.stopped().await.0.unwrap();
}

#[tokio::test]
async fn r14_what_stops_after_a_server_is_told_however_that_has_ended() {
    let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token = CancellationToken::new();
    let serve = async |then: &CancellationToken| {
        let server = taskgroup::server::axum::serve("http", listen().await, Router::new());
        server.then_cancel(then)
    };

    let then = CancellationToken::new();
    drop(serve(&then).await);
    assert!(then.is_cancelled(), "it is never run");

    let then = CancellationToken::new();
    drop(serve(&then).await.run(&token));
    assert!(then.is_cancelled(), "its future is never polled");

    let then = CancellationToken::new();
    let server = tokio::spawn(serve(&then).await.run(&token));
    tokio::task::yield_now().await;
    assert!(!then.is_cancelled());
    server.abort();
    soon(then.cancelled()).await;

    let then = CancellationToken::new();
    let refused = serve(&then).await.max_connections(0);
    refused.run(&token).await.unwrap_err();
    assert!(then.is_cancelled(), "it is refused");
}
