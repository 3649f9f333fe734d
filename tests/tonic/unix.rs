//! A server on a Unix socket.

use hyper_util::rt::TokioIo;
use taskgroup::CancellationToken;
use taskgroup::server::Listening;
use tokio::net::UnixStream;
use tonic::service::Routes;
use tonic::transport::server::UdsConnectInfo;
use tonic::transport::{Endpoint, Uri};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::calls::{Events, call};
use crate::support::place::Place;
use crate::support::wait::soon;

/// Says which user has called.
struct Who;

#[tonic::async_trait]
impl Health for Who {
    type WatchStream = Events;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        assert_eq!(request.remote_addr(), None);
        let info = request.extensions().get::<UdsConnectInfo>().unwrap();
        let uid = info.peer_cred.unwrap().uid();
        Err(Status::aborted(uid.to_string()))
    }

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Events>, Status> {
        Err(Status::unimplemented("watch"))
    }
}

#[tokio::test]
async fn s12_a_call_over_a_unix_socket_knows_its_user_and_drains() {
    let place = Place::new("tonic");
    let path = place.join("grpc.sock");
    let token = CancellationToken::new();
    let routes = Routes::new(HealthServer::new(Who));
    let listener = Listening::unix(&path).unwrap();
    let server = taskgroup::server::tonic::serve("grpc", listener, routes).run(&token);
    let server = tokio::spawn(server);

    let to = path.clone();
    let connect = tower_service_fn(move |_: Uri| {
        let connect = UnixStream::connect(to.clone());
        async move { connect.await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://unix");
    let channel = soon(endpoint.connect_with_connector(connect)).await;
    let mut client = HealthClient::new(channel.unwrap());
    let status = soon(client.check(call(""))).await.unwrap_err();

    assert_eq!(status.code(), Code::Aborted);
    let own = rustix::process::getuid().as_raw();
    assert_eq!(status.message(), own.to_string());
    token.cancel();
    soon(server).await.unwrap().unwrap();
    assert!(!path.exists());
}

/// A service from a function, as tower has it.
fn tower_service_fn<F>(f: F) -> ServiceFn<F> {
    ServiceFn(f)
}

#[derive(Clone)]
struct ServiceFn<F>(F);

impl<F, R, T, E> tower_service::Service<Uri> for ServiceFn<F>
where
    F: FnMut(Uri) -> R,
    R: Future<Output = Result<T, E>>,
{
    type Response = T;
    type Error = E;
    type Future = R;

    fn poll_ready(&mut self, _cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), E>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> R {
        (self.0)(uri)
    }
}
