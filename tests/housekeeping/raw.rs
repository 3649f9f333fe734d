//! S15: protocols other than HTTP, of which nothing is guessed.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use taskgroup::BoxError;
use taskgroup::CancellationToken;
use taskgroup::server::{Acceptor, Io, Serve, serve_loop};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::peers::{read_to_end, read_until, send};
use crate::support::server::{NO_TIME, SHORT, Server, patient};
use crate::support::wait::{pass, soon, turns};

const HOUR: Duration = Duration::from_secs(3600);

type Serving = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// Serves each connection in a task.
fn each<R>(
    serve: impl Fn(Io) -> R + Send + 'static,
) -> impl FnOnce(Acceptor, CancellationToken) -> Serving + Send + 'static
where
    R: Future<Output = std::io::Result<()>> + Send + 'static,
{
    move |mut acceptor: Acceptor, stop: CancellationToken| {
        let served: Serving = Box::pin(async move {
            while let Some((io, _)) = stop.run_until_cancelled(acceptor.accept()).await {
                tokio::spawn(serve(io));
            }
            Ok(())
        });
        served
    }
}

async fn start<R>(serve: impl Fn(Io) -> R + Send + 'static, short: bool) -> Server
where
    R: Future<Output = std::io::Result<()>> + Send + 'static,
{
    Server::run(|listener| {
        let serve = patient(serve_loop("own", listener, each(serve)));
        if short {
            serve.grace(SHORT).idle_grace(NO_TIME)
        } else {
            serve.idle_grace(NO_TIME)
        }
    })
    .await
}

/// Never says anything to its server.
async fn echo(io: Io) -> std::io::Result<()> {
    let (mut io, mut line) = (BufStream::new(io), String::new());
    while io.read_line(&mut line).await? > 0 {
        io.write_all(line.as_bytes()).await?;
        io.flush().await?;
        line.clear();
    }
    Ok(())
}

/// As the documentation has it.
async fn busy_echo(io: Io) -> std::io::Result<()> {
    let (mut io, mut line) = (BufStream::new(io), String::new());
    while io.read_line(&mut line).await? > 0 {
        let _busy = io.get_ref().busy();
        io.write_all(line.as_bytes()).await?;
        io.flush().await?;
        line.clear();
    }
    Ok(())
}

#[tokio::test]
async fn s15_a_connection_may_sit_for_an_hour_before_between_and_within_its_lines() {
    let server = start(echo, false).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    for half in ["PRI ", "* HTTP/2.0\n", "GET /", " HTTP/1.1\n"] {
        turns().await;
        pass(HOUR).await;
        client.write_all(half.as_bytes()).await.unwrap();
    }
    assert_eq!(
        read_until(&mut client, "1.1\n").await,
        "PRI * HTTP/2.0\nGET / HTTP/1.1\n"
    );
}

#[tokio::test(start_paused = true)]
async fn s15_a_timeout_that_is_asked_for_ends_when_the_connection_says_that_it_is_busy() {
    const LIMIT: Duration = Duration::from_secs(10);
    let server = Server::run(|listener| {
        let serve: Serve<_> = serve_loop("own", listener, each(busy_echo));
        patient(serve)
            .first_byte_timeout(LIMIT)
            .header_timeout(LIMIT)
    })
    .await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(read_to_end(silent).await, "");
    let half = send(server.address, "half").await;
    assert_eq!(read_to_end(half).await, "");
    let mut whole = send(server.address, "whole\n").await;
    read_until(&mut whole, "whole\n").await;
    tokio::time::sleep(10 * LIMIT).await;
    whole.write_all(b"again\n").await.unwrap();
    read_until(&mut whole, "again\n").await;
}

#[tokio::test]
async fn s15_a_connection_that_is_busy_is_waited_for_and_counted() {
    let go = Arc::new(Notify::new());
    let going = Arc::clone(&go);
    let server = start(
        move |mut io: Io| {
            let go = Arc::clone(&going);
            async move {
                let busy = io.busy();
                go.notified().await;
                io.write_all(b"done").await?;
                drop(busy);
                Ok(())
            }
        },
        false,
    )
    .await;
    let client = TcpStream::connect(server.address).await.unwrap();
    turns().await;
    server.begin_stop().await;
    // Much longer than the idle grace.
    pass(100 * NO_TIME).await;
    go.notify_one();

    assert_eq!(read_to_end(client).await, "done");
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!((report.requests_at_stop(), report.answered()), (1, 1));
    assert_eq!(report.idle_cut(), 0);
}

#[tokio::test]
async fn s15_a_connection_that_is_busy_at_the_end_is_told_named_and_cut() {
    let server = start(
        |mut io: Io| async move {
            let unnamed = io.busy();
            let mut busy = io.busy().named("SELECT");
            busy.cut().await;
            assert!(unnamed.is_cut());
            io.write_all(b"bye").await?;
            std::future::pending().await
        },
        true,
    )
    .await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let me = client.local_addr().unwrap().to_string();
    turns().await;

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!((report.requests_cut(), report.connections_cut()), (2, 1));
    let mut paths = report.paths().to_vec();
    paths.sort();
    assert_eq!(paths, [me, "SELECT".to_owned()]);
    // The task awaits forever. It does not block a thread.
    assert_eq!((report.stuck(), report.unended()), (0, 1));
    // It holds the socket as well.
    read_until(&mut client, "bye").await;
}

#[tokio::test]
async fn s15_what_never_said_that_it_is_busy_is_cut_and_not_idle_once_bytes_went_by() {
    let server = start(echo, true).await;
    let mut talks = send(server.address, "hello\n").await;
    read_until(&mut talks, "hello\n").await;
    let half = send(server.address, "half").await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    turns().await;

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!((report.connections_cut(), report.requests_cut()), (2, 0));
    assert_eq!(report.idle_cut(), 1);
    assert!(!report.is_clean());
    assert!(report.took() >= SHORT);
    for client in [talks, half, silent] {
        assert_eq!(read_to_end(client).await, "");
    }
}

#[tokio::test]
async fn s15_what_is_not_busy_any_more_is_idle_and_clean() {
    let server = start(busy_echo, true).await;
    let mut client = send(server.address, "hello\n").await;
    read_until(&mut client, "hello\n").await;
    turns().await;

    let (outcome, report) = server.stop().await;

    outcome.unwrap();
    assert_eq!((report.idle_cut(), report.answered()), (1, 0));
    assert_eq!(read_to_end(client).await, "");
}

#[tokio::test]
async fn s15_a_server_that_speaks_first_is_in_a_conversation() {
    let server = start(
        |mut io: Io| async move {
            io.write_all(b"220 ready\r\n").await?;
            let _ = io.read_u8().await;
            Ok(())
        },
        true,
    )
    .await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    read_until(&mut client, "220 ready\r\n").await;
    let (outcome, report) = server.stop().await;
    assert!(outcome.is_err());
    assert_eq!(report.connections_cut(), 1);
    soon(async { while client.read_u8().await.is_ok() {} }).await;
}
