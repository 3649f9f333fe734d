//! Time by the clock: a shared machine is only good for ratios within one process.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use rustix::time::ClockId;
use rustix::time::clock_gettime;
use tokio::runtime::Runtime;

use crate::contender;
use crate::contender::Contender;
use crate::contender::Work;

/// Nanoseconds per task of each contender, round by round.
#[derive(Debug)]
pub struct Rounds(BTreeMap<Contender, Vec<f64>>);

impl Rounds {
    /// Times the contenders in turn, so that a noisy neighbour disturbs them alike.
    pub fn time(runtime: &Runtime, contenders: &[Contender], tasks: usize, rounds: usize) -> Self {
        // Long enough for the clock and for a few time slices of the neighbours.
        let repeats = (10_000 / tasks).max(1);
        let mut times: BTreeMap<Contender, Vec<f64>> = BTreeMap::new();
        let steps = steps(contenders.len());
        for round in 0..=rounds {
            let step = steps[round % steps.len()];
            for turn in 0..contenders.len() {
                let contender = contenders[(round + turn * step) % contenders.len()];
                let begin = Instant::now();
                run_in_a_task(runtime, contender, tasks, repeats);
                let nanoseconds = begin.elapsed().as_nanos() as f64 / (repeats * tasks) as f64;
                // The first round only warms the caches and the allocator.
                if round > 0 {
                    times.entry(contender).or_default().push(nanoseconds);
                }
            }
        }
        Self(times)
    }

    /// The median time per task, in nanoseconds.
    pub fn nanoseconds(&self, contender: Contender) -> f64 {
        median(self.0[&contender].clone())
    }

    /// The median of the ratios of the rounds.
    pub fn ratio(&self, contender: Contender, to: Contender) -> f64 {
        let pairs = self.0[&contender].iter().zip(&self.0[&to]);
        median(pairs.map(|(time, other)| time / other).collect())
    }
}

/// Spawns the tasks from a task, as a server does: from outside of the runtime every spawn would
/// go through the queue that the workers share, and that is what would be timed.
fn run_in_a_task(runtime: &Runtime, contender: Contender, tasks: usize, repeats: usize) {
    let task = runtime.spawn(async move {
        for _ in 0..repeats {
            contender::run(contender, Work::Ready, tasks).await;
        }
    });
    assert!(runtime.block_on(task).is_ok());
}

/// The steps that visit each of `count` places once, so that nobody always follows the same other
/// and inherits its caches and its heap.
fn steps(count: usize) -> Vec<usize> {
    let visits_all = |&step: &usize| (2..=step).all(|factor| step % factor + count % factor > 0);
    (1..count.max(2)).filter(visits_all).collect()
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The time that this thread has had on a processor so far; other processes are no part of it.
pub fn on_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// The time that all threads of this process have had on processors so far.
pub fn process_on_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
