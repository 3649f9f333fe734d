//! Servers over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use taskgroup::server::axum::App;
use taskgroup::server::{Serve, Transport};
use taskgroup::testing::Leaks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, advance, pause, resume};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::peers::{endless, read_to_end};
use crate::pki::Identity;
use crate::support::alive::Alive;
use crate::support::server::{SHORT, Server};
use crate::support::wait::{PLENTY, soon, turns};

/// The sides of a server that calls itself `localhost`.
struct Pair {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Pair {
    fn new() -> Self {
        let identity = Identity::new("localhost");
        let pem = identity.certificate();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(identity.key().as_bytes()).unwrap();
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            acceptor: Arc::new(server).into(),
            connector: Arc::new(client).into(),
        }
    }

    async fn start(
        &self,
        app: Router,
        options: impl FnOnce(Serve<App<Router, Router>>) -> Serve<App<Router, Router>>,
    ) -> Server {
        let acceptor = self.acceptor.clone();
        Server::start(app, |serve| {
            options(serve.tls(move |io| acceptor.accept(io)))
        })
        .await
    }

    async fn connect(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let client = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        soon(self.connector.connect(name, client)).await.unwrap()
    }

    async fn request(&self, address: SocketAddr, head: &str) -> TlsStream<TcpStream> {
        let mut client = self.connect(address).await;
        let request = format!("{head}\r\nhost: localhost\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        client
    }
}

async fn answer(mut client: TlsStream<TcpStream>) -> String {
    let mut answer = Vec::new();
    let _ = soon(client.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn r28_a_request_over_tls_is_answered_and_knows_where_it_comes_from() {
    let pair = Pair::new();
    let app = Router::new().route(
        "/",
        get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string()),
    );
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let acceptor = pair.acceptor.clone();
    let serve = |listener| taskgroup::server::axum::serve("https", listener, app);
    let server = Server::run(|listener| serve(listener).tls(move |io| acceptor.accept(io))).await;

    let client = pair
        .request(
            server.address,
            "GET / HTTP/1.1
connection: close",
        )
        .await;

    let me = client.get_ref().0.local_addr().unwrap();
    assert!(answer(client).await.ends_with(&format!("\r\n\r\n{me}")));
    server.stop().await.0.unwrap();
}

#[tokio::test]
async fn the_session_is_there_for_a_make_service_to_ask() {
    use std::convert::Infallible;
    use taskgroup::server::Incoming;
    use tokio_rustls::server;

    let pair = Pair::new();
    let app = tower_service_fn(|incoming: Incoming<'_>| {
        let Transport::Tls(tls) = incoming.transport() else {
            panic!("it speaks TLS");
        };
        type Session = server::TlsStream<taskgroup::server::Io>;
        let session = tls.downcast_ref::<Session>().unwrap().get_ref().1;
        let version = format!("{:?}", session.protocol_version().unwrap());
        let app = Router::new().route("/", get(async move || version));
        std::future::ready(Ok::<_, Infallible>(app))
    });
    let acceptor = pair.acceptor.clone();
    let serve = |listener| taskgroup::server::axum::serve("https", listener, app);
    let server = Server::run(|listener| serve(listener).tls(move |io| acceptor.accept(io))).await;

    let client = pair
        .request(
            server.address,
            "GET / HTTP/1.1
connection: close",
        )
        .await;

    assert!(answer(client).await.ends_with("TLSv1_3"));
    server.stop().await.0.unwrap();
}

/// A make-service of a function.
fn tower_service_fn<F>(f: F) -> ServiceFn<F> {
    ServiceFn(f)
}

#[derive(Clone)]
struct ServiceFn<F>(F);

impl<'a, F, R> tower_service::Service<taskgroup::server::Incoming<'a>> for ServiceFn<F>
where
    F: FnMut(taskgroup::server::Incoming<'_>) -> R,
    R: Future<Output = Result<Router, std::convert::Infallible>>,
{
    type Response = Router;
    type Error = std::convert::Infallible;
    type Future = R;

    fn poll_ready(
        &mut self,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), std::convert::Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, incoming: taskgroup::server::Incoming<'a>) -> R {
        (self.0)(incoming)
    }
}

#[tokio::test]
async fn r8_half_a_handshake_is_closed_with_the_linger_and_is_not_a_loss() {
    let pair = Pair::new();
    let leaks = Leaks::watch();
    let server = pair.start(Router::new(), |serve| serve).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"\x16\x03\x01\x02\0\x01").await.unwrap();
    turns().await;

    let (outcome, report) = server.stop().await;

    outcome.unwrap();
    assert_eq!(report.connections_at_stop(), 2);
    assert_eq!(read_to_end(silent).await, "");
    assert_eq!(read_to_end(half).await, "");
    leaks.check().await;
}

#[tokio::test]
async fn r11_a_request_over_tls_is_cut_in_words_and_its_stream_closed() {
    let pair = Pair::new();
    let alive = Alive::default();
    let leaks = Leaks::watch();
    let server = pair
        .start(endless(&alive), |serve| serve.grace(SHORT))
        .await;
    let poll = pair.request(server.address, "GET /poll HTTP/1.1").await;
    let flood = pair.request(server.address, "GET /flood HTTP/1.1").await;
    alive.reaches(2).await;

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(report.requests_cut(), 2);
    assert_eq!(report.connections_cut(), 2);
    assert_eq!(report.stuck(), 0);
    assert_eq!(alive.count(), 0);
    let answer = answer(poll).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    drop(flood);
    leaks.check().await;
}

#[tokio::test]
async fn r7_a_handshake_that_is_under_way_at_the_stop_is_let_in() {
    let pair = Pair::new();
    let app = Router::new().route("/", get(async || "hello"));
    let server = pair.start(app, |serve| serve.linger(PLENTY)).await;
    let waiting = TcpStream::connect(server.address).await.unwrap();
    turns().await;
    server.token.cancel();
    turns().await;

    let name = ServerName::try_from("localhost").unwrap();
    let mut client = soon(pair.connector.connect(name, waiting)).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    client.write_all(request).await.unwrap();

    let answer = answer(client).await;
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.ends_with("hello"), "{answer}");
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.answered(), 1);
}

#[tokio::test]
async fn r18_a_client_over_tls_is_timed_outside_and_inside() {
    let pair = Pair::new();
    let limit = PLENTY / 2;
    let server = pair
        .start(Router::new(), |serve| {
            serve.header_timeout(limit).first_byte_timeout(limit)
        })
        .await;
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"\x16\x03\x01\x02\0\x01").await.unwrap();
    let mut slow = pair.connect(server.address).await;
    slow.write_all(b"GET / HT").await.unwrap();
    let silent = pair.connect(server.address).await;
    turns().await;

    let begin = Instant::now();
    pause();
    for _ in 0..8 {
        advance(limit / 4).await;
        turns().await;
    }
    resume();

    assert!(begin.elapsed() >= limit);
    assert_eq!(read_to_end(half).await, "");
    assert_eq!(answer(slow).await, "");
    assert_eq!(answer(silent).await, "");
    server.stop().await.0.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_disturbs_nobody() {
    let pair = Pair::new();
    let app = Router::new().route("/", get(async || "hello"));
    let server = pair.start(app, |serve| serve).await;

    let mut plain = TcpStream::connect(server.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    plain.write_all(request).await.unwrap();
    let _ = read_to_end(plain).await;

    let head = "GET / HTTP/1.1\r\nconnection: close";
    let client = pair.request(server.address, head).await;
    assert!(answer(client).await.ends_with("hello"));
    server.stop().await.0.unwrap();
}

#[tokio::test]
async fn r18_a_handshake_that_only_seems_to_go_on_is_timed() {
    let pair = Pair::new();
    let limit = PLENTY / 2;
    let server = pair
        .start(Router::new(), |serve| {
            serve.header_timeout(limit).first_byte_timeout(limit)
        })
        .await;
    let (inside, mut outside) = tokio::io::duplex(1 << 14);
    let name = ServerName::try_from("localhost").unwrap();
    let connecting = pair.connector.connect(name, inside);
    let mut hello = vec![0; 1 << 14];
    let length = tokio::select! {
        length = outside.read(&mut hello) => length.unwrap(),
        _ = connecting => unreachable!("nobody answers"),
    };
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(&hello[..length]).await.unwrap();
    // A change of keys, which TLS 1.3 lets a client say at any time, and which means nothing.
    half.write_all(b"\x14\x03\x03\0\x01\x01").await.unwrap();
    turns().await;

    pause();
    for _ in 0..12 {
        advance(limit / 4).await;
        turns().await;
    }
    resume();

    // What the server has said in its part of the handshake, and then the end.
    let _ = read_to_end(half).await;
    server.stop().await.0.unwrap();
}

#[tokio::test]
async fn r18_without_a_timeout_for_the_first_byte_half_a_handshake_is_timed_anyway() {
    let pair = Pair::new();
    let limit = PLENTY / 2;
    let server = pair
        .start(Router::new(), |serve| {
            let no_limit = std::time::Duration::MAX;
            serve.header_timeout(limit).first_byte_timeout(no_limit)
        })
        .await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"\x16\x03\x01\x02\0\x01").await.unwrap();
    turns().await;

    pause();
    for _ in 0..8 {
        advance(limit / 4).await;
        turns().await;
    }
    resume();

    assert_eq!(read_to_end(half).await, "");
    let read = silent.try_read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(read, Err(std::io::ErrorKind::WouldBlock));
    server.stop().await.0.unwrap();
}
