//! When each component and each stage has to end, and what happens after that.

use std::cmp::Reverse;
use std::time::Duration;

use super::{Action, Blame, Machine, Phase, SHORTEST, Stage, Times, Traits, Why};
use crate::group::end::End;
use crate::group::time::CONFIRMATION;
use crate::lifecycle::haste::Haste;
use crate::lifecycle::step_kind::StepKind;

impl Machine {
    /// Limits the stop to end by then, whether it has begun or is about to. A nested lifecycle has what is
    /// left of the budget above it.
    pub(in crate::lifecycle) fn cap(
        &mut self,
        until: Duration,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let is_stopping = self.is_stopping();
        let began = if is_stopping { self.stop_at } else { now };
        let total = until.saturating_sub(began);
        if total >= self.times.total {
            return;
        }
        self.set_total(total);
        if !is_stopping {
            return;
        }
        self.shorten(now, actions);
        let end = self.end_of_graces().max(now);
        if let Stage::Draining { until, .. } = &mut self.stage {
            *until = end.min(*until);
        }
    }

    /// Limits the components that are leaving to what the budget leaves them, or to no time if they are to
    /// be forced.
    pub(super) fn shorten(&mut self, now: Duration, actions: &mut Vec<Action>) {
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

    /// The margin to join what was forced is at most a tenth of the total, as in a budget.
    pub(super) fn set_total(&mut self, total: Duration) {
        self.times.total = total;
        self.times.margin = self.times.margin.min(total / 10);
    }

    /// Returns how long the stop may take in all.
    pub(in crate::lifecycle) fn total(&self) -> Duration {
        self.times.total
    }

    /// Returns when a tick is due if nothing else happens before.
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

    /// When the current step of a node has to end.
    pub(super) fn until(&self, node: usize) -> Option<Duration> {
        match self.phases[node] {
            Phase::Starting { until }
            | Phase::Leaving { until, .. }
            | Phase::Forced { until, .. } => Some(until),
            Phase::Created | Phase::Late | Phase::Running | Phase::Lost | Phase::Over => None,
        }
    }

    pub(super) fn enter(&mut self, node: usize, phase: Phase) {
        self.phases[node] = phase;
        if let Some(until) = self.until(node) {
            self.timers.push(Reverse((until, node)));
        }
    }

    /// Whether the component has no time to stop.
    pub(super) fn is_forced(&self, node: usize) -> bool {
        let has_cleanup = self.traits(node).is_some_and(|traits| traits.has_cleanup);
        self.haste == Haste::Force && !has_cleanup
    }

    /// The component's grace, or less if its phase or the budget has less left.
    pub(super) fn time_for(&self, node: usize, now: Duration) -> Duration {
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

    pub(super) fn end_of_graces(&self) -> Duration {
        let Times {
            cleanup, margin, ..
        } = self.times;
        self.before_the_end(cleanup.saturating_add(margin))
    }

    /// The end of the budget, without the reserved part. Before the stop it never comes.
    pub(super) fn before_the_end(&self, kept: Duration) -> Duration {
        match self.times.total {
            Duration::MAX => Duration::MAX,
            _ if !self.is_stopping() => Duration::MAX,
            total => self.stop_at.saturating_add(total.saturating_sub(kept)),
        }
    }

    pub(super) fn expire(&mut self, now: Duration, actions: &mut Vec<Action>) {
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

    /// The time for the whole start is up, and all components that are starting are blamed for it.
    pub(super) fn start_overran(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for node in 0..self.nodes.len() {
            if let Phase::Starting { .. } = self.phases[node] {
                self.phases[node] = Phase::Late;
                actions.push(Action::Blame(Blame {
                    node,
                    during: Some(StepKind::Start),
                    end: End::Failed,
                    limit: Some(self.times.start),
                    stops_all: true,
                }));
            }
        }
        self.stop(false, now, actions);
    }

    /// The time of a node is up.
    pub(super) fn late(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) {
        match self.phases[node] {
            // Once a stop has begun its readiness does not matter. It is told in its turn.
            Phase::Starting { .. } if self.is_stopping() || self.alone[node] => {
                let until = Duration::MAX;
                self.phases[node] = Phase::Starting { until };
            }
            Phase::Starting { .. } => {
                self.phases[node] = Phase::Late;
                let stops_all = self.stops_all(node, Some(StepKind::Start));
                actions.push(Action::Blame(Blame {
                    node,
                    during: Some(StepKind::Start),
                    end: End::Failed,
                    limit: self.traits(node).map(|traits| traits.start_timeout),
                    stops_all,
                }));
                if stops_all {
                    self.stop(false, now, actions);
                } else {
                    self.start_without(node, now, actions);
                    let (until, why) = (self.time_for(node, now), Why::Told);
                    self.enter(node, Phase::Leaving { until, why });
                    actions.push(Action::Tell(node, until));
                }
            }
            Phase::Leaving { why, .. } => {
                actions.push(Action::Force(node));
                let until = self.confirmation(now);
                self.enter(node, Phase::Forced { until, why });
            }
            Phase::Forced { .. } => {
                self.blame(node, Some(StepKind::Stop), End::StillRunning, actions);
                actions.push(Action::GiveUp(node));
                self.drained(node);
                self.over(node, Phase::Lost, now, actions);
            }
            Phase::Created | Phase::Late | Phase::Running | Phase::Lost | Phase::Over => {}
        }
    }

    /// When a component that is forced now has to be gone. It gets a part of what is left, so that the
    /// components after it get some time too.
    pub(super) fn confirmation(&self, now: Duration) -> Duration {
        let left = self.before_the_end(self.times.cleanup).saturating_sub(now);
        now.saturating_add(CONFIRMATION.min(left / 2).max(SHORTEST))
    }
}
