//! The maximal age of a connection.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::peers::{endless, get_over_http2, read_to_end, read_until, request, send, websocket};
use crate::support::alive::Alive;
use crate::support::server::Server;
use crate::support::wait::{pass, soon, turns};

const AGE: Duration = Duration::from_secs(100);
const GRACE: Duration = Duration::from_secs(60);
const AGAIN: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
const GOAWAY: u8 = 7;
const PING: u8 = 6;
const HEADERS: u8 = 1;

async fn server(alive: &Alive) -> Server {
    Server::start(endless(alive), |serve| {
        serve
            .max_connection_age(AGE)
            .max_connection_age_grace(GRACE)
    })
    .await
}

#[tokio::test]
async fn s14_over_http1_the_next_answer_says_close_and_what_was_not_told_stays() {
    let server = server(&Alive::default()).await;
    let mut client = request(server.address, "GET / HTTP/1.1").await;
    read_until(&mut client, "hello").await;
    pass(AGE * 8 / 10).await;
    client.write_all(AGAIN).await.unwrap();
    assert!(
        !read_until(&mut client, "hello")
            .await
            .contains("connection: close")
    );

    pass(AGE).await;
    // Its age and the grace are over, and it was not told.
    pass(10 * GRACE).await;

    client.write_all(AGAIN).await.unwrap();
    let last = read_to_end(client).await;
    assert!(
        last.contains("connection: close") && last.ends_with("hello"),
        "{last}"
    );
}

#[tokio::test]
async fn s14_over_http1_a_request_that_outlasts_the_grace_is_cut_in_words() {
    let alive = Alive::default();
    let server = server(&alive).await;
    let poll = request(server.address, "GET /poll HTTP/1.1").await;
    let mut late = request(server.address, "GET / HTTP/1.1").await;
    read_until(&mut late, "hello").await;
    let mut echo = websocket(server.address).await;
    alive.reaches(2).await;

    pass(AGE * 12 / 10).await;
    late.write_all(b"GET /poll HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    pass(3 * GRACE).await;

    for cut in [poll, late] {
        let answer = read_to_end(cut).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    echo.write_all(b"pong").await.unwrap();
    read_until(&mut echo, "pong").await;
}

/// The next frame, without its payload but for the last stream of a GOAWAY.
async fn frame(client: &mut TcpStream) -> Option<(u8, u32, Vec<u8>)> {
    soon(async {
        let mut head = [0; 9];
        client.read_exact(&mut head).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        client.read_exact(&mut payload).await.ok()?;
        Some((head[3], stream, payload))
    })
    .await
}

async fn next(client: &mut TcpStream, kind: u8) -> (u32, Vec<u8>) {
    loop {
        let (found, stream, payload) = frame(client).await.expect("a frame");
        if found == kind {
            return (stream, payload);
        }
    }
}

/// `GET / http test` by the static table.
fn get(stream: u8) -> Vec<u8> {
    let block = [0x82, 0x84, 0x86, 0x41, 4, b't', b'e', b's', b't'];
    let length = u8::try_from(block.len()).unwrap();
    let mut frame = vec![0, 0, length, HEADERS, 5, 0, 0, 0, stream];
    frame.extend(block);
    frame
}

#[tokio::test]
async fn s14_over_http2_there_are_two_goaways_and_what_comes_in_between_is_answered() {
    let server = server(&Alive::default()).await;
    let beginning = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";
    let mut client = send(server.address, beginning).await;
    client.write_all(&get(1)).await.unwrap();
    assert_eq!(next(&mut client, HEADERS).await.0, 1);

    pass(AGE * 12 / 10).await;

    let (_, first) = next(&mut client, GOAWAY).await;
    assert_eq!(first[..4], [0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(first[4..8], [0; 4], "no error");
    // It is on its way when the first GOAWAY arrives.
    client.write_all(&get(3)).await.unwrap();
    let (_, ping) = next(&mut client, PING).await;
    assert_eq!(next(&mut client, HEADERS).await.0, 3);
    let mut pong = vec![0, 0, 8, PING, 1, 0, 0, 0, 0];
    pong.extend(ping);
    client.write_all(&pong).await.unwrap();
    let (_, second) = next(&mut client, GOAWAY).await;
    assert_eq!(second[..4], [0, 0, 0, 3]);
    while frame(&mut client).await.is_some() {}
}

#[tokio::test]
async fn s14_over_http2_a_stream_that_outlasts_the_grace_is_cut_in_words() {
    let alive = Alive::default();
    let server = server(&alive).await;
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(tcp).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut sender = soon(sender.ready()).await.unwrap();
    let (poll, _) = sender.send_request(get_over_http2("/poll"), true).unwrap();
    alive.reaches(1).await;
    pass(AGE * 11 / 10).await;
    turns().await;
    assert_eq!(alive.count(), 1);

    pass(2 * GRACE).await;

    let answer = soon(poll).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    soon(connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn s14_over_http2_a_peer_that_does_not_answer_its_ping_is_gone_after_the_grace() {
    let server = server(&Alive::default()).await;
    let beginning = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut client = send(server.address, beginning).await;
    turns().await;

    pass(AGE * 12 / 10).await;
    pass(2 * GRACE).await;

    next(&mut client, GOAWAY).await;
    while frame(&mut client).await.is_some() {}
}
