//! The time for a response, and options under which no client is served.

use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use socket2::SockRef;
use taskgroup::CancellationToken;
use taskgroup::server::axum::App;
use taskgroup::server::{Incoming, Serve, Transport, serve_each};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::peers::{get_over_http2, http2, read_to_end, read_until, request, send};
use crate::support::server::{NO_TIME, Server};
use crate::support::wait::soon;

type Serving = Serve<App<Router, Router>>;

fn slow() -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .route("/slow", get(pending::<&str>))
        .route("/grpc", post(pending::<&str>))
}

#[tokio::test]
async fn s14_a_response_that_takes_too_long_is_a_503_and_its_connection_stays() {
    let server = Server::start(slow(), |serve| serve.request_timeout(NO_TIME)).await;
    let mut client = request(server.address, "GET /slow HTTP/1.1").await;
    let answer = read_until(&mut client, "the request took too long\n").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut client, "hello").await;

    let mut sender = http2(server.address).await;
    let (answer, _) = sender.send_request(get_over_http2("/slow"), true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 503);
}

#[tokio::test]
async fn s14_grpc_that_takes_too_long_has_passed_its_deadline() {
    let server = Server::start(slow(), |serve| serve.request_timeout(NO_TIME)).await;
    let mut sender = http2(server.address).await;
    let mut call = get_over_http2("/grpc");
    *call.method_mut() = http::Method::POST;
    let kind = http::HeaderValue::from_static("application/grpc");
    call.headers_mut().insert("content-type", kind);
    let (answer, _) = sender.send_request(call, true).unwrap();
    assert_eq!(soon(answer).await.unwrap().headers()["grpc-status"], "4");
}

#[tokio::test]
async fn s14_tcp_keepalive_is_set_and_a_fraction_is_rounded_up() {
    let app = |incoming: Incoming<'_>| {
        let Transport::Tcp(stream) = incoming.transport() else {
            panic!("it is plain TCP");
        };
        let socket = SockRef::from(stream);
        let is_on = socket.keepalive().unwrap();
        let idle = socket.tcp_keepalive_time().unwrap();
        Router::new().route("/", get(async move || format!("{is_on} {idle:?}")))
    };
    let server = Server::run(|listener| {
        serve_each("http", listener, app).tcp_keepalive(Duration::from_millis(41_200))
    })
    .await;
    let client = request(server.address, "GET / HTTP/1.1\r\nconnection: close").await;
    assert!(read_to_end(client).await.ends_with("true 42s"));
}

#[tokio::test]
async fn s14_a_client_that_half_closes_is_answered_if_that_is_allowed() {
    let app = || {
        Router::new().route(
            "/",
            get(async || {
                tokio::task::yield_now().await;
                "hello"
            }),
        )
    };
    for allowed in [true, false] {
        let server = Server::start(app(), |serve| serve.http1_half_close(allowed)).await;
        let mut client = send(server.address, "GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
        client.shutdown().await.unwrap();
        assert_eq!(read_to_end(client).await.ends_with("hello"), allowed);
    }
}

#[tokio::test]
async fn s14_a_head_that_is_too_long_or_has_too_many_headers_is_refused() {
    let server = Server::start(slow(), |serve| {
        serve.http1_max_head_bytes(8192).http1_max_headers(3)
    })
    .await;
    let long = format!("GET / HTTP/1.1\r\nlong: {}", "x".repeat(9000));
    for head in [long.as_str(), "GET / HTTP/1.1\r\na: 1\r\nb: 2\r\nc: 3"] {
        let answer = read_to_end(request(server.address, head).await).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

#[cfg(feature = "hyper-builder")]
#[tokio::test]
async fn s14_all_else_is_set_on_the_builder_of_hyper() {
    let server = Server::start(slow(), |serve| {
        serve.hyper(|builder| {
            builder.http1().keep_alive(false);
        })
    })
    .await;
    let client = request(server.address, "GET / HTTP/1.1").await;
    assert!(read_to_end(client).await.ends_with("hello"));
}

#[tokio::test]
async fn s14_an_option_under_which_nobody_is_served_is_refused_by_name() {
    let refused = async |configure: fn(Serving) -> Serving| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let serve = taskgroup::server::axum::serve("http", listener, Router::new());
        let refused = configure(serve).run(&CancellationToken::new()).await;
        let error = format!("{:#}", refused.unwrap_err());
        error
            .strip_prefix("server `http` failed: server `http`: ")
            .unwrap()
            .to_owned()
    };
    for (configure, expected) in [
        (
            (|serve| serve.idle_timeout(Duration::ZERO)) as fn(Serving) -> Serving,
            "`idle_timeout` cannot be 0s: it would close each connection after one request",
        ),
        (
            |serve| serve.max_connection_age(Duration::ZERO),
            "`max_connection_age` cannot be 0s: it would close each connection at once",
        ),
        (
            |serve| serve.request_timeout(Duration::ZERO),
            "`request_timeout` cannot be 0s: it would answer no request",
        ),
        (
            |serve| serve.tcp_keepalive(Duration::from_secs(32_768)),
            "`tcp_keepalive` cannot be 32768s: the system counts to 32767s at most",
        ),
        (
            |serve| serve.http1_max_head_bytes(8191),
            "`http1_max_head_bytes` cannot be 8191: a head may take at least 8192 bytes",
        ),
        (
            |serve| serve.http1_max_headers(0),
            "`http1_max_headers` cannot be 0: it would let no request in",
        ),
        (
            |serve| serve.http2_keepalive_timeout(Duration::ZERO),
            "`http2_keepalive_timeout` cannot be 0s: it would cut everybody",
        ),
        (
            |serve| serve.http2_max_frame_bytes(1),
            "`http2_max_frame_bytes` cannot be 1: a frame has room for 16384 to 16777215 bytes",
        ),
    ] {
        assert_eq!(refused(configure).await, expected);
    }
}
