//! Measures the tables of `docs/servers.md`. Needs Unix and, for the first of them, HAProxy.
//!
//! `cargo run --release -p rolling -- restart` restarts two replicas of `orders` behind HAProxy and
//! nginx, and replaces others in place; `cargo run --release -p rolling -- moment` stops a server that nothing stands in front
//! of. Progress goes to stderr, the table to stdout. The exit code says whether something was lost
//! that must not be.

mod balancer;
mod client;
mod dice;
mod haproxy;
mod in_place;
mod load;
mod moment;
mod nginx;
mod plain;
mod replica;
mod restart;
mod table;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, value_parser};
use taskgroup::{BoxError, Exit, Signals, TaskGroup};
use tokio::runtime::Runtime;

/// Measures what is lost when servers stop.
#[derive(Debug, Parser)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Restarts two replicas behind HAProxy or nginx, one after the other, under load.
    Restart {
        /// How often each row of the table is measured.
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..))]
        runs: u32,
    },
    /// Stops a server under load, without a load balancer.
    Moment {
        /// How often each server is stopped for each row of the table.
        #[arg(long, value_name = "N", default_value_t = 15, value_parser = value_parser!(u32).range(1..))]
        stops: u32,
    },
    /// Is one of the replicas, which is replaced in place; or replaces it.
    #[command(hide = true)]
    InPlace {
        #[arg(long, value_name = "ADDR")]
        http: Option<SocketAddr>,
        #[arg(long, value_name = "PATH")]
        control: PathBuf,
    },
    /// Is one of the replicas: stock axum.
    #[command(hide = true)]
    Plain {
        #[arg(long, value_name = "ADDR")]
        http: SocketAddr,
    },
}

fn main() -> Exit {
    let command = CommandLine::parse().command;
    Exit::from(run(command))
}

fn run(command: Command) -> Result<(), BoxError> {
    match command {
        Command::Restart { runs } => {
            Runtime::new()?.block_on(until_a_signal(restart::measure(runs)))
        }
        Command::Moment { stops } => moment::measure(stops),
        Command::InPlace { http, control } => Runtime::new()?.block_on(async {
            match http {
                Some(http) => in_place::serve(http, control).await,
                None => in_place::replace(control).await,
            }
        }),
        Command::Plain { http } => Ok(Runtime::new()?.block_on(plain::serve(http))?),
    }
}

/// A signal drops `work`, and with it the processes that it has started.
async fn until_a_signal(
    work: impl Future<Output = Result<(), BoxError>> + Send + 'static,
) -> Result<(), BoxError> {
    let mut group = TaskGroup::new();
    group.cancel_on(Signals::terminate()?);
    let stop = group.token().clone();
    group.task("restart").spawn(async move {
        let done = stop.run_until_cancelled(work).await;
        done.ok_or("stopped before the end")?
    });
    Ok(group.wait().await?)
}
