//! The goals of the project, and whether the figures meet them.

use std::fmt;
use std::fmt::Formatter;

use crate::contender::Contender;
use crate::contender::Work;
use crate::figures::Counted;
use crate::figures::Timed;
use crate::pipe::Pipe;
use crate::piped::CountedPipes;
use crate::piped::POOLS;
use crate::piped::SIZES;
use crate::piped::TimedPipes;
use crate::scale::Rounds;
use crate::scale::Scale;
use crate::served::CountedServers;
use crate::served::PAIRS;
use crate::served::TimedServers;
use crate::server::Server;
use crate::stepped::CROWD;
use crate::stepped::CountedSteps;
use crate::stepped::TimedSteps;
use crate::stepper::Shape;
use crate::stepper::Stepper;

/// An upper bound for one figure.
#[derive(Debug)]
pub struct Goal {
    pub figure: String,
    pub bound: f64,
    /// What the bound and the measured value count.
    pub unit: &'static str,
    pub measured: f64,
    /// The limit that counts: the bound, or what has been reached of it so far.
    pub reached: f64,
}

impl Goal {
    fn new(figure: impl Into<String>, bound: f64, unit: &'static str, measured: f64) -> Self {
        Self {
            figure: figure.into(),
            bound,
            unit,
            measured,
            reached: bound,
        }
    }

    /// A goal that is missed, and by how much at most.
    fn but_reached(self, reached: f64) -> Self {
        Self { reached, ..self }
    }

    pub fn is_met(&self) -> bool {
        // As printed: two decimals.
        (self.measured * 100.0).round() <= (self.bound * 100.0).round()
    }

    /// Whether the figure has got worse by more than what another compiler or libc may change.
    pub fn is_lost(&self) -> bool {
        self.measured > self.reached * 1.02
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            figure,
            measured,
            reached,
            unit,
            ..
        } = self;
        write!(out, "{figure}: {measured:.2} {unit}, after {reached:.2}")
    }
}

/// The goals that are counted.
pub fn counted(counted: &Counted) -> Vec<Goal> {
    let ratio = |work, to| {
        let instructions = |contender| counted.executed[&(contender, work)].instructions;
        instructions(Contender::Group) / instructions(to)
    };
    let one_task = |contender| counted.one_task[&contender].instructions;
    let blocks = counted.allocated[&(Contender::Group, Work::Parked)].blocks;
    let (floor, join_set) = (Contender::Floor, Contender::JoinSet);
    vec![
        Goal::new(
            "ready task, instructions",
            1.06,
            "× floor",
            ratio(Work::Ready, floor),
        ),
        Goal::new(
            "ready task, instructions",
            0.70,
            "× JoinSet",
            ratio(Work::Ready, join_set),
        ),
        Goal::new(
            "task that yields, instructions",
            1.15,
            "× floor",
            ratio(Work::Yield, floor),
        ),
        Goal::new(
            "task that yields, instructions",
            0.82,
            "× JoinSet",
            ratio(Work::Yield, join_set),
        ),
        Goal::new(
            "parked, then cancelled, instructions",
            1.12,
            "× floor",
            ratio(Work::Parked, floor),
        ),
        Goal::new("allocations per task", 1.0, "", blocks),
        Goal::new("wrapper around a future", 16.0, "B", counted.wrapper_bytes),
        Goal::new(
            "registry per parked task",
            24.0,
            "B",
            counted.registry_bytes,
        ),
        Goal::new(
            "a group of one task, instructions",
            0.90,
            "× JoinSet+token",
            one_task(Contender::Group) / one_task(Contender::JoinSetToken),
        )
        .but_reached(0.96),
        Goal::new(
            "growth from 1k to 100k tasks",
            1.03,
            "×",
            counted.growth[&Contender::Group],
        ),
        Goal::new("peak per task, limit 64", 1.0, "B", counted.limited_peak),
    ]
}

/// The goals of the servers that are counted.
pub fn counted_servers(counted: &CountedServers) -> Vec<Goal> {
    let goal = |(stock, gated)| {
        let figure = format!("{gated}, instructions per request");
        let (bound, reached) = match gated {
            Server::GatedAxum => (1.05, 1.07),
            _ => (0.98, 0.99),
        };
        let ratio = counted.ratio(stock, gated);
        Goal::new(figure, bound, unit(stock), ratio).but_reached(reached)
    };
    PAIRS.map(goal).into()
}

/// The goals of the servers that are timed. A throughput is turned round, so that less is better.
pub fn timed_servers(timed: &TimedServers) -> Vec<Goal> {
    let goals = |(stock, gated)| {
        let ratios = [
            ("wall time", 1.0 / timed.rate_ratio(stock, gated)),
            ("processor time", timed.time_ratio(stock, gated)),
        ];
        ratios.map(|(time, ratio)| {
            let figure = format!("{gated}, {time} per request under load");
            Goal::new(figure, 1.0 / 0.95, unit(stock), ratio)
        })
    };
    PAIRS.into_iter().flat_map(goals).collect()
}

/// The goals of a server with thousands of connections.
///
/// A client that is not told, a false "stuck", the growth and the memory fail the command. A time is shown only, because
/// the clients and whatever else runs are on the same cores.
pub fn scaled(scale: &Scale) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (case, rounds) in &scale.cases {
        if matches!(case.server, Server::Axum | Server::Tonic) {
            continue;
        }
        let is_busy = case.guests.are_cut();
        let who = format!("{}, {} at work", case.guests, case.workers);
        let mut goal = |figure: &str, bound, unit, measured, reached| {
            let goal = Goal::new(format!("{who}, {figure}"), bound, unit, measured);
            goals.push(goal.but_reached(reached));
        };
        let untold = (scale.count - rounds.told()) as f64;
        // A client that does not get to its answer within a second is given up.
        let most_untold = if is_busy { 0.0 } else { scale.count as f64 };
        goal("clients not told", 0.0, "", untold, most_untold);
        goal("called stuck", 0.0, "", rounds.stuck() as f64, 0.0);
        let gap = |phase: usize| rounds.median(|seen| seen.gaps[phase]);
        let longest = gap(0).max(gap(1)).max(gap(2));
        goal("longest wait", 5.0, "ms", longest, f64::INFINITY);
        if is_busy {
            let waiting = rounds.median(|seen| seen.waiting);
            goal(
                "processor time per second of waiting",
                0.5,
                "ms",
                waiting,
                f64::INFINITY,
            );
        }
        if let Some(growth) = scale.growth(case) {
            goal("growth", 10.2, "×", growth, 13.0);
        }
        if let Some(stock) = scale.stock(case).filter(|_| case.workers == 1) {
            let cpu = |rounds: &Rounds| rounds.median(|seen| seen.cpu);
            let ratio = cpu(rounds) / cpu(stock);
            goal(
                "processor time of the stop",
                1.0,
                "× stock",
                ratio,
                f64::INFINITY,
            );
            let bytes = rounds.bytes() - stock.bytes();
            goal("memory beyond stock", 512.0, "B", bytes, 2_000.0);
        }
    }
    goals
}

/// The goals of a lifecycle that are counted, of those steps that have been.
pub fn counted_steps(counted: &CountedSteps) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (stepper, shape, step) in counted.steps() {
        let most = match (stepper, shape) {
            (Stepper::Children, _) => 3.1,
            (Stepper::Lifecycle, Shape::Flat) => 13.0,
            (Stepper::Lifecycle, Shape::Star) => 14.5,
            (Stepper::Lifecycle, Shape::Chain) => 16.0,
            (Stepper::Lifecycle, Shape::Layers) => 21.0,
            _ => continue,
        };
        let who = format!("{stepper}, {shape}");
        let ratio = counted.ratio(stepper, shape);
        goals.extend([
            Goal::new(format!("{who}, instructions"), most, "× floor", ratio),
            Goal::new(format!("{who}, growth"), 1.03, "×", step.growth),
        ]);
    }
    goals
}

/// The goals of a pool that are counted.
pub fn counted_pipes(counted: &CountedPipes) -> Vec<Goal> {
    let goals = |pool| {
        let item = counted.0[&pool];
        [
            Goal::new(
                format!("{pool}, instructions per item"),
                0.55,
                "× semaphore+JoinSet",
                counted.ratio(pool, Pipe::JoinSet),
            ),
            Goal::new(
                format!("{pool}, instructions per item"),
                0.55,
                "× semaphore+spawn",
                counted.ratio(pool, Pipe::Spawn),
            ),
            Goal::new(
                format!("{pool}, allocations per item"),
                0.0,
                "",
                item.allocated.blocks,
            ),
            Goal::new(format!("{pool}, growth"), 1.03, "×", item.growth),
        ]
    };
    POOLS.into_iter().flat_map(goals).collect()
}

/// The goals of a pool that are timed.
pub fn timed_pipes(timed: &TimedPipes) -> Vec<Goal> {
    let [few, .., most] = SIZES;
    let goals = |pool| {
        let growth = timed.nanoseconds(most, pool) / timed.nanoseconds(few, pool);
        [
            // 100,000 a second.
            Goal::new(
                format!("{pool}, an empty item"),
                10_000.0,
                "ns",
                timed.nanoseconds(most, pool),
            ),
            Goal::new(
                format!("{pool}, processor time per item"),
                0.5,
                "× for_each_concurrent+spawn",
                timed.ratio(most, pool, Pipe::Spawned),
            ),
            Goal::new(
                format!("{pool}, time of an item among {most} over among {few}"),
                1.2,
                "×",
                growth,
            ),
        ]
    };
    POOLS.into_iter().flat_map(goals).collect()
}

/// The goals of a lifecycle that are timed.
pub fn timed_steps(timed: &TimedSteps) -> Vec<Goal> {
    let goal = |(stepper, most)| {
        let figure = format!("longest gap, {CROWD} cancelled at once, {stepper}");
        Goal::new(figure, most, "× floor", timed.gap_ratio(stepper))
    };
    [(Stepper::Children, 2.5), (Stepper::Lifecycle, 2.5)]
        .map(goal)
        .into()
}

fn unit(stock: Server) -> &'static str {
    match stock {
        Server::Tonic | Server::GatedTonic => "× tonic",
        Server::Axum | Server::GatedAxum => "× axum",
    }
}

/// The goals that are timed.
pub fn timed(timed: &Timed) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (runtime, tasks, _, rounds) in &timed.rounds {
        let figure = format!("wall, ready, {tasks} tasks, {runtime}");
        let ratio = |to| rounds.ratio(Contender::Group, to);
        goals.push(Goal::new(
            figure.clone(),
            1.15,
            "× floor",
            ratio(Contender::Floor),
        ));
        goals.push(Goal::new(
            figure,
            0.60,
            "× JoinSet",
            ratio(Contender::JoinSet),
        ));
    }
    goals
}
