//! Stops in which something has to be cut.

use std::future::poll_fn;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::routing::{any, get};
use taskgroup::process::ExitPolicy;
use taskgroup::server::Stop;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::peers::{
    Ticks, endless, get_over_http2, http2, read_to_end, read_until, request, send, websocket,
    websocket_over_http2,
};
use crate::support::alive::Alive;
use crate::support::server::{NO_TIME, SHORT, Server};
use crate::support::wait::soon;

#[tokio::test]
async fn r2_r4_r6_r11_many_kinds_of_bad_peers_at_once_are_cut_and_counted() {
    let alive = Alive::default();
    let server = Server::start(endless(&alive), |serve| serve.grace(SHORT)).await;
    let address = server.address;
    let half_body = request(address, "POST /upload HTTP/1.1\r\ncontent-length: 9").await;
    let pipelined = "GET /poll HTTP/1.1\r\nhost: test\r\n\r\n".repeat(2);
    let pipelined = send(address, &pipelined).await;
    let _events = request(address, "GET /events HTTP/1.1").await;
    let _echo = websocket(address).await;
    server.settle().await;
    alive.reaches(3).await;

    let (outcome, report) = server.stop().await;

    let error = outcome.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(error.drain_report(), Some(&report));
    assert_eq!(report.requests_cut(), 3);
    assert_eq!(report.connections_cut(), 3);
    assert_eq!(report.upgrades_cut(), 1);
    let mut paths = report.paths().to_vec();
    paths.sort();
    assert_eq!(paths, ["GET /events", "GET /poll", "POST /upload"]);
    assert!(
        format!("{error:#}").starts_with(
            "server `http` was given 300ms to drain: 3 requests on 3 connections were cut ("
        ),
        "{error}"
    );
    for stuck in [half_body, pipelined] {
        let answer = read_to_end(stuck).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        assert!(
            answer.ends_with("the server is shutting down\n"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn r9_a_websocket_over_http2_is_not_idle_and_is_cut_at_the_deadline() {
    let alive = Alive::default();
    let server = Server::start(endless(&alive), |serve| {
        serve.grace(SHORT).idle_grace(NO_TIME)
    })
    .await;
    let (_output, mut input) = websocket_over_http2(server.address).await;

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(report.requests_at_stop(), 0);
    assert_eq!(report.upgrades_cut(), 1);
    assert_eq!(report.idle_cut(), 0);
    alive.reaches(0).await;
    assert!(
        soon(poll_fn(|cx| input.poll_data(cx)))
            .await
            .is_none_or(|end| end.is_err())
    );
}

#[tokio::test]
async fn r9_an_answer_that_is_not_taken_is_not_idle() {
    // Hyper takes all of it at once, and is rid of the body before the client has read a byte.
    let large = "x".repeat(16 << 20);
    let app = Router::new()
        .route("/", get(async || "hello"))
        .route("/large", get(async move || large));
    let server = Server::start(app, |serve| serve.grace(SHORT).idle_grace(NO_TIME)).await;
    let mut client = request(server.address, "GET /large HTTP/1.1").await;
    soon(client.read_u8()).await.unwrap();
    server.settle().await;

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(report.connections_cut(), 1);
    assert_eq!(report.idle_cut(), 0);
    assert_eq!(report.stuck(), 0);
}

#[tokio::test]
async fn r4_only_requests_that_are_in_flight_are_named() {
    let alive = Alive::default();
    let app = endless(&alive).route(
        "/yields",
        get(async || {
            tokio::task::yield_now().await;
            "yielded"
        }),
    );
    let server = Server::start(app, |serve| serve.grace(SHORT)).await;
    let mut client = request(server.address, "GET /yields HTTP/1.1").await;
    read_until(&mut client, "yielded").await;
    let poll = b"POST /yields/not HTTP/1.1\r\nhost: test\r\n\r\nGET /poll?key=x HTTP/1.1\r\nhost: test\r\n\r\n";
    client.write_all(poll).await.unwrap();
    alive.reaches(1).await;

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(report.paths(), ["GET /poll"]);
}

#[tokio::test]
async fn a_lenient_server_logs_what_it_has_cut_and_succeeds() {
    let alive = Alive::default();
    let server = Server::start(endless(&alive), |serve| serve.grace(SHORT).lenient()).await;
    let client = request(server.address, "GET /poll HTTP/1.1").await;
    alive.reaches(1).await;

    let (outcome, report) = server.stop().await;

    outcome.unwrap();
    assert_eq!(report.requests_cut(), 1);
    assert!(read_to_end(client).await.starts_with("HTTP/1.1 503"));
}

#[tokio::test]
async fn r4_a_cut_is_a_timeout_to_an_exit_policy() {
    let alive = Alive::default();
    let server = Server::start(endless(&alive), |serve| serve.grace(NO_TIME)).await;
    let _client = request(server.address, "GET /poll HTTP/1.1").await;
    alive.reaches(1).await;

    let (outcome, _) = server.stop().await;

    let result: Result<(), taskgroup::BoxError> = outcome.map_err(Into::into);
    let exit = ExitPolicy::strict().failed(1).timed_out(2).exit(result);
    assert_eq!(exit.code(), 2);
}

#[tokio::test]
async fn a_grace_of_zero_cuts_at_once() {
    let alive = Alive::default();
    let server = Server::start(endless(&alive), |serve| serve.grace(Duration::ZERO)).await;
    let _client = request(server.address, "GET /poll HTTP/1.1").await;
    alive.reaches(1).await;

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(report.requests_cut(), 1);
    assert_eq!(alive.count(), 0);
}

#[tokio::test]
async fn r21_a_websocket_that_is_cut_is_not_stuck_with_the_shortest_kill_grace() {
    let alive = Alive::default();
    let server = Server::start(endless(&alive), |serve| {
        serve.grace(NO_TIME).kill_grace(Duration::from_millis(10))
    })
    .await;
    let client = websocket(server.address).await;

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(report.upgrades_cut(), 1);
    assert_eq!(report.stuck(), 0);
    assert_eq!(read_to_end(client).await, "");
}

/// How a stream ends for whom it is cut, and with what a handler is replaced: over HTTP/2, asked for as
/// `kind`.
async fn cut_over_http2(kind: &str) -> (Result<Option<HeaderMap>, h2::Error>, Parts) {
    let alive = Alive::default();
    let ticks = any(async || {
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(()).unwrap();
        tokio::spawn(async move { sender.closed().await });
        Body::new(Ticks {
            receiver,
            _guard: None,
        })
    });
    let hangs = any({
        let alive = alive.clone();
        async move || {
            let _guard = alive.guard();
            std::future::pending::<&str>().await
        }
    });
    let app = Router::new().route("/ticks", ticks).route("/hangs", hangs);
    let server = Server::start(app, |serve| serve.grace(SHORT)).await;
    let mut sender = http2(server.address).await;
    let mut ask = |path: &str| {
        let mut request = get_over_http2(path);
        *request.method_mut() = Method::POST;
        let kind = HeaderValue::from_str(kind).unwrap();
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        sender.send_request(request, true).unwrap().0
    };
    let (ticks, hangs) = (ask("/ticks"), ask("/hangs"));
    let mut ticks = soon(ticks).await.unwrap().into_body();
    assert_eq!(soon(ticks.data()).await.unwrap().unwrap(), "tick");
    alive.reaches(1).await;

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(report.requests_cut(), 2);
    let instead = soon(hangs).await.unwrap().into_parts().0;
    let end = match soon(ticks.data()).await {
        Some(Ok(data)) => panic!("{data:?}"),
        Some(Err(error)) => Err(error),
        None => soon(ticks.trailers()).await,
    };
    (end, instead)
}

#[tokio::test]
async fn r11_grpc_is_cut_with_a_status() {
    let (end, instead) = cut_over_http2("application/grpc+proto").await;

    assert_eq!(end.unwrap().unwrap()["grpc-status"], "14");
    assert_eq!(instead.status, StatusCode::OK);
    assert_eq!(instead.headers["grpc-status"], "14");
}

#[tokio::test]
async fn r11_grpc_web_is_cut_as_a_browser_understands_it() {
    let (end, instead) = cut_over_http2("application/grpc-web+proto").await;

    assert!(end.is_err());
    assert_eq!(instead.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn r21_a_runtime_that_is_blocked_beyond_the_grace_is_never_clean() {
    let (entered, mut is_entered) = mpsc::unbounded_channel();
    let app = Router::new().route(
        "/block",
        get(async move |stop: Stop| {
            entered.send(()).unwrap();
            stop.stopping().await;
            // It blocks the only thread, which is what it is there for.
            std::thread::sleep(2 * SHORT);
            "done"
        }),
    );
    let server = Server::start(app, |serve| serve.grace(SHORT)).await;
    let client = request(server.address, "GET /block HTTP/1.1").await;
    soon(is_entered.recv()).await.unwrap();

    let (outcome, report) = server.stop().await;

    // Nobody was there to cut it, so it was answered.
    assert!(read_to_end(client).await.ends_with("done"));
    assert!(outcome.unwrap_err().is_timed_out());
    assert!(!report.is_clean());
    assert_eq!(report.requests_cut() + report.answered(), 1);
    assert!(report.took() > SHORT);
}

#[test]
fn r21_a_handler_that_blocks_one_of_many_threads_is_stuck() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    let (entered, mut is_entered) = mpsc::unbounded_channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let released = std::sync::Arc::new(released);
    let app = Router::new().route(
        "/block",
        get(async move || {
            entered.send(()).unwrap();
            let _ = released.lock().unwrap().recv();
            "done"
        }),
    );
    runtime.block_on(async {
        let server = Server::start(app, |serve| serve.grace(SHORT).kill_grace(NO_TIME)).await;
        let _client = request(server.address, "GET /block HTTP/1.1").await;
        soon(is_entered.recv()).await.unwrap();

        let (outcome, report) = server.stop().await;

        assert!(outcome.unwrap_err().is_timed_out());
        assert_eq!(report.requests_cut(), 1);
        assert_eq!(report.stuck(), 1);
    });
    drop(release);
}
