//! Bad peers of every kind at once. The only test of its process, whose file descriptors it counts.

#[allow(dead_code, reason = "the other tests of axum use the rest")]
mod peers;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use hyper::body::Bytes;
use taskgroup::server::{DEFAULT_KILL_GRACE, DrainReport, Stop};
use taskgroup::testing::Leaks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::peers::{
    endless, get_over_http2, http2, read_to_end, read_until, request, send, websocket,
    websocket_over_http2,
};
use crate::support::alive::Alive;
use crate::support::leaks::{descriptors, tasks};
use crate::support::server::{NO_TIME, SHORT, Server};
use crate::support::wait::soon;

/// So long that the server tells its peers, and cuts the idle ones, well before it is over.
const GRACE: Duration = Duration::from_secs(1);
const FLUSH: Duration = Duration::from_millis(100);
const LARGE: usize = 16 << 20;

/// One of each kind, on a connection each.
struct Peers {
    // These leave by themselves when the server is told to stop.
    between_requests: TcpStream,
    silent: TcpStream,
    undecided: TcpStream,
    // To hyper this is an idle connection until the head is whole. On a new connection it is not.
    half_head_behind_an_answer: TcpStream,

    // These have no request in flight.
    half_head: TcpStream,
    slow_head: JoinHandle<()>,
    no_pong: TcpStream,

    // These do.
    half_body: TcpStream,
    poll: TcpStream,
    pipelined: TcpStream,
    events: TcpStream,
    flood: TcpStream,
    over_http2: (SendRequest<Bytes>, ResponseFuture, RecvStream),
    flood_over_http2: RecvStream,

    // The request of this one is over, its answer is not.
    large: TcpStream,

    // The server has forgotten these, or takes them for requests that are over.
    echo: TcpStream,
    echo_over_http2: (SendStream<Bytes>, RecvStream),

    // This one is as good as a peer can be.
    polite: TcpStream,
}

impl Peers {
    const COUNT: usize = 18;
    /// Those that need one: the slow head, and the three connections over HTTP/2.
    const TASKS: usize = 4;

    async fn connect(server: &Server, alive: &Alive) -> Self {
        let address = server.address;
        let mut between_requests = request(address, "GET / HTTP/1.1").await;
        read_until(&mut between_requests, "hello").await;
        let mut half_head_behind_an_answer = request(address, "GET / HTTP/1.1").await;
        read_until(&mut half_head_behind_an_answer, "hello").await;
        let half_head = b"GET / HTTP/1.1\r\nho";
        half_head_behind_an_answer
            .write_all(half_head)
            .await
            .unwrap();
        let poll = "GET /poll HTTP/1.1\r\nhost: test\r\n\r\n";
        let mut events = request(address, "GET /events HTTP/1.1").await;
        read_until(&mut events, "tick\r\n").await;
        let mut large = request(address, "GET /large HTTP/1.1").await;
        soon(large.read_u8()).await.unwrap();
        let upload = "POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\n\r\nhalf";
        let preface_and_settings = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let peers = Self {
            between_requests,
            silent: TcpStream::connect(address).await.unwrap(),
            undecided: send(address, "PRI ").await,
            half_head: send(address, "GET / HTTP/1.1\r\nhost: te").await,
            half_head_behind_an_answer,
            slow_head: tokio::spawn(trickle(send(address, "GET /").await)),
            no_pong: send(address, preface_and_settings).await,
            half_body: send(address, upload).await,
            poll: send(address, poll).await,
            pipelined: send(address, &poll.repeat(2)).await,
            events,
            flood: request(address, "GET /flood HTTP/1.1").await,
            over_http2: two_requests_over_http2(server).await,
            flood_over_http2: {
                let mut sender = http2(address).await;
                let (answer, _) = sender.send_request(get_over_http2("/flood"), true).unwrap();
                soon(answer).await.unwrap().into_body()
            },
            large,
            echo: websocket(address).await,
            echo_over_http2: websocket_over_http2(address).await,
            polite: request(address, "GET /polite HTTP/1.1").await,
        };
        server.settle().await;
        alive.reaches(9).await;
        peers
    }

    /// Takes what was left for each, up to its end.
    async fn see_their_ends(self) {
        for told_nothing in [
            self.between_requests,
            self.silent,
            self.undecided,
            self.half_head,
            self.half_head_behind_an_answer,
            // No last chunk: nobody can take it for a whole answer.
            self.events,
            self.echo,
        ] {
            assert_eq!(read_to_end(told_nothing).await, "");
        }
        soon(self.slow_head).await.unwrap();
        assert!(!read_to_end(self.no_pong).await.contains("HTTP/1.1"));

        for stuck in [self.half_body, self.poll, self.pipelined] {
            let answer = read_to_end(stuck).await;
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            assert!(answer.contains("connection: close"), "{answer}");
            assert!(
                answer.ends_with("the server is shutting down\n"),
                "{answer}"
            );
        }
        assert!(!read_to_end(self.flood).await.ends_with("0\r\n\r\n"));
        assert!(read_to_end(self.large).await.len() < LARGE);
        assert!(
            read_to_end(self.polite)
                .await
                .ends_with("\r\n\r\nlast words")
        );

        let (_sender, poll, events) = self.over_http2;
        let answer = soon(poll).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_broken(events).await;
        assert_broken(self.flood_over_http2).await;
        let (_output, mut input) = self.echo_over_http2;
        assert!(!matches!(soon(input.data()).await, Some(Ok(_))));
    }
}

async fn two_requests_over_http2(
    server: &Server,
) -> (SendRequest<Bytes>, ResponseFuture, RecvStream) {
    let mut sender = http2(server.address).await;
    let (poll, _) = sender.send_request(get_over_http2("/poll"), true).unwrap();
    let mut sender = soon(sender.ready()).await.unwrap();
    let (events, _) = sender
        .send_request(get_over_http2("/events"), true)
        .unwrap();
    let events = soon(events).await.unwrap().into_body();
    (sender, poll, events)
}

/// Goes on with its head, a byte now and then, as long as it is let.
async fn trickle(mut client: TcpStream) {
    while client.write_all(b"x").await.is_ok() {
        sleep(NO_TIME).await;
    }
}

/// What has come is there, and after it an error where the end would be.
async fn assert_broken(mut body: RecvStream) {
    loop {
        match soon(body.data()).await {
            Some(Ok(bytes)) => assert!(!bytes.is_empty()),
            end => return assert!(end.unwrap().is_err()),
        }
    }
}

fn app(alive: &Alive) -> Router {
    let large = "x".repeat(LARGE);
    let polite = get(async |stop: Stop| {
        stop.stopping().await;
        "last words"
    });
    endless(alive)
        .route("/large", get(async move || large))
        .route("/polite", polite)
}

#[track_caller]
fn assert_counts(report: &DrainReport) {
    assert_eq!(report.connections_at_stop(), Peers::COUNT);
    assert_eq!(report.requests_at_stop(), 9);
    assert_eq!(report.answered(), 1);
    assert_eq!(report.idle_cut(), 3);
    assert_eq!(report.requests_cut(), 8);
    assert_eq!(report.connections_cut(), 8);
    assert_eq!(report.upgrades_cut(), 2);
    assert_eq!(report.stuck(), 0);
    let mut paths = report.paths().to_vec();
    paths.sort();
    let expected = ["GET /events", "GET /flood", "GET /poll", "POST /upload"];
    assert_eq!(paths, expected);
}

#[tokio::test]
async fn r2_r3_r4_r5_r6_r9_r11_seventeen_kinds_of_bad_peers_at_once_are_gone_in_time() {
    let leaks = Leaks::watch().alone();
    let (own_tasks, own_descriptors) = (tasks(), descriptors());
    let alive = Alive::default();
    let server = Server::start(app(&alive), |serve| serve.grace(GRACE).idle_grace(SHORT)).await;
    let peers = Peers::connect(&server, &alive).await;

    let begin = Instant::now();
    let (outcome, report) = server.stop().await;
    let took = begin.elapsed();

    // Nothing of the server is left, and that is so at once. What handlers have spawned has yet to
    // see that its stream is gone: two event streams, and the websocket over HTTP/2.
    assert!(tasks() <= own_tasks + Peers::TASKS + 3, "{}", tasks());
    assert!(descriptors() <= own_descriptors + Peers::COUNT);
    assert!(alive.count() <= 1);
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
    alive.reaches(0).await;
    leaks.check().await;
}
