//! R12: servers that are no longer ready and still serve.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use taskgroup::lifecycle::Readiness;
use taskgroup::server::{LameDuck, Stop};
use taskgroup::testing::Leaks;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{advance, pause, resume};

use crate::peers::{endless, read_to_end, read_until, request};
use crate::support::alive::Alive;
use crate::support::server::Server;
use crate::support::wait::{PLENTY, is_closed, soon, turns};

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

/// Lets time pass in one step, so that sockets have no part in it.
async fn pass(time: Duration) {
    pause();
    advance(time).await;
    resume();
    turns().await;
}

/// The head of the answer over a connection that stays open.
async fn head(client: &mut TcpStream) -> String {
    use tokio::io::AsyncWriteExt;

    let request = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    client.write_all(request).await.unwrap();
    let head = read_until(client, "\r\n\r\n").await;
    read_until(client, "hello").await;
    head
}

#[tokio::test]
async fn r12_everything_is_served_and_the_second_half_sends_clients_away() {
    let server = Server::start(hello(), |serve| serve.lame_duck(2 * PLENTY)).await;
    let mut old = TcpStream::connect(server.address).await.unwrap();
    assert!(!head(&mut old).await.contains("connection: close"));

    server.token.cancel();
    turns().await;
    pass(PLENTY / 2).await;
    let mut new = TcpStream::connect(server.address).await.unwrap();
    for client in [&mut old, &mut new] {
        assert!(!head(client).await.contains("connection: close"));
    }

    pass(PLENTY).await;
    let newest = TcpStream::connect(server.address).await.unwrap();
    for mut client in [old, new, newest] {
        assert!(head(&mut client).await.contains("connection: close"));
        assert_eq!(read_to_end(client).await, "");
    }

    pass(PLENTY).await;
    is_closed(server.address).await;
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.connections_at_stop(), 0);
}

#[tokio::test]
async fn r12_r13_a_lame_duck_is_not_ready_and_alive() {
    let token = taskgroup::CancellationToken::new();
    let readiness = Readiness::drain_on(&token);
    readiness.set_ready();
    let app = readiness.routes();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let lame_duck = LameDuck::new(Duration::MAX);
    let server = taskgroup::server::axum::serve("http", listener, app)
        .lame_duck(lame_duck.clone())
        .run(&token);
    let server = tokio::spawn(server);
    let status = async |path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nconnection: close");
        let answer = read_to_end(request(address, &head).await).await;
        answer["HTTP/1.1 ".len()..][..3].to_owned()
    };
    assert_eq!(status("/readyz").await, "200");

    token.cancel();

    assert_eq!(status("/readyz").await, "503");
    assert_eq!(status("/livez").await, "200");
    lame_duck.skip();
    soon(server).await.unwrap().unwrap();
}

#[tokio::test]
async fn r12_the_stop_comes_after_the_lame_duck_with_its_full_grace() {
    let (entered, mut entering) = mpsc::unbounded_channel();
    let app = Router::new().route(
        "/",
        get(async move |stop: Stop| {
            entered.send(stop.clone()).unwrap();
            stop.stopping().await;
            format!("{:?}", stop.remaining().unwrap() > PLENTY / 2)
        }),
    );
    let server = Server::start(app, |serve| serve.lame_duck(2 * PLENTY)).await;
    let client = request(server.address, "GET / HTTP/1.1").await;
    let stop = soon(entering.recv()).await.unwrap();

    server.token.cancel();
    turns().await;
    pass(3 * PLENTY / 2).await;
    assert!(!stop.is_stopping());
    pass(PLENTY).await;

    assert!(read_to_end(client).await.ends_with("true"));
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.requests_at_stop(), 1);
    assert_eq!(report.answered(), 1);
}

#[tokio::test]
async fn r12_a_lame_duck_that_is_skipped_is_over() {
    for skipped_before in [true, false] {
        let lame_duck = LameDuck::new(Duration::MAX);
        let server = Server::start(hello(), |serve| serve.lame_duck(lame_duck.clone())).await;
        turns().await;
        if skipped_before {
            lame_duck.skip();
            server.token.cancel();
        } else {
            server.token.cancel();
            turns().await;
            let client = request(server.address, "GET / HTTP/1.1\r\nconnection: close").await;
            assert!(read_to_end(client).await.ends_with("hello"));
            lame_duck.skip();
        }

        server.stopped().await.0.unwrap();
    }
}

#[tokio::test]
async fn r12_one_lame_duck_is_shared_by_servers() {
    let lame_duck = LameDuck::new(Duration::MAX);
    let first = Server::start(hello(), |serve| serve.lame_duck(lame_duck.clone())).await;
    let second = Server::start(hello(), |serve| serve.lame_duck(lame_duck.clone())).await;
    turns().await;
    first.token.cancel();
    second.token.cancel();
    turns().await;

    lame_duck.skip();

    first.stopped().await.0.unwrap();
    second.stopped().await.0.unwrap();
}

#[tokio::test]
async fn r12_a_server_that_was_never_ready_is_no_lame_duck() {
    let token = taskgroup::CancellationToken::new();
    token.cancel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = taskgroup::server::axum::serve("http", listener, hello())
        .lame_duck(Duration::MAX)
        .run(&token);

    soon(server).await.unwrap();
}

#[tokio::test]
async fn r12_a_server_whose_token_fires_before_its_first_poll_is_a_lame_duck() {
    let token = taskgroup::CancellationToken::new();
    let lame_duck = LameDuck::new(Duration::MAX);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = taskgroup::server::axum::serve("http", listener, hello())
        .lame_duck(lame_duck.clone())
        .run(&token);
    token.cancel();
    let server = tokio::spawn(server);

    let client = request(address, "GET / HTTP/1.1\r\nconnection: close").await;

    assert!(read_to_end(client).await.ends_with("hello"));
    lame_duck.skip();
    soon(server).await.unwrap().unwrap();
}

#[tokio::test]
async fn r12_r3_a_lame_duck_that_is_dropped_leaves_nothing() {
    let alive = Alive::default();
    let leaks = Leaks::watch();
    let server = Server::start(endless(&alive), |serve| serve.lame_duck(Duration::MAX)).await;
    let poll = request(server.address, "GET /poll HTTP/1.1").await;
    alive.reaches(1).await;
    server.token.cancel();
    turns().await;

    server.task.abort();

    assert!(soon(server.task).await.unwrap_err().is_cancelled());
    alive.reaches(0).await;
    assert_eq!(read_to_end(poll).await, "");
    leaks.check().await;
}
