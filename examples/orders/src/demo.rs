//! The demo: the service under load, stopped in the middle of it by a real SIGTERM.
//!
//! First comes the log of the service with the lines of the demo among them, then the sums, and at the end the
//! timeline of the stop. The clients are what one meets in the field: they keep their connection alive,
//! and leave when an answer says `connection: close` or when connections are refused.

pub(crate) mod client;
pub(crate) mod tally;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use taskgroup::lifecycle::{Lifecycle, Report};
use taskgroup::server::DrainReport;
use taskgroup::{BoxError, TaskGroup};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::demo::client::Connection;
use crate::demo::tally::Tally;
use crate::http::Created;
use crate::options::Options;
use crate::parts::{Addresses, Parts};
use crate::service;
use crate::store::{Database, Store};

/// Clients that order something and think for a moment, again and again.
const SHOPPERS: u64 = 24;
/// Clients whose requests take long enough to be in flight when the signal comes.
const PATIENT: u64 = 8;
const BEFORE_THE_SIGNAL: Duration = Duration::from_millis(1200);

/// Runs the demo and returns how the service ended.
pub(crate) async fn run(
    Parts {
        options, recorded, ..
    }: Parts,
    owned: impl FnOnce(Lifecycle) -> Lifecycle,
) -> Result<Report, BoxError> {
    let database = match options.db {
        Some(database) => database,
        None => Database::fresh_file()?,
    };
    let options = Options {
        http: "127.0.0.1:0".to_owned(),
        grpc: "127.0.0.1:0".to_owned(),
        metrics: Some("127.0.0.1:0".to_owned()),
        db: Some(database.clone()),
        ..options
    };

    let tally = Arc::new(Tally::default());
    let (serving, is_serving) = oneshot::channel();
    let load = tokio::spawn(load(is_serving, Arc::clone(&tally)));
    let (drained, drains) = mpsc::channel();
    let on_ready = |addresses| {
        // Refused only if the load has panicked, which is told below.
        let _ = serving.send(addresses);
    };
    let on_report = move |report: &DrainReport| {
        let _ = drained.send(report.to_string());
    };
    let parts = Parts::new(options, recorded, on_report);
    let lifecycle = owned(service::lifecycle(&parts));
    let ended = service::run(lifecycle, &parts, on_ready).await?;
    info!("demo: the service has ended");

    // How the service ended is what counts, whatever becomes of the sums.
    let sums = async {
        load.await??;
        sums(&tally, &database, drains).await
    };
    let sums = sums.await.unwrap_or_else(|error| {
        warn!("demo: there are no sums: {error}");
        String::new()
    });
    drop(writeln!(io::stdout(), "{sums}\n{ended}"));
    Ok(ended)
}

/// Drives the clients until the last one has left.
async fn load(serving: oneshot::Receiver<Addresses>, tally: Arc<Tally>) -> Result<(), BoxError> {
    // The service did not start, and says why.
    let Ok(Addresses {
        http,
        grpc,
        metrics,
    }) = serving.await
    else {
        return Ok(());
    };
    info!(
        "demo: serving on http={http} grpc={grpc} metrics={metrics}; {SHOPPERS} clients order, {PATIENT} ask for something slow"
    );

    let mut clients = TaskGroup::new();
    for number in 0..SHOPPERS {
        clients.spawn(shop(number, http, Arc::clone(&tally)));
    }
    for _ in 0..PATIENT {
        clients.spawn(be_patient(http, Arc::clone(&tally)));
    }
    tokio::select! {
        // Somebody else has stopped the service, so that one more signal would force its exit.
        left = clients.wait() => return Ok(left?),
        () = sleep(BEFORE_THE_SIGNAL) => {}
    }
    info!("demo: {}; now SIGTERM to myself", tally.counts().so_far());
    tally.signal_is_sent();
    send_sigterm()?;
    clients.wait().await?;
    info!("demo: the last client has left");
    Ok(())
}

/// Orders again and again, until told to leave or until connections are refused.
async fn shop(number: u64, service: SocketAddr, tally: Arc<Tally>) -> Result<(), BoxError> {
    let order = format!(r#"{{"item":"tea","quantity":{}}}"#, number + 1);
    // Not all in step.
    let think = Duration::from_millis(5 + number);
    while let Some(mut connection) = Connection::open(service, &tally).await {
        while let Some(answer) = connection.post("/orders", order.clone()).await {
            if answer.status == StatusCode::CREATED {
                let Json(Created { id }) = Json::from_bytes(&answer.body)?;
                tally.ordered(id);
            }
            if answer.goodbye {
                return Ok(());
            }
            sleep(think).await;
        }
    }
    Ok(())
}

async fn be_patient(service: SocketAddr, tally: Arc<Tally>) -> Result<(), BoxError> {
    while let Some(mut connection) = Connection::open(service, &tally).await {
        while let Some(answer) = connection.get("/slow?ms=500").await {
            if answer.goodbye {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Compares what the clients were told with what is in the database, and says how the servers see it.
async fn sums(
    tally: &Tally,
    database: &Database,
    drains: Receiver<String>,
) -> Result<String, BoxError> {
    let counts = tally.counts();
    let store = Store::open(database).await?;
    let mut rows = 0;
    for id in &counts.orders {
        rows += usize::from(store.get(*id).await?.is_some());
    }
    store.close().await;
    let mut sums = format!(
        "\n{counts}orders    {} answered with 201, {rows} of them in the database\n",
        counts.orders.len()
    );
    for (number, drain) in drains.try_iter().enumerate() {
        let margin = if number == 0 { "drains" } else { "" };
        writeln!(sums, "{margin:10}{drain}")?;
    }
    Ok(sums)
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
