//! What becomes of requests that are in flight when my axum server stops?
//!
//! `cargo run --features axum --example axum_server`

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use taskgroup::server::Stop;
use taskgroup::{BoxError, Exit, TaskGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Exit {
    run().await.into()
}

async fn run() -> Result<(), BoxError> {
    let app = Router::new()
        .route("/", get(async || "hello"))
        // It has an end, so it does not look at the stop: the grace is for it.
        .route("/slow", get(slow))
        // It has none, so it does.
        .route("/events", get(events))
        // It does not, and is cut at the end of the grace.
        .route("/stuck", get(pending::<&str>));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    let mut group = TaskGroup::new();
    let http = taskgroup::server::axum::serve("http", listener, app)
        .grace(Duration::from_secs(1))
        .run(group.token());
    group.task("http").spawn(http);

    let clients = ["/slow", "/events", "/stuck"].map(|path| tokio::spawn(ask(address, path)));
    ask(address, "/").await?;
    sleep(Duration::from_millis(100)).await;
    group.cancel();
    let result = group.wait().await;

    for client in clients {
        println!("{}", client.await??);
    }
    // error: task `http` (…) failed: server `http` was given 1s to drain: 1 request on 1 connection
    // was cut (GET /stuck)
    Ok(result?)
}

async fn slow() -> &'static str {
    sleep(Duration::from_millis(500)).await;
    "done"
}

async fn events(stop: Stop) -> &'static str {
    stop.stopping().await;
    "goodbye"
}

async fn ask(address: SocketAddr, path: &str) -> Result<String, std::io::Error> {
    let mut client = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    let status = answer.lines().next().unwrap_or("no answer");
    let body = answer.lines().last().unwrap_or_default();
    Ok(format!("{path}: {status}: {body}"))
}
