//! What a server grants to its peers before any stop.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use taskgroup::CancellationToken;
use taskgroup::server::Serve;
use taskgroup::server::tonic::App;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, advance, pause, resume};
use tonic::service::Routes;

use crate::calls::{Calls, call};
use crate::support::server::{Server, patient, read_to_end};
use crate::support::wait::{soon, turns};

const FIRST_BYTE: Duration = Duration::from_secs(20);
const HEADER: Duration = Duration::from_secs(10);

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn limited(serve: Serve<App>) -> Serve<App> {
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
async fn r18_a_client_that_says_nothing_is_cut() {
    let server = Server::start(&Calls::default(), limited).await;
    let silent = send(&server, b"").await;
    let begin = Instant::now();

    read_to_end(silent).await;
    assert_took(begin, FIRST_BYTE);
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
        let serve = taskgroup::server::tonic::serve_with("web", listener, |server| {
            Ok(server.accept_http1(true).add_routes(Routes::from(app)))
        });
        limited(patient(serve.unwrap()))
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
async fn r18_no_more_connections_are_accepted_than_the_limit() {
    let server = Server::start(&Calls::default(), |serve| serve.max_connections(2)).await;
    let mut first = send(&server, HELLO).await;
    let mut second = send(&server, HELLO).await;
    for accepted in [&mut first, &mut second] {
        soon(accepted.read_u8()).await.unwrap();
    }

    let mut third = send(&server, HELLO).await;
    turns().await;
    assert_eq!(
        third.try_read(&mut [0]).map_err(|error| error.kind()),
        Err(std::io::ErrorKind::WouldBlock)
    );

    drop(first);
    soon(third.read_u8()).await.unwrap();
}

#[tokio::test]
async fn limits_under_which_nobody_is_served_are_refused_by_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let serve =
        taskgroup::server::tonic::serve("grpc", listener, Routes::default()).max_connections(0);

    let refused = serve.run(&CancellationToken::new()).await;
    assert_eq!(
        format!("{:#}", refused.unwrap_err()),
        "server `grpc` failed: server `grpc`: `max_connections` cannot be 0: it would let nobody in"
    );
}
