//! Stops in which something has to be cut.

use axum::Router;
use axum::routing::get;
use hyper::body::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tonic::service::Routes;
use tonic::{Code, Status};

use crate::calls::{Calls, call};
use crate::support::server::{NO_TIME, SHORT, Server, patient, read_to_end};
use crate::support::wait::soon;

#[track_caller]
fn assert_told(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(status.message(), "the server is shutting down");
}

#[tokio::test]
async fn r4_r11_calls_and_streams_on_three_connections_are_cut_counted_and_told() {
    let calls = Calls::default();
    let server = Server::start(&calls, |serve| serve.grace(2 * SHORT).idle_grace(NO_TIME)).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    // Two calls on the first connection, one on the second, one that is never read on the third.
    let mut first = server.client().await;
    let watch = soon(first.watch(call("events"))).await;
    let mut watch = watch.unwrap().into_inner();
    soon(watch.message()).await.unwrap().unwrap();
    let hangs = tokio::spawn(async move { first.check(call("hangs")).await });
    let mut second = server.client().await;
    let hangs_too = tokio::spawn(async move { second.check(call("hangs")).await });
    let flood = soon(server.client().await.watch(call("flood")))
        .await
        .unwrap();
    server.settle().await;
    calls.alive.reaches(4).await;

    let (outcome, report) = server.stop().await;

    // Nothing is left, and that is so at once.
    assert_eq!(calls.alive.count(), 0);
    let error = outcome.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(error.drain_report(), Some(&report));
    assert_eq!(report.requests_at_stop(), 4);
    assert_eq!(report.answered(), 0);
    assert_eq!(report.idle_cut(), 1);
    assert_eq!(report.requests_cut(), 4);
    assert_eq!(report.connections_cut(), 3);
    assert_eq!(report.upgrades_cut(), 0);
    assert_eq!(report.stuck(), 0);
    let mut paths = report.paths().to_vec();
    paths.sort();
    let expected = [
        "POST /grpc.health.v1.Health/Check",
        "POST /grpc.health.v1.Health/Watch",
    ];
    assert_eq!(paths, expected);
    assert!(
        format!("{error:#}").starts_with(
            "server `grpc` was given 600ms to drain: 4 requests on 3 connections were cut (POST "
        ),
        "{error}"
    );

    assert_told(&soon(watch.message()).await.unwrap_err());
    assert_told(&soon(hangs).await.unwrap().unwrap_err());
    assert_told(&soon(hangs_too).await.unwrap().unwrap_err());
    read_to_end(silent).await;
    drop(flood);
}

#[tokio::test]
async fn r11_what_is_not_grpc_gets_a_503_and_is_told_to_close() {
    let (entered, entering) = tokio::sync::oneshot::channel();
    let entered = std::sync::Mutex::new(Some(entered));
    let entered = std::sync::Arc::new(entered);
    let app = Router::new().route(
        "/poll",
        get(async move || {
            let entered = entered.lock().unwrap().take().unwrap();
            entered.send(()).unwrap();
            std::future::pending::<&str>().await
        }),
    );
    let server = Server::run(|listener| {
        let serve = taskgroup::server::tonic::serve("web", listener, Routes::from(app));
        patient(serve.accept_http1()).grace(SHORT)
    })
    .await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let request = b"GET /poll HTTP/1.1\r\nhost: test\r\n\r\n";
    client.write_all(request).await.unwrap();
    soon(entering).await.unwrap();

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(report.paths(), ["GET /poll"]);
    let answer = String::from_utf8(read_to_end(client).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn r21_a_runtime_that_is_blocked_beyond_the_grace_is_never_clean() {
    let calls = Calls::default();
    let server = Server::start(&calls, |serve| serve.grace(SHORT)).await;
    let mut client = server.client().await;
    let stalls = tokio::spawn(async move { client.check(call("stalls")).await });
    calls.alive.reaches(1).await;

    let (outcome, report) = server.stop().await;

    // Answered late or cut late: nobody was there to do it in time.
    let _ = soon(stalls).await.unwrap();
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
    let calls = Calls::default();
    let release = calls.block();
    runtime.block_on(async {
        let server = Server::start(&calls, |serve| serve.grace(SHORT).kill_grace(NO_TIME)).await;
        let mut client = server.client().await;
        tokio::spawn(async move { client.check(call("blocks")).await });
        calls.alive.reaches(1).await;

        let (outcome, report) = server.stop().await;

        assert!(outcome.unwrap_err().is_timed_out());
        assert_eq!(report.requests_cut(), 1);
        assert_eq!(report.stuck(), 1);
    });
    drop(release);
}

#[tokio::test]
async fn r09_an_answer_that_is_not_taken_is_not_idle_and_is_cut_at_the_deadline() {
    // The routes of tonic are those of axum: an answer that is worth to be followed until it is taken.
    let page = Router::new().route("/page", get(async || vec![b'x'; 2048]));
    let server = Server::run(|listener| {
        let serve = taskgroup::server::tonic::serve("grpc", listener, Routes::from(page));
        serve.grace(SHORT).idle_grace(NO_TIME)
    })
    .await;
    let client = TcpStream::connect(server.address).await.unwrap();
    // Less than the answer.
    let mut builder = h2::client::Builder::new();
    let handshake = builder.initial_window_size(2).handshake::<_, Bytes>(client);
    let (sender, connection) = soon(handshake).await.unwrap();
    tokio::spawn(connection);
    let mut sender = soon(sender.ready()).await.unwrap();
    let request = hyper::Request::get("http://test/page").body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let mut body = soon(response).await.unwrap().into_body();
    assert_eq!(soon(body.data()).await.unwrap().unwrap().len(), 2);

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(report.idle_cut(), 0);
    assert_eq!(report.connections_cut(), 1);
    assert!(soon(body.data()).await.unwrap().is_err());
}
