//! A gateway at its stop: a REST front (axum) whose requests call a gRPC back (tonic), both in one
//! group, over real sockets.
//!
//! 20 requests are in their handlers, before their call, when the group is cancelled. What differs is
//! the token that stops the back. Nothing here depends on time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use taskgroup::{CancellationToken, Sidecar, TaskGroup, TaskHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::{JoinSet, yield_now};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const REQUESTS: usize = 20;
/// More than any machine needs.
const PLENTY: Duration = Duration::from_secs(60);

#[tokio::test]
async fn back_that_stops_after_the_front_answers_every_request_in_flight() {
    let (listener, back) = listen().await;
    let mut group = TaskGroup::new();
    let front_is_down = CancellationToken::new();
    let grpc = spawn_back(&group, listener, &front_is_down);
    let channel = endpoint(back).connect().await.unwrap();
    let mut front = Front::spawn(&group, channel, front_is_down).await;
    front.requests_are_in_flight().await;

    group.cancel();
    front.refuses_connections().await;
    assert!(!grpc.is_finished());
    front.release.cancel();

    assert_eq!(front.answered().await, REQUESTS);
    group.wait().await.unwrap();
}

#[tokio::test]
async fn channel_that_first_connects_in_the_drain_reaches_the_back_that_stops_last() {
    let (listener, back) = listen().await;
    let mut group = TaskGroup::new();
    let front_is_down = CancellationToken::new();
    spawn_back(&group, listener, &front_is_down);
    let mut front = Front::spawn(&group, endpoint(back).connect_lazy(), front_is_down).await;
    front.requests_are_in_flight().await;

    group.cancel();
    front.refuses_connections().await;
    front.release.cancel();

    assert_eq!(front.answered().await, REQUESTS);
    group.wait().await.unwrap();
}

/// The trap: both servers drain as they should, the group calls it a clean stop, and no request that
/// still had to make its call is answered.
#[tokio::test]
async fn back_that_stops_with_the_front_is_gone_before_its_requests_are_answered() {
    let (listener, back) = listen().await;
    let mut group = TaskGroup::new();
    let grpc = spawn_back(&group, listener, group.token());
    let channel = endpoint(back).connect().await.unwrap();
    let mut front = Front::spawn(&group, channel, CancellationToken::new()).await;
    front.requests_are_in_flight().await;

    group.cancel();
    grpc.await.unwrap();
    front.release.cancel();

    assert_eq!(front.answered().await, 0);
    group.wait().await.unwrap();
}

struct Front {
    address: SocketAddr,
    /// Passed when every request is in its handler.
    entered: Arc<Barrier>,
    /// What the handlers wait for before they make their call.
    release: CancellationToken,
    clients: JoinSet<String>,
}

impl Front {
    /// Serves in a task of `group`, and fires `down` when that has ended.
    async fn spawn(group: &TaskGroup, channel: Channel, down: CancellationToken) -> Self {
        let (listener, address) = listen().await;
        let front = Self {
            address,
            entered: Arc::new(Barrier::new(REQUESTS + 1)),
            release: CancellationToken::new(),
            clients: JoinSet::new(),
        };
        let app = front.routes(channel);
        let sidecar = Sidecar::new("http")
            .grace(PLENTY)
            .serve(group.token(), |stop| {
                axum::serve(listener, app).with_graceful_shutdown(stop)
            });
        group.task("http").spawn(async move {
            let _down = down.drop_guard();
            sidecar.await
        });
        front
    }

    fn routes(&self, channel: Channel) -> Router {
        let (entered, release) = (self.entered.clone(), self.release.clone());
        let handler = async move || {
            entered.wait().await;
            release.cancelled().await;
            let mut back = HealthClient::new(channel);
            match back.check(HealthCheckRequest::default()).await {
                Ok(_) => StatusCode::OK,
                Err(_) => StatusCode::BAD_GATEWAY,
            }
        };
        Router::new().route("/", get(handler))
    }

    async fn requests_are_in_flight(&mut self) {
        for _ in 0..REQUESTS {
            self.clients.spawn(request(self.address));
        }
        self.entered.wait().await;
    }

    async fn refuses_connections(&self) {
        while TcpStream::connect(self.address).await.is_ok() {
            yield_now().await;
        }
    }

    /// How many requests got a 200. All of them got an answer.
    async fn answered(self) -> usize {
        let answers = self.clients.join_all().await;
        let count = |status| {
            answers
                .iter()
                .filter(|answer| answer.starts_with(status))
                .count()
        };
        let (ok, failed) = (count("HTTP/1.1 200"), count("HTTP/1.1 502"));
        assert_eq!(ok + failed, REQUESTS, "{answers:?}");
        ok
    }
}

fn spawn_back(
    group: &TaskGroup,
    listener: TcpListener,
    token: &CancellationToken,
) -> TaskHandle<()> {
    let (_, health) = tonic_health::server::health_reporter();
    let sidecar = Sidecar::new("grpc").grace(PLENTY).serve(token, |stop| {
        Server::builder()
            .add_service(health)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener), stop)
    });
    group.task("grpc").spawn(sidecar)
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Channel::from_shared(format!("http://{address}")).unwrap()
}

async fn request(address: SocketAddr) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}
