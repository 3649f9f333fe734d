//! The service: what is started, who watches whom, and in which order everything stops.
//!
//! ```text
//!   clients ──REST──▶ http ──gRPC──▶ grpc ──▶ database ◀── worker
//!
//!   a signal, or a task that fails:
//!     worker   finishes its batch
//!     http     answers what is in flight, which needs grpc
//!     grpc     stops when http is through
//!     database is closed after all of them
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use taskgroup::{BoxError, CancellationToken, Sidecar, Signals, TaskGroup};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tracing::{info, warn};

use crate::options::Options;
use crate::store::{Database, Store};
use crate::{faults, grpc, http, worker};

/// Closing takes milliseconds, unless a connection was left in use by a server that was forced.
const CLOSE_DATABASE: Duration = Duration::from_secs(2);

/// The signals that steer the service.
#[derive(Debug)]
pub(crate) struct Triggers {
    pub(crate) stop: Signals,
    pub(crate) list: Signals,
}

/// Where the service can be reached; a port that was asked for as 0 has its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
}

/// What has to be there before the first request: acquired in this order, or not at all.
struct Resources {
    http: TcpListener,
    grpc: TcpListener,
    store: Store,
}

/// Serves until a signal comes or a task fails, and returns when everything has stopped.
pub(crate) async fn run(
    options: Options,
    triggers: Triggers,
    ready: impl FnOnce(Addresses),
) -> Result<(), BoxError> {
    let mut group = TaskGroup::new();
    group.cancel_on(triggers.stop);
    group.list_on(triggers.list);

    let stop = group.token().clone();
    let Some(resources) = stop.run_until_cancelled(acquire(&options)).await else {
        return Ok(());
    };
    let Resources { http, grpc, store } = resources?;
    let addresses = Addresses {
        http: http.local_addr()?,
        grpc: grpc.local_addr()?,
    };

    // A resource of the front like the database is one of the back: it outlives every request.
    let back = Endpoint::from_shared(format!("http://{}", addresses.grpc))?.connect_lazy();
    let (worker_faults, faults) = mpsc::channel(1);
    let mut routes = http::routes(back, stop.clone());
    if options.faults {
        routes = routes.merge(faults::routes(worker_faults));
    }

    // The back serves until the front is through, however that came about: requests in flight
    // need it. Were both to hang on one token, the requests in flight would be answered with 502.
    let front_done = CancellationToken::new();
    let front_ends = front_done.clone().drop_guard();
    let grace = options.grace;
    group.task("http").spawn({
        let front = Sidecar::new("http").grace(grace).serve(&stop, move |stop| {
            axum::serve(http, routes).with_graceful_shutdown(http::after_goodbye(stop, grace))
        });
        async move {
            let _front_ends = front_ends;
            front.await
        }
    });
    group.task("grpc").spawn({
        let store = store.clone();
        Sidecar::new("grpc")
            .grace(grace)
            .serve(&front_done, move |stop| grpc::serve(grpc, store, stop))
    });
    group
        .task("worker")
        .essential()
        .spawn(worker::run(store.clone(), faults, stop));

    ready(addresses);
    let result = group.wait().await;
    if timeout(CLOSE_DATABASE, store.close()).await.is_err() {
        warn!("the database is still in use after {CLOSE_DATABASE:?}; leaving it to the system");
    }
    Ok(result?)
}

async fn acquire(options: &Options) -> Result<Resources, BoxError> {
    let http = listen("http", &options.http).await?;
    let grpc = listen("grpc", &options.grpc).await?;
    let database = match &options.db {
        Some(database) => database.clone(),
        None => Database::fresh_file()?,
    };
    info!("the database is {database}");
    let store = Store::open(&database)
        .await
        .map_err(|error| format!("cannot open the database {database}: {error}"))?;
    Ok(Resources { http, grpc, store })
}

async fn listen(server: &str, address: &str) -> Result<TcpListener, BoxError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("server `{server}`: cannot listen on {address}: {error}").into())
}
