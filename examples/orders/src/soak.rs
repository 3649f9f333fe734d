//! The soak: the service is started, used and stopped again and again in one process, and what the process holds
//! between two runs is measured. It has to stay the same.
//!
//! In each run clients come and go, and a component fails and is restarted all the time. Linux only, which says in
//! `/proc` what a process holds.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use taskgroup::lifecycle::{Component, Report};
use taskgroup::supervise::{Backoff, Supervisor};
use taskgroup::{BoxError, CancellationToken, Signals, TaskGroup};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::demo::client::Connection;
use crate::demo::tally::Tally;
use crate::options::Options;
use crate::parts::{Addresses, Parts};
use crate::service;
use crate::store::Database;

/// How long the service runs before it is stopped again.
const RUN: Duration = Duration::from_secs(2);

const CLIENTS: u64 = 16;

/// How many requests a client sends before it takes another connection.
const REQUESTS: u64 = 5;

/// The component that fails all the time.
const RESTLESS: &str = "restless";

/// How often it is restarted.
const RESTART: Duration = Duration::from_millis(20);

/// The rows of the table.
const ROWS: usize = 12;

/// By how much the memory may differ between the first third and the last. An allocator gives nothing back at once.
const MARGIN: f64 = 0.05;

/// What the process holds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    kilobytes: u64,
    descriptors: usize,
    tasks: usize,
    threads: usize,
}

/// Runs for `length`, or until a signal, and prints what was held. An error says that something has grown.
pub(crate) async fn run(
    options: Options,
    recorded: PrometheusHandle,
    mut signals: Signals,
    length: Duration,
) -> Result<(), BoxError> {
    let options = Options {
        http: "127.0.0.1:0".to_owned(),
        grpc: "127.0.0.1:0".to_owned(),
        metrics: Some("127.0.0.1:0".to_owned()),
        db: Some(options.db.clone().map_or_else(Database::fresh_file, Ok)?),
        ..options
    };
    let tally = Arc::new(Tally::default());
    let began = Instant::now();
    let mut samples = Vec::new();
    let mut runs = 0;
    while began.elapsed() < length {
        let one = run_once(options.clone(), recorded.clone(), Arc::clone(&tally));
        let report = tokio::select! {
            report = one => report?,
            signal = signals.recv() => return Err(format!("{signal} has ended the soak").into()),
        };
        // A failure of the one that fails all the time may come just as it is told to stop.
        let mut errors = report.errors.iter();
        if report.was_forced() || errors.any(|error| error.component != RESTLESS) {
            return Err(format!("run {runs} was not clean:\n{report}").into());
        }
        runs += 1;
        samples.push(Sample::now(began.elapsed())?);
    }
    let mut out = io::stdout();
    writeln!(out, "{runs} runs of {RUN:?}; {}", tally.counts().so_far())?;
    write!(out, "{}", Table(&samples))?;
    has_not_grown(&samples)?;
    match tally.counts().lost() {
        0 => Ok(()),
        lost => Err(format!("{lost} requests were lost").into()),
    }
}

/// Starts the service, has clients use it, and stops it.
async fn run_once(
    options: Options,
    recorded: PrometheusHandle,
    tally: Arc<Tally>,
) -> Result<Report, BoxError> {
    let parts = Parts::new(options, recorded, |_| {});
    let lifecycle = service::lifecycle(&parts).component(restless());
    let handle = lifecycle.handle();
    let (serving, is_serving) = oneshot::channel();
    let load = async move {
        let Ok(Addresses { http, .. }) = is_serving.await else {
            return Ok(());
        };
        let mut clients = TaskGroup::new();
        for number in 0..CLIENTS {
            let token = clients.token().clone();
            clients.spawn(come_and_go(number, http, Arc::clone(&tally), token));
        }
        sleep(RUN).await;
        handle.stop("the soak goes on");
        // They leave when connections are refused, or when they are told to.
        sleep(Duration::from_millis(100)).await;
        clients.cancel();
        clients.wait().await
    };
    let on_ready = |addresses| {
        let _ = serving.send(addresses);
    };
    let (report, clients) = tokio::join!(service::run(lifecycle, &parts, on_ready), load);
    clients?;
    Ok(report?)
}

/// Fails all the time, and is restarted.
fn restless() -> Component {
    let supervisor = Supervisor::new(RESTLESS)
        .intensity(usize::MAX, Duration::from_secs(1))
        .backoff(Backoff::new(RESTART, RESTART).no_jitter())
        .child("child", async |stop: CancellationToken| {
            match stop.run_until_cancelled(sleep(RESTART)).await {
                Some(()) => Err("again".into()),
                None => Ok(()),
            }
        });
    Component::supervisor(supervisor)
}

async fn come_and_go(
    number: u64,
    service: SocketAddr,
    tally: Arc<Tally>,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let order = format!(r#"{{"item":"tea","quantity":{}}}"#, number + 1);
    while !stop.is_cancelled() {
        let Some(mut connection) = Connection::open(service, &tally).await else {
            break;
        };
        for request in 0..REQUESTS {
            let answer = match request % 2 {
                0 => connection.post("/orders", order.clone()).await,
                _ => connection.get("/slow?ms=3").await,
            };
            if answer.is_none_or(|answer| answer.goodbye) {
                break;
            }
            sleep(Duration::from_millis(number)).await;
        }
    }
    Ok(())
}

impl Sample {
    fn now(at: Duration) -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        Ok(Self {
            at,
            kilobytes: number("VmRSS:"),
            descriptors: fs::read_dir("/proc/self/fd")?.count(),
            tasks: Handle::current().metrics().num_alive_tasks(),
            threads: usize::try_from(number("Threads:")).unwrap_or(0),
        })
    }
}

/// Compares the first third with the last, without the first runs, which fill what is kept for the next ones.
fn has_not_grown(samples: &[Sample]) -> Result<(), BoxError> {
    let warm = &samples[samples.len() / 10..];
    let third = warm.len() / 3;
    if third == 0 {
        return Ok(());
    }
    let (first, last) = (&warm[..third], &warm[warm.len() - third..]);
    let most = |of: fn(&Sample) -> u64| {
        let most = |part: &[Sample]| part.iter().map(of).max().unwrap_or(0);
        (most(first), most(last))
    };
    let counts = [
        ("descriptors", most(|sample| sample.descriptors as u64)),
        ("tasks", most(|sample| sample.tasks as u64)),
        ("threads", most(|sample| sample.threads as u64)),
    ];
    for (what, (first, last)) in counts {
        if last > first {
            return Err(format!("the {what} have grown from {first} to {last}").into());
        }
    }
    let median = |part: &[Sample]| {
        let mut sizes: Vec<_> = part.iter().map(|sample| sample.kilobytes).collect();
        sizes.sort_unstable();
        sizes[sizes.len() / 2] as f64
    };
    let (first, last) = (median(first), median(last));
    match last <= first * (1.0 + MARGIN) {
        true => Ok(()),
        false => Err(format!("the memory has grown from {first} kB to {last} kB").into()),
    }
}

/// Some of the samples, with a bar for the memory.
struct Table<'a>(&'a [Sample]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = self.0.iter().map(|sample| sample.kilobytes).max();
        let largest = largest.unwrap_or(1).max(1);
        writeln!(f, "   time  tasks  descriptors  threads   memory")?;
        let step = self.0.len().div_ceil(ROWS).max(1);
        for sample in self.0.iter().step_by(step) {
            let width = usize::try_from(sample.kilobytes * 40 / largest).unwrap_or(0);
            writeln!(
                f,
                "{:5} s  {:5}  {:11}  {:7}  {:4.1} MB  {}",
                sample.at.as_secs(),
                sample.tasks,
                sample.descriptors,
                sample.threads,
                sample.kilobytes as f64 / 1024.0,
                "▇".repeat(width)
            )?;
        }
        Ok(())
    }
}
