//! A websocket that echoes what it is told, until its client leaves or is told to.

use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::Response;
use taskgroup::server::Stop;
use taskgroup::server::axum::ws::WebSocket;

pub(crate) async fn echo(upgrade: WebSocketUpgrade, stop: Stop) -> Response {
    upgrade.on_upgrade(|socket| talk(WebSocket::new(socket, stop)))
}

async fn talk(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if let Message::Text(_) | Message::Binary(_) = message {
            // No reason to leave: what the client said before it hears of the end is still to be read.
            let _ = socket.send(message).await;
        }
    }
}
