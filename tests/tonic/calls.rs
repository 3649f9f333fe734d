//! The server under test, a service whose calls hang, clients.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};

use taskgroup::server::tonic::App;
use taskgroup::server::{Serve, Stop};
use tokio::sync::Notify;
use tonic::codegen::tokio_stream::Stream;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::alive::{Alive, Guard};
use crate::support::server::{SHORT, Server, patient};
use crate::support::wait::{PLENTY, soon, turns};

impl Server {
    /// Serves `calls`, with much time for everything, unless `options` says something else.
    pub(crate) async fn start(
        calls: &Calls,
        options: impl FnOnce(Serve<App<Routes>>) -> Serve<App<Routes>>,
    ) -> Self {
        let routes = Routes::new(HealthServer::new(calls.clone()));
        let serve = |listener| taskgroup::server::tonic::serve("grpc", listener, routes);
        Self::run(|listener| options(patient(serve(listener)))).await
    }

    /// A client with a connection of its own.
    pub(crate) async fn client(&self) -> HealthClient<Channel> {
        let channel = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        HealthClient::new(soon(channel.connect()).await.unwrap())
    }

    /// Waits until the server has read all that was written before: it runs in the same thread, so
    /// it has seen that before it sees this.
    pub(crate) async fn settle(&self) {
        for _ in 0..3 {
            soon(self.client().await.check(call(""))).await.unwrap();
            turns().await;
        }
    }
}

pub(crate) fn call(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

/// The service: what a call does is in the name it asks for. Counts those that are alive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    pub(crate) alive: Alive,
    pub(crate) release: Arc<Notify>,
    released: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
}

impl Calls {
    /// Call `blocks` blocks its thread until what is returned is dropped.
    pub(crate) fn block(&self) -> mpsc::Sender<()> {
        let (sender, released) = mpsc::channel();
        *self.released.lock().unwrap() = Some(released);
        sender
    }
}

fn serving() -> HealthCheckResponse {
    HealthCheckResponse {
        status: ServingStatus::Serving.into(),
    }
}

#[tonic::async_trait]
impl Health for Calls {
    type WatchStream = Events;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let stop = request.extensions().get::<Stop>().unwrap().clone();
        let _guard = self.alive.guard();
        match &*request.get_ref().service {
            "slow" => {
                stop.stopping().await;
                self.release.notified().await;
                assert!(stop.remaining().unwrap() > PLENTY / 2);
            }
            "hangs" => pending().await,
            "blocks" => {
                let released = self.released.lock().unwrap().take().unwrap();
                // Until the other end is dropped.
                let _ = released.recv();
            }
            "stalls" => {
                stop.stopping().await;
                // It blocks the only thread, which is what it is there for.
                std::thread::sleep(2 * SHORT);
            }
            "panics" => std::panic::resume_unwind(Box::new("no hook")),
            "peer" => {
                let peer = request.remote_addr().unwrap();
                return Err(Status::aborted(peer.to_string()));
            }
            _ => {}
        }
        Ok(Response::new(serving()))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Events>, Status> {
        let stop = request.extensions().get::<Stop>().unwrap().clone();
        let rest: Rest = match &*request.get_ref().service {
            "polite" => Rest::Until(Box::pin(async move { stop.stopping().await })),
            "flood" => Rest::Flood,
            "panics" => Rest::Panics,
            _ => Rest::Until(Box::pin(pending())),
        };
        Ok(Response::new(Events {
            first: Some(serving()),
            rest,
            _guard: self.alive.guard(),
        }))
    }
}

/// One event, and then what the call asked for.
pub(crate) struct Events {
    first: Option<HealthCheckResponse>,
    rest: Rest,
    _guard: Guard,
}

enum Rest {
    /// Nothing, until this is over.
    Until(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// No end, and always ready.
    Flood,
    Panics,
}

impl Stream for Events {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        match &mut self.rest {
            Rest::Until(end) => end.as_mut().poll(cx).map(|()| None),
            Rest::Flood => Poll::Ready(Some(Ok(serving()))),
            Rest::Panics => std::panic::resume_unwind(Box::new("no hook")),
        }
    }
}
