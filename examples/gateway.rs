//! In which order do a front and the back that it calls stop?
//!
//! The front first. Its requests in flight still need the back, so the back hangs on a token of its
//! own, which fires when the front is through. Give both the group's token, and these 20 requests get
//! a 502. Run it with `cargo run --features axum,tonic --example gateway`.

use std::net::SocketAddr;
use std::time::Duration;

use axum::{Router, http::StatusCode, routing::get};
use taskgroup::{BoxError, CancellationToken, Readiness, Stop, TaskGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::{task::JoinSet, time::sleep};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let http = TcpListener::bind("127.0.0.1:0").await?;
    let grpc = TcpListener::bind("127.0.0.1:0").await?;
    let address = http.local_addr()?;
    // A resource, not a task: the front's way to the back outlives every request that may need it.
    let channel = Endpoint::from_shared(format!("http://{}", grpc.local_addr()?))?.connect_lazy();
    let app = Router::new().route(
        "/",
        get(async move |stop| work_then_call(stop, channel).await),
    );

    let mut group = TaskGroup::new();
    let front_is_down = CancellationToken::new();
    let health = Readiness::drain_on(&front_is_down).health_service(&[]);
    let front = taskgroup::axum::serve("http", http, app).then_cancel(&front_is_down);
    group.task("http").spawn(front.run(group.token()));
    let back = taskgroup::tonic::serve("grpc", grpc, Routes::new(health)).run(&front_is_down);
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

async fn work_then_call(stop: Stop, channel: Channel) -> StatusCode {
    sleep(Duration::from_millis(300)).await;
    let mut back = HealthClient::new(channel);
    let call = back.check(HealthCheckRequest::default());
    // The stop leaves the call alone; the end of the drain does not, while there is time to say so.
    match stop.until_deadline(call).await {
        Ok(Ok(_)) => StatusCode::OK,
        Ok(Err(_)) => StatusCode::BAD_GATEWAY,
        Err(_) => StatusCode::GATEWAY_TIMEOUT,
    }
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
