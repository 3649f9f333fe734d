//! How does a load balancer learn that my service is about to stop?
//!
//! `cargo run --features axum --example readiness`

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use taskgroup::{BoxError, CancellationToken, Readiness, Sidecar, TaskGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// Longer than the load balancer needs to notice.
const LAME_DUCK: Duration = Duration::from_millis(300);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut group = TaskGroup::new();
    // Not ready any more from the moment in which the group is cancelled.
    let readiness = Readiness::drain_on(group.token());

    let app = Router::new()
        .route("/", get(async || "hello"))
        .merge(readiness.routes());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    // The server stops later than the group: until then it serves whoever has not noticed yet.
    let stop = CancellationToken::new();
    let server = Sidecar::new("http").serve(&stop, |stop| {
        axum::serve(listener, app).with_graceful_shutdown(stop)
    });
    group.task("http").spawn(server);
    let token = group.token().clone();
    group.task("lame-duck").spawn(async move {
        token.cancelled().await;
        sleep(LAME_DUCK).await;
        Ok(stop.cancel())
    });

    assert_eq!(ask(address, "/readyz").await?, "503 starting");
    readiness.set_ready();
    assert_eq!(ask(address, "/readyz").await?, "200 ready");

    group.cancel();
    println!("/readyz: {}", ask(address, "/readyz").await?); // 503 draining
    println!("/livez:  {}", ask(address, "/livez").await?); // 200 live
    println!("/:       {}", ask(address, "/").await?); // 200 hello

    group.wait().await?;
    readiness.set_stopped();
    println!("{readiness}");
    Ok(())
}

async fn ask(address: SocketAddr, path: &str) -> Result<String, BoxError> {
    let mut client = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    client.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    let code = answer.split(' ').nth(1).unwrap_or("no answer");
    let body = answer.rsplit("\r\n").next().unwrap_or_default();
    Ok(format!("{code} {body}"))
}
