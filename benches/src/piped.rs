//! What it costs to work on an item.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;

use crate::figures::progress;
use crate::job;
use crate::job::Job;
use crate::pipe;
use crate::pipe::Pipe;
use crate::valgrind::Allocated;
use crate::valgrind::Executed;
use crate::valgrind::Valgrind;
use crate::wall::median;
use crate::wall::on_cpu;

/// All that is measured, in the order of the table.
pub const PIPES: [Pipe; 6] = [
    Pipe::Spawn,
    Pipe::JoinSet,
    Pipe::BufferUnordered,
    Pipe::Spawned,
    Pipe::Queue,
    Pipe::Stream,
];

/// Those of the gate.
pub const POOLS: [Pipe; 2] = [Pipe::Queue, Pipe::Stream];

/// The numbers of items between which a slope is taken: early, and late.
const EARLY: [usize; 2] = [1_000, 2_000];
const LATE: [usize; 2] = [20_000, 40_000];

/// The same for allocations: each worker keeps what it has once allocated, and all have had an item by then.
const WARM: [usize; 2] = [10_000, 20_000];

/// The numbers of items that are timed.
pub const SIZES: [usize; 4] = [10_000, 100_000, 1_000_000, 10_000_000];

/// The figures that are the same in every run on one machine.
#[derive(Debug)]
pub struct CountedPipes(pub BTreeMap<Pipe, Item>);

/// What one more item costs.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    pub executed: Executed,
    pub allocated: Allocated,
    /// What it costs among many over what it costs among few.
    pub growth: f64,
}

impl CountedPipes {
    pub fn count(valgrind: &mut Valgrind) -> Result<Self, Box<dyn Error>> {
        let mut pipes = BTreeMap::new();
        for pipe in PIPES {
            progress(&format!("counting {pipe}"));
            pipes.insert(pipe, count(valgrind, pipe)?);
        }
        Ok(Self(pipes))
    }

    /// The instructions of an item over those of another way.
    pub fn ratio(&self, pipe: Pipe, to: Pipe) -> f64 {
        let instructions = |pipe| self.0[&pipe].executed.instructions;
        instructions(pipe) / instructions(to)
    }
}

fn count(valgrind: &mut Valgrind, pipe: Pipe) -> Result<Item, Box<dyn Error>> {
    let job = |items| Job::Pipe { pipe, items };
    let mut slope = |[few, many]: [usize; 2]| -> Result<Executed, Box<dyn Error>> {
        let more = valgrind.executed(job(many))?;
        let more = more.minus(valgrind.executed(job(few))?);
        Ok(more.over((many - few) as f64))
    };
    let (early, late) = (slope(EARLY)?, slope(LATE)?);
    let [few, many] = WARM;
    let allocated = valgrind.allocated(job(many))?;
    let allocated = allocated.minus(valgrind.allocated(job(few))?);
    Ok(Item {
        executed: late,
        allocated: allocated.over((many - few) as f64),
        growth: late.instructions / early.instructions,
    })
}

/// How long an item takes among so many, in the processor time of the one thread.
#[derive(Debug)]
pub struct TimedPipes {
    times: BTreeMap<(usize, Pipe), Vec<Duration>>,
    go: BTreeMap<usize, f64>,
}

impl TimedPipes {
    pub fn time() -> Result<Self, Box<dyn Error>> {
        let runtime = job::current_thread()?;
        let mut times: BTreeMap<_, Vec<Duration>> = BTreeMap::new();
        for items in SIZES {
            progress(&format!("timing {items} items"));
            let rounds = (10_000_000 / items).clamp(3, 15);
            for round in 0..rounds {
                for turn in 0..PIPES.len() {
                    let pipe = PIPES[(round + turn) % PIPES.len()];
                    let begin = on_cpu();
                    runtime.block_on(pipe::run(pipe, items));
                    times
                        .entry((items, pipe))
                        .or_default()
                        .push(on_cpu() - begin);
                }
            }
        }
        let go = go()?;
        Ok(Self { times, go })
    }

    /// The nanoseconds of an item of Go's worker pool, if Go is here.
    pub fn go(&self, items: usize) -> Option<f64> {
        self.go.get(&items).copied()
    }

    /// The median of the nanoseconds of an item.
    pub fn nanoseconds(&self, items: usize, pipe: Pipe) -> f64 {
        let times = self.times[&(items, pipe)].iter();
        median(
            times
                .map(|time| time.as_secs_f64() * 1e9 / items as f64)
                .collect(),
        )
    }

    /// The median of the ratios within each round.
    pub fn ratio(&self, items: usize, pipe: Pipe, to: Pipe) -> f64 {
        let times = |pipe| self.times[&(items, pipe)].iter().map(Duration::as_secs_f64);
        median(
            times(pipe)
                .zip(times(to))
                .map(|(one, other)| one / other)
                .collect(),
        )
    }
}

/// Times Go's worker pool on one thread. Without Go there is nothing to time.
fn go() -> Result<BTreeMap<usize, f64>, Box<dyn Error>> {
    progress("timing Go, if it is here");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/go/pool.go");
    let mut go = Command::new("go");
    go.args(["run", source]).env("GOMAXPROCS", "1");
    let ran = match go.args(SIZES.map(|items| items.to_string())).output() {
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        ran => ran?,
    };
    let text = String::from_utf8(ran.stdout)?;
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .map(|(items, nanoseconds)| Ok((items.parse()?, nanoseconds.parse()?)))
        .collect()
}
