//! An order service, in the shape that people really run: REST (axum) in front, gRPC (tonic)
//! behind it, a background worker, a database.
//!
//! `cargo run -p orders` serves until Ctrl-C; `cargo run -p orders -- demo` shows a stop under
//! load. How the parts are started and stopped is in `service.rs`; read that first. This file owns
//! what only the owner of a process may decide: signals, the runtime, the log, the exit status.

mod demo;
mod faults;
mod grpc;
mod http;
mod options;
mod service;
mod store;
mod worker;
mod ws;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use clap::Parser;
use taskgroup::{BoxError, Exit, Signal, Signals};
use tokio::runtime;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::options::{Command, CommandLine};
use crate::service::{Addresses, Triggers};

/// The messages and services of `proto/orders.proto`.
mod proto {
    #![allow(warnings, reason = "generated code")]
    tonic::include_proto!("orders.v1");
}

fn main() -> Exit {
    // Before anything else: from here on a signal means "stop in an orderly way".
    let triggers = triggers();
    let line = CommandLine::parse();
    Exit::from(triggers.and_then(|triggers| run(line, triggers)))
}

fn triggers() -> Result<Triggers, BoxError> {
    let stop = Signals::terminate()?;
    let list = if cfg!(unix) {
        Some(Signals::watch([Signal::User1])?)
    } else {
        None
    };
    Ok(Triggers { stop, list })
}

fn run(line: CommandLine, triggers: Triggers) -> Result<(), BoxError> {
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = match line.command {
        None => {
            log_to(io::stderr);
            runtime.block_on(service::run(line.options, triggers, print_ready, |_| {}))
        }
        Some(Command::Demo) => {
            log_to(io::stdout);
            runtime.block_on(demo::run(line.options, triggers))
        }
    };
    // What blocks its thread, a handler that was given up as stuck for one, does not hold up the exit.
    runtime.shutdown_background();
    result
}

fn print_ready(addresses: Addresses) {
    let Addresses { http, grpc } = addresses;
    // Nobody may be reading any more, which is no reason to stop.
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "ready http={http} grpc={grpc}").and_then(|()| stdout.flush());
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
