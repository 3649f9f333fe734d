//! What a server grants to its peers before any stop.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hyper::body::Bytes;
use taskgroup::CancellationToken;
use taskgroup::server::Serve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, advance, pause, resume};
use tonic::service::Routes;

use crate::calls::{Calls, call};
use crate::support::server::{NO_TIME, Server, patient, read_to_end};
use crate::support::wait::{PLENTY, soon, turns};

const FIRST_BYTE: Duration = Duration::from_secs(20);
const HEADER: Duration = Duration::from_secs(10);

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn limited<S>(serve: Serve<S>) -> Serve<S> {
    serve.first_byte_timeout(FIRST_BYTE).header_timeout(HEADER)
}

async fn send(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(bytes).await.unwrap();
    client
}

/// By the paused clock, of which the timer of the stage before may have a part.
#[track_caller]
fn assert_took(begin: Instant, limit: Duration) {
    let took = begin.elapsed();
    assert!(limit <= took && took <= 2 * limit, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn r18_a_client_that_has_not_begun_with_http2_is_cut() {
    let server = Server::start(&Calls::default(), limited).await;
    let preface_alone = HELLO.len() - 9;
    for sent in [4, preface_alone, HELLO.len() - 1] {
        let undecided = send(&server, &HELLO[..sent]).await;
        let begin = Instant::now();

        read_to_end(undecided).await;
        assert_took(begin, HEADER);
    }
}

#[tokio::test(start_paused = true)]
async fn r18_half_a_head_of_http1_is_cut_on_a_new_connection_and_on_an_old_one() {
    let app = Router::new().route("/", get(async || "hello"));
    let server = Server::run(|listener| {
        let serve = taskgroup::server::tonic::serve("web", listener, Routes::from(app));
        limited(patient(serve.accept_http1()))
    })
    .await;
    let new = send(&server, b"GET / HTTP/1.1\r\nhost: te").await;
    let begin = Instant::now();
    assert_eq!(read_to_end(new).await, b"");
    assert_took(begin, HEADER);

    let mut old = send(&server, b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        answer.push(soon(old.read_u8()).await.unwrap());
    }
    old.write_all(b"GET / HT").await.unwrap();
    let begin = Instant::now();
    assert_eq!(read_to_end(old).await, b"");
    assert_took(begin, HEADER);
}

#[tokio::test]
async fn r18_a_channel_may_be_silent() {
    let server = Server::start(&Calls::default(), limited).await;
    let mut client = server.client().await;
    soon(client.check(call(""))).await.unwrap();

    // In steps that give every timer its chance to go off, and the client its PINGs to answer.
    for _ in 0..50 {
        pause();
        advance(HEADER / 2).await;
        resume();
        turns().await;
    }

    let (outcome, report) = server.stop().await;
    outcome.unwrap();
    assert_eq!(report.connections_at_stop(), 1);
}

#[tokio::test]
async fn limits_under_which_nobody_is_served_are_refused_by_name() {
    type Serving = Serve<taskgroup::server::tonic::App<Routes>>;
    let refused = async |configure: fn(Serving) -> Serving| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let serve = taskgroup::server::tonic::serve("grpc", listener, Routes::default());
        let refused = configure(serve).run(&CancellationToken::new());
        format!("{:#}", refused.await.unwrap_err())
    };
    assert_eq!(
        refused(|serve| serve.max_connections(0)).await,
        "server `grpc` failed: server `grpc`: `max_connections` cannot be 0: it would let no client in"
    );
    assert_eq!(
        refused(|serve| serve.concurrency_per_connection(0)).await,
        "server `grpc` failed: server `grpc`: `concurrency_per_connection` cannot be 0: it would answer no request"
    );
    assert_eq!(
        refused(|serve| serve.http2_max_streams(0)).await,
        "server `grpc` failed: server `grpc`: `http2_max_streams` cannot be 0: it would let no request in"
    );
    assert_eq!(
        refused(|serve| serve.http2_keepalive(Duration::ZERO)).await,
        "server `grpc` failed: server `grpc`: `http2_keepalive` cannot be 0s: it would send PINGs without a pause"
    );
    for (stream, connection) in [(0, 1), (1, 1 << 31)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let serve = taskgroup::server::tonic::serve("grpc", listener, Routes::default());
        let serve = serve.http2_windows(stream, connection);
        let refused = serve.run(&CancellationToken::new()).await;
        let window = if stream == 0 { stream } else { connection };
        assert_eq!(
            format!("{:#}", refused.unwrap_err()),
            format!(
                "server `grpc` failed: server `grpc`: `http2_windows` cannot be {window}: \
                 a window has room for 1 byte to 2147483647 bytes"
            )
        );
    }
}

#[tokio::test]
async fn a_call_that_takes_longer_than_its_client_or_the_server_grants_is_cancelled() {
    let calls = Calls::default();
    let server = Server::start(&calls, |serve| serve.request_timeout(NO_TIME)).await;
    let mut client = server.client().await;
    let status = soon(client.check(call("hangs"))).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Cancelled);
    assert_eq!(status.message(), "Timeout expired");
    assert_eq!(calls.alive.count(), 0);
    server.stop().await.0.unwrap();

    // By hand: a channel of tonic keeps to its own timeout by itself.
    let server = Server::start(&calls, |serve| serve.request_timeout(PLENTY)).await;
    let client = TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = soon(h2::client::handshake(client)).await.unwrap();
    tokio::spawn(connection);
    let head = hyper::Request::post("http://test/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "20m")
        .body(())
        .unwrap();
    let (response, mut body) = sender.send_request(head, false).unwrap();
    let hangs = Bytes::from_static(b"\0\0\0\0\x07\x0a\x05hangs");
    body.send_data(hangs, true).unwrap();
    let response = soon(response).await.unwrap();
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), tonic::Code::Cancelled);
    assert_eq!(status.message(), "Timeout expired");
    assert_eq!(calls.alive.count(), 0);
    drop((sender, body, response));
    server.stop().await.0.unwrap();
}

/// Fails each call with a status of its own.
#[derive(Clone)]
struct Closed;

impl<R> tower_service::Service<R> for Closed {
    type Response = http::Response<tonic::body::Body>;
    type Error = tonic::Status;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Err(tonic::Status::resource_exhausted("closed")))
    }

    fn call(&mut self, _request: R) -> Self::Future {
        unreachable!("it is never ready")
    }
}

#[tokio::test]
async fn a_service_that_fails_is_answered_with_its_status() {
    let server = Server::run(|listener| {
        patient(taskgroup::server::tonic::serve_with(
            "grpc", listener, Closed,
        ))
    })
    .await;
    let mut client = server.client().await;

    let status = soon(client.check(call(""))).await.unwrap_err();

    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert_eq!(status.message(), "closed");
    server.stop().await.0.unwrap();
}
