//! A consumer that loses nothing: it reads orders from JetStream, writes each into SQLite in one transaction with its
//! id, publishes an event for it, and only then acknowledges it.
//!
//! `cargo run -p consumer` consumes until Ctrl-C; it needs a `nats-server -js`. `cargo run -p consumer -- demo` starts
//! one itself, and shows a stop under load. How the parts are started and stopped is in `service.rs`; read that first.

mod broker;
mod demo;
mod events;
mod faults;
mod options;
mod order;
mod orders;
mod service;
mod store;

use std::fmt;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use taskgroup::deploy::Checker;
use taskgroup::lifecycle::Plan;
use taskgroup::{BoxError, Exit, Signals};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::options::{Command, CommandLine};

fn main() -> Exit {
    // The signals come first: from here on one means "stop in an orderly way".
    taskgroup::main(async |signals| match run(signals).await {
        Ok(exit) => exit,
        Err(error) => Exit::from(Err::<(), BoxError>(error)),
    })
}

async fn run(signals: Signals) -> Result<Exit, BoxError> {
    let CommandLine { command, options } = CommandLine::parse();
    let own = |lifecycle: taskgroup::lifecycle::Lifecycle| lifecycle.stop_on(signals).watchdog();
    let report = match command {
        None => {
            log_to(io::stderr, options.verbose);
            let lifecycle = service::lifecycle(&options);
            if options.plan {
                print(&lifecycle.plan()?);
                return Ok(Exit::from(Ok::<(), BoxError>(())));
            }
            if !options.check_deploy.is_empty() {
                return check_deploy(&lifecycle.plan()?, &options.check_deploy);
            }
            service::run(own(lifecycle), || print(&"ready")).await?
        }
        Some(Command::Demo) => {
            log_to(io::stdout, options.verbose);
            demo::run(options, own).await?
        }
    };
    Ok(Exit::from(report))
}

/// Compares deployment files with the plan.
fn check_deploy(plan: &Plan, paths: &[PathBuf]) -> Result<Exit, BoxError> {
    let read = |path| Ok::<_, io::Error>((path, fs::read_to_string(path)?));
    let files: Result<Vec<_>, _> = paths.iter().map(read).collect();
    let findings = Checker::new(plan).check(files?);
    print(&findings);
    let fits: Result<(), BoxError> = match findings.has_errors() {
        true => Err("the deployment does not fit the plan".into()),
        false => Ok(()),
    };
    Ok(Exit::from(fits))
}

/// The reader may have gone, which is no reason to stop.
fn print(line: &dyn fmt::Display) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Errors of the writer are dropped: reporting them would mean to panic when stderr is closed.
fn log_to<W: Write + IsTerminal + Send + 'static>(output: fn() -> W, is_verbose: bool) {
    let own = match is_verbose {
        true => LevelFilter::DEBUG,
        false => LevelFilter::INFO,
    };
    let targets = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("consumer", own)
        .with_target("taskgroup", LevelFilter::INFO);
    tracing_subscriber::fmt()
        .with_max_level(own)
        .with_writer(output)
        .with_ansi(output().is_terminal())
        .with_timer(SinceStart(Instant::now()))
        .with_target(false)
        .log_internal_errors(false)
        .finish()
        .with(targets)
        .init();
}

/// The milliseconds from the start, which the reader of a shutdown wants to know.
struct SinceStart(Instant);

impl FormatTime for SinceStart {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:8.3}s", self.0.elapsed().as_secs_f64())
    }
}
