//! What thousands of connections cost a server, and how they end when it stops.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;

use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use crate::crowd::Seen;
use crate::figures::progress;
use crate::guests::Crowd;
use crate::guests::Guests;
use crate::job::Job;
use crate::job::allow_descriptors;
use crate::server::Server;
use crate::wall::median;

/// One server with one kind of guests, on so many workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    pub guests: Guests,
    pub server: Server,
    pub workers: usize,
}

/// What was seen of one case, round by round.
#[derive(Debug, Default)]
pub struct Rounds {
    pub seen: Vec<Seen>,
    /// How many clients were told, as their protocol wants it.
    pub told: Vec<usize>,
    /// What a connection adds to the resident memory of the server, in bytes.
    pub bytes: Vec<f64>,
}

#[derive(Debug)]
pub struct Scale {
    pub count: usize,
    pub cases: BTreeMap<Case, Rounds>,
    /// The same with a tenth of the connections, for the growth.
    pub tenth: BTreeMap<Case, Rounds>,
}

const GUESTS: [Guests; 6] = [
    Guests::Idle,
    Guests::IdleHttp2,
    Guests::IdleGrpc,
    Guests::Websocket,
    Guests::Busy,
    Guests::BusyHttp2,
];

impl Scale {
    pub fn measure(count: usize, rounds: usize) -> Result<Self, Box<dyn Error>> {
        allow_descriptors()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut scale = Self {
            count,
            cases: BTreeMap::new(),
            tenth: BTreeMap::new(),
        };
        for _ in 0..rounds {
            for case in cases() {
                scale.round(&runtime, case)?;
            }
        }
        Ok(scale)
    }

    /// The processor time of the stop over that of a tenth of the connections.
    pub fn growth(&self, case: &Case) -> Option<f64> {
        let cpu = |rounds: &Rounds| rounds.median(|seen| seen.cpu);
        Some(cpu(&self.cases[case]) / cpu(self.tenth.get(case)?))
    }

    /// The same guests at the stock server, if that was measured.
    pub fn stock(&self, case: &Case) -> Option<&Rounds> {
        let server = match case.server {
            Server::GatedAxum => Server::Axum,
            Server::GatedTonic => Server::Tonic,
            Server::Axum | Server::Tonic => return None,
        };
        let stock = Case {
            server,
            workers: 1,
            ..*case
        };
        self.cases.get(&stock)
    }

    fn round(&mut self, runtime: &Runtime, case: Case) -> Result<(), Box<dyn Error>> {
        let Case {
            guests,
            server,
            workers,
        } = case;
        progress(&format!(
            "{} {guests}, {server}, {workers} at work",
            self.count
        ));
        let rounds = self.cases.entry(case).or_default();
        rounds.add(runtime, case, self.count)?;
        if workers == 1 && !guests.are_cut() {
            let rounds = self.tenth.entry(case).or_default();
            rounds.add(runtime, case, self.count / 10)?;
        }
        Ok(())
    }
}

/// A stock server is measured where it ends at all.
fn cases() -> impl Iterator<Item = Case> {
    GUESTS.into_iter().flat_map(|guests| {
        let (stock, gated) = match guests {
            Guests::IdleGrpc => (Server::Tonic, Server::GatedTonic),
            _ => (Server::Axum, Server::GatedAxum),
        };
        let case = move |server, workers| Case {
            guests,
            server,
            workers,
        };
        let stock = (!guests.are_cut()).then(|| case(stock, 1));
        stock.into_iter().chain([case(gated, 1), case(gated, 2)])
    })
}

impl Rounds {
    fn add(&mut self, runtime: &Runtime, case: Case, count: usize) -> Result<(), Box<dyn Error>> {
        let mut host = Host::start(case)?;
        runtime.block_on(async {
            let before = host.resident()?;
            let crowd = Crowd::come(case.guests, host.address, count).await?;
            // Long enough for the server to have seen them all.
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            self.bytes.push((host.resident()? - before) / count as f64);
            host.stop()?;
            self.told.push(crowd.told().await?);
            self.seen.push(host.seen()?);
            Ok(())
        })
    }

    pub fn median(&self, figure: impl Fn(&Seen) -> f64) -> f64 {
        median(self.seen.iter().map(figure).collect())
    }

    pub fn bytes(&self) -> f64 {
        median(self.bytes.clone())
    }

    /// The fewest that were told in any round.
    pub fn told(&self) -> usize {
        self.told.iter().copied().min().unwrap_or_default()
    }

    pub fn stuck(&self) -> usize {
        self.seen
            .iter()
            .map(|seen| seen.stuck)
            .max()
            .unwrap_or_default()
    }
}

/// The process of a server.
struct Host {
    process: Child,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Host {
    fn start(case: Case) -> Result<Self, Box<dyn Error>> {
        let job = Job::Crowd {
            server: case.server,
            workers: case.workers,
        };
        let mut process = Command::new(env::current_exe()?)
            .args(job.to_args())
            // glibc gives 200 MB back in one call otherwise, which takes 50 ms and is not the server's.
            .env("MALLOC_TRIM_THRESHOLD_", (16_u64 << 30).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("it has no output")?;
        let mut output = BufReader::new(output);
        let mut address = String::new();
        output.read_line(&mut address)?;
        let address = address.trim().parse()?;
        Ok(Self {
            process,
            output,
            address,
        })
    }

    fn stop(&mut self) -> Result<(), Box<dyn Error>> {
        let stdin = self.process.stdin.as_mut().ok_or("it has no input")?;
        Ok(stdin.write_all(b"stop\n")?)
    }

    fn seen(&mut self) -> Result<Seen, Box<dyn Error>> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.parse()
    }

    /// The resident memory of the process, in bytes.
    fn resident(&self) -> Result<f64, Box<dyn Error>> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_ascii_whitespace().next());
        let kilobytes: f64 = kilobytes.ok_or("the kernel reports no VmRSS")?.parse()?;
        Ok(kilobytes * 1024.0)
    }
}

/// It ends by itself when its standard input does.
impl Drop for Host {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().ok();
    }
}
