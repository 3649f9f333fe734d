//! The service: its components, what each one needs, and so the order in which they start and stop.
//!
//! ```text
//!   start ─────────────────────────────────────────▶
//!   metrics ──▶ database ──▶ grpc ──▶ http          clients ──REST──▶ http ──gRPC──▶ grpc ──▶ database
//!                        └─▶ worker
//!   ◀────────────────────────────────────────── stop
//! ```
//!
//! A component is told to stop when all that need it have ended. So http answers what is in flight while
//! grpc still serves it, but for what has no end of its own: event streams and websockets end at once.
//! The worker commits its batch; what is ordered after that waits for the next start. The database is
//! closed when nothing uses it. The metrics are there before all others and after them, so that
//! the start and the stop can be watched.

use std::time::Duration;

use taskgroup::BoxError;
use taskgroup::lifecycle::{Component, Context, Lifecycle, PlanError, Provided, Report};
use taskgroup::server::LameDuck;
use tokio::sync::mpsc;
use tonic::transport::Endpoint;
use tracing::info;

use crate::bind::bind;
use crate::faults::WorkerFault;
use crate::parts::{Addresses, Parts};
use crate::store::{Database, Store};
use crate::times::{AFTER_THE_GRACE, CLOSING};
use crate::{faults, grpc, http, metrics, worker};

/// Returns the service with its order and its times. Nothing is opened yet.
pub(crate) fn lifecycle(parts: &Parts) -> Lifecycle {
    let times = parts.times();
    let grace = times.grace.saturating_add(AFTER_THE_GRACE);
    let (fault, faults) = mpsc::channel(1);
    let (database, store) = database(parts);
    Lifecycle::new("orders")
        .budget(times.budget)
        .observe(taskgroup::process::metrics::observer())
        .component(metrics(parts))
        .component(database.after(["metrics"]))
        .component(grpc(parts, &store).grace(grace))
        .component(http(parts, fault).grace(grace))
        .component(worker(&store, faults))
}

/// Runs it to its end; `on_ready` is called when all of it is ready.
pub(crate) async fn run(
    lifecycle: Lifecycle,
    parts: &Parts,
    on_ready: impl FnOnce(Addresses),
) -> Result<Report, PlanError> {
    let handle = lifecycle.handle();
    let tell = async {
        if handle.ready().await.is_ok() {
            parts.addresses().map(on_ready);
        }
    };
    let (report, ()) = tokio::join!(lifecycle.run(), tell);
    report
}

fn metrics(parts: &Parts) -> Component {
    let parts = parts.clone();
    let wait = parts.options.last_scrape;
    let using = Component::using(parts.metrics.provider());
    let metrics = using.run("metrics", async move |ctx, bound| {
        let listener = metrics::bind(parts.options.metrics.as_deref()).await?;
        let address = listener.local_addr()?;
        info!("metrics: on http://{address}/metrics");
        let last_scrape = LameDuck::new(parts.options.last_scrape);
        let token = ctx.token().clone();
        let routes = metrics::routes(parts.recorded, token, last_scrape.clone());
        let routes = routes.merge(ctx.readiness().routes());
        bound.set(address);
        ctx.ready();
        let server = taskgroup::server::axum::serve("metrics", listener, routes);
        // All else has ended when this one is told. Its last values are scraped once more.
        Ok(server.lame_duck(last_scrape).run(&ctx).await?)
    });
    match wait {
        Duration::ZERO => metrics,
        wait => metrics.grace(wait.saturating_add(CLOSING)),
    }
}

fn database(parts: &Parts) -> (Component, Provided<Store>) {
    let database = parts.options.db.clone();
    let open = async move |_: Context| open(database).await;
    let close = async |store: Store, _| {
        store.close().await;
        Ok(info!("database: closed"))
    };
    Component::shared("database", open, close)
}

fn grpc(parts: &Parts, store: &Provided<Store>) -> Component {
    let parts = parts.clone();
    let using = Component::using((store, parts.grpc.provider()));
    using.run("grpc", async move |ctx, (store, bound)| {
        let listener = bind("grpc", &parts.options.grpc).await?;
        let services = grpc::routes(store, ctx.readiness());
        bound.set(listener.local_addr()?);
        ctx.ready();
        let server = taskgroup::server::tonic::serve("grpc", listener, services);
        Ok(parts.set_up(server).run(&ctx).await?)
    })
}

fn http(parts: &Parts, fault: mpsc::Sender<WorkerFault>) -> Component {
    let parts = parts.clone();
    let using = Component::using((&parts.grpc, parts.http.provider()));
    using.run("http", async move |ctx, (grpc, bound)| {
        let listener = bind("http", &parts.options.http).await?;
        let back = Endpoint::from_shared(format!("http://{grpc}"))?;
        let mut routes = http::routes(back.connect_lazy()).merge(ctx.readiness().routes());
        if parts.options.faults {
            routes = routes.merge(faults::routes(fault));
        }
        bound.set(listener.local_addr()?);
        ctx.ready();
        let server = taskgroup::server::axum::serve("http", listener, routes);
        Ok(parts.set_up(server).run(&ctx).await?)
    })
}

fn worker(store: &Provided<Store>, faults: mpsc::Receiver<WorkerFault>) -> Component {
    Component::using(store).run("worker", async |ctx, store| {
        ctx.ready();
        worker::run(store, faults, ctx.token()).await
    })
}

async fn open(database: Option<Database>) -> Result<Store, BoxError> {
    let database = database.map_or_else(Database::fresh_file, Ok)?;
    info!("database: {database}");
    Store::open(&database)
        .await
        .map_err(|error| format!("cannot open the database {database}: {error}").into())
}
