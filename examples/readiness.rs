//! How does a load balancer learn that my service is about to stop?
//!
//! `cargo run --features axum,lifecycle --example readiness`

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use taskgroup::lifecycle::Readiness;
use taskgroup::{BoxError, TaskGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than the load balancer needs to notice.
const LAME_DUCK: Duration = Duration::from_millis(300);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut group = TaskGroup::new();
    // No longer ready from the moment in which the group is cancelled.
    let readiness = Readiness::drain_on(group.token());

    let app = Router::new()
        .route("/", get(async || "hello"))
        .merge(readiness.routes());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    // Until it is over, clients that have not noticed yet are served.
    let server = taskgroup::server::axum::serve("http", listener, app).lame_duck(LAME_DUCK);
    group.task("http").spawn(server.run(group.token()));

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
