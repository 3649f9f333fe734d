//! A component while the lifecycle runs: its task, its state, and when its steps began and ended.

use std::future::poll_fn;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::machine::Blame;
use crate::BoxError;
use crate::group::cause::Cause;
use crate::group::end::End;
use crate::group::error::TaskError;
use crate::group::label;
use crate::group::panic::Panic;
use crate::group::{Spawner, TaskGroup};
use crate::lifecycle::component::{Component, Work};
use crate::lifecycle::component_error::{ComponentError, OWN_TASK};
use crate::lifecycle::component_state::{ComponentState, ComponentStatus};
use crate::lifecycle::context::{Context, Note, Whole};
use crate::lifecycle::plan::{Plan, PlannedComponent};
use crate::lifecycle::report::TimelineStep;
use crate::lifecycle::step_kind::StepKind;

/// The record of a component.
pub(super) struct Slot {
    pub(super) path: Arc<str>,
    pub(super) place: &'static Location<'static>,
    start_timeout: Duration,
    /// The component, until it is started.
    component: Option<Component>,
    /// The context, once the component is started.
    pub(super) ctx: Option<Context>,
    pub(super) state: ComponentState,
    start: Option<Span>,
    stop: Option<Span>,
    /// When it has to be gone, once it is told to stop.
    until: Option<Duration>,
    /// How its task ended, until that is blamed on a component.
    error: Option<TaskError>,
    /// Why it is leaving by itself.
    pub(super) failing: Option<Cause>,
    /// The place that is kept for its error in the ledger.
    pub(super) error_at: Option<usize>,
    /// Why it is to stop while the rest goes on.
    pub(super) asked: Option<Cause>,
    forced: bool,
    /// Whether its start waits for another process.
    pub(super) is_held: bool,
    /// Why it never begins. Empty if it does.
    skipped: String,
    /// How it has ended, as far as known.
    end: End,
}

/// When something began and ended, and how.
struct Span {
    began: Duration,
    ended: Option<Duration>,
    end: End,
    limit: Option<Duration>,
    message: String,
}

impl Span {
    fn from(began: Duration) -> Self {
        Self {
            began,
            ended: None,
            end: End::Done,
            limit: None,
            message: String::new(),
        }
    }

    fn went_wrong(&mut self, error: &ComponentError) {
        self.end = error.end();
        self.limit = error.limit;
        self.message.clone_from(&error.message);
    }
}

impl Slot {
    pub(super) fn new(path: &str, component: Component, planned: &PlannedComponent) -> Self {
        Self {
            path: label::join(Some(path), component.name()),
            place: component.place,
            start_timeout: planned.start_timeout(),
            component: Some(component),
            ctx: None,
            state: ComponentState::Created,
            start: None,
            stop: None,
            until: None,
            error: None,
            failing: None,
            error_at: None,
            asked: None,
            forced: false,
            is_held: false,
            skipped: String::new(),
            end: End::Done,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.path
            .rsplit_once('/')
            .map_or(&*self.path, |(_, name)| name)
    }

    pub(super) fn status(&self) -> ComponentStatus {
        ComponentStatus {
            message: self.skipped.clone(),
            ..ComponentStatus::new(self.name(), self.state)
        }
    }

    /// The component never begins, for this reason.
    pub(super) fn skip(&mut self, reason: &str) {
        self.skipped = reason.to_owned();
        self.end = End::Skipped;
    }

    /// Whether it has been started and has not ended.
    pub(super) fn is_there(&self) -> bool {
        self.ctx.is_some() && self.state.end().is_none()
    }

    /// Whether its token has fired and it has not ended.
    pub(super) fn is_stopping(&self) -> bool {
        let token = self.ctx.as_ref().map(Context::token);
        self.is_there() && token.is_some_and(|token| token.is_cancelled())
    }

    /// Whether it is about to be ready, and does not wait for another process.
    pub(super) fn is_starting(&self) -> bool {
        self.state == ComponentState::Starting && !self.is_held
    }

    /// Whether it was forced and is not gone yet.
    pub(super) fn is_being_forced(&self) -> bool {
        self.forced && self.state.end().is_none()
    }

    /// Returns what is left of the time that it has to stop, if that time is limited.
    pub(super) fn left(&self, now: Duration) -> Option<Duration> {
        let until = self.until.filter(|until| *until < Duration::MAX)?;
        Some(until.saturating_sub(now))
    }

    /// Starts the component, if it has not been started. Returns the future that waits for all of it.
    pub(super) fn start(
        &mut self,
        index: usize,
        now: Duration,
        work: &Spawner,
        whole: &Arc<Whole>,
        notes: &UnboundedSender<Note>,
        nested: Option<Plan>,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let mut component = self.component.take()?;
        self.start = Some(Span::from(now));
        let group = work.child_told_apart(component.name());
        let ctx = Context::new(
            Arc::clone(&self.path),
            group.spawner(),
            Arc::clone(whole),
            index,
            notes.clone(),
            std::mem::take(&mut component.provides),
            component.is_resource(),
            nested,
        );
        self.ctx = Some(ctx.clone());

        let (may_end, place, drains) = (component.may_end, component.place, component.drains);
        let is_lifecycle = component.is_lifecycle();
        let work = component.work(ctx.clone(), &group);
        let work = between_start_and_stop(work, ctx.clone(), drains, may_end);
        let task = group.task(OWN_TASK);
        // A lifecycle reports by itself whether it has ended early.
        let task = match may_end || is_lifecycle {
            true => task,
            false => task.essential(),
        };
        drop(task.spawn_from(place, work));
        Some(follow(index, group, ctx, notes.clone()))
    }

    /// Lets the component fail as if it had returned the error.
    pub(super) fn fail(&self, error: impl Into<BoxError>) {
        if let Some(ctx) = &self.ctx {
            let error = error.into();
            let task = ctx.group().task(OWN_TASK);
            drop(task.spawn_from(self.place, async { Err::<(), _>(error) }));
        }
    }

    /// The component is ready. Returns how long its start took.
    pub(super) fn ready(&mut self, now: Duration) -> Duration {
        let start = self.start.get_or_insert_with(|| Span::from(now));
        start.ended = Some(now);
        now.saturating_sub(start.began)
    }

    /// The component is told to stop, and has until then.
    pub(super) fn told(&mut self, now: Duration, until: Duration) {
        self.stop = Some(Span::from(now));
        self.until = Some(until);
        let is_starting = self.state == ComponentState::Starting;
        if let Some(start) = self.start.as_mut().filter(|_| is_starting) {
            if start.ended.is_none() {
                start.end = End::Skipped;
                start.message = "the stop began".into();
                start.ended = Some(now);
            }
        }
    }

    /// The component has less time to stop than it was told.
    pub(super) fn hurried(&mut self, until: Duration) {
        self.until = Some(until);
    }

    /// Aborts all of the component. Returns the grace that it was given.
    pub(super) fn force(&mut self) -> Duration {
        self.forced = true;
        if let Some(ctx) = &self.ctx {
            ctx.group().abort();
        }
        self.grace()
    }

    /// How long it had to stop.
    fn grace(&self) -> Duration {
        let told = self.stop.as_ref().map(|stop| stop.began);
        let grace = self.until.zip(told);
        grace.map_or(Duration::ZERO, |(until, told)| until.saturating_sub(told))
    }

    /// Records how all of it has ended.
    pub(super) fn ended(&mut self, result: Result<(), TaskError>) -> End {
        match result {
            Ok(()) => End::Done,
            Err(error) => match error.end() {
                // This is the result of forcing it.
                End::Aborted | End::TimedOut | End::StillRunning if self.forced => End::Done,
                end => {
                    self.error = Some(error);
                    end
                }
            },
        }
    }

    /// Makes the error of what went wrong, and the errors of its tasks that failed after it. Records in the
    /// timeline how the step and the component ended.
    pub(super) fn went_wrong(
        &mut self,
        blame: Blame,
        now: Duration,
    ) -> (ComponentError, Vec<ComponentError>) {
        let Blame {
            during, end, limit, ..
        } = blame;
        let was_cut = self.forced && during == Some(StepKind::Stop) && end.is_forced();
        let limit = limit.or(was_cut.then(|| self.grace()));
        let error = ComponentError::new(self.name(), during, end).within(limit);
        // The task's own error is a different one if the time ran out.
        let of_task = self.error.take_if(|_| limit.is_none());
        let (error, later) = match (of_task, limit) {
            (Some(of_task), _) => error.with_task(of_task),
            (None, Some(limit))
                if during == Some(StepKind::Start) && limit != self.start_timeout =>
            {
                let message = "the whole start has no more time";
                (error.with_message(message), Vec::new())
            }
            (None, _) => (error, Vec::new()),
        };
        self.conclude(&error, now);
        (error, later)
    }

    fn conclude(&mut self, error: &ComponentError, now: Duration) {
        match error.during {
            // Only the drain failed, and the component goes on.
            Some(StepKind::Drain) => return,
            Some(StepKind::Start) => {
                if let Some(start) = &mut self.start {
                    start.ended.get_or_insert(now);
                    start.went_wrong(error);
                }
            }
            None => {
                let stop = self.stop.get_or_insert_with(|| Span::from(now));
                stop.went_wrong(error);
            }
            Some(_) => {
                if let Some(stop) = &mut self.stop {
                    stop.went_wrong(error);
                }
            }
        }
        if error.end().is_forced() || self.end == End::Done {
            self.end = error.end();
        }
    }

    /// The component is gone or given up. Returns how it has ended, and how long its stop took if it had
    /// one.
    pub(super) fn gone(&mut self, now: Duration) -> (End, Option<Duration>) {
        for span in [&mut self.start, &mut self.stop].into_iter().flatten() {
            span.ended.get_or_insert(now);
        }
        let was_told = self.until.is_some();
        if let Some(ctx) = self.ctx.as_ref().filter(|_| !was_told) {
            ctx.keep_in_flight();
        }
        let told = self.stop.as_ref().filter(|_| was_told);
        let took = told.map(|stop| now.saturating_sub(stop.began));
        (self.end, took)
    }

    /// Its start and its stop in the timeline, if it had them.
    pub(super) fn steps(&self, ended: Duration) -> impl Iterator<Item = TimelineStep> {
        let spans = [(StepKind::Start, &self.start), (StepKind::Stop, &self.stop)];
        spans.into_iter().filter_map(move |(kind, span)| {
            let span = span.as_ref()?;
            let times = (span.began, span.ended.unwrap_or(ended));
            let step = TimelineStep::new(kind, self.name(), times, span.end);
            Some(step.saying(span.limit, &span.message))
        })
    }
}

/// Does the work of a component, unless the stop was requested before its first turn.
///
/// A component that ends during the drain has drained, and a component that has asked for the stop has done
/// its part. Both stay until they are told to stop.
async fn between_start_and_stop(
    work: Work,
    ctx: Context,
    drains: bool,
    may_end: bool,
) -> Result<(), BoxError> {
    if !ctx.whole().is_asked_to_stop() {
        work.await?;
        let has_drained = drains && ctx.whole().draining.is_cancelled();
        if has_drained {
            ctx.drained();
        }
        if !has_drained && (may_end || !ctx.has_asked_to_stop()) {
            return Ok(());
        }
    }
    ctx.stopping().await;
    Ok(())
}

/// Waits for all of a component, and reports when it begins to fail and when it is gone.
async fn follow(index: usize, mut group: TaskGroup, ctx: Context, notes: UnboundedSender<Note>) {
    let (spawner, token) = (group.spawner(), group.token().clone());
    let mut wait = pin!(group.wait());
    let mut fired = pin!(token.cancelled());
    let ended = poll_fn(|cx| match wait.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => fired.as_mut().poll(cx).map(|()| None),
    });
    let result = match ended.await {
        // The component has ended by itself. Its values are available to components that begin now.
        Some(Ok(())) if !token.is_cancelled() => {
            let _ = notes.send(Note::Ended(index, Ok(())));
            return;
        }
        Some(result) => result,
        None => {
            drop(Panic::catch(|| ctx.take_out()));
            // Any other cause means that it was told to stop, or wants to leave.
            if let Some(cause @ Cause::Failed(_)) = spawner.cause() {
                let _ = notes.send(Note::Failing(index, cause));
            }
            wait.await
        }
    };
    drop(Panic::catch(|| ctx.take_out()));
    let _ = notes.send(Note::Ended(index, result));
}
