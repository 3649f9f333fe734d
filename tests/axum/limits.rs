//! What a server grants to its peers before any stop.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::routing::{get, post};
use taskgroup::{BuildError, CancellationToken};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, advance, pause, resume};

use crate::peers::{endless, read_to_end, read_until, request, send, websocket};
use crate::support::alive::Alive;
use crate::support::server::Server;
use crate::support::wait::turns;

type Serving = taskgroup::server::Serve<taskgroup::server::axum::App<Router, Router>>;

const FIRST_BYTE: Duration = Duration::from_secs(20);
const HEADER: Duration = Duration::from_secs(10);

/// By the paused clock, of which the timer of the stage before may have a part.
#[track_caller]
fn assert_took(begin: Instant, limit: Duration) {
    let took = begin.elapsed();
    assert!(limit <= took && took <= 2 * limit, "{took:?}");
}

async fn server() -> Server {
    let app = Router::new()
        .route("/", get(async || "hello"))
        .route("/upload", post(async |body: String| body));
    Server::start(app, |serve| {
        serve.first_byte_timeout(FIRST_BYTE).header_timeout(HEADER)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn r18_a_client_that_has_not_said_which_protocol_is_cut() {
    let server = server().await;
    for beginning in ["PRI ", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let undecided = send(server.address, beginning).await;
        let begin = Instant::now();

        assert!(!read_to_end(undecided).await.contains("HTTP/1.1"));
        assert_took(begin, HEADER);
    }
}

#[tokio::test(start_paused = true)]
async fn r18_half_a_head_is_cut_on_a_new_connection_and_on_an_old_one() {
    let server = server().await;
    let new = send(server.address, "GET / HTTP/1.1\r\nhost: te").await;
    let begin = Instant::now();
    assert_eq!(read_to_end(new).await, "");
    assert_took(begin, HEADER);

    let mut old = request(server.address, "GET / HTTP/1.1").await;
    read_until(&mut old, "hello").await;
    old.write_all(b"GET / HT").await.unwrap();
    let begin = Instant::now();
    assert_eq!(read_to_end(old).await, "");
    assert_took(begin, HEADER);
}

/// Lets much time pass at once, in steps that give every timer its chance to go off again.
async fn pass_much_time() {
    for _ in 0..50 {
        turns().await;
        pause();
        advance(HEADER / 2).await;
        resume();
    }
    turns().await;
}

#[tokio::test]
async fn r18_a_connection_that_rests_or_sends_a_slow_body_is_not_cut() {
    let server = server().await;
    let mut client = request(server.address, "GET / HTTP/1.1").await;
    read_until(&mut client, "hello").await;
    pass_much_time().await;
    let head = b"POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nab";
    client.write_all(head).await.unwrap();
    pass_much_time().await;
    client.write_all(b"cd").await.unwrap();
    read_until(&mut client, "abcd").await;
    pass_much_time().await;

    let again = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    client.write_all(again).await.unwrap();
    read_until(&mut client, "hello").await;
}

#[tokio::test]
async fn r18_an_http2_connection_and_an_upgraded_one_may_be_silent() {
    let alive = Alive::default();
    let server = Server::start(endless(&alive), |serve| {
        serve.first_byte_timeout(FIRST_BYTE).header_timeout(HEADER)
    })
    .await;
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let mut echo = websocket(server.address).await;

    pass_much_time().await;

    let hello = Request::get("http://test/").body(()).unwrap();
    let (answer, _) = sender.send_request(hello, true).unwrap();
    assert!(answer.await.unwrap().status().is_success());
    // Its task sees that a timer has gone off when it is woken by something else.
    for _ in 0..10 {
        echo.write_all(b"pong").await.unwrap();
        read_until(&mut echo, "pong").await;
        pass_much_time().await;
    }
}

#[tokio::test]
async fn limits_under_which_nobody_is_served_are_refused_by_name() {
    let refused = async |configure: fn(Serving) -> Serving| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let serve = configure(taskgroup::server::axum::serve(
            "http",
            listener,
            Router::new(),
        ));
        let refused = serve.run(&CancellationToken::new()).await;
        format!("{:#}", refused.unwrap_err())
    };
    assert_eq!(
        refused(|serve| serve.max_connections(0)).await,
        "server `http` failed: server `http`: `max_connections` cannot be 0: it would let no client in"
    );
    assert_eq!(
        refused(|serve| serve.first_byte_timeout(Duration::ZERO)).await,
        "server `http` failed: server `http`: `first_byte_timeout` cannot be 0s: it would cut everybody"
    );
    assert_eq!(
        refused(|serve| serve.header_timeout(Duration::ZERO)).await,
        "server `http` failed: server `http`: `header_timeout` cannot be 0s: it would cut everybody"
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unnamed = taskgroup::server::axum::serve("", listener, Router::new());
    let error = unnamed.run(&CancellationToken::new()).await.unwrap_err();
    let error = error.source().unwrap().downcast_ref::<BuildError>();
    assert_eq!(error.unwrap().option(), "name");
    assert_eq!(
        refused(|serve| serve.kill_grace(Duration::from_millis(9))).await,
        "server `http` failed: server `http`: `kill_grace` cannot be 9ms: what was cut needs 10ms to end"
    );
}
