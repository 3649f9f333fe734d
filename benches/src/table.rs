//! The tables, in Markdown.

use std::fmt;
use std::fmt::Formatter;

use crate::contender::Contender;
use crate::contender::Work;
use crate::figures::Counted;
use crate::figures::Timed;
use crate::figures::WORKS;
use crate::figures::YARDSTICKS;
use crate::goals::Goal;
use crate::pipe::LIMIT;
use crate::pipe::Pipe;
use crate::piped::CountedPipes;
use crate::piped::PIPES;
use crate::piped::SIZES;
use crate::piped::TimedPipes;
use crate::scale::Scale;
use crate::served::CountedServers;
use crate::served::PAIRS;
use crate::served::TimedServers;
use crate::stepped::CROWD;
use crate::stepped::CROWDS;
use crate::stepped::CountedSteps;
use crate::stepped::GRAPH;
use crate::stepped::GRAPHS;
use crate::stepped::TimedSteps;

/// The goals, row by row.
pub struct Goals<'a>(pub &'a [Goal]);

impl fmt::Display for Goals<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "| figure | goal | measured | |\n|---|---|---|---|")?;
        for goal in self.0 {
            let Goal {
                figure,
                bound,
                unit,
                measured,
                ..
            } = goal;
            let verdict = if goal.is_met() { "met" } else { "**missed**" };
            writeln!(
                out,
                "| {figure} | ≤ {bound:.2} {unit} | {measured:.2} {unit} | {verdict} |"
            )?;
        }
        writeln!(out)
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for work in WORKS {
            self.fmt_work(work, out)?;
        }
        writeln!(out, "### A whole group of one task\n")?;
        writeln!(out, "| | instructions | × JoinSet+token |\n|---|---|---|")?;
        let hand_written = self.one_task[&Contender::JoinSetToken].instructions;
        for (contender, one) in &self.one_task {
            let instructions = one.instructions;
            writeln!(
                out,
                "| {contender} | {instructions:.0} | {:.2} |",
                instructions / hand_written
            )?;
        }
        writeln!(
            out,
            "\n### Growth\n\n| | slope 50k→100k over 1k→2k |\n|---|---|"
        )?;
        for (contender, growth) in &self.growth {
            writeln!(out, "| {contender} | {growth:.3} |")?;
        }
        writeln!(out)
    }
}

impl Counted {
    fn fmt_work(&self, work: Work, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "### Per task, {work}\n")?;
        writeln!(
            out,
            "| | instructions | × floor | × JoinSet | outside malloc | locked | allocations | \
             bytes | peak bytes |\n|---|---|---|---|---|---|---|---|---|"
        )?;
        let floor = self.executed[&(Contender::Floor, work)].instructions;
        let join_set = self.executed[&(Contender::JoinSet, work)].instructions;
        for (key, executed) in self.executed.iter().filter(|((_, of), _)| *of == work) {
            let allocated = self.allocated[key];
            writeln!(
                out,
                "| {} | {:.0} | {:.3} | {:.3} | {:.0} | {:.1} | {:.2} | {:.0} | {:.0} |",
                key.0,
                executed.instructions,
                executed.instructions / floor,
                executed.instructions / join_set,
                executed.outside_malloc,
                executed.locked,
                allocated.blocks,
                allocated.bytes,
                allocated.peak,
            )?;
        }
        writeln!(out)
    }
}

impl fmt::Display for Timed {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "### Wall time, ready tasks\n\n| runtime | tasks | | ns | × floor | × JoinSet |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|")?;
        for (runtime, tasks, contenders, rounds) in &self.rounds {
            for &contender in contenders {
                writeln!(
                    out,
                    "| {runtime} | {tasks} | {contender} | {:.0} | {:.2} | {:.2} |",
                    rounds.nanoseconds(contender),
                    rounds.ratio(contender, Contender::Floor),
                    rounds.ratio(contender, Contender::JoinSet),
                )?;
            }
        }
        writeln!(
            out,
            "\n### From a thousand tasks to a million, current_thread\n"
        )?;
        writeln!(
            out,
            "| tasks | | ns, ready | × floor | resident bytes, parked |\n|---|---|---|---|---|"
        )?;
        for (tasks, rounds, resident) in &self.sizes {
            for contender in YARDSTICKS {
                writeln!(
                    out,
                    "| {tasks} | {contender} | {:.0} | {:.2} | {:.0} |",
                    rounds.nanoseconds(contender),
                    rounds.ratio(contender, Contender::Floor),
                    resident[&contender],
                )?;
            }
        }
        writeln!(out)
    }
}

impl fmt::Display for CountedServers {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "### Per request, counted\n\n| | instructions | × stock | outside malloc | locked | \
             allocations | bytes |\n|---|---|---|---|---|---|---|"
        )?;
        for (stock, gated) in PAIRS {
            for server in [stock, gated] {
                let (executed, allocated) = (self.executed[&server], self.allocated[&server]);
                writeln!(
                    out,
                    "| {server} | {:.0} | {:.3} | {:.0} | {:.1} | {:.2} | {:.0} |",
                    executed.instructions,
                    self.ratio(stock, server),
                    executed.outside_malloc,
                    executed.locked,
                    allocated.blocks,
                    allocated.bytes,
                )?;
            }
        }
        writeln!(out)
    }
}

impl fmt::Display for TimedServers {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "### Under load\n\n| | answers per second | × stock | processor ns per answer | × stock |\n\
             |---|---|---|---|---|"
        )?;
        for (stock, gated) in PAIRS {
            for server in [stock, gated] {
                writeln!(
                    out,
                    "| {server} | {:.0} | {:.3} | {:.0} | {:.3} |",
                    self.rate(server),
                    self.rate_ratio(stock, server),
                    self.nanoseconds(server),
                    self.time_ratio(stock, server),
                )?;
            }
        }
        writeln!(out)
    }
}

impl fmt::Display for CountedPipes {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "### Per item, {LIMIT} at once, counted\n\n| | instructions | × semaphore+JoinSet | growth | outside malloc | locked | \
             allocations | bytes |\n|---|---|---|---|---|---|---|---|"
        )?;
        for pipe in PIPES {
            let item = self.0[&pipe];
            let (executed, allocated) = (item.executed, item.allocated);
            writeln!(
                out,
                "| {pipe} | {:.0} | {:.3} | {:.3} | {:.0} | {:.1} | {:.2} | {:.0} |",
                executed.instructions,
                self.ratio(pipe, Pipe::JoinSet),
                item.growth,
                executed.outside_malloc,
                executed.locked,
                allocated.blocks,
                allocated.bytes,
            )?;
        }
        writeln!(out)
    }
}

impl fmt::Display for TimedPipes {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "### Per item, {LIMIT} at once, processor time\n\n| items | | ns | × semaphore+JoinSet | × for_each_concurrent+spawn |\n\
             |---|---|---|---|---|"
        )?;
        for items in SIZES {
            for pipe in PIPES {
                writeln!(
                    out,
                    "| {items} | {pipe} | {:.0} | {:.2} | {:.2} |",
                    self.nanoseconds(items, pipe),
                    self.ratio(items, pipe, Pipe::JoinSet),
                    self.ratio(items, pipe, Pipe::Spawned),
                )?;
            }
            if let Some(go) = self.go(items) {
                writeln!(
                    out,
                    "| {items} | Go, 64 goroutines and two channels | {go:.0} | | |"
                )?;
            }
        }
        writeln!(out)
    }
}

impl fmt::Display for CountedSteps {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "### Per component, counted\n\n| | graph | instructions | × floor | growth | locked | \
             allocations | bytes | peak bytes |\n|---|---|---|---|---|---|---|---|---|"
        )?;
        for (stepper, shape, step) in self.steps() {
            let (executed, allocated) = (step.executed, step.allocated);
            writeln!(
                out,
                "| {stepper} | {shape} | {:.0} | {:.2} | {:.3} | {:.1} | {:.2} | {:.0} | {:.0} |",
                executed.instructions,
                self.ratio(stepper, shape),
                step.growth,
                executed.locked,
                allocated.blocks,
                allocated.bytes,
                allocated.peak,
            )?;
        }
        writeln!(out)
    }
}

impl fmt::Display for TimedSteps {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "### {GRAPH} components\n\n| | graph | start and stop, ms |\n|---|---|---|"
        )?;
        for (stepper, shape) in GRAPHS {
            let whole = self.whole(stepper, shape);
            writeln!(out, "| {stepper} | {shape} | {whole:.2} |")?;
        }
        writeln!(out)?;
        writeln!(
            out,
            "### {CROWD} at once\n\n| | start and stop, ms | longest gap in the start, ms | in the stop, ms | × floor | \
             in the worst round, ms |\n|---|---|---|---|---|---|"
        )?;
        for stepper in CROWDS {
            writeln!(
                out,
                "| {stepper} | {:.1} | {:.2} | {:.2} | {:.2} | {:.2} |",
                self.whole_crowd(stepper),
                self.gap_before(stepper),
                self.gap(stepper),
                self.gap_ratio(stepper),
                self.longest_gap(stepper),
            )?;
        }
        writeln!(out)
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "### {} connections\n\n| connections | server | workers | told | stuck | CPU of the stop, ms | \
             growth from {} | longest wait after the stop, ms | after the linger | after the cut | \
             CPU per second of waiting, ms | bytes per connection |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|",
            self.count,
            self.count / 10,
        )?;
        for (case, rounds) in &self.cases {
            let gap = |phase: usize| rounds.median(|seen| seen.gaps[phase]);
            let growth = self.growth(case);
            let growth = growth.map_or("".to_owned(), |growth| format!("{growth:.2} ×"));
            let (waiting, cut) = match case.guests.are_cut() {
                true => (
                    format!("{:.2}", rounds.median(|seen| seen.waiting)),
                    format!("{:.2}", gap(2)),
                ),
                false => Default::default(),
            };
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {:.0} | {growth} | {:.2} | {:.2} | {cut} | {waiting} | {:.0} |",
                case.guests,
                case.server,
                case.workers,
                rounds.told(),
                rounds.stuck(),
                rounds.median(|seen| seen.cpu),
                gap(0),
                gap(1),
                rounds.bytes(),
            )?;
        }
        writeln!(out)
    }
}
