//! S15: something that comes before HTTP, such as the header of the PROXY protocol.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::routing::get;
use taskgroup::server::{Incoming, Io};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::peers::{get_over_http2, read_to_end, read_until, send};
use crate::support::server::{Server, patient};
use crate::support::wait::{pass, soon, turns};

const LIMIT: Duration = Duration::from_secs(10);
const GET: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";

/// A connection behind a line with a name.
struct Named {
    io: Io,
    name: String,
}

async fn named(mut io: Io) -> io::Result<Named> {
    let mut name = String::new();
    loop {
        match io.read_u8().await? {
            b'\n' => return Ok(Named { io, name }),
            letter => name.push(letter.into()),
        }
    }
}

#[derive(Clone)]
struct Name(String);

impl Connected<Incoming<'_>> for Name {
    fn connect_info(incoming: Incoming<'_>) -> Self {
        let named: &Named = incoming.transport().downcast_ref().unwrap();
        Self(named.name.clone())
    }
}

async fn server() -> Server {
    let app = Router::new()
        .route(
            "/",
            get(async |ConnectInfo(Name(name)): ConnectInfo<Name>| name),
        )
        .route("/poll", get(std::future::pending::<&str>));
    let app = app.into_make_service_with_connect_info::<Name>();
    Server::run(|listener| {
        patient(taskgroup::server::axum::serve("http", listener, app))
            .first_byte_timeout(LIMIT)
            .header_timeout(LIMIT)
            .tls(named)
    })
    .await
}

#[tokio::test]
async fn s15_the_header_is_read_beside_the_accept_loop_and_its_info_is_known_to_requests() {
    let server = server().await;
    let half = send(server.address, "hal").await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    turns().await;
    for name in ["one", "two"] {
        let mut client = send(server.address, &format!("{name}\n{GET}")).await;
        read_until(&mut client, &format!("\r\n\r\n{name}")).await;
    }
    drop(half);
    let (outcome, report) = server.stop().await;
    outcome.unwrap();
    assert!(report.is_clean());
}

#[tokio::test(start_paused = true)]
async fn s15_the_header_is_timed_from_its_first_byte() {
    let server = server().await;
    let mut half = TcpStream::connect(server.address).await.unwrap();
    turns().await;
    tokio::time::sleep(LIMIT / 2).await;
    half.write_all(b"hal").await.unwrap();
    turns().await;
    let begin = Instant::now();
    assert_eq!(read_to_end(half).await, "");
    let took = begin.elapsed();
    assert!(
        LIMIT * 9 / 10 <= took && took <= LIMIT * 11 / 10,
        "{took:?}"
    );
}

#[tokio::test]
async fn s15_http2_behind_a_header_is_drained_and_counted_like_any_other() {
    let server = server().await;
    let tcp = send(server.address, "two\n").await;
    let (sender, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    let mut sender = soon(sender.ready()).await.unwrap();
    let (answer, _) = sender.send_request(get_over_http2("/"), true).unwrap();
    let mut body = soon(answer).await.unwrap().into_body();
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), "two");
    // A silent peer of HTTP/2 does nothing wrong.
    pass(10 * LIMIT).await;
    let mut sender = soon(sender.ready()).await.unwrap();
    let (answer, _) = sender.send_request(get_over_http2("/"), true).unwrap();
    assert!(soon(answer).await.unwrap().status().is_success());
    turns().await;
    let (outcome, report) = server.stop().await;
    outcome.unwrap();
    assert_eq!(report.connections_at_stop(), 1);
}

impl AsyncRead for Named {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Named {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
