//! Ends that are no stop: dropped, panicked.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::Router;
use taskgroup::axum::Incoming;
use taskgroup::{CancellationToken, SidecarError};
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service;

use crate::support::{
    Alive, Server, endless, read_to_end, read_until, request, soon, tasks, tasks_reach, websocket,
};

#[tokio::test]
async fn r3_dropping_the_future_leaves_nothing() {
    let alive = Alive::default();
    let tasks = tasks();
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
    tasks_reach(tasks).await;
    for client in [idle, events, echo] {
        assert_eq!(read_to_end(client).await, "");
    }
    drop((poll, flood));
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn r3_dropping_the_future_in_the_drain_leaves_nothing() {
    let alive = Alive::default();
    let tasks = tasks();
    let server = Server::start(endless(&alive), |serve| serve).await;
    let _poll = request(server.address, "GET /poll HTTP/1.1").await;
    let echo = websocket(server.address).await;
    alive.reaches(2).await;
    server.begin_stop().await;

    server.task.abort();
    assert!(soon(server.task).await.unwrap_err().is_cancelled());

    alive.reaches(0).await;
    tasks_reach(tasks).await;
    assert_eq!(read_to_end(echo).await, "");
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
    let server = taskgroup::axum::serve("http", listener, app)
        .run::<SidecarError>(&CancellationToken::new());
    let server = tokio::spawn(server);
    let mut events = request(address, "GET /events HTTP/1.1").await;
    read_until(&mut events, "tick\r\n").await;

    let _second = TcpStream::connect(address).await.unwrap();

    assert!(soon(server).await.unwrap_err().is_panic());
    alive.reaches(0).await;
    assert_eq!(read_to_end(events).await, "");
}
