//! The idle timeout, beside the clocks of the first byte and of the head.

use std::io::{Read, Write};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use taskgroup::server::Serve;
use taskgroup::server::axum::App;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::peers::{
    endless, get_over_http2, http2, read_to_end, read_until, request, send, websocket,
};
use crate::support::alive::Alive;
use crate::support::server::Server;
use crate::support::wait::{pass, soon, turns};

const IDLE: Duration = Duration::from_secs(20);
/// As long as a test may wait.
const HEADER: Duration = Duration::from_secs(40);
const AGAIN: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

type Serving = Serve<App<Router, Router>>;

fn impatient(serve: Serving) -> Serving {
    serve
        .idle_timeout(IDLE)
        .header_timeout(HEADER)
        .first_byte_timeout(HEADER)
}

async fn server() -> Server {
    Server::start(endless(&Alive::default()), impatient).await
}

#[tokio::test(start_paused = true)]
async fn s14_a_connection_that_is_idle_for_the_timeout_is_closed_and_at_most_a_quarter_later() {
    let server = server().await;
    let mut client = request(server.address, "GET / HTTP/1.1").await;
    read_until(&mut client, "hello").await;
    let begin = Instant::now();

    assert_eq!(read_to_end(client).await, "");

    let took = begin.elapsed();
    assert!(IDLE <= took && took <= IDLE * 13 / 10, "{took:?}");
}

#[tokio::test]
async fn s14_every_request_starts_the_clock_anew() {
    let server = server().await;
    let mut client = request(server.address, "GET / HTTP/1.1").await;
    for _ in 0..10 {
        read_until(&mut client, "hello").await;
        pass(IDLE * 9 / 10).await;
        client.write_all(AGAIN).await.unwrap();
    }
    read_until(&mut client, "hello").await;
}

#[tokio::test]
async fn s14_what_waits_for_an_answer_or_sends_a_head_or_is_upgraded_or_has_said_nothing_is_not_idle()
 {
    let server = server().await;
    let poll = request(server.address, "GET /poll HTTP/1.1").await;
    let half = send(server.address, "GET / HTTP/1.1\r\nho").await;
    let mut behind = request(server.address, "GET / HTTP/1.1").await;
    read_until(&mut behind, "hello").await;
    behind.write_all(&AGAIN[..8]).await.unwrap();
    let silent = TcpStream::connect(server.address).await.unwrap();
    let mut echo = websocket(server.address).await;
    turns().await;

    // Longer than one may be idle, and shorter than the other clocks.
    pass(IDLE * 3 / 2).await;

    for (mut client, rest) in [
        (half, &b"st: test\r\n\r\n"[..]),
        (behind, &AGAIN[8..]),
        (silent, AGAIN),
    ] {
        client.write_all(rest).await.unwrap();
        read_until(&mut client, "hello").await;
    }
    echo.write_all(b"pong").await.unwrap();
    read_until(&mut echo, "pong").await;
    assert!(poll.try_read(&mut [0]).is_err());
}

#[tokio::test]
async fn s14_an_idle_connection_over_http2_is_told_and_closed_and_one_with_a_stream_is_not() {
    let server = server().await;
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(tcp).await.unwrap();
    let idle = tokio::spawn(connection);
    let mut sender = soon(sender.ready()).await.unwrap();
    let (answer, _) = sender.send_request(get_over_http2("/"), true).unwrap();
    assert!(soon(answer).await.unwrap().status().is_success());
    let mut busy = http2(server.address).await;
    let (poll, _) = busy.send_request(get_over_http2("/poll"), true).unwrap();
    turns().await;

    pass(2 * IDLE).await;

    // A connection that ends without an error was told.
    soon(idle).await.unwrap().unwrap();
    let mut busy = soon(busy.ready()).await.unwrap();
    let (answer, _) = busy.send_request(get_over_http2("/"), true).unwrap();
    assert!(soon(answer).await.unwrap().status().is_success());
    drop(poll);
}

#[tokio::test]
async fn s14_a_connection_over_http2_that_never_sends_a_request_is_idle() {
    let server = server().await;
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let (_sender, connection) = h2::client::handshake(tcp).await.unwrap();
    let idle = tokio::spawn(connection);
    turns().await;

    pass(2 * IDLE).await;

    soon(idle).await.unwrap().unwrap();
}

#[tokio::test]
async fn s14_without_the_option_a_connection_may_be_idle_for_ever() {
    let server = Server::start(endless(&Alive::default()), |serve| serve).await;
    let mut client = request(server.address, "GET / HTTP/1.1").await;
    read_until(&mut client, "hello").await;
    for _ in 0..10 {
        pass(100 * IDLE).await;
    }
    client.write_all(AGAIN).await.unwrap();
    read_until(&mut client, "hello").await;
}

/// In real time, because the runtime has to be late.
#[tokio::test]
async fn s14_after_a_blocked_runtime_a_request_that_has_arrived_is_answered() {
    const SHORT: Duration = Duration::from_millis(200);
    let app = Router::new().route("/", get(async || "hello"));
    let server = Server::start(app, |serve| serve.idle_timeout(SHORT)).await;
    let (address, (block, blocks)) = (server.address, oneshot::channel());
    let client = std::thread::spawn(move || {
        let mut client = std::net::TcpStream::connect(address).unwrap();
        let mut answer = [0; 1024];
        client.write_all(AGAIN).unwrap();
        assert!(client.read(&mut answer).unwrap() > 0);
        block.send(()).unwrap();
        std::thread::sleep(2 * SHORT);
        client.write_all(AGAIN).unwrap();
        client.read(&mut answer).unwrap()
    });
    soon(blocks).await.unwrap();

    // The clock is over long before the runtime looks at it.
    std::thread::sleep(4 * SHORT);

    let read = tokio::task::spawn_blocking(|| client.join().unwrap());
    assert!(soon(read).await.unwrap() > 0);
}

#[tokio::test(start_paused = true)]
async fn s14_without_a_timeout_for_the_first_byte_the_others_hold() {
    let server = Server::start(endless(&Alive::default()), |serve| {
        impatient(serve).first_byte_timeout(Duration::MAX)
    })
    .await;
    let half = send(server.address, "GET / HTTP/1.1\r\nho").await;
    let begin = Instant::now();
    assert_eq!(read_to_end(half).await, "");
    let took = begin.elapsed();
    assert!(HEADER <= took && took <= HEADER * 13 / 10, "{took:?}");

    let mut idle = request(server.address, "GET / HTTP/1.1").await;
    read_until(&mut idle, "hello").await;
    assert_eq!(read_to_end(idle).await, "");
}

#[tokio::test(start_paused = true)]
async fn s14_the_first_byte_is_timed_to_the_moment() {
    const LIMIT: Duration = Duration::from_secs(40);
    let server = Server::start(endless(&Alive::default()), |serve| {
        serve.first_byte_timeout(LIMIT)
    })
    .await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    let begin = Instant::now();

    assert_eq!(read_to_end(silent).await, "");

    let took = begin.elapsed();
    assert!(
        LIMIT <= took && took < LIMIT + Duration::from_millis(100),
        "{took:?}"
    );
}
