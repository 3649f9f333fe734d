//! Decides what a supervisor does next from what has happened, without a clock, a task or a log.
//!
//! Times are counted from the start of the supervisor. [`Duration::MAX`] means never.
//!
//! Invariants:
//! 1. At most one child is [`Told`](Phase::Told) or [`Forced`](Phase::Forced), and nothing is started
//!    while a child is, or is [`Doomed`](Phase::Doomed).
//! 2. Once the supervisor is ending, no child is [`Up`](Phase::Up) and none is started.
//! 3. A child is started only when its last run has ended.
//! 4. A child is looked at when something happens to it, and never to find another one. The sets
//!    hold the next actions. So ten times as many children cause ten times as much work. Only the
//!    end, and a failure that takes its siblings along, look at all of them.
//! 5. The window of the intensity stands still while children are being stopped. However long their
//!    grace is, it does not carry restarts out of the window.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::backoff::Delays;
use crate::group::time::CONFIRMATION;

/// Which children are restarted when one has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Only the one that failed, for children that are independent.
    #[default]
    OneForOne,
    /// All of them, for children that all need each other.
    OneForAll,
    /// The one that failed and those added after it, for children that need those before them.
    RestForOne,
}

/// The options, which do not change.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) strategy: Strategy,
    pub(super) intensity: usize,
    pub(super) window: Duration,
    pub(super) reset_after: Duration,
    pub(super) grace: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The child's work is over, and it is not to be started again.
    Done(usize),
    /// The child failed, or returned although it must not.
    Failed(usize),
    /// The child was not started, because the group is closed.
    Refused(usize),
    /// The supervisor is to end.
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Start(usize),
    /// Fire the child's token.
    Tell(usize),
    /// Drop the child's future.
    Force(usize),
    /// Wait for an event, at most this long.
    Wait(Duration),
    /// Nothing is left to do, and only children that could not be aborted still run.
    End(Option<Ending>),
}

/// Why the supervisor ends before all of its children are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was cancelled, or its group is closed.
    Asked,
    /// Too many restarts.
    Escalated,
    /// The child cannot be aborted.
    Lost(usize),
}

/// The consequence of a child's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The child was to end, or its end changes nothing.
    Expected,
    /// The child is started again after this time.
    Restart(Duration),
    /// The child has been restarted too often.
    Escalate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not running, and to be started at `due`.
    Down { due: Duration },
    /// Running since this time.
    Up { since: Duration },
    /// Running, and to be stopped as soon as those after it have stopped.
    Doomed { due: Duration },
    /// Running, and told to stop by `until`.
    Told { due: Duration, until: Duration },
    /// Aborted, and lost if not gone by `until`.
    Forced { due: Duration, until: Duration },
    /// Aborted but not gone, because it blocks its thread. The supervisor is ending.
    Lost,
    /// Over for good.
    Done,
}

#[derive(Debug)]
struct Child {
    phase: Phase,
    delays: Delays,
}

#[derive(Debug)]
pub(super) struct State {
    limits: Limits,
    children: Vec<Child>,
    /// The children that are down and not in `due`, by the time when they may be started.
    waiting: BTreeSet<(Duration, usize)>,
    /// The children that are down and may be started now.
    due: BTreeSet<usize>,
    doomed: BTreeSet<usize>,
    /// The child that is told or forced.
    stopping: Option<usize>,
    /// The number of children that are not done.
    left: usize,
    /// The times of the restarts within the window, on the window's clock.
    restarts: VecDeque<Duration>,
    /// How much time went into stopping children, up to `seen`.
    stopped: Duration,
    seen: Duration,
    ending: Option<Ending>,
    /// When all children have to be told and forced at the latest. [`Duration::MAX`] means never.
    deadline: Duration,
    /// The number of times that a child was looked at.
    #[cfg(test)]
    looks: std::cell::Cell<usize>,
}

impl State {
    pub(super) fn new(limits: Limits, delays: impl Iterator<Item = Delays>) -> Self {
        let due = Duration::ZERO;
        let phase = Phase::Down { due };
        let children: Vec<_> = delays.map(|delays| Child { phase, delays }).collect();
        Self {
            limits,
            waiting: (0..children.len()).map(|child| (due, child)).collect(),
            due: BTreeSet::new(),
            doomed: BTreeSet::new(),
            stopping: None,
            left: children.len(),
            restarts: VecDeque::new(),
            stopped: Duration::ZERO,
            seen: Duration::ZERO,
            ending: None,
            deadline: Duration::MAX,
            children,
            #[cfg(test)]
            looks: std::cell::Cell::default(),
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Sets when the last child has to be forced, whatever its grace. The earliest such time counts.
    pub(super) fn end_by(&mut self, deadline: Duration) {
        self.deadline = self.deadline.min(deadline);
    }

    /// Takes in an event.
    pub(super) fn on(&mut self, event: Event, now: Duration) -> Answer {
        self.pass(now);
        match event {
            Event::Done(child) => self.done(child),
            Event::Failed(child) => self.failed(child, now),
            Event::Refused(child) => {
                self.set(child, Phase::Done);
                self.end(Ending::Asked)
            }
            Event::Cancelled => self.end(Ending::Asked),
        }
    }

    /// Notes how much of the passed time went into stopping children.
    fn pass(&mut self, now: Duration) {
        if self.stopping.is_some() || !self.doomed.is_empty() {
            self.stopped += now.saturating_sub(self.seen);
        }
        self.seen = now;
    }

    fn phase(&self, child: usize) -> Phase {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
        self.children[child].phase
    }

    /// Moves a child to a phase, and between the sets.
    fn set(&mut self, child: usize, phase: Phase) {
        match self.phase(child) {
            Phase::Down { due } => {
                if !self.due.remove(&child) {
                    self.waiting.remove(&(due, child));
                }
            }
            Phase::Doomed { .. } => {
                self.doomed.remove(&child);
            }
            Phase::Told { .. } | Phase::Forced { .. } => self.stopping = None,
            Phase::Done => self.left += 1,
            Phase::Up { .. } | Phase::Lost => {}
        }
        match phase {
            Phase::Down { due } => {
                self.waiting.insert((due, child));
            }
            Phase::Doomed { .. } => {
                self.doomed.insert(child);
            }
            Phase::Told { .. } | Phase::Forced { .. } => self.stopping = Some(child),
            Phase::Done => self.left -= 1,
            Phase::Up { .. } | Phase::Lost => {}
        }
        self.children[child].phase = phase;
    }

    fn done(&mut self, child: usize) -> Answer {
        let phase = match self.phase(child) {
            // It was told to stop, so its work is left for the next run.
            Phase::Told { due, .. } | Phase::Forced { due, .. } => Phase::Down { due },
            _ => Phase::Done,
        };
        self.set(child, phase);
        Answer::Expected
    }

    fn failed(&mut self, child: usize, now: Duration) -> Answer {
        match self.phase(child) {
            Phase::Up { since } => self.restart(child, now.saturating_sub(since), now),
            Phase::Doomed { due } | Phase::Told { due, .. } | Phase::Forced { due, .. } => {
                self.set(child, Phase::Down { due });
                Answer::Expected
            }
            Phase::Down { .. } | Phase::Lost | Phase::Done => Answer::Expected,
        }
    }

    fn restart(&mut self, child: usize, ran: Duration, now: Duration) -> Answer {
        self.set(child, Phase::Down { due: now });
        if self.count_restart(now.saturating_sub(self.stopped)) {
            self.end(Ending::Escalated);
            return Answer::Escalate;
        }
        let delays = &mut self.children[child].delays;
        if ran >= self.limits.reset_after {
            delays.reset();
        }
        let delay = delays.draw();
        self.postpone(child, now.saturating_add(delay));
        Answer::Restart(delay)
    }

    /// Counts one more restart, and returns whether it is one too many. Times are on the window's
    /// clock.
    fn count_restart(&mut self, now: Duration) -> bool {
        let window = self.limits.window;
        while self.restarts.front().is_some_and(|&at| now - at >= window) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= self.limits.intensity {
            return true;
        }
        // Without a bound the count is not needed, and the list would grow forever.
        if self.limits.intensity < usize::MAX {
            self.restarts.push_back(now);
        }
        false
    }

    /// Dooms the children that fall with `child`. None of them is started before `due`.
    fn postpone(&mut self, child: usize, due: Duration) {
        let range = match self.limits.strategy {
            Strategy::OneForOne => child..child + 1,
            Strategy::OneForAll => 0..self.children.len(),
            Strategy::RestForOne => child..self.children.len(),
        };
        for child in range {
            let phase = match self.phase(child) {
                Phase::Up { .. } => Phase::Doomed { due },
                Phase::Down { due: own } => Phase::Down { due: due.max(own) },
                Phase::Doomed { due: own } => Phase::Doomed { due: due.max(own) },
                Phase::Told { due: own, until } => Phase::Told {
                    due: due.max(own),
                    until,
                },
                Phase::Forced { due: own, until } => Phase::Forced {
                    due: due.max(own),
                    until,
                },
                Phase::Lost | Phase::Done => continue,
            };
            self.set(child, phase);
        }
    }

    /// Dooms all children, once. Only the first reason to end counts.
    fn end(&mut self, ending: Ending) -> Answer {
        if self.ending.is_none() {
            self.ending = Some(ending);
            for child in 0..self.children.len() {
                if let Phase::Up { since: due } = self.phase(child) {
                    self.set(child, Phase::Doomed { due });
                }
            }
        }
        Answer::Expected
    }

    /// Returns the action to do now, and records it as done.
    pub(super) fn next(&mut self, now: Duration) -> Action {
        self.pass(now);
        if let Some(child) = self.stopping {
            match self.phase(child) {
                Phase::Told { until, .. } if now < until.min(self.deadline) => {
                    return Action::Wait(until.min(self.deadline) - now);
                }
                Phase::Forced { until, .. } if now < until => return Action::Wait(until - now),
                Phase::Told { due, .. } => {
                    let until = now.saturating_add(CONFIRMATION);
                    self.set(child, Phase::Forced { due, until });
                    return Action::Force(child);
                }
                _ => {
                    self.set(child, Phase::Lost);
                    self.end(Ending::Lost(child));
                }
            }
        }
        if let Some(&child) = self.doomed.last() {
            return self.tell(child, now);
        }
        if self.is_ending() || self.left == 0 {
            return Action::End(self.ending);
        }
        self.start_the_first(now)
    }

    fn tell(&mut self, child: usize, now: Duration) -> Action {
        if let Phase::Doomed { due } = self.phase(child) {
            self.doomed.remove(&child);
            // Those that are told after it have a tenth of what is left, whatever it does.
            let left = self.deadline.saturating_sub(now);
            let kept = if self.doomed.is_empty() {
                Duration::ZERO
            } else {
                left / 10
            };
            let until = now.saturating_add(self.limits.grace.min(left - kept));
            self.set(child, Phase::Told { due, until });
        }
        Action::Tell(child)
    }

    /// Starts the first child that is due. One that fell with a sibling is never due before it, so the
    /// order of start is kept.
    fn start_the_first(&mut self, now: Duration) -> Action {
        while let Some(&(due, child)) = self.waiting.first().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&(due, child));
            self.due.insert(child);
        }
        if let Some(&child) = self.due.first() {
            self.set(child, Phase::Up { since: now });
            return Action::Start(child);
        }
        Action::Wait(
            self.waiting
                .first()
                .map_or(Duration::MAX, |(due, _)| *due - now),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Just, ProptestConfig, any, prop_oneof, proptest};
    use proptest::strategy::Strategy as Any;

    use super::*;
    use crate::supervise::Backoff;

    const SECOND: Duration = Duration::from_secs(1);

    fn state(limits: Limits, children: usize) -> State {
        let backoff = Backoff::new(SECOND, 4 * SECOND).no_jitter();
        State::new(limits, (0..children).map(|_| backoff.delays()))
    }

    fn limits(strategy: Strategy) -> Limits {
        Limits {
            strategy,
            intensity: 3,
            window: 60 * SECOND,
            reset_after: 30 * SECOND,
            grace: 5 * SECOND,
        }
    }

    #[test]
    fn a_child_that_outlives_its_abort_ends_the_supervisor_after_the_others_were_stopped() {
        let mut state = state(limits(Strategy::OneForAll), 3);
        for child in 0..3 {
            assert_eq!(state.next(Duration::ZERO), Action::Start(child));
        }
        assert_eq!(state.on(Event::Failed(0), SECOND), Answer::Restart(SECOND));

        assert_eq!(state.next(SECOND), Action::Tell(2));
        assert_eq!(state.next(SECOND), Action::Wait(5 * SECOND));
        assert_eq!(state.next(6 * SECOND), Action::Force(2));
        assert_eq!(state.next(6 * SECOND), Action::Wait(CONFIRMATION));
        assert_eq!(state.next(7 * SECOND), Action::Tell(1));
        state.on(Event::Done(1), 8 * SECOND);
        assert_eq!(state.next(8 * SECOND), Action::End(Some(Ending::Lost(2))));
    }

    #[test]
    fn no_child_has_more_than_what_is_left_until_the_deadline() {
        let mut state = state(limits(Strategy::OneForOne), 2);
        assert_eq!(state.next(Duration::ZERO), Action::Start(0));
        assert_eq!(state.next(Duration::ZERO), Action::Start(1));
        state.on(Event::Cancelled, SECOND);
        state.end_by(7 * SECOND);
        assert_eq!(state.next(SECOND), Action::Tell(1));
        assert_eq!(state.next(SECOND), Action::Wait(5 * SECOND));
        assert_eq!(state.next(6 * SECOND), Action::Force(1));
        state.on(Event::Failed(1), 6 * SECOND);
        assert_eq!(state.next(6 * SECOND), Action::Tell(0));
        assert_eq!(state.next(6 * SECOND), Action::Wait(SECOND));
        assert_eq!(state.next(7 * SECOND), Action::Force(0));
        // The deadline is for the work, and not for the end of what was forced.
        assert_eq!(state.next(7 * SECOND), Action::Wait(CONFIRMATION));
    }

    #[test]
    fn a_refused_child_ends_the_supervisor_and_the_others_are_stopped() {
        let mut state = state(limits(Strategy::OneForOne), 2);
        assert_eq!(state.next(Duration::ZERO), Action::Start(0));
        assert_eq!(state.next(Duration::ZERO), Action::Start(1));
        assert_eq!(
            state.on(Event::Refused(1), Duration::ZERO),
            Answer::Expected
        );
        assert_eq!(state.next(Duration::ZERO), Action::Tell(0));
        state.on(Event::Done(0), SECOND);
        assert_eq!(state.next(SECOND), Action::End(Some(Ending::Asked)));
    }

    /// Returns how often children are looked at from the start of all to the end of all, with a
    /// failure of every tenth in between.
    fn looks(children: usize) -> usize {
        let limits = Limits {
            intensity: usize::MAX,
            ..limits(Strategy::OneForOne)
        };
        let mut state = state(limits, children);
        let mut now = Duration::ZERO;
        let mut up = vec![false; children];
        for child in (0..children).step_by(10).chain([children]) {
            loop {
                match state.next(now) {
                    Action::Start(child) => up[child] = true,
                    Action::Wait(Duration::MAX) => break,
                    Action::Wait(limit) => now += limit,
                    other => unreachable!("{other:?}"),
                }
            }
            if child < children {
                up[child] = false;
                state.on(Event::Failed(child), now);
            }
        }
        assert_eq!(up, vec![true; children]);
        state.on(Event::Cancelled, now);
        while let Action::Tell(child) = state.next(now) {
            state.on(Event::Done(child), now);
        }
        state.looks.get()
    }

    #[test]
    fn ten_times_as_many_children_cost_ten_times_as_much() {
        let (few, many) = (looks(300), looks(3000));
        assert!(few > 300, "{few}");
        assert!(many <= 11 * few, "{few} looks for 300, {many} for 3000");
    }

    #[test]
    fn the_time_of_a_stop_is_not_that_of_the_window() {
        // Each failure of the first takes the second along, which takes its grace, half of the
        // window. Without the stops the failures are one second apart.
        let limits = Limits {
            grace: 30 * SECOND,
            ..limits(Strategy::OneForAll)
        };
        let mut state = state(limits, 2);
        let mut now = Duration::ZERO;
        let mut restarts = 0;
        loop {
            for child in [0, 1] {
                while state.next(now) != Action::Start(child) {
                    now += SECOND;
                }
            }
            now += SECOND;
            if state.on(Event::Failed(0), now) == Answer::Escalate {
                break;
            }
            restarts += 1;
            assert!(restarts < 10, "it is restarted forever");
            assert_eq!(state.next(now), Action::Tell(1));
            now += 29 * SECOND;
            assert_eq!(
                state.next(now),
                Action::Wait(SECOND),
                "its grace is its own"
            );
            state.on(Event::Done(1), now);
        }
        assert_eq!(restarts, 3);
    }

    /// The next event of the world. Children that do not run cannot end.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Pass(u64),
        Fail(usize),
        Return(usize),
        Cancel,
    }

    fn steps() -> impl Any<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (0u64..20_000).prop_map(Step::Pass),
            8 => (0usize..4).prop_map(Step::Fail),
            2 => (0usize..4).prop_map(Step::Return),
            1 => Just(Step::Cancel),
        ];
        vec(step, 0..60)
    }

    fn strategies() -> impl Any<Value = Strategy> {
        prop_oneof![
            Just(Strategy::OneForOne),
            Just(Strategy::OneForAll),
            Just(Strategy::RestForOne),
        ]
    }

    /// Four children that obey or not, and what was seen of them.
    struct World {
        state: State,
        now: Duration,
        alive: [bool; 4],
        lost: [bool; 4],
        /// Whether an abort ends a child.
        can_be_forced: bool,
        restarts: Vec<Duration>,
        /// The last child that was told, if none was started since.
        told: Option<usize>,
        /// How much time went into stopping children.
        stopped: Duration,
        /// When the backoff of each is over.
        due: [Duration; 4],
        end: Option<Option<Ending>>,
    }

    impl World {
        /// Does all actions until there is something to wait for, and returns the time to wait.
        fn settle(&mut self) -> Duration {
            loop {
                match self.state.next(self.now) {
                    Action::Start(child) => self.start(child),
                    Action::Tell(child) => self.tell(child),
                    Action::Force(child) if self.can_be_forced => self.end_of(child, true),
                    Action::Force(child) => self.lost[child] = true,
                    Action::Wait(limit) => return limit,
                    Action::End(ending) => {
                        self.end = Some(ending);
                        assert_eq!(self.alive, self.lost, "alive at the end");
                        return Duration::MAX;
                    }
                }
            }
        }

        fn start(&mut self, child: usize) {
            self.told = None;
            assert!(!self.state.is_ending(), "started after the cancel");
            assert!(!self.alive[child], "two runs of one child");
            assert!(self.now >= self.due[child], "started in its backoff");
            if self.state.limits.strategy != Strategy::OneForOne {
                assert_eq!(
                    self.alive[child..],
                    vec![false; 4 - child],
                    "started out of order"
                );
            }
            self.alive[child] = true;
        }

        fn tell(&mut self, child: usize) {
            self.told = Some(child);
            assert!(self.alive[child], "told when it was gone");
            let later = child + 1..4;
            assert_eq!(
                self.alive[later.clone()],
                self.lost[later],
                "stopped out of order"
            );
        }

        fn end_of(&mut self, child: usize, fails: bool) {
            if !self.alive[child] {
                return;
            }
            self.alive[child] = false;
            self.lost[child] = false;
            let event = if fails {
                Event::Failed(child)
            } else {
                Event::Done(child)
            };
            let answer = self.state.on(event, self.now);
            let Limits {
                intensity, window, ..
            } = self.state.limits;
            let recent = |at: &&Duration| self.now - self.stopped - **at < window;
            let recent = self.restarts.iter().filter(recent).count();
            match answer {
                Answer::Restart(delay) => {
                    assert!(recent < intensity, "more restarts than the intensity");
                    assert!((SECOND..=4 * SECOND).contains(&delay), "{delay:?}");
                    self.restarts.push(self.now - self.stopped);
                    self.due[child] = self.now + delay;
                }
                Answer::Escalate => assert_eq!(recent, intensity, "gave up too early"),
                Answer::Expected => {}
            }
        }

        /// Lets time pass. Time in which a child is told or forced does not count for the window.
        fn pass(&mut self, time: Duration) {
            self.now += time;
            if self.told.is_some_and(|child| self.alive[child]) {
                self.stopped += time;
            }
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Pass(ms) => self.pass(Duration::from_millis(ms)),
                Step::Fail(child) => self.end_of(child, true),
                Step::Return(child) => self.end_of(child, false),
                Step::Cancel => {
                    self.state.on(Event::Cancelled, self.now);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 4096,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn whatever_happens_the_limits_and_the_orders_hold_and_the_end_comes_in_time(
            strategy in strategies(),
            intensity in 0usize..6,
            can_be_forced in any::<bool>(),
            steps in steps(),
        ) {
            let limits = Limits { intensity, ..limits(strategy) };
            let mut world = World {
                state: state(limits, 4),
                now: Duration::ZERO,
                alive: [false; 4],
                lost: [false; 4],
                can_be_forced,
                restarts: Vec::new(),
                told: None,
                stopped: Duration::ZERO,
                due: [Duration::ZERO; 4],
                end: None,
            };
            for step in steps {
                world.settle();
                if world.end.is_some() {
                    return Ok(());
                }
                world.step(step);
            }
            world.step(Step::Cancel);
            let cancelled = world.now;
            while world.end.is_none() {
                let wait = world.settle();
                world.pass(if world.end.is_some() { Duration::ZERO } else { wait });
            }
            let most = 4 * (world.state.limits.grace + CONFIRMATION);
            assert!(world.now - cancelled <= most, "{:?}", world.now - cancelled);
        }
    }
}
