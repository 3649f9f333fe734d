//! The report tells the truth.

use std::future::pending;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header;
use axum::routing::{any, get};
use taskgroup::End;
use taskgroup::server::{DrainReport, Serve};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::peers::{endless, get_over_http2, http2, read_until, request};
use crate::support::alive::Alive;
use crate::support::server::{NO_TIME, Outcome, SHORT, Server};
use crate::support::wait::{soon, turns};

/// Blocks its thread until the other end says something.
fn spin(blocked: mpsc::Sender<()>, go: Arc<std::sync::Mutex<mpsc::Receiver<()>>>) -> Router {
    let spin = get(async move || {
        blocked.send(()).unwrap();
        let _ = go.lock().unwrap().recv();
        "over"
    });
    Router::new()
        .route("/", get(async || "hello"))
        .route("/spin", spin)
}

/// Stops a server in which one handler blocks one of several threads.
fn with_a_blocked_handler(over_http2: bool) -> (Outcome, DrainReport) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build()
        .unwrap();
    let (blocked, blocks) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    let app = spin(blocked, Arc::new(std::sync::Mutex::new(gone)));
    let (sender, report) = mpsc::channel();
    let token = taskgroup::CancellationToken::new();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let serve = taskgroup::server::axum::serve("http", listener, app)
        .grace(SHORT)
        .linger(NO_TIME)
        .kill_grace(SHORT)
        .on_report(move |report| sender.send(report.clone()).unwrap());
    let server = runtime.spawn(serve.run(&token));
    let clients = runtime.spawn(async move {
        if over_http2 {
            let mut client = http2(address).await;
            let (spin, _) = client.send_request(get_over_http2("/spin"), true).unwrap();
            let mut client = soon(client.ready()).await.unwrap();
            let (hello, _) = client.send_request(get_over_http2("/"), true).unwrap();
            assert_eq!(soon(hello).await.unwrap().status(), 200);
            let _ = spin.await;
        } else {
            let _client = request(address, "GET /spin HTTP/1.1").await;
            pending::<()>().await;
        }
    });
    blocks.recv_timeout(Duration::from_secs(60)).unwrap();
    token.cancel();
    // This thread does not belong to the runtime.
    let report = report.recv_timeout(Duration::from_secs(60)).unwrap();
    go.send(()).unwrap();
    clients.abort();
    let outcome = runtime.block_on(server).unwrap();
    (outcome, report)
}

#[test]
fn s8_a_handler_that_blocks_its_thread_is_named_by_its_path() {
    for over_http2 in [false, true] {
        let (outcome, report) = with_a_blocked_handler(over_http2);
        assert_eq!(report.stuck(), 1, "{report}");
        assert_eq!(report.unended(), 0, "{report}");
        assert_eq!(report.stuck_paths(), ["GET /spin"]);
        assert_eq!(report.paths(), ["GET /spin"]);
        assert_eq!(outcome.unwrap_err().end(), End::StillRunning);
        let said = "1 handler blocked a thread and did not end (GET /spin)";
        assert!(report.to_string().contains(said), "{report}");
    }
}

#[tokio::test]
async fn s8_what_awaits_for_ever_does_not_block_a_thread() {
    let held = any(async |request: Request| {
        tokio::spawn(async move {
            let _io = hyper::upgrade::on(request).await;
            pending::<()>().await;
        });
        let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "echo")];
        (StatusCode::SWITCHING_PROTOCOLS, headers)
    });
    let app = Router::new()
        .route("/held", held)
        .route("/poll", get(pending::<&str>));
    let options = |serve: Serve<_>| serve.grace(SHORT).kill_grace(NO_TIME);
    let server = Server::start(app, options).await;
    let head = "GET /held HTTP/1.1\r\nconnection: upgrade\r\nupgrade: echo";
    let mut client = request(server.address, head).await;
    read_until(&mut client, "\r\n\r\n").await;
    let _poll = request(server.address, "GET /poll HTTP/1.1").await;
    turns().await;

    let (outcome, report) = server.stop().await;

    assert_eq!((report.stuck(), report.unended()), (0, 1), "{report}");
    assert_eq!((report.requests_cut(), report.upgrades_cut()), (1, 1));
    assert_eq!(outcome.unwrap_err().end(), End::StillRunning);
    let said = report.to_string();
    assert!(said.contains("1 connection did not end"), "{said}");
    assert!(!said.contains("blocked a thread"), "{said}");
}

#[tokio::test]
async fn s8_a_connection_that_is_cut_as_idle_loses_no_request() {
    let entered = Arc::new(Notify::new());
    let app = endless(&Alive::default()).route("/enter", {
        let entered = Arc::clone(&entered);
        get(async move || entered.notify_one())
    });
    let server = Server::start(app, |serve| serve.idle_grace(NO_TIME)).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    let half = crate::peers::send(server.address, "GET /enter HTTP/1.1\r\nhost").await;
    turns().await;

    let (outcome, report) = server.stop().await;

    outcome.unwrap();
    assert_eq!(report.idle_cut(), 1, "{report}");
    assert_eq!((report.requests_cut(), report.connections_cut()), (0, 0));
    assert!(report.paths().is_empty());
    drop((silent, half));
}
