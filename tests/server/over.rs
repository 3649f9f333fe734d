//! [`Over`]: the protocols, with one server and one client for all of them.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::any;
use h2::client::SendRequest;
use http_body::Frame;
use hyper::body::Bytes;
use taskgroup::CancellationToken;
use taskgroup::server::{DrainReport, Listening, Serve, Server as Startable, Stop};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, yield_now};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::service::Routes;

use crate::pki::Identity;
use crate::support::alive::{Alive, Guard};
#[cfg(unix)]
use crate::support::place::Place;
use crate::support::server::{NO_TIME, Outcome};
use crate::support::wait::{PLENTY, soon};

/// What is spoken, and over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Http1,
    Http2,
    /// HTTP/1 in TLS.
    Tls,
    /// HTTP/1 over a Unix socket.
    #[cfg(unix)]
    Unix,
    Grpc,
    GrpcTls,
}

impl Over {
    fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcTls)
    }

    fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::GrpcTls)
    }

    pub(crate) fn is_http2(self) -> bool {
        self == Self::Http2 || self.is_grpc()
    }
}

/// The options of a server, with much time for everything but the linger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set {
    pub(crate) grace: Duration,
    pub(crate) linger: Duration,
    pub(crate) first_byte: Duration,
    pub(crate) most: usize,
    pub(crate) is_lenient: bool,
    pub(crate) catches_panics: bool,
    pub(crate) stop_in_requests: bool,
}

impl Default for Set {
    fn default() -> Self {
        Self {
            grace: PLENTY,
            linger: NO_TIME,
            first_byte: PLENTY,
            most: usize::MAX,
            is_lenient: false,
            catches_panics: false,
            stop_in_requests: true,
        }
    }
}

impl Set {
    fn on<S>(self, mut serve: Serve<S>) -> Serve<S> {
        serve = serve
            .grace(self.grace)
            .idle_grace(PLENTY)
            .linger(self.linger)
            .first_byte_timeout(self.first_byte)
            .max_connections(self.most);
        if self.is_lenient {
            serve = serve.lenient();
        }
        if self.catches_panics {
            serve = serve.catch_panics();
        }
        serve
    }
}

/// What a handler does is in its path.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    /// Those that have not ended.
    pub(crate) alive: Alive,
    /// Lets `/slow` answer.
    pub(crate) release: Arc<Notify>,
    /// That of the last request.
    stop: Arc<OnceLock<Stop>>,
}

impl Handlers {
    fn app(&self) -> Router {
        let handlers = self.clone();
        Router::new().fallback(any(async move |request: Request| {
            let body = handlers.handle(request).await;
            // Plain HTTP does not mind it.
            ([("grpc-status", "0")], body).into_response()
        }))
    }

    async fn handle(&self, request: Request) -> Body {
        let guard = self.alive.guard();
        let stop = request.extensions().get::<Stop>().cloned();
        if let Some(stop) = &stop {
            self.stop.get_or_init(|| stop.clone());
        }
        match request.uri().path() {
            "/slow" => {
                let stop = stop.unwrap();
                stop.stopping().await;
                self.release.notified().await;
                assert!(stop.remaining().unwrap() > PLENTY / 2);
            }
            "/hangs" => pending().await,
            "/panics" => std::panic::resume_unwind(Box::new("no hook")),
            "/stopless" => assert!(stop.is_none()),
            "/streams" => return Body::new(Endless { _guard: guard }),
            _ => {}
        }
        Body::empty()
    }
}

/// A body that never ends.
struct Endless {
    _guard: Guard,
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

enum At {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(Place),
}

/// A server that a fact is shown of.
pub(crate) struct Server {
    over: Over,
    at: At,
    connector: TlsConnector,
    pub(crate) handlers: Handlers,
    pub(crate) token: CancellationToken,
    pub(crate) task: JoinHandle<Outcome>,
    report: oneshot::Receiver<DrainReport>,
}

impl Server {
    pub(crate) async fn start(over: Over, set: Set) -> Self {
        let (at, listening) = listen(over).await;
        let (acceptor, connector) = pair(over);
        let handlers = Handlers::default();
        let token = CancellationToken::new();
        let (task, report) = if over.is_grpc() {
            let routes = Routes::from(handlers.app());
            let serve = taskgroup::server::tonic::serve("server", listening, routes);
            let serve = serve.stop_in_requests(set.stop_in_requests);
            if over.is_tls() {
                run(set.on(serve.tls(move |io| acceptor.accept(io))), &token)
            } else {
                run(set.on(serve), &token)
            }
        } else {
            let serve = taskgroup::server::axum::serve("server", listening, handlers.app());
            let serve = serve.stop_in_requests(set.stop_in_requests);
            if over.is_tls() {
                run(set.on(serve.tls(move |io| acceptor.accept(io))), &token)
            } else {
                run(set.on(serve), &token)
            }
        };
        Self {
            over,
            at,
            connector,
            handlers,
            token,
            task,
            report,
        }
    }

    /// Connects, and says nothing.
    pub(crate) async fn connect_silently(&self) -> Box<dyn Stream> {
        match &self.at {
            At::Tcp(address) => Box::new(TcpStream::connect(*address).await.unwrap()),
            #[cfg(unix)]
            At::Unix(place) => {
                let stream = tokio::net::UnixStream::connect(place.join("socket")).await;
                Box::new(stream.unwrap())
            }
        }
    }

    pub(crate) async fn client(&self) -> Client {
        let mut stream = self.connect_silently().await;
        if self.over.is_tls() {
            let name = ServerName::try_from("localhost").unwrap();
            let inside = soon(self.connector.connect(name, stream)).await.unwrap();
            stream = Box::new(inside);
        }
        if !self.over.is_http2() {
            return Client::Http1(stream);
        }
        let (sender, connection) = soon(h2::client::handshake(stream)).await.unwrap();
        Client::Http2 {
            sender,
            connection: tokio::spawn(connection),
            is_grpc: self.over.is_grpc(),
        }
    }

    /// A client that asks for something that does not end before the stop, in a task of its own.
    pub(crate) async fn asks(&self, path: &'static str) -> JoinHandle<(End, Client)> {
        let before = self.handlers.alive.count();
        let mut client = self.client().await;
        let asks = tokio::spawn(async move { (client.ask(path).await, client) });
        self.handlers.alive.reaches(before + 1).await;
        asks
    }

    /// Begins the stop, and waits until the handlers know. One must have been asked before.
    pub(crate) async fn begin_stop(&self) {
        self.token.cancel();
        soon(self.handlers.stop.get().unwrap().stopping()).await;
    }

    pub(crate) async fn stop(self) -> (Outcome, DrainReport) {
        self.token.cancel();
        let outcome = soon(self.task).await.unwrap();
        (outcome, self.report.await.unwrap())
    }
}

async fn listen(over: Over) -> (At, Listening) {
    #[cfg(unix)]
    if over == Over::Unix {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let place = Place::new(&format!("over-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let listening = Listening::unix(place.join("socket")).unwrap();
        return (At::Unix(place), listening);
    }
    let _ = over;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (At::Tcp(listener.local_addr().unwrap()), listener.into())
}

fn run<S: Startable>(
    serve: Serve<S>,
    token: &CancellationToken,
) -> (JoinHandle<Outcome>, oneshot::Receiver<DrainReport>) {
    let (sender, report) = oneshot::channel();
    let serve = serve.on_report(move |report| sender.send(report.clone()).unwrap());
    (tokio::spawn(serve.run(token)), report)
}

/// The sides of a server that calls itself `localhost`.
fn pair(over: Over) -> (TlsAcceptor, TlsConnector) {
    let identity = Identity::new("localhost");
    let pem = identity.certificate();
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key().as_bytes()).unwrap();
    let mut server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    if over.is_http2() {
        server.alpn_protocols = vec![b"h2".to_vec()];
    }
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols.clone_from(&server.alpn_protocols);
    (Arc::new(server).into(), Arc::new(client).into())
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How a request ends for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Answered,
    /// It is told that the server is shutting down: 503, or `UNAVAILABLE`.
    Unavailable,
    /// 500, or `INTERNAL`.
    Internal,
    /// Without any words.
    BrokenOff,
}

impl End {
    fn of(status: u16, grpc_status: Option<&str>) -> Self {
        match (status, grpc_status) {
            (503, _) | (_, Some("14")) => Self::Unavailable,
            (500, _) | (_, Some("13")) => Self::Internal,
            (200, Some("0")) => Self::Answered,
            _ => panic!("{status} {grpc_status:?}"),
        }
    }
}

/// A connection.
pub(crate) enum Client {
    Http1(Box<dyn Stream>),
    Http2 {
        sender: SendRequest<Bytes>,
        connection: JoinHandle<Result<(), h2::Error>>,
        is_grpc: bool,
    },
}

impl Client {
    pub(crate) async fn ask(&mut self, path: &str) -> End {
        match self {
            Self::Http1(stream) => soon(http1(stream, path)).await,
            Self::Http2 {
                sender, is_grpc, ..
            } => soon(http2(sender.clone(), path, *is_grpc)).await,
        }
    }

    /// Waits until the server has closed the connection.
    pub(crate) async fn closed(self) {
        match self {
            Self::Http1(mut stream) => {
                let rest = soon(stream.read(&mut [0])).await;
                assert!(matches!(rest, Ok(0) | Err(_)));
            }
            Self::Http2 { connection, .. } => drop(soon(connection).await),
        }
    }
}

async fn http1(stream: &mut Box<dyn Stream>, path: &str) -> End {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return End::BrokenOff;
    }
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return End::BrokenOff,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let value = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
    };
    let Some(length) = value("content-length:") else {
        let _ = stream.read_to_end(&mut Vec::new()).await;
        return End::BrokenOff;
    };
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    let status = head["HTTP/1.1 ".len()..][..3].parse().unwrap();
    End::of(status, value("grpc-status:").as_deref())
}

async fn http2(sender: SendRequest<Bytes>, path: &str, is_grpc: bool) -> End {
    let kind = if is_grpc {
        "application/grpc"
    } else {
        "text/plain"
    };
    let request = hyper::Request::post(format!("http://localhost{path}"))
        .header("content-type", kind)
        .body(())
        .unwrap();
    let Ok(mut sender) = sender.ready().await else {
        return End::BrokenOff;
    };
    let Ok((response, _)) = sender.send_request(request, true) else {
        return End::BrokenOff;
    };
    let Ok(response) = response.await else {
        return End::BrokenOff;
    };
    let (head, mut body) = response.into_parts();
    while let Some(data) = body.data().await {
        if data.is_err() {
            return End::BrokenOff;
        }
    }
    let grpc_status = head.headers.get("grpc-status");
    let grpc_status = grpc_status.map(|status| status.to_str().unwrap());
    End::of(head.status.as_u16(), grpc_status)
}

/// Lets a silent client see its end.
pub(crate) async fn read_to_end(mut stream: Box<dyn Stream>) {
    let _ = stream.read_to_end(&mut Vec::new()).await;
    yield_now().await;
}
