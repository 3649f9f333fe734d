//! How does a server become a member of a group?
//!
//! `cargo run --example wrap_a_server`

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use taskgroup::{BoxError, Sidecar, TaskGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let app = Router::new().route("/slow", get(slow));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    let mut group = TaskGroup::new();
    group.task("http").spawn(
        Sidecar::new("http")
            .grace(Duration::from_secs(5))
            .serve(group.token(), |stop| {
                axum::serve(listener, app).with_graceful_shutdown(stop)
            }),
    );

    let mut client = TcpStream::connect(address).await?;
    let request = b"GET /slow HTTP/1.1\r\nhost: example\r\n\r\n";
    client.write_all(request).await?;
    sleep(Duration::from_millis(100)).await;

    println!("cancelled while a request is in flight");
    group.cancel();
    group.wait().await?;

    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    assert!(answer.starts_with("HTTP/1.1 200"));
    println!("it was answered all the same, and the server has drained");
    Ok(())
}

async fn slow() -> &'static str {
    sleep(Duration::from_millis(500)).await;
    "at last"
}
