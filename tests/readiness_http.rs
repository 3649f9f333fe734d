//! `/livez` and `/readyz` on a real axum server.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use taskgroup::CancellationToken;
use taskgroup::lifecycle::{Check, Readiness};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

struct Service {
    token: CancellationToken,
    readiness: Readiness,
    address: SocketAddr,
    _server: JoinSet<()>,
}

impl Service {
    async fn start() -> Self {
        let token = CancellationToken::new();
        let readiness = Readiness::drain_on(&token);
        let app = Router::new()
            .route("/", get(async |State(text): State<&'static str>| text))
            .merge(readiness.routes())
            .with_state("hello");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async { axum::serve(listener, app).await.unwrap() });
        Self {
            token,
            readiness,
            address,
            _server: server,
        }
    }

    async fn ask(&self, method: &str, path: &str) -> String {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.0\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// The code and the body.
    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.ask("GET", path).await;
        let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (code, body.into())
    }

    async fn assert_answers(&self, readyz: u16, state: &str) {
        assert_eq!(self.get("/readyz").await, (readyz, state.into()));
        assert_eq!(self.get("/livez").await, (200, "live".into()), "{state}");
    }
}

#[tokio::test]
async fn readyz_is_200_only_while_ready_and_livez_always() {
    let service = Service::start().await;
    service.assert_answers(503, "starting").await;

    service.readiness.set_ready();
    service.assert_answers(200, "ready").await;

    service.token.cancel();
    service.assert_answers(503, "draining").await;

    service.readiness.set_stopped();
    service.assert_answers(503, "stopped").await;
}

#[tokio::test]
async fn the_routes_fit_into_a_router_with_a_state_of_its_own() {
    let service = Service::start().await;

    assert_eq!(service.get("/").await, (200, "hello".into()));
}

#[tokio::test]
async fn the_answers_are_not_to_be_cached() {
    let service = Service::start().await;

    for path in ["/livez", "/readyz"] {
        let answer = service.ask("GET", path).await.to_lowercase();
        assert!(answer.contains("cache-control: no-store"), "{answer}");
    }
}

#[tokio::test]
async fn a_head_request_gets_the_code_alone() {
    let service = Service::start().await;

    let answer = service.ask("HEAD", "/readyz").await;
    assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn readyz_names_the_check_that_fails_and_not_what_it_said() {
    let service = Service::start().await;
    service.readiness.set_ready();
    let check = Check::new("database", async || Err("no route to db-7".into()));
    let checking = service.readiness.check(check);
    service.assert_answers(503, "failing: database").await;

    drop(checking);
    service.assert_answers(200, "ready").await;
}
