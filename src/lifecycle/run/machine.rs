//! What a lifecycle does next, as a pure function of its actions and of the events so far.
//!
//! The machine has no clock, no task and no lock. The engine reports what happened and when, and carries
//! out the actions. Times count from the start of the run. A time that cannot be expressed never comes. The
//! module `component` handles events of components, `stage` the stages of the stop, and `time` all
//! deadlines.
//!
//! Invariants:
//!
//! 1. A component is started when all its dependencies are ready. It is told to stop when all its
//!    dependents are over, directly or through others. A component in between that is already over or never
//!    started does not change that. Those before it still wait for those behind it. Nothing else starts or
//!    tells a component, except that it may begin to leave by itself. The order also holds when one
//!    component is stopped while the rest goes on: its users go first.
//! 2. A node that has been started is told, leaves or ends exactly once. A node that was told is over,
//!    forced or lost by the end of its time.
//! 3. Once the stop has begun, nothing is started. The engine takes back a start when it finds that a stop
//!    has been requested.
//! 4. A component that is forced is blamed for that once, when it is gone or lost.
//! 5. Both orders are [`Turns`], like the levels of the plan. Each edge is looked at once in each
//!    direction. A whole run is linear in nodes and edges, apart from the ordering of the timers.

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

/// The shortest time, for the last timers of a spent budget. A timer cannot be shorter.
const SHORTEST: Duration = Duration::from_millis(1);

/// What the machine knows of a node.
#[derive(Clone, Copy, Debug)]
pub(in crate::lifecycle) enum Node {
    Component(Traits),
    /// A barrier. It is ready as soon as its dependencies are, and over as soon as its dependents are.
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
    /// It is a job, and ready when it has ended.
    pub(in crate::lifecycle) is_job: bool,
    /// It may end before it is told to stop.
    pub(in crate::lifecycle) may_end: bool,
    /// Once all components are ready, its failure stops nothing else.
    pub(in crate::lifecycle) may_fail: bool,
    /// The lifecycle goes on while it runs. This does not apply to a resource.
    pub(in crate::lifecycle) is_work: bool,
    /// It is or has a resource, and is told in its turn even in an urgent stop.
    pub(in crate::lifecycle) is_used: bool,
    /// It is a lifecycle. It forces its own components, and then runs its cleanup.
    pub(in crate::lifecycle) has_cleanup: bool,
    /// It takes part in the drain.
    pub(in crate::lifecycle) drains: bool,
    /// The phase in which it stops.
    pub(in crate::lifecycle) phase: Option<usize>,
}

/// The parts of the budget. All of them fit into the total.
#[derive(Clone, Debug)]
pub(in crate::lifecycle) struct Times {
    pub(in crate::lifecycle) total: Duration,
    /// When all components have to be ready.
    pub(in crate::lifecycle) start: Duration,
    /// The jitter as it was drawn.
    pub(in crate::lifecycle) jitter: Duration,
    pub(in crate::lifecycle) lame_duck: Duration,
    pub(in crate::lifecycle) drain: Duration,
    /// Reserved for the cleanup.
    pub(in crate::lifecycle) cleanup: Duration,
    /// Reserved to join what was forced.
    pub(in crate::lifecycle) margin: Duration,
    /// The time that each phase may take.
    pub(in crate::lifecycle) phases: Vec<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Event {
    Ready(usize),
    Drained(usize),
    /// A task of the component has failed. The other tasks have been told and are leaving.
    Failing(usize),
    /// All of the component is gone.
    Ended(usize, End),
    /// A nested lifecycle has nothing left to do. It stays available to its users.
    Idle(usize),
    /// A nested lifecycle has done all its work, and ends.
    Finished(usize),
    /// A stop is requested.
    Stop,
    /// A stop of this component and its users is requested, while the rest goes on.
    StopOne(usize),
    /// Skips parts of the orderly stop, depending on the haste.
    Hurry(Haste),
    /// Time has passed.
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Action {
    Start(usize),
    /// The component is ready.
    Ready(usize),
    /// All components are ready.
    AllReady,
    /// A task of the component has failed, and the component is leaving. The error is known once it has
    /// ended.
    Failing {
        node: usize,
        stops_all: bool,
    },
    /// Something went wrong.
    Blame(Blame),
    /// The time of the stop counts from here on.
    BeginStop,
    /// Goes on unchanged until then, so that replicas do not stop at once.
    Jitter {
        until: Duration,
    },
    /// The jitter is over, and the service stops being ready.
    NotReady,
    /// Goes on serving until then.
    LameDuck {
        until: Duration,
    },
    /// Half of the lame duck is over.
    Leave,
    /// Tells all components that take part to drain until then.
    Drain {
        until: Duration,
    },
    DrainIsOver,
    /// Tells a component to stop until then.
    Tell(usize, Duration),
    /// Shortens the time of a component that was told, which now ends then.
    Hurry(usize, Duration),
    /// The component's time is up.
    Force(usize),
    /// The component was not started, and never will be.
    Skip(usize),
    /// The component is gone, whatever it was blamed for.
    Gone(usize),
    /// The component did not end even when it was forced.
    GiveUp(usize),
    /// Nothing is left to do. The enclosing lifecycle may still use this one.
    Idle,
    /// No component is left to wait for. The cleanup has until then.
    Clean {
        until: Duration,
    },
}

/// What went wrong with a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) struct Blame {
    pub(in crate::lifecycle) node: usize,
    /// The step that went wrong. `None` while the component ran.
    pub(in crate::lifecycle) during: Option<StepKind>,
    pub(in crate::lifecycle) end: End,
    /// The time limit of the start or the drain that was exceeded.
    pub(in crate::lifecycle) limit: Option<Duration>,
    /// Whether everything stops because of it. The first such blame is the cause of the stop.
    pub(in crate::lifecycle) stops_all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Created,
    /// Started, and has to be ready by then.
    Starting {
        until: Duration,
    },
    /// Not ready in time. It is told in its turn.
    Late,
    Running,
    /// Told, or leaving by itself. It has to be gone by then.
    Leaving {
        until: Duration,
        why: Why,
    },
    /// Aborted. If it is not gone by then, it is lost.
    Forced {
        until: Duration,
        why: Why,
    },
    /// Aborted and not gone. Its dependencies are stopped all the same.
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
    /// All components are ready.
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
    /// The nodes that are ready count as done.
    starts: Turns,
    /// The nodes that are over count as done.
    stops: Turns,
    /// The nodes whose turn has come. Almost always empty.
    next: Vec<usize>,
    drained: Vec<bool>,
    /// The nodes that are to stop while the rest goes on, with all their users.
    alone: Vec<bool>,
    not_ready: usize,
    not_over: usize,
    /// How many of the nodes that are not over are components.
    components_left: usize,
    /// For how many components the lifecycle goes on. `None` if it never had any.
    work_left: Option<usize>,
    /// Whether this lifecycle is a component of another one.
    is_inside: bool,
    not_drained: usize,
    stage: Stage,
    haste: Haste,
    /// When the stop began.
    stop_at: Duration,
    /// When the first component of each phase was told.
    phase_ends: Vec<Option<Duration>>,
    timers: BinaryHeap<Reverse<(Duration, usize)>>,
}

impl Machine {
    /// `is_inside`: the enclosing lifecycle ends this one, even when nothing is left to do.
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

    /// Starts the components without dependencies.
    pub(in crate::lifecycle) fn begin(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for node in 0..self.nodes.len() {
            // A component that was ready at once has already started those after it.
            if self.starts.has_come(node) && self.phases[node] == Phase::Created {
                self.start(node, now, actions);
            }
        }
        self.look(now, actions);
    }

    /// Handles an event.
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

    /// Adds a component behind the existing ones. `graph` contains it, and `graces` are those of all
    /// components.
    ///
    /// It is never started if the stop has begun, or if one of its dependencies is stopped alone.
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
        // The barriers come after it.
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

    /// Takes back the start of a node. A stop was requested before the start was carried out, and its event
    /// is on the way.
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
