//! R5: any tower service, and custom loops.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::http::{Request, Response};
use axum::routing::get;
use hyper::body::Incoming as Body;
use hyper_util::rt::TokioIo;
use taskgroup::CancellationToken;
use taskgroup::server::{
    Acceptor, DrainReport, Incoming, Io, Stop, Transport, serve_each, serve_loop,
};
use taskgroup::testing::Leaks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::PollSemaphore;
use tower_service::Service;

use crate::peers::{
    endless, get_over_http2, http2, read_to_end, read_until, request, send, websocket,
};
use crate::support::alive::Alive;
use crate::support::server::{NO_TIME, SHORT};
use crate::support::wait::{PLENTY, pass, soon, turns};

#[tokio::test]
async fn r5_a_tower_service_is_drained_counted_and_cut() {
    let alive = Alive::default();
    let leaks = Leaks::watch();
    let app = endless(&alive);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let (sender, report) = oneshot::channel::<DrainReport>();
    let server = taskgroup::serve("own", listener, app)
        .grace(SHORT)
        .idle_grace(NO_TIME)
        .linger(NO_TIME)
        .on_report(move |report| sender.send(report.clone()).unwrap());
    let server = tokio::spawn(server.run(&token));

    let mut idle = request(address, "GET / HTTP/1.1").await;
    read_until(&mut idle, "hello").await;
    let half = send(address, "GET / HTTP/1.1\r\nhost: te").await;
    let poll = request(address, "GET /poll HTTP/1.1").await;
    let flood = request(address, "GET /flood HTTP/1.1").await;
    let echo = websocket(address).await;
    alive.reaches(3).await;
    turns().await;
    token.cancel();

    let error = soon(server).await.unwrap().unwrap_err();
    assert!(error.is_timed_out());
    let report = report.await.unwrap();
    assert_eq!(report.connections_at_stop(), 5);
    assert_eq!(report.requests_at_stop(), 2);
    assert_eq!(report.requests_cut(), 2);
    assert_eq!(report.connections_cut(), 2);
    assert_eq!(report.upgrades_cut(), 1);
    assert_eq!(report.idle_cut(), 1);
    assert_eq!(report.stuck(), 0);
    assert_eq!(alive.count(), 0);
    assert!(read_to_end(poll).await.starts_with("HTTP/1.1 503"));
    for closed in [idle, half, echo] {
        assert_eq!(read_to_end(closed).await, "");
    }
    drop(flood);
    leaks.check().await;
}

#[tokio::test]
async fn r19_a_loop_that_ends_by_itself_is_a_failure_and_leaves_nothing() {
    for fails in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let held = Arc::new(tokio::sync::Mutex::new(None));
        let io = Arc::clone(&held);
        let server = serve_loop("own", listener, async move |mut acceptor: Acceptor, _| {
            *io.lock().await = Some(acceptor.accept().await);
            match fails {
                true => Err("the loop broke".into()),
                false => Ok(()),
            }
        });
        let token = CancellationToken::new();
        let server = tokio::spawn(server.run(&token));
        let client = TcpStream::connect(address).await.unwrap();

        let error = soon(server).await.unwrap().unwrap_err();

        assert!(!error.is_timed_out());
        assert_eq!(format!("{error:#}").contains("the loop broke"), fails);
        // The stream that is still held by somebody is cut.
        let (mut io, _) = held.lock().await.take().unwrap();
        let mut byte = [0];
        let read = AsyncReadExt::read(&mut io, &mut byte).await;
        assert_eq!(
            read.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionAborted
        );
        drop(io);
        assert_eq!(read_to_end(client).await, "");
    }
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_does_not_end_when_it_is_told_is_not_a_success() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token = CancellationToken::new();
    token.cancel();

    let outcome = serve_loop("deaf", listener, async |mut acceptor, _stop| {
        loop {
            acceptor.accept().await;
        }
    })
    .run(&token)
    .await;

    assert!(outcome.unwrap_err().is_timed_out());
}

/// Lets one request in at a time, as the limits of tower do.
struct OneAtATime<S> {
    service: S,
    turns: PollSemaphore,
    turn: Option<OwnedSemaphorePermit>,
}

impl<S: Clone> Clone for OneAtATime<S> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            turns: self.turns.clone(),
            turn: None,
        }
    }
}

impl<A, S> Service<A> for OneAtATime<S>
where
    S: Service<A, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.turn.is_none() {
            self.turn = ready!(self.turns.poll_acquire(cx));
        }
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: A) -> Self::Future {
        let turn = self.turn.take().unwrap();
        let answer = self.service.call(request);
        Box::pin(async move {
            let _turn = turn;
            answer.await
        })
    }
}

#[tokio::test]
async fn r8_a_request_that_waits_for_its_turn_is_not_idle() {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let app = Router::new().route("/", {
        let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
        get(async move || {
            entered.notify_one();
            release.notified().await;
            "hello"
        })
    });
    let app = OneAtATime {
        service: app,
        turns: PollSemaphore::new(Arc::new(Semaphore::new(1))),
        turn: None,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let server = taskgroup::serve("own", listener, app)
        .grace(PLENTY)
        .idle_grace(NO_TIME)
        .linger(NO_TIME);
    let server = tokio::spawn(server.run(&token));
    let first = request(address, "GET / HTTP/1.1").await;
    soon(entered.notified()).await;
    let second = request(address, "GET / HTTP/1.1").await;
    turns().await;

    token.cancel();
    // More than the linger and the idle grace together.
    pass(20 * NO_TIME).await;
    release.notify_one();
    assert!(read_to_end(first).await.ends_with("hello"));
    release.notify_one();

    assert!(read_to_end(second).await.ends_with("hello"));
    soon(server).await.unwrap().unwrap();
}

#[tokio::test]
async fn r6_a_request_that_waits_for_its_turn_is_cut_in_words() {
    let alive = Alive::default();
    let app = OneAtATime {
        service: endless(&alive),
        turns: PollSemaphore::new(Arc::new(Semaphore::new(1))),
        turn: None,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let server = taskgroup::serve("own", listener, app)
        .grace(SHORT)
        .linger(NO_TIME);
    let server = tokio::spawn(server.run(&token));
    let first = request(address, "GET /poll HTTP/1.1").await;
    alive.reaches(1).await;
    // With another one behind it, which keeps hyper from looking at the stream.
    let both = "GET / HTTP/1.1\r\nhost: test\r\n\r\n".repeat(2);
    let second = send(address, &both).await;
    turns().await;

    token.cancel();

    let error = soon(server).await.unwrap().unwrap_err();
    let report = error.drain_report().unwrap();
    assert_eq!(report.requests_cut(), 2);
    assert_eq!(report.stuck(), 0);
    for cut in [first, second] {
        assert!(read_to_end(cut).await.starts_with("HTTP/1.1 503"));
    }
}

#[tokio::test]
async fn r3_nothing_is_left_of_a_loop_that_has_ended_by_itself() {
    let alive = Alive::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let broken = Arc::new(Notify::new());
    let server = serve_loop("own", listener, {
        let (broken, alive) = (Arc::clone(&broken), alive.clone());
        async move |mut acceptor: Acceptor, _stop| {
            let (mut io, _peer) = acceptor.accept().await;
            let guard = alive.guard();
            tokio::spawn(async move {
                let _guard = guard;
                let _ = io.read_u8().await;
            });
            broken.notified().await;
            Err("it broke".into())
        }
    });
    let server = tokio::spawn({
        let (token, alive) = (CancellationToken::new(), alive.clone());
        async move {
            let outcome = server.run(&token).await;
            (outcome, alive.count())
        }
    });
    let client = TcpStream::connect(address).await.unwrap();
    alive.reaches(1).await;

    broken.notify_one();

    let (outcome, left) = soon(server).await.unwrap();
    outcome.unwrap_err();
    assert_eq!(left, 0);
    drop(client);
}

/// A service without a framework: its body is a text, its error one of its own.
#[derive(Clone)]
struct Plain;

impl Service<Request<Body>> for Plain {
    type Response = Response<String>;
    type Error = std::fmt::Error;
    type Future = Ready<Result<Response<String>, std::fmt::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), std::fmt::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let stop = request.extensions().get::<Stop>().is_some();
        ready(match request.uri().path() {
            "/fails" => Err(std::fmt::Error),
            path => Ok(Response::new(format!("{path} {stop}"))),
        })
    }
}

#[tokio::test]
async fn r5_a_service_without_a_framework_is_served_and_its_error_ends_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let server = tokio::spawn(taskgroup::serve("plain", listener, Plain).run(&token));

    let client = request(address, "GET /a HTTP/1.1\r\nconnection: close").await;
    assert!(read_to_end(client).await.ends_with("/a true"));
    let client = request(address, "GET /fails HTTP/1.1").await;
    assert_eq!(read_to_end(client).await, "");

    token.cancel();
    soon(server).await.unwrap().unwrap();
}

#[tokio::test]
async fn r5_a_service_is_made_for_each_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let mut count = 0;
    let server = serve_each("each", listener, move |incoming: Incoming<'_>| {
        count += 1;
        let (count, peer) = (count, incoming.remote_addr().clone());
        Router::new().route("/", get(async move || format!("{count} {peer}")))
    });
    let server = tokio::spawn(server.run(&token));

    for count in 1..=2 {
        let mut client = request(address, "GET / HTTP/1.1").await;
        let me = client.local_addr().unwrap();
        for _ in 0..2 {
            let answer = read_until(&mut client, &me.to_string()).await;
            assert!(
                answer.ends_with(&format!("\r\n\r\n{count} {me}")),
                "{answer}"
            );
            let again = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
            client.write_all(again).await.unwrap();
        }
    }
    token.cancel();
    soon(server).await.unwrap().unwrap();
}

#[tokio::test]
async fn r11_a_head_over_http2_is_cut_without_a_body() {
    let alive = Alive::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let server = taskgroup::serve("own", listener, endless(&alive)).grace(SHORT);
    let server = tokio::spawn(server.run(&token));
    let mut sender = http2(address).await;
    let mut head = get_over_http2("/poll");
    *head.method_mut() = http::Method::HEAD;
    let (answer, _) = sender.send_request(head, true).unwrap();
    alive.reaches(1).await;

    token.cancel();

    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(soon(answer.into_body().data()).await.is_none());
    assert!(soon(server).await.unwrap().unwrap_err().is_timed_out());
}

#[tokio::test]
async fn an_upgraded_stream_gives_its_socket_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let (sender, socket) = oneshot::channel();
    let sender = Arc::new(std::sync::Mutex::new(Some(sender)));
    let app = Router::new().route(
        "/",
        get(async move |request: axum::extract::Request| {
            let sender = sender.lock().unwrap().take().unwrap();
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(request).await.unwrap();
                type Socket = TokioIo<Io<Transport>>;
                let parts =
                    hyper_util::server::conn::auto::upgrade::downcast::<Socket>(upgraded).unwrap();
                let Transport::Tcp(socket) = parts.io.inner().get_ref() else {
                    panic!("it does not speak TLS");
                };
                sender.send(socket.peer_addr().unwrap()).unwrap();
            });
            let headers = [("connection", "upgrade"), ("upgrade", "echo")];
            (http::StatusCode::SWITCHING_PROTOCOLS, headers)
        }),
    );
    let server = tokio::spawn(taskgroup::serve("own", listener, app).run(&token));

    let head = "GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: echo";
    let client = request(address, head).await;

    assert_eq!(soon(socket).await.unwrap(), client.local_addr().unwrap());
    token.cancel();
    soon(server).await.unwrap().unwrap();
}
