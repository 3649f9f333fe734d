//! The stages of a run, and the transitions between them.

use std::time::Duration;

use super::{Action, Blame, Machine, Phase, Stage};
use crate::group::end::End;
use crate::lifecycle::haste::Haste;
use crate::lifecycle::step_kind::StepKind;

impl Machine {
    pub(super) fn is_stopping(&self) -> bool {
        !matches!(self.stage, Stage::Starting | Stage::Serving)
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.haste >= Haste::Urgent
    }

    pub(super) fn hurry(&mut self, haste: Haste, now: Duration, actions: &mut Vec<Action>) {
        self.haste = self.haste.max(haste);
        if self.is_stopping() && self.haste == Haste::Force {
            self.shorten(now, actions);
        }
        if self.stage == Stage::Stopping && self.is_urgent() {
            self.tell_the_next(now, actions);
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        matches!(self.stage, Stage::Draining { .. })
    }

    pub(super) fn drained(&mut self, node: usize) {
        let drains = self.traits(node).is_some_and(|traits| traits.drains);
        if drains && !std::mem::replace(&mut self.drained[node], true) && self.is_draining() {
            self.not_drained -= 1;
        }
    }

    pub(super) fn stop(&mut self, asked: bool, now: Duration, actions: &mut Vec<Action>) {
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

    /// Moves on to the next stage as long as there is nothing to wait for.
    pub(super) fn look(&mut self, now: Duration, actions: &mut Vec<Action>) {
        loop {
            match self.stage {
                Stage::Starting if self.not_ready == 0 => {
                    actions.push(Action::AllReady);
                    self.stage = Stage::Serving;
                }
                // All components have done their work.
                Stage::Serving if self.components_left == 0 => self.stop(true, now, actions),
                // The resources have no users left.
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

    /// Whether the wait for clients to notice the stop is over. Its time is up, the stop is urgent, or nothing is
    /// left.
    pub(super) fn is_noticed(&self, until: Duration, now: Duration) -> bool {
        self.haste > Haste::None || until <= now || self.components_left == 0
    }

    pub(super) fn begin_lame_duck(&mut self, now: Duration, actions: &mut Vec<Action>) {
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

    pub(super) fn begin_drain(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.not_drained = 0;
        for node in 0..self.nodes.len() {
            // A component that is not running has nothing to drain.
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

    pub(super) fn is_to_drain(&self, node: usize) -> bool {
        let drains = self.traits(node).is_some_and(|traits| traits.drains);
        drains && !self.drained[node]
    }

    pub(super) fn end_drain(&self, within: Duration, actions: &mut Vec<Action>) {
        for node in 0..self.nodes.len() {
            if self.is_to_drain(node) && !self.is_urgent() {
                actions.push(Action::Blame(Blame {
                    node,
                    during: Some(StepKind::Drain),
                    end: End::TimedOut,
                    limit: Some(within),
                    stops_all: true,
                }));
            }
        }
        actions.push(Action::DrainIsOver);
    }

    /// Tells all nodes whose turn it is. In an urgent stop it tells all but those that others must not
    /// lose. If all are to be forced, it forces them too.
    pub(super) fn tell_the_next(&mut self, now: Duration, actions: &mut Vec<Action>) {
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
