//! `axum::serve` with a graceful shutdown.

use std::io::{self, Read, Write};
use std::net::{self, SocketAddr};

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::{Method, Request};
use axum::response::Response;
use axum::response::sse::{Event, Sse};
use axum::routing::{any, get, post};
use axum::serve::ListenerExt;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use hyper::body::Bytes;
use taskgroup::CancellationToken;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, yield_now};
use tokio_stream::wrappers::BroadcastStream;

use crate::canary::Canary;
use crate::support::wait::{PLENTY, soon};
use crate::{HTTP2_PREFACE, HTTP2_SETTINGS, listen, settle};

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

async fn serve(app: Router) -> Server {
    let (listener, address) = listen().await;
    let stop = CancellationToken::new();
    let app = app.route("/", get(async || "hello"));
    let listener = listener.tap_io(|io| io.set_nodelay(true).unwrap());
    let server = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    let task = tokio::spawn(server.into_future());
    Server {
        address,
        stop,
        task,
    }
}

impl Server {
    async fn request(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        client.set_nodelay(true).unwrap();
        client.write_all(bytes.as_ref()).await.unwrap();
        client
    }

    /// A connection that has had its answer and waits for the next request.
    async fn idle(&self) -> TcpStream {
        let mut client = self.request("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
        assert!(read_past(&mut client, "hello").await);
        client
    }

    /// Tells the server to stop, and waits until its connections know.
    async fn stop(&self, mut idle: TcpStream) {
        self.stop.cancel();
        assert_eq!(soon(idle.read(&mut [0])).await.unwrap(), 0);
    }
}

/// Whether `words` come before the end of the connection.
async fn read_past(client: &mut TcpStream, words: &str) -> bool {
    let mut read = Vec::new();
    while !read.ends_with(words.as_bytes()) {
        match soon(client.read_u8()).await {
            Ok(byte) => read.push(byte),
            Err(_) => return false,
        }
    }
    true
}

/// An application whose `/events` is an event stream of what is sent.
fn events() -> (broadcast::Sender<Event>, Router) {
    let (events, _) = broadcast::channel(1);
    let stream = {
        let events = events.clone();
        async move || Sse::new(BroadcastStream::new(events.subscribe()))
    };
    (events, Router::new().route("/events", get(stream)))
}

/// A client of the event stream that has seen its first event.
async fn listener(server: &Server, events: &broadcast::Sender<Event>) -> TcpStream {
    let mut client = server.request(GET_EVENTS).await;
    assert!(read_past(&mut client, "\r\n\r\n").await);
    assert!(is_delivered(events, &mut client).await);
    client
}

async fn is_delivered(events: &broadcast::Sender<Event>, client: &mut TcpStream) -> bool {
    let sent = events.send(Event::default().data("news"));
    sent.is_ok() && read_past(client, "news").await
}

const GET_EVENTS: &str = "GET /events HTTP/1.1\r\nhost: test\r\n\r\n";

#[tokio::test]
async fn r30_half_a_header_hangs_the_drain() {
    let canary = Canary {
        today: "a client that has sent half a header and then nothing holds the drain forever",
        upstream: "tokio-rs/axum#2741 and #3326",
        then: "docs/upstream.md may drop that row, and the gate its header timeout for this axum",
    };
    let server = serve(Router::new()).await;
    let half = server.request("GET / HTTP/1.1\r\nhost: te").await;
    let idle = server.idle().await;

    server.stop(idle).await;
    canary.hangs_until_dropped(server.task, half).await;
}

#[tokio::test]
async fn r30_half_a_body_that_is_read_hangs_the_drain() {
    let canary = Canary {
        today: "a client that has sent half a body, of which the handler wants the whole, holds the \
                drain forever",
        upstream: "tokio-rs/axum#2741 and #1070",
        then: "docs/upstream.md may drop that row; look whether the gate has to cut such a handler itself",
    };
    let upload = post(async |body: String| body);
    let server = serve(Router::new().route("/upload", upload)).await;
    let half = server
        .request("POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\n\r\nhalf")
        .await;
    let idle = server.idle().await;

    server.stop(idle).await;
    canary.hangs_until_dropped(server.task, half).await;
}

#[tokio::test]
async fn r30_an_answer_that_is_not_read_hangs_the_drain() {
    let canary = Canary {
        today: "a client that does not read an answer larger than the buffers holds the drain forever",
        upstream: "tokio-rs/axum#1070 and #3326",
        then: "docs/upstream.md may drop that row; look whether the gate has to count who does not read",
    };
    let large = "x".repeat(16 << 20);
    let server = serve(Router::new().route("/large", get(async move || large))).await;
    let mut client = server
        .request("GET /large HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    soon(client.read_u8()).await.unwrap();
    let idle = server.idle().await;

    server.stop(idle).await;
    canary.hangs_until_dropped(server.task, client).await;
}

#[tokio::test]
async fn r30_a_preface_without_settings_hangs_the_drain() {
    let canary = Canary {
        today: "a client that has sent the preface of HTTP/2 and then nothing holds the drain forever",
        upstream: "hyperium/hyper#4170, with #4171, #4172 and #3729",
        then: "docs/upstream.md may drop that row, and the gate its header timeout for this axum",
    };
    let server = serve(Router::new()).await;
    let silent = server.request(HTTP2_PREFACE).await;
    let idle = server.idle().await;

    server.stop(idle).await;
    canary.hangs_until_dropped(server.task, silent).await;
}

#[tokio::test]
async fn r30_a_missing_pong_hangs_the_drain() {
    let canary = Canary {
        today: "a client over HTTP/2 that does not answer the PING of the drain holds it forever",
        upstream: "hyperium/hyper#4170, its second case",
        then: "docs/upstream.md may drop that row; look whether the gate has to cut idle connections itself",
    };
    let server = serve(Router::new()).await;
    let mute = server
        .request([HTTP2_PREFACE, HTTP2_SETTINGS].concat())
        .await;
    let idle = server.idle().await;

    server.stop(idle).await;
    canary.hangs_until_dropped(server.task, mute).await;
}

#[tokio::test]
async fn r30_an_event_stream_hangs_the_drain() {
    let canary = Canary {
        today: "an event stream that goes on holds the drain forever",
        upstream: "tokio-rs/axum#2673 and #1070",
        then: "docs/upstream.md may drop that row; look whether the gate has to cut streams itself",
    };
    let (events, app) = events();
    let server = serve(app).await;
    let mut client = listener(&server, &events).await;
    let idle = server.idle().await;

    server.stop(idle).await;
    canary.still_hangs(&server.task).await;
    canary.still(is_delivered(&events, &mut client).await);
    drop(client);
    soon(server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn r30_a_websocket_is_not_waited_for() {
    let canary = Canary {
        today: "the server is done at once while a websocket of HTTP/1 goes on being served",
        upstream: "tokio-rs/axum#3003 and the pull request #3831",
        then: "docs/upstream.md may drop that row, and the gate may leave counting websockets to axum",
    };
    let server = serve(Router::new().route("/ws", get(echo))).await;
    let mut client = server
        .request(
            "GET /ws HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    assert!(read_past(&mut client, "\r\n\r\n").await);
    assert!(is_echoed(&mut client).await);
    let idle = server.idle().await;

    server.stop(idle).await;
    settle().await;
    canary.still(server.task.is_finished());
    soon(server.task).await.unwrap().unwrap();
    canary.still(is_echoed(&mut client).await);
}

async fn echo(websocket: WebSocketUpgrade) -> Response {
    websocket.on_upgrade(async |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// Sends `hi`, and whether it came back.
async fn is_echoed(client: &mut TcpStream) -> bool {
    let sent = client.write_all(HI).await;
    sent.is_ok() && read_past(client, "hi").await
}

#[tokio::test]
async fn r30_a_websocket_over_http2_hangs_the_drain() {
    let canary = Canary {
        today: "a websocket over HTTP/2 that goes on holds the drain forever",
        upstream: "tokio-rs/axum#3003 and the pull request #3831, which are about those of HTTP/1",
        then: "docs/upstream.md may drop that row; look whether the gate has to count these websockets",
    };
    let server = serve(Router::new().route("/ws", any(echo))).await;
    let mut client = WebSocket::connect(&server).await;
    assert!(client.is_echoed().await);
    let idle = server.idle().await;

    server.stop(idle).await;
    canary.still_hangs(&server.task).await;
    canary.still(client.is_echoed().await);
    client.connection.abort();
    soon(server.task).await.unwrap().unwrap();
}

/// A websocket over HTTP/2.
struct WebSocket {
    connection: JoinHandle<Result<(), h2::Error>>,
    output: SendStream<Bytes>,
    input: RecvStream,
}

impl WebSocket {
    async fn connect(server: &Server) -> Self {
        let client = server.request("").await;
        let (sender, connection) = soon(h2::client::handshake(client)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut sender = soon(sender.ready()).await.unwrap();
        while !sender.is_extended_connect_protocol_enabled() {
            yield_now().await;
        }
        let connect = Request::builder()
            .method(Method::CONNECT)
            .uri("http://test/ws")
            .header("sec-websocket-version", "13")
            .extension(Protocol::from_static("websocket"))
            .body(())
            .unwrap();
        let (answer, output) = sender.send_request(connect, false).unwrap();
        let answer = soon(answer).await.unwrap();
        assert!(answer.status().is_success());
        Self {
            connection,
            output,
            input: answer.into_body(),
        }
    }

    async fn is_echoed(&mut self) -> bool {
        let sent = self.output.send_data(Bytes::from_static(HI), false);
        let mut read = Vec::new();
        while sent.is_ok() && !read.ends_with(b"hi") {
            match soon(self.input.data()).await {
                Some(Ok(bytes)) => read.extend(bytes),
                _ => return false,
            }
        }
        sent.is_ok()
    }
}

/// The text `hi` as a client sends it, with a mask (of zeros).
const HI: &[u8] = b"\x81\x82\0\0\0\0hi";

#[tokio::test]
async fn r30_connections_go_on_when_the_server_is_dropped_in_its_drain() {
    let canary = Canary {
        today: "dropping the future of the server leaves its connections alive",
        upstream: "tokio-rs/axum#1070 and #3326",
        then: "docs/upstream.md and the message of `SidecarError` may stop saying that connections may remain",
    };
    let (events, app) = events();
    let server = serve(app).await;
    let mut client = listener(&server, &events).await;
    let idle = server.idle().await;
    server.stop(idle).await;

    server.task.abort();
    assert!(soon(server.task).await.unwrap_err().is_cancelled());
    settle().await;
    canary.still(is_delivered(&events, &mut client).await);
}

#[tokio::test]
async fn r30_connections_go_on_when_the_server_is_dropped_while_serving() {
    let canary = Canary {
        today: "a server that is dropped without a stop goes on answering on its connections",
        upstream: "tokio-rs/axum#1070 and #3326",
        then: "docs/upstream.md may stop saying so; a sidecar's drop need no longer fire the stop",
    };
    let server = serve(Router::new()).await;
    let mut idle = server.idle().await;

    server.task.abort();
    assert!(soon(server.task).await.unwrap_err().is_cancelled());
    settle().await;
    let request = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    let sent = idle.write_all(request).await;
    canary.still(sent.is_ok() && read_past(&mut idle, "hello").await);
}

#[tokio::test]
async fn r30_requests_in_the_accept_queue_are_not_answered() {
    let canary = Canary {
        today: "requests that were sent before the stop and not yet accepted are reset",
        upstream: "hyperium/hyper#3792 and the pull request #3808",
        then: "docs/upstream.md may drop that row, and the gate its sweep of the accept queue",
    };
    let server = serve(Router::new()).await;
    drop(server.idle().await);
    settle().await;

    // Blocking sockets: the server does not run before all of them are in the queue.
    let mut clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = net::TcpStream::connect(server.address).unwrap();
            client.set_read_timeout(Some(PLENTY)).unwrap();
            client
                .write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
                .unwrap();
            client
        })
        .collect();
    server.stop.cancel();
    soon(server.task).await.unwrap().unwrap();

    let answered = clients.iter_mut().filter_map(|client| {
        let mut answer = String::new();
        client.read_to_string(&mut answer).ok()?;
        answer.ends_with("hello").then_some(())
    });
    canary.still(answered.count() < 20);
}

#[tokio::test]
async fn r30_a_request_on_the_way_on_an_old_connection_is_not_answered() {
    let canary = Canary {
        today: "a request on an idle connection, sent before the stop and not yet read, is thrown away",
        upstream: "hyperium/hyper#3792 and the pull request #3808",
        then: "docs/upstream.md may drop that row, and the gate its linger",
    };
    let server = serve(Router::new()).await;
    let mut idle = server.idle().await;

    // Nothing is awaited in between: the server, in the same thread, has not read it.
    let request = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    assert_eq!(idle.try_write(request).unwrap(), request.len());
    server.stop.cancel();

    canary.still(!read_past(&mut idle, "hello").await);
    soon(server.task).await.unwrap().unwrap();
}
