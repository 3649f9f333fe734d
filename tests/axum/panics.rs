//! Handlers and bodies that panic.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use http_body::Frame;
use taskgroup::CancellationToken;
use taskgroup::server::axum::App;
use taskgroup::server::{Incoming, Serve, Stop};
use taskgroup::testing::Leaks;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tower_service::Service;

use crate::peers::{get_over_http2, http2, read_to_end, read_until, request};
use crate::support::server::Server;
use crate::support::wait::{PLENTY, soon, turns};

/// A body that says `tick`, waits until that is on its way, and then panics.
#[derive(Default)]
struct Bomb {
    polls: u32,
}

impl http_body::Body for Bomb {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.polls += 1;
        match self.polls {
            1 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"tick"))))),
            2 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => std::panic::resume_unwind(Box::new("no hook")),
        }
    }
}

fn app() -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .route(
            "/panic",
            get(async || -> &str { std::panic::resume_unwind(Box::new("no hook")) }),
        )
        .route("/bomb", get(async || Body::new(Bomb::default())))
}

/// One that answers when the stop begins, and tells when it is there.
fn slow() -> (Router, mpsc::UnboundedReceiver<()>) {
    let (entered, is_entered) = mpsc::unbounded_channel();
    let slow = async move |stop: Stop| {
        entered.send(()).unwrap();
        stop.stopping().await;
        "done"
    };
    (app().route("/slow", get(slow)), is_entered)
}

#[tokio::test]
async fn r20_panics_of_handlers_and_bodies_leave_the_counts_of_a_clean_drain_exact() {
    let (app, mut is_entered) = slow();
    let server = Server::start(app, |serve| serve).await;
    let client = request(server.address, "GET /panic HTTP/1.1").await;
    assert_eq!(read_to_end(client).await, "");
    let client = request(server.address, "GET /bomb HTTP/1.1").await;
    assert!(read_to_end(client).await.ends_with("tick\r\n"));
    // A stream that panics is reset, and its siblings are not.
    let mut sender = http2(server.address).await;
    let (slow, _) = sender.send_request(get_over_http2("/slow"), true).unwrap();
    soon(is_entered.recv()).await.unwrap();
    let (panics, _) = sender.send_request(get_over_http2("/panic"), true).unwrap();
    assert!(soon(panics).await.unwrap_err().is_reset());
    let (bomb, _) = sender.send_request(get_over_http2("/bomb"), true).unwrap();
    let mut bomb = soon(bomb).await.unwrap().into_body();
    while let Some(Ok(_)) = soon(bomb.data()).await {}
    server.settle().await;

    let (outcome, report) = server.stop().await;

    outcome.unwrap();
    assert_eq!(soon(slow).await.unwrap().status(), StatusCode::OK);
    assert!(report.is_clean());
    assert_eq!(report.connections_at_stop(), 1);
    assert_eq!(report.requests_at_stop(), 1);
    assert_eq!(report.answered(), 1);
    assert_eq!(report.panicked(), 4);
    assert!(
        report
            .to_string()
            .ends_with("1 request answered, 4 panics since its start")
    );
}

#[tokio::test]
async fn r20_a_panic_that_is_caught_is_a_500_and_its_connection_lives() {
    let (app, mut is_entered) = slow();
    let server = Server::start(app, |serve| serve.catch_panics().grace(PLENTY)).await;
    let mut client = request(server.address, "GET /panic HTTP/1.1").await;
    let answer = read_until(&mut client, "internal server error\n").await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    let slow = b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n";
    client.write_all(slow).await.unwrap();
    soon(is_entered.recv()).await.unwrap();
    let mut sender = http2(server.address).await;
    let (panics, _) = sender.send_request(get_over_http2("/panic"), true).unwrap();
    let status = soon(panics).await.unwrap().status();
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let (hello, _) = sender.send_request(get_over_http2("/"), true).unwrap();
    assert_eq!(soon(hello).await.unwrap().status(), StatusCode::OK);
    // What has begun cannot be taken back; it must not look whole.
    let bomb = request(server.address, "GET /bomb HTTP/1.1").await;
    let answer = read_to_end(bomb).await;
    assert!(answer.ends_with("tick\r\n"), "{answer}");
    turns().await;

    let (outcome, report) = server.stop().await;

    outcome.unwrap();
    assert!(read_to_end(client).await.ends_with("done"));
    assert_eq!(report.connections_at_stop(), 2);
    assert_eq!(report.requests_at_stop(), 1);
    assert_eq!(report.answered(), 1);
    assert_eq!(report.panicked(), 3);
}

/// Panics when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("no hook"));
    }
}

/// A body that says `tick` and nothing more, and panics when it is dropped.
struct Armed {
    _grenade: Grenade,
    ticked: bool,
}

impl http_body::Body for Armed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ticked {
            return Poll::Pending;
        }
        self.ticked = true;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"tick")))))
    }
}

/// How many panics a server has counted whose clients have left a handler and a body that panic for it,
/// over HTTP/1 and HTTP/2.
async fn after_the_clients_have_left(
    options: impl FnOnce(Serve<App<Router, Router>>) -> Serve<App<Router, Router>>,
) -> usize {
    let (entered, mut is_entered) = mpsc::unbounded_channel();
    let app = app()
        .route(
            "/handler",
            get(async move || {
                let _grenade = Grenade;
                entered.send(()).unwrap();
                std::future::pending::<&str>().await
            }),
        )
        .route(
            "/body",
            get(async || {
                Body::new(Armed {
                    _grenade: Grenade,
                    ticked: false,
                })
            }),
        );
    let server = Server::start(app, options).await;
    server.settle().await;
    turns().await;
    let leaks = Leaks::watch();
    let handler = request(server.address, "GET /handler HTTP/1.1").await;
    soon(is_entered.recv()).await.unwrap();
    let mut body = request(server.address, "GET /body HTTP/1.1").await;
    read_until(&mut body, "tick\r\n").await;
    let mut sender = http2(server.address).await;
    let (over_http2, stream) = sender
        .send_request(get_over_http2("/handler"), true)
        .unwrap();
    soon(is_entered.recv()).await.unwrap();
    let (body_over_http2, _) = sender.send_request(get_over_http2("/body"), true).unwrap();
    let body_over_http2 = soon(body_over_http2).await.unwrap().into_body();

    drop((handler, body, over_http2, stream, body_over_http2, sender));
    leaks.check().await;

    let (outcome, report) = server.stop().await;
    outcome.unwrap();
    assert_eq!(report.requests_at_stop(), 0);
    report.panicked()
}

#[tokio::test]
async fn r20_a_destructor_that_panics_when_its_client_has_left_is_counted() {
    assert_eq!(after_the_clients_have_left(|serve| serve).await, 4);
}

#[tokio::test]
async fn r20_a_destructor_that_panics_when_its_client_has_left_is_caught() {
    let panicked = after_the_clients_have_left(|serve| serve.catch_panics()).await;
    assert_eq!(panicked, 4);
}

/// A service that panics when it is asked whether it is ready.
#[derive(Clone)]
struct Unready;

impl Service<Request> for Unready {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        std::panic::resume_unwind(Box::new("no hook"))
    }

    fn call(&mut self, _request: Request) -> Self::Future {
        ready(Ok(Response::default()))
    }
}

impl Service<Incoming<'_>> for Unready {
    type Response = Self;
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _incoming: Incoming<'_>) -> Self::Future {
        ready(Ok(Self))
    }
}

/// The answer of a service that panics when it is asked, and the panics counted.
async fn unready(
    options: impl FnOnce(Serve<App<Unready, Unready>>) -> Serve<App<Unready, Unready>>,
) -> (String, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let (sender, report) = oneshot::channel();
    let serve = taskgroup::server::axum::serve("http", listener, Unready)
        .on_report(|report| sender.send(report.panicked()).unwrap());
    let server = tokio::spawn(options(serve).run(&token));
    let client = request(address, "GET / HTTP/1.1\r\nconnection: close").await;
    let answer = read_to_end(client).await;
    token.cancel();
    soon(server).await.unwrap().unwrap();
    (answer, report.await.unwrap())
}

#[tokio::test]
async fn r20_a_service_that_panics_when_it_is_asked_whether_it_is_ready_is_counted() {
    assert_eq!(unready(|serve| serve).await, (String::new(), 1));
}

#[tokio::test]
async fn r20_a_service_that_panics_when_it_is_asked_whether_it_is_ready_is_caught() {
    let (answer, panicked) = unready(|serve| serve.catch_panics()).await;

    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert_eq!(panicked, 1);
}
