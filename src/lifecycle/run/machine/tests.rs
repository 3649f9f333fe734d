//! Random lifecycles against the machine, with a small model of what it may do.
//!
//! The model checks the rule of the order directly. A component is started when all its dependencies are
//! ready, and told when all its users are over, directly or through others. The model finds those from the
//! names and phases of the components, and not from the machine's graph.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::group::time::CONFIRMATION;
use crate::lifecycle::plan::graph::Place;
use crate::lifecycle::plan::phase::Phase as StopPhase;

/// A component and its behaviour. Times are in milliseconds.
#[derive(Clone, Debug)]
struct Part {
    after: u16,
    phase: Option<usize>,
    start_timeout: u64,
    /// `None` for a grace without end.
    grace: Option<u64>,
    is_job: bool,
    may_end: bool,
    may_fail: bool,
    is_work: bool,
    is_used: bool,
    has_cleanup: bool,
    /// The time from ready to idle, for a lifecycle in which nothing is left to do.
    idle: Option<u64>,
    drains: bool,
    start: Start,
    /// Counts from ready.
    life: Life,
    /// Counts from being told. `None` if it ignores the stop.
    stop: Option<(u64, bool)>,
    /// Counts from being forced. `None` if it cannot be.
    force: Option<(u64, bool)>,
    /// Counts from being told to drain.
    drain: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Start {
    Ready(u64),
    Ends(u64, bool),
    HelperFails(u64),
    Never,
}

#[derive(Clone, Copy, Debug)]
enum Life {
    Lasts,
    Ends(u64, bool),
    HelperFails(u64),
}

#[derive(Clone, Debug)]
struct Scenario {
    parts: Vec<Part>,
    phases: Vec<Option<u64>>,
    jitter: u64,
    lame_duck: u64,
    drain: u64,
    cleanup: u64,
    margin: u64,
    /// What is left of the total. `None` for a total without end.
    stop_time: Option<u64>,
    before_begin: bool,
    is_inside: bool,
    stop: Option<u64>,
    hurry: Vec<(u64, Haste)>,
    /// When starts begin to be refused, because a stop was requested and its event is on the way.
    refuses: Option<u64>,
    /// When the enclosing lifecycle stops this one, and the time that is left then.
    told: Option<(u64, u64)>,
    /// When the last components are added.
    later: Vec<u64>,
    /// The components that are stopped alone, and when.
    stop_one: Vec<(u64, usize)>,
    /// Unexpected notes: when, for which component, and whether it is `Ready`.
    strays: Vec<(u64, usize, bool)>,
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn end(well: bool) -> End {
    if well { End::Done } else { End::Failed }
}

/// What a component is blamed for: the step that went wrong, and how it ended. A component that is leaving
/// because one of its tasks has failed is [`FAILING`].
type Fault = (Option<StepKind>, End);

const START: Option<StepKind> = Some(StepKind::Start);
const DRAIN: Option<StepKind> = Some(StepKind::Drain);
const STOP: Option<StepKind> = Some(StepKind::Stop);

const FAILING: Fault = (None, End::StillRunning);
const START_TIMED_OUT: Fault = (START, End::TimedOut);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Created,
    Starting(Duration),
    /// Its start has timed out.
    Late,
    Running,
    Leaving(Why),
    Forced(Why),
    Lost,
    Over,
}

/// What the world around the machine does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Ready(usize),
    Drained(usize),
    Idle(usize),
    Failing(usize),
    Ended(usize, bool),
    Stop,
    StopOne(usize),
    Add,
    Hurry(Haste),
    Told(u64),
}

struct Sim<'a> {
    scenario: &'a Scenario,
    machine: Machine,
    now: Duration,
    queue: BinaryHeap<Reverse<(Duration, usize, Next)>>,
    queued: usize,
    states: Vec<State>,
    ready: Vec<bool>,
    /// The components that the machine has called ready.
    said: Vec<bool>,
    /// The components that were started, and those that the machine has called skipped.
    started: Vec<bool>,
    skipped: Vec<bool>,
    /// Whether one of its tasks has failed, so that it cannot end well.
    failed: Vec<bool>,
    ended: Vec<bool>,
    /// The components for which the lifecycle goes on, and whether there ever was one.
    work: Vec<bool>,
    /// Whether nothing was left to do, so that it stops by itself, or is idle inside another lifecycle.
    done: bool,
    drained: Vec<bool>,
    /// The components that are to stop while the rest goes on.
    alone: Vec<bool>,
    /// The components that were ready when the drain began.
    draining: Option<Vec<bool>>,
    until: Vec<Duration>,
    /// The components that each one uses, directly or through others, and its users.
    uses: Vec<Vec<usize>>,
    users: Vec<Vec<usize>>,
    /// How many components there are by now.
    present: usize,
    refuses_more: bool,
    phases: Vec<Option<Duration>>,
    total: Duration,
    margin: Duration,
    begun_at: Option<Duration>,
    asked: bool,
    haste: Haste,
    all_ready: bool,
    jitter_until: Option<Duration>,
    not_ready_at: Option<Duration>,
    lame_duck_until: Option<Duration>,
    left: bool,
    drain_until: Option<Duration>,
    drain_over: bool,
    drain_begun: bool,
    clean: bool,
    blamed: bool,
    /// Whether a start was taken back.
    refused: bool,
}

impl<'a> Sim<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let present = scenario.parts.len() - scenario.later.len();
        let (graph, traits) = graph_of(scenario, present);
        let mut nodes = vec![Node::Barrier; graph.dependencies.len()];
        for (node, traits) in nodes.iter_mut().zip(traits) {
            *node = Node::Component(traits);
        }
        let parts = &scenario.parts;
        let kept = scenario.jitter
            + scenario.lame_duck
            + scenario.drain
            + scenario.cleanup
            + scenario.margin;
        let total = scenario
            .stop_time
            .map_or(Duration::MAX, |time| millis(kept + time));
        let times = Times {
            total,
            start: Duration::MAX,
            jitter: millis(scenario.jitter),
            lame_duck: millis(scenario.lame_duck),
            drain: millis(scenario.drain),
            cleanup: millis(scenario.cleanup),
            margin: millis(scenario.margin),
            phases: scenario
                .phases
                .iter()
                .map(|budget| budget.map_or(Duration::MAX, millis))
                .collect(),
        };
        let parts = parts.len();
        let mut sim = Self {
            scenario,
            machine: Machine::new(graph, nodes, times, scenario.is_inside),
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            queued: 0,
            states: vec![State::Created; parts],
            ready: vec![false; parts],
            said: vec![false; parts],
            started: vec![false; parts],
            skipped: vec![false; parts],
            failed: vec![false; parts],
            ended: vec![false; parts],
            work: scenario.parts.iter().map(|part| part.is_work).collect(),
            done: false,
            drained: vec![false; parts],
            alone: vec![false; parts],
            draining: None,
            until: vec![Duration::MAX; parts],
            uses: vec![Vec::new(); parts],
            users: vec![Vec::new(); parts],
            present,
            refuses_more: false,
            phases: vec![None; scenario.phases.len()],
            total,
            margin: millis(scenario.margin),
            begun_at: None,
            asked: false,
            haste: Haste::None,
            all_ready: false,
            jitter_until: None,
            not_ready_at: None,
            lame_duck_until: None,
            left: false,
            drain_until: None,
            drain_over: false,
            drain_begun: false,
            clean: false,
            blamed: false,
            refused: false,
        };
        for &(at, index, is_ready) in &scenario.strays {
            let index = index % parts.max(1);
            let note = if is_ready {
                Next::Ready(index)
            } else {
                Next::Drained(index)
            };
            sim.push(millis(at), note);
        }
        sim.relate();
        for &at in &scenario.later {
            sim.push(millis(at), Next::Add);
        }
        for &(at, index) in &scenario.stop_one {
            sim.push(millis(at), Next::StopOne(index % parts.max(1)));
        }
        for (at, next) in [
            (scenario.stop, Next::Stop),
            (
                scenario.told.map(|(at, _)| at),
                Next::Told(scenario.told.map_or(0, |(_, left)| left)),
            ),
        ] {
            if let Some(at) = at {
                sim.push(millis(at), next);
            }
        }
        for &(at, haste) in &scenario.hurry {
            sim.push(millis(at), Next::Hurry(haste));
        }
        sim
    }

    /// Finds out which of the present components use which.
    fn relate(&mut self) {
        self.users.iter_mut().for_each(Vec::clear);
        let uses = all_used(&self.scenario.parts[..self.present]);
        for (index, uses) in uses.into_iter().enumerate() {
            for &used in &uses {
                self.users[used].push(index);
            }
            self.uses[index] = uses;
        }
    }

    fn push(&mut self, after: Duration, next: Next) {
        self.queued += 1;
        self.queue
            .push(Reverse((self.now + after, self.queued, next)));
    }

    fn run(mut self) {
        let mut actions = Vec::new();
        if self.scenario.before_begin {
            self.asked = true;
            self.machine.on(Event::Stop, Duration::ZERO, &mut actions);
        } else {
            self.machine.begin(Duration::ZERO, &mut actions);
        }
        self.check(&mut actions, Vec::new());

        let mut ticks = 0;
        while !self.machine.is_over() {
            let tick = self.machine.next_tick();
            if let Some(tick) = tick {
                assert!(tick >= self.now, "a tick in the past: {tick:?}");
            }
            let note = self.queue.peek().map(|Reverse((at, ..))| *at);
            match (note, tick) {
                (None, None) => {
                    assert!(
                        self.begun_at.is_none(),
                        "nothing is due: {:?}",
                        self.machine
                    );
                    self.push(Duration::ZERO, Next::Stop);
                }
                // Events of the same time come first.
                (Some(note), tick) if tick.is_none_or(|tick| note <= tick) => {
                    let Some(Reverse((at, _, next))) = self.queue.pop() else {
                        unreachable!()
                    };
                    self.now = at;
                    self.happens(next, &mut actions);
                }
                (_, Some(tick)) => {
                    self.now = tick;
                    ticks += 1;
                    assert!(ticks < 20 * (self.states.len() + 1), "it turns in circles");
                    let expected = self.timeouts();
                    self.machine.on(Event::Tick, self.now, &mut actions);
                    self.check(&mut actions, expected);
                }
                (Some(_), None) => unreachable!(),
            }
        }
        self.finish();
    }

    fn happens(&mut self, next: Next, actions: &mut Vec<Action>) {
        let mut expected = Vec::new();
        let event = match next {
            Next::Ready(index) | Next::Drained(index) if self.states[index] == State::Created => {
                return;
            }
            Next::Ready(index) => {
                if let State::Starting(_) = self.states[index] {
                    self.ready[index] = true;
                    self.states[index] = State::Running;
                    let part = &self.scenario.parts[index];
                    let (life, idle) = (part.life, part.idle);
                    if let Some(at) = idle {
                        self.push(millis(at), Next::Idle(index));
                    }
                    match life {
                        Life::Lasts => {}
                        Life::Ends(at, well) => self.push(millis(at), Next::Ended(index, well)),
                        Life::HelperFails(at) => self.push(millis(at), Next::Failing(index)),
                    }
                }
                Event::Ready(index)
            }
            Next::Drained(index) => {
                self.drained[index] = true;
                Event::Drained(index)
            }
            Next::Idle(index) => {
                if self.ended[index] {
                    return;
                }
                self.work[index] = false;
                Event::Idle(index)
            }
            Next::Failing(index) => {
                if self.ended[index] {
                    return;
                }
                self.failed[index] = true;
                let why = match self.states[index] {
                    State::Starting(_) | State::Late => Some(Why::FailedStarting),
                    State::Running => Some(Why::Failed),
                    _ => None,
                };
                if let Some(why) = why {
                    self.states[index] = State::Leaving(why);
                    expected.push((index, FAILING));
                }
                Event::Failing(index)
            }
            Next::Ended(index, well) => {
                if std::mem::replace(&mut self.ended[index], true) {
                    return;
                }
                let end = end(well && !self.failed[index]);
                if let State::Forced(_) = self.states[index] {
                    expected.push((index, (STOP, End::TimedOut)));
                }
                expected.extend(self.fault_of(index, end).map(|fault| (index, fault)));
                if self.scenario.parts[index].is_job && end == End::Done {
                    if let State::Starting(_) = self.states[index] {
                        self.ready[index] = true;
                    }
                }
                Event::Ended(index, end)
            }
            Next::Stop => {
                self.asked |= self.begun_at.is_none();
                Event::Stop
            }
            Next::Add => {
                let node = self.present;
                let part = &self.scenario.parts[node];
                // A handle refuses users of a component that stops alone, so none is added here.
                let mut uses = (0..node).filter(|used| part.after >> used & 1 == 1);
                self.refuses_more |= uses.any(|used| self.alone[used]);
                if self.refuses_more {
                    return;
                }
                self.present += 1;
                self.relate();
                if part.is_work && self.begun_at.is_none() {
                    self.done = false;
                }
                if self.begun_at.is_some() {
                    self.states[node] = State::Over;
                }
                let (graph, traits) = graph_of(self.scenario, self.present);
                let graces = traits.iter().map(|traits| traits.grace);
                self.machine
                    .add(graph, traits[node], graces, self.now, actions);
                return self.check(actions, Vec::new());
            }
            Next::StopOne(index) if index >= self.present => return,
            Next::StopOne(index) => {
                if self.begun_at.is_none() {
                    let mut all = self.users[index].clone();
                    all.push(index);
                    for index in all {
                        self.alone[index] = true;
                        if self.states[index] == State::Created {
                            self.states[index] = State::Over;
                        }
                    }
                }
                Event::StopOne(index)
            }
            Next::Hurry(haste) => {
                self.haste = self.haste.max(haste);
                Event::Hurry(haste)
            }
            Next::Told(left) => {
                let begun = self.begun_at.map_or(Duration::ZERO, |at| self.now - at);
                let total = begun + millis(left);
                if total < self.total {
                    self.total = total;
                    self.margin = self.margin.min(total / 10);
                }
                let until = self.now + millis(left);
                self.machine.cap(until, self.now, actions);
                if self.begun_at.is_some() {
                    let end = self.end_of_graces().max(self.now);
                    self.drain_until = self.drain_until.map(|until| until.min(end));
                }
                self.check(actions, Vec::new());
                self.haste = self.haste.max(Haste::Now);
                self.push(Duration::ZERO, Next::Stop);
                Event::Hurry(Haste::Now)
            }
        };
        self.machine.on(event, self.now, actions);
        self.check(actions, expected);
    }

    fn fault_of(&self, index: usize, end: End) -> Option<Fault> {
        let part = &self.scenario.parts[index];
        let failed = end == End::Failed;
        match self.states[index] {
            State::Starting(_) if failed => Some((START, end)),
            State::Starting(_) => (!part.is_job).then_some((START, End::EndedEarly)),
            // The blame for the start has already come.
            State::Late => failed.then_some((START, end)),
            State::Running if failed => Some((None, end)),
            State::Running => (!part.may_end).then_some((None, End::EndedEarly)),
            State::Leaving(why) | State::Forced(why) => match why {
                Why::Told => failed.then_some((STOP, end)),
                Why::FailedStarting => Some((START, End::Failed)),
                Why::Failed => Some((None, End::Failed)),
            },
            State::Lost => None,
            State::Created | State::Over => unreachable!("it is not there"),
        }
    }

    /// The faults that a tick has to report.
    fn timeouts(&self) -> Vec<(usize, Fault)> {
        let mut expected = Vec::new();
        for (index, state) in self.states.iter().enumerate() {
            let timeout = millis(self.scenario.parts[index].start_timeout);
            match state {
                State::Starting(since)
                    if *since + timeout <= self.now
                        && self.begun_at.is_none()
                        && !self.alone[index] =>
                {
                    expected.push((index, START_TIMED_OUT));
                }
                _ => {}
            }
        }
        // After the first one the stop has begun.
        expected.truncate(1);
        expected
    }

    fn is_done(&self, index: usize) -> bool {
        matches!(
            self.states[index],
            State::Created | State::Lost | State::Over
        )
    }

    fn has_to_drain(&self, index: usize) -> bool {
        let part = &self.scenario.parts[index];
        let takes_part = match &self.draining {
            Some(draining) => draining[index],
            None => part.drains && !self.drain_begun,
        };
        takes_part && !self.drained[index] && self.states[index] == State::Running
    }

    /// Before the stop, the graces have no end.
    fn end_of_graces(&self) -> Duration {
        let kept = millis(self.scenario.cleanup).saturating_add(self.margin);
        match (self.total, self.begun_at) {
            (Duration::MAX, _) | (_, None) => Duration::MAX,
            (total, Some(begun_at)) => begun_at + total.saturating_sub(kept),
        }
    }

    /// Compares the machine's actions with those that are allowed.
    fn check(&mut self, actions: &mut Vec<Action>, mut expected: Vec<(usize, Fault)>) {
        let mut failing: Vec<_> = expected
            .iter()
            .filter(|(_, fault)| *fault == FAILING)
            .map(|(index, _)| *index)
            .collect();
        let mut lost = None;
        for action in std::mem::take(actions) {
            let now = self.now;
            assert!(!self.clean, "after the end: {action:?}");
            match action {
                Action::Start(index) => {
                    assert_eq!(self.begun_at, None, "started after the stop began");
                    assert_eq!(self.states[index], State::Created);
                    let mut uses = self.uses[index].iter();
                    assert!(uses.all(|&used| self.ready[used] || self.is_gone_alone(used)));
                    let refuses = self.scenario.refuses;
                    if refuses.is_some_and(|at| millis(at) <= now) {
                        if !std::mem::replace(&mut self.refused, true) {
                            self.push(Duration::ZERO, Next::Stop);
                        }
                        self.machine.not_started(index);
                        continue;
                    }
                    self.states[index] = State::Starting(now);
                    self.started[index] = true;
                    match self.scenario.parts[index].start {
                        Start::Ready(at) => self.push(millis(at), Next::Ready(index)),
                        Start::Ends(at, well) => self.push(millis(at), Next::Ended(index, well)),
                        Start::HelperFails(at) => self.push(millis(at), Next::Failing(index)),
                        Start::Never => {}
                    }
                }
                Action::Ready(index) => {
                    assert!(self.ready[index]);
                    assert!(!std::mem::replace(&mut self.said[index], true));
                }
                Action::AllReady => {
                    assert!(!self.all_ready && self.begun_at.is_none());
                    let mut all = 0..self.present;
                    let is_ready = |index: usize| self.ready[index] || self.is_gone_alone(index);
                    assert!(all.all(is_ready));
                    self.all_ready = true;
                }
                Action::Failing { node, stops_all } => {
                    self.blame(node, FAILING, stops_all, &mut expected);
                }
                Action::Blame(Blame {
                    node,
                    during: STOP,
                    end: End::StillRunning,
                    stops_all,
                    ..
                }) => {
                    assert_eq!(stops_all, self.begun_at.is_some());
                    assert_eq!(lost.replace(node), None);
                }
                Action::Blame(Blame {
                    node,
                    during: DRAIN,
                    end,
                    limit,
                    stops_all,
                }) => {
                    assert!(stops_all && end == End::TimedOut);
                    assert!(self.drain_until.is_some_and(|until| until <= now));
                    assert!(!self.is_urgent(), "it had no time for the drain");
                    assert!(self.has_to_drain(node) && !self.drain_over);
                    assert!(limit.is_some_and(|limit| limit <= millis(self.scenario.drain)));
                    self.drained[node] = true;
                }
                Action::Blame(Blame {
                    node,
                    during: START,
                    end,
                    limit: Some(limit),
                    stops_all,
                }) => {
                    assert_eq!(limit, millis(self.scenario.parts[node].start_timeout));
                    assert_eq!(end, End::Failed, "it has not started");
                    self.blame(node, START_TIMED_OUT, stops_all, &mut expected);
                    if stops_all {
                        self.states[node] = State::Late;
                    } else {
                        self.states[node] = State::Leaving(Why::Told);
                        failing.push(node);
                    }
                }
                Action::Blame(blame) => {
                    assert_eq!(blame.limit, None, "it had no time to keep");
                    let fault = (blame.during, blame.end);
                    self.blame(blame.node, fault, blame.stops_all, &mut expected);
                }
                Action::BeginStop => {
                    assert_eq!(self.begun_at.replace(now), None);
                    if !self.asked && !self.blamed {
                        assert!(self.all_ready, "it stops for no reason");
                        assert!(self.is_empty() || self.is_idle() && !self.scenario.is_inside);
                        self.done = true;
                        self.haste = self.haste.max(Haste::Now);
                    }
                }
                Action::Jitter { until } => {
                    assert!(self.asked && self.serves() && !self.blamed);
                    assert_eq!(self.begun_at, Some(now));
                    assert_eq!(until, now + millis(self.scenario.jitter));
                    self.jitter_until = Some(until);
                }
                Action::NotReady => {
                    assert_eq!(self.not_ready_at.replace(now), None);
                    let until = self.jitter_until.unwrap_or(self.begun_at.unwrap());
                    assert!(now == until || now < until && (self.is_hurried() || self.is_empty()));
                }
                Action::LameDuck { until } => {
                    assert!(self.serves());
                    assert_eq!(self.not_ready_at, Some(now));
                    assert_eq!(until, now + millis(self.scenario.lame_duck));
                    assert_eq!(self.lame_duck_until.replace(until), None);
                }
                Action::Leave => {
                    let until = self.lame_duck_until.unwrap();
                    assert_eq!(now, until - millis(self.scenario.lame_duck) / 2);
                    assert!(!std::mem::replace(&mut self.left, true));
                    assert_eq!(self.drain_until, None);
                }
                Action::Drain { until } => {
                    self.lame_duck_is_over();
                    assert_eq!(self.drain_until.replace(until), None);
                    let longest = now + millis(self.scenario.drain);
                    let longest = longest.min(self.end_of_graces().max(now));
                    assert_eq!(until, if self.is_urgent() { now } else { longest });
                    let parts = 0..self.states.len();
                    let draining = parts.map(|index| self.has_to_drain(index)).collect();
                    self.draining = Some(draining);
                    assert!((0..self.states.len()).any(|index| self.has_to_drain(index)));
                    for index in 0..self.states.len() {
                        let part = &self.scenario.parts[index];
                        if let (true, Some(at)) = (part.drains, part.drain) {
                            self.push(millis(at), Next::Drained(index));
                        }
                    }
                }
                Action::DrainIsOver => {
                    self.lame_duck_is_over();
                    assert!(!std::mem::replace(&mut self.drain_over, true));
                    let left = (0..self.states.len()).any(|index| self.has_to_drain(index));
                    assert!(!left || self.is_urgent(), "nobody is blamed for the drain");
                }
                Action::Tell(index, until) => self.tell(index, until, failing.contains(&index)),
                Action::Force(index) => {
                    let State::Leaving(why) = self.states[index] else {
                        panic!("forced without having been told")
                    };
                    assert!(now >= self.until[index], "forced too early");
                    self.states[index] = State::Forced(why);
                    if let Some((at, well)) = self.scenario.parts[index].force {
                        self.push(millis(at), Next::Ended(index, well));
                    }
                }
                Action::Hurry(index, until) => {
                    assert!(matches!(self.states[index], State::Leaving(_)));
                    assert!(until < self.until[index] && until >= now);
                    let end = self.end_of_graces().max(now);
                    assert_eq!(until, if self.is_forced(index) { now } else { end });
                    self.until[index] = until;
                }
                Action::Skip(index) => {
                    assert!(!self.started[index] && self.is_done(index));
                    assert!(self.begun_at.is_some() || self.alone[index]);
                    assert!(!std::mem::replace(&mut self.skipped[index], true));
                }
                Action::Gone(index) => {
                    assert!(self.ended[index]);
                    assert!(!self.is_done(index), "gone twice");
                    self.states[index] = State::Over;
                }
                Action::GiveUp(index) => {
                    assert_eq!(lost.take(), Some(index));
                    assert!(matches!(self.states[index], State::Forced(_)));
                    assert!(!self.ended[index]);
                    self.states[index] = State::Lost;
                }
                Action::Idle => {
                    assert!(self.scenario.is_inside && self.is_idle());
                    assert!(self.all_ready && self.begun_at.is_none());
                    assert!(!std::mem::replace(&mut self.done, true));
                }
                Action::Clean { until } => {
                    assert!(!std::mem::replace(&mut self.clean, true));
                    let total = self.total;
                    let end = (total < Duration::MAX).then(|| self.begun_at.unwrap() + total);
                    assert_eq!(until, end.unwrap_or(Duration::MAX));
                }
            }
        }
        assert_eq!(expected, [], "nobody is blamed");
        assert_eq!(lost, None);
        // Without a drain, no component drains later.
        self.drain_begun |= self.drain_over;
        self.is_prompt();
    }

    /// A component is blamed. Checks that this was expected, and that everything stops if it has to.
    fn blame(
        &mut self,
        index: usize,
        fault: Fault,
        stops_all: bool,
        expected: &mut Vec<(usize, Fault)>,
    ) {
        assert_eq!(expected.first(), Some(&(index, fault)), "the wrong blame");
        expected.remove(0);
        assert_eq!(stops_all, !self.may_go_on(index, fault.0));
        if stops_all {
            // A blame comes before the stop that it causes.
            assert!(self.blamed || self.begun_at.is_none() || self.asked_or_ended());
            self.blamed = true;
        } else if matches!(self.states[index], State::Starting(_)) || self.fails_to_start(index) {
            self.starts_without(index);
        }
    }

    /// Whether the failure of a step stops nothing else.
    fn may_go_on(&self, index: usize, during: Option<StepKind>) -> bool {
        let may_fail = self.scenario.parts[index].may_fail && self.all_ready;
        self.begun_at.is_none() && (may_fail || during == STOP)
    }

    fn fails_to_start(&self, index: usize) -> bool {
        let state = self.states[index];
        matches!(
            state,
            State::Leaving(Why::FailedStarting) | State::Forced(Why::FailedStarting)
        )
    }

    /// The users of a component that has not started are never started. Its phase goes on without it.
    fn starts_without(&mut self, index: usize) {
        self.alone[index] = true;
        let mut found = vec![index];
        while let Some(used) = found.pop() {
            for user in 0..self.present {
                let names = self.scenario.parts[user].after >> used & 1 == 1;
                let waits = self.states[user] == State::Created && used < user && names;
                if waits {
                    self.alone[user] = true;
                    self.states[user] = State::Over;
                    found.push(user);
                }
            }
        }
    }

    /// Whether the component was stopped while the rest goes on.
    fn is_gone_alone(&self, index: usize) -> bool {
        self.alone[index] && self.is_done(index)
    }

    fn asked_or_ended(&self) -> bool {
        self.asked || self.done || self.states.iter().all(|state| *state == State::Over)
    }

    /// Whether a load balancer has to notice the stop.
    fn serves(&self) -> bool {
        self.all_ready && !self.is_hurried() && !self.is_empty()
    }

    /// Whether the stop skips the lame duck.
    fn is_hurried(&self) -> bool {
        self.haste >= Haste::Now
    }

    fn is_urgent(&self) -> bool {
        self.haste >= Haste::Urgent
    }

    /// Whether the component is told or to be told. It has no users, or the stop is urgent and it is not a
    /// resource.
    fn is_next(&self, index: usize) -> bool {
        let users = &self.users[index];
        users.iter().all(|user| self.is_done(*user))
            || self.drain_over && self.is_urgent() && !self.scenario.parts[index].is_used
            || self.drain_over && self.haste == Haste::Force
    }

    /// Whether the component has no time to stop.
    fn is_forced(&self, index: usize) -> bool {
        self.haste == Haste::Force && !self.scenario.parts[index].has_cleanup
    }

    /// Whether nothing is left of the work that there was.
    fn is_idle(&self) -> bool {
        let mut work = self.work.iter().enumerate();
        let is_left = |index: usize| match self.states[index] {
            State::Created => self.begun_at.is_none() && index < self.present,
            _ => !self.is_done(index),
        };
        self.works() && !work.any(|(index, is_work)| *is_work && is_left(index))
    }

    fn works(&self) -> bool {
        let parts = &self.scenario.parts[..self.present];
        parts.iter().any(|part| part.is_work)
    }

    /// Whether nothing is left, so that no load balancer has to notice.
    fn is_empty(&self) -> bool {
        (0..self.states.len()).all(|index| self.is_done(index))
    }

    fn lame_duck_is_over(&self) {
        let until = self.lame_duck_until.or(self.not_ready_at).unwrap();
        assert!(self.now >= until || self.is_hurried() || self.is_empty());
    }

    fn tell(&mut self, index: usize, until: Duration, leaves: bool) {
        let now = self.now;
        let part = &self.scenario.parts[index];
        let grace = part.grace.map_or(Duration::MAX, millis);
        let mut longest = now.saturating_add(grace).min(self.end_of_graces());
        if let Some(phase) = part.phase {
            let budget = self.scenario.phases[phase].map_or(Duration::MAX, millis);
            let end = now.saturating_add(budget);
            let end = if leaves || !self.drain_over {
                self.phases[phase].unwrap_or(end)
            } else {
                *self.phases[phase].get_or_insert(end)
            };
            longest = longest.min(end);
        }
        if self.is_forced(index) {
            longest = now;
        }
        assert_eq!(until, longest.max(now), "another time than it has");
        self.until[index] = until;

        if !leaves {
            assert!(matches!(
                self.states[index],
                State::Starting(_) | State::Late | State::Running
            ));
            assert!(self.drain_over || self.alone[index], "told before its turn");
            assert!(self.is_next(index), "those that use it have not ended");
            self.states[index] = State::Leaving(Why::Told);
        }
        if let Some((at, well)) = part.stop {
            self.push(millis(at), Next::Ended(index, well));
        }
    }

    /// Checks that nothing waits without a reason.
    fn is_prompt(&self) {
        for (index, state) in self.states.iter().enumerate().take(self.present) {
            match state {
                State::Created if self.begun_at.is_none() && !self.refused => {
                    let mut uses = self.uses[index].iter();
                    let waits = uses.any(|&used| !self.ready[used] && !self.is_gone_alone(used));
                    assert!(waits, "not started");
                }
                State::Starting(_) | State::Late | State::Running
                    if self.drain_over || self.alone[index] =>
                {
                    assert!(!self.is_next(index), "not told");
                }
                State::Starting(since) if self.begun_at.is_none() => {
                    let timeout = millis(self.scenario.parts[index].start_timeout);
                    assert!(*since + timeout >= self.now, "late, and nobody cares");
                }
                State::Leaving(_) => {
                    assert!(self.until[index] >= self.now);
                    assert!(self.until[index] <= self.end_of_graces().max(self.now));
                    assert!(
                        self.begun_at.is_none() || !self.is_forced(index),
                        "not forced"
                    );
                }
                _ => {}
            }
        }
        assert!(
            self.clean || self.begun_at.is_none() || !self.is_empty(),
            "it goes on"
        );
        if self.all_ready && self.begun_at.is_none() {
            assert!(!self.is_idle() || self.done, "nothing is left to do");
        }
        if let (Some(until), false) = (self.drain_until, self.drain_over) {
            assert!(until >= self.now, "the drain goes on");
            assert!((0..self.states.len()).any(|index| self.has_to_drain(index)));
        }
        let is_late = self.is_urgent() && self.begun_at.is_some() && !self.drain_over;
        assert!(!is_late, "it is urgent, and something is waited for");
    }

    fn finish(mut self) {
        assert!(self.clean && self.drain_over && self.begun_at.is_some());
        assert_eq!(self.said, self.ready);
        // Each component that was present was either started or skipped.
        for index in 0..self.present {
            assert_ne!(self.started[index], self.skipped[index]);
        }
        assert!((0..self.states.len()).all(|index| self.is_done(index)));
        if self.total < Duration::MAX {
            let mut levels = vec![0; self.states.len()];
            for (index, part) in self.scenario.parts.iter().enumerate() {
                let below = self.uses[index].iter().map(|used| levels[*used]).max();
                let slow = part.force.is_none_or(|(at, _)| at > 0);
                levels[index] = below.unwrap_or(0) + u32::from(slow);
            }
            let levels = levels.into_iter().max().unwrap_or(0);
            let kept = millis(self.scenario.cleanup);
            // A cap that came too late cannot be kept.
            let end = self.begun_at.unwrap() + self.total.saturating_sub(kept);
            let told = self
                .scenario
                .told
                .map_or(Duration::ZERO, |(at, _)| millis(at));
            assert!(
                self.now <= end.max(told) + SHORTEST * levels,
                "over the budget"
            );
        }
        // Later events have no effect.
        let mut actions = Vec::new();
        assert_eq!(self.machine.next_tick(), None);
        while let Some(Reverse((at, _, next))) = self.queue.pop() {
            self.now = self.now.max(at);
            match next {
                Next::Ended(index, _) if self.states[index] == State::Lost => {
                    let event = Event::Ended(index, End::Failed);
                    self.machine.on(event, self.now, &mut actions);
                }
                Next::Ready(index) if index < self.present => {
                    self.machine.on(Event::Ready(index), self.now, &mut actions);
                }
                Next::Stop => self.machine.on(Event::Stop, self.now, &mut actions),
                Next::Hurry(haste) => {
                    self.machine.on(Event::Hurry(haste), self.now, &mut actions);
                }
                _ => {}
            }
        }
        self.machine.on(Event::Tick, self.now, &mut actions);
        assert_eq!(actions, []);
    }
}

/// The graph of the first parts, `present` of them, and their traits.
fn graph_of(scenario: &Scenario, present: usize) -> (Graph, Vec<Traits>) {
    let parts = &scenario.parts[..present];
    let names: Vec<String> = (0..parts.len()).map(|index| format!("c{index}")).collect();
    let after: Vec<Vec<_>> = parts
        .iter()
        .enumerate()
        .map(|(index, part)| {
            let uses = (0..index).filter(|other| part.after >> other & 1 == 1);
            uses.map(|other| names[other].clone().into()).collect()
        })
        .collect();
    let phase_names = ["p0", "p1", "p2"];
    let places: Vec<_> = (0..parts.len())
        .map(|index| Place {
            name: &names[index],
            after: &after[index],
            uses: &[],
            provides: &[],
            gone: false,
            phase: parts[index].phase.map(|phase| phase_names[phase]),
        })
        .collect();
    let phases: Vec<_> = (0..scenario.phases.len())
        .map(|index| StopPhase::new(phase_names[index], None))
        .collect();
    let graph = Graph::new(&places, &phases).unwrap();
    let traits = parts.iter().map(|part| Traits {
        start_timeout: millis(part.start_timeout),
        grace: part.grace.map_or(Duration::MAX, millis),
        is_job: part.is_job,
        may_end: part.may_end,
        may_fail: part.may_fail,
        is_work: part.is_work,
        is_used: part.is_used,
        has_cleanup: part.has_cleanup,
        drains: part.drains,
        phase: part.phase,
    });
    (graph, traits.collect())
}

/// A nested lifecycle is told again what is left, which may be more than the confirmation needs.
#[test]
fn a_cap_gives_no_more_time_to_what_is_forced_already() {
    let place = Place {
        name: "deaf",
        after: &[],
        uses: &[],
        provides: &[],
        gone: false,
        phase: None,
    };
    let traits = Traits {
        start_timeout: millis(1_000),
        grace: millis(10_000),
        is_job: false,
        may_end: false,
        may_fail: false,
        is_work: true,
        is_used: false,
        has_cleanup: false,
        drains: false,
        phase: None,
    };
    let times = Times {
        total: millis(100_000),
        start: Duration::MAX,
        jitter: Duration::ZERO,
        lame_duck: Duration::ZERO,
        drain: Duration::ZERO,
        cleanup: Duration::ZERO,
        margin: millis(1_000),
        phases: Vec::new(),
    };
    let graph = Graph::new(&[place], &[]).unwrap();
    let mut machine = Machine::new(graph, vec![Node::Component(traits)], times, true);
    let mut actions = Vec::new();
    machine.begin(Duration::ZERO, &mut actions);
    machine.on(Event::Ready(0), Duration::ZERO, &mut actions);
    machine.on(Event::Stop, Duration::ZERO, &mut actions);
    machine.on(Event::Tick, millis(10_000), &mut actions);
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Force(0)))
    );
    let confirmed = machine.next_tick();
    assert_eq!(confirmed, Some(millis(10_000) + CONFIRMATION));

    machine.cap(millis(60_500), millis(10_500), &mut actions);
    assert_eq!(machine.next_tick(), confirmed);
    // A shorter cap does apply.
    machine.cap(millis(10_700), millis(10_600), &mut actions);
    assert!(machine.next_tick() < confirmed, "{:?}", machine.next_tick());
}

/// What each part uses: the parts it names, all parts of later phases, and what those use.
fn all_used(parts: &[Part]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new(); parts.len()];
    for (index, all) in all.iter_mut().enumerate() {
        let mut found = vec![index];
        while let Some(user) = found.pop() {
            for used in 0..parts.len() {
                let by_name = used < user && parts[user].after >> used & 1 == 1;
                let by_phase = parts[user].phase.zip(parts[used].phase);
                let is_used = by_name || by_phase.is_some_and(|(user, used)| user < used);
                if is_used && !all.contains(&used) {
                    all.push(used);
                    found.push(used);
                }
            }
        }
    }
    all
}

/// Few different times, so that many events coincide.
fn time() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0_u64), 3 => 0..5_u64, 4 => 0..40_u64]
}

fn well() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.8)
}

fn haste() -> impl Strategy<Value = Haste> {
    prop_oneof![Just(Haste::Now), Just(Haste::Urgent), Just(Haste::Force)]
}

fn part() -> impl Strategy<Value = Part> {
    let start = prop_oneof![
        12 => time().prop_map(Start::Ready),
        1 => (time(), any::<bool>()).prop_map(|(at, well)| Start::Ends(at, well)),
        1 => time().prop_map(Start::HelperFails),
        1 => Just(Start::Never),
    ];
    let life = prop_oneof![
        12 => Just(Life::Lasts),
        2 => (0..80_u64, well()).prop_map(|(at, well)| Life::Ends(at, well)),
        1 => (0..80_u64).prop_map(Life::HelperFails),
    ];
    let traits = (
        any::<u16>(),
        any::<u16>(),
        option::weighted(0.4, 0..3_usize),
        prop_oneof![5 => Just(1000_u64), 1 => 1..30_u64],
        prop_oneof![8 => (0..30_u64).prop_map(Some), 1 => Just(None)],
        prop::bool::weighted(0.2),
        (prop::bool::weighted(0.2), prop::bool::weighted(0.4)),
        prop::bool::weighted(0.2),
        (
            prop::bool::weighted(0.7),
            (prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
            option::weighted(0.1, 0..80_u64),
        ),
    );
    let ends = || option::weighted(0.8, (time(), well()));
    (
        traits,
        start,
        life,
        ends(),
        ends(),
        option::weighted(0.8, time()),
    )
        .prop_map(|(traits, start, life, stop, force, drain)| {
            let (one, other, phase, start_timeout, grace, is_job, may, drains, work) = traits;
            let (may_end, may_fail) = may;
            let (is_work, (has_resource, has_cleanup), idle) = work;
            let start = match (is_job, start) {
                (true, Start::Ready(at)) => Start::Ends(at, true),
                (_, start) => start,
            };
            Part {
                after: one & other,
                phase,
                start_timeout,
                grace,
                is_job,
                may_end: may_end || is_job,
                may_fail,
                is_work: is_work || is_job,
                is_used: (!is_work || has_resource) && !is_job,
                has_cleanup,
                idle: idle.filter(|_| is_work && !is_job),
                drains,
                start,
                life,
                stop,
                force,
                drain,
            }
        })
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let budget = (
        option::weighted(0.9, 0..90_u64),
        prop_oneof![Just(0_u64), 0..10_u64],
        prop_oneof![Just(0_u64), 0..20_u64],
        1..20_u64,
        prop_oneof![Just(0_u64), 0..10_u64],
        0..5_u64,
    );
    let world = (
        (prop::bool::weighted(0.03), prop::bool::weighted(0.2)),
        option::weighted(0.5, 0..150_u64),
        vec((0..200_u64, haste()), 0..3),
        option::weighted(0.2, 0..60_u64),
        option::weighted(0.2, (0..200_u64, 0..60_u64)),
        (
            vec((0..200_u64, any::<usize>(), any::<bool>()), 0..4),
            prop_oneof![Just(Vec::new()), vec(0..150_u64, 1..4)],
            prop_oneof![Just(Vec::new()), vec((0..150_u64, any::<usize>()), 1..4)],
        ),
    );
    let phases = vec(option::weighted(0.6, 0..30_u64), 0..4_usize);
    (vec(part(), 0..10), phases, budget, world).prop_map(|(mut parts, phases, budget, world)| {
        let (stop_time, jitter, lame_duck, drain, cleanup, margin) = budget;
        let ((before_begin, is_inside), stop, hurry, refuses, told, others) = world;
        let (strays, mut later, stop_one) = others;
        later.truncate(parts.len());
        later.sort_unstable();
        // Dependencies stop later.
        let mut in_phases: Vec<_> = parts.iter().filter_map(|part| part.phase).collect();
        in_phases.sort_unstable();
        for part in &mut parts {
            if part.phase.is_some() {
                part.phase = in_phases.pop().filter(|phase| *phase < phases.len());
            }
            if stop_time.is_none() {
                part.grace.get_or_insert(30);
            }
        }
        let strays = if parts.is_empty() { Vec::new() } else { strays };
        let stop_one = if parts.is_empty() {
            Vec::new()
        } else {
            stop_one
        };
        Scenario {
            parts,
            phases,
            jitter,
            lame_duck,
            drain,
            cleanup,
            margin,
            stop_time,
            before_begin,
            is_inside,
            stop,
            hurry,
            refuses,
            told,
            later,
            stop_one,
            strays,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_the_order_and_the_times_hold_and_the_end_comes(scenario in scenario()) {
        Sim::new(&scenario).run();
    }
}
