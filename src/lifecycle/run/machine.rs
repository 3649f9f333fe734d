//! What a lifecycle does next: a pure function of what it did and of what has happened.
//!
//! There is no clock, no task and no lock in here. The engine says what happened and when, and does
//! what it is told. Times are those since the start of the run; one that cannot be expressed never
//! comes.
//!
//! Invariants:
//!
//! 1. A component is started when all it depends on are ready, and told to stop when all that depend
//!    on it are over, directly or through others. One in between that is over itself, or never was
//!    started, changes nothing of that: those before it wait for those behind it. Nothing else starts
//!    or tells one, except that a component may begin to leave by itself.
//!    That holds too when one is stopped while the rest goes on: those that use it go first.
//! 2. A node that has been started is told, leaves or ends exactly once; what was told is over,
//!    forced or lost by its time.
//! 3. Once the stop has begun nothing is started. The engine takes back what it was to start when it
//!    finds that somebody has asked for the stop.
//! 4. Both orders are [`Turns`], as the levels of the plan are. Each edge is looked at once in each
//!    direction: a whole run is linear in nodes and edges, but for the order of the timers.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::group::time::CONFIRMATION;
use crate::lifecycle::haste::Haste;
use crate::lifecycle::plan::graph::{Graph, Turns};

#[cfg(test)]
mod tests;

/// The last timers of a spent budget. A timer has no shorter time than this.
const SHORTEST: Duration = Duration::from_millis(1);

/// What the machine knows of a node.
#[derive(Clone, Copy, Debug)]
pub(in crate::lifecycle) enum Node {
    Component(Traits),
    /// Is ready as soon as what it depends on is, and over as soon as what depends on it is.
    Barrier,
}

impl Node {
    fn is_component(&self) -> bool {
        matches!(self, Self::Component(_))
    }

    fn is_work(&self) -> bool {
        matches!(self, Self::Component(Traits { is_work: true, .. }))
    }
}

#[derive(Clone, Copy, Debug)]
pub(in crate::lifecycle) struct Traits {
    pub(in crate::lifecycle) start_timeout: Duration,
    pub(in crate::lifecycle) grace: Duration,
    /// Is ready when it has ended.
    pub(in crate::lifecycle) is_job: bool,
    /// Its end is no event.
    pub(in crate::lifecycle) may_end: bool,
    /// Once all are ready, its failure stops nothing else.
    pub(in crate::lifecycle) may_fail: bool,
    /// The lifecycle goes on for it, as it does not for a resource.
    pub(in crate::lifecycle) is_work: bool,
    /// It is or has a resource, and is told in its turn however urgent the stop is.
    pub(in crate::lifecycle) is_used: bool,
    /// It is a lifecycle, which forces what is in it by itself, and has its cleanup then.
    pub(in crate::lifecycle) has_cleanup: bool,
    /// Takes part in the drain.
    pub(in crate::lifecycle) drains: bool,
    /// The phase in which it stops.
    pub(in crate::lifecycle) phase: Option<usize>,
}

/// The parts of the budget. All of them fit into the total.
#[derive(Clone, Debug)]
pub(in crate::lifecycle) struct Times {
    pub(in crate::lifecycle) total: Duration,
    /// By when all have to be ready.
    pub(in crate::lifecycle) start: Duration,
    /// As it was drawn.
    pub(in crate::lifecycle) jitter: Duration,
    pub(in crate::lifecycle) lame_duck: Duration,
    pub(in crate::lifecycle) drain: Duration,
    /// Kept for the cleanup.
    pub(in crate::lifecycle) cleanup: Duration,
    /// Kept to join what was forced.
    pub(in crate::lifecycle) margin: Duration,
    /// What each phase may take.
    pub(in crate::lifecycle) phases: Vec<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Event {
    Ready(usize),
    Drained(usize),
    /// A task of the component has failed; the others have been told and are leaving.
    Failing(usize),
    /// All of the component is gone.
    Ended(usize, Ending),
    /// A lifecycle inside of this one has nothing left to do, and is there for those that use it.
    Idle(usize),
    /// A lifecycle inside of this one has done all it had to do, and ends.
    Finished(usize),
    /// Somebody asks for the stop.
    Stop,
    /// Somebody asks for the stop of this one, and so of those that use it, while the rest goes on.
    StopOne(usize),
    /// Leaves out that much of the order.
    Hurry(Haste),
    /// Time has passed.
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Ending {
    Well,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Action {
    Start(usize),
    /// It is ready.
    Ready(usize),
    /// All components are ready.
    AllReady,
    /// Something went wrong. If it is the first thing, it is what the stop is for.
    Blame(usize, Fault),
    /// Something went wrong, and the others go on.
    GoOn(usize, Fault),
    /// From here on the stop counts.
    BeginStop,
    /// Goes on as it is until then, so that replicas do not stop at once.
    Jitter {
        until: Duration,
    },
    /// The service is not ready any more; the jitter is over.
    NotReady,
    /// Goes on serving until then.
    LameDuck {
        until: Duration,
    },
    /// Half of the lame duck is over.
    Leave,
    /// Tells all that take part to drain until then.
    Drain {
        until: Duration,
    },
    DrainIsOver,
    /// Tells a component to stop until then.
    Tell(usize, Duration),
    /// It has been told, and has less time than that: until then.
    Hurry(usize, Duration),
    /// Its time is up.
    Force(usize),
    /// It is gone.
    Gone(usize),
    /// It did not even end when it was forced.
    GiveUp(usize),
    /// Nothing is left to do, and what is around this lifecycle may go on using it.
    Idle,
    /// Nothing is left that could be waited for; the cleanup has until then.
    Clean {
        until: Duration,
    },
}

/// What went wrong with a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Fault {
    StartFailed,
    StartTimedOut,
    /// The start as a whole took longer than this.
    StartOverran(Duration),
    EndedBeforeReady,
    /// It is still there, and leaving; how it failed is known when it has ended.
    Failing,
    Failed,
    EndedEarly,
    /// It failed while it stopped.
    StopFailed,
    /// It had this long.
    DrainTimedOut(Duration),
    Overran,
    StillRunning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Created,
    /// Started, and to be ready by then.
    Starting {
        until: Duration,
    },
    /// It was not ready in time, and is told in its turn.
    Late,
    Running,
    /// Told, or leaving by itself; to be gone by then.
    Leaving {
        until: Duration,
        why: Why,
    },
    /// Aborted; gone by then, or lost.
    Forced {
        until: Duration,
        why: Why,
    },
    /// Aborted and not gone. Whoever it uses is stopped all the same.
    Lost,
    /// Gone, or never started.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Told,
    /// One of its tasks has failed, before or after it was ready.
    FailedStarting,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not all components are ready yet.
    Starting,
    /// All are.
    Serving,
    Jitter {
        until: Duration,
    },
    LameDuck {
        half: Option<Duration>,
        until: Duration,
    },
    Draining {
        since: Duration,
        until: Duration,
    },
    Stopping,
    Over,
}

#[derive(Debug)]
pub(in crate::lifecycle) struct Machine {
    graph: Graph,
    nodes: Vec<Node>,
    times: Times,
    phases: Vec<Phase>,
    /// Done are those that are ready.
    starts: Turns,
    /// Done are those that are over.
    stops: Turns,
    /// Those whose turn has come; empty but for a moment.
    next: Vec<usize>,
    drained: Vec<bool>,
    /// Those that are to stop while the rest goes on, with all that use them.
    alone: Vec<bool>,
    not_ready: usize,
    not_over: usize,
    /// Those of them that are no barriers.
    components_left: usize,
    /// How many the lifecycle goes on for; nothing if there never were any.
    work_left: Option<usize>,
    /// Whether this lifecycle is a component of another one.
    is_inside: bool,
    not_drained: usize,
    stage: Stage,
    haste: Haste,
    /// When the stop began.
    stop_at: Duration,
    /// When the first of each phase was told.
    phase_ends: Vec<Option<Duration>>,
    timers: BinaryHeap<Reverse<(Duration, usize)>>,
}

impl Machine {
    /// `is_inside`: what is around this lifecycle ends it, also when nothing is left to do.
    pub(in crate::lifecycle) fn new(
        graph: Graph,
        nodes: Vec<Node>,
        times: Times,
        is_inside: bool,
    ) -> Self {
        let count = nodes.len();
        let work = nodes.iter().filter(|node| node.is_work()).count();
        Self {
            work_left: Some(work).filter(|work| *work > 0),
            is_inside,
            components_left: nodes.iter().filter(|node| node.is_component()).count(),
            starts: Turns::new(&graph.dependencies),
            stops: Turns::new(&graph.dependents),
            next: Vec::new(),
            phase_ends: vec![None; times.phases.len()],
            graph,
            nodes,
            times,
            phases: vec![Phase::Created; count],
            drained: vec![false; count],
            alone: vec![false; count],
            not_ready: count,
            not_over: count,
            not_drained: 0,
            stage: Stage::Starting,
            haste: Haste::None,
            stop_at: Duration::ZERO,
            timers: BinaryHeap::new(),
        }
    }

    /// Starts what depends on nothing.
    pub(in crate::lifecycle) fn begin(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for node in 0..self.nodes.len() {
            // One that was ready at once has started those after it.
            if self.starts.has_come(node) && self.phases[node] == Phase::Created {
                self.start(node, now, actions);
            }
        }
        self.look(now, actions);
    }

    /// Takes note of what has happened.
    pub(in crate::lifecycle) fn on(
        &mut self,
        event: Event,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        match event {
            Event::Ready(node) => {
                if let Phase::Starting { .. } = self.phases[node] {
                    self.phases[node] = Phase::Running;
                    actions.push(Action::Ready(node));
                    self.ready(node, now, actions);
                }
            }
            Event::Drained(node) => self.drained(node),
            Event::Failing(node) => self.failing(node, now, actions),
            Event::Ended(node, ending) => self.ended(node, ending, now, actions),
            Event::Idle(node) => self.idle(node),
            Event::Finished(node) => self.finished(node),
            Event::Stop => self.stop(true, now, actions),
            Event::StopOne(node) => self.stop_one(node, now, actions),
            Event::Hurry(haste) => self.hurry(haste, now, actions),
            Event::Tick => self.expire(now, actions),
        }
        self.look(now, actions);
    }

    /// Adds a component, behind those that there are: `graph` has it, and `graces` are those of all.
    ///
    /// It is never started if the stop has begun, or if what it uses is stopped alone.
    pub(in crate::lifecycle) fn add(
        &mut self,
        graph: Graph,
        traits: Traits,
        graces: impl Iterator<Item = Duration>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let node = self.graph.components;
        self.nodes.insert(node, Node::Component(traits));
        self.phases.insert(node, Phase::Created);
        self.drained.insert(node, self.is_stopping());
        self.alone.insert(node, false);
        // The barriers stand behind it.
        let was = |turns: &Turns, at: usize| match at.cmp(&node) {
            Ordering::Less => turns.is_done(at),
            Ordering::Equal => false,
            Ordering::Greater => turns.is_done(at - 1),
        };
        let (before, after) = (&graph.dependencies, &graph.dependents);
        self.stops = Turns::resumed(after, before, |at| was(&self.stops, at));
        self.starts = Turns::resumed(before, after, |at| was(&self.starts, at));
        self.graph = graph;
        for (node, of_plan) in self.nodes.iter_mut().zip(graces) {
            if let Node::Component(Traits { grace, .. }) = node {
                *grace = of_plan;
            }
        }
        self.not_ready += 1;
        self.not_over += 1;
        self.components_left += 1;
        if traits.is_work {
            self.work_left = Some(self.work_left.unwrap_or(0) + 1);
        }
        let mut uses = self.graph.dependencies[node].iter();
        let is_late = uses.any(|&used| self.graph.is_component(used) && self.alone[used]);
        if is_late || self.is_stopping() {
            self.alone[node] = is_late;
            self.phases[node] = Phase::Over;
            self.over(node, Phase::Over, now, actions);
        } else if self.starts.has_come(node) {
            self.start(node, now, actions);
        }
        self.look(now, actions);
    }

    /// Takes back that a node is started: the stop was asked for before that was done, and its event
    /// is on its way.
    pub(in crate::lifecycle) fn not_started(&mut self, node: usize) {
        if let Phase::Starting { .. } = self.phases[node] {
            self.phases[node] = Phase::Created;
        }
    }

    /// Lets the stop take no longer than this from now on, or from its begin: a nested lifecycle
    /// has what is left of the budget above it.
    pub(in crate::lifecycle) fn cap(
        &mut self,
        left: Duration,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        if !self.is_stopping() {
            if left < self.times.total {
                self.set_total(left);
            }
            return;
        }
        let total = now.saturating_sub(self.stop_at).saturating_add(left);
        if total >= self.times.total {
            return;
        }
        self.set_total(total);
        self.shorten(now, actions);
        let end = self.end_of_graces().max(now);
        if let Stage::Draining { until, .. } = &mut self.stage {
            *until = end.min(*until);
        }
    }

    /// Lets those that are leaving have no more than what the budget leaves them, or nothing if they are
    /// to be forced.
    fn shorten(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let end_of_graces = self.end_of_graces().max(now);
        let confirmed = self.confirmation(now);
        for node in 0..self.nodes.len() {
            let end = if self.is_forced(node) {
                now
            } else {
                end_of_graces
            };
            match self.phases[node] {
                Phase::Leaving { until, why } if until > end => {
                    self.enter(node, Phase::Leaving { until: end, why });
                    actions.push(Action::Hurry(node, end));
                }
                Phase::Forced { until, why } if until > confirmed => {
                    let until = confirmed;
                    self.enter(node, Phase::Forced { until, why });
                }
                _ => {}
            }
        }
    }

    /// What is kept to join those that were forced is a tenth at most, as in a budget.
    fn set_total(&mut self, total: Duration) {
        self.times.total = total;
        self.times.margin = self.times.margin.min(total / 10);
    }

    /// Returns what the stop may take in all.
    pub(in crate::lifecycle) fn total(&self) -> Duration {
        self.times.total
    }

    /// Returns when a tick is due, if nothing else happens before.
    pub(in crate::lifecycle) fn next_tick(&mut self) -> Option<Duration> {
        while let Some(Reverse((at, node))) = self.timers.peek().copied() {
            if self.until(node) == Some(at) {
                break;
            }
            self.timers.pop();
        }
        let node = self.timers.peek().map(|Reverse((at, _))| *at);
        let stage = match self.stage {
            Stage::Jitter { until } | Stage::Draining { until, .. } => Some(until),
            Stage::LameDuck { half, until } => Some(half.unwrap_or(until)),
            Stage::Starting => Some(self.times.start),
            _ => None,
        };
        let next = [node, stage].into_iter().flatten().min();
        next.filter(|at| *at < Duration::MAX)
    }

    pub(in crate::lifecycle) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    fn traits(&self, node: usize) -> Option<&Traits> {
        match &self.nodes[node] {
            Node::Component(traits) => Some(traits),
            Node::Barrier => None,
        }
    }

    fn is_stopping(&self) -> bool {
        !matches!(self.stage, Stage::Starting | Stage::Serving)
    }

    /// When a node has to have got on.
    fn until(&self, node: usize) -> Option<Duration> {
        match self.phases[node] {
            Phase::Starting { until }
            | Phase::Leaving { until, .. }
            | Phase::Forced { until, .. } => Some(until),
            Phase::Created | Phase::Late | Phase::Running | Phase::Lost | Phase::Over => None,
        }
    }

    fn enter(&mut self, node: usize, phase: Phase) {
        self.phases[node] = phase;
        if let Some(until) = self.until(node) {
            self.timers.push(Reverse((until, node)));
        }
    }

    fn start(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) {
        match self.nodes[node] {
            Node::Component(Traits { start_timeout, .. }) => {
                let until = now.saturating_add(start_timeout);
                self.enter(node, Phase::Starting { until });
                actions.push(Action::Start(node));
            }
            Node::Barrier => {
                self.phases[node] = Phase::Running;
                self.ready(node, now, actions);
            }
        }
    }

    /// Starts those that waited for the node, and for those that are ready at once the same.
    fn ready(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) {
        let mut next = std::mem::take(&mut self.next);
        let mut at = 0;
        let mut ready = Some(node);
        loop {
            if let Some(node) = ready.take() {
                self.not_ready -= 1;
                let after = &self.graph.dependents;
                self.starts.done(node, after, &mut next);
            }
            let Some(&dependent) = next.get(at) else {
                break;
            };
            at += 1;
            if self.is_stopping() || self.phases[dependent] != Phase::Created {
                continue;
            }
            if let Node::Barrier = self.nodes[dependent] {
                self.phases[dependent] = Phase::Running;
                ready = Some(dependent);
            } else {
                self.start(dependent, now, actions);
            }
        }
        next.clear();
        self.next = next;
    }

    fn hurry(&mut self, haste: Haste, now: Duration, actions: &mut Vec<Action>) {
        self.haste = self.haste.max(haste);
        if self.is_stopping() && self.haste == Haste::Force {
            self.shorten(now, actions);
        }
        if self.stage == Stage::Stopping && self.is_urgent() {
            self.tell_the_next(now, actions);
        }
    }

    /// Whether it has no time to stop.
    fn is_forced(&self, node: usize) -> bool {
        let has_cleanup = self.traits(node).is_some_and(|traits| traits.has_cleanup);
        self.haste == Haste::Force && !has_cleanup
    }

    fn is_urgent(&self) -> bool {
        self.haste >= Haste::Urgent
    }

    fn idle(&mut self, node: usize) {
        if matches!(self.phases[node], Phase::Lost | Phase::Over) {
            return;
        }
        if let Node::Component(traits) = &mut self.nodes[node] {
            if std::mem::take(&mut traits.is_work) {
                self.work_is_done();
            }
        }
    }

    fn finished(&mut self, node: usize) {
        if let Node::Component(traits) = &mut self.nodes[node] {
            traits.may_end = true;
        }
    }

    fn work_is_done(&mut self) {
        if let Some(work) = &mut self.work_left {
            *work -= 1;
        }
    }

    fn drained(&mut self, node: usize) {
        let drains = self.traits(node).is_some_and(|traits| traits.drains);
        if drains && !std::mem::replace(&mut self.drained[node], true) && self.is_draining() {
            self.not_drained -= 1;
        }
    }

    fn is_draining(&self) -> bool {
        matches!(self.stage, Stage::Draining { .. })
    }

    fn failing(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) {
        let why = match self.phases[node] {
            Phase::Starting { .. } | Phase::Late => Why::FailedStarting,
            Phase::Running => Why::Failed,
            _ => return,
        };
        if self.blame(node, Fault::Failing, actions) {
            self.stop(false, now, actions);
        }
        // Its own stop has begun, whoever uses it; that of its phase has not.
        let until = self.time_for(node, now);
        self.enter(node, Phase::Leaving { until, why });
        actions.push(Action::Tell(node, until));
        // It has other things to do.
        self.drained(node);
    }

    fn ended(&mut self, node: usize, ending: Ending, now: Duration, actions: &mut Vec<Action>) {
        let Some(&Traits {
            is_job, may_end, ..
        }) = self.traits(node)
        else {
            return;
        };
        let fault = match (self.phases[node], ending) {
            (Phase::Created | Phase::Over, _) => return,
            // Later than expected, and gone all the same.
            (Phase::Lost, _) => return,
            (Phase::Starting { .. } | Phase::Late, Ending::Failed) => Some(Fault::StartFailed),
            // It has been blamed for that.
            (Phase::Late, Ending::Well) => None,
            (Phase::Starting { .. }, Ending::Well) if is_job => {
                actions.push(Action::Ready(node));
                self.ready(node, now, actions);
                None
            }
            (Phase::Starting { .. }, Ending::Well) => Some(Fault::EndedBeforeReady),
            (Phase::Running, Ending::Well) if may_end => None,
            (Phase::Running, Ending::Well) => Some(Fault::EndedEarly),
            (Phase::Running, Ending::Failed) => Some(Fault::Failed),
            (Phase::Leaving { why, .. } | Phase::Forced { why, .. }, ending) => match why {
                Why::FailedStarting => Some(Fault::StartFailed),
                Why::Failed => Some(Fault::Failed),
                Why::Told => (ending == Ending::Failed).then_some(Fault::StopFailed),
            },
        };
        let stops_all = fault.is_some_and(|fault| self.blame(node, fault, actions));
        if fault.is_some() && !stops_all && !self.starts.is_done(node) {
            self.start_without(node, now, actions);
        }
        actions.push(Action::Gone(node));
        self.drained(node);
        self.over(node, Phase::Over, now, actions);
        if stops_all {
            self.stop(false, now, actions);
        }
    }

    /// Says what went wrong; returns whether all stops for it.
    fn blame(&self, node: usize, fault: Fault, actions: &mut Vec<Action>) -> bool {
        let may_fail = self.traits(node).is_some_and(|traits| traits.may_fail);
        let goes_on = match fault {
            // It was leaving.
            Fault::StopFailed | Fault::Overran | Fault::StillRunning => !self.is_stopping(),
            _ => may_fail && self.stage == Stage::Serving,
        };
        actions.push(match goes_on {
            true => Action::GoOn(node, fault),
            false => Action::Blame(node, fault),
        });
        !goes_on
    }

    /// A node is over, and those that nobody uses any longer are told.
    fn over(&mut self, node: usize, phase: Phase, now: Duration, actions: &mut Vec<Action>) {
        self.phases[node] = phase;
        let mut next = std::mem::take(&mut self.next);
        let mut at = 0;
        let mut over = Some(node);
        loop {
            if let Some(node) = over.take() {
                self.not_over -= 1;
                if self.alone[node] && !self.is_stopping() && !self.starts.is_done(node) {
                    // It never will be, and holds up nobody: what uses it is over, or was added since.
                    self.ready(node, now, actions);
                }
                self.components_left -= usize::from(self.nodes[node].is_component());
                if self.nodes[node].is_work() {
                    self.work_is_done();
                }
                let after = &self.graph.dependencies;
                self.stops.done(node, after, &mut next);
            }
            let Some(&used) = next.get(at) else { break };
            at += 1;
            // Those whose turn comes earlier are told when the drain is over.
            let is_asked = self.stage == Stage::Stopping || self.alone[used];
            if is_asked && self.tell(used, now, actions) {
                over = Some(used);
            }
        }
        next.clear();
        self.next = next;
    }

    /// Tells a node that nobody uses any longer to stop; returns whether it is over by that.
    fn tell(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) -> bool {
        if !matches!(
            self.phases[node],
            Phase::Starting { .. } | Phase::Late | Phase::Running
        ) {
            return false;
        }
        if let Node::Barrier = self.nodes[node] {
            self.phases[node] = Phase::Over;
            return true;
        }
        if let (
            Stage::Stopping,
            Some(&Traits {
                phase: Some(phase), ..
            }),
        ) = (self.stage, self.traits(node))
        {
            let end = now.saturating_add(self.times.phases[phase]);
            self.phase_ends[phase].get_or_insert(end);
        }
        let until = self.time_for(node, now);
        self.enter(
            node,
            Phase::Leaving {
                until,
                why: Why::Told,
            },
        );
        actions.push(Action::Tell(node, until));
        // One that stops alone may be told in the drain, and has other things to do from then on.
        self.drained(node);
        false
    }

    /// Its grace, or what its phase or the budget has left.
    fn time_for(&self, node: usize, now: Duration) -> Duration {
        let Some(&Traits { grace, phase, .. }) = self.traits(node) else {
            return now;
        };
        if self.is_forced(node) {
            return now;
        }
        let mut until = now.saturating_add(grace).min(self.end_of_graces());
        if let Some(phase) = phase {
            let end = now.saturating_add(self.times.phases[phase]);
            until = until.min(self.phase_ends[phase].unwrap_or(end));
        }
        until.max(now)
    }

    fn end_of_graces(&self) -> Duration {
        let Times {
            cleanup, margin, ..
        } = self.times;
        self.before_the_end(cleanup.saturating_add(margin))
    }

    /// The end of the budget, without what is kept for later. Before the stop it never comes.
    fn before_the_end(&self, kept: Duration) -> Duration {
        match self.times.total {
            Duration::MAX => Duration::MAX,
            _ if !self.is_stopping() => Duration::MAX,
            total => self.stop_at.saturating_add(total.saturating_sub(kept)),
        }
    }

    fn stop(&mut self, asked: bool, now: Duration, actions: &mut Vec<Action>) {
        if self.is_stopping() {
            return;
        }
        self.stop_at = now;
        actions.push(Action::BeginStop);
        let serves = self.stage == Stage::Serving && self.components_left > 0;
        if !serves {
            self.haste = self.haste.max(Haste::Now);
        }
        let jitter = if asked {
            self.times.jitter
        } else {
            Duration::ZERO
        };
        let until = now.saturating_add(jitter);
        if self.haste == Haste::None && until > now {
            actions.push(Action::Jitter { until });
        }
        self.stage = Stage::Jitter { until };
        self.shorten(now, actions);
        self.forget_the_rest(now, actions);
    }

    /// Stops one while the rest goes on: those that use it first, in the order of any stop.
    fn stop_one(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) {
        if self.is_stopping() {
            return;
        }
        let users = self.graph.users_of(node);
        for &user in &users {
            self.alone[user] = true;
        }
        self.forget(&users, now, actions);
        for user in users {
            if self.stops.has_come(user) && self.tell(user, now, actions) {
                self.over(user, Phase::Over, now, actions);
            }
        }
    }

    /// One has not started, and the others go on: what waits for it to be ready waits in vain.
    /// The barriers are ready by then, so its phase goes on without it.
    fn start_without(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) {
        let mut users = vec![node];
        let mut at = 0;
        self.alone[node] = true;
        while let Some(&used) = users.get(at) {
            at += 1;
            let waits = |user: &usize| self.phases[*user] == Phase::Created && !self.alone[*user];
            let more: Vec<_> = self.graph.dependents[used]
                .iter()
                .copied()
                .filter(waits)
                .collect();
            for &user in &more {
                self.alone[user] = true;
            }
            users.extend(more);
        }
        self.forget(&users, now, actions);
    }

    /// Of these, what has not been started never will be.
    fn forget(&mut self, nodes: &[usize], now: Duration, actions: &mut Vec<Action>) {
        let is_new = |node: &usize| self.phases[*node] == Phase::Created;
        let new: Vec<_> = nodes.iter().copied().filter(is_new).collect();
        for &node in &new {
            self.phases[node] = Phase::Over;
        }
        for node in new {
            self.over(node, Phase::Over, now, actions);
        }
    }

    /// What has not been started never will be.
    fn forget_the_rest(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for node in 0..self.nodes.len() {
            if self.phases[node] == Phase::Created {
                self.over(node, Phase::Over, now, actions);
            }
        }
    }

    fn expire(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.stage == Stage::Starting && self.times.start <= now {
            self.start_overran(now, actions);
        }
        while let Some(Reverse((at, node))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            if self.until(node) == Some(at) {
                self.late(node, now, actions);
            }
        }
    }

    /// The time for the whole start is up: all that is being started is blamed for it.
    fn start_overran(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for node in 0..self.nodes.len() {
            if let Phase::Starting { .. } = self.phases[node] {
                self.phases[node] = Phase::Late;
                actions.push(Action::Blame(node, Fault::StartOverran(self.times.start)));
            }
        }
        self.stop(false, now, actions);
    }

    /// The time of a node is up.
    fn late(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) {
        match self.phases[node] {
            // Nobody waits for it once a stop has begun; it is told in its turn.
            Phase::Starting { .. } if self.is_stopping() || self.alone[node] => {
                let until = Duration::MAX;
                self.phases[node] = Phase::Starting { until };
            }
            Phase::Starting { .. } => {
                self.phases[node] = Phase::Late;
                if self.blame(node, Fault::StartTimedOut, actions) {
                    self.stop(false, now, actions);
                } else {
                    self.start_without(node, now, actions);
                    let (until, why) = (self.time_for(node, now), Why::Told);
                    self.enter(node, Phase::Leaving { until, why });
                    actions.push(Action::Tell(node, until));
                }
            }
            Phase::Leaving { why, .. } => {
                self.blame(node, Fault::Overran, actions);
                actions.push(Action::Force(node));
                let until = self.confirmation(now);
                self.enter(node, Phase::Forced { until, why });
            }
            Phase::Forced { .. } => {
                self.blame(node, Fault::StillRunning, actions);
                actions.push(Action::GiveUp(node));
                self.drained(node);
                self.over(node, Phase::Lost, now, actions);
            }
            Phase::Created | Phase::Late | Phase::Running | Phase::Lost | Phase::Over => {}
        }
    }

    /// Until when what is forced now has to be gone: a part of what is left, so that something is left
    /// for those after it.
    fn confirmation(&self, now: Duration) -> Duration {
        let left = self.before_the_end(self.times.cleanup).saturating_sub(now);
        now.saturating_add(CONFIRMATION.min(left / 2).max(SHORTEST))
    }

    /// Goes on to the next stage as often as there is nothing to wait for.
    fn look(&mut self, now: Duration, actions: &mut Vec<Action>) {
        loop {
            match self.stage {
                Stage::Starting if self.not_ready == 0 => {
                    actions.push(Action::AllReady);
                    self.stage = Stage::Serving;
                }
                // All have done what they had to do.
                Stage::Serving if self.components_left == 0 => self.stop(true, now, actions),
                // Nobody is left to use the resources.
                Stage::Serving if self.work_left == Some(0) && !self.is_inside => {
                    self.haste = self.haste.max(Haste::Now);
                    self.stop(true, now, actions);
                }
                Stage::Serving if self.work_left == Some(0) => {
                    self.work_left = None;
                    actions.push(Action::Idle);
                    return;
                }
                Stage::Jitter { until } if self.is_noticed(until, now) => {
                    actions.push(Action::NotReady);
                    self.begin_lame_duck(now, actions);
                }
                Stage::LameDuck { until, .. } if self.is_noticed(until, now) => {
                    self.begin_drain(now, actions);
                }
                Stage::LameDuck {
                    half: Some(half),
                    until,
                } if half <= now => {
                    actions.push(Action::Leave);
                    self.stage = Stage::LameDuck { half: None, until };
                }
                Stage::Draining { since, until }
                    if self.not_drained == 0 || until <= now || self.is_urgent() =>
                {
                    self.end_drain(until.saturating_sub(since), actions);
                    self.stage = Stage::Stopping;
                    self.tell_the_next(now, actions);
                }
                Stage::Stopping if self.not_over == 0 => {
                    self.stage = Stage::Over;
                    let until = self.before_the_end(Duration::ZERO);
                    actions.push(Action::Clean { until });
                }
                _ => return,
            }
        }
    }

    /// Whether everybody has noticed that the service stops, or nobody has to: nothing is left of it.
    fn is_noticed(&self, until: Duration, now: Duration) -> bool {
        self.haste > Haste::None || until <= now || self.components_left == 0
    }

    fn begin_lame_duck(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let length = if self.is_noticed(Duration::MAX, now) {
            Duration::ZERO
        } else {
            self.times.lame_duck
        };
        let until = now.saturating_add(length);
        let half = Some(now.saturating_add(length / 2));
        if !length.is_zero() {
            actions.push(Action::LameDuck { until });
        }
        self.stage = Stage::LameDuck { half, until };
    }

    fn begin_drain(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.not_drained = 0;
        for node in 0..self.nodes.len() {
            // What is not there yet, or not any more, has nothing to drain.
            self.drained[node] |= self.phases[node] != Phase::Running;
            self.not_drained += usize::from(self.is_to_drain(node));
        }
        let mut until = now.saturating_add(self.times.drain);
        until = until.min(self.end_of_graces()).max(now);
        if self.is_urgent() {
            until = now;
        }
        if self.not_drained > 0 {
            actions.push(Action::Drain { until });
        }
        self.stage = Stage::Draining { since: now, until };
    }

    fn is_to_drain(&self, node: usize) -> bool {
        let drains = self.traits(node).is_some_and(|traits| traits.drains);
        drains && !self.drained[node]
    }

    fn end_drain(&self, within: Duration, actions: &mut Vec<Action>) {
        for node in 0..self.nodes.len() {
            if self.is_to_drain(node) && !self.is_urgent() {
                actions.push(Action::Blame(node, Fault::DrainTimedOut(within)));
            }
        }
        actions.push(Action::DrainIsOver);
    }

    /// Tells all whose turn it is; if it is urgent, all but those that others must not lose; and if all
    /// are to be forced, does that too.
    fn tell_the_next(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for node in 0..self.nodes.len() {
            let is_next = self.stops.has_come(node)
                || self.traits(node).is_some_and(|traits| match self.haste {
                    Haste::None | Haste::Now => false,
                    Haste::Urgent => !traits.is_used,
                    Haste::Force => true,
                });
            if is_next && self.tell(node, now, actions) {
                self.over(node, Phase::Over, now, actions);
            }
        }
        if self.haste == Haste::Force {
            self.expire(now, actions);
        }
    }
}
