//! What becomes of a websocket when its server stops?
//!
//! `cargo run --features ws --example websocket`

use std::net::SocketAddr;

use axum::Router;
use axum::extract::WebSocketUpgrade;
use axum::response::Response;
use axum::routing::any;
use futures_util::{SinkExt, StreamExt};
use taskgroup::server::Stop;
use taskgroup::server::axum::ws::WebSocket;
use taskgroup::{BoxError, Exit, TaskGroup};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

#[tokio::main]
async fn main() -> Exit {
    run().await.into()
}

async fn run() -> Result<(), BoxError> {
    let app = Router::new().route("/ws", any(upgrade));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    let mut group = TaskGroup::new();
    let http = taskgroup::server::axum::serve("http", listener, app)
        .on_report(|report| println!("server: websockets cut: {}", report.upgrades_cut()))
        .run(group.token());
    group.task("http").spawn(http);

    let (connected, is_connected) = oneshot::channel();
    let client = tokio::spawn(client(address, connected));
    is_connected.await?;
    group.cancel();
    group.wait().await?;
    client.await?
}

async fn upgrade(upgrade: WebSocketUpgrade, stop: Stop) -> Response {
    upgrade.on_upgrade(|socket| echo(WebSocket::new(socket, stop)))
}

/// Says nothing of the stop: receiving ends with it.
async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        // What makes this fail ends the loop too.
        let _ = socket.send(message).await;
    }
    println!("server: the handler has ended");
}

// client: hello
// client: closed, 1001: the server is shutting down
async fn client(address: SocketAddr, connected: oneshot::Sender<()>) -> Result<(), BoxError> {
    let stream = TcpStream::connect(address).await?;
    let url = format!("ws://{address}/ws");
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await?;
    socket.send("hello".into()).await?;
    if let Some(echo) = socket.next().await {
        println!("client: {}", echo?);
    }
    let _ = connected.send(());
    while let Some(message) = socket.next().await {
        if let tokio_tungstenite::tungstenite::Message::Close(Some(close)) = message? {
            println!("client: closed, {}: {}", close.code, close.reason);
        }
    }
    Ok(())
}
