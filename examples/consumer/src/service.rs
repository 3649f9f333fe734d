//! The consumer: its components, what each one needs, and so the order in which they start and stop.
//!
//! ```text
//!   start ──────────────────────────▶
//!   broker ───▶ events ──▶ orders       orders ──▶ database, events ──▶ broker
//!   database ──────────────▶
//!   ◀─────────────────────────── stop
//! ```
//!
//! A component is told to stop when all that need it have ended. So the intake of `orders` is paused first, and its
//! workers are drained. An order is done when its event is published, and is acknowledged then; the rest is handed
//! back. Then `events` is flushed, and has nothing left. At last the database and the connection to the broker are
//! closed, at the same time, for neither needs the other.

use std::sync::Arc;

use taskgroup::BoxError;
use taskgroup::lifecycle::{Component, Context, Lifecycle, PlanError, Provided, Report};
use tokio::net::TcpListener;
use tracing::info;

use crate::broker::Broker;
use crate::events::Event;
use crate::options::Options;
use crate::store::Store;
use crate::{events, orders};

/// Returns the consumer with its order and its times. Nothing is opened yet.
pub(crate) fn lifecycle(options: &Options) -> Lifecycle {
    let options = Arc::new(options.clone());
    let (database, store) = database(&options);
    let (connection, broker) = broker(&options);
    let publisher = Provided::new("publisher");
    let lifecycle = Lifecycle::new("consumer").budget(options.budget);
    let (lifecycle, first) = match &options.probes {
        Some(address) => (lifecycle.component(probes(address)), Some("probes")),
        None => (lifecycle, None),
    };
    lifecycle
        .component(database.after(first))
        .component(connection.after(first))
        .component(events(&options, &broker, &publisher))
        .component(orders(&options, (&store, &broker, &publisher)))
}

/// Runs it to its end; `on_ready` is called when all of it is ready.
pub(crate) async fn run(
    lifecycle: Lifecycle,
    on_ready: impl FnOnce(),
) -> Result<Report, PlanError> {
    let handle = lifecycle.handle();
    let tell = async {
        if handle.ready().await.is_ok() {
            on_ready();
        }
    };
    let (report, ()) = tokio::join!(lifecycle.run(), tell);
    report
}

/// Answers the probes of a platform, from before the others start until after they have ended.
fn probes(address: &str) -> Component {
    let address = address.to_owned();
    Component::new("probes", async move |ctx: Context| {
        let listener = TcpListener::bind(&address).await;
        let listener = listener.map_err(|error| format!("cannot listen on {address}: {error}"))?;
        let routes = ctx.readiness().routes();
        ctx.ready();
        let server = taskgroup::server::axum::serve("probes", listener, routes);
        server.run(&ctx).await?;
        Ok::<_, BoxError>(())
    })
}

fn database(options: &Arc<Options>) -> (Component, Provided<Store>) {
    let options = Arc::clone(options);
    let open = async move |_| {
        let path = &options.db;
        let store = Store::open(path).await;
        store.map_err(|error| -> BoxError {
            format!("cannot open the database {}: {error}", path.display()).into()
        })
    };
    let close = async |store: Store, _| {
        store.close().await;
        Ok(info!("database: closed"))
    };
    Component::shared("database", open, close)
}

fn broker(options: &Arc<Options>) -> (Component, Provided<Broker>) {
    let options = Arc::clone(options);
    let open = async move |_| {
        let url = &options.nats;
        let broker = Broker::connect(url).await;
        broker.map_err(|error| -> BoxError {
            format!("cannot connect to the broker {url}: {error}").into()
        })
    };
    let close = async |broker: Broker, _| {
        broker.close().await?;
        Ok(info!("broker: closed"))
    };
    Component::shared("broker", open, close)
}

fn events(
    options: &Arc<Options>,
    broker: &Provided<Broker>,
    publisher: &Provided<taskgroup::pipeline::Stage<Event>>,
) -> Component {
    let options = Arc::clone(options);
    let using = Component::using((broker, publisher.provider()));
    using.run("events", async move |ctx, (broker, publisher)| {
        let (stage, pool) = events::publisher(broker, &options)?;
        publisher.set(stage);
        ctx.ready();
        events::run(&ctx, pool).await
    })
}

fn orders(
    options: &Arc<Options>,
    uses: (
        &Provided<Store>,
        &Provided<Broker>,
        &Provided<taskgroup::pipeline::Stage<Event>>,
    ),
) -> Component {
    let options = Arc::clone(options);
    let using = Component::using(uses);
    using.run("orders", async move |ctx, (store, broker, events)| {
        orders::run(&ctx, store, broker, events, options).await
    })
}
