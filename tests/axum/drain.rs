//! Stops in which nothing has to be cut.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use h2::client::SendRequest;
use http_body::{Frame, SizeHint};
use taskgroup::server::{Incoming, Stop};
use taskgroup::{SidecarError, TaskGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

use crate::peers::{
    Ticks, endless, get_over_http2, http2, read_to_end, read_until, request, websocket,
};
use crate::support::alive::Alive;
use crate::support::server::{NO_TIME, SHORT, Server};
use crate::support::wait::{PLENTY, is_closed, pass, soon};

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

#[tokio::test]
async fn a_server_on_a_fired_token_takes_what_is_waiting_and_stops() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut group = TaskGroup::<SidecarError>::typed();
    group.cancel();
    let client = request(address, "GET / HTTP/1.1").await;
    group.spawn(taskgroup::server::axum::serve("http", listener, hello()).run(group.token()));

    assert!(read_to_end(client).await.ends_with("hello"));
    soon(group.wait()).await.unwrap();
}

#[tokio::test]
async fn r7_twenty_clients_in_the_accept_queue_are_answered() {
    let server = Server::start(hello(), |serve| serve.max_connections(1).linger(PLENTY)).await;
    server.settle().await;
    // Nothing is awaited from here to the stop, so the server, in the same thread, does not run.
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = std::net::TcpStream::connect(server.address).unwrap();
            let request = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
            client.write_all(request).unwrap();
            client
        })
        .collect();
    server.token.cancel();

    for client in clients {
        client.set_nonblocking(true).unwrap();
        let answer = read_to_end(TcpStream::from_std(client).unwrap()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.connections_at_stop(), 20);
    assert_eq!(report.requests_at_stop(), 0);
    assert_eq!(report.answered(), 20);
}

#[tokio::test]
async fn r7_a_request_on_an_old_connection_within_the_linger_is_answered_and_told_to_close() {
    let server = Server::start(hello(), |serve| serve.linger(PLENTY)).await;
    let mut client = request(server.address, "GET / HTTP/1.1").await;
    let answer = read_until(&mut client, "hello").await;
    assert!(!answer.contains("connection: close"), "{answer}");

    server.begin_stop().await;
    let again = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    client.write_all(again).await.unwrap();

    let answer = read_to_end(client).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    // There is nobody left to linger for.
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.answered(), 1);
}

#[tokio::test]
async fn r4_an_answer_whose_body_is_not_sent_counts_as_well() {
    let server = Server::start(hello(), |serve| serve.linger(PLENTY)).await;
    let mut client = request(server.address, "GET / HTTP/1.1").await;
    read_until(&mut client, "hello").await;
    server.begin_stop().await;
    let head = b"HEAD / HTTP/1.1\r\nhost: test\r\n\r\n";
    client.write_all(head).await.unwrap();

    assert!(read_to_end(client).await.ends_with("\r\n\r\n"));
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.answered(), 1);
}

#[tokio::test]
async fn r8_a_connection_without_a_whole_request_is_cut_after_its_own_grace() {
    let server = Server::start(hello(), |serve| serve.idle_grace(NO_TIME)).await;
    let halves = [
        "GET / HT",
        "GET / HTTP/1.1\r\nhost: te",
        // HTTP/2, by a peer that will not answer.
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    let mut clients = Vec::new();
    for half in halves {
        clients.push(crate::peers::send(server.address, half).await);
    }
    server.settle().await;

    let (outcome, report) = server.stop().await;

    outcome.unwrap();
    assert!(report.is_clean());
    assert_eq!(report.connections_at_stop(), 3);
    assert_eq!(report.idle_cut(), 3);
}

#[tokio::test]
async fn r9_a_request_is_in_flight_until_its_body_has_ended() {
    let (sender, receiver) = mpsc::unbounded_channel();
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let app = hello().route(
        "/events",
        get(async move || {
            let receiver = receiver.lock().await.take().unwrap();
            Body::new(Ticks {
                receiver,
                _guard: None,
            })
        }),
    );
    let server = Server::start(app, |serve| serve.idle_grace(NO_TIME)).await;
    let mut client = request(server.address, "GET /events HTTP/1.1").await;
    sender.send(()).unwrap();
    read_until(&mut client, "tick\r\n").await;

    server.begin_stop().await;
    // More than the idle grace, which does not count for it.
    pass(5 * NO_TIME).await;
    sender.send(()).unwrap();
    read_until(&mut client, "tick\r\n").await;
    drop(sender);

    assert_eq!(read_to_end(client).await, "0\r\n\r\n");
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.requests_at_stop(), 1);
    assert_eq!(report.answered(), 1);
}

/// Answers with two ticks, one of them after the stop, in a body that never comes to its end.
async fn two_ticks(body: impl Fn(Ticks) -> Response + Clone + Send + Sync + 'static) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let app = hello().route(
        "/ticks",
        get(async move || {
            let receiver = receiver.lock().await.take().unwrap();
            body(Ticks {
                receiver,
                _guard: None,
            })
        }),
    );
    let server = Server::start(app, |serve| serve).await;
    let mut client = request(server.address, "GET /ticks HTTP/1.1").await;
    sender.send(()).unwrap();
    read_until(&mut client, "tick").await;

    server.begin_stop().await;
    sender.send(()).unwrap();

    assert_eq!(read_to_end(client).await, "tick");
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.requests_at_stop(), 1);
    assert_eq!(report.answered(), 1);
}

#[tokio::test]
async fn r04_a_stream_with_a_content_length_is_answered_when_that_is_reached() {
    two_ticks(|ticks| ([(header::CONTENT_LENGTH, "8")], Body::new(ticks)).into_response()).await;
}

#[tokio::test]
async fn r04_a_body_that_knows_its_size_is_answered_when_that_is_reached() {
    two_ticks(|ticks| Body::new(Sized(ticks, 8)).into_response()).await;
}

/// A body that knows how much is left of it, and not that nothing is.
struct Sized(Ticks, u64);

impl http_body::Body for Sized {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let tick = Pin::new(&mut self.0).poll_frame(cx);
        if tick.is_ready() {
            self.1 -= 4;
        }
        tick
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.1)
    }
}

#[tokio::test]
async fn r04_a_stream_that_is_cut_before_its_content_length_is_not_answered() {
    let app = hello().route(
        "/ticks",
        get(async || {
            let (sender, receiver) = mpsc::unbounded_channel();
            sender.send(()).unwrap();
            tokio::spawn(async move { sender.closed().await });
            let ticks = Ticks {
                receiver,
                _guard: None,
            };
            ([(header::CONTENT_LENGTH, "8")], Body::new(ticks))
        }),
    );
    let server = Server::start(app, |serve| serve.grace(SHORT)).await;
    let mut client = request(server.address, "GET /ticks HTTP/1.1").await;
    read_until(&mut client, "tick").await;

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(report.answered(), 0);
    assert_eq!(report.requests_cut(), 1);
    assert_eq!(read_to_end(client).await, "");
}

#[tokio::test]
async fn r9_an_upgraded_connection_is_open_until_its_stream_is_dropped() {
    let alive = Alive::default();
    let server = Server::start(endless(&alive), |serve| serve.idle_grace(NO_TIME)).await;
    let mut client = websocket(server.address).await;

    server.begin_stop().await;
    pass(5 * NO_TIME).await;
    client.write_all(b"pong").await.unwrap();
    read_until(&mut client, "pong").await;
    assert!(!server.task.is_finished());
    drop(client);

    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert!(report.is_clean());
    assert_eq!(report.connections_at_stop(), 1);
    assert_eq!(report.requests_at_stop(), 0);
    alive.reaches(0).await;
}

#[tokio::test]
async fn r10_an_event_stream_that_looks_at_the_stop_ends_by_itself() {
    let app = hello().route(
        "/events",
        get(async |stop: Stop| {
            let (sender, receiver) = mpsc::unbounded_channel();
            sender.send(()).unwrap();
            tokio::spawn(async move {
                stop.stopping().await;
                drop(sender);
            });
            Body::new(Ticks {
                receiver,
                _guard: None,
            })
        }),
    );
    let server = Server::start(app, |serve| serve).await;
    let mut client = request(server.address, "GET /events HTTP/1.1").await;
    read_until(&mut client, "tick\r\n").await;

    let (outcome, report) = server.stop().await;

    outcome.unwrap();
    assert_eq!(read_to_end(client).await, "0\r\n\r\n");
    assert_eq!(report.answered(), 1);
    assert_eq!(report.requests_cut(), 0);
}

#[tokio::test]
async fn r28_connect_info_is_that_of_the_client() {
    let app = Router::new().route(
        "/",
        get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string()),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut group = TaskGroup::<SidecarError>::typed();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    group.spawn(taskgroup::server::axum::serve("http", listener, app).run(group.token()));

    let mut client = request(address, "GET / HTTP/1.1\r\nconnection: close").await;
    let me = client.local_addr().unwrap();
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.unwrap();

    assert!(answer.ends_with(&format!("\r\n\r\n{me}")), "{answer}");
    group.cancel();
    soon(group.wait()).await.unwrap();
}

/// The port alone.
#[derive(Clone)]
struct Port(u16);

impl Connected<Incoming<'_>> for Port {
    fn connect_info(incoming: Incoming<'_>) -> Self {
        Self(incoming.remote_addr().socket_addr().unwrap().port())
    }
}

#[tokio::test]
async fn r28_connect_info_of_ones_own_is_that_of_the_client() {
    let app = Router::new().route(
        "/",
        get(async |ConnectInfo(Port(port)): ConnectInfo<Port>| port.to_string()),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut group = TaskGroup::<SidecarError>::typed();
    let app = app.into_make_service_with_connect_info::<Port>();
    group.spawn(taskgroup::server::axum::serve("http", listener, app).run(group.token()));

    let client = request(address, "GET / HTTP/1.1\r\nconnection: close").await;
    let port = client.local_addr().unwrap().port();

    assert!(
        read_to_end(client)
            .await
            .ends_with(&format!("\r\n\r\n{port}"))
    );
    group.cancel();
    soon(group.wait()).await.unwrap();
}

#[tokio::test]
async fn a_handler_and_a_method_router_are_served_as_they_are() {
    use axum::handler::Handler;

    for handler in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let token = taskgroup::CancellationToken::new();
        let server = if handler {
            let app = (async || "hello").with_state(());
            tokio::spawn(taskgroup::server::axum::serve("http", listener, app).run(&token))
        } else {
            let app = get(async || "hello");
            tokio::spawn(taskgroup::server::axum::serve("http", listener, app).run(&token))
        };

        let client = request(address, "GET / HTTP/1.1\r\nconnection: close").await;

        assert!(read_to_end(client).await.ends_with("hello"));
        token.cancel();
        soon(server).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn r13_the_service_is_not_ready_and_alive_from_the_first_moment_of_the_stop() {
    let token = taskgroup::CancellationToken::new();
    let readiness = taskgroup::lifecycle::Readiness::drain_on(&token);
    readiness.set_ready();
    let app = hello().merge(readiness.routes());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = taskgroup::server::axum::serve("http", listener, app).linger(PLENTY / 2);
    let server = tokio::spawn(server.run(&token));
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = request(address, "GET /readyz HTTP/1.1").await;
        read_until(&mut client, "ready").await;
        clients.push(client);
    }

    token.cancel();
    let paths = [("/readyz", "HTTP/1.1 503"), ("/livez", "HTTP/1.1 200")];
    for (mut client, (path, status)) in clients.into_iter().zip(paths) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = read_to_end(client).await;
        assert!(answer.starts_with(status), "{answer}");
    }
    soon(server).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_on_several_listeners_takes_what_is_waiting_on_each_of_them() {
    let more = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = more.local_addr().unwrap();
    let server = Server::start(hello(), |serve| serve.also_on(more).linger(PLENTY)).await;
    for address in [server.address, other, other, server.address] {
        let client = request(address, "GET / HTTP/1.1\r\nconnection: close").await;
        assert!(read_to_end(client).await.ends_with("hello"));
    }
    let mut clients = Vec::new();
    for address in [server.address, other] {
        // The server, in the same thread, does not run until the stop.
        let mut client = std::net::TcpStream::connect(address).unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            .unwrap();
        clients.push(client);
    }
    server.token.cancel();

    for client in clients {
        client.set_nonblocking(true).unwrap();
        let client = TcpStream::from_std(client).unwrap();
        assert!(read_to_end(client).await.ends_with("hello"));
    }
    is_closed(other).await;
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.connections_at_stop(), 2);
    assert_eq!(report.answered(), 2);
}

#[tokio::test]
async fn a_socket_that_somebody_else_holds_too_can_be_connected_to_after_the_stop() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    // As systemd does, and as a process that hands a socket on to the next one does.
    let kept = TcpListener::from_std(listener.try_clone().unwrap()).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let token = taskgroup::CancellationToken::new();
    token.cancel();

    let http = taskgroup::server::axum::serve("http", listener, hello());
    soon(http.run(&token)).await.unwrap();

    let client = soon(TcpStream::connect(address)).await.unwrap();
    let (_, peer) = soon(kept.accept()).await.unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}

#[tokio::test]
async fn a_server_that_is_dropped_in_its_last_call_leaves_the_socket_as_it_was() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let kept = TcpListener::from_std(listener.try_clone().unwrap()).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let token = taskgroup::CancellationToken::new();
    token.cancel();

    let http = taskgroup::server::axum::serve("http", listener, hello());
    // By hand: a timer may be late, and the last call over by then.
    let mut http = tokio_test::task::spawn(http.run(&token));
    tokio_test::assert_pending!(http.poll());
    drop(http);

    let client = soon(TcpStream::connect(address)).await.unwrap();
    let (_, peer) = soon(kept.accept()).await.unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}

#[tokio::test]
async fn a_handler_that_cancels_the_token_of_its_stop_does_not_stop_the_server() {
    let app = hello().route("/cancel", get(async |stop: Stop| stop.token().cancel()));
    let server = Server::start(app, |serve| serve).await;
    let client = request(server.address, "GET /cancel HTTP/1.1\r\nconnection: close").await;
    assert!(read_to_end(client).await.starts_with("HTTP/1.1 200"));
    // More than the last call of a socket.
    pass(NO_TIME).await;

    let client = request(server.address, "GET / HTTP/1.1\r\nconnection: close").await;

    assert!(read_to_end(client).await.ends_with("hello"));
    let (outcome, report) = server.stop().await;
    outcome.unwrap();
    assert!(report.is_clean());
}

#[tokio::test]
async fn r9_an_answer_over_http2_that_is_taken_slowly_is_not_idle() {
    const LENGTH: usize = 1 << 20;
    let app = hello().route("/large", get(async || vec![b'x'; LENGTH]));
    let server = Server::start(app, |serve| serve.idle_grace(SHORT)).await;
    let mut sender = http2(server.address).await;
    // Hyper hands all of it to h2 at once, and is rid of the body.
    let (answer, _) = sender.send_request(get_over_http2("/large"), true).unwrap();
    let mut body = soon(answer).await.unwrap().into_body();
    server.begin_stop().await;

    let mut length = 0;
    while let Some(data) = soon(body.data()).await {
        let data = data.unwrap();
        length += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
        // As a whole more than the linger and the idle grace together.
        pass(NO_TIME).await;
    }

    assert_eq!(length, LENGTH);
    drop(sender);
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.idle_cut(), 0);
}

/// Answers `/page` with what is worth to be followed until its peer has taken it.
fn page() -> Router {
    Router::new().route("/page", get(async || vec![b'x'; 2048]))
}

/// A client over HTTP/2 that lets nothing but the beginning of an answer through.
async fn with_a_window_of(size: u32, address: SocketAddr) -> SendRequest<Bytes> {
    let client = TcpStream::connect(address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let handshake = builder.initial_window_size(size).handshake(client);
    let (sender, connection) = soon(handshake).await.unwrap();
    tokio::spawn(connection);
    soon(sender.ready()).await.unwrap()
}

#[tokio::test]
async fn r09_an_answer_over_http2_that_is_not_taken_is_not_idle_and_is_cut_at_the_deadline() {
    let server = Server::start(page(), |serve| serve.grace(SHORT).idle_grace(NO_TIME)).await;
    let mut sender = with_a_window_of(2, server.address).await;
    let request = get_over_http2("/page");
    let (answer, _) = sender.send_request(request, true).unwrap();
    let mut body = soon(answer).await.unwrap().into_body();
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), "xx");

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(report.idle_cut(), 0);
    assert_eq!(report.connections_cut(), 1);
    assert_eq!(report.stuck(), 0);
    assert!(soon(body.data()).await.unwrap().is_err());
}

#[tokio::test]
async fn r09_an_answer_over_http2_that_is_taken_in_the_end_is_whole() {
    let server = Server::start(page(), |serve| serve.idle_grace(NO_TIME)).await;
    let mut sender = with_a_window_of(1000, server.address).await;
    let request = get_over_http2("/page");
    let (answer, _) = sender.send_request(request, true).unwrap();
    let mut body = soon(answer).await.unwrap().into_body();
    assert_eq!(soon(body.data()).await.unwrap().unwrap().len(), 1000);
    server.begin_stop().await;

    // More than the idle grace, which does not count for it.
    pass(10 * NO_TIME).await;
    let mut rest = Vec::new();
    body.flow_control().release_capacity(1000).unwrap();
    while let Some(data) = soon(body.data()).await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        rest.extend_from_slice(&data);
    }

    assert_eq!(rest.len(), 1048);
    drop((sender, body));
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert!(report.is_clean());
    assert_eq!(report.idle_cut(), 0);
}
