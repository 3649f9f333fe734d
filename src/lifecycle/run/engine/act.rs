//! Carries out the actions of the machine: starts, tells, forces and blames components.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use crate::group::cause::{Cause, FailedTask};
use crate::group::end::End;
use crate::group::label::Label;
use crate::lifecycle::component::Component;
use crate::lifecycle::component_error::ComponentError;
use crate::lifecycle::component_state::ComponentState;
use crate::lifecycle::context::Context;
use crate::lifecycle::event::EventKind;
use crate::lifecycle::plan::{Plan, PlannedComponent};
use crate::lifecycle::run::machine;
use crate::lifecycle::run::machine::{Action, Blame};
use crate::lifecycle::run::slot::Slot;
use crate::lifecycle::run::traits::traits_of;
use crate::lifecycle::step_kind::StepKind;

impl Engine {
    /// Does not start a component, since a stop has been requested. The stop is the next event.
    pub(super) fn refuse_to_start(&mut self, index: usize) {
        self.machine.not_started(index);
        if !self.trigger.is_cancelled() {
            // The enclosing lifecycle stops, and has not told this one yet.
            self.ends_before_told = true;
            let cause = self.whole.why_to_stop().unwrap_or(Cause::Token);
            self.trigger.spawner().cancel_for(cause);
        }
    }

    /// Adds a component that is already in the plan.
    pub(super) fn add(&mut self, component: Component, plan: Arc<Plan>, actions: &mut Vec<Action>) {
        let index = self.slots.len();
        let Some(planned) = plan.added().get(index) else {
            return;
        };
        let traits = traits_of(&component, planned, plan.graph().phases[index]);
        self.slots.push(Slot::new(&self.path, component, planned));
        let graces = plan.added().iter().map(PlannedComponent::grace);
        let graph = plan.graph().clone();
        self.machine
            .add(graph, traits, graces, self.moment, actions);
        self.plan = plan;
    }

    /// Stops a component and the components that use it, for this cause.
    pub(super) fn stop_one(&mut self, index: usize, cause: &Cause, actions: &mut Vec<Action>) {
        for user in self.plan.graph().users_of(index) {
            // Barriers do not have slots.
            if let Some(slot) = self.slots.get_mut(user) {
                slot.asked.get_or_insert_with(|| cause.clone());
            }
        }
        let event = machine::Event::StopOne(index);
        self.machine.on(event, self.now(), actions);
    }

    pub(super) fn ready(&mut self, index: usize) {
        let now = self.now();
        let took = self.slots[index].ready(now);
        self.enter(index, ComponentState::Running);
        self.emit_of(index, EventKind::Ready(took));
    }

    pub(super) fn start(&mut self, index: usize) {
        let now = self.now();
        let nested = self.plan.added()[index].nested().cloned();
        let slot = &mut self.slots[index];
        let follower = slot.start(index, now, &self.work, &self.whole, &self.notes, nested);
        let Some(follower) = follower else { return };
        self.followers.spawn(follower);
        self.enter(index, ComponentState::Starting);
        self.emit_of(index, EventKind::StartBegan);
    }

    pub(super) fn all_ready(&mut self) {
        if self.whole.is_asked_to_stop() {
            return;
        }
        // The event for the last component's readiness comes first.
        self.shared.readiness.set_ready();
        self.shared.all_ready.cancel();
        if let Some(outer) = &self.outer {
            outer.ready();
        }
        self.emit(None, EventKind::AllReady);
    }

    pub(in crate::lifecycle) fn enter(&mut self, index: usize, state: ComponentState) {
        self.change(index, |slot| slot.state = state);
        self.shared.enter(index, state);
    }

    /// Keeps a place for the error, which is known once the component has ended.
    pub(super) fn failing(&mut self, index: usize, stops_all: bool) {
        self.take_failure_of_trigger();
        let slot = &mut self.slots[index];
        if let Some(cause) = slot.failing.clone() {
            slot.error_at = Some(self.ledger.keep_place());
            if stops_all {
                self.trigger.spawner().cancel_for(cause);
            }
        }
    }

    /// Records what went wrong. If the failure stops everything and no stop has been requested yet,
    /// requests it.
    pub(super) fn blame(&mut self, blame: Blame) {
        self.take_failure_of_trigger();
        let (index, now) = (blame.node, self.now());
        let slot = &mut self.slots[index];
        let (error, later) = slot.went_wrong(blame, now);
        let place = slot.error_at.take_if(|_| error.limit.is_none());
        self.ledger.record(place, error.clone());
        for error in &later {
            self.ledger.record(None, error.clone());
        }
        if blame.stops_all && !self.trigger.is_cancelled() {
            let label = Label::named(None, &slot.path, slot.place);
            let failed = FailedTask::new(&label, error.end(), format!("{error:#}"));
            self.trigger.spawner().cancel_for(Cause::Failed(failed));
        }
        for error in std::iter::once(error).chain(later) {
            self.emit_of(index, EventKind::Failed(error));
        }
    }

    /// A lost heartbeat is an error of its own, recorded before the errors that follow from it.
    fn take_failure_of_trigger(&mut self) {
        if let Some(error) = self.trigger.take_failure() {
            let error = ComponentError::of_trigger(self.plan.name(), error);
            self.ledger.record(None, error);
        }
    }

    pub(super) fn begin_stop(&mut self) {
        self.ledger.begin_stop(self.now());
        self.waiting.begin(self.now());
        // A stop without a request has this cause, since nothing is left to do.
        self.trigger.spawner().cancel_for(Cause::Done);
        let cause = self.cause();
        self.take_failure_of_trigger();
        if let (Some(outer), Cause::Failed(_) | Cause::Heartbeat(_)) = (&self.outer, &cause) {
            // The enclosing lifecycle goes on only after everything in this one has ended.
            outer.fail(cause.clone());
        }
        let budget = self.machine.total();
        self.emit(None, EventKind::StopTriggered { cause, budget });
        for index in 0..self.slots.len() {
            self.say_in_flight(index);
        }
    }

    fn say_in_flight(&mut self, index: usize) {
        let slot = &self.slots[index];
        let ctx = slot.ctx.as_ref().filter(|_| slot.is_there());
        if let Some(count) = ctx.and_then(Context::in_flight) {
            self.emit_of(index, EventKind::InFlight(count));
        }
    }

    pub(super) fn not_ready(&mut self) {
        self.ledger.end_stage(self.now());
        if matches!(self.cause(), Cause::HandedOver(_)) {
            // The address is as ready as before, and a probe may still come over a connection of this process.
            return;
        }
        self.shared.readiness.set_draining();
        self.emit(None, EventKind::NotReady);
    }

    pub(super) fn begin_stage(
        &mut self,
        kind: StepKind,
        until: Duration,
        event: fn(Duration) -> EventKind,
    ) {
        let now = self.now();
        self.ledger
            .begin_stage(kind, self.plan.name(), (now, until));
        self.emit(None, event(until.saturating_sub(now)));
    }

    pub(super) fn end_drain(&mut self) {
        self.ledger.end_stage(self.now());
        if self.whole.draining.is_cancelled() {
            self.emit(None, EventKind::DrainEnded);
        }
    }

    pub(super) fn tell(&mut self, index: usize, until: Duration) {
        let now = self.now();
        let deadline = self.deadline(until);
        let slot = &mut self.slots[index];
        slot.told(now, until);
        let Some(ctx) = slot.ctx.clone() else { return };
        ctx.keep_in_flight();
        if ctx.wants_outcome() {
            ctx.set_outcome(self.outcome(self.cause_for(index)));
        }
        ctx.limit().set(deadline);
        self.enter(index, ComponentState::Draining);
        self.emit_of(index, EventKind::StopBegan(until.saturating_sub(now)));
        ctx.group().cancel_for(self.cause_for(index));
    }

    /// Gives less time to a component that was already told to stop.
    pub(super) fn hurry(&mut self, index: usize, until: Duration) {
        let deadline = self.deadline(until);
        let slot = &mut self.slots[index];
        slot.hurried(until);
        if let Some(ctx) = &slot.ctx {
            ctx.limit().set(deadline);
        }
    }

    pub(super) fn force(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(ctx) = &slot.ctx else { return };
        let running = ctx.group().running();
        let after = slot.force();
        self.ledger.cut(slot.name(), &running);
        self.emit_of(index, EventKind::Forced(after));
    }

    pub(super) fn give_up(&mut self, index: usize) {
        let slot = &self.slots[index];
        if let Some(ctx) = &slot.ctx {
            let running = ctx.group().running();
            self.ledger.still_running(slot.name(), &running);
        }
        self.gone(index);
    }

    /// The component never begins, because everything stops, it alone stops, or a component that it uses
    /// did not start.
    pub(super) fn skip(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let reason = match &slot.asked {
            Some(cause) => cause.to_string(),
            None if self.trigger.is_cancelled() => "the stop began".to_owned(),
            None => "what it uses is not there".to_owned(),
        };
        slot.skip(&reason);
        self.enter(index, ComponentState::Ended(End::Skipped));
        self.emit_of(index, EventKind::Skipped(reason));
    }

    pub(super) fn gone(&mut self, index: usize) {
        let now = self.now();
        let slot = &mut self.slots[index];
        let (end, took) = slot.gone(now);
        let in_flight = slot.ctx.as_ref().and_then(Context::in_flight).unwrap_or(0);
        self.enter(index, ComponentState::Ended(end));
        // Reap one finished follower. Otherwise they would be kept until the end.
        let _ = self.followers.try_join_next();
        self.emit_of(
            index,
            EventKind::Ended {
                end,
                took,
                in_flight,
            },
        );
    }

    /// Why a component stops: with the whole lifecycle, or alone.
    fn cause_for(&self, index: usize) -> Cause {
        let slot = &self.slots[index];
        let alone = slot.asked.as_ref().or(slot.failing.as_ref()).cloned();
        let whole = self.trigger.cause();
        whole.or(alone).unwrap_or(Cause::Done)
    }
}
