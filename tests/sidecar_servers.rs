//! Sidecars of real servers, axum and tonic, over real sockets.
//!
//! Nothing here depends on time, except that what hangs on purpose is given a short grace.

use std::error::Error;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use taskgroup::{CancellationToken, End, Sidecar, SidecarError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, yield_now};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

type Outcome = Result<(), SidecarError>;

/// More than any machine needs.
const PLENTY: Duration = Duration::from_secs(60);
/// For servers that never stop.
const SHORT: Duration = Duration::from_millis(50);

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn serve_axum(
    app: Router,
    grace: Duration,
    token: &CancellationToken,
) -> (JoinHandle<Outcome>, SocketAddr) {
    let (listener, address) = listen().await;
    let sidecar = Sidecar::new("http").grace(grace).serve(token, |stop| {
        axum::serve(listener, app).with_graceful_shutdown(stop)
    });
    (tokio::spawn(sidecar), address)
}

async fn request(address: SocketAddr, path: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

async fn read_to_end(mut client: TcpStream) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn axum_finishes_a_request_in_flight_and_refuses_new_ones() {
    let entered = Arc::new(Notify::new());
    let release = Arc::new(Notify::new());
    let app = Router::new().route("/slow", {
        let (entered, release) = (entered.clone(), release.clone());
        get(async move || {
            entered.notify_one();
            release.notified().await;
            "done"
        })
    });
    let token = CancellationToken::new();
    let (sidecar, address) = serve_axum(app, PLENTY, &token).await;
    let client = request(address, "/slow").await;
    entered.notified().await;

    token.cancel();
    while TcpStream::connect(address).await.is_ok() {
        yield_now().await;
    }
    assert!(!sidecar.is_finished());
    release.notify_one();

    let answer = read_to_end(client).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("done"), "{answer}");
    sidecar.await.unwrap().unwrap();
}

#[tokio::test]
async fn axum_that_never_answers_a_request_is_timed_out() {
    let entered = Arc::new(Notify::new());
    let app = Router::new().route("/poll", {
        let entered = entered.clone();
        get(async move || {
            entered.notify_one();
            pending::<&str>().await
        })
    });
    let token = CancellationToken::new();
    let (sidecar, address) = serve_axum(app, SHORT, &token).await;
    let _client = request(address, "/poll").await;
    entered.notified().await;

    token.cancel();
    let error = sidecar.await.unwrap().unwrap_err();
    assert!(error.is_timed_out());
    let message = format!("{error:#}");
    assert!(
        message.contains("`http` did not drain within 50ms"),
        "{message}"
    );
    assert!(
        message.contains("connections of it may remain"),
        "{message}"
    );
}

#[tokio::test]
async fn axum_on_a_port_in_use_fails_at_once_by_name() {
    let (_holder, address) = listen().await;
    let outcome: Outcome = Sidecar::new("http")
        .serve(&CancellationToken::new(), |stop| async move {
            let listener = TcpListener::bind(address).await?;
            axum::serve(listener, Router::new())
                .with_graceful_shutdown(stop)
                .await
        })
        .await;
    let error = outcome.unwrap_err();
    assert_eq!(error.end(), End::Failed);
    assert!(format!("{error:#}").starts_with("server `http` failed: "));
    let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn axum_whose_sidecar_is_dropped_closes_its_idle_connections() {
    let app = Router::new().route("/", get(async || "hello"));
    let (sidecar, address) = serve_axum(app, PLENTY, &CancellationToken::new()).await;
    let mut client = request(address, "/").await;
    let mut answer = String::new();
    while !answer.ends_with("hello") {
        answer.push(char::from(client.read_u8().await.unwrap()));
    }

    sidecar.abort();
    assert!(sidecar.await.unwrap_err().is_cancelled());
    assert_eq!(read_to_end(client).await, "", "the connection is closed");
}

#[tokio::test]
async fn tonic_with_an_idle_channel_stops() {
    let token = CancellationToken::new();
    let (sidecar, mut client) = serve_tonic(PLENTY, &token).await;
    client.check(HealthCheckRequest::default()).await.unwrap();
    token.cancel();
    sidecar.await.unwrap().unwrap();
}

#[tokio::test]
async fn tonic_with_an_endless_stream_is_timed_out() {
    let token = CancellationToken::new();
    let (sidecar, mut client) = serve_tonic(SHORT, &token).await;
    let watch = client.watch(HealthCheckRequest::default()).await.unwrap();
    let mut watch = watch.into_inner();
    watch.message().await.unwrap().unwrap();
    token.cancel();
    let error = sidecar.await.unwrap().unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(error.name(), "grpc");
}

async fn serve_tonic(
    grace: Duration,
    token: &CancellationToken,
) -> (JoinHandle<Outcome>, HealthClient<Channel>) {
    let (listener, address) = listen().await;
    let (_reporter, health) = tonic_health::server::health_reporter();
    let sidecar = Sidecar::new("grpc").grace(grace).serve(token, |stop| {
        Server::builder()
            .add_service(health)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener), stop)
    });
    let sidecar = tokio::spawn(sidecar);
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    let client = HealthClient::new(channel.connect().await.unwrap());
    (sidecar, client)
}
