//! An answer whose request body was not read.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::peers::{read_to_end, request, send};
use crate::support::server::Server;
use crate::support::wait::soon;

const BODY: usize = 8 << 20;

async fn server() -> Server {
    let app = Router::new()
        .route("/", axum::routing::get(async || "hello"))
        .route(
            "/refuse",
            post(async || (StatusCode::PAYLOAD_TOO_LARGE, "too large")),
        )
        .route("/take", post(async |body: String| body.len().to_string()));
    Server::start(app, |serve| serve).await
}

fn head(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n")
}

#[tokio::test]
async fn s14_a_client_that_writes_all_before_it_reads_gets_its_answer() {
    let server = server().await;
    for _ in 0..20 {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client
            .write_all(head("/refuse", BODY).as_bytes())
            .await
            .unwrap();
        soon(client.write_all(&vec![b'x'; BODY])).await.unwrap();
        let mut answer = String::new();
        soon(client.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.ends_with("too large"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn s14_a_client_that_neither_sends_nor_closes_is_waited_for_a_second() {
    let server = server().await;
    let mut client = send(server.address, &head("/refuse", BODY)).await;
    let begin = Instant::now();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("too large"), "{answer}");
    assert!(begin.elapsed() < Duration::from_millis(100));

    // Nothing is in flight now, and only this connection is left.
    let (outcome, report) = server.stop().await;
    outcome.unwrap();
    let took = begin.elapsed();
    assert!(
        Duration::from_millis(900) < took && took < Duration::from_millis(1100),
        "{took:?}"
    );
    assert_eq!((report.connections_at_stop(), report.idle_cut()), (1, 0));
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn s14_a_body_that_was_read_keeps_its_connection_and_an_idle_one_is_closed_at_once() {
    let server = server().await;
    let mut client = send(server.address, &(head("/take", 4) + "four")).await;
    crate::peers::read_until(&mut client, "\r\n\r\n4").await;
    client
        .write_all((head("/take", 5) + "fiver").as_bytes())
        .await
        .unwrap();
    crate::peers::read_until(&mut client, "\r\n\r\n5").await;
    crate::support::wait::turns().await;
    let begin = Instant::now();

    // The client stays, and its connection holds nothing up.
    let (outcome, report) = server.stop().await;
    outcome.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(500), "{report}");
    assert_eq!(report.idle_cut(), 0);
    assert_eq!(read_to_end(client).await, "");
}

#[tokio::test]
async fn s14_requests_without_a_body_are_not_lingered_for() {
    let server = server().await;
    let client = request(server.address, "GET / HTTP/1.1\r\nconnection: close").await;
    assert!(read_to_end(client).await.ends_with("hello"));
    server.stop().await.0.unwrap();
}
