//! The server under test, clients that write bytes, bodies and handlers that hang.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{self, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http_body::Frame;
use hyper_util::rt::TokioIo;
use taskgroup::server::Serve;
use taskgroup::server::axum::App;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::yield_now;

use crate::support::alive::{Alive, Guard};
use crate::support::server;
use crate::support::server::{Server, patient};
use crate::support::wait::soon;

impl Server {
    /// With much time for everything, unless `options` says something else.
    pub(crate) async fn start(
        app: Router,
        options: impl FnOnce(Serve<App<Router, Router>>) -> Serve<App<Router, Router>>,
    ) -> Self {
        let serve = |listener| taskgroup::server::axum::serve("http", listener, app);
        Self::run(|listener| options(patient(serve(listener)))).await
    }

    /// Waits until the server has read all that was written before: it runs in the same thread, so
    /// it has seen that before it sees these.
    pub(crate) async fn settle(&self) {
        for _ in 0..3 {
            let client = request(self.address, "GET / HTTP/1.1\r\nconnection: close").await;
            assert!(read_to_end(client).await.ends_with("hello"));
        }
    }
}

/// Connects and sends `head`, to which only the host and the empty line are missing.
pub(crate) async fn request(address: SocketAddr, head: &str) -> TcpStream {
    send(address, &format!("{head}\r\nhost: test\r\n\r\n")).await
}

pub(crate) async fn send(address: SocketAddr, bytes: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(bytes.as_bytes()).await.unwrap();
    client
}

/// All that comes until the connection ends, in whatever way.
pub(crate) async fn read_to_end(client: TcpStream) -> String {
    String::from_utf8_lossy(&server::read_to_end(client).await).into_owned()
}

/// All that comes up to and with `end`.
pub(crate) async fn read_until(client: &mut TcpStream, end: &str) -> String {
    soon(async {
        let mut answer = String::new();
        while !answer.ends_with(end) {
            answer.push(char::from(client.read_u8().await.unwrap()));
        }
        answer
    })
    .await
}

/// A body that says `tick` each time it is sent something, and ends when the sender is dropped.
pub(crate) struct Ticks {
    pub(crate) receiver: mpsc::UnboundedReceiver<()>,
    pub(crate) _guard: Option<Guard>,
}

impl http_body::Body for Ticks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let tick = self.receiver.poll_recv(cx);
        tick.map(|tick| tick.map(|()| Ok(Frame::data(Bytes::from_static(b"tick")))))
    }
}

/// A body that has no end and is always ready.
struct Flood(Guard);

impl http_body::Body for Flood {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let _ = &self.0;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16_384])))))
    }
}

/// Handlers that never end by themselves, each counted while it is alive, its body included.
pub(crate) fn endless(alive: &Alive) -> Router {
    let route = |app: Router, path: &str, method: fn(Alive) -> axum::routing::MethodRouter| {
        app.route(path, method(alive.clone()))
    };
    let app = Router::new().route("/", get(async || "hello"));
    let app = route(app, "/poll", |alive| {
        get(async move || {
            let _guard = alive.guard();
            pending::<&str>().await
        })
    });
    let app = route(app, "/events", |alive| {
        get(async move || {
            let (sender, receiver) = mpsc::unbounded_channel();
            sender.send(()).unwrap();
            let guard = alive.guard();
            // It lives as long as the body, and keeps that from ending.
            tokio::spawn(async move { sender.closed().await });
            Body::new(Ticks {
                receiver,
                _guard: Some(guard),
            })
        })
    });
    let app = route(app, "/flood", |alive| {
        get(async move || Body::new(Flood(alive.guard())))
    });
    let app = route(app, "/upload", |alive| {
        post(async move |body: Bytes| {
            drop(alive);
            body.len().to_string()
        })
    });
    route(app, "/ws", |alive| {
        any(async move |request: Request| echo(request, alive.guard()))
    })
}

/// Upgrades the connection, or the stream over HTTP/2, and then echoes.
pub(crate) fn echo(request: Request, guard: Guard) -> Response {
    let is_http2 = request.version() == http::Version::HTTP_2;
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        drop(guard);
    });
    if is_http2 {
        return StatusCode::OK.into_response();
    }
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "echo")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// An upgraded connection that has echoed once.
pub(crate) async fn websocket(address: SocketAddr) -> TcpStream {
    let head = "GET /ws HTTP/1.1\r\nconnection: upgrade\r\nupgrade: echo";
    let mut client = request(address, head).await;
    read_until(&mut client, "\r\n\r\n").await;
    client.write_all(b"ping").await.unwrap();
    read_until(&mut client, "ping").await;
    client
}

/// A connection over HTTP/2 whose peer does all it should.
pub(crate) async fn http2(address: SocketAddr) -> SendRequest<Bytes> {
    let client = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    soon(sender.ready()).await.unwrap()
}

pub(crate) fn get_over_http2(path: &str) -> http::Request<()> {
    let request = http::Request::get(format!("http://test{path}"));
    request.body(()).unwrap()
}

/// A stream of HTTP/2 that was upgraded and has echoed once.
pub(crate) async fn websocket_over_http2(address: SocketAddr) -> (SendStream<Bytes>, RecvStream) {
    let mut sender = http2(address).await;
    while !sender.is_extended_connect_protocol_enabled() {
        yield_now().await;
    }
    let mut connect = get_over_http2("/ws");
    *connect.method_mut() = Method::CONNECT;
    connect
        .extensions_mut()
        .insert(Protocol::from_static("websocket"));
    let (answer, mut output) = sender.send_request(connect, false).unwrap();
    let mut input = soon(answer).await.unwrap().into_body();
    output
        .send_data(Bytes::from_static(b"ping"), false)
        .unwrap();
    assert_eq!(soon(input.data()).await.unwrap().unwrap(), "ping");
    (output, input)
}
