//! A limit of connections that idle clients cannot hold.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::peers::{endless, get_over_http2, http2, read_to_end, read_until, request, send};
use crate::support::alive::Alive;
use crate::support::server::Server;
use crate::support::wait::{PLENTY, soon, turns};

const AGAIN: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

async fn idle(server: &Server) -> TcpStream {
    let mut client = request(server.address, "GET / HTTP/1.1").await;
    read_until(&mut client, "hello").await;
    client
}

async fn again(client: &mut TcpStream) {
    client.write_all(AGAIN).await.unwrap();
    read_until(client, "hello").await;
}

#[tokio::test]
async fn s14_at_the_limit_the_longest_idle_connection_gives_way_and_no_other() {
    let server = Server::start(endless(&Alive::default()), |serve| serve.max_connections(3)).await;
    let mut first = idle(&server).await;
    let second = idle(&server).await;
    let mut third = idle(&server).await;
    turns().await;
    // No client waits, so none gives way. And now the second is the one that is idle for longest.
    again(&mut first).await;

    let mut fourth = idle(&server).await;

    assert_eq!(read_to_end(second).await, "");
    for client in [&mut first, &mut third, &mut fourth] {
        again(client).await;
    }
}

#[tokio::test]
async fn s14_fifty_clients_in_a_row_are_served_although_none_of_them_leaves() {
    let server = Server::start(endless(&Alive::default()), |serve| serve.max_connections(4)).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(idle(&server).await);
    }
    for client in clients.split_off(46).iter_mut() {
        again(client).await;
    }
    for client in clients {
        assert_eq!(read_to_end(client).await, "");
    }
}

#[tokio::test]
async fn s14_a_connection_with_a_request_or_a_part_of_one_does_not_give_way_and_the_next_to_be_idle_does()
 {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let app = Router::new()
        .route("/", get(async || "hello"))
        .route("/held", {
            let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
            get(async move || {
                entered.notify_one();
                release.notified().await;
                "hello"
            })
        });
    let server = Server::start(app, |serve| serve.max_connections(2)).await;
    let mut held = request(server.address, "GET /held HTTP/1.1").await;
    soon(entered.notified()).await;
    let mut half = send(server.address, "GET / HTTP/1.1\r\nho").await;
    turns().await;

    let mut waits = request(server.address, "GET / HTTP/1.1").await;
    turns().await;
    assert!(waits.try_read(&mut [0]).is_err());
    release.notify_one();

    read_until(&mut waits, "hello").await;
    // It has its answer, and is closed then.
    read_until(&mut held, "hello").await;
    assert_eq!(read_to_end(held).await, "");
    half.write_all(b"st: test\r\n\r\n").await.unwrap();
    read_until(&mut half, "hello").await;
}

#[tokio::test]
async fn s14_a_connection_over_http2_gives_way_with_a_goaway() {
    let server = Server::start(endless(&Alive::default()), |serve| serve.max_connections(1)).await;
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(tcp).await.unwrap();
    let told = tokio::spawn(connection);
    let mut sender = soon(sender.ready()).await.unwrap();
    let (answer, _) = sender.send_request(get_over_http2("/"), true).unwrap();
    assert!(soon(answer).await.unwrap().status().is_success());

    let mut next = http2(server.address).await;

    soon(told).await.unwrap().unwrap();
    let (answer, _) = next.send_request(get_over_http2("/"), true).unwrap();
    assert!(soon(answer).await.unwrap().status().is_success());
}

#[tokio::test]
async fn s14_a_client_that_waits_for_a_place_at_the_stop_is_answered() {
    let alive = Alive::default();
    let server = Server::start(endless(&alive), |serve| {
        serve.max_connections(1).linger(PLENTY)
    })
    .await;
    let poll = request(server.address, "GET /poll HTTP/1.1").await;
    alive.reaches(1).await;
    let waits = request(server.address, "GET / HTTP/1.1").await;
    let behind = request(server.address, "GET / HTTP/1.1").await;
    turns().await;

    server.begin_stop().await;

    for (client, name) in [(waits, "waits"), (behind, "behind")] {
        let answer = read_to_end(client).await;
        assert!(answer.ends_with("hello"), "{name}: {answer}");
    }
    drop(poll);
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.connections_at_stop(), 3);
}
