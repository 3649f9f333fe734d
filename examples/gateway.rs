//! In which order do a front and the back that it calls stop?
//!
//! The front first. Its requests in flight still need the back, so the back hangs on a token of its
//! own, which fires when the front is through. Give both the group's token, and these 20 requests get
//! a 502. Run it with `cargo run --example gateway`.

use std::net::SocketAddr;
use std::time::Duration;

use axum::{Router, http::StatusCode, routing::get};
use taskgroup::{BoxError, CancellationToken, Sidecar, TaskGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::{task::JoinSet, time::sleep};
use tonic::transport::{Channel, Endpoint, Server, server::TcpIncoming};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let http = TcpListener::bind("127.0.0.1:0").await?;
    let grpc = TcpListener::bind("127.0.0.1:0").await?;
    let address = http.local_addr()?;
    // A resource, not a task: the front's way to the back outlives every request that may need it.
    let channel = Endpoint::from_shared(format!("http://{}", grpc.local_addr()?))?.connect_lazy();
    let app = Router::new().route("/", get(async move || work_then_call(channel).await));
    let (_, health) = tonic_health::server::health_reporter();

    let mut group = TaskGroup::new();
    let front_is_down = CancellationToken::new();
    let then_the_back = front_is_down.clone().drop_guard(); // fires however the front ends
    let front = Sidecar::new("http").serve(group.token(), |stop| {
        axum::serve(http, app).with_graceful_shutdown(stop)
    });
    group.task("http").spawn(async move {
        let _then = then_the_back;
        front.await
    });
    let grpc = TcpIncoming::from(grpc);
    let back = Sidecar::new("grpc").serve(&front_is_down, |stop| {
        Server::builder()
            .add_service(health)
            .serve_with_incoming_shutdown(grpc, stop)
    });
    group.task("grpc").spawn(back);

    let clients: JoinSet<_> = (0..20).map(|_| request(address)).collect();
    sleep(Duration::from_millis(100)).await;
    println!("cancelled with 20 requests in flight, none of which has called the back yet");
    group.cancel();
    group.wait().await?;

    let answers = clients.join_all().await;
    let ok = |answer: &&String| answer.starts_with("HTTP/1.1 200");
    let answered = answers.iter().flatten().filter(ok).count();
    println!("{answered} of 20 were answered");
    Ok(())
}

async fn work_then_call(channel: Channel) -> StatusCode {
    sleep(Duration::from_millis(300)).await;
    let call = HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await;
    call.map_or(StatusCode::BAD_GATEWAY, |_| StatusCode::OK)
}

async fn request(address: SocketAddr) -> std::io::Result<String> {
    let mut client = TcpStream::connect(address).await?;
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: example\r\n\r\n")
        .await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    Ok(answer)
}
