//! The demo: the consumer under load, stopped in the middle of it by a real SIGTERM.
//!
//! It starts a broker of its own. First comes the log of the consumer with the lines of the demo among them, then the
//! sums, and at the end the timeline of the stop.

mod server;

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use taskgroup::BoxError;
use taskgroup::lifecycle::{Lifecycle, Report};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::info;

use crate::broker::{Broker, EVENTS, ORDERS};
use crate::demo::server::Server;
use crate::options::Options;
use crate::order::Order;
use crate::service;
use crate::store::Store;

/// More than the consumer can do before the signal.
const ORDERS_SENT: i64 = 2000;
/// How long the work on one of them takes.
const MILLISECONDS: u64 = 5;
const BEFORE_THE_SIGNAL: Duration = Duration::from_millis(700);

/// Runs the demo and returns how the consumer ended.
pub(crate) async fn run(
    options: Options,
    own: impl FnOnce(Lifecycle) -> Lifecycle,
) -> Result<Report, BoxError> {
    let server = Server::start().await?;
    let options = Options {
        nats: server.url().to_owned(),
        db: server.directory().join("consumer.db"),
        ..options
    };
    let broker = Broker::connect(&options.nats).await?;
    order(&broker).await?;
    info!(
        "demo: {ORDERS_SENT} orders are at the broker {}",
        options.nats
    );

    let (ready, is_ready) = oneshot::channel();
    let stopping = tokio::spawn(async move {
        // Never, if the consumer did not start: it says why.
        if is_ready.await.is_ok() {
            sleep(BEFORE_THE_SIGNAL).await;
            info!("demo: now SIGTERM to myself");
            send_sigterm()?;
        }
        Ok::<_, BoxError>(())
    });
    let lifecycle = own(service::lifecycle(&options));
    let on_ready = || {
        // Refused only if the task above has panicked, which is told below.
        let _ = ready.send(());
    };
    let ended = service::run(lifecycle, on_ready).await?;
    info!("demo: the consumer has ended");
    stopping.await??;

    let sums = sums(&broker, &options.db).await?;
    drop(writeln!(io::stdout(), "{sums}\n{ended}"));
    server.stop().await?;
    Ok(ended)
}

async fn order(broker: &Broker) -> Result<(), BoxError> {
    for id in 1..=ORDERS_SENT {
        let order = Order {
            id,
            item: "tea".to_owned(),
            quantity: 1,
            ms: MILLISECONDS,
            fault: None,
        };
        let payload = serde_json::to_vec(&order)?.into();
        broker
            .publish(ORDERS.0, &format!("new-{id}"), payload)
            .await?;
    }
    Ok(())
}

/// Compares what the broker has with what is in the database.
async fn sums(broker: &Broker, database: &Path) -> Result<String, BoxError> {
    let store = Store::open(database).await?;
    let (rows, sold) = store.sums().await?;
    store.close().await;
    let events = broker.count(EVENTS.1).await?;
    let open = broker.open_orders().await?;
    Ok(format!(
        "\norders    {ORDERS_SENT} sent, {rows} of them in the database, {sold} of tea sold, {events} events published\n\
         rest      {open} are at the broker for the next consumer"
    ))
}

#[cfg(unix)]
fn send_sigterm() -> io::Result<()> {
    use rustix::process::{Signal, getpid, kill_process};

    Ok(kill_process(getpid(), Signal::TERM)?)
}

#[cfg(not(unix))]
fn send_sigterm() -> io::Result<()> {
    info!("demo: this system has no SIGTERM; press Ctrl-C instead");
    Ok(())
}
