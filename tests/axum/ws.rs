//! Websockets in a drain. Their peers write frames, so that they can do what no client does.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{CloseFrame, Message};
use axum::http::{Method, Request, StatusCode};
use axum::routing::any;
use futures_util::{SinkExt, StreamExt};
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use hyper::body::Bytes;
use taskgroup::group::DeadlinePassed;
use taskgroup::server::Stop;
use taskgroup::server::axum::ws::{CLOSE_GRACE, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio_test::assert_pending;

use crate::peers::{read_until, request};
use crate::support::server::Server;
use crate::support::wait::{soon, turns};

const GRACE: Duration = Duration::from_secs(10);
/// When the time for outgoing work is over, and that for the stream to be closed is not.
const LATE: Duration = Duration::from_millis(9_900);

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const AWAY: &[u8] = b"\x03\xe9the server is shutting down";
/// More than fits into the buffers of a connection.
const LARGE: usize = 32 << 20;

type Log = mpsc::UnboundedSender<String>;
type Logged = mpsc::UnboundedReceiver<String>;

/// A server whose websockets are given to `handler`, with a log.
async fn serve<F>(
    handler: impl Fn(WebSocket, Stop, Log) -> F + Clone + Send + Sync + 'static,
) -> (Server, Logged)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (log, logged) = mpsc::unbounded_channel();
    let upgrade = async move |upgrade: WebSocketUpgrade, stop: Stop| {
        upgrade.on_upgrade(move |socket| handler(WebSocket::new(socket, stop.clone()), stop, log))
    };
    let app = Router::new().route("/ws", any(upgrade));
    (Server::start(app, |serve| serve.grace(GRACE)).await, logged)
}

/// Says what it receives, and how that ends.
async fn listen(mut socket: WebSocket, _stop: Stop, log: Log) {
    while let Some(message) = socket.recv().await {
        log.send(word(message)).unwrap();
    }
    log.send("none".into()).unwrap();
}

async fn echo(mut socket: WebSocket, _stop: Stop, _log: Log) {
    while let Some(Ok(message)) = socket.recv().await {
        let _ = socket.send(message).await;
    }
}

fn word(message: Result<Message, axum::Error>) -> String {
    match message {
        Ok(Message::Text(text)) => text.to_string(),
        Ok(Message::Close(Some(CloseFrame { code, .. }))) => format!("close {code}"),
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("error: {error}"),
    }
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}

async fn next(logged: &mut Logged) -> String {
    soon(logged.recv()).await.unwrap()
}

/// A frame of a client, with a mask that changes nothing.
fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    [&[head, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

async fn connect(server: &Server) -> TcpStream {
    let head = "GET /ws HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    let mut peer = request(server.address, head).await;
    let answer = read_until(&mut peer, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    peer
}

async fn send(peer: &mut TcpStream, head: u8, payload: &[u8]) {
    soon(peer.write_all(&frame(head, payload))).await.unwrap();
}

/// The head of the next frame, and what is in it.
async fn receive(peer: &mut TcpStream) -> (u8, Vec<u8>) {
    soon(async {
        let head = peer.read_u8().await.unwrap();
        let len = match peer.read_u8().await.unwrap() {
            126 => peer.read_u16().await.unwrap().into(),
            127 => peer.read_u64().await.unwrap(),
            len => len.into(),
        };
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        peer.read_exact(&mut payload).await.unwrap();
        (head, payload)
    })
    .await
}

#[track_caller]
fn is_away((head, payload): &(u8, Vec<u8>)) {
    assert_eq!((*head, payload.as_slice()), (CLOSE, AWAY));
}

async fn is_at_end(peer: &mut TcpStream) {
    assert_eq!(soon(peer.read(&mut [0])).await.unwrap(), 0);
}

/// Waits for the end of a stop in which nothing was cut.
async fn is_clean(server: Server) {
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.upgrades_cut(), 0);
}

#[tokio::test]
async fn r10_a_websocket_is_closed_with_1001_and_the_drain_is_clean() {
    let (server, _) = serve(echo).await;
    let mut peer = connect(&server).await;
    send(&mut peer, TEXT, b"hello").await;
    assert_eq!(receive(&mut peer).await, (TEXT, b"hello".to_vec()));

    server.begin_stop().await;

    is_away(&receive(&mut peer).await);
    send(&mut peer, CLOSE, b"\x03\xe9").await;
    is_at_end(&mut peer).await;
    is_clean(server).await;
}

/// A websocket over HTTP/2, and the connection that carries it.
struct OverHttp2 {
    input: RecvStream,
    output: SendStream<Bytes>,
    connection: SendRequest<Bytes>,
}

impl OverHttp2 {
    async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut sender = soon(sender.ready()).await.unwrap();
        while !sender.is_extended_connect_protocol_enabled() {
            yield_now().await;
        }
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("http://test/ws")
            .header("sec-websocket-version", "13")
            .extension(Protocol::from_static("websocket"));
        let (answer, output) = sender
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        let answer = soon(answer).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        Self {
            input: answer.into_body(),
            output,
            connection: sender,
        }
    }

    fn send(&mut self, head: u8, payload: &[u8]) {
        let frame = frame(head, payload).into();
        self.output.send_data(frame, false).unwrap();
    }

    /// The head of the next frame, and what is in it, if it is short.
    async fn receive(&mut self) -> (u8, Vec<u8>) {
        let frame = soon(self.input.data()).await.unwrap().unwrap();
        (frame[0], frame[2..].to_vec())
    }

    async fn is_at_end(&mut self) {
        // The end may be a frame of its own, without data.
        while let Some(Ok(data)) = soon(self.input.data()).await {
            assert_eq!(data, "");
        }
    }

    /// Waits until the server has said that it takes no more streams, and was answered.
    async fn goes_away(&mut self) {
        while self.connection.clone().ready().await.is_ok() {
            yield_now().await;
        }
        turns().await;
    }
}

#[tokio::test]
async fn r10_a_websocket_over_http2_is_closed_with_1001_and_the_drain_is_clean() {
    let (server, _) = serve(echo).await;
    let mut peer = OverHttp2::connect(&server).await;
    peer.send(TEXT, b"hello");
    assert_eq!(peer.receive().await, (TEXT, b"hello".to_vec()));

    server.begin_stop().await;

    is_away(&peer.receive().await);
    peer.send(CLOSE, b"\x03\xe9");
    peer.is_at_end().await;
    is_clean(server).await;
}

#[tokio::test]
async fn r10_a_peer_over_http2_that_never_answers_the_close_is_given_up_before_it_is_cut() {
    let (server, mut logged) = serve(listen).await;
    let mut peer = OverHttp2::connect(&server).await;
    server.begin_stop().await;
    is_away(&peer.receive().await);
    peer.goes_away().await;

    tokio::time::pause();

    assert_eq!(next(&mut logged).await, "none");
    is_clean(server).await;
    peer.is_at_end().await;
}

/// What was handed over to HTTP/2 cannot be taken back, so the connection cannot end by itself.
#[tokio::test]
async fn r10_a_peer_over_http2_that_does_not_read_is_cut_but_its_handler_has_ended() {
    let (server, mut logged) = serve(async |mut socket, stop, log| {
        while socket.send(vec![0; 1 << 16].into()).await.is_ok() {}
        assert!(socket.recv().await.is_none());
        assert_ne!(stop.remaining(), Some(Duration::ZERO));
        log.send("none".into()).unwrap();
    })
    .await;
    let mut peer = OverHttp2::connect(&server).await;
    turns().await;
    server.begin_stop().await;
    peer.goes_away().await;

    tokio::time::pause();

    assert_eq!(next(&mut logged).await, "none");
    let (outcome, report) = server.stopped().await;
    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(report.upgrades_cut(), 1);
}

#[tokio::test]
async fn r10_what_the_peer_had_sent_before_it_saw_the_close_is_received() {
    let (server, mut logged) = serve(listen).await;
    let mut peer = connect(&server).await;
    server.begin_stop().await;
    is_away(&receive(&mut peer).await);

    for text in ["one", "two"] {
        send(&mut peer, TEXT, text.as_bytes()).await;
        assert_eq!(next(&mut logged).await, text);
    }
    send(&mut peer, CLOSE, b"\x03\xe8").await;

    assert_eq!(next(&mut logged).await, "close 1000");
    assert_eq!(next(&mut logged).await, "none");
    is_at_end(&mut peer).await;
    is_clean(server).await;
}

#[tokio::test]
async fn r10_a_peer_that_is_gone_after_the_close_is_an_end_and_no_error() {
    let (server, mut logged) = serve(listen).await;
    let mut peer = connect(&server).await;
    server.begin_stop().await;
    is_away(&receive(&mut peer).await);

    drop(peer);

    assert_eq!(next(&mut logged).await, "none");
    is_clean(server).await;
}

#[tokio::test]
async fn until_the_stop_a_peer_that_is_gone_is_an_error() {
    let (server, mut logged) = serve(listen).await;

    drop(connect(&server).await);

    let error = next(&mut logged).await;
    assert!(error.starts_with("error: "), "{error}");
    assert_eq!(next(&mut logged).await, "none");
}

#[tokio::test]
async fn until_the_stop_a_close_of_the_peer_is_answered_with_its_own_code() {
    let (server, mut logged) = serve(listen).await;
    let mut peer = connect(&server).await;

    send(&mut peer, CLOSE, b"\x03\xe8").await;

    assert_eq!(receive(&mut peer).await, (CLOSE, b"\x03\xe8".to_vec()));
    assert_eq!(next(&mut logged).await, "close 1000");
    assert_eq!(next(&mut logged).await, "none");
    is_at_end(&mut peer).await;
}

#[tokio::test]
async fn r10_a_peer_that_never_answers_the_close_is_given_up_after_a_second() {
    let (server, mut logged) = serve(listen).await;
    let mut peer = connect(&server).await;
    server.begin_stop().await;
    is_away(&receive(&mut peer).await);

    // Nothing but time is waited for from here on.
    tokio::time::pause();
    let begin = tokio::time::Instant::now();

    assert_eq!(next(&mut logged).await, "none");
    assert!(begin.elapsed() < 2 * CLOSE_GRACE);
    is_clean(server).await;
    is_at_end(&mut peer).await;
}

#[tokio::test]
async fn r10_a_peer_that_never_pauses_is_given_up_before_it_is_cut() {
    let (server, mut logged) = serve(listen).await;
    let (_reader, mut writer) = connect(&server).await.into_split();
    tokio::spawn(async move { while writer.write_all(&frame(TEXT, b"more")).await.is_ok() {} });
    assert_eq!(next(&mut logged).await, "more");
    // With something to do for the runtime, time moves only when it is told to.
    tokio::time::pause();
    let busy = tokio::spawn(async {
        loop {
            yield_now().await;
        }
    });
    server.token.cancel();
    turns().await;
    while logged.try_recv().is_ok() {}
    assert_eq!(next(&mut logged).await, "more");

    tokio::time::advance(LATE).await;

    while next(&mut logged).await == "more" {}
    is_clean(server).await;
    busy.abort();
}

#[tokio::test]
async fn r10_a_peer_that_does_not_read_is_given_up_before_it_is_cut() {
    let (server, mut logged) = serve(async |mut socket, _stop, log| {
        log.send("sends".into()).unwrap();
        let error = socket.send(vec![0; LARGE].into()).await.unwrap_err();
        assert!(error.into_inner().is::<DeadlinePassed>());
        assert!(socket.recv().await.is_none());
        log.send("none".into()).unwrap();
    })
    .await;
    let _peer = connect(&server).await;
    assert_eq!(next(&mut logged).await, "sends");
    turns().await;
    server.begin_stop().await;

    tokio::time::pause();

    assert_eq!(next(&mut logged).await, "none");
    is_clean(server).await;
}

#[tokio::test]
async fn r10_a_message_that_is_being_sent_is_sent_as_a_whole_and_then_the_close() {
    let (server, mut logged) = serve(async |mut socket, stop, log| {
        log.send("sends".into()).unwrap();
        socket.send(vec![0; LARGE].into()).await.unwrap();
        assert!(stop.is_stopping());
        assert!(socket.recv().await.is_some());
        assert!(socket.recv().await.is_none());
    })
    .await;
    let mut peer = connect(&server).await;
    assert_eq!(next(&mut logged).await, "sends");
    turns().await;

    server.begin_stop().await;

    let (head, payload) = receive(&mut peer).await;
    assert_eq!((head, payload.len()), (BINARY, LARGE));
    is_away(&receive(&mut peer).await);
    send(&mut peer, CLOSE, b"\x03\xe9").await;
    is_at_end(&mut peer).await;
    is_clean(server).await;
}

#[tokio::test]
async fn r10_a_half_that_sends_is_woken_though_the_other_one_has_sent_the_close() {
    let (server, mut logged) = serve(async |socket: WebSocket, stop, log: Log| {
        let (mut sender, mut receiver) = socket.split();
        let sent = log.clone();
        let sending = tokio::spawn(async move {
            sender.send(vec![0; LARGE].into()).await.unwrap();
            sent.send("sent".into()).unwrap();
            sender.send("more".into()).await.unwrap_err();
        });
        let mut receiving = Box::pin(receiver.next());
        assert_pending!(poll_once(&mut receiving).await);
        stop.stopping().await;
        // The sending half has seen the stop before; this one is the last that touches the socket.
        turns().await;
        assert_pending!(poll_once(&mut receiving).await);
        log.send("closes".into()).unwrap();
        assert_eq!(word(receiving.await.unwrap()), "close 1001");
        assert!(receiver.next().await.is_none());
        sending.await.unwrap();
        assert_ne!(stop.clip(GRACE), Duration::ZERO);
        log.send("ended before the deadline".into()).unwrap();
    })
    .await;
    let mut peer = connect(&server).await;
    turns().await;

    server.begin_stop().await;

    assert_eq!(next(&mut logged).await, "closes");
    let (head, payload) = receive(&mut peer).await;
    assert_eq!((head, payload.len()), (BINARY, LARGE));
    assert_eq!(next(&mut logged).await, "sent");
    is_away(&receive(&mut peer).await);
    send(&mut peer, CLOSE, b"\x03\xe9").await;
    assert_eq!(next(&mut logged).await, "ended before the deadline");
    is_at_end(&mut peer).await;
    is_clean(server).await;
}

#[tokio::test]
async fn r10_a_half_that_sends_ends_when_the_other_one_has_seen_the_end() {
    let (server, mut logged) = serve(async |socket: WebSocket, stop, log: Log| {
        let (mut sender, mut receiver) = socket.split();
        let sending = tokio::spawn(async move {
            sender.send(vec![0; LARGE].into()).await.unwrap_err();
        });
        assert_eq!(word(receiver.next().await.unwrap()), "close 1001");
        // The sending half has looked before, and waits again.
        turns().await;
        assert!(receiver.next().await.is_none());
        sending.await.unwrap();
        assert_ne!(stop.clip(GRACE), Duration::ZERO);
        log.send("ended before the deadline".into()).unwrap();
    })
    .await;
    let mut peer = connect(&server).await;
    turns().await;

    server.begin_stop().await;
    send(&mut peer, CLOSE, b"\x03\xe9").await;

    assert_eq!(next(&mut logged).await, "ended before the deadline");
    is_clean(server).await;
}

#[tokio::test]
async fn r10_sending_after_the_stop_is_an_error_and_sends_the_close() {
    let (server, mut logged) = serve(async |mut socket: WebSocket, stop, log| {
        stop.stopping().await;
        for _ in 0..2 {
            let error = socket.send("more".into()).await.unwrap_err();
            log.send(error.to_string()).unwrap();
        }
    })
    .await;
    let mut peer = connect(&server).await;

    server.token.cancel();

    is_away(&receive(&mut peer).await);
    is_at_end(&mut peer).await;
    for _ in 0..2 {
        let error = "the websocket was closed: the server is shutting down";
        assert_eq!(next(&mut logged).await, error);
    }
    is_clean(server).await;
}

#[tokio::test]
async fn r10_receiving_can_be_given_up_at_any_time_and_nothing_is_lost() {
    let (server, mut logged) = serve(async |mut socket: WebSocket, _stop, log: Log| {
        loop {
            tokio::select! {
                biased;
                message = socket.recv() => match message {
                    Some(message) => log.send(word(message)).unwrap(),
                    None => break,
                },
                () = yield_now() => {}
            }
        }
        log.send("none".into()).unwrap();
    })
    .await;
    let mut peer = connect(&server).await;
    // In two pieces, with many futures between them.
    let hello = frame(TEXT, b"hello");
    let (half, rest) = hello.split_at(4);
    peer.write_all(half).await.unwrap();
    turns().await;
    peer.write_all(rest).await.unwrap();
    assert_eq!(next(&mut logged).await, "hello");

    server.begin_stop().await;

    is_away(&receive(&mut peer).await);
    turns().await;
    send(&mut peer, TEXT, b"late").await;
    send(&mut peer, CLOSE, b"\x03\xe9").await;
    is_at_end(&mut peer).await;
    for expected in ["late", "close 1001", "none"] {
        assert_eq!(next(&mut logged).await, expected);
    }
    is_clean(server).await;
}

#[tokio::test]
async fn r10_a_websocket_that_is_made_after_the_stop_begins_with_the_close() {
    let app = Router::new().route(
        "/ws",
        any(async |upgrade: WebSocketUpgrade| {
            upgrade.on_upgrade(async |socket| {
                let mut socket = WebSocket::new(socket, Stop::begun(GRACE));
                while socket.recv().await.is_some() {}
            })
        }),
    );
    let server = Server::start(app, |serve| serve).await;
    let mut peer = connect(&server).await;

    is_away(&receive(&mut peer).await);
    send(&mut peer, CLOSE, b"\x03\xe9").await;
    is_at_end(&mut peer).await;
}

#[tokio::test]
async fn a_websocket_that_is_dropped_ends_its_stream_without_a_close() {
    let (server, _) = serve(async |socket, _stop, _log| drop(socket)).await;
    let mut peer = connect(&server).await;

    is_at_end(&mut peer).await;
}

#[test]
fn a_websocket_can_be_sent_and_says_where_it_is() {
    fn is_send<T: Send + Unpin + std::fmt::Debug>() {}
    is_send::<WebSocket>();
}
