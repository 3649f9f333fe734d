//! The service: what is started, who watches whom, and in which order everything stops.
//!
//! ```text
//!   clients ──REST──▶ http ──gRPC──▶ grpc ──▶ database ◀── worker
//!
//!   a signal, or a task that fails, fires the token of the group. Who watches what:
//!     readiness  the token: `/readyz` and the health service say no from that moment on
//!     worker     the token: commits its batch and ends; what is ordered later waits for the next start
//!     http       the token: serves on as a lame duck, if it is to be one, and then answers what is
//!                in flight; it needs grpc for that
//!     handlers   the stop of their server: event streams and websockets end when it begins, calls
//!                to grpc are given up just before its deadline
//!     grpc       the end of http
//!     database   nobody: it is closed when all of them have ended
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use taskgroup::{BoxError, CancellationToken, DrainReport, Readiness, Signals, TaskGroup};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tracing::{info, warn};

use crate::options::Options;
use crate::store::{Database, Store};
use crate::{faults, grpc, http, worker};

/// Closing takes milliseconds, unless a connection was left in use by a server that was forced.
const CLOSING: Duration = Duration::from_secs(2);

/// The signals that steer the service.
#[derive(Debug)]
pub(crate) struct Triggers {
    pub(crate) stop: Signals,
    /// Not on Windows, which has no signal for it.
    pub(crate) list: Option<Signals>,
}

/// Where the service can be reached; a port that was asked for as 0 has its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
}

/// What has to be there before the first request, in the order in which it is acquired.
struct Resources {
    front: TcpListener,
    back: TcpListener,
    store: Store,
}

/// Serves until a signal comes or a task fails, and returns when everything has stopped.
///
/// `on_report` hears how the drain of each server went.
pub(crate) async fn run(
    options: Options,
    triggers: Triggers,
    on_ready: impl FnOnce(Addresses),
    on_report: impl Fn(&DrainReport) + Clone + Send + 'static,
) -> Result<(), BoxError> {
    let mut group = TaskGroup::new();
    group.cancel_on(triggers.stop);
    let readiness = Readiness::drain_on(group.token());
    if let Some(list) = triggers.list {
        group.list_on(list);
    }

    let stop = group.token().clone();
    let Some(acquired) = stop.run_until_cancelled(acquire(&options)).await else {
        // A signal came first. There is nothing to stop yet.
        return Ok(group.wait().await?);
    };
    let Resources { front, back, store } = acquired?;
    let addresses = Addresses {
        http: front.local_addr()?,
        grpc: back.local_addr()?,
    };

    // A resource too: the front's way to the back outlives every request that may need it.
    let channel = Endpoint::from_shared(format!("http://{}", addresses.grpc))?.connect_lazy();
    let (fault, faults) = mpsc::channel(1);
    let mut routes = http::routes(channel).merge(readiness.routes());
    if options.faults {
        routes = routes.merge(faults::routes(fault));
    }

    // The back does not hang on the group's token: requests in flight would find it gone. It serves
    // until the front has ended, however that came about.
    let front_ended = CancellationToken::new();
    let http = taskgroup::axum::serve("http", front, routes)
        .lame_duck(options.lame_duck)
        .grace(options.grace)
        .idle_grace(options.idle_grace)
        .on_report(on_report.clone())
        .then_cancel(&front_ended)
        .run(&stop);
    let services = grpc::routes(store.clone(), &readiness);
    let grpc = taskgroup::tonic::serve("grpc", back, services)
        .grace(options.grace)
        .idle_grace(options.idle_grace)
        .on_report(on_report)
        .run(&front_ended);
    let worker = worker::run(store.clone(), faults, stop);

    group.task("http").spawn(http);
    group.task("grpc").spawn(grpc);
    group.task("worker").essential().spawn(worker);

    readiness.set_ready();
    on_ready(addresses);
    let result = group.wait().await;
    close(&store).await;
    Ok(result?)
}

async fn close(store: &Store) {
    match timeout(CLOSING, store.close()).await {
        Ok(()) => info!("database: closed"),
        Err(_) => warn!("database: still in use after {CLOSING:?}, left to the system"),
    }
}

async fn acquire(options: &Options) -> Result<Resources, BoxError> {
    let front = listen("http", &options.http).await?;
    let back = listen("grpc", &options.grpc).await?;
    let database = match &options.db {
        Some(database) => database.clone(),
        None => Database::fresh_file()?,
    };
    info!("database: {database}");
    let store = Store::open(&database)
        .await
        .map_err(|error| format!("cannot open the database {database}: {error}"))?;
    Ok(Resources { front, back, store })
}

async fn listen(server: &str, address: &str) -> Result<TcpListener, BoxError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("server `{server}`: cannot listen on {address}: {error}").into())
}
