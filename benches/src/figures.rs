//! The figures of the table, taken one after the other.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::io::Write;

use crate::contender::Contender;
use crate::contender::Work;
use crate::job;
use crate::job::Job;
use crate::ladder;
use crate::valgrind::Allocated;
use crate::valgrind::Executed;
use crate::valgrind::Valgrind;
use crate::wall::Rounds;

/// The contenders of the goals.
pub const YARDSTICKS: [Contender; 3] = [Contender::Floor, Contender::JoinSet, Contender::Group];

/// Everybody, in the order of the table.
pub const EVERYBODY: [Contender; 8] = [
    Contender::Floor,
    Contender::RawSpawn,
    Contender::JoinSet,
    Contender::JoinSetToken,
    Contender::TaskTracker,
    Contender::GracefulShutdown,
    Contender::Group,
    Contender::NamedGroup,
];

pub const WORKS: [Work; 3] = [Work::Ready, Work::Yield, Work::Parked];

/// The numbers of tasks between which a slope is taken.
const FEW: usize = 2_000;
const MANY: usize = 10_000;

/// The figures that are the same in every run on one machine.
#[derive(Debug)]
pub struct Counted {
    pub executed: BTreeMap<(Contender, Work), Executed>,
    pub allocated: BTreeMap<(Contender, Work), Allocated>,
    /// A whole group of one task, without the harness.
    pub one_task: BTreeMap<Contender, Executed>,
    /// The slope between 50 000 and 100 000 tasks over that between 1000 and 2000.
    pub growth: BTreeMap<Contender, f64>,
    /// What the group adds to a future.
    pub wrapper_bytes: f64,
    /// What the group holds outside the tasks, for each that waits.
    pub registry_bytes: f64,
    /// What each further task adds to the peak of a group with a limit of 64.
    pub limited_peak: f64,
}

impl Counted {
    /// Counts for these contenders; `most` is the number of tasks that pass through the limit.
    pub fn count(
        valgrind: &mut Valgrind,
        contenders: &[Contender],
        most: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let (mut executed, mut allocated) = (BTreeMap::new(), BTreeMap::new());
        let (mut one_task, mut growth) = (BTreeMap::new(), BTreeMap::new());
        let harness = executed_by_groups_of_one(valgrind, Contender::Nothing)?;
        for &contender in contenders {
            progress(&format!("counting {contender}"));
            for work in WORKS {
                executed.insert(
                    (contender, work),
                    executed_per_task(valgrind, contender, work)?,
                );
                allocated.insert(
                    (contender, work),
                    allocated_per_task(valgrind, contender, work)?,
                );
            }
            let whole = executed_by_groups_of_one(valgrind, contender)?;
            one_task.insert(contender, whole.minus(harness));
            if YARDSTICKS.contains(&contender) {
                growth.insert(contender, growth_of(valgrind, contender)?);
            }
        }
        progress("counting the bytes of the group");
        Ok(Self {
            executed,
            allocated,
            one_task,
            growth,
            wrapper_bytes: wrapper_bytes(valgrind)?,
            registry_bytes: registry_bytes(valgrind)?,
            limited_peak: limited_peak(valgrind, most)?,
        })
    }
}

/// The cost of one more task among many.
fn executed_per_task(
    valgrind: &mut Valgrind,
    contender: Contender,
    work: Work,
) -> Result<Executed, Box<dyn Error>> {
    let few = valgrind.executed(Job::once(contender, work, FEW))?;
    let many = valgrind.executed(Job::once(contender, work, MANY))?;
    Ok(many.minus(few).over((MANY - FEW) as f64))
}

fn allocated_per_task(
    valgrind: &Valgrind,
    contender: Contender,
    work: Work,
) -> Result<Allocated, Box<dyn Error>> {
    let few = valgrind.allocated(Job::once(contender, work, FEW))?;
    let many = valgrind.allocated(Job::once(contender, work, MANY))?;
    Ok(many.minus(few).over((MANY - FEW) as f64))
}

/// The cost of one more group of one task, harness included.
fn executed_by_groups_of_one(
    valgrind: &mut Valgrind,
    contender: Contender,
) -> Result<Executed, Box<dyn Error>> {
    let groups = |rounds| Job::Run {
        contender,
        work: Work::Ready,
        tasks: 1,
        rounds,
    };
    let few = valgrind.executed(groups(FEW / 10))?;
    let many = valgrind.executed(groups(MANY / 10))?;
    Ok(many.minus(few).over(((MANY - FEW) / 10) as f64))
}

fn growth_of(valgrind: &mut Valgrind, contender: Contender) -> Result<f64, Box<dyn Error>> {
    let mut run = |tasks| valgrind.executed(Job::once(contender, Work::Ready, tasks));
    let early = run(2_000)?.minus(run(1_000)?).over(1_000.0);
    let late = run(100_000)?.minus(run(50_000)?).over(50_000.0);
    Ok(late.instructions / early.instructions)
}

fn wrapper_bytes(valgrind: &Valgrind) -> Result<f64, Box<dyn Error>> {
    let ladder = |contender, rounds| valgrind.allocated(Job::Ladder { contender, rounds });
    let per_round = |contender| -> Result<f64, Box<dyn Error>> {
        Ok((ladder(contender, 200)?.bytes - ladder(contender, 100)?.bytes) / 100.0)
    };
    let over = per_round(Contender::Group)? - per_round(Contender::RawSpawn)?;
    Ok(over / ladder::EDGE * ladder::STEP)
}

/// What a group holds beyond the floor while 100 000 tasks wait.
fn registry_bytes(valgrind: &Valgrind) -> Result<f64, Box<dyn Error>> {
    const TASKS: usize = 100_000;
    let peak = |contender| valgrind.allocated(Job::once(contender, Work::Parked, TASKS));
    Ok((peak(Contender::Group)?.peak - peak(Contender::Floor)?.peak) / TASKS as f64)
}

fn limited_peak(valgrind: &Valgrind, most: usize) -> Result<f64, Box<dyn Error>> {
    let peak = |tasks| valgrind.allocated(Job::once(Contender::LimitedGroup, Work::Ready, tasks));
    Ok((peak(most)?.peak - peak(1_000)?.peak) / (most - 1_000) as f64)
}

/// The figures that depend on the machine and on its neighbours.
#[derive(Debug)]
pub struct Timed {
    /// By runtime and number of tasks.
    pub rounds: Vec<(&'static str, usize, Vec<Contender>, Rounds)>,
    /// Nanoseconds and resident bytes per task, from a thousand tasks to a million.
    pub sizes: Vec<(usize, Rounds, BTreeMap<Contender, f64>)>,
}

impl Timed {
    pub fn time() -> Result<Self, Box<dyn Error>> {
        let (current_thread, two_workers) = (job::current_thread()?, job::two_workers()?);
        let mut rounds = Vec::new();
        for (name, runtime) in [
            ("current_thread", &current_thread),
            ("two workers", &two_workers),
        ] {
            for (tasks, times) in [(1_000, 41), (100_000, 15)] {
                progress(&format!("timing {tasks} tasks, {name}"));
                let contenders = EVERYBODY.to_vec();
                let timed = Rounds::time(runtime, &contenders, tasks, times);
                rounds.push((name, tasks, contenders, timed));
            }
        }
        let mut sizes = Vec::new();
        for tasks in [1_000, 10_000, 100_000, 1_000_000] {
            progress(&format!("sizing {tasks} tasks"));
            let timed = Rounds::time(&current_thread, &YARDSTICKS, tasks, 7);
            let empty = Job::once(Contender::Nothing, Work::Parked, 1).resident()?;
            let mut resident = BTreeMap::new();
            for contender in YARDSTICKS {
                let most = Job::once(contender, Work::Parked, tasks).resident()?;
                resident.insert(contender, (most - empty) / tasks as f64);
            }
            sizes.push((tasks, timed, resident));
        }
        Ok(Self { rounds, sizes })
    }
}

/// Nobody reads the progress when the terminal is gone.
pub fn progress(step: &str) {
    writeln!(io::stderr(), "{step} …").ok();
}
