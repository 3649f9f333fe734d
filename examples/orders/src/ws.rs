//! A websocket that echoes what it is told, until one of both sides leaves.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use taskgroup::Stop;
use tokio::time::timeout;

/// How long a client may take to say goodbye, too.
const FAREWELL: Duration = Duration::from_secs(1);

pub(crate) async fn echo(upgrade: WebSocketUpgrade, stop: Stop) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        let talk = talk(&mut socket);
        if stop.token().run_until_cancelled(talk).await.is_none() {
            // One that does not answer is left.
            let _ = timeout(stop.clip(FAREWELL), leave(&mut socket)).await;
        }
    })
}

/// Talks until the client leaves.
async fn talk(socket: &mut WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let is_talk = matches!(message, Message::Text(_) | Message::Binary(_));
        if is_talk && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Says goodbye and waits for the answer. Who closes without having read everything resets the
/// connection, and with it what the client has not read yet.
async fn leave(socket: &mut WebSocket) {
    let goodbye = CloseFrame {
        code: close_code::AWAY,
        reason: Utf8Bytes::from_static("the service is stopping"),
    };
    let _ = socket.send(Message::Close(Some(goodbye))).await;
    while let Some(Ok(_)) = socket.recv().await {}
}
