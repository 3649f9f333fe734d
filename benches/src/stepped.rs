//! What it costs to start and to stop components whose steps are empty.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::yield_now;

use crate::figures::progress;
use crate::job;
use crate::job::Job;
use crate::stepper;
use crate::stepper::Shape;
use crate::stepper::Stepper;
use crate::valgrind::Allocated;
use crate::valgrind::Executed;
use crate::valgrind::Valgrind;
use crate::wall::median;
use crate::wall::on_cpu;

/// What is counted, in a graph of this shape with these numbers of components.
///
/// What one more component costs is taken between the last two; the growth is that over what it costs
/// between the first two.
pub type Row = (Stepper, Shape, [usize; 4]);

const EACH: [usize; 4] = [1_000, 2_000, 4_000, 8_000];
const AT_ONCE: [usize; 4] = [1_000, 2_000, 5_000, 10_000];
const FEW: [usize; 4] = [500, 1_000, 2_000, 4_000];

/// All of the tables.
pub const ROWS: [Row; 10] = [
    (Stepper::Tasks, Shape::Flat, AT_ONCE),
    (Stepper::Children, Shape::Flat, AT_ONCE),
    (Stepper::Described, Shape::Chain, EACH),
    (Stepper::Described, Shape::Layers, EACH),
    (Stepper::Planned, Shape::Chain, EACH),
    (Stepper::Planned, Shape::Layers, EACH),
    (Stepper::Lifecycle, Shape::Flat, AT_ONCE),
    (Stepper::Lifecycle, Shape::Chain, EACH),
    (Stepper::Lifecycle, Shape::Layers, EACH),
    (Stepper::Lifecycle, Shape::Star, EACH),
];

/// Those of the gate, with fewer components.
pub const QUICK: [Row; 4] = [
    (Stepper::Tasks, Shape::Flat, FEW),
    (Stepper::Children, Shape::Flat, AT_ONCE),
    (Stepper::Lifecycle, Shape::Chain, FEW),
    (Stepper::Lifecycle, Shape::Layers, FEW),
];

/// How many components are started and stopped when that is timed.
pub const GRAPH: usize = 1_000;

/// What starts and stops them.
pub const GRAPHS: [(Stepper, Shape); 4] = [
    (Stepper::Tasks, Shape::Flat),
    (Stepper::Lifecycle, Shape::Chain),
    (Stepper::Lifecycle, Shape::Layers),
    (Stepper::Lifecycle, Shape::Star),
];

/// How many are cancelled at once when the stall is measured.
pub const CROWD: usize = 10_000;

/// What cancels them.
pub const CROWDS: [Stepper; 3] = [Stepper::Tasks, Stepper::Children, Stepper::Lifecycle];

/// The figures that are the same in every run on one machine.
#[derive(Debug)]
pub struct CountedSteps(BTreeMap<(Stepper, Shape), Step>);

/// What one more component costs.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub executed: Executed,
    pub allocated: Allocated,
    /// What it costs among many over what it costs among few.
    pub growth: f64,
}

impl CountedSteps {
    pub fn count(valgrind: &mut Valgrind, rows: &[Row]) -> Result<Self, Box<dyn Error>> {
        let mut steps = BTreeMap::new();
        for &(stepper, shape, nodes) in rows {
            progress(&format!("counting {stepper}, {shape}"));
            steps.insert((stepper, shape), count(valgrind, (stepper, shape, nodes))?);
        }
        Ok(Self(steps))
    }

    pub fn steps(&self) -> impl Iterator<Item = (Stepper, Shape, Step)> {
        let steps = self.0.iter();
        steps.map(|(&(stepper, shape), &step)| (stepper, shape, step))
    }

    /// The instructions of a component over those of a task that a token stops.
    pub fn ratio(&self, stepper: Stepper, shape: Shape) -> f64 {
        let instructions = |key| self.0[&key].executed.instructions;
        instructions((stepper, shape)) / instructions((Stepper::Tasks, Shape::Flat))
    }
}

fn count(
    valgrind: &mut Valgrind,
    (stepper, shape, [one, two, few, many]): Row,
) -> Result<Step, Box<dyn Error>> {
    let job = |nodes| Job::Step {
        stepper,
        shape,
        nodes,
    };
    let early = valgrind.executed(job(two))?;
    let early = early.minus(valgrind.executed(job(one))?);
    let early = early.over((two - one) as f64);
    let late = valgrind.executed(job(many))?;
    let late = late.minus(valgrind.executed(job(few))?);
    let late = late.over((many - few) as f64);
    let allocated = valgrind.allocated(job(few))?;
    let allocated = allocated.minus(valgrind.allocated(job(one))?);
    Ok(Step {
        executed: late,
        allocated: allocated.over((few - one) as f64),
        growth: late.instructions / early.instructions,
    })
}

/// How long a whole start and stop takes, and for how long the others on its thread get no turn; in the
/// processor time of the thread.
#[derive(Debug)]
pub struct TimedSteps {
    /// Start and stop of a thousand.
    wholes: BTreeMap<(Stepper, Shape), Vec<Duration>>,
    crowds: BTreeMap<Stepper, Vec<Round>>,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    /// Start and stop.
    whole: Duration,
    /// The longest time without a poll of another task, before the stop.
    gap_before: Duration,
    /// The same from the stop on.
    gap: Duration,
}

impl TimedSteps {
    pub fn time(rounds: usize) -> Result<Self, Box<dyn Error>> {
        let runtime = job::current_thread()?;
        progress(&format!("timing {GRAPH} components"));
        let mut wholes: BTreeMap<_, Vec<Duration>> = BTreeMap::new();
        for round in 0..=rounds {
            for turn in 0..GRAPHS.len() {
                let (stepper, shape) = GRAPHS[(round + turn) % GRAPHS.len()];
                let begin = on_cpu();
                runtime.block_on(stepper::run(stepper, shape, GRAPH, || ()));
                let whole = on_cpu() - begin;
                // The first round only warms the caches and the allocator.
                if round > 0 {
                    wholes.entry((stepper, shape)).or_default().push(whole);
                }
            }
        }
        progress(&format!("timing {CROWD} that are cancelled at once"));
        let mut crowds: BTreeMap<_, Vec<Round>> = BTreeMap::new();
        for round in 0..=rounds {
            for turn in 0..CROWDS.len() {
                let stepper = CROWDS[(round + turn) % CROWDS.len()];
                let timed = Round::time(&runtime, stepper);
                if round > 0 {
                    crowds.entry(stepper).or_default().push(timed);
                }
            }
        }
        Ok(Self { wholes, crowds })
    }

    /// The median of start and stop of a thousand, in milliseconds.
    pub fn whole(&self, stepper: Stepper, shape: Shape) -> f64 {
        let times = self.wholes[&(stepper, shape)].iter();
        median(times.map(milliseconds).collect())
    }

    /// The median of the longest gaps in the stops, in milliseconds.
    pub fn gap(&self, stepper: Stepper) -> f64 {
        self.median(stepper, |round| round.gap)
    }

    /// The same for the start.
    pub fn gap_before(&self, stepper: Stepper) -> f64 {
        self.median(stepper, |round| round.gap_before)
    }

    /// The longest gap of all rounds, in milliseconds.
    pub fn longest_gap(&self, stepper: Stepper) -> f64 {
        let gaps = self.crowds[&stepper].iter().map(|round| round.gap);
        milliseconds(&gaps.max().unwrap_or_default())
    }

    /// The median of start and stop, in milliseconds.
    pub fn whole_crowd(&self, stepper: Stepper) -> f64 {
        self.median(stepper, |round| round.whole)
    }

    /// The median of the ratios of the gaps within each round.
    pub fn gap_ratio(&self, stepper: Stepper) -> f64 {
        let gaps = |stepper| {
            self.crowds[&stepper]
                .iter()
                .map(|round| round.gap.as_secs_f64())
        };
        let pairs = gaps(stepper).zip(gaps(Stepper::Tasks));
        median(pairs.map(|(gap, other)| gap / other).collect())
    }

    fn median(&self, stepper: Stepper, time: fn(&Round) -> Duration) -> f64 {
        let times = self.crowds[&stepper].iter().map(time);
        median(times.map(|time| milliseconds(&time)).collect())
    }
}

impl Round {
    fn time(runtime: &Runtime, stepper: Stepper) -> Self {
        let gaps = Gaps::default();
        let (ticks, told) = (gaps.clone(), gaps.clone());
        let ticker = runtime.spawn(async move {
            loop {
                ticks.tick();
                yield_now().await;
            }
        });
        // It ticks before the plan is made, too.
        runtime.block_on(yield_now());
        let begin = on_cpu();
        let before = Arc::new(Mutex::new(Duration::ZERO));
        let keep = Arc::clone(&before);
        let told = move || *lock(&keep) = told.restart();
        runtime.block_on(stepper::run(stepper, Shape::Flat, CROWD, told));
        let (whole, gap) = (on_cpu() - begin, gaps.restart());
        ticker.abort();
        // The abort takes effect when the runtime runs again.
        drop(runtime.block_on(ticker));
        Self {
            whole,
            gap_before: *lock(&before),
            gap,
        }
    }
}

fn milliseconds(time: &Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The longest time between two ticks.
#[derive(Clone, Default)]
struct Gaps(Arc<Mutex<(Option<Duration>, Duration)>>);

impl Gaps {
    fn tick(&self) {
        let now = on_cpu();
        let (last, longest) = &mut *lock(&self.0);
        *longest = last.map_or(*longest, |last| (now - last).max(*longest));
        *last = Some(now);
    }

    /// Returns the longest so far, and begins anew.
    fn restart(&self) -> Duration {
        self.tick();
        let (_, longest) = &mut *lock(&self.0);
        std::mem::take(longest)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
