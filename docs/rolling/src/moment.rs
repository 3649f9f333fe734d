//! The moment of the stop, without a load balancer in front: what was sent and is not answered.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use taskgroup::{BoxError, CancellationToken};
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{Client, Connections, Failure};
use crate::dice::Dice;
use crate::table::{grouped, markdown};

const CLIENTS: u32 = 40;
/// Load before the stop.
const BEFORE: Duration = Duration::from_millis(300);
/// One stop takes a tenth of it.
const WATCHDOG: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Gate,
    Plain,
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    connections: Connections,
    /// The longest pause between two requests.
    think: Duration,
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "keep-alive, up to 5 ms between requests",
        connections: Connections::Kept,
        think: Duration::from_millis(5),
    },
    Kind {
        name: "keep-alive, up to 40 ms between requests",
        connections: Connections::Kept,
        think: Duration::from_millis(40),
    },
    Kind {
        name: "one connection per request, up to 5 ms between them",
        connections: Connections::OnePerRequest,
        think: Duration::from_millis(5),
    },
];

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    sent: u64,
    unanswered: u64,
}

/// Prints the table; fails if the gate has lost a request.
pub(crate) fn measure(stops: u32) -> Result<(), BoxError> {
    // Two runtimes, so that servers and clients meet in the system alone.
    let (servers, clients) = (two_workers()?, two_workers()?);
    println!("{CLIENTS} clients without retries, {stops} stops per row\n");

    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for server in [Server::Gate, Server::Plain] {
        for kind in KINDS {
            let name = format!("{}, {}", server.name(), kind.name);
            let tally = clients.block_on(row(server, kind, stops, &servers));
            let tally = tally.map_err(|error| format!("{name}: {error}"))?;
            eprintln!(
                "{name}: {} sent, {} not answered",
                tally.sent, tally.unanswered
            );
            if server == Server::Gate && tally.unanswered > 0 {
                failures.push(format!("{name}: {} not answered", tally.unanswered));
            }
            rows.push(vec![
                server.name().to_owned(),
                kind.name.to_owned(),
                grouped(tally.sent),
                grouped(tally.unanswered),
            ]);
        }
    }
    let head = ["server", "clients", "requests sent", "not answered"];
    print!("{}", markdown(&head, &rows));

    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures.join("; ").into())
    }
}

fn two_workers() -> io::Result<Runtime> {
    runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

async fn row(server: Server, kind: Kind, stops: u32, servers: &Runtime) -> Result<Tally, BoxError> {
    let mut sum = Tally::default();
    for _ in 0..stops {
        let once = timeout(WATCHDOG, once(server, kind, servers)).await;
        let tally = once.map_err(|_| format!("not through after {WATCHDOG:?}"))??;
        sum.sent += tally.sent;
        sum.unanswered += tally.unanswered;
    }
    Ok(sum)
}

/// One server from its start to the moment when the last client has left.
async fn once(server: Server, kind: Kind, servers: &Runtime) -> Result<Tally, BoxError> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let served = servers.spawn(serve(server, listener, stop.clone()));
    let mut clients: JoinSet<_> = (0..CLIENTS)
        .map(|number| ask(number, kind, address))
        .collect();

    sleep(BEFORE).await;
    if clients.try_join_next().is_some() {
        return Err("a client left before the stop".into());
    }
    stop.cancel();
    let mut sum = Tally::default();
    while let Some(tally) = clients.join_next().await {
        let tally = tally?;
        sum.sent += tally.sent;
        sum.unanswered += tally.unanswered;
    }
    served.await??;
    Ok(sum)
}

async fn serve(
    server: Server,
    listener: std::net::TcpListener,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let listener = TcpListener::from_std(listener)?;
    let routes = Router::new().route("/", get(async || "hello"));
    match server {
        Server::Gate => {
            let server = taskgroup::server::axum::serve("http", listener, routes);
            Ok(server.run(&stop).await?)
        }
        Server::Plain => Ok(axum::serve(listener, routes)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await?),
    }
}

/// Sends requests until an answer says goodbye or connections are refused.
async fn ask(number: u32, kind: Kind, server: SocketAddr) -> Tally {
    let mut client = Client::new(server, kind.connections);
    let mut dice = Dice::new(number);
    let mut tally = Tally::default();
    loop {
        match client.get("/").await {
            Ok(answer) => {
                tally.sent += 1;
                if answer.goodbye && kind.connections == Connections::Kept {
                    break;
                }
            }
            Err(Failure::Unanswered) => {
                tally.sent += 1;
                tally.unanswered += 1;
            }
            Err(Failure::NotSent) => {}
            Err(Failure::Refused) => break,
        }
        sleep(kind.think * dice.below(101) / 100).await;
    }
    tally
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Gate => "`taskgroup::server::axum::serve`",
            Self::Plain => "`axum::serve`, graceful",
        }
    }
}
