//! Rolling restarts of two replicas behind HAProxy and nginx, under load.

use std::env;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use taskgroup::BoxError;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::haproxy::{self, CHECK_MS, FALL, HaProxy, Mode};
use crate::load::{CLIENTS, Load, Tally, WITHOUT_KEEP_ALIVE};
use crate::nginx;
use crate::nginx::Nginx;
use crate::replica::{self, Replica};
use crate::table::{grouped, markdown};

/// Longer than HAProxy needs to see that a replica is not ready.
const LAME_DUCK_S: u32 = 2;
/// Load without a restart: before, between and after the two.
const CALM: Duration = Duration::from_millis(500);
/// One run takes a tenth of it.
const WATCHDOG: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    OrdersWithLameDuck,
    Orders,
    /// Replaced in place.
    InPlace,
    /// `axum::serve` with graceful shutdown.
    Plain,
}

const SERVERS: [Server; 4] = [
    Server::OrdersWithLameDuck,
    Server::InPlace,
    Server::Orders,
    Server::Plain,
];

const HEAD: [&str; 7] = [
    "replicas",
    "mode",
    "requests",
    "lost, run by run",
    "refused",
    "broken",
    "not 2xx",
];

/// Where everything is.
#[derive(Debug)]
struct Bench {
    orders: PathBuf,
    /// Configurations, databases and logs; removed when all went well.
    scratch: PathBuf,
}

/// Prints the table; fails if a request was lost with a lame duck, or if a replica did not end well.
pub(crate) async fn measure(runs: u32) -> Result<(), BoxError> {
    let haproxy = haproxy::version().await?;
    let nginx = nginx::version().await?;
    let bench = Bench {
        orders: replica::build_orders().await?,
        scratch: env::current_exe()?.with_file_name(format!("rolling-{}", process::id())),
    };
    println!(
        "{haproxy}, {nginx}; a check each {CHECK_MS} ms, {FALL} failures, no retries; \
         {CLIENTS} clients, {WITHOUT_KEEP_ALIVE} of them without keep-alive; {runs} runs per row\n"
    );

    let mut rows = Vec::new();
    let mut lost_by_lame_ducks = 0;
    for server in SERVERS {
        for mode in [Mode::Http, Mode::Tcp, Mode::Nginx] {
            let tallies = bench.runs(server, mode, runs).await?;
            if matches!(server, Server::OrdersWithLameDuck | Server::InPlace) {
                lost_by_lame_ducks += tallies.iter().map(Tally::lost).sum::<u64>();
            }
            rows.push(row(server, mode, &tallies));
        }
    }
    print!("{}", markdown(&HEAD, &rows));

    if lost_by_lame_ducks > 0 {
        let logs = bench.scratch.display();
        return Err(
            format!("{lost_by_lame_ducks} lost with a lame duck or in place; see {logs}").into(),
        );
    }
    Ok(fs::remove_dir_all(bench.scratch)?)
}

fn row(server: Server, mode: Mode, tallies: &[Tally]) -> Vec<String> {
    let mut sum = Tally::default();
    let mut lost = Vec::new();
    for tally in tallies {
        sum += *tally;
        lost.push(tally.lost().to_string());
    }
    vec![
        server.name(),
        mode.to_string(),
        grouped(sum.requests),
        lost.join(" "),
        grouped(sum.refused),
        grouped(sum.broken),
        grouped(sum.status),
    ]
}

impl Bench {
    async fn runs(&self, server: Server, mode: Mode, runs: u32) -> Result<Vec<Tally>, BoxError> {
        let mut tallies = Vec::new();
        for run in 1..=runs {
            let name = format!("{}, {mode}, run {run}", server.name());
            let dir = self.scratch.join(format!("{server:?}-{mode}-{run}"));
            fs::create_dir_all(&dir)?;
            let tally = timeout(WATCHDOG, self.run(server, mode, &dir))
                .await
                .unwrap_or_else(|_| Err(format!("not through after {WATCHDOG:?}").into()))
                .map_err(|error| format!("{name}: {error}; see {}", dir.display()))?;
            eprintln!("{name}: {tally}");
            tallies.push(tally);
        }
        Ok(tallies)
    }

    async fn run(&self, server: Server, mode: Mode, dir: &Path) -> Result<Tally, BoxError> {
        // One after the other: each makes the table of orders if it is missing.
        let in_place = server == Server::InPlace;
        let mut replicas = [
            Replica::start(self.command(server, dir)?, 0, dir, in_place).await?,
            Replica::start(self.command(server, dir)?, 1, dir, in_place).await?,
        ];
        let addresses = replicas.each_ref().map(Replica::address);
        let balancer = Balancer::start(mode, addresses, dir).await?;
        balancer.sees(0).await;
        balancer.sees(1).await;

        let load = Load::start(balancer.front());
        sleep(CALM).await;
        for (number, replica) in replicas.iter_mut().enumerate() {
            replica.restart().await?;
            balancer.sees(number).await;
            sleep(CALM).await;
        }
        load.finish().await
    }

    /// Replicas of `orders` share their database: what one has created can be read from the other.
    fn command(&self, server: Server, dir: &Path) -> io::Result<Command> {
        if matches!(server, Server::Plain | Server::InPlace) {
            let mut command = Command::new(env::current_exe()?);
            command.arg(match server {
                Server::Plain => "plain",
                _ => "in-place",
            });
            return Ok(command);
        }
        let database = format!("sqlite:{}", dir.join("orders.sqlite").display());
        let mut command = Command::new(&self.orders);
        command.args(["--grpc", "127.0.0.1:0", "--db", &database]);
        if server == Server::OrdersWithLameDuck {
            command.args(["--lame-duck", &LAME_DUCK_S.to_string()]);
        }
        Ok(command)
    }
}

/// What is in front of the replicas.
#[derive(Debug)]
enum Balancer {
    HaProxy(HaProxy),
    Nginx(Nginx),
}

impl Balancer {
    async fn start(mode: Mode, replicas: [SocketAddr; 2], dir: &Path) -> Result<Self, BoxError> {
        Ok(match mode {
            Mode::Nginx => Self::Nginx(Nginx::start(replicas, dir).await?),
            _ => Self::HaProxy(HaProxy::start(mode, replicas, dir).await?),
        })
    }

    fn front(&self) -> SocketAddr {
        match self {
            Self::HaProxy(haproxy) => haproxy.front,
            Self::Nginx(nginx) => nginx.front,
        }
    }

    /// Waits until requests are sent to this replica. nginx sends them to all of them all the time.
    async fn sees(&self, replica: usize) {
        if let Self::HaProxy(haproxy) = self {
            haproxy.sees(replica).await;
        }
    }
}

impl Server {
    fn name(self) -> String {
        match self {
            Self::OrdersWithLameDuck => format!("`orders --lame-duck {LAME_DUCK_S}`"),
            Self::InPlace => "restarted in place".to_owned(),
            Self::Orders => "`orders` without a lame duck".to_owned(),
            Self::Plain => "`axum::serve`, graceful".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_losses_run_by_run_and_the_sums_by_kind() {
        let good = Tally {
            requests: 1500,
            ..Tally::default()
        };
        let bad = Tally {
            requests: 2500,
            refused: 1,
            broken: 2,
            status: 3,
        };
        let cells = row(Server::Plain, Mode::Tcp, &[good, bad]);
        let expected = [
            "`axum::serve`, graceful",
            "tcp",
            "4 000",
            "0 6",
            "1",
            "2",
            "3",
        ];
        assert_eq!(cells, expected);
    }
}
