//! The gRPC health service on a real tonic server.

use std::time::Duration;

use taskgroup::lifecycle::{Check, Readiness};
use taskgroup::{CancellationToken, Sidecar, SidecarError};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus::{self, NotServing, Serving};
use tonic_health::pb::health_client::HealthClient;

/// More than any machine needs.
const PLENTY: Duration = Duration::from_secs(60);

struct Service {
    token: CancellationToken,
    readiness: Readiness,
    stop: CancellationToken,
    server: JoinHandle<Result<(), SidecarError>>,
    client: HealthClient<Channel>,
}

impl Service {
    async fn start() -> Self {
        let (token, stop) = (CancellationToken::new(), CancellationToken::new());
        let readiness = Readiness::drain_on(&token);
        let health = readiness.health_service(&["shop.Orders"]);
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap();
        let sidecar = Sidecar::new("grpc").grace(PLENTY).serve(&stop, |stop| {
            Server::builder()
                .add_service(health)
                .serve_with_incoming_shutdown(incoming, stop)
        });
        let server = tokio::spawn(sidecar);
        let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
        let client = HealthClient::new(endpoint.connect().await.unwrap());
        Self {
            token,
            readiness,
            stop,
            server,
            client,
        }
    }

    async fn check(&self, service: &str) -> Result<ServingStatus, Code> {
        let answer = self.client.clone().check(request(service)).await;
        match answer {
            Ok(answer) => Ok(answer.into_inner().status()),
            Err(status) => Err(status.code()),
        }
    }
}

fn request(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

#[tokio::test]
async fn it_is_serving_only_while_ready() {
    let service = Service::start().await;
    assert_eq!(service.check("").await, Ok(NotServing));

    service.readiness.set_ready();
    assert_eq!(service.check("").await, Ok(Serving));

    service.token.cancel();
    assert_eq!(service.check("").await, Ok(NotServing));

    service.readiness.set_stopped();
    assert_eq!(service.check("").await, Ok(NotServing));
}

#[tokio::test]
async fn it_answers_for_the_services_that_were_named_and_no_others() {
    let service = Service::start().await;
    service.readiness.set_ready();

    assert_eq!(service.check("shop.Orders").await, Ok(Serving));
    assert_eq!(service.check("shop.Carts").await, Err(Code::NotFound));
    let watch = service.client.clone().watch(request("shop.Carts")).await;
    assert_eq!(watch.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_watch_sees_each_change_and_ends_with_draining() {
    let service = Service::start().await;
    let watch = service.client.clone().watch(request("")).await;
    let mut watch = watch.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), NotServing);

    service.readiness.set_ready();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), Serving);

    service.token.cancel();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), NotServing);
    assert_eq!(watch.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_watch_that_begins_while_draining_says_so_and_ends() {
    let service = Service::start().await;
    service.token.cancel();
    let watch = service.client.clone().watch(request("")).await;
    let mut watch = watch.unwrap().into_inner();

    assert_eq!(watch.message().await.unwrap().unwrap().status(), NotServing);
    assert_eq!(watch.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_watch_is_not_told_the_same_twice() {
    let service = Service::start().await;
    let watch = service.client.clone().watch(request("")).await;
    let mut watch = watch.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), NotServing);

    service.token.cancel();

    assert_eq!(watch.message().await.unwrap(), None);
}

#[tokio::test]
async fn an_open_watch_does_not_hold_the_drain() {
    let service = Service::start().await;
    service.readiness.set_ready();
    let watch = service.client.clone().watch(request("")).await;
    let mut watch = watch.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), Serving);

    service.token.cancel();
    service.stop.cancel();

    assert!(service.server.await.unwrap().is_ok());
    assert_eq!(watch.message().await.unwrap().unwrap().status(), NotServing);
}

#[tokio::test]
async fn a_check_of_a_service_is_told_only_to_its_watchers() {
    let service = Service::start().await;
    service.readiness.set_ready();
    let watch = service.client.clone().watch(request("shop.Orders")).await;
    let mut watch = watch.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), Serving);

    let check = Check::new("warehouse", async || Ok(())).services(["shop.Orders"]);
    let checking = service.readiness.check(check);
    assert_eq!(watch.message().await.unwrap().unwrap().status(), NotServing);
    assert_eq!(service.check("shop.Orders").await, Ok(NotServing));
    assert_eq!(service.check("").await, Ok(Serving));

    let checking = tokio::spawn(checking);
    assert_eq!(watch.message().await.unwrap().unwrap().status(), Serving);
    service.token.cancel();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), NotServing);
    assert_eq!(watch.message().await.unwrap(), None);
    checking.await.unwrap();
}
