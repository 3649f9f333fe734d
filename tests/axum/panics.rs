//! Handlers and bodies that panic.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::routing::get;
use http_body::Frame;
use taskgroup::Stop;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::support::{
    PLENTY, Server, get_over_http2, http2, read_to_end, read_until, request, soon, turns,
};

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
