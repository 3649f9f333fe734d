//! The health service of gRPC (feature `tonic`).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{Readiness, ReadinessState};

/// The name by which a client asks for the server as a whole.
const WHOLE_SERVER: &str = "";

impl Readiness {
    /// Returns the gRPC health service, `grpc.health.v1.Health`, to be added to a tonic server
    /// (feature `tonic`).
    ///
    /// It is `SERVING` while the service is ready, and `NOT_SERVING` before, and again from the first
    /// moment of draining. It answers for the server as a whole, which is what Kubernetes asks for,
    /// and for the names in `services`, such as the `SERVICE_NAME` that is generated for each; all
    /// have the same state. Any other name is `NOT_FOUND`.
    ///
    /// A stream of `Watch` ends with the `NOT_SERVING` that draining brings: nothing comes after
    /// it, and an open stream would hold the drain. No task runs for the service.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::{CancellationToken, Readiness};
    /// use tonic::transport::server::TcpIncoming;
    /// use tonic::transport::{Channel, Server};
    /// use tonic_health::pb::HealthCheckRequest;
    /// use tonic_health::pb::health_check_response::ServingStatus;
    /// use tonic_health::pb::health_client::HealthClient;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let token = CancellationToken::new();
    /// let readiness = Readiness::drain_on(&token);
    /// readiness.set_ready();
    ///
    /// let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    /// let address = incoming.local_addr()?;
    /// let server = Server::builder().add_service(readiness.health_service(&["shop.Orders"]));
    /// tokio::spawn(server.serve_with_incoming(incoming));
    ///
    /// let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
    /// let mut client = HealthClient::new(channel);
    /// let request = HealthCheckRequest { service: "shop.Orders".into() };
    /// let answer = client.check(request.clone()).await?.into_inner();
    /// assert_eq!(answer.status(), ServingStatus::Serving);
    ///
    /// token.cancel();
    /// let answer = client.check(request).await?.into_inner();
    /// assert_eq!(answer.status(), ServingStatus::NotServing);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn health_service(&self, services: &[&str]) -> HealthServer<impl Health + use<>> {
        HealthServer::new(Service {
            readiness: self.clone(),
            names: services.iter().map(ToString::to_string).collect(),
        })
    }
}

struct Service {
    readiness: Readiness,
    names: Vec<String>,
}

impl Service {
    fn check_name(&self, request: &HealthCheckRequest) -> Result<(), Status> {
        let name = &request.service;
        if name == WHOLE_SERVER || self.names.contains(name) {
            Ok(())
        } else {
            Err(Status::not_found("service not registered"))
        }
    }
}

#[tonic::async_trait]
impl Health for Service {
    type WatchStream = Watch;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.check_name(request.get_ref())?;
        let status = serving_status(self.readiness.state());
        Ok(Response::new(response(status)))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Watch>, Status> {
        self.check_name(request.get_ref())?;
        Ok(Response::new(Watch::new(self.readiness.clone())))
    }
}

/// The answers to one `Watch` call: the status now, and then every other one until the last.
struct Watch {
    readiness: Readiness,
    sent: Option<ServingStatus>,
    /// `None` once the status cannot change any more.
    next: Option<Pin<Box<dyn Future<Output = ReadinessState> + Send>>>,
}

impl Watch {
    fn new(readiness: Readiness) -> Self {
        let now = readiness.state();
        Self {
            readiness,
            sent: None,
            next: Some(Box::pin(std::future::ready(now))),
        }
    }
}

impl Stream for Watch {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Some(next) = &mut self.next {
            let state = ready!(next.as_mut().poll(cx));
            let readiness = self.readiness.clone();
            self.next = match state {
                ReadinessState::Starting | ReadinessState::Ready => {
                    Some(Box::pin(async move { readiness.changed(state).await }))
                }
                ReadinessState::Draining | ReadinessState::Stopped => None,
            };
            let status = serving_status(state);
            if self.sent.replace(status) != Some(status) {
                return Poll::Ready(Some(Ok(response(status))));
            }
        }
        Poll::Ready(None)
    }
}

fn serving_status(state: ReadinessState) -> ServingStatus {
    match state {
        ReadinessState::Ready => ServingStatus::Serving,
        ReadinessState::Starting | ReadinessState::Draining | ReadinessState::Stopped => {
            ServingStatus::NotServing
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}
