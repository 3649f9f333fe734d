//! Bad peers of every kind at once. The only test of its process, whose file descriptors it counts.

#[allow(dead_code, reason = "the other tests of tonic use the rest")]
mod calls;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use h2::SendStream;
use h2::client::{Connection, ResponseFuture, SendRequest};
use hyper::body::Bytes;
use taskgroup::server::{DEFAULT_KILL_GRACE, DrainReport};
use taskgroup::testing::Leaks;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};
use tonic_health::pb::HealthCheckResponse;
use tonic_health::pb::health_client::HealthClient;

use crate::calls::{Calls, call};
use crate::support::leaks::descriptors;
use crate::support::server::{SHORT, Server, read_to_end};
use crate::support::wait::soon;

/// So long that the server tells its peers, and cuts the idle ones, well before it is over.
const GRACE: Duration = Duration::from_secs(1);
const FLUSH: Duration = Duration::from_millis(100);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// A HEADERS frame after which a CONTINUATION has to come.
const HALF_HEADERS: &[u8] = b"\0\0\x02\x01\0\0\0\0\x01\x83\x86";
/// A HEADERS frame of 64 bytes, three of which are there.
const CUT_FRAME: &[u8] = b"\0\0\x40\x01\x04\0\0\0\x01\x83\x86\x84";
/// A message of ten bytes, three of which are there.
const HALF_MESSAGE: &[u8] = b"\0\0\0\0\x0a\x0a\x08h";
/// The message for a call that hangs.
const HANGS: &[u8] = b"\0\0\0\0\x07\x0a\x05hangs";

type Call = JoinHandle<Result<Response<HealthCheckResponse>, Status>>;

/// One of each kind, on a connection each.
struct Peers {
    // This one leaves by itself when the server is told to stop.
    idle: HealthClient<Channel>,

    // These have no call in flight.
    silent: TcpStream,
    half_preface: TcpStream,
    no_settings: TcpStream,
    no_pong: TcpStream,
    half_headers: TcpStream,
    cut_frame: TcpStream,

    // These do.
    hangs: Call,
    two_hang: [Call; 2],
    events: Streaming<HealthCheckResponse>,
    flood: Streaming<HealthCheckResponse>,
    half_body: HalfBody,
    vanished: Vanished,

    // This one is as good as a peer can be.
    polite: Streaming<HealthCheckResponse>,
}

impl Peers {
    const COUNT: usize = 14;

    async fn connect(server: &Server, calls: &Calls) -> Self {
        let send = async |parts: &[&[u8]]| {
            let mut client = TcpStream::connect(server.address).await.unwrap();
            client.write_all(&parts.concat()).await.unwrap();
            client
        };
        let hangs = |mut client: HealthClient<Channel>| {
            tokio::spawn(async move { client.check(call("hangs")).await })
        };
        let watch = async |kind| {
            let watch = soon(server.client().await.watch(call(kind))).await.unwrap();
            let mut watch = watch.into_inner();
            soon(watch.message()).await.unwrap().unwrap();
            watch
        };
        let mut idle = server.client().await;
        soon(idle.check(call(""))).await.unwrap();
        let two = server.client().await;
        let peers = Self {
            idle,
            silent: send(&[]).await,
            half_preface: send(&[b"PRI * HT"]).await,
            no_settings: send(&[PREFACE]).await,
            no_pong: send(&[PREFACE, SETTINGS]).await,
            half_headers: send(&[PREFACE, SETTINGS, HALF_HEADERS]).await,
            cut_frame: send(&[PREFACE, SETTINGS, CUT_FRAME]).await,
            vanished: Vanished::connect(server, calls).await,
            hangs: hangs(server.client().await),
            two_hang: [hangs(two.clone()), hangs(two)],
            events: watch("events").await,
            flood: watch("flood").await,
            half_body: HalfBody::connect(server).await,
            polite: watch("polite").await,
        };
        server.settle().await;
        calls.alive.reaches(7).await;
        peers
    }

    /// Takes what was left for each, up to its end.
    async fn see_their_ends(self) {
        let mut idle = self.idle;
        let refused = soon(idle.check(call(""))).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        for told_nothing in [
            self.silent,
            self.half_preface,
            self.no_settings,
            self.no_pong,
            self.half_headers,
            self.cut_frame,
        ] {
            read_to_end(told_nothing).await;
        }

        let [first, second] = self.two_hang;
        for hangs in [self.hangs, first, second] {
            assert_told(&soon(hangs).await.unwrap().unwrap_err());
        }
        assert_told(&end(self.events).await);
        // What it was to be told is behind all that it has not taken.
        end(self.flood).await;
        assert_told(&status_of(self.half_body.response).await);
        soon(self.vanished.connection).await.unwrap();
        assert_told(&status_of(self.vanished.response).await);

        let mut polite = self.polite;
        assert_eq!(soon(polite.message()).await.unwrap(), None);
    }
}

/// A call whose message never ends, as with a client that streams and stops in the middle.
struct HalfBody {
    _sender: SendRequest<Bytes>,
    _body: SendStream<Bytes>,
    response: ResponseFuture,
}

impl HalfBody {
    async fn connect(server: &Server) -> Self {
        let client = TcpStream::connect(server.address).await.unwrap();
        let (sender, connection) = soon(h2::client::handshake(client)).await.unwrap();
        tokio::spawn(connection);
        let mut sender = soon(sender.ready()).await.unwrap();
        let (response, mut body) = sender.send_request(check(), false).unwrap();
        let half = Bytes::from_static(HALF_MESSAGE);
        body.send_data(half, false).unwrap();
        Self {
            _sender: sender,
            _body: body,
            response,
        }
    }
}

/// A peer that is gone without having closed its connection. It is never polled again.
struct Vanished {
    _sender: SendRequest<Bytes>,
    connection: Connection<TcpStream>,
    response: ResponseFuture,
}

impl Vanished {
    async fn connect(server: &Server, calls: &Calls) -> Self {
        let client = TcpStream::connect(server.address).await.unwrap();
        let (mut sender, mut connection) = soon(h2::client::handshake(client)).await.unwrap();
        let (response, mut body) = sender.send_request(check(), false).unwrap();
        body.send_data(Bytes::from_static(HANGS), true).unwrap();
        tokio::select! {
            end = &mut connection => panic!("{end:?}"),
            () = calls.alive.reaches(1) => {}
        }
        Self {
            _sender: sender,
            connection,
            response,
        }
    }
}

fn check() -> hyper::Request<()> {
    hyper::Request::post("http://test/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
}

/// The status with which a stream breaks off.
async fn end(mut stream: Streaming<HealthCheckResponse>) -> Status {
    loop {
        match soon(stream.message()).await {
            Ok(message) => assert!(message.is_some(), "it seems to be whole"),
            Err(status) => return status,
        }
    }
}

async fn status_of(response: ResponseFuture) -> Status {
    let response = soon(response).await.unwrap();
    Status::from_header_map(response.headers()).unwrap()
}

#[track_caller]
fn assert_told(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(status.message(), "the server is shutting down");
}

#[track_caller]
fn assert_counts(report: &DrainReport) {
    assert_eq!(report.connections_at_stop(), Peers::COUNT);
    assert_eq!(report.requests_at_stop(), 8);
    assert_eq!(report.answered(), 1);
    assert_eq!(report.idle_cut(), 6);
    assert_eq!(report.requests_cut(), 7);
    assert_eq!(report.connections_cut(), 6);
    assert_eq!(report.upgrades_cut(), 0);
    assert_eq!(report.stuck(), 0);
    let mut paths = report.paths().to_vec();
    paths.sort();
    let service = "POST /grpc.health.v1.Health";
    assert_eq!(
        paths,
        ["Check", "Watch"].map(|call| format!("{service}/{call}"))
    );
}

#[tokio::test]
async fn r2_r3_r4_r5_r6_r9_r11_thirteen_kinds_of_bad_peers_at_once_are_gone_in_time() {
    let leaks = Leaks::watch().alone();
    let own_descriptors = descriptors();
    let calls = Calls::default();
    let server = Server::start(&calls, |serve| serve.grace(GRACE).idle_grace(SHORT)).await;
    let peers = Peers::connect(&server, &calls).await;

    let begin = Instant::now();
    let (outcome, report) = server.stop().await;
    let took = begin.elapsed();

    // Nothing of the server is left, and that is so at once.
    assert!(descriptors() <= own_descriptors + Peers::COUNT);
    assert_eq!(calls.alive.count(), 0);
    assert!(
        GRACE <= report.took() && report.took() <= took,
        "{report:?}"
    );
    assert!(took <= GRACE + FLUSH + DEFAULT_KILL_GRACE, "{took:?}");
    let error = outcome.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(error.drain_report(), Some(&report));
    assert_counts(&report);

    peers.see_their_ends().await;
    leaks.check().await;
}
