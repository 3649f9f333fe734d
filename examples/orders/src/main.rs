//! An order service, in the shape that people really run: REST (axum) in front, gRPC (tonic)
//! behind it, a background worker, a database.
//!
//! `cargo run -p orders` serves until Ctrl-C; `cargo run -p orders -- demo` shows a stop under
//! load. How the parts are started and stopped is in `service.rs`; read that first. This file owns
//! what only the owner of a process may decide: signals, the log, the exit status.

mod bind;
mod demo;
mod faults;
mod grpc;
mod http;
mod metrics;
mod options;
mod parts;
mod service;
mod soak;
mod store;
mod times;
mod worker;
mod ws;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fmt, fs};

use clap::Parser;
use taskgroup::deploy::Checker;
use taskgroup::deploy::StopTimes;
use taskgroup::lifecycle::{Lifecycle, Plan};
use taskgroup::process::StopFile;
use taskgroup::{BoxError, BuildError, Exit, Signal, Signals};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::options::{Command, CommandLine, Options};
use crate::parts::{Addresses, Parts};

/// The messages and services of `proto/orders.proto`.
mod proto {
    #![allow(warnings, reason = "generated code")]
    tonic::include_proto!("orders.v1");
}

fn main() -> Exit {
    // The signals come first: from here on one means "stop in an orderly way".
    taskgroup::main(async |signals| match run(signals).await {
        Ok(exit) => exit,
        Err(error) => Exit::from(Err::<(), BoxError>(error)),
    })
}

async fn run(signals: Signals) -> Result<Exit, BoxError> {
    let CommandLine { command, options } = CommandLine::parse();
    if let Some(Command::Soak { length }) = command {
        // The log of hundreds of runs is too long to read.
        tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::default())?;
        let soaked = soak::run(options, metrics::record()?, signals, length).await;
        return Ok(Exit::from(soaked));
    }
    let owned = own(&options, signals)?;
    let print_ready = print_ready(&options);
    let parts = Parts::new(options, metrics::record()?, |_| {});
    let lifecycle = service::lifecycle(&parts);
    if parts.options.plan {
        let plan = lifecycle.plan()?;
        print(&plan);
        if let Some(file) = &parts.options.times {
            print(&format!("\n{}", plan.forecast(&stop_times(file)?)?));
        }
        return Ok(Exit::from(Ok::<(), BoxError>(())));
    }
    if !parts.options.check_deploy.is_empty() {
        return check_deploy(&lifecycle.plan()?, &parts.options.check_deploy);
    }
    let report = match command {
        // The soak has returned above.
        None | Some(Command::Soak { .. }) => {
            log_to(io::stderr);
            service::run(owned(lifecycle), &parts, print_ready).await?
        }
        Some(Command::Demo { svg }) => {
            log_to(io::stdout);
            let report = demo::run(parts, owned).await?;
            if let Some(file) = svg {
                fs::write(&file, report.to_svg())
                    .map_err(|error| format!("--svg {}: {error}", file.display()))?;
            }
            report
        }
    };
    Ok(Exit::from(report))
}

/// Compares deployment files with the plan.
fn check_deploy(plan: &Plan, paths: &[PathBuf]) -> Result<Exit, BoxError> {
    let mut files = Vec::new();
    for path in paths {
        let text =
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        files.push((path, text));
    }
    let findings = Checker::new(plan).check(files);
    print(&findings);
    Ok(match findings.has_errors() {
        true => Exit::from(Err::<(), BoxError>(
            "the deployment does not fit the plan".into(),
        )),
        false => Exit::from(Ok::<(), BoxError>(())),
    })
}

/// Reads how long the components have taken to stop.
fn stop_times(file: &Path) -> Result<StopTimes, BoxError> {
    let name = file.display();
    let text = fs::read_to_string(file).map_err(|error| format!("--times {name}: {error}"))?;
    let times = text.parse();
    times.map_err(|error: BuildError| format!("--times {name}: {error}").into())
}

/// Returns what makes a lifecycle the one of this process: what stops it, and what ends it if it does not stop.
fn own(
    options: &Options,
    signals: Signals,
) -> Result<impl FnOnce(Lifecycle) -> Lifecycle + use<>, BoxError> {
    let file = options.stop_file.as_ref().map(StopFile::new);
    // Not on Windows, which has no signal for it.
    let list = match cfg!(unix) {
        true => Some(Signals::watch([Signal::User1])?),
        false => None,
    };
    Ok(move |lifecycle: Lifecycle| {
        let lifecycle = lifecycle.stop_on(signals).watchdog();
        // systemd hears that it is ready, that it stops and that it is alive, if there is one.
        #[cfg(unix)]
        let lifecycle = lifecycle.observe(taskgroup::process::systemd::observer());
        let lifecycle = list.into_iter().fold(lifecycle, Lifecycle::list_on);
        file.into_iter().fold(lifecycle, Lifecycle::stop_on)
    })
}

/// Prints the address of the metrics, too, if it was asked for.
fn print_ready(options: &Options) -> impl FnOnce(Addresses) + use<> {
    let with_metrics = options.metrics.is_some();
    move |addresses| {
        let Addresses { http, grpc, .. } = addresses;
        let ready = format!("ready http={http} grpc={grpc}");
        if with_metrics {
            print(&format!("{ready} metrics={}", addresses.metrics));
        } else {
            print(&ready);
        }
    }
}

/// The reader of stdout may be gone. The service goes on without it.
fn print(line: &dyn fmt::Display) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Errors of the writer are dropped: reporting them would mean to panic when stderr is closed.
fn log_to<W: Write + IsTerminal + 'static>(output: fn() -> W) {
    tracing_subscriber::fmt()
        .with_writer(output)
        .with_ansi(output().is_terminal())
        .with_timer(SinceStart(Instant::now()))
        .with_target(false)
        .log_internal_errors(false)
        .init();
}

/// What a reader of a shutdown wants to know: milliseconds from the start.
struct SinceStart(Instant);

impl FormatTime for SinceStart {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:8.3}s", self.0.elapsed().as_secs_f64())
    }
}
