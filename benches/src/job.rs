//! One measured run, in a process of its own.

use std::env;
use std::error::Error;
use std::fs;
use std::io;
use std::io::Write;
use std::process::Command;

use rustix::process::Resource;
use rustix::process::getrlimit;
use rustix::process::setrlimit;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use crate::contender;
use crate::contender::Contender;
use crate::contender::Work;
use crate::crowd;
use crate::ladder;
use crate::pipe;
use crate::pipe::Pipe;
use crate::server;
use crate::server::Server;
use crate::stepper;
use crate::stepper::Shape;
use crate::stepper::Stepper;

/// What a process does instead of measuring, when it is the one that is measured.
#[derive(Clone, Copy, Debug)]
pub enum Job {
    /// Runs that many tasks, that many times.
    Run {
        contender: Contender,
        work: Work,
        tasks: usize,
        rounds: usize,
    },
    /// Spawns a future of each size of the ladder, that many times.
    Ladder { contender: Contender, rounds: usize },
    /// Serves until the standard input ends.
    Serve { server: Server },
    /// Serves thousands on so many workers until it is told to stop.
    Crowd { server: Server, workers: usize },
    /// Starts so many components and stops them.
    Step {
        stepper: Stepper,
        shape: Shape,
        nodes: usize,
    },
    /// Works on so many items.
    Pipe { pipe: Pipe, items: usize },
}

impl Job {
    /// One run of that many tasks.
    pub fn once(contender: Contender, work: Work, tasks: usize) -> Self {
        Self::Run {
            contender,
            work,
            tasks,
            rounds: 1,
        }
    }

    /// The arguments that make this program do the job.
    pub fn to_args(self) -> Vec<String> {
        match self {
            Self::Run {
                contender,
                work,
                tasks,
                rounds,
            } => vec![
                "run".to_owned(),
                contender.to_string(),
                work.to_string(),
                tasks.to_string(),
                rounds.to_string(),
            ],
            Self::Ladder { contender, rounds } => {
                vec![
                    "ladder".to_owned(),
                    contender.to_string(),
                    rounds.to_string(),
                ]
            }
            Self::Serve { server } => vec!["serve".to_owned(), server.to_string()],
            Self::Crowd { server, workers } => {
                vec!["crowd".to_owned(), server.to_string(), workers.to_string()]
            }
            Self::Step {
                stepper,
                shape,
                nodes,
            } => vec![
                "step".to_owned(),
                stepper.to_string(),
                shape.to_string(),
                nodes.to_string(),
            ],
            Self::Pipe { pipe, items } => {
                vec!["pipe".to_owned(), pipe.to_string(), items.to_string()]
            }
        }
    }

    /// Reads what [`Job::to_args`] wrote; `None` if these are arguments for a person's run.
    pub fn from_args(args: &[&str]) -> Result<Option<Self>, Box<dyn Error>> {
        let job = match *args {
            ["run", contender, work, tasks, rounds] => Self::Run {
                contender: contender.parse()?,
                work: work.parse()?,
                tasks: tasks.parse()?,
                rounds: rounds.parse()?,
            },
            ["ladder", contender, rounds] => Self::Ladder {
                contender: contender.parse()?,
                rounds: rounds.parse()?,
            },
            ["serve", server] => Self::Serve {
                server: server.parse()?,
            },
            ["crowd", server, workers] => Self::Crowd {
                server: server.parse()?,
                workers: workers.parse()?,
            },
            ["step", stepper, shape, nodes] => Self::Step {
                stepper: stepper.parse()?,
                shape: shape.parse()?,
                nodes: nodes.parse()?,
            },
            ["pipe", pipe, items] => Self::Pipe {
                pipe: pipe.parse()?,
                items: items.parse()?,
            },
            _ => return Ok(None),
        };
        Ok(Some(job))
    }

    /// Does the job on a current-thread runtime and prints the memory it took.
    pub fn perform(self) -> Result<(), Box<dyn Error>> {
        let runtime = current_thread()?;
        match self {
            Self::Run {
                contender,
                work,
                tasks,
                rounds,
            } => {
                for _ in 0..rounds {
                    runtime.block_on(contender::run(contender, work, tasks));
                }
            }
            Self::Ladder { contender, rounds } => {
                runtime.block_on(ladder::climb(contender, rounds));
            }
            Self::Serve { server } => return server::serve(server),
            Self::Crowd { server, workers } => return crowd::serve(server, workers),
            Self::Step {
                stepper,
                shape,
                nodes,
            } => runtime.block_on(stepper::run(stepper, shape, nodes, || ())),
            Self::Pipe { pipe, items } => runtime.block_on(pipe::run(pipe, items)),
        }
        writeln!(io::stdout(), "{}", most_resident()?)?;
        Ok(())
    }

    /// Has a process do the job; returns the most bytes that were resident in it.
    pub fn resident(self) -> Result<f64, Box<dyn Error>> {
        let output = Command::new(env::current_exe()?)
            .args(self.to_args())
            .output()?;
        if !output.status.success() {
            return Err(format!("{self:?} ended with {}", output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }
}

/// Lets this process open as many descriptors as it may.
pub fn allow_descriptors() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// A runtime on the thread of its caller.
pub fn current_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_time().build()
}

/// A runtime with two workers.
pub fn two_workers() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
}

/// The high-water mark of this process' resident memory, in bytes.
fn most_resident() -> Result<f64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_ascii_whitespace().next());
    let kilobytes: f64 = kilobytes.ok_or("the kernel reports no VmHWM")?.parse()?;
    Ok(kilobytes * 1024.0)
}
