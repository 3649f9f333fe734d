//! tonic's `Server` with a graceful shutdown.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use taskgroup::CancellationToken;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time;
use tonic::Code;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

use crate::canary::Canary;
use crate::support::wait::soon;
use crate::{HTTP2_PREFACE, HTTP2_SETTINGS, listen, pass, settle};

const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0payload!";

struct Grpc {
    address: SocketAddr,
    health: HealthReporter,
    stop: CancellationToken,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

async fn serve(mut builder: Server) -> Grpc {
    let (listener, address) = listen().await;
    let (reporter, health) = tonic_health::server::health_reporter();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let stop = CancellationToken::new();
    let server = builder
        .add_service(health)
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let task = tokio::spawn(server);
    Grpc {
        address,
        health: reporter,
        stop,
        task,
    }
}

impl Grpc {
    async fn client(&self) -> HealthClient<Channel> {
        let channel = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        HealthClient::new(soon(channel.connect()).await.unwrap())
    }

    /// A connection on which so much has been sent.
    async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        client.write_all(bytes).await.unwrap();
        client
    }

    /// A connection past its handshake.
    async fn raw(&self) -> TcpStream {
        let mut client = self.send(&hello()).await;
        assert_eq!(soon(frame(&mut client)).await, Some(Frame::Settings));
        client
    }

    /// Tells the server to stop, and waits until its connections know.
    async fn stop(&self, mut raw: TcpStream) {
        self.stop.cancel();
        while soon(frame(&mut raw)).await.expect("a GOAWAY comes first") != Frame::GoAway {}
    }
}

fn hello() -> Vec<u8> {
    [HTTP2_PREFACE, HTTP2_SETTINGS].concat()
}

#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Settings,
    Ping,
    GoAway,
    Other,
}

/// The next frame of HTTP/2, or `None` at the end of the connection.
async fn frame(client: &mut TcpStream) -> Option<Frame> {
    let mut header = [0; 9];
    client.read_exact(&mut header).await.ok()?;
    let [a, b, c, kind, ..] = header;
    let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
    client.read_exact(&mut payload).await.ok()?;
    Some(match kind {
        4 => Frame::Settings,
        6 => Frame::Ping,
        7 => Frame::GoAway,
        _ => Frame::Other,
    })
}

#[tokio::test]
async fn r30_a_connection_without_a_byte_hangs_the_drain() {
    let canary = Canary {
        today: "one TCP connection on which nothing was ever sent holds the drain forever",
        upstream: "hyperium/hyper#4170, with #4171, #4172 and #3729",
        then: "docs/upstream.md may drop that row, and the gate its first-byte timeout for this tonic",
    };
    let server = serve(Server::builder()).await;
    let silent = server.send(b"").await;
    // The queue is in order: when this one is served, the silent one has been accepted.
    let raw = server.raw().await;

    server.stop(raw).await;
    canary.hangs_until_dropped(server.task, silent).await;
}

#[tokio::test]
async fn r30_a_handshake_that_is_not_finished_hangs_the_drain() {
    let canary = Canary {
        today: "a client that has sent half of the preface, or nothing after it, holds the drain forever",
        upstream: "hyperium/hyper#4170, with #4171, #4172 and #3729",
        then: "docs/upstream.md may drop that row, and the gate its header timeout for this tonic",
    };
    for beginning in [&HTTP2_PREFACE[..8], HTTP2_PREFACE] {
        let server = serve(Server::builder()).await;
        let silent = server.send(beginning).await;
        let raw = server.raw().await;

        server.stop(raw).await;
        canary.hangs_until_dropped(server.task, silent).await;
    }
}

#[tokio::test]
async fn r30_a_missing_pong_hangs_the_drain() {
    let canary = Canary {
        today: "a client that does not answer the PING of the drain holds it forever",
        upstream: "hyperium/hyper#4170, its second case",
        then: "docs/upstream.md may drop that row; look whether the gate has to cut idle connections itself",
    };
    let server = serve(Server::builder()).await;
    let mute = server.raw().await;
    let raw = server.raw().await;

    server.stop(raw).await;
    canary.hangs_until_dropped(server.task, mute).await;
}

#[tokio::test]
async fn r30_streams_go_on_when_the_server_is_dropped_in_its_drain() {
    let canary = Canary {
        today: "dropping the future of the server leaves its connections alive",
        upstream: "grpc/grpc-rust#1820 and #850 (once hyperium/tonic)",
        then: "docs/upstream.md and the message of `SidecarError` may stop saying that connections may remain",
    };
    let server = serve(Server::builder()).await;
    let mut client = server.client().await;
    let watch = soon(client.watch(HealthCheckRequest::default())).await;
    let mut watch = watch.unwrap().into_inner();
    soon(watch.message()).await.unwrap().unwrap();
    let raw = server.raw().await;
    server.stop(raw).await;

    server.task.abort();
    assert!(soon(server.task).await.unwrap_err().is_cancelled());
    settle().await;
    let news = server.health;
    news.set_service_status("", ServingStatus::NotServing).await;
    let delivered = soon(watch.message()).await;
    canary.still(delivered.is_ok_and(|message| message.is_some()));
}

#[tokio::test]
async fn r30_a_server_stream_hangs_the_drain() {
    let canary = Canary {
        today: "a server stream that goes on holds the drain forever",
        upstream: "grpc/grpc-rust#1820 (once hyperium/tonic)",
        then: "docs/upstream.md may drop that row; look whether the gate has to cut streams itself",
    };
    let server = serve(Server::builder()).await;
    let mut client = server.client().await;
    let watch = soon(client.watch(HealthCheckRequest::default())).await;
    let mut watch = watch.unwrap().into_inner();
    soon(watch.message()).await.unwrap().unwrap();
    let raw = server.raw().await;

    server.stop(raw).await;
    canary.hangs_until_dropped(server.task, watch).await;
}

#[tokio::test]
async fn r29_r30_a_call_on_a_channel_that_was_told_to_go_away_is_cancelled() {
    let canary = Canary {
        today: "a new call on the channel of a draining server is `Cancelled`, which nobody retries, \
                and not `Unavailable`",
        upstream: "`is_canceled` in tonic's status.rs (grpc/grpc-rust), seen in s2-streamstore/s2-sdk-rust#149",
        then: "docs/upstream.md may drop its hint to retry `Cancelled`",
    };
    let server = serve(Server::builder()).await;
    let mut client = server.client().await;
    // In flight, so that the connection is not closed at once.
    let watch = soon(client.watch(HealthCheckRequest::default())).await;
    let raw = server.raw().await;
    server.stop(raw).await;
    settle().await;

    let refused = soon(client.check(HealthCheckRequest::default())).await;
    let status = refused.expect_err("the server is draining");
    canary.still(status.code() == Code::Cancelled);
    drop(watch);
    drop(client);
    soon(server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn r29_r30_a_connection_past_its_age_and_grace_is_cut_without_a_goaway() {
    let canary = Canary {
        today: "with `max_connection_age_grace` a connection gets no GOAWAY at its age and is cut at \
                the end of the grace",
        upstream: "grpc/grpc-rust#2449 (once hyperium/tonic)",
        then: "docs/upstream.md may drop its warning of that option",
    };
    let age = Duration::from_secs(100);
    let grace = Duration::from_secs(10);
    let builder = Server::builder()
        .max_connection_age(age)
        .max_connection_age_grace(grace);
    let server = serve(builder).await;
    let mut client = server.raw().await;

    pass(age + grace / 2).await;
    client.write_all(PING).await.unwrap();
    loop {
        let frame = soon(frame(&mut client)).await;
        canary.still(frame.is_some() && frame != Some(Frame::GoAway));
        if frame == Some(Frame::Ping) {
            break;
        }
    }
    pass(grace).await;
    while let Some(frame) = soon(frame(&mut client)).await {
        canary.still(frame != Frame::GoAway);
    }
}

#[tokio::test]
async fn r30_new_connections_are_taken_during_the_drain_and_not_served() {
    let canary = Canary {
        today: "the socket stays open during the drain: new clients connect and are not answered",
        upstream: "grpc/grpc-rust#2824; tonic 0.14.9 (which needs Rust 1.88) does not do it",
        then: "docs/upstream.md and this test may drop it",
    };
    let server = serve(Server::builder()).await;
    let mut client = server.client().await;
    let watch = soon(client.watch(HealthCheckRequest::default())).await;
    let raw = server.raw().await;
    server.stop(raw).await;
    settle().await;

    let new = TcpStream::connect(server.address).await;
    canary.still(new.is_ok());
    let mut new = new.unwrap();
    new.write_all(&hello()).await.unwrap();
    settle().await;
    let answer = new.try_read(&mut [0]).map_err(|error| error.kind());
    canary.still(answer == Err(ErrorKind::WouldBlock));
    drop(watch);
    drop(client);
    soon(server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn r30_a_connection_past_its_age_panics_and_cuts_its_calls() {
    let canary = Canary {
        today: "with `max_connection_age` alone the task of a connection panics at that age, and the \
                calls on it are cut",
        upstream: "grpc/grpc-rust#2522; tonic 0.14.9 (which needs Rust 1.88) does not do it",
        then: "docs/upstream.md and this test may drop it",
    };
    let age = Duration::from_secs(100);
    let server = serve(Server::builder().max_connection_age(age)).await;
    let mut client = server.client().await;
    let watch = soon(client.watch(HealthCheckRequest::default())).await;
    let mut watch = watch.unwrap().into_inner();
    soon(watch.message()).await.unwrap().unwrap();

    pass(age + Duration::from_secs(1)).await;
    let cut = time::timeout(Duration::ZERO, watch.message()).await;
    canary.still(cut.is_ok_and(|message| message.is_err()));
}
