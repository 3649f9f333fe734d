//! A gateway at its stop: a REST front (axum) whose requests call a gRPC back (tonic), both in one
//! group, over real sockets.
//!
//! 20 requests are in their handlers when the group is cancelled. What differs is the token that stops
//! the back, and what the calls hang on. Tests in which clients get a 502 or a 503 show what not to do.
//!
//! Nothing here depends on time: where it has to run out, it is moved.

mod support;

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::handler::Handler;
use axum::http::StatusCode;
use axum::routing::get;
use taskgroup::lifecycle::{Budget, Component, Context, Lifecycle};
use taskgroup::server::{DrainReport, Stop};
use taskgroup::{CancellationToken, SidecarError, TaskGroup, TaskHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Barrier, oneshot};
use tokio::task::{JoinSet, spawn_blocking, yield_now};
use tokio::time::{advance, pause, resume};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::server::NO_TIME;
use crate::support::wait::{PLENTY, is_closed, soon, turns};

const REQUESTS: usize = 20;
const STEPS: u32 = 10;
/// Less than what a bound call leaves to its handler.
const BEFORE_THE_CUT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn r14_back_that_stops_after_the_front_answers_every_request_in_flight() {
    let gateway = Gateway::ordered().await;
    let channel = gateway.connect().await;
    let front = gateway.serve_calls(channel).await;

    front.stop().await;
    // The back listens still.
    TcpStream::connect(front.back_address).await.unwrap();
    front.work.done.cancel();

    let end = front.end().await;
    end.assert_all("200 served");
    end.assert_clean();
}

#[tokio::test]
async fn r14_channel_that_first_connects_in_the_drain_reaches_the_back_that_stops_last() {
    let gateway = Gateway::ordered().await;
    let channel = gateway.endpoint().connect_lazy();
    let front = gateway.serve_calls(channel).await;

    front.stop().await;
    front.work.done.cancel();

    let end = front.end().await;
    end.assert_all("200 served");
    end.assert_clean();
}

#[tokio::test]
async fn r14_servers_of_a_lifecycle_stop_in_their_order_and_answer_every_request_in_flight() {
    let work = Work {
        begun: Arc::new(Barrier::new(REQUESTS + 1)),
        done: CancellationToken::new(),
    };
    let (listener, address) = listen().await;
    let (back, back_address) = listen().await;
    let channel = Channel::from_shared(format!("http://{back_address}")).unwrap();
    let (health, handler) = (HealthServer::new(work.clone()), work.clone());
    let lifecycle = Lifecycle::new("gateway")
        .budget(PLENTY)
        .component(Component::new("grpc", async move |ctx: Context| {
            ctx.ready();
            let routes = Routes::new(health);
            let back = taskgroup::server::tonic::serve("grpc", back, routes).linger(NO_TIME);
            Ok(back.run(&ctx).await?)
        }))
        .component(
            Component::new("http", async move |ctx: Context| {
                let channel = channel.connect_lazy();
                let handler = async move || handler.then(call(channel)).await;
                let app = Router::new().route("/", get(handler));
                ctx.ready();
                let front = taskgroup::server::axum::serve("http", listener, app).linger(NO_TIME);
                Ok(front.run(&ctx).await?)
            })
            .after(["grpc"]),
        );
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    let clients: JoinSet<_> = (0..REQUESTS).map(|_| request(address)).collect();
    soon(work.begun.wait()).await;

    handle.stop("a deployment");
    is_closed(address).await;
    TcpStream::connect(back_address).await.unwrap();
    work.done.cancel();

    let answers = soon(clients.join_all()).await;
    assert_eq!(answers, vec!["200 served"; REQUESTS]);
    let report = soon(run).await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.in_flight, REQUESTS);
}

#[test]
fn r14_a_budget_smaller_than_the_graces_of_its_servers_is_refused_at_the_start() {
    let server = |name| Component::new(name, async |_ctx| Ok(())).grace(Duration::from_secs(15));
    let error = Lifecycle::new("gateway")
        .budget(Budget::kubernetes())
        .component(server("grpc"))
        .component(server("http").after(["grpc"]))
        .plan()
        .unwrap_err();

    assert_eq!(
        format!("{error:#}"),
        "the budget of 28s is smaller than its parts: \
         lame duck 5s + `http` 15s + `grpc` 15s + margin 1s = 36s"
    );
}

/// The trap: both servers drain as they should, the group calls it a clean stop, and no request that
/// still had to make its call is answered.
#[tokio::test]
async fn r15_back_that_stops_with_the_front_is_gone_before_its_requests_are_answered() {
    let gateway = Gateway::on_one_token(NO_TIME).await;
    let channel = gateway.connect().await;
    let mut front = gateway.serve_calls(channel).await;

    front.stop().await;
    soon(&mut front.back).await.unwrap();
    front.work.done.cancel();

    let end = front.end().await;
    end.assert_all("502");
    end.assert_clean();
}

/// The gate saves those that are quick, which makes the trap harder to see.
#[tokio::test]
async fn r15_back_that_stops_with_the_front_still_answers_calls_within_its_linger() {
    let gateway = Gateway::on_one_token(PLENTY).await;
    let channel = gateway.connect().await;
    let front = gateway.serve_calls(channel).await;

    front.stop().await;
    is_closed(front.back_address).await;
    front.work.done.cancel();

    let end = front.end().await;
    end.assert_all("200 served");
    end.assert_clean();
}

#[tokio::test]
async fn r15_back_that_stops_with_the_front_refuses_a_channel_that_first_connects_in_the_drain() {
    let gateway = Gateway::on_one_token(PLENTY).await;
    let channel = gateway.endpoint().connect_lazy();
    let mut front = gateway.serve_calls(channel).await;

    front.stop().await;
    // Without a connection the server does not linger.
    soon(&mut front.back).await.unwrap();
    front.work.done.cancel();

    let end = front.end().await;
    end.assert_all("502 Unavailable");
    end.assert_clean();
}

#[tokio::test]
async fn r15_handler_that_gives_up_its_work_at_the_stop_fails_requests_that_had_the_time() {
    let gateway = Gateway::ordered().await;
    let (channel, work) = (gateway.connect().await, gateway.work.clone());
    let handler = async move |stop: Stop| {
        tokio::select! {
            () = stop.token().cancelled() => (StatusCode::BAD_GATEWAY, "given up".into()),
            answer = work.then(call(channel)) => answer,
        }
    };
    let front = gateway.serve(handler).await;

    front.stop().await;

    let end = front.end().await;
    end.assert_all("502 given up");
    end.assert_clean();
}

#[tokio::test]
async fn r15_call_in_a_group_that_the_stop_aborts_fails_its_request() {
    let gateway = Gateway::ordered().await;
    let (channel, work) = (gateway.connect().await, gateway.work.clone());
    let mut calls = gateway.group.child("calls");
    let spawner = calls.spawner();
    let handler = async move || {
        let call = spawner.spawn(async move { Ok(work.then(call(channel)).await) });
        call.await
            .unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, format!("{error:#}")))
    };
    let front = gateway.serve(handler).await;

    front.stop().await;
    calls.shutdown(Duration::ZERO).await.unwrap_err();

    let end = front.end().await;
    end.assert_all("502 the task was aborted");
    end.assert_clean();
}

#[tokio::test]
async fn r15_call_in_a_group_that_is_only_cancelled_answers_its_request() {
    let gateway = Gateway::ordered().await;
    let (channel, work) = (gateway.connect().await, gateway.work.clone());
    let calls = gateway.group.child("calls");
    let spawner = calls.spawner();
    let handler = async move || {
        work.then(async {}).await;
        // It is born cancelled, and has nothing that looks at it.
        let call = spawner.spawn(async move { Ok(call(channel).await) });
        call.await.unwrap()
    };
    let front = gateway.serve(handler).await;

    front.stop().await;
    assert!(calls.is_cancelled());
    front.work.done.cancel();

    let end = front.end().await;
    end.assert_all("200 served");
    end.assert_clean();
}

#[tokio::test]
async fn r15_channel_whose_executor_hangs_on_the_stop_fails_every_call() {
    let gateway = Gateway::ordered().await;
    let executor = UntilCancelled(gateway.group.token().clone());
    let endpoint = gateway.endpoint().executor(executor);
    let channel = endpoint.connect().await.unwrap();
    let front = gateway.serve_calls(channel).await;

    front.stop().await;
    front.work.done.cancel();

    let end = front.end().await;
    end.assert_all("502 Unknown");
    end.assert_clean();
}

#[tokio::test]
async fn r15_channel_of_a_runtime_that_is_shut_down_first_fails_every_call() {
    let gateway = Gateway::ordered().await;
    let runtime = Runtime::new().unwrap();
    let endpoint = gateway.endpoint();
    let channel = runtime.spawn(async move { endpoint.connect().await });
    let channel = channel.await.unwrap().unwrap();
    let front = gateway.serve_calls(channel).await;

    front.stop().await;
    spawn_blocking(|| drop(runtime)).await.unwrap();
    front.work.done.cancel();

    let end = front.end().await;
    end.assert_all("502 Unknown");
    end.assert_clean();
}

#[tokio::test]
async fn r15_call_that_may_take_longer_than_the_drain_is_cut_after_all_of_it_with_a_503() {
    let gateway = Gateway::ordered().await;
    let channel = gateway.connect().await;
    let handler = async move || long_call(channel, 2 * PLENTY).await;
    let front = gateway.serve(handler).await;

    front.stop().await;
    front.pass(PLENTY).await;

    let end = front.end().await;
    end.assert_all("503 the server is shutting down");
    let report = end.report;
    assert_eq!(report.requests_at_stop(), REQUESTS);
    assert_eq!(report.requests_cut(), REQUESTS);
    assert_eq!(report.connections_cut(), REQUESTS);
    assert_eq!(report.answered(), 0);
    assert!(report.took() >= PLENTY);
    let error = end.outcome.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(error.drain_report(), Some(&report));
}

#[tokio::test]
async fn r16_call_that_is_bound_by_the_drain_deadline_is_a_504_before_the_cut() {
    let gateway = Gateway::ordered().await;
    let channel = gateway.connect().await;
    let handler = async move |stop: Stop| {
        let call = stop.until_deadline(long_call(channel, 2 * PLENTY)).await;
        call.unwrap_or_else(|late| (StatusCode::GATEWAY_TIMEOUT, late.to_string()))
    };
    let front = gateway.serve(handler).await;

    front.stop().await;
    front.pass(PLENTY - BEFORE_THE_CUT).await;

    let end = front.end().await;
    end.assert_all("504 the deadline of the stop passed");
    end.assert_clean();
    assert!(end.report.took() >= PLENTY - BEFORE_THE_CUT);
}

#[tokio::test]
async fn r16_call_in_the_drain_with_a_clipped_timeout_is_a_504_before_the_cut() {
    let gateway = Gateway::ordered().await;
    let (channel, work) = (gateway.connect().await, gateway.work.clone());
    let handler = async move |stop: Stop| {
        let call = async { long_call(channel, stop.clip(2 * PLENTY)).await };
        work.then(call).await
    };
    let front = gateway.serve(handler).await;

    front.stop().await;
    front.work.done.cancel();
    soon(front.work.begun.wait()).await;
    front.pass(PLENTY - BEFORE_THE_CUT).await;

    let end = front.end().await;
    end.assert_all("504 Timeout expired");
    end.assert_clean();
    assert!(end.report.took() >= PLENTY - BEFORE_THE_CUT);
}

type Answer = (StatusCode, String);

async fn call(channel: Channel) -> Answer {
    let request = HealthCheckRequest::default();
    match HealthClient::new(channel).check(request).await {
        Ok(_) => (StatusCode::OK, "served".into()),
        Err(status) => (StatusCode::BAD_GATEWAY, format!("{:?}", status.code())),
    }
}

/// A call that the back does not answer.
async fn long_call(channel: Channel, timeout: Duration) -> Answer {
    let mut request = Request::new(HealthCheckRequest {
        service: "long".into(),
    });
    request.set_timeout(timeout);
    let status = HealthClient::new(channel).check(request).await.unwrap_err();
    (StatusCode::GATEWAY_TIMEOUT, status.message().into())
}

/// What a request waits for: in the handler, or in the back if its call is long.
#[derive(Clone)]
struct Work {
    /// Passed when all of them wait.
    begun: Arc<Barrier>,
    /// Fires when the handlers are to make their calls.
    done: CancellationToken,
}

impl Work {
    async fn then<F: Future>(&self, call: F) -> F::Output {
        self.begun.wait().await;
        self.done.cancelled().await;
        call.await
    }
}

#[tonic::async_trait]
impl Health for Work {
    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if request.get_ref().service == "long" {
            self.begun.wait().await;
            pending::<()>().await;
        }
        Ok(Response::new(HealthCheckResponse::default()))
    }

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }
}

/// What a channel spawns, the connection among it, until the token fires.
struct UntilCancelled(CancellationToken);

impl<F> hyper::rt::Executor<F> for UntilCancelled
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let token = self.0.clone();
        tokio::spawn(async move { token.run_until_cancelled(future).await });
    }
}

/// A back that runs, and a front that is yet to be.
struct Gateway {
    group: TaskGroup<SidecarError>,
    front_is_down: CancellationToken,
    work: Work,
    back_address: SocketAddr,
    back: TaskHandle<()>,
}

impl Gateway {
    /// The back stops when the front is through.
    async fn ordered() -> Self {
        let front_is_down = CancellationToken::new();
        let group = TaskGroup::typed();
        Self::new(group, front_is_down.clone(), &front_is_down, NO_TIME).await
    }

    /// The back stops with the front.
    async fn on_one_token(linger: Duration) -> Self {
        let group = TaskGroup::typed();
        let token = group.token().clone();
        Self::new(group, CancellationToken::new(), &token, linger).await
    }

    async fn new(
        group: TaskGroup<SidecarError>,
        front_is_down: CancellationToken,
        token: &CancellationToken,
        linger: Duration,
    ) -> Self {
        let work = Work {
            begun: Arc::new(Barrier::new(REQUESTS + 1)),
            done: CancellationToken::new(),
        };
        let (listener, back_address) = listen().await;
        let routes = Routes::new(HealthServer::new(work.clone()));
        let back = taskgroup::server::tonic::serve("grpc", listener, routes)
            .grace(PLENTY)
            .linger(linger);
        let back = group.task("grpc").spawn(back.run(token));
        Self {
            group,
            front_is_down,
            work,
            back_address,
            back,
        }
    }

    fn endpoint(&self) -> Endpoint {
        Channel::from_shared(format!("http://{}", self.back_address)).unwrap()
    }

    async fn connect(&self) -> Channel {
        self.endpoint().connect().await.unwrap()
    }

    /// Serves with a handler that makes its call when the work is done.
    async fn serve_calls(self, channel: Channel) -> Front {
        let work = self.work.clone();
        self.serve(async move || work.then(call(channel)).await)
            .await
    }

    /// Serves, and sends the requests; returns when all of them wait.
    async fn serve<H, T>(self, handler: H) -> Front
    where
        H: Handler<T, ()>,
        T: 'static,
    {
        let (listener, address) = listen().await;
        let (sender, report) = oneshot::channel();
        let app = Router::new().route("/", get(handler));
        let http = taskgroup::server::axum::serve("http", listener, app)
            .grace(PLENTY)
            .linger(NO_TIME)
            .on_report(move |report| sender.send(report.clone()).unwrap())
            .then_cancel(&self.front_is_down)
            .run(self.group.token());
        let http = self.group.task("http").spawn(http);
        let clients = (0..REQUESTS).map(|_| request(address)).collect();
        soon(self.work.begun.wait()).await;
        Front {
            group: self.group,
            work: self.work,
            back_address: self.back_address,
            back: self.back,
            address,
            http,
            clients,
            report,
        }
    }
}

/// A front with all of the requests in flight.
struct Front {
    group: TaskGroup<SidecarError>,
    work: Work,
    back_address: SocketAddr,
    back: TaskHandle<()>,
    address: SocketAddr,
    http: TaskHandle<()>,
    clients: JoinSet<String>,
    report: oneshot::Receiver<DrainReport>,
}

impl Front {
    /// Cancels the group, and waits until the front has closed its socket.
    async fn stop(&self) {
        self.group.cancel();
        is_closed(self.address).await;
    }

    /// Lets time pass in steps, so that timers fire in their order. Then it stands still until the
    /// front is through: as long as there is something to do, it does not go on by itself.
    async fn pass(&self, time: Duration) {
        pause();
        for _ in 0..STEPS {
            advance(time / STEPS).await;
            turns().await;
        }
        let begin = std::time::Instant::now();
        while !self.http.is_finished() {
            assert!(begin.elapsed() < PLENTY, "it hangs");
            yield_now().await;
        }
        resume();
    }

    async fn end(mut self) -> End {
        let answers = soon(self.clients.join_all()).await;
        let outcome = soon(self.group.wait()).await;
        End {
            answers,
            report: self.report.await.unwrap(),
            outcome: outcome.map_err(|error| error.into_error().unwrap()),
        }
    }
}

struct End {
    /// Status and body.
    answers: Vec<String>,
    /// What the front says of its drain.
    report: DrainReport,
    outcome: Result<(), SidecarError>,
}

impl End {
    #[track_caller]
    fn assert_all(&self, answer: &str) {
        assert_eq!(self.answers.len(), REQUESTS);
        let others = self.answers.iter().filter(|it| !it.starts_with(answer));
        assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new());
    }

    /// As far as the servers can tell.
    #[track_caller]
    fn assert_clean(&self) {
        let Self {
            report, outcome, ..
        } = self;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.requests_at_stop(), REQUESTS);
        assert_eq!(report.answered(), REQUESTS);
        assert!(report.took() < PLENTY);
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Status and body of the answer.
async fn request(address: SocketAddr) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    format!("{} {body}", head.get(9..12).unwrap_or("no answer"))
}
