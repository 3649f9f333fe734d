//! The child: the shop, and what it finds out about itself.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use taskgroup::lifecycle::{Component, Lifecycle};
use taskgroup::lifecycle::{
    Context, Event, EventKind, Provided, Provider, Report, StepKind, TimelineStep,
};
use taskgroup::server::Stop;
use taskgroup::{BoxError, Exit, Program, Signals};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tonic::codegen::tokio_stream;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::leaks::{descriptors, tasks};

const DOMAINS: usize = 8;

const COMPONENTS: usize = 50;

/// The HTTP and the gRPC servers of the domains, and the gateway.
pub(crate) const SERVERS: u32 = 2 * 8 + 1;

/// What the stop of each component takes at least.
const STOP: Duration = Duration::from_millis(50);

/// How many components the longest chain has: gateway, HTTP, gRPC, repository, database.
const CHAIN: u32 = 5;

/// More than any machine needs.
const PLENTY: Duration = Duration::from_secs(25);

pub(crate) fn play() -> Exit {
    // No child outlives its test: one that hangs dies of SIGABRT, which no test expects.
    let (sender, started) = mpsc::channel();
    thread::spawn(move || {
        sender.send(()).unwrap();
        thread::sleep(PLENTY);
        std::process::abort();
    });
    started.recv().unwrap();
    Program::new().worker_threads(2).run(shop)
}

async fn shop(signals: Signals) -> Exit {
    let (tasks_before, descriptors_before) = (tasks(), descriptors());
    let work = Work::default();
    let in_flight = InFlight::default();
    let report = {
        let (lifecycle, addresses) = components(&work);
        let lifecycle = lifecycle
            .budget(PLENTY)
            .stop_on(signals)
            .observe(in_flight.observer());
        let handle = lifecycle.handle();
        let held = work.clone();
        let introduction = tokio::spawn(async move {
            assert_eq!(handle.ready().await, Ok(()));
            for (protocol, address) in &addresses {
                say(format!("{protocol} {}", address.get().unwrap()));
            }
            let held = held.0.held.acquire_many(SERVERS).await;
            held.unwrap().forget();
            say("each server has a request in hand");
        });
        let report = lifecycle.run().await.unwrap();
        introduction.await.unwrap();
        report
    };

    say(match report.is_clean() {
        true => format!("the report is clean: {}", report.cause),
        false => format!("{report:?}"),
    });
    say(match (in_flight.nothing(), work.broken_off()) {
        (idle, 0) if idle.is_empty() => "each component had work in flight, and has done it".into(),
        (idle, jobs) => format!("{idle:?} had nothing in flight, {jobs} jobs were broken off"),
    });
    say(who_decided(&report));
    say(format!(
        "{} tasks are left",
        left(tasks_before, tasks).await
    ));
    let left = left(descriptors_before, descriptors).await;
    say(format!("{left} descriptors are left"));
    Exit::from(&report)
}

/// The sum of all stops is ten times the chain, however slow the machine: it makes both longer.
fn who_decided(report: &Report) -> String {
    let stops = report.timeline.iter();
    let stops = stops.filter(|step| step.kind == StepKind::Stop);
    let stops: Vec<_> = stops.map(TimelineStep::took).collect();
    let (sum, took) = (stops.iter().sum::<Duration>(), report.took());
    if stops.len() == COMPONENTS && took >= CHAIN * STOP && took < sum / 3 {
        "the longest chain decided the time".into()
    } else {
        format!(
            "{} stops of {sum:?} in all have taken {took:?}: {report}",
            stops.len()
        )
    }
}

/// How many there are beyond those of before. What is gone for the group may not be for the runtime yet,
/// and a client in here hears from its runtime that it has been dropped.
async fn left(before: usize, now: fn() -> usize) -> usize {
    let begin = Instant::now();
    while now() > before && begin.elapsed() < PLENTY / 5 {
        sleep(Duration::from_millis(1)).await;
    }
    now().saturating_sub(before)
}

/// What the components do, all of them together.
#[derive(Clone, Default)]
struct Work(Arc<Jobs>);

struct Jobs {
    begun: AtomicUsize,
    done: AtomicUsize,
    /// Has a permit for each request that waits for the stop.
    held: Semaphore,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            begun: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            held: Semaphore::new(0),
        }
    }
}

impl Work {
    async fn job<F: Future>(&self, job: F) -> F::Output {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        let output = job.await;
        self.0.done.fetch_add(1, Ordering::Relaxed);
        output
    }

    /// Is in flight until some time after the stop has begun.
    async fn held(&self, stop: Stop) {
        let wait = async {
            self.0.held.add_permits(1);
            stop.stopping().await;
            sleep(STOP).await;
        };
        self.job(wait).await;
    }

    fn broken_off(&self) -> usize {
        self.0.begun.load(Ordering::Relaxed) - self.0.done.load(Ordering::Relaxed)
    }
}

/// What each component had in flight when it was told to stop.
#[derive(Clone, Default)]
struct InFlight(Arc<Mutex<BTreeMap<String, usize>>>);

impl InFlight {
    fn observer(&self) -> impl FnMut(&Event) + Send + 'static {
        let this = self.clone();
        move |event| {
            if let (Some(component), EventKind::Ended { in_flight, .. }) =
                (&event.component, &event.kind)
            {
                let mut ended = this.0.lock().unwrap();
                assert_eq!(ended.insert(component.to_string(), *in_flight), None);
            }
        }
    }

    /// Those who had nothing.
    fn nothing(&self) -> Vec<String> {
        let ended = self.0.lock().unwrap();
        assert_eq!(ended.len(), COMPONENTS);
        let idle = ended.iter().filter(|(_, in_flight)| **in_flight == 0);
        idle.map(|(component, _)| component.clone()).collect()
    }
}

type Address = Provided<SocketAddr>;

fn components(work: &Work) -> (Lifecycle, Vec<(&'static str, Address)>) {
    let mut shop = Lifecycle::new("shop").component(store("queue".into(), work));
    let mut addresses = Vec::new();
    let grpcs: Vec<_> = (0..DOMAINS).map(|_| Address::new("grpc")).collect();
    for domain in 0..DOMAINS {
        let next = (domain + 1) % DOMAINS;
        let name = |part: &str| format!("{part}-{domain}");
        let address = Address::new("http");
        let backs = [&grpcs[domain], &grpcs[next]];
        shop = shop
            .component(store(name("db"), work))
            .component(store(name("cache"), work))
            .component(worker(name("repository"), work).after([name("db"), name("cache")]))
            .component(worker(name("worker"), work).after([name("repository"), "queue".into()]))
            .component(grpc(name("grpc"), work, &grpcs[domain]).after([name("repository")]))
            .component(http(name("http"), work, backs, &address));
        addresses.push(("http", address));
    }
    let servers: Vec<_> = addresses.iter().map(|(_, http)| http.clone()).collect();
    let address = Address::new("gateway");
    shop = shop.component(gateway(work, &servers, &address));
    addresses.push(("http", address));
    addresses.extend(grpcs.into_iter().map(|grpc| ("grpc", grpc)));
    assert_eq!(addresses.len(), SERVERS as usize);
    (shop, addresses)
}

fn store(name: String, work: &Work) -> Component {
    let work = work.clone();
    let open = |ctx: Context| async move {
        ctx.group().spawn(jobs(ctx.clone(), work));
        Ok(())
    };
    let close = |(), _| async { Ok(sleep(STOP).await) };
    Component::resource(name, open, close)
}

fn worker(name: String, work: &Work) -> Component {
    let work = work.clone();
    Component::new(name, move |ctx| async move {
        ctx.ready();
        jobs(ctx, work).await?;
        Ok(sleep(STOP).await)
    })
}

/// Is always in the middle of a job; the last one ends after the stop has begun.
async fn jobs(ctx: Context, work: Work) -> Result<(), BoxError> {
    ctx.set_in_flight(1);
    while !ctx.token().is_cancelled() {
        work.job(sleep(STOP / 10)).await;
    }
    Ok(())
}

fn grpc(name: String, work: &Work, address: &Address) -> Component {
    let work = work.clone();
    Component::using(address.provider()).run(name, async move |ctx, address| {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let bound = listener.local_addr()?;
        let routes = Routes::new(HealthServer::new(work));
        // An HTTP/2 client is told that it is over, and has lost nothing by that.
        let server = taskgroup::server::tonic::serve("grpc", listener, routes).linger(STOP);
        let server = server.run(&ctx);
        address.set(bound);
        ctx.ready();
        Ok(server.await?)
    })
}

#[tonic::async_trait]
impl Health for Work {
    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let stop = request.extensions().get::<Stop>().cloned();
        match stop {
            Some(stop) if request.get_ref().service == "held" => self.held(stop).await,
            _ => self.job(sleep(STOP / 10)).await,
        }
        Ok(Response::new(HealthCheckResponse::default()))
    }

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("nobody watches"))
    }
}

/// Each of its requests calls two backs.
fn http(name: String, work: &Work, backs: [&Address; 2], address: &Address) -> Component {
    let work = work.clone();
    let using = Component::using((backs[0], backs[1], address.provider()));
    using.run(name, async move |ctx, (own, next, address)| {
        let mut channels = Vec::new();
        for back in [own, next] {
            channels.push(Endpoint::from_shared(format!("http://{back}"))?.connect_lazy());
        }
        let page = {
            let work = work.clone();
            async move || work.job(call_all(channels)).await
        };
        serve(ctx, Router::new().route("/", get(page)), work, address).await
    })
}

async fn call_all(channels: Vec<Channel>) -> (StatusCode, String) {
    for channel in channels {
        let mut back = HealthClient::new(channel);
        if let Err(error) = back.check(HealthCheckRequest::default()).await {
            return (StatusCode::BAD_GATEWAY, error.to_string());
        }
    }
    (StatusCode::OK, "page".into())
}

/// Each of its requests is one to the next HTTP server, on a connection of its own.
fn gateway(work: &Work, servers: &[Address], address: &Address) -> Component {
    let work = work.clone();
    let using = Component::using((servers, address.provider()));
    using.run("gateway", async move |ctx, (servers, address)| {
        let servers = Arc::new(servers);
        let turn = Arc::new(AtomicUsize::new(0));
        let forward = {
            let work = work.clone();
            async move || {
                let turn = turn.fetch_add(1, Ordering::Relaxed) % servers.len();
                match work.job(ask(servers[turn])).await {
                    Ok(answer) if answer.starts_with("HTTP/1.1 200") => (StatusCode::OK, answer),
                    Ok(answer) => (StatusCode::BAD_GATEWAY, answer),
                    Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
                }
            }
        };
        serve(ctx, Router::new().route("/", get(forward)), work, address).await
    })
}

async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut server = TcpStream::connect(address).await?;
    let request = b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n";
    server.write_all(request).await?;
    let mut answer = String::new();
    server.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn serve(
    ctx: Context,
    app: Router,
    work: Work,
    address: Provider<SocketAddr>,
) -> Result<(), BoxError> {
    let held = async move |stop: Stop| work.held(stop).await;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let bound = listener.local_addr()?;
    let app = app.route("/held", get(held));
    // Longer than a busy client is without a word on any machine; they leave when they are told.
    let server = taskgroup::server::axum::serve("http", listener, app).linger(PLENTY / 10);
    let server = server.run(&ctx);
    address.set(bound);
    ctx.ready();
    Ok(server.await?)
}

/// Says a line to the parent. The parent may be gone: a panic here would change the exit status.
fn say(line: impl std::fmt::Display) {
    let mut stdout = std::io::stdout().lock();
    drop(writeln!(stdout, "{line}").and_then(|()| stdout.flush()));
}
