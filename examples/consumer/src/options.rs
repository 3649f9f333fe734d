//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use taskgroup::pipeline::AtStop;

/// A consumer of orders: JetStream in front, SQLite behind it, an event for each order, an orderly way out.
///
/// It consumes until Ctrl-C or SIGTERM, then finishes what is in flight and hands the rest back. A second signal ends
/// the process at once.
#[derive(Debug, Parser)]
#[command(name = "consumer", version, args_override_self = true)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) options: Options,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Command {
    /// Starts a broker of its own, consumes under load, sends itself SIGTERM in the middle of it, and reports.
    Demo,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Where the broker is.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "nats://127.0.0.1:4222"
    )]
    pub(crate) nats: String,

    /// The file of the database; it is made if it is missing.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value = "consumer.db"
    )]
    pub(crate) db: PathBuf,

    /// How many orders are worked on at once.
    #[arg(long, global = true, value_name = "ORDERS", default_value = "8")]
    pub(crate) limit: usize,

    /// How many orders are fetched and not begun.
    #[arg(long, global = true, value_name = "ORDERS", default_value = "64")]
    pub(crate) prefetch: usize,

    /// How often an order is tried before it goes to the dead letters.
    #[arg(long, global = true, value_name = "ATTEMPTS", default_value = "3")]
    pub(crate) attempts: u32,

    /// How long a failed order waits for its next attempt, fractions are allowed.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "0.2", value_parser = seconds)]
    pub(crate) backoff: Duration,

    /// How long the broker waits for an acknowledgement before it delivers an order again.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) ack_wait: Duration,

    /// What becomes of what is fetched and not begun at the stop: `drain`, as far as the grace goes, or `hand-back`.
    #[arg(long, global = true, value_name = "CHOICE", default_value = "drain", value_parser = at_stop)]
    pub(crate) at_stop: AtStop,

    /// How long what is there has at the stop, before it is cut and handed back.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) grace: Duration,

    /// How long the whole stop may take.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "28", value_parser = seconds)]
    pub(crate) budget: Duration,

    /// Where `/livez` and `/readyz` are served, for the probes of a platform.
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) probes: Option<String>,

    /// Compares deployment files with the plan, prints what is wrong, and exits with 1 if a stop would not work.
    #[arg(long, global = true, value_name = "FILE", num_args = 1..)]
    pub(crate) check_deploy: Vec<PathBuf>,

    /// Prints in which order it would start and stop, and in what time, and exits.
    #[arg(long, global = true)]
    pub(crate) plan: bool,

    /// Logs each order that is fetched.
    #[arg(long, global = true)]
    pub(crate) verbose: bool,

    /// Does what the `fault` of an order says: fail, panic, hang, abort the process.
    #[arg(long, global = true)]
    pub(crate) faults: bool,

    /// Aborts the process at the first order that gets to this point.
    #[arg(long, global = true, value_name = "POINT")]
    pub(crate) abort_after: Option<Point>,
}

/// Where the process is aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Point {
    /// The order is in the database, and its event is not published.
    Commit,
    /// The event is published, and the order is not acknowledged.
    Publish,
}

impl Options {
    /// Does not return if the process is to be aborted at this point.
    pub(crate) fn reach(&self, point: Point) {
        if self.abort_after == Some(point) {
            std::process::abort();
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn at_stop(text: &str) -> Result<AtStop, &'static str> {
    match text {
        "drain" => Ok(AtStop::Drain),
        "hand-back" => Ok(AtStop::HandBack),
        _ => Err("it is `drain` or `hand-back`"),
    }
}
