//! What a supervisor does next, as a function of what has happened; without a clock, a task or a log.
//!
//! Times are counted from the start of the supervisor. [`Duration::MAX`] is never.
//!
//! Invariants:
//! 1. At most one child is [`Told`](Phase::Told) or [`Forced`](Phase::Forced), and nothing is started
//!    while a child is, or is [`Doomed`](Phase::Doomed).
//! 2. Once the supervisor is ending no child is [`Up`](Phase::Up), and none is started.
//! 3. A child is started only when its last run has ended.

use std::collections::VecDeque;
use std::time::Duration;

use crate::backoff::Delays;
use crate::time::CONFIRMATION;

/// Which children are restarted when one has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Only the one that failed: the children know nothing of each other.
    #[default]
    OneForOne,
    /// All of them: none can work without the others.
    OneForAll,
    /// The one that failed and those added after it: each stands on those before it.
    RestForOne,
}

/// What does not change.
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
    /// The child failed, or returned and must not.
    Failed(usize),
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
    /// Nothing is left to do, and nothing is running except what could not be aborted.
    End(Option<Ending>),
}

/// Why the supervisor ends before all of its children are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was cancelled.
    Asked,
    /// Too many restarts.
    Escalated,
    /// The child cannot be aborted.
    Lost(usize),
}

/// What follows from the end of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was to end, or its end changes nothing.
    Expected,
    /// It is started again after this time.
    Restart(Duration),
    /// It has been restarted too often.
    Escalate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not running; to be started when `due` has come.
    Down { due: Duration },
    /// Running since then.
    Up { since: Duration },
    /// Running, and to be stopped as soon as those after it have been.
    Doomed { due: Duration },
    /// Running, and told to stop until then.
    Told { due: Duration, until: Duration },
    /// Aborted; gone by then, or lost.
    Forced { due: Duration, until: Duration },
    /// Aborted, and not gone: it blocks its thread. The supervisor is ending.
    Lost,
    /// Over, for good.
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
    /// When the restarts within the window were decided on.
    restarts: VecDeque<Duration>,
    ending: Option<Ending>,
}

impl State {
    pub(super) fn new(limits: Limits, delays: impl Iterator<Item = Delays>) -> Self {
        let phase = Phase::Down {
            due: Duration::ZERO,
        };
        Self {
            limits,
            children: delays.map(|delays| Child { phase, delays }).collect(),
            restarts: VecDeque::new(),
            ending: None,
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Takes in what has happened.
    pub(super) fn on(&mut self, event: Event, now: Duration) -> Answer {
        match event {
            Event::Done(child) => self.done(child),
            Event::Failed(child) => self.failed(child, now),
            Event::Cancelled => self.end(Ending::Asked),
        }
    }

    fn done(&mut self, child: usize) -> Answer {
        let phase = &mut self.children[child].phase;
        *phase = match *phase {
            // Told to stop, it has left its work for the next run.
            Phase::Told { due, .. } | Phase::Forced { due, .. } => Phase::Down { due },
            _ => Phase::Done,
        };
        Answer::Expected
    }

    fn failed(&mut self, child: usize, now: Duration) -> Answer {
        match self.children[child].phase {
            Phase::Up { since } => self.restart(child, now.saturating_sub(since), now),
            Phase::Doomed { due } | Phase::Told { due, .. } | Phase::Forced { due, .. } => {
                self.children[child].phase = Phase::Down { due };
                Answer::Expected
            }
            Phase::Down { .. } | Phase::Lost | Phase::Done => Answer::Expected,
        }
    }

    fn restart(&mut self, child: usize, ran: Duration, now: Duration) -> Answer {
        self.children[child].phase = Phase::Down { due: now };
        let window = self.limits.window;
        self.restarts.retain(|&at| now.saturating_sub(at) < window);
        if self.restarts.len() >= self.limits.intensity {
            self.end(Ending::Escalated);
            return Answer::Escalate;
        }
        // Without a bound there is nothing to count, and the list would grow for ever.
        if self.limits.intensity < usize::MAX {
            self.restarts.push_back(now);
        }
        let delays = &mut self.children[child].delays;
        if ran >= self.limits.reset_after {
            delays.reset();
        }
        let delay = delays.draw();
        self.postpone(child, now.saturating_add(delay));
        Answer::Restart(delay)
    }

    /// Dooms those who fall with `child`; none of them is started before `due`.
    fn postpone(&mut self, child: usize, due: Duration) {
        let range = match self.limits.strategy {
            Strategy::OneForOne => child..child + 1,
            Strategy::OneForAll => 0..self.children.len(),
            Strategy::RestForOne => child..self.children.len(),
        };
        for Child { phase, .. } in &mut self.children[range] {
            match phase {
                Phase::Up { .. } => *phase = Phase::Doomed { due },
                Phase::Down { due: own }
                | Phase::Doomed { due: own }
                | Phase::Told { due: own, .. }
                | Phase::Forced { due: own, .. } => *own = due.max(*own),
                Phase::Lost | Phase::Done => {}
            }
        }
    }

    /// Dooms all. The first reason to end is the one that counts.
    fn end(&mut self, ending: Ending) -> Answer {
        self.ending.get_or_insert(ending);
        for Child { phase, .. } in &mut self.children {
            if let Phase::Up { since: due } = *phase {
                *phase = Phase::Doomed { due };
            }
        }
        Answer::Expected
    }

    /// Decides what to do now, and takes it as done.
    pub(super) fn next(&mut self, now: Duration) -> Action {
        for child in 0..self.children.len() {
            match self.children[child].phase {
                Phase::Told { until, .. } | Phase::Forced { until, .. } if now < until => {
                    return Action::Wait(until - now);
                }
                Phase::Told { due, .. } => {
                    let until = now.saturating_add(CONFIRMATION);
                    self.children[child].phase = Phase::Forced { due, until };
                    return Action::Force(child);
                }
                Phase::Forced { .. } => {
                    self.children[child].phase = Phase::Lost;
                    self.end(Ending::Lost(child));
                }
                _ => {}
            }
        }
        if let Some(action) = self.tell_the_last(now) {
            return action;
        }
        let all_done = self.children.iter().all(|child| child.phase == Phase::Done);
        if self.is_ending() || all_done {
            return Action::End(self.ending);
        }
        self.start_the_first(now)
    }

    fn tell_the_last(&mut self, now: Duration) -> Option<Action> {
        let until = now.saturating_add(self.limits.grace);
        let children = self.children.iter_mut().enumerate().rev();
        for (child, Child { phase, .. }) in children {
            if let Phase::Doomed { due } = *phase {
                *phase = Phase::Told { due, until };
                return Some(Action::Tell(child));
            }
        }
        None
    }

    /// Starts the first child that is due. One that fell with a sibling is never due before it, so the
    /// order of start is kept.
    fn start_the_first(&mut self, now: Duration) -> Action {
        let mut wait = Duration::MAX;
        for (child, Child { phase, .. }) in self.children.iter_mut().enumerate() {
            let Phase::Down { due } = *phase else {
                continue;
            };
            if due <= now {
                *phase = Phase::Up { since: now };
                return Action::Start(child);
            }
            wait = wait.min(due - now);
        }
        Action::Wait(wait)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Just, ProptestConfig, any, prop_oneof, proptest};
    use proptest::strategy::Strategy as Any;

    use super::*;
    use crate::backoff::{Backoff, Jitter};

    const SECOND: Duration = Duration::from_secs(1);

    fn state(limits: Limits, children: usize) -> State {
        let backoff = Backoff::new(SECOND, 4 * SECOND).jitter(Jitter::None);
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

    /// What the world does next. Children that do not run cannot end.
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

    /// Four children that do as they are told, or not, and what was seen of them.
    struct World {
        state: State,
        now: Duration,
        alive: [bool; 4],
        lost: [bool; 4],
        /// Whether an abort ends a child.
        can_be_forced: bool,
        restarts: Vec<Duration>,
        /// When the backoff of each is over.
        due: [Duration; 4],
        end: Option<Option<Ending>>,
    }

    impl World {
        /// Does what there is to do until there is something to wait for, and says how long.
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
            let recent = |at: &&Duration| self.now - **at < window;
            let recent = self.restarts.iter().filter(recent).count();
            match answer {
                Answer::Restart(delay) => {
                    assert!(recent < intensity, "more restarts than the intensity");
                    assert!((SECOND..=4 * SECOND).contains(&delay), "{delay:?}");
                    self.restarts.push(self.now);
                    self.due[child] = self.now + delay;
                }
                Answer::Escalate => assert_eq!(recent, intensity, "gave up too early"),
                Answer::Expected => {}
            }
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Pass(ms) => self.now += Duration::from_millis(ms),
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
                world.now += if world.end.is_some() { Duration::ZERO } else { wait };
            }
            let most = 4 * (world.state.limits.grace + CONFIRMATION);
            assert!(world.now - cancelled <= most, "{:?}", world.now - cancelled);
        }
    }
}
