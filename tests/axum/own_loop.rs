//! R5: a loop of one's own around hyper, with the parts of the gate.

use std::sync::Arc;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use taskgroup::serve::Acceptor;
use taskgroup::{BoxError, CancellationToken, DrainReport, SidecarError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tower_layer::Layer;

use crate::support::{
    Alive, NO_TIME, SHORT, endless, read_to_end, read_until, request, send, soon, tasks,
    tasks_reach, turns, websocket,
};

/// Its connections are detached tasks: nothing but the gate holds them.
async fn hyper_loop(
    mut acceptor: Acceptor,
    stop: CancellationToken,
    app: Router,
) -> Result<(), BoxError> {
    while let Some((io, _)) = stop.run_until_cancelled(acceptor.accept()).await {
        let service = TowerToHyperService::new(io.layer().layer(app.clone()));
        let stop = stop.clone();
        tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
            tokio::pin!(connection);
            if stop
                .run_until_cancelled(connection.as_mut())
                .await
                .is_none()
            {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        });
    }
    Ok(())
}

#[tokio::test]
async fn r5_a_loop_around_hyper_is_drained_counted_and_cut() {
    let alive = Alive::default();
    let tasks = tasks();
    let app = endless(&alive);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let (sender, report) = oneshot::channel::<DrainReport>();
    let server = taskgroup::serve("own", listener, |acceptor, stop| {
        hyper_loop(acceptor, stop, app)
    })
    .grace(SHORT)
    .idle_grace(NO_TIME)
    .linger(NO_TIME)
    .on_report(move |report| sender.send(report.clone()).unwrap());
    let server = tokio::spawn(server.run::<SidecarError>(&token));

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
    tasks_reach(tasks).await;
}

#[tokio::test]
async fn r19_a_loop_that_ends_by_itself_is_a_failure_and_leaves_nothing() {
    for fails in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let held = Arc::new(tokio::sync::Mutex::new(None));
        let io = Arc::clone(&held);
        let server = taskgroup::serve("own", listener, async move |mut acceptor: Acceptor, _| {
            *io.lock().await = Some(acceptor.accept().await);
            match fails {
                true => Err("the loop broke".into()),
                false => Ok(()),
            }
        });
        let token = CancellationToken::new();
        let server = tokio::spawn(server.run::<SidecarError>(&token));
        let client = TcpStream::connect(address).await.unwrap();

        let error = soon(server).await.unwrap().unwrap_err();

        assert!(!error.is_timed_out());
        assert_eq!(error.to_string().contains("the loop broke"), fails);
        // The stream that is still held by somebody is cut.
        let (mut io, _) = held.lock().await.take().unwrap();
        let mut byte = [0];
        let read = tokio::io::AsyncReadExt::read(&mut io, &mut byte).await;
        assert_eq!(
            read.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionAborted
        );
        drop(io);
        assert_eq!(read_to_end(client).await, "");
    }
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_does_not_end_when_it_is_told_is_no_success() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token = CancellationToken::new();
    token.cancel();

    let outcome = taskgroup::serve("deaf", listener, async |mut acceptor, _stop| {
        loop {
            acceptor.accept().await;
        }
    })
    .run::<SidecarError>(&token)
    .await;

    assert!(outcome.unwrap_err().is_timed_out());
}
