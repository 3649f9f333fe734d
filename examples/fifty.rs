//! How do fifty components start and stop, and what decides how long that takes?
//!
//! `cargo run --features axum,lifecycle,signal,tonic --example fifty -- --demo` prints the plan, serves clients of its
//! own for a moment, stops, and prints the timeline. Without `--demo` it serves until Ctrl-C or SIGTERM.
//!
//! Each of eight domains has a database, a cache, a repository, a worker, a gRPC and an HTTP server; there
//! is one queue, and one gateway in front of all. What does not need each other starts and stops at once, so
//! the stop takes as long as the longest chain of those that do, and not as long as fifty stops.

use std::net::SocketAddr;
use std::time::Duration;

use axum::{Router, extract::Path, http::StatusCode, routing::get};
use taskgroup::lifecycle::{
    Component, Context, Handle, Lifecycle, Provided, Provider, Report, StepKind, TimelineStep,
};
use taskgroup::{BoxError, Exit, Signals};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::{task::JoinSet, time::sleep};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[rustfmt::skip]
const DOMAINS: [&str; 8] =
    ["orders", "stock", "customers", "payments", "invoices", "shipping", "search", "mail"];

type Address = Provided<SocketAddr>;

fn main() -> Exit {
    taskgroup::main(run)
}

async fn run(signals: Signals) -> Result<Report, BoxError> {
    let entrance = Address::new("gateway");
    let shop = shop(&entrance).stop_on(signals);
    println!("{}", shop.plan()?);

    let handle = shop.handle();
    let load = tokio::spawn(async move {
        let (Ok(()), Some(address)) = (handle.ready().await, entrance.get()) else {
            return 0;
        };
        println!("all are ready, the gateway is at http://{address}/orders");
        if std::env::args().any(|argument| argument == "--demo") {
            tokio::spawn(stop_after_a_moment(handle));
        }
        clients(address).await
    });
    let report = shop.run().await?;
    println!("{report}");
    println!("{} requests, all answered", load.await?);
    let stops = report
        .timeline
        .iter()
        .filter(|step| step.kind == StepKind::Stop);
    let (stops, took) = (
        stops.map(TimelineStep::took).sum::<Duration>(),
        report.took(),
    );
    println!("{stops:.1?} of stopping in {took:.1?}");
    Ok(report)
}

async fn stop_after_a_moment(handle: Handle) {
    sleep(Duration::from_millis(500)).await;
    handle.stop("the demo is over");
}

fn shop(entrance: &Address) -> Lifecycle {
    let mut shop = Lifecycle::new("shop").component(store("queue".into()));
    let addresses =
        |part| DOMAINS.map(|domain| Address::new(format!("address of {part}-{domain}")));
    let (backs, servers) = (addresses("grpc"), addresses("http"));
    for (index, domain) in DOMAINS.into_iter().enumerate() {
        let next = DOMAINS[(index + 1) % DOMAINS.len()];
        let name = |part: &str| format!("{part}-{domain}");
        let (back, server) = (&backs[index], &servers[index]);
        let (db, cache, repository) = (name("db"), name("cache"), name("repository"));
        shop = shop
            .component(store(db.clone()))
            .component(store(cache.clone()))
            .component(worker(repository.clone(), 40).after([db, cache]))
            .component(worker(name("worker"), 80).after([repository.clone(), "queue".into()]))
            .component(grpc(name("grpc"), back).after([repository]))
            // It uses its own back, and has its neighbour's numbers in its pages.
            .component(http(name("http"), back, server).after([format!("grpc-{next}")]));
    }
    shop.component(gateway(&servers, entrance))
}

/// Is opened, used, and closed when nothing uses it; what it flushes meanwhile it flushes to the end.
fn store(name: String) -> Component {
    let open = |ctx: Context| async move {
        sleep(Duration::from_millis(20)).await;
        ctx.group().spawn(jobs(ctx.clone(), 10));
        Ok(())
    };
    Component::resource(name, open, |(), _| async {
        Ok(sleep(Duration::from_millis(40)).await)
    })
}

/// Is always in the middle of a job that takes so many milliseconds.
fn worker(name: String, milliseconds: u64) -> Component {
    Component::new(name, move |ctx| async move {
        ctx.ready();
        jobs(ctx, milliseconds).await
    })
}

/// Begins no job when it is to stop, and finishes the one that it has begun.
async fn jobs(ctx: Context, milliseconds: u64) -> Result<(), BoxError> {
    while !ctx.token().is_cancelled() {
        ctx.set_in_flight(1);
        sleep(Duration::from_millis(milliseconds)).await;
    }
    Ok(())
}

fn grpc(name: String, address: &Address) -> Component {
    Component::using(address.provider()).run(name, async |ctx, address| {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let bound = listener.local_addr()?;
        let health = Routes::new(ctx.readiness().health_service(&[]));
        let server =
            taskgroup::server::tonic::serve("grpc", listener, health).linger(Duration::ZERO);
        let server = server.run(&ctx);
        address.set(bound);
        ctx.ready();
        Ok(server.await?)
    })
}

fn http(name: String, back: &Address, address: &Address) -> Component {
    let using = Component::using((back, address.provider()));
    using.run(name, async |ctx, (back, address)| {
        let back = Endpoint::from_shared(format!("http://{back}"))?.connect_lazy();
        let app = Router::new().route("/", get(move || work_then_call(back)));
        serve(ctx, app, address).await
    })
}

fn gateway(servers: &[Address], address: &Address) -> Component {
    let using = Component::using((servers, address.provider()));
    using.run("gateway", async |ctx, (servers, address)| {
        let forward = async move |Path(domain): Path<String>| {
            let index = DOMAINS.iter().position(|known| *known == domain);
            let Some(index) = index else {
                return (StatusCode::NOT_FOUND, String::new());
            };
            match ask(servers[index], "/").await {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") => (StatusCode::OK, answer),
                Ok(answer) => (StatusCode::BAD_GATEWAY, answer),
                Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
            }
        };
        let app = Router::new().route("/{domain}", get(forward));
        serve(ctx, app, address).await
    })
}

async fn serve(ctx: Context, app: Router, address: Provider<SocketAddr>) -> Result<(), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let bound = listener.local_addr()?;
    let server =
        taskgroup::server::axum::serve("http", listener, app).linger(Duration::from_millis(50));
    let server = server.run(&ctx);
    address.set(bound);
    ctx.ready();
    Ok(server.await?)
}

async fn work_then_call(back: Channel) -> StatusCode {
    sleep(Duration::from_millis(20)).await;
    let mut back = HealthClient::new(back);
    match back.check(HealthCheckRequest::default()).await {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::BAD_GATEWAY,
    }
}

/// Asks the gateway again and again until it is gone; returns how many requests were answered.
async fn clients(gateway: SocketAddr) -> usize {
    let client = |domain: &'static str| async move {
        let mut answered = 0;
        while let Ok(answer) = ask(gateway, &format!("/{domain}")).await {
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            answered += 1;
        }
        answered
    };
    let clients: JoinSet<_> = DOMAINS.into_iter().map(client).collect();
    clients.join_all().await.into_iter().sum()
}

async fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut server = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n");
    server.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    server.read_to_string(&mut answer).await?;
    Ok(answer)
}
