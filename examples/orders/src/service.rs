//! The service: its components, what each one needs, and so the order in which they start and stop.
//!
//! ```text
//!   start ─────────────────────────────────────────▶
//!   metrics ──▶ database ──▶ grpc ──▶ http          clients ──REST──▶ http ──gRPC──▶ grpc ──▶ database
//!                        └─▶ worker
//!   ◀────────────────────────────────────────── stop
//! ```
//!
//! A component stops when all that need it have ended: http answers what is in flight while grpc still
//! serves it; the database is closed when nobody uses it any more. The metrics are there before
//! the first of them and after the last, so that the start and the stop can be watched.

use std::net::SocketAddr;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use taskgroup::lifecycle::{Context, PlanError, Provided};
use taskgroup::{BoxError, Component, DrainReport, Lifecycle, Report};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tracing::{info, warn};

use crate::faults::WorkerFault;
use crate::options::Options;
use crate::store::{Database, Store};
use crate::times::{AFTER_THE_GRACE, CLOSING, KILL_GRACE, Times};
use crate::{faults, grpc, http, metrics, worker};

/// The service before its start: what it is made from, and what its components have for each other.
#[derive(Clone)]
pub(crate) struct Service {
    options: Options,
    recorded: PrometheusHandle,
    /// Hears how the drain of each server went.
    on_report: Arc<dyn Fn(&DrainReport) + Send + Sync>,
    store: Provided<Store>,
    http: Provided<SocketAddr>,
    grpc: Provided<SocketAddr>,
    metrics: Provided<SocketAddr>,
}

/// Where the service can be reached; a port that was asked for as 0 has its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

impl Service {
    pub(crate) fn new(
        options: Options,
        recorded: PrometheusHandle,
        on_report: impl Fn(&DrainReport) + Send + Sync + 'static,
    ) -> Self {
        Self {
            options,
            recorded,
            on_report: Arc::new(on_report),
            store: Provided::new("store"),
            http: Provided::new("address of http"),
            grpc: Provided::new("address of grpc"),
            metrics: Provided::new("address of metrics"),
        }
    }

    /// Returns the service with the order in which it starts and stops. Nothing is opened yet.
    pub(crate) fn lifecycle(&self) -> Lifecycle {
        let times = Times::of(&self.options);
        let grace = times.grace.saturating_add(AFTER_THE_GRACE);
        let (fault, faults) = mpsc::channel(1);
        Lifecycle::new("orders")
            .budget(times.budget)
            .component(self.metrics())
            .component(self.database().after(["metrics"]))
            .component(self.grpc().after(["database"]).grace(grace))
            .component(self.http(fault).after(["grpc"]).grace(grace))
            .component(self.worker(faults).after(["database"]))
    }

    /// Runs it to its end, as `owned` wants it; `on_ready` is called when all of it is ready.
    pub(crate) async fn run(
        &self,
        owned: impl FnOnce(Lifecycle) -> Lifecycle,
        on_ready: impl FnOnce(Addresses),
    ) -> Result<Report, PlanError> {
        let lifecycle = owned(self.lifecycle());
        let handle = lifecycle.handle();
        let tell = async {
            if handle.ready().await {
                self.addresses().map(on_ready);
            }
        };
        let (report, ()) = tokio::join!(lifecycle.run(), tell);
        report
    }

    /// Returns nothing if a server is not there, or not any more.
    fn addresses(&self) -> Option<Addresses> {
        Some(Addresses {
            http: self.http.get().ok()?,
            grpc: self.grpc.get().ok()?,
            metrics: self.metrics.get().ok()?,
        })
    }

    fn metrics(&self) -> Component {
        let this = self.clone();
        Component::new("metrics", async move |ctx| {
            let listener = listen_for_metrics(this.options.metrics.as_deref()).await?;
            let address = listener.local_addr()?;
            info!("metrics: on http://{address}/metrics");
            let routes = metrics::routes(this.recorded).merge(ctx.readiness().routes());
            ctx.ready_with(&this.metrics, address);
            let server = taskgroup::axum::serve("metrics", listener, routes);
            server.run(&ctx).await
        })
    }

    fn database(&self) -> Component {
        let this = self.clone();
        let open = async move |ctx: Context| {
            let store = open(this.options.db).await?;
            ctx.provide(&this.store, store.clone());
            Ok(store)
        };
        Component::resource("database", open, close)
    }

    fn grpc(&self) -> Component {
        let this = self.clone();
        Component::new("grpc", async move |ctx| {
            let listener = listen("grpc", &this.options.grpc).await?;
            let services = grpc::routes(this.store.get()?, ctx.readiness());
            ctx.ready_with(&this.grpc, listener.local_addr()?);
            taskgroup::tonic::serve("grpc", listener, services)
                .grace(Times::of(&this.options).grace)
                .kill_grace(KILL_GRACE)
                .idle_grace(this.options.idle_grace)
                .on_report(move |report| (this.on_report)(report))
                .run(&ctx)
                .await
        })
    }

    fn http(&self, fault: mpsc::Sender<WorkerFault>) -> Component {
        let this = self.clone();
        Component::new("http", async move |ctx| {
            let listener = listen("http", &this.options.http).await?;
            let back = format!("http://{}", this.grpc.get()?);
            let back = Endpoint::from_shared(back)?.connect_lazy();
            let mut routes = http::routes(back).merge(ctx.readiness().routes());
            if this.options.faults {
                routes = routes.merge(faults::routes(fault));
            }
            ctx.ready_with(&this.http, listener.local_addr()?);
            taskgroup::axum::serve("http", listener, routes)
                .grace(Times::of(&this.options).grace)
                .kill_grace(KILL_GRACE)
                .idle_grace(this.options.idle_grace)
                .on_report(move |report| (this.on_report)(report))
                .run(&ctx)
                .await
        })
    }

    fn worker(&self, faults: mpsc::Receiver<WorkerFault>) -> Component {
        let store = self.store.clone();
        Component::new("worker", async move |ctx| {
            let store = store.get()?;
            ctx.ready();
            worker::run(store, faults, ctx.token()).await
        })
    }
}

async fn open(database: Option<Database>) -> Result<Store, BoxError> {
    let database = database.map_or_else(Database::fresh_file, Ok)?;
    info!("database: {database}");
    Store::open(&database)
        .await
        .map_err(|error| format!("cannot open the database {database}: {error}").into())
}

/// Takes milliseconds, unless a connection was left in use by a server that was forced.
async fn close(store: Store) -> Result<(), BoxError> {
    match timeout(CLOSING, store.close()).await {
        Ok(()) => info!("database: closed"),
        Err(_) => warn!("database: still in use after {CLOSING:?}, left to the system"),
    }
    Ok(())
}

async fn listen(server: &str, address: &str) -> Result<TcpListener, BoxError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("server `{server}`: cannot listen on {address}: {error}").into())
}

/// Without an address it is the usual one, or a free one: there may be other services on this machine.
async fn listen_for_metrics(address: Option<&str>) -> Result<TcpListener, BoxError> {
    if let Some(address) = address {
        return listen("metrics", address).await;
    }
    match TcpListener::bind(metrics::USUAL_ADDRESS).await {
        Ok(listener) => Ok(listener),
        Err(_) => listen("metrics", "127.0.0.1:0").await,
    }
}
