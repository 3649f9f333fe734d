//! What the tests share: a server, a service whose calls hang, clients.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use taskgroup::server::tonic::App;
use taskgroup::server::{DrainReport, Serve, Stop};
use taskgroup::{CancellationToken, SidecarError};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{advance, pause, resume, timeout};
use tonic::codegen::tokio_stream::Stream;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// More than any machine needs.
pub(crate) const PLENTY: Duration = Duration::from_secs(60);
/// For what is to be cut.
pub(crate) const SHORT: Duration = Duration::from_millis(300);
pub(crate) const NO_TIME: Duration = Duration::from_millis(20);

pub(crate) type Outcome = Result<(), SidecarError>;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) token: CancellationToken,
    pub(crate) task: JoinHandle<Outcome>,
    report: oneshot::Receiver<DrainReport>,
}

impl Server {
    /// Serves `calls`, with much time for everything, unless `options` says something else.
    pub(crate) async fn start(
        calls: &Calls,
        options: impl FnOnce(Serve<App<Routes>>) -> Serve<App<Routes>>,
    ) -> Self {
        let routes = Routes::new(HealthServer::new(calls.clone()));
        Self::run(|listener| {
            options(patient(taskgroup::server::tonic::serve(
                "grpc", listener, routes,
            )))
        })
        .await
    }

    pub(crate) async fn run<S: taskgroup::server::Server>(
        serve: impl FnOnce(TcpListener) -> Serve<S>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let token = CancellationToken::new();
        let (sender, report) = oneshot::channel();
        let serve = serve(listener).on_report(move |report| sender.send(report.clone()).unwrap());
        let task = tokio::spawn(serve.run(&token));
        Self {
            address,
            token,
            task,
            report,
        }
    }

    /// A client with a connection of its own.
    pub(crate) async fn client(&self) -> HealthClient<Channel> {
        let channel = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        HealthClient::new(soon(channel.connect()).await.unwrap())
    }

    /// Waits for the end of a stop that has begun.
    pub(crate) async fn stopped(self) -> (Outcome, DrainReport) {
        let outcome = soon(self.task).await.unwrap();
        (outcome, self.report.await.unwrap())
    }

    pub(crate) async fn stop(self) -> (Outcome, DrainReport) {
        self.token.cancel();
        self.stopped().await
    }

    /// Begins the stop and waits until the socket is closed.
    ///
    /// The server runs in the same thread, so it does all that it can do at once while this yields.
    pub(crate) async fn begin_stop(&self) {
        self.token.cancel();
        soon(is_closed(self.address)).await;
        turns().await;
        assert!(!self.task.is_finished());
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

pub(crate) fn patient<S>(serve: Serve<S>) -> Serve<S> {
    serve.grace(PLENTY).idle_grace(PLENTY).linger(NO_TIME)
}

pub(crate) fn call(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

/// Fails the test instead of hanging it.
#[track_caller]
pub(crate) fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        match timeout(PLENTY, future).await {
            Ok(output) => output,
            Err(_) => panic!("it hangs: {place}"),
        }
    }
}

/// Waits until nobody listens there any more: then somebody else can.
///
/// Who connects in the last moment before is not refused at once, so this does not ask that way.
pub(crate) async fn is_closed(address: SocketAddr) {
    while std::net::TcpListener::bind(address).is_err() {
        yield_now().await;
    }
}

/// Lets all tasks of this thread do what they can do now.
pub(crate) async fn turns() {
    for _ in 0..1000 {
        yield_now().await;
    }
}

/// Lets time pass without waiting for it, in steps that give every timer its chance.
pub(crate) async fn pass(time: Duration) {
    const STEPS: u32 = 10;
    for _ in 0..STEPS {
        pause();
        advance(time / STEPS).await;
        resume();
        turns().await;
    }
}

/// All that comes until the connection ends, in whatever way.
pub(crate) async fn read_to_end(mut client: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = soon(client.read_to_end(&mut answer)).await;
    answer
}

/// The service: what a call does is in the name it asks for. Counts those that are alive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    alive: Arc<AtomicUsize>,
    pub(crate) release: Arc<Notify>,
    released: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
}

/// One call that is alive.
#[derive(Debug)]
struct Guard(Arc<AtomicUsize>);

impl Calls {
    fn guard(&self) -> Guard {
        self.alive.fetch_add(1, Ordering::SeqCst);
        Guard(Arc::clone(&self.alive))
    }

    /// Call `blocks` blocks its thread until what is returned is dropped.
    pub(crate) fn block(&self) -> mpsc::Sender<()> {
        let (sender, released) = mpsc::channel();
        *self.released.lock().unwrap() = Some(released);
        sender
    }

    pub(crate) fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    #[track_caller]
    pub(crate) fn reach(&self, count: usize) -> impl Future<Output = ()> {
        soon(async move {
            while self.alive() != count {
                yield_now().await;
            }
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
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
        let _guard = self.guard();
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
            _guard: self.guard(),
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
