//! Collects what the report will contain: the errors, the stages of the stop, and what had to be cut.

use std::time::Duration;

use super::critical;
use super::slot::Slot;
use crate::cleanup::{CleanupReport, Outcome, StepReport};
use crate::group::cause::Cause;
use crate::group::end::End;
use crate::group::running::Running;
use crate::lifecycle::component_error::ComponentError;
use crate::lifecycle::context::Context;
use crate::lifecycle::plan::graph::Graph;
use crate::lifecycle::report::{Report, Straggler, TimelineStep};
use crate::lifecycle::step_kind::StepKind;

#[derive(Default)]
pub(super) struct Ledger {
    /// `None` keeps a place for a failure that is not known yet.
    errors: Vec<Option<ComponentError>>,
    stages: Vec<TimelineStep>,
    /// Whether the last stage has not ended yet.
    stage_goes_on: bool,
    stragglers: Vec<Straggler>,
    stop_began: Duration,
}

impl Ledger {
    pub(super) fn begin_stop(&mut self, now: Duration) {
        self.stop_began = now;
    }

    /// Keeps a place for an error that is not known yet.
    pub(super) fn keep_place(&mut self) -> usize {
        self.errors.push(None);
        self.errors.len() - 1
    }

    /// Records an error, in the place that was kept for it if one was.
    pub(super) fn record(&mut self, place: Option<usize>, error: ComponentError) {
        match place {
            Some(place) => self.errors[place] = Some(error),
            None => self.errors.push(Some(error)),
        }
    }

    pub(super) fn begin_stage(
        &mut self,
        kind: StepKind,
        lifecycle: &str,
        times: (Duration, Duration),
    ) {
        self.stage_goes_on = true;
        let stage = TimelineStep::new(kind, lifecycle, times, End::Done);
        self.stages.push(stage);
    }

    /// Records when the last stage has really ended, if there was one.
    pub(super) fn end_stage(&mut self, now: Duration) {
        if std::mem::take(&mut self.stage_goes_on) {
            if let Some(stage) = self.stages.last_mut() {
                stage.ended = now;
            }
        }
    }

    /// Records the tasks of a component that had to be cut.
    pub(super) fn cut(&mut self, component: &str, running: &Running) {
        let stragglers = running.iter();
        let stragglers = stragglers.map(|task| Straggler::new(component, task, false));
        self.stragglers.extend(stragglers);
    }

    /// Records the tasks that are still running. Those that are gone were stragglers too.
    pub(super) fn still_running(&mut self, component: &str, running: &Running) {
        for task in running.iter() {
            let straggler = Straggler::new(component, task, true);
            let is_it = |known: &&mut Straggler| {
                (&known.component, &known.task, &known.place)
                    == (&straggler.component, &straggler.task, &straggler.place)
            };
            match self.stragglers.iter_mut().find(is_it) {
                Some(known) => *known = straggler,
                None => self.stragglers.push(straggler),
            }
        }
    }

    /// How everything has ended so far. `cause` is the cause of the stop.
    pub(super) fn outcome(&self, cause: Cause, slots: &[Slot]) -> Outcome {
        let errors = || self.errors.iter().flatten();
        if let Some(error) = errors().find(|error| error.is_forced()) {
            return Outcome::Forced(format!("{error:#}").into());
        }
        // The error is recorded once the component is gone.
        if let Some(slot) = slots.iter().find(|slot| slot.is_being_forced()) {
            return Outcome::Forced(format!("component `{}` was forced", slot.name()).into());
        }
        // What was cut in a nested lifecycle, or went wrong in its cleanup, may not be an error of this one.
        let nested = |is_it: fn(&Report) -> bool| {
            let mut contexts = slots.iter().filter_map(|slot| slot.ctx.as_ref());
            contexts.find_map(|ctx| {
                let name = |report: &Report| is_it(report).then(|| report.name.clone());
                ctx.look_at_nested(name).flatten()
            })
        };
        if let Some(name) = nested(Report::was_forced) {
            return Outcome::Forced(format!("lifecycle `{name}` was forced").into());
        }
        if let Some(error) = errors().next() {
            return Outcome::Failed(format!("{error:#}").into());
        }
        if !self.errors.is_empty() {
            // The component is still leaving.
            return Outcome::Failed(cause.to_string().into());
        }
        match nested(|report| !report.is_clean()) {
            Some(name) => Outcome::Failed(format!("lifecycle `{name}` failed").into()),
            None => match cause {
                Cause::Done => Outcome::Clean,
                cause => Outcome::Stopped(cause),
            },
        }
    }

    /// Makes the report of a run that ends now.
    pub(super) fn report(&mut self, end: RunEnd<'_>) -> Report {
        let RunEnd {
            name,
            cause,
            budget,
            slots,
            graph,
            ended,
            cleanup,
        } = end;
        let order: Vec<_> = graph.start_order().collect();
        let contexts = slots.iter().filter_map(|slot| slot.ctx.as_ref());
        Report {
            name: name.to_owned(),
            cause,
            errors: self.take_errors(slots),
            timeline: self.timeline(slots, graph, cleanup.as_ref(), ended),
            components: order.iter().map(|index| slots[*index].status()).collect(),
            stragglers: std::mem::take(&mut self.stragglers),
            in_flight: contexts.filter_map(Context::in_flight).sum(),
            stop_began: self.stop_began,
            ended,
            budget,
            cleanup,
            nested: order
                .iter()
                .filter_map(|index| slots[*index].ctx.as_ref()?.take_nested())
                .collect(),
        }
    }

    /// A component that failed and never ended has left at least its cause.
    fn take_errors(&mut self, slots: &[Slot]) -> Vec<ComponentError> {
        let mut errors = std::mem::take(&mut self.errors);
        for slot in slots {
            if let (Some(place), Some(cause)) = (slot.error_at, &slot.failing) {
                if let Some(error @ None) = errors.get_mut(place) {
                    let failed = ComponentError::new(slot.name(), None, End::Failed);
                    *error = Some(failed.with_message(cause.to_string()));
                }
            }
        }
        errors.into_iter().flatten().collect()
    }

    fn timeline(
        &self,
        slots: &[Slot],
        graph: &Graph,
        cleanup: Option<&CleanupReport>,
        ended: Duration,
    ) -> Vec<TimelineStep> {
        let stages = self.stages.iter().map(|stage| (None, stage.clone()));
        let mut steps: Vec<critical::Step> = stages.collect();
        for (node, slot) in slots.iter().enumerate() {
            steps.extend(slot.steps(ended).map(|step| (Some(node), step)));
        }
        if let Some(cleanup) = cleanup {
            let began = ended.saturating_sub(cleanup.took);
            let of_cleanup = cleanup.steps.iter().map(|step| of_cleanup(step, began));
            steps.extend(of_cleanup.map(|step| (None, step)));
        }
        critical::mark(&mut steps, graph, self.stop_began);
        let mut timeline: Vec<_> = steps.into_iter().map(|(_, step)| step).collect();
        // The steps are large, so the sort moves only their keys.
        timeline.sort_by_cached_key(|step| step.began);
        timeline
    }
}

/// What a report contains besides the records.
pub(super) struct RunEnd<'a> {
    pub(super) name: &'a str,
    pub(super) cause: Cause,
    pub(super) budget: Duration,
    pub(super) slots: &'a [Slot],
    pub(super) graph: &'a Graph,
    pub(super) ended: Duration,
    pub(super) cleanup: Option<CleanupReport>,
}

fn of_cleanup(step: &StepReport, began: Duration) -> TimelineStep {
    let at = |time: Option<Duration>| began + time.unwrap_or_default();
    let times = (at(step.started), at(step.ended));
    let of_timeline = TimelineStep::new(StepKind::Cleanup, &*step.name, times, step.end);
    of_timeline.saying(step.limit, &step.message)
}
