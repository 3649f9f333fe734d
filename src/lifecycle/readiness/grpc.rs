//! The health service of gRPC (feature `tonic`).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{Readiness, ReadinessState};

/// The name that clients use for the server as a whole.
const WHOLE_SERVER: &str = "";

impl Readiness {
    /// Returns the gRPC health service, `grpc.health.v1.Health`, to add to a tonic server (feature
    /// `tonic`).
    ///
    /// It is `SERVING` while the service is ready. Before that, and from the first moment of
    /// draining, it is `NOT_SERVING`. It answers for the server as a whole, which is what
    /// Kubernetes asks for, and for the names in `services`, such as the generated `SERVICE_NAME`s.
    /// They differ by the [checks](Self::check) that count for one and not for another. Any other
    /// name is `NOT_FOUND`.
    ///
    /// A `Watch` stream sends each change, and ends with the `NOT_SERVING` of the drain. No change
    /// follows that, and an open stream would hold up the drain. The service needs no task of its
    /// own.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::CancellationToken;
    /// use taskgroup::lifecycle::Readiness;
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
        let status = status_of(&self.readiness, &request.get_ref().service);
        Ok(Response::new(response(status)))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Watch>, Status> {
        self.check_name(request.get_ref())?;
        let service = request.into_inner().service;
        Ok(Response::new(Watch::new(self.readiness.clone(), service)))
    }
}

/// The answers to one `Watch` call. The first is the current status, and each later one is a
/// change.
struct Watch {
    /// `None` once the status can no longer change.
    next: Option<Pin<Box<dyn Future<Output = Told> + Send>>>,
}

/// A status, and the teller of the next one.
type Told = (Teller, Option<ServingStatus>);

/// Tells the next status of one service.
struct Teller {
    readiness: Readiness,
    service: String,
    sent: Option<ServingStatus>,
}

impl Watch {
    fn new(readiness: Readiness, service: String) -> Self {
        let teller = Teller {
            readiness,
            service,
            sent: None,
        };
        Self {
            next: Some(Box::pin(teller.next())),
        }
    }
}

impl Teller {
    /// Waits for a status that was not sent. `None` if no other will come.
    async fn next(mut self) -> (Self, Option<ServingStatus>) {
        let mut checks = self.readiness.shared.checks.subscribe();
        loop {
            // Both are read before the status, so a later change wakes the task.
            checks.mark_unchanged();
            let state = self.readiness.state();
            let status = status_of(&self.readiness, &self.service);
            if self.sent.replace(status) != Some(status) {
                return (self, Some(status));
            }
            if state >= ReadinessState::Draining {
                return (self, None);
            }
            let mut later = pin!(self.readiness.changed(state));
            let mut changed = pin!(checks.changed());
            poll_fn(|cx| match later.as_mut().poll(cx) {
                Poll::Ready(_) => Poll::Ready(()),
                Poll::Pending => changed.as_mut().poll(cx).map(|_| ()),
            })
            .await;
        }
    }
}

impl Stream for Watch {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        let (teller, status) = ready!(next.as_mut().poll(cx));
        self.next = status.is_some().then(|| Box::pin(teller.next()) as _);
        Poll::Ready(status.map(|status| Ok(response(status))))
    }
}

/// The checks of named services do not count for the server as a whole.
fn status_of(readiness: &Readiness, service: &str) -> ServingStatus {
    let is_serving = match service {
        WHOLE_SERVER => readiness.is_ready(),
        service => readiness.is_serving(service),
    };
    match is_serving {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}
