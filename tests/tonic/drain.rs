//! Stops in which nothing has to be cut.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use hyper::body::Bytes;
use taskgroup::server::tonic::DEFAULT_KEEPALIVE_INTERVAL;
use taskgroup::{SidecarError, TaskGroup};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Code;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower_layer::Layer;
use tower_service::Service;

use crate::calls::{Calls, call};
use crate::support::server::{NO_TIME, Server, patient, read_to_end};
use crate::support::wait::{PLENTY, is_closed, pass, soon, turns};

#[tokio::test]
async fn a_server_on_a_fired_token_stops_as_a_member_of_a_group() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut group = TaskGroup::<SidecarError>::typed();
    group.cancel();
    let grpc = taskgroup::server::tonic::serve("grpc", listener, Routes::default());
    group.spawn(grpc.run(group.token()));

    soon(group.wait()).await.unwrap();
}

#[tokio::test]
async fn a_call_that_comes_after_the_stop_is_refused_and_one_in_flight_goes_on() {
    let calls = Calls::default();
    let server = Server::start(&calls, |serve| serve).await;
    let mut client = server.client().await;
    let watch = soon(client.watch(call("polite"))).await;
    let watch = watch.unwrap().into_inner();
    let mut slow = server.client().await;
    let slow = tokio::spawn(async move { slow.check(call("slow")).await });
    calls.alive.reaches(2).await;

    server.begin_stop().await;
    // Its stream has ended with the stop, so this one is closed when the server is told.
    drop(watch);
    let status = soon(async {
        loop {
            match client.check(call("")).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(status) => break status,
            }
        }
    })
    .await;
    // tonic calls it the one or the other, by when exactly it comes.
    assert!(matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::Unknown
    ));
    assert!(!slow.is_finished());
    calls.release.notify_one();

    soon(slow).await.unwrap().unwrap();
    server.stopped().await.0.unwrap();
}

#[tokio::test]
async fn r7_twenty_clients_in_the_accept_queue_are_answered() {
    let server = Server::start(&Calls::default(), |serve| {
        serve.max_connections(1).linger(PLENTY)
    })
    .await;
    server.settle().await;
    // Nothing is awaited from here to the stop, so the server, in the same thread, does not run.
    let clients: Vec<_> = (0..20)
        .map(|_| std::net::TcpStream::connect(server.address).unwrap())
        .collect();
    server.token.cancel();
    turns().await;
    is_closed(server.address).await;

    for client in clients {
        client.set_nonblocking(true).unwrap();
        let client = TcpStream::from_std(client).unwrap();
        let (sender, connection) = soon(h2::client::handshake(client)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut sender = soon(sender.ready()).await.unwrap();
        let head = hyper::Request::post("http://test/grpc.health.v1.Health/Check")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let (response, mut body) = sender.send_request(head, false).unwrap();
        // A message of no length.
        body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        let mut body = soon(response).await.unwrap().into_body();
        while soon(body.data()).await.transpose().unwrap().is_some() {}
        let trailers = soon(body.trailers()).await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        drop((sender, body));
        connection.abort();
    }
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.connections_at_stop(), 20);
    assert_eq!(report.requests_at_stop(), 0);
    assert_eq!(report.answered(), 20);
}

#[tokio::test]
async fn r8_connections_without_a_call_are_cut_after_their_own_grace() {
    let calls = Calls::default();
    let server = Server::start(&calls, |serve| serve.idle_grace(NO_TIME)).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    let beginnings: [&[u8]; 3] = [
        b"PRI * HT",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        // By a peer that will not answer a PING.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    let mut clients = vec![silent];
    for bytes in beginnings {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(bytes).await.unwrap();
        clients.push(client);
    }
    server.settle().await;
    let mut client = server.client().await;
    let slow = tokio::spawn(async move { client.check(call("slow")).await });
    calls.alive.reaches(1).await;

    server.begin_stop().await;
    // They are gone while a call goes on.
    for client in clients {
        read_to_end(client).await;
    }
    assert!(!slow.is_finished());
    calls.release.notify_one();

    soon(slow).await.unwrap().unwrap();
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.connections_at_stop(), 5);
    assert_eq!(report.idle_cut(), 4);
    assert_eq!(report.answered(), 1);
}

#[tokio::test]
async fn r10_a_stream_that_looks_at_the_stop_ends_as_whole() {
    let calls = Calls::default();
    let server = Server::start(&calls, |serve| serve).await;
    let watch = soon(server.client().await.watch(call("polite"))).await;
    let mut watch = watch.unwrap().into_inner();
    soon(watch.message()).await.unwrap().unwrap();

    let (outcome, report) = server.stop().await;

    outcome.unwrap();
    assert_eq!(report.requests_at_stop(), 1);
    assert_eq!(report.answered(), 1);
    assert_eq!(soon(watch.message()).await.unwrap(), None);
}

#[tokio::test]
async fn r9_a_stream_is_in_flight_until_its_client_lets_go_of_it() {
    let calls = Calls::default();
    let server = Server::start(&calls, |serve| serve.idle_grace(NO_TIME)).await;
    let watch = soon(server.client().await.watch(call("events"))).await;
    let mut watch = watch.unwrap().into_inner();
    soon(watch.message()).await.unwrap().unwrap();

    server.begin_stop().await;
    assert_eq!(calls.alive.count(), 1);
    drop(watch);

    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(calls.alive.count(), 0);
    assert_eq!(report.requests_at_stop(), 1);
    assert_eq!(report.answered(), 0);
}

#[tokio::test]
async fn r28_a_handler_gets_the_address_of_its_client() {
    let server = Server::start(&Calls::default(), |serve| serve).await;
    let (first, second) = (server.client().await, server.client().await);

    let mut peers = Vec::new();
    for client in [&first, &second, &first] {
        let mut client = client.clone();
        let status = soon(client.check(call("peer"))).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted);
        peers.push(status.message().to_owned());
    }

    assert!(peers[0].starts_with("127.0.0.1:"), "{peers:?}");
    assert_ne!(peers[0], peers[1]);
    assert_eq!(peers[0], peers[2]);
    server.stop().await.0.unwrap();
}

#[tokio::test]
async fn a_server_with_settings_and_layers_of_its_own_is_under_the_gate() {
    let calls = Calls::default();
    let service = HealthServer::new(calls.clone());
    let layer = tonic::service::InterceptorLayer::new(|request: tonic::Request<()>| match request
        .metadata()
        .get("let-me")
    {
        Some(_) => Ok(request),
        None => Err(tonic::Status::permission_denied("no")),
    });
    let server = Server::run(|listener| {
        let service = layer.layer(Routes::new(service));
        let serve = taskgroup::server::tonic::serve_with("grpc", listener, service);
        patient(serve.request_timeout(PLENTY).concurrency_per_connection(9))
    })
    .await;
    let mut client = server.client().await;
    let status = soon(client.check(call(""))).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let slow = tokio::spawn(async move {
        let mut request = tonic::Request::new(call("slow"));
        request
            .metadata_mut()
            .insert("let-me", "in".parse().unwrap());
        client.check(request).await
    });
    calls.alive.reaches(1).await;

    server.begin_stop().await;
    calls.release.notify_one();

    soon(slow).await.unwrap().unwrap();
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.answered(), 1);
}

/// Puts a service in front of another that is not ready before it was told so; of its clones, too.
#[derive(Clone)]
struct Queue(watch::Sender<bool>);

impl<S> Layer<S> for Queue {
    type Service = Queued<S>;

    fn layer(&self, service: S) -> Queued<S> {
        let turn = self.0.clone();
        Queued { service, turn }
    }
}

#[derive(Clone)]
struct Queued<S> {
    service: S,
    turn: watch::Sender<bool>,
}

impl<S: Service<R>, R> Service<R> for Queued<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if *self.turn.borrow() {
            return self.service.poll_ready(cx);
        }
        let (mut turn, waker) = (self.turn.subscribe(), cx.waker().clone());
        tokio::spawn(async move {
            let _ = turn.changed().await;
            waker.wake();
        });
        Poll::Pending
    }

    fn call(&mut self, request: R) -> S::Future {
        self.service.call(request)
    }
}

#[tokio::test]
async fn r09_a_call_that_waits_for_its_service_is_in_flight_and_no_idle_connection() {
    let turn = watch::Sender::new(false);
    let queue = Queue(turn.clone());
    let calls = HealthServer::new(Calls::default());
    let server = Server::run(|listener| {
        let service = queue.layer(Routes::new(calls));
        let serve = taskgroup::server::tonic::serve_with("grpc", listener, service);
        patient(serve).idle_grace(NO_TIME)
    })
    .await;
    // The first call of a connection, before there was anything to know it by.
    let (mut first, second) = (server.client().await, server.client().await);
    let waits = tokio::spawn(async move { first.check(call("")).await });
    while turn.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }

    server.begin_stop().await;
    // More than the idle grace, which does not count for it.
    pass(10 * NO_TIME).await;
    turn.send_replace(true);

    soon(waits).await.unwrap().unwrap();
    drop(second);
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.connections_at_stop(), 2);
    assert_eq!(report.requests_at_stop(), 1);
    assert_eq!(report.answered(), 1);
    assert_eq!(report.idle_cut(), 0);
}

#[tokio::test(start_paused = true)]
async fn r29_a_client_that_does_not_answer_a_ping_is_noticed_before_any_stop() {
    let server = Server::start(&Calls::default(), |serve| serve).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    client.write_all(hello).await.unwrap();
    let begin = Instant::now();

    read_to_end(client).await;

    let took = begin.elapsed();
    assert!(took >= DEFAULT_KEEPALIVE_INTERVAL, "{took:?}");
}

#[tokio::test]
async fn r12_a_lame_duck_serves_on_old_and_on_new_channels() {
    let lame_duck = taskgroup::server::LameDuck::new(std::time::Duration::MAX);
    let calls = Calls::default();
    let server = Server::start(&calls, |serve| serve.lame_duck(lame_duck.clone())).await;
    let mut old = server.client().await;
    soon(old.check(call(""))).await.unwrap();

    server.token.cancel();
    turns().await;
    soon(old.check(call(""))).await.unwrap();
    soon(server.client().await.check(call(""))).await.unwrap();

    lame_duck.skip();
    server.stopped().await.0.unwrap();
}

/// Connects from `from`, which may be in use for a connection to somewhere else.
async fn connect_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(from).unwrap();
    soon(socket.connect(to)).await.unwrap()
}

#[tokio::test]
async fn r28_a_peer_that_is_connected_to_two_listeners_is_told_apart() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other_address = other.local_addr().unwrap();
    let calls = Calls::default();
    let server = Server::start(&calls, |serve| serve.also_on(other)).await;
    let first = connect_from("127.0.0.1:0".parse().unwrap(), server.address).await;
    let from = first.local_addr().unwrap();
    let (sender, connection) = soon(h2::client::handshake(first)).await.unwrap();
    tokio::spawn(connection);
    let mut sender = soon(sender.ready()).await.unwrap();
    turns().await;

    let second = connect_from(from, other_address).await;
    turns().await;
    drop(second);
    turns().await;
    let request = http::Request::post("http://test/nothing");
    let (answer, _) = sender
        .send_request(request.body(()).unwrap(), true)
        .unwrap();

    assert_eq!(soon(answer).await.unwrap().status(), 200);
    drop(sender);
    server.stop().await.0.unwrap();
}
