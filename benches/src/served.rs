//! What a request costs a server, with the gate and without.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::process::Command;

use crate::client;
use crate::figures::progress;
use crate::job::Job;
use crate::server::Running;
use crate::server::Server;
use crate::valgrind::Allocated;
use crate::valgrind::Executed;
use crate::valgrind::Valgrind;
use crate::wall::median;

/// Each stock server, and the same behind the gate.
pub const PAIRS: [(Server, Server); 2] = [
    (Server::Axum, Server::GatedAxum),
    (Server::Tonic, Server::GatedTonic),
];

/// The numbers of requests between which a slope is taken.
const FEW: usize = 500;
const MANY: usize = 2_500;

/// What one more request costs on a connection that is kept alive; the same in every run.
#[derive(Debug)]
pub struct CountedServers {
    pub executed: BTreeMap<Server, Executed>,
    pub allocated: BTreeMap<Server, Allocated>,
}

impl CountedServers {
    pub fn count(valgrind: &mut Valgrind) -> Result<Self, Box<dyn Error>> {
        let (mut executed, mut allocated) = (BTreeMap::new(), BTreeMap::new());
        for server in PAIRS.into_iter().flat_map(<[Server; 2]>::from) {
            progress(&format!("counting {server}"));
            let job = Job::Serve { server };
            let mut count = |requests| {
                valgrind.executed_by(job, |command| requested(command, server, requests))
            };
            let slope = count(MANY)?.minus(count(FEW)?);
            executed.insert(server, slope.over((MANY - FEW) as f64));
            let count = |requests| {
                valgrind.allocated_by(job, |command| requested(command, server, requests))
            };
            let slope = count(MANY)?.minus(count(FEW)?);
            allocated.insert(server, slope.over((MANY - FEW) as f64));
        }
        Ok(Self {
            executed,
            allocated,
        })
    }

    /// The instructions of a request behind the gate over those without it.
    pub fn ratio(&self, stock: Server, gated: Server) -> f64 {
        self.executed[&gated].instructions / self.executed[&stock].instructions
    }
}

/// Runs a server for so many requests; returns what it wrote to the standard error.
fn requested(
    command: &mut Command,
    server: Server,
    requests: usize,
) -> Result<String, Box<dyn Error>> {
    let running = Running::start(command)?;
    client::ask(server, running.address, requests)?;
    running.end()
}

/// What the servers did under load, round by round.
#[derive(Debug)]
pub struct TimedServers(BTreeMap<Server, Vec<Round>>);

#[derive(Clone, Copy, Debug)]
struct Round {
    answers_per_second: f64,
    /// The server's own time for an answer. What the neighbours take of the machine is not in it.
    nanoseconds: f64,
}

impl TimedServers {
    /// Loads a server and the same behind the gate in turn, so that a noisy neighbour disturbs them
    /// alike.
    pub fn time(rounds: usize) -> Result<Self, Box<dyn Error>> {
        let mut timed: BTreeMap<Server, Vec<Round>> = BTreeMap::new();
        for (stock, gated) in PAIRS {
            progress(&format!("loading {stock} and {gated}"));
            let program = env::current_exe()?;
            let start = |server| {
                let job = Job::Serve { server };
                Running::start(Command::new(&program).args(job.to_args()))
            };
            let mut servers = [(stock, start(stock)?), (gated, start(gated)?)];
            for round in 0..=rounds {
                for (server, running) in &servers {
                    let timed_round = Round::of(*server, running)?;
                    // The first round only warms up.
                    if round > 0 {
                        timed.entry(*server).or_default().push(timed_round);
                    }
                }
                servers.reverse();
            }
        }
        Ok(Self(timed))
    }

    /// The median, in answers per second.
    pub fn rate(&self, server: Server) -> f64 {
        median(self.rates(server).collect())
    }

    /// The median of the server's own time for an answer.
    pub fn nanoseconds(&self, server: Server) -> f64 {
        let rounds = self.0[&server].iter();
        median(rounds.map(|round| round.nanoseconds).collect())
    }

    /// The median of the ratios of the rounds, of answers per second.
    pub fn rate_ratio(&self, stock: Server, gated: Server) -> f64 {
        let pairs = self.rates(gated).zip(self.rates(stock));
        median(pairs.map(|(rate, other)| rate / other).collect())
    }

    /// The median of the ratios of the rounds, of the server's own time.
    pub fn time_ratio(&self, stock: Server, gated: Server) -> f64 {
        let pairs = self.0[&gated].iter().zip(&self.0[&stock]);
        let ratios = pairs.map(|(round, other)| round.nanoseconds / other.nanoseconds);
        median(ratios.collect())
    }

    fn rates(&self, server: Server) -> impl Iterator<Item = f64> {
        self.0[&server].iter().map(|round| round.answers_per_second)
    }
}

impl Round {
    fn of(server: Server, running: &Running) -> Result<Self, Box<dyn Error>> {
        let before = running.on_cpu()?;
        let load = client::load(server, running.address)?;
        Ok(Self {
            answers_per_second: load.answers / load.seconds,
            nanoseconds: (running.on_cpu()? - before) / load.answers,
        })
    }
}
