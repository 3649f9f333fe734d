//! In which order do a front and the back that it calls stop?
//!
//! The front first. Its requests in flight still need the back, so the back is told to stop when the
//! front is through. The front uses the address of the back, and is ordered by that alone. Run it with
//! `cargo run --features axum,lifecycle,tonic --example gateway`.

use std::net::SocketAddr;
use std::time::Duration;

use axum::{Router, http::StatusCode, routing::get};
use taskgroup::BoxError;
use taskgroup::lifecycle::{Component, Context, Lifecycle, Provided, Provider};
use taskgroup::server::Stop;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::{task::JoinSet, time::sleep};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (back, front) = (Provided::new("back"), Provided::new("front"));
    let lifecycle = Lifecycle::new("gateway")
        .component(Component::using(back.provider()).run("grpc", grpc))
        .component(Component::using((&back, front.provider())).run("http", http));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());

    let address = front.wait().await;
    let clients: JoinSet<_> = (0..20).map(|_| request(address)).collect();
    sleep(Duration::from_millis(100)).await;
    println!("stopped with 20 requests in flight, none of which has called the back yet");
    handle.stop("a deployment");
    let report = run.await??;

    let answers = clients.join_all().await;
    let ok = |answer: &&String| answer.starts_with("HTTP/1.1 200");
    let answered = answers.iter().flatten().filter(ok).count();
    println!("{answered} of 20 were answered\n{report}");
    Ok(())
}

async fn grpc(ctx: Context, address: Provider<SocketAddr>) -> Result<(), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    address.set(listener.local_addr()?);
    ctx.ready();
    let routes = Routes::new(ctx.readiness().health_service(&[]));
    let server = taskgroup::server::tonic::serve("grpc", listener, routes);
    Ok(server.run(&ctx).await?)
}

async fn http(
    ctx: Context,
    (back, address): (SocketAddr, Provider<SocketAddr>),
) -> Result<(), BoxError> {
    let channel = Endpoint::from_shared(format!("http://{back}"))?.connect_lazy();
    let handler = async move |stop| work_then_call(stop, channel).await;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    address.set(listener.local_addr()?);
    ctx.ready();
    let app = Router::new().route("/", get(handler));
    let server = taskgroup::server::axum::serve("http", listener, app);
    Ok(server.run(&ctx).await?)
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
