//! An upgraded connection gives its socket back.

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use taskgroup::server::{Io, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::peers::{read_to_end, read_until, websocket_over_http2};
use crate::support::server::Server;
use crate::support::wait::soon;

/// Says what it has found, and then echoes on the socket itself.
fn app(found: mpsc::UnboundedSender<String>) -> Router {
    let upgrade = any(async move |request: Request| -> Response {
        let is_http1 = request.version() < http::Version::HTTP_2;
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(request).await.unwrap();
            let (mut io, read) = match Io::from_upgraded(upgraded) {
                Ok(parts) => parts,
                Err(upgraded) => {
                    found.send("no socket".into()).unwrap();
                    let mut io = hyper_util::rt::TokioIo::new(upgraded);
                    let _ = io.write_all(b"ping").await;
                    return std::future::pending().await;
                }
            };
            let Transport::Tcp(socket) = io.get_ref() else {
                panic!("it is plain TCP");
            };
            found.send(socket.peer_addr().unwrap().to_string()).unwrap();
            io.write_all(&read).await.unwrap();
            let mut bytes = [0; 64];
            while let Ok(length @ 1..) = io.read(&mut bytes).await {
                io.write_all(&bytes[..length]).await.unwrap();
            }
        });
        if is_http1 {
            let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "echo")];
            (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
        } else {
            StatusCode::OK.into_response()
        }
    });
    Router::new().route("/ws", upgrade)
}

#[tokio::test]
async fn s11_over_http1_it_is_the_socket_with_what_was_read_and_it_is_still_cut() {
    let (sender, mut found) = mpsc::unbounded_channel();
    let server = Server::start(app(sender), |serve| {
        serve.grace(crate::support::server::SHORT)
    })
    .await;
    // The first words of the new protocol come with the request.
    let head =
        "GET /ws HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly";
    let mut client = crate::peers::send(server.address, head).await;
    assert_eq!(
        soon(found.recv()).await.unwrap(),
        client.local_addr().unwrap().to_string()
    );
    read_until(&mut client, "early").await;
    client.write_all(b"late").await.unwrap();
    read_until(&mut client, "late").await;

    let (outcome, report) = server.stop().await;

    assert!(outcome.is_err());
    assert_eq!((report.upgrades_cut(), report.unended()), (1, 0));
    assert_eq!(read_to_end(client).await, "");
}

#[tokio::test]
async fn s11_over_http2_a_stream_has_no_socket() {
    let (sender, mut found) = mpsc::unbounded_channel();
    let server = Server::start(app(sender), |serve| serve).await;
    let _websocket = websocket_over_http2(server.address).await;
    assert_eq!(soon(found.recv()).await.unwrap(), "no socket");
}
