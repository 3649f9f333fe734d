//! Time by the clock: a shared machine is only good for ratios within one process.

use std::collections::BTreeMap;
use std::time::Instant;

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
        for round in 0..=rounds {
            for turn in 0..contenders.len() {
                let contender = contenders[(round + turn) % contenders.len()];
                let begin = Instant::now();
                for _ in 0..repeats {
                    runtime.block_on(contender::run(contender, Work::Ready, tasks));
                }
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
