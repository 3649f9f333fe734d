//! Handles the events of one component, and their effects on those before and after it.

use std::time::Duration;

use super::{Action, Blame, Machine, Node, Phase, Stage, Traits, Why};
use crate::group::end::End;
use crate::lifecycle::step_kind::StepKind;

impl Machine {
    pub(super) fn start(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) {
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

    /// Starts the nodes that waited for this one, and those that waited for nodes that are ready at once.
    pub(super) fn ready(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) {
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

    pub(super) fn idle(&mut self, node: usize) {
        if matches!(self.phases[node], Phase::Lost | Phase::Over) {
            return;
        }
        if let Node::Component(traits) = &mut self.nodes[node] {
            if std::mem::take(&mut traits.is_work) {
                self.work_is_done();
            }
        }
    }

    pub(super) fn finished(&mut self, node: usize) {
        if let Node::Component(traits) = &mut self.nodes[node] {
            traits.may_end = true;
        }
    }

    pub(super) fn work_is_done(&mut self) {
        if let Some(work) = &mut self.work_left {
            *work -= 1;
        }
    }

    pub(super) fn failing(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) {
        let why = match self.phases[node] {
            Phase::Starting { .. } | Phase::Late => Why::FailedStarting,
            Phase::Running => Why::Failed,
            _ => return,
        };
        let stops_all = self.stops_all(node, None);
        actions.push(Action::Failing { node, stops_all });
        if stops_all {
            self.stop(false, now, actions);
        }
        // Its own stop has begun, even if it has users. The stop of its phase has not.
        let until = self.time_for(node, now);
        self.enter(node, Phase::Leaving { until, why });
        actions.push(Action::Tell(node, until));
        // It is leaving and no longer drains.
        self.drained(node);
    }

    pub(super) fn ended(
        &mut self,
        node: usize,
        end: End,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let Some(&Traits {
            is_job, may_end, ..
        }) = self.traits(node)
        else {
            return;
        };
        let is_well = end == End::Done;
        let failed = if is_well { End::Failed } else { end };
        let phase = self.phases[node];
        let mut stops_all = false;
        if let Phase::Forced { .. } = phase {
            stops_all = self.blame(node, Some(StepKind::Stop), End::TimedOut, actions);
        }
        let wrong = match phase {
            // A lost component may be gone later.
            Phase::Created | Phase::Lost | Phase::Over => return,
            Phase::Starting { .. } | Phase::Late if !is_well => Some((Some(StepKind::Start), end)),
            // It has already been blamed for that.
            Phase::Late => None,
            Phase::Starting { .. } if is_job => {
                actions.push(Action::Ready(node));
                self.ready(node, now, actions);
                None
            }
            Phase::Starting { .. } => Some((Some(StepKind::Start), End::EndedEarly)),
            Phase::Running if is_well && may_end => None,
            Phase::Running if is_well => Some((None, End::EndedEarly)),
            Phase::Running => Some((None, end)),
            Phase::Leaving { why, .. } | Phase::Forced { why, .. } => match why {
                Why::FailedStarting => Some((Some(StepKind::Start), failed)),
                Why::Failed => Some((None, failed)),
                Why::Told => (!is_well).then_some((Some(StepKind::Stop), end)),
            },
        };
        if let Some((during, end)) = wrong {
            stops_all |= self.blame(node, during, end, actions);
            if !stops_all && !self.starts.is_done(node) {
                self.start_without(node, now, actions);
            }
        }
        actions.push(Action::Gone(node));
        self.drained(node);
        self.over(node, Phase::Over, now, actions);
        if stops_all {
            self.stop(false, now, actions);
        }
    }

    /// Reports what went wrong. Returns whether everything stops because of it.
    pub(super) fn blame(
        &self,
        node: usize,
        during: Option<StepKind>,
        end: End,
        actions: &mut Vec<Action>,
    ) -> bool {
        let stops_all = self.stops_all(node, during);
        actions.push(Action::Blame(Blame {
            node,
            during,
            end,
            limit: None,
            stops_all,
        }));
        stops_all
    }

    /// Whether everything stops if that step of a component goes wrong.
    pub(super) fn stops_all(&self, node: usize, during: Option<StepKind>) -> bool {
        let may_fail = self.traits(node).is_some_and(|traits| traits.may_fail);
        match during {
            // The component was leaving.
            Some(StepKind::Stop) => self.is_stopping(),
            _ => !may_fail || self.stage != Stage::Serving,
        }
    }

    /// Marks a node as over, and tells the nodes that have no users left.
    pub(super) fn over(
        &mut self,
        node: usize,
        phase: Phase,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        self.phases[node] = phase;
        let mut next = std::mem::take(&mut self.next);
        let mut at = 0;
        let mut over = Some(node);
        loop {
            if let Some(node) = over.take() {
                self.not_over -= 1;
                if self.alone[node] && !self.is_stopping() && !self.starts.is_done(node) {
                    // It can no longer become ready and delays nothing. Its users are over, or were added
                    // since.
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
            // Components whose turn comes earlier are told when the drain is over.
            let is_asked = self.stage == Stage::Stopping || self.alone[used];
            if is_asked && self.tell(used, now, actions) {
                over = Some(used);
            }
        }
        next.clear();
        self.next = next;
    }

    /// Tells a node without users to stop. Returns whether that already ended the node.
    pub(super) fn tell(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) -> bool {
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
        // A component that stops alone may be told in the drain. From then on it no longer drains.
        self.drained(node);
        false
    }

    /// Stops one component while the rest goes on. Its users go first, in the usual order of a stop.
    pub(super) fn stop_one(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) {
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

    /// One component has not started, and the others go on. Components that wait for it can never start.
    /// The barriers are ready by then, so its phase goes on without it.
    pub(super) fn start_without(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) {
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

    /// Skips those of the nodes that have not been started.
    pub(super) fn forget(&mut self, nodes: &[usize], now: Duration, actions: &mut Vec<Action>) {
        let is_new = |node: &usize| self.phases[*node] == Phase::Created;
        let new: Vec<_> = nodes.iter().copied().filter(is_new).collect();
        for &node in &new {
            self.phases[node] = Phase::Over;
        }
        for node in new {
            self.skip(node, now, actions);
        }
    }

    /// Skips all nodes that have not been started.
    pub(super) fn forget_the_rest(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for node in 0..self.nodes.len() {
            if self.phases[node] == Phase::Created {
                self.skip(node, now, actions);
            }
        }
    }

    /// Marks a node as over that was never started.
    pub(super) fn skip(&mut self, node: usize, now: Duration, actions: &mut Vec<Action>) {
        if self.nodes[node].is_component() {
            actions.push(Action::Skip(node));
        }
        self.over(node, Phase::Over, now, actions);
    }
}
