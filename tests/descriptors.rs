//! Servers in a process that has no file descriptor left.
//!
//! The limit is one of the whole process, so there is no other test in this one, and these come one
//! after the other. Time is real, that of the processor too: a server that asks again and again
//! cannot be seen in any other way.
#![cfg(unix)]

#[path = "upstream/canary.rs"]
mod canary;
mod support;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use taskgroup::{CancellationToken, SidecarError};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tracing_subscriber::util::SubscriberInitExt;

use crate::canary::Canary;
use crate::support::place::Place;
use crate::support::wait::{PLENTY, soon};

const SECOND: Duration = Duration::from_secs(1);

/// The part of the processor that a server which waits may use.
const REST: u32 = 20;

static ALONE: Mutex<()> = Mutex::new(());

thread_local! {
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct ThisThread;

impl Write for ThisThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `test` and its log in one thread, and no other test at the same time.
fn alone(test: impl Future<Output = ()>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let log = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(|| ThisThread);
    let _log = log.set_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// Holds all file descriptors that this process may have.
struct Exhausted {
    limit: Rlimit,
    _files: Vec<File>,
}

impl Exhausted {
    /// More than this process has in use, and few enough to be used up quickly.
    const LIMIT: u64 = 256;

    fn new() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let low = Rlimit {
            current: Some(Self::LIMIT),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, low).unwrap();
        let files = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        Self {
            limit,
            _files: files,
        }
    }
}

impl Drop for Exhausted {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.limit).unwrap();
    }
}

/// The time that the processor has spent on this process.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

/// How often the log says that the system has refused a connection.
fn refusals() -> usize {
    let log = LOG.with_borrow(|log| String::from_utf8(log.clone()).unwrap());
    let refused =
        |line: &&str| line.contains("WARN") && line.contains("accept failed, next try in");
    log.lines().filter(refused).count()
}

/// A client that is connected and has sent `hello` before the server, in the same thread, runs again.
fn client(address: SocketAddr, hello: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(hello).unwrap();
    client.set_nonblocking(true).unwrap();
    client
}

/// Whether anything has come from the server.
fn is_answered(client: &mut impl Read) -> bool {
    matches!(client.read(&mut [0]), Ok(1))
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn rests_serves_again_and_stops_at_once<C: Read>(
    client: impl Fn() -> C,
    token: CancellationToken,
    server: impl Future<Output = Result<(), SidecarError>> + Send + 'static,
) {
    let server = tokio::spawn(server);
    let mut first = client();
    let exhausted = Exhausted::new();

    let begin = processor_time();
    sleep(SECOND).await;
    let used = processor_time() - begin;
    assert!(!is_answered(&mut first), "there was a descriptor left");
    assert!(used < SECOND / REST, "{used:?} in {SECOND:?}");
    // The pauses double, so there are eight in a second, and few more in a long one.
    assert!((1..=12).contains(&refusals()), "{}", refusals());

    drop(exhausted);
    soon(async {
        while !is_answered(&mut first) {
            sleep(SECOND / 100).await;
        }
    })
    .await;
    drop(first);
    sleep(SECOND / 10).await;

    let mut last = client();
    let _exhausted = Exhausted::new();
    sleep(SECOND / 10).await;
    assert!(!is_answered(&mut last), "there was a descriptor left");
    token.cancel();
    let begin = Instant::now();
    soon(server).await.unwrap().unwrap();
    assert!(begin.elapsed() < SECOND / 2, "{:?}", begin.elapsed());
    assert!(!is_answered(&mut last));
}

#[test]
fn r17_an_axum_server_without_descriptors_rests_serves_again_and_stops_at_once() {
    alone(async {
        let (listener, address) = listen().await;
        let token = CancellationToken::new();
        let app = axum::Router::new();
        let server = taskgroup::server::axum::serve("http", listener, app)
            .grace(PLENTY)
            .linger(PLENTY)
            .run(&token);
        let hello = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
        rests_serves_again_and_stops_at_once(|| client(address, hello), token, server).await;
    });
}

#[test]
fn r17_a_tonic_server_without_descriptors_rests_serves_again_and_stops_at_once() {
    alone(async {
        let (listener, address) = listen().await;
        let token = CancellationToken::new();
        let routes = tonic::service::Routes::default();
        let server = taskgroup::server::tonic::serve("grpc", listener, routes)
            .grace(PLENTY)
            .linger(PLENTY)
            .run(&token);
        let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        rests_serves_again_and_stops_at_once(|| client(address, hello), token, server).await;
    });
}

#[test]
fn s12_a_server_on_a_unix_socket_without_descriptors_rests_serves_again_and_stops_at_once() {
    alone(async {
        let place = Place::new("descriptors");
        let path = place.join("http.sock");
        let token = CancellationToken::new();
        let listener = UnixListener::bind(&path).unwrap();
        let server = taskgroup::serve("http", listener, axum::Router::new())
            .grace(PLENTY)
            .linger(PLENTY)
            .run(&token);
        let client = || {
            let mut client = UnixStream::connect(&path).unwrap();
            client
                .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
                .unwrap();
            client.set_nonblocking(true).unwrap();
            client
        };
        rests_serves_again_and_stops_at_once(client, token, server).await;
    });
}

#[test]
fn r17_a_client_that_waits_at_the_stop_of_a_server_without_descriptors_is_answered_when_there_are_some()
 {
    alone(async {
        let (listener, address) = listen().await;
        let app = axum::Router::new().route("/", axum::routing::get(async || "hello"));
        let token = CancellationToken::new();
        let (sender, report) = tokio::sync::oneshot::channel();
        let server = taskgroup::server::axum::serve("http", listener, app)
            .on_report(|report| sender.send(report.clone()).unwrap());
        let server = tokio::spawn(server.run(&token));
        tokio::task::yield_now().await;
        // Nothing is awaited from here to the stop, so the server, in the same thread, does not run.
        let hello = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
        let mut clients = [client(address, hello), client(address, hello)];
        let exhausted = Exhausted::new();
        token.cancel();

        soon(async {
            while refusals() < 2 {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        drop(exhausted);

        for client in &mut clients {
            soon(async {
                while !is_answered(client) {
                    sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
        }
        soon(server).await.unwrap().unwrap();
        let report = report.await.unwrap();
        assert_eq!(report.connections_at_stop(), 2);
        assert_eq!(report.answered(), 2);
    });
}

#[test]
fn r17_a_stop_that_finds_no_descriptor_says_so_and_ends() {
    alone(async {
        let (listener, address) = listen().await;
        let token = CancellationToken::new();
        let server = taskgroup::server::axum::serve("http", listener, axum::Router::new());
        let server = tokio::spawn(server.run(&token));
        tokio::task::yield_now().await;
        let mut client = client(address, b"GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        let exhausted = Exhausted::new();
        token.cancel();

        soon(server).await.unwrap().unwrap();

        drop(exhausted);
        let log = LOG.with_borrow(|log| String::from_utf8(log.clone()).unwrap());
        assert!(log.contains("WARN"), "{log}");
        assert!(log.contains("whoever waits there still is reset"), "{log}");
        client.set_nonblocking(false).unwrap();
        assert!(client.read(&mut [0]).is_err());
    });
}

#[test]
fn r30_stock_tonic_without_descriptors_spins() {
    let canary = Canary {
        today: "while the process has no file descriptor left, the server tries to accept without a pause",
        upstream: "`handle_tcp_accept_error` in tonic's io_stream.rs (grpc/grpc-rust), for which the \
                   server's loop goes on at once",
        then: "docs/upstream.md may drop that row",
    };
    alone(async {
        let (listener, address) = listen().await;
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder()
            .add_routes(tonic::service::Routes::default())
            .serve_with_incoming(incoming);
        let server = tokio::spawn(server);
        let _client = client(address, b"");
        let _exhausted = Exhausted::new();

        // On a busy machine it does not get the whole of a processor, but it takes what it gets.
        let (begin, wall) = (processor_time(), Instant::now());
        let spun = || processor_time() - begin > SECOND / 2;
        while !spun() && wall.elapsed() < SECOND / 2 * REST {
            sleep(SECOND / 100).await;
        }
        canary.still(spun());
        canary.still(!server.is_finished());
        server.abort();
    });
}
