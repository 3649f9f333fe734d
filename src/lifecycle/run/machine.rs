//! What a lifecycle does next: a pure function of what it did and of what has happened.
//!
//! There is no clock, no task and no lock in here. The engine says what happened and when, and does
//! what it is told. Times are those since the start of the run; one that cannot be expressed never
//! comes. What happens to components is in `component`, the stages of the stop are in `stage`, and all
//! that has to do with time is in `time`.
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
//! 4. A component that is forced is blamed for that once, when it is gone or lost.
//! 5. Both orders are [`Turns`], as the levels of the plan are. Each edge is looked at once in each
//!    direction: a whole run is linear in nodes and edges, but for the order of the timers.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::group::end::End;
use crate::lifecycle::haste::Haste;
use crate::lifecycle::plan::graph::{Graph, Turns};
use crate::lifecycle::step_kind::StepKind;

mod component;
mod stage;
mod time;
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
    Ended(usize, End),
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
pub(in crate::lifecycle) enum Action {
    Start(usize),
    /// It is ready.
    Ready(usize),
    /// All components are ready.
    AllReady,
    /// A task of the component has failed, and it is leaving; how it failed is known when it has ended.
    Failing {
        node: usize,
        stops_all: bool,
    },
    /// Something went wrong.
    Blame(Blame),
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
    /// It was not started, and never will be.
    Skip(usize),
    /// It is gone, whatever it was blamed for.
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
pub(in crate::lifecycle) struct Blame {
    pub(in crate::lifecycle) node: usize,
    /// The step that went wrong; none while the component ran.
    pub(in crate::lifecycle) during: Option<StepKind>,
    pub(in crate::lifecycle) end: End,
    /// The time that was not enough for the start or the drain.
    pub(in crate::lifecycle) limit: Option<Duration>,
    /// Whether all stops for it: if it is the first thing that went wrong, it is what the stop is for.
    pub(in crate::lifecycle) stops_all: bool,
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
            Event::Ended(node, end) => self.ended(node, end, now, actions),
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
            self.skip(node, now, actions);
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

    pub(in crate::lifecycle) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    fn traits(&self, node: usize) -> Option<&Traits> {
        match &self.nodes[node] {
            Node::Component(traits) => Some(traits),
            Node::Barrier => None,
        }
    }
}
