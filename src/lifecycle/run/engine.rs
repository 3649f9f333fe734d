//! Does what the [machine](super::machine) says: the tasks, the clock and the words of a lifecycle.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::herald::Herald;
use super::machine;
use super::machine::{Action, Ending, Fault, Machine, Node, Times, Traits};
use super::waiting;
use super::waiting::Waiting;
use crate::BoxError;
use crate::backoff::{Backoff, Jitter};
use crate::group::cause::{Cause, FailedTask};
use crate::group::end::End;
use crate::group::error::TaskError;
use crate::group::label::Label;
use crate::group::log;
use crate::group::panic::Panic;
use crate::group::running::Running;
use crate::group::signal::Signal;
use crate::group::time::CONFIRMATION;
use crate::group::{Spawner, TaskGroup};
use crate::lifecycle::cleanup::{Cleanup, CleanupReport, Outcome, StepReport, StepResult};
use crate::lifecycle::component::{Component, Work};
use crate::lifecycle::component_error::{ComponentError, ComponentErrorKind, OWN_TASK};
use crate::lifecycle::component_state::ComponentState;
use crate::lifecycle::component_state::ComponentStatus;
use crate::lifecycle::context::{Context, Note, Whole};
use crate::lifecycle::event::{Event, EventKind, Observer};
use crate::lifecycle::handle;
use crate::lifecycle::handle::Request;
use crate::lifecycle::haste::Haste;
use crate::lifecycle::plan::budget::detect::is_terminal;
use crate::lifecycle::plan::{Plan, PlannedComponent};
use crate::lifecycle::readiness::Check;
use crate::lifecycle::report::{Report, StepEnd, StepKind, Straggler, TimelineStep};

/// How much is done before others on this thread get a turn.
const AT_ONCE: usize = 64;

/// What a lifecycle is made of when it begins to run.
pub(in crate::lifecycle) struct Parts {
    pub(in crate::lifecycle) plan: Arc<Plan>,
    pub(in crate::lifecycle) components: Vec<Component>,
    pub(in crate::lifecycle) observers: Vec<Observer>,
    pub(in crate::lifecycle) checks: Vec<Check>,
    pub(in crate::lifecycle) trigger: TaskGroup,
    pub(in crate::lifecycle) work: Spawner,
    pub(in crate::lifecycle) cleanup: Cleanup,
    pub(in crate::lifecycle) shared: Arc<handle::Shared>,
    pub(in crate::lifecycle) report: watch::Sender<Option<Arc<Report>>>,
    /// The component that this lifecycle is inside of.
    pub(in crate::lifecycle) outer: Option<Context>,
}

/// A lifecycle that runs. Dropped before its end, it aborts all of its components.
pub(in crate::lifecycle) struct Engine {
    machine: Machine,
    plan: Arc<Plan>,
    path: Arc<str>,
    slots: Vec<Slot>,
    herald: Herald,
    trigger: TaskGroup,
    work: Spawner,
    whole: Arc<Whole>,
    cleanup: Cleanup,
    shared: Arc<handle::Shared>,
    report: watch::Sender<Option<Arc<Report>>>,
    outer: Option<Context>,
    inbox: mpsc::UnboundedReceiver<Note>,
    notes: mpsc::UnboundedSender<Note>,
    /// Those who wait for the components. They own their groups: to drop them is to abort all.
    followers: JoinSet<()>,
    began: Instant,
    moment: Duration,
    /// A place is kept for a failure that is not known yet.
    errors: Vec<Option<ComponentError>>,
    stages: Vec<TimelineStep>,
    /// Whether the last of them has not ended yet.
    stage_goes_on: bool,
    stragglers: Vec<Straggler>,
    stop_began: Duration,
    waiting: Waiting,
    /// Whether what is around this lifecycle stops, and has not told it yet.
    ends_before_told: bool,
}

/// What is known of a component.
struct Slot {
    path: Arc<str>,
    place: &'static std::panic::Location<'static>,
    grace: Duration,
    start_timeout: Duration,
    /// Until it is started.
    component: Option<Component>,
    /// Once it is.
    ctx: Option<Context>,
    state: ComponentState,
    start: Option<Span>,
    stop: Option<Span>,
    /// How its task ended, until somebody is blamed for it.
    error: Option<TaskError>,
    /// The place that is kept for its error, and what is known of it.
    failing: Option<(usize, Cause)>,
    /// Why it is to stop while the rest goes on.
    asked: Option<Cause>,
    told: bool,
    crashed: bool,
    forced: bool,
}

/// When something began and ended, and how.
#[derive(Clone, Debug)]
struct Span {
    began: Duration,
    ended: Option<Duration>,
    result: StepEnd,
}

impl Span {
    fn from(began: Duration) -> Self {
        Self {
            began,
            ended: None,
            result: StepEnd::Done,
        }
    }
}

impl Engine {
    pub(in crate::lifecycle) fn new(parts: Parts) -> Self {
        let Parts {
            plan,
            components,
            observers,
            checks,
            trigger,
            work,
            mut cleanup,
            shared,
            report,
            outer,
        } = parts;
        cleanup.run_in(work.child_told_apart("cleanup"));
        let path = work.name().map(ToOwned::to_owned).unwrap_or_default();
        let machine = machine_of(&plan, &components, outer.is_some());
        let slots: Vec<_> = components
            .into_iter()
            .zip(plan.added())
            .map(|(component, planned)| Slot::new(&path, component, planned))
            .collect();
        shared.list(
            slots.iter().map(|slot| slot.name().to_owned()).collect(),
            plan.graph().start_order().collect(),
        );
        let (notes, inbox) = mpsc::unbounded_channel();
        // From here on a handle can add components.
        *handle::lock(&shared.live) = Some(handle::Live::new(Arc::clone(&plan), notes.clone()));
        if !plan.budget().jitter_time().is_zero() {
            shared.readiness.stay_after_token();
        }
        *handle::lock(&shared.work) = work.clone();
        let outer_whole = outer.as_ref().map(Context::whole);
        let whole = Whole {
            trigger: trigger.spawner(),
            outer: outer_whole.cloned(),
            leaving: outer_whole
                .map(|whole| whole.leaving.child_token())
                .unwrap_or_default(),
            draining: Default::default(),
            readiness: outer_whole
                .map_or_else(|| &shared.readiness, |whole| &whole.readiness)
                .clone(),
            cleanup: cleanup.handle(),
            haste: shared.haste.subscribe(),
        };
        let herald = Herald::new(Arc::clone(&plan), observers);
        Self {
            machine,
            plan,
            path: path.into(),
            slots,
            herald,
            trigger,
            work,
            followers: {
                // They end with the drain, and with the engine.
                let checks = checks.into_iter();
                checks.map(|check| whole.readiness.check(check)).collect()
            },
            whole: Arc::new(whole),
            cleanup,
            shared,
            report,
            outer,
            inbox,
            notes,
            began: Instant::now(),
            moment: Duration::ZERO,
            errors: Vec::new(),
            stages: Vec::new(),
            stage_goes_on: false,
            stragglers: Vec::new(),
            stop_began: Duration::ZERO,
            waiting: Waiting::new(),
            ends_before_told: false,
        }
    }

    /// Starts all, waits for the stop, and stops all.
    pub(in crate::lifecycle) async fn run(mut self) -> Report {
        self.listen();
        let mut actions = Vec::new();
        let outer = self.outer.as_ref();
        if outer.is_some_and(|outer| outer.token().is_cancelled()) {
            let event = self.told(&mut actions);
            self.machine.on(event, Duration::ZERO, &mut actions);
        }
        if self.trigger.is_cancelled() {
            self.machine
                .on(machine::Event::Stop, Duration::ZERO, &mut actions);
        } else {
            self.machine.begin(Duration::ZERO, &mut actions);
        }
        let cleanup_until = loop {
            if let Some(until) = self.perform(&mut actions).await {
                break until;
            }
            let event = self.next_event(&mut actions).await;
            self.machine.on(event, self.now(), &mut actions);
        };
        let told = self.outer.take_if(|_| self.ends_before_told);
        let report = self.finish(cleanup_until).await;
        if let Some(outer) = told {
            outer.stopping().await;
        }
        report
    }

    /// Leaves a component as it is: somebody has asked for the stop, which is heard of next.
    fn refuse_to_start(&mut self, index: usize) {
        self.machine.not_started(index);
        if !self.trigger.is_cancelled() {
            // It is what is around this lifecycle that stops, and has not told it yet.
            self.ends_before_told = true;
            let cause = self.whole.why_to_stop().unwrap_or(Cause::Token);
            self.trigger.spawner().cancel_for(cause);
        }
    }

    /// Makes the triggers notes.
    fn listen(&mut self) {
        let stop = self.trigger.token().clone().cancelled_owned();
        let mut haste = self.shared.haste.subscribe();
        let notes = self.notes.clone();
        self.followers.spawn(async move {
            stop.await;
            let _ = notes.send(Note::Stop);
        });
        let notes = self.notes.clone();
        self.followers.spawn(async move {
            let mut last = Haste::None;
            while let Ok(more) = haste
                .wait_for(|haste| *haste > last)
                .await
                .map(|more| *more)
            {
                last = more;
                let _ = notes.send(Note::Hurry(more));
            }
        });
        if let Some(outer) = &self.outer {
            let told = outer.token().clone().cancelled_owned();
            let notes = self.notes.clone();
            self.followers.spawn(async move {
                told.await;
                let _ = notes.send(Note::Told);
            });
            // What is urgent outside is so in here.
            let (mut haste, shared) = (outer.whole().haste.clone(), Arc::clone(&self.shared));
            self.followers.spawn(async move {
                let mut last = Haste::Now;
                while let Ok(more) = haste
                    .wait_for(|haste| *haste > last)
                    .await
                    .map(|more| *more)
                {
                    last = more;
                    shared.hurry(more);
                }
            });
        }
    }

    async fn next_event(&mut self, actions: &mut Vec<Action>) -> machine::Event {
        let tick = self.machine.next_tick();
        let at = tick.into_iter().chain(self.waiting.next()).min();
        let at = at.and_then(|at| self.began.checked_add(at));
        let note = match at {
            Some(at) => timeout_at(at, self.inbox.recv()).await.ok().flatten(),
            // There is a sender in here.
            None => self.inbox.recv().await,
        };
        self.look_at_the_clock();
        match note {
            None => {
                self.say_what_is_waited_for();
                machine::Event::Tick
            }
            Some(Note::Ready(index)) => machine::Event::Ready(index),
            Some(Note::NotProvided(index, error)) => {
                self.fail(index, error);
                machine::Event::Tick
            }
            Some(Note::Drained(index)) => machine::Event::Drained(index),
            Some(Note::Idle(index)) => machine::Event::Idle(index),
            Some(Note::Finished(index)) => machine::Event::Finished(index),
            Some(Note::Failing(index, cause)) => {
                self.slots[index].failing.get_or_insert((usize::MAX, cause));
                machine::Event::Failing(index)
            }
            Some(Note::Ended(index, result)) => {
                machine::Event::Ended(index, self.ending(index, result))
            }
            Some(Note::Stop) => {
                // The stop may be heard of first.
                let mut haste = *self.shared.haste.borrow();
                if is_typed(self.trigger.cause().as_ref(), is_terminal()) {
                    haste = haste.max(Haste::Now);
                }
                let event = machine::Event::Hurry(haste);
                self.machine.on(event, self.now(), actions);
                machine::Event::Stop
            }
            Some(Note::Asked) => {
                while let Some(request) = self.shared.next_request() {
                    match request {
                        Request::Add(component, plan) => self.add(*component, plan, actions),
                        Request::Stop(index, cause) => self.stop_one(index, &cause, actions),
                    }
                }
                machine::Event::Tick
            }
            Some(Note::Hurry(haste)) => machine::Event::Hurry(haste),
            Some(Note::Told) => self.told(actions),
        }
    }

    /// Has one more component, which the plan has already.
    fn add(&mut self, component: Component, plan: Arc<Plan>, actions: &mut Vec<Action>) {
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

    /// Stops a component, and those that use it, for this cause.
    fn stop_one(&mut self, index: usize, cause: &Cause, actions: &mut Vec<Action>) {
        for user in self.plan.graph().users_of(index) {
            // Barriers have no slot.
            if let Some(slot) = self.slots.get_mut(user) {
                slot.asked.get_or_insert_with(|| cause.clone());
            }
        }
        let event = machine::Event::StopOne(index);
        self.machine.on(event, self.now(), actions);
    }

    /// Lets a component fail as if it had returned the error.
    fn fail(&self, index: usize, error: impl Into<BoxError>) {
        let slot = &self.slots[index];
        if let Some(ctx) = &slot.ctx {
            let error = error.into();
            let task = ctx.group().task(OWN_TASK);
            drop(task.spawn_from(slot.place, async { Err::<(), _>(error) }));
        }
    }

    fn ready(&mut self, index: usize) {
        let now = self.now();
        let slot = &mut self.slots[index];
        let start = slot.start.get_or_insert_with(|| Span::from(now));
        start.ended = Some(now);
        let (path, took) = (Arc::clone(&slot.path), now.saturating_sub(start.began));
        self.enter(index, ComponentState::Running);
        self.emit(Some(path), EventKind::Ready(took));
    }

    fn ending(&mut self, index: usize, result: Result<(), TaskError>) -> Ending {
        let slot = &mut self.slots[index];
        match result {
            Ok(()) => Ending::Well,
            // That is what was done to it.
            Err(error) if slot.forced && error.end() == End::Aborted => Ending::Well,
            Err(error) => {
                slot.error = Some(error);
                Ending::Failed
            }
        }
    }

    /// What is around this lifecycle stops it: nobody has to notice, and there is only so much time.
    fn told(&mut self, actions: &mut Vec<Action>) -> machine::Event {
        let outer = self.outer.as_ref();
        if let Some(left) = outer.and_then(|outer| outer.limit().left()) {
            self.machine.cap(left, self.now(), actions);
        }
        self.shared.hurry(Haste::Now);
        let cause = outer.and_then(Context::cause).unwrap_or(Cause::Token);
        self.trigger.spawner().cancel_for(cause);
        machine::Event::Hurry(Haste::Now)
    }

    /// Returns until when the cleanup may take, when that is all that is left.
    async fn perform(&mut self, actions: &mut Vec<Action>) -> Option<Duration> {
        let mut clean = None;
        for (count, action) in actions.drain(..).enumerate() {
            if count % AT_ONCE == AT_ONCE - 1 {
                others().await;
            }
            match action {
                Action::Start(index) if self.whole.is_asked_to_stop() => {
                    self.refuse_to_start(index);
                }
                Action::Start(index) => self.start(index),
                Action::Ready(index) => self.ready(index),
                Action::AllReady => self.all_ready(),
                Action::Blame(index, fault) => self.blame(index, fault, true),
                Action::GoOn(index, fault) => self.blame(index, fault, false),
                Action::BeginStop => self.begin_stop(),
                Action::Jitter { until } => {
                    self.begin_stage(StepKind::Jitter, until, EventKind::JitterBegan);
                }
                Action::NotReady => self.not_ready(),
                Action::LameDuck { until } => {
                    self.begin_stage(StepKind::LameDuck, until, EventKind::LameDuckBegan);
                }
                Action::Leave => self.whole.leaving.cancel(),
                Action::Drain { until } => {
                    self.end_stage();
                    self.begin_stage(StepKind::Drain, until, EventKind::DrainBegan);
                    self.whole.draining.cancel();
                }
                Action::DrainIsOver => self.end_drain(),
                Action::Tell(index, until) => self.tell(index, until),
                Action::Hurry(index, until) => self.limit(index, until),
                Action::Force(index) => self.force(index),
                Action::Gone(index) => self.gone(index),
                Action::GiveUp(index) => self.give_up(index),
                Action::Idle => {
                    if let Some(outer) = &self.outer {
                        outer.idle();
                    }
                }
                Action::Clean { until } => clean = Some(until),
            }
        }
        clean
    }

    fn start(&mut self, index: usize) {
        let now = self.now();
        let slot = &mut self.slots[index];
        let Some(mut component) = slot.component.take() else {
            return;
        };
        slot.start = Some(Span::from(now));
        let path = Arc::clone(&slot.path);
        let group = self.work.child_told_apart(component.name());
        let ctx = Context::new(
            Arc::clone(&path),
            group.spawner(),
            Arc::clone(&self.whole),
            index,
            self.notes.clone(),
            std::mem::take(&mut component.provides),
            component.is_resource(),
            self.plan.added()[index].nested().cloned(),
        );
        slot.ctx = Some(ctx.clone());
        self.enter(index, ComponentState::Starting);
        self.emit(Some(path), EventKind::StartBegan);

        let (may_end, place, drains) = (component.may_end, component.place, component.drains);
        let is_lifecycle = component.is_lifecycle();
        let work = component.work(ctx.clone(), &group);
        let work = between_start_and_stop(work, ctx.clone(), drains, may_end);
        let task = group.task(OWN_TASK);
        // A lifecycle says by itself whether it has ended early.
        let task = match may_end || is_lifecycle {
            true => task,
            false => task.essential(),
        };
        drop(task.spawn_from(place, work));
        self.followers
            .spawn(follow(index, group, ctx, self.notes.clone()));
    }

    fn all_ready(&mut self) {
        if self.whole.is_asked_to_stop() {
            return;
        }
        // The last one's readiness is an event first.
        self.shared.readiness.set_ready();
        self.shared.all_ready.cancel();
        if let Some(outer) = &self.outer {
            outer.ready();
        }
        self.emit(None, EventKind::AllReady);
    }

    pub(in crate::lifecycle) fn enter(&mut self, index: usize, state: ComponentState) {
        self.slots[index].state = state;
        self.shared.enter(index, state);
    }

    /// Records what went wrong, and then, if it stops all and nobody has done so yet, does so for it.
    fn blame(&mut self, index: usize, fault: Fault, stops_all: bool) {
        let now = self.now();
        if fault == Fault::Failing {
            self.take_failure_of_trigger();
            let slot = &mut self.slots[index];
            slot.crashed = true;
            if let Some((place, cause)) = &mut slot.failing {
                *place = self.errors.len();
                self.errors.push(None);
                let cause = cause.clone();
                if stops_all {
                    self.trigger.spawner().cancel_for(cause);
                }
            }
            return;
        }
        self.take_failure_of_trigger();
        let slot = &mut self.slots[index];
        let error = slot.error.take();
        let kind = slot.verdict(fault, error.as_ref());
        let (error, suppressed) = match error {
            Some(error) => ComponentError::all_from_task(slot.name(), kind, error),
            None => {
                let error = ComponentError::new(slot.name(), kind);
                let error = match fault {
                    Fault::StartOverran(_) => {
                        error.with_message("the whole start has no more time")
                    }
                    _ => error,
                };
                (error, Vec::new())
            }
        };
        slot.conclude(fault, end_of(&error), now);
        if fault == Fault::StillRunning {
            // It was forced in vain: that is the truth about what was told when it was forced.
            let name = slot.name();
            let overran = self.errors.iter_mut().rev().flatten().find(|told| {
                told.component == name && matches!(told.kind, ComponentErrorKind::Overran(_))
            });
            if let Some(overran) = overran {
                *overran = error;
                return;
            }
        }
        let path = Arc::clone(&slot.path);
        let of_its_own = matches!(
            fault,
            Fault::StartFailed | Fault::Failed | Fault::StopFailed
        );
        match slot
            .failing
            .take_if(|(place, _)| of_its_own && *place < self.errors.len())
        {
            Some((place, _)) => self.errors[place] = Some(error.clone()),
            None => self.errors.push(Some(error.clone())),
        }
        self.errors.extend(suppressed.iter().cloned().map(Some));
        if stops_all && !self.trigger.is_cancelled() {
            let label = Label::unnamed(Some(Arc::clone(&path)), slot.place);
            let failed = FailedTask::new(&label, error.end(), &format!("{error:#}"));
            self.trigger.spawner().cancel_for(Cause::Failed(failed));
        }
        for error in std::iter::once(error).chain(suppressed) {
            self.emit(Some(Arc::clone(&path)), EventKind::Failed(error));
        }
    }

    /// A lost heartbeat is an error of its own, and comes before those that follow from it.
    fn take_failure_of_trigger(&mut self) {
        if let Some(error) = self.trigger.take_failure() {
            let kind = ComponentErrorKind::Trigger;
            let (error, _) = ComponentError::all_from_task(self.plan.name(), kind, error);
            self.errors.push(Some(error));
        }
    }

    fn begin_stop(&mut self) {
        self.stop_began = self.now();
        self.waiting.begin(self.now());
        // Nobody has asked for it if nothing is left to do.
        self.trigger.spawner().cancel_for(Cause::Done);
        let cause = self.cause();
        self.take_failure_of_trigger();
        if let (Some(outer), Cause::Failed(_) | Cause::Heartbeat(_)) = (&self.outer, &cause) {
            // What is around this lifecycle does not go on until all in here has ended.
            outer.fail(cause.clone());
        }
        let budget = self.machine.total();
        self.emit(None, EventKind::StopTriggered { cause, budget });
        for index in 0..self.slots.len() {
            self.say_in_flight(index);
        }
    }

    fn say_what_is_waited_for(&mut self) {
        if !self.waiting.is_due(self.now()) {
            return;
        }
        let told = self.slots.iter().filter(|slot| slot.is_stopping());
        let waited: Vec<_> = told
            .map(|slot| (slot.name(), slot.left(self.now())))
            .collect();
        if !waited.is_empty() {
            self.emit(None, EventKind::Waiting(waiting::list(&waited)));
        }
    }

    fn say_in_flight(&mut self, index: usize) {
        let slot = &self.slots[index];
        if slot.state.is_over() {
            return;
        }
        if let Some(count) = slot.ctx.as_ref().and_then(Context::in_flight) {
            self.emit(Some(Arc::clone(&slot.path)), EventKind::InFlight(count));
        }
    }

    fn not_ready(&mut self) {
        self.end_stage();
        self.shared.readiness.set_draining();
        self.emit(None, EventKind::NotReady);
    }

    fn begin_stage(&mut self, kind: StepKind, until: Duration, event: fn(Duration) -> EventKind) {
        let now = self.now();
        let name = self.plan.name();
        self.stage_goes_on = true;
        self.stages
            .push(TimelineStep::new(kind, name, (now, until), StepEnd::Done));
        self.emit(None, event(until.saturating_sub(now)));
    }

    /// Notes when the last stage has really ended, if there was one.
    fn end_stage(&mut self) {
        let now = self.now();
        if std::mem::take(&mut self.stage_goes_on) {
            if let Some(stage) = self.stages.last_mut() {
                stage.ended = now;
            }
        }
    }

    fn end_drain(&mut self) {
        self.end_stage();
        if self.whole.draining.is_cancelled() {
            self.emit(None, EventKind::DrainEnded);
        }
    }

    fn tell(&mut self, index: usize, until: Duration) {
        let now = self.now();
        let slot = &mut self.slots[index];
        slot.stop = Some(Span::from(now));
        slot.told = true;
        let is_starting = slot.state == ComponentState::Starting;
        if let Some(start) = slot.start.as_mut().filter(|_| is_starting) {
            if start.ended.is_none() {
                start.result = StepEnd::Skipped("the stop began".into());
                start.ended = Some(now);
            }
        }
        let Some(ctx) = slot.ctx.clone() else { return };
        ctx.keep_in_flight();
        let path = Arc::clone(&slot.path);
        if ctx.wants_outcome() {
            ctx.set_outcome(self.outcome(self.cause_for(index)));
        }
        self.limit(index, until);
        self.enter(index, ComponentState::Draining);
        self.emit(Some(path), EventKind::StopBegan(until.saturating_sub(now)));
        ctx.group().cancel_for(self.cause_for(index));
    }

    /// Sets the time that a component has to stop.
    fn limit(&mut self, index: usize, until: Duration) {
        let deadline = self
            .began
            .checked_add(until)
            .filter(|_| until < Duration::MAX);
        let slot = &mut self.slots[index];
        let began = slot.stop.as_ref().map_or(until, |stop| stop.began);
        slot.grace = until.saturating_sub(began);
        if let Some(ctx) = &slot.ctx {
            ctx.limit().set(deadline);
        }
    }

    fn force(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.forced = true;
        let Some(ctx) = &slot.ctx else { return };
        let (path, name, grace) = (Arc::clone(&slot.path), slot.name().to_owned(), slot.grace);
        let running = ctx.group().running();
        ctx.group().abort();
        let stragglers = running
            .iter()
            .map(|task| Straggler::new(&name, task, false));
        self.stragglers.extend(stragglers);
        self.emit(Some(path), EventKind::Forced(grace));
    }

    fn give_up(&mut self, index: usize) {
        let slot = &self.slots[index];
        let running = slot.ctx.as_ref().map(|ctx| ctx.group().running());
        let name = slot.name().to_owned();
        // Those that are gone were stragglers too.
        for task in running.iter().flat_map(Running::iter) {
            let straggler = Straggler::new(&name, task, true);
            let is_it = |known: &&mut Straggler| {
                (&known.component, &known.task, &known.place)
                    == (&straggler.component, &straggler.task, &straggler.place)
            };
            match self.stragglers.iter_mut().find(is_it) {
                Some(known) => *known = straggler,
                None => self.stragglers.push(straggler),
            }
        }
        self.gone(index);
    }

    fn gone(&mut self, index: usize) {
        let now = self.now();
        let slot = &mut self.slots[index];
        if let Some(start) = &mut slot.start {
            start.ended.get_or_insert(now);
        }
        if let Some(stop) = &mut slot.stop {
            stop.ended.get_or_insert(now);
        }
        let state = slot.final_state();
        let told = slot.stop.as_ref().filter(|_| slot.told);
        let took = told.map(|stop| now.saturating_sub(stop.began));
        let path = Arc::clone(&slot.path);
        if let Some(ctx) = slot.ctx.as_ref().filter(|_| !slot.told) {
            ctx.keep_in_flight();
        }
        let in_flight = slot.ctx.as_ref().and_then(Context::in_flight).unwrap_or(0);
        self.enter(index, state);
        // Who waited for it, or for another, is done, and would be kept until the end.
        let _ = self.followers.try_join_next();
        self.emit(
            Some(path),
            EventKind::Ended {
                state,
                took,
                in_flight,
            },
        );
    }

    /// Runs the cleanup, and says how it all went.
    async fn finish(mut self, until: Duration) -> Report {
        let cleanup = self.clean(until).await;
        self.look_at_the_clock();
        self.shared.readiness.set_stopped();
        let ended = self.now();
        let timeline = self.timeline(cleanup.as_ref(), ended);
        let many = self.slots.len() > AT_ONCE;
        if many {
            others().await;
        }
        let report = Report {
            name: self.plan.name().to_owned(),
            cause: self.cause(),
            errors: self.take_errors(),
            timeline,
            components: self
                .plan
                .graph()
                .start_order()
                .map(|index| self.slots[index].status())
                .collect(),
            stragglers: std::mem::take(&mut self.stragglers),
            in_flight: self
                .slots
                .iter()
                .filter_map(|slot| slot.ctx.as_ref())
                .filter_map(Context::in_flight)
                .sum(),
            stop_began: self.stop_began,
            ended,
            budget: self.machine.total(),
            cleanup,
            nested: self
                .plan
                .graph()
                .start_order()
                .filter_map(|index| self.slots[index].ctx.as_ref()?.take_nested())
                .collect(),
        };
        // Only those who wait for what does not end are left.
        self.followers.shutdown().await;
        let (took, errors) = (report.took(), report.errors.len());
        self.emit(None, EventKind::Stopped { took, errors });
        let until = self
            .began
            .checked_add(until)
            .filter(|_| until < Duration::MAX);
        let at_least = Instant::now() + CONFIRMATION;
        self.herald
            .end(until.map(|until| until.max(at_least)))
            .await;
        let _ = self.report.send_replace(Some(Arc::new(report.clone())));
        if many {
            self.let_go().await;
            others().await;
        }
        report
    }

    /// Frees the components bit by bit: ten thousand at once would hold up the others on this thread.
    async fn let_go(mut self) {
        while !self.slots.is_empty() {
            let left = self.slots.len().saturating_sub(AT_ONCE);
            self.slots.truncate(left);
            others().await;
        }
    }

    /// Takes out what those that are gone by themselves have provided. A destructor of it may block.
    async fn take_out(&mut self, until: Duration) {
        let contexts = self.slots.iter().filter_map(|slot| slot.ctx.as_ref());
        let full: Vec<_> = contexts.filter(|ctx| ctx.provides()).cloned().collect();
        if full.is_empty() {
            return;
        }
        let taken_out = self.work.task("provided").spawn(async move {
            for ctx in full {
                drop(Panic::catch(|| ctx.take_out()));
            }
            Ok(())
        });
        drop(timeout(until.saturating_sub(self.now()), taken_out).await);
        self.look_at_the_clock();
    }

    fn say_which_step_is_waited_for(&mut self) {
        self.look_at_the_clock();
        if let (true, Some((step, left))) =
            (self.waiting.is_due(self.now()), self.cleanup.under_way())
        {
            let waited = waiting::list(&[(&step, Some(left))]);
            self.emit(None, EventKind::Waiting(format!("cleanup step {waited}")));
        }
    }

    async fn clean(&mut self, until: Duration) -> Option<CleanupReport> {
        self.take_out(until).await;
        let has_steps = !self.cleanup.pending().is_empty();
        if has_steps {
            self.emit(None, EventKind::CleanupBegan);
        }
        let left = until
            .saturating_sub(self.now())
            .saturating_sub(self.cleanup.guaranteed());
        let outcome = self.outcome(self.cause());
        let report = loop {
            let at = self.waiting.next();
            let at = at.and_then(|at| self.began.checked_add(at));
            let run = self.cleanup.run(outcome.clone(), left);
            let Some(at) = at else { break run.await };
            match timeout_at(at, run).await {
                Ok(report) => break report,
                Err(_) => self.say_which_step_is_waited_for(),
            }
        };
        has_steps.then_some(report)
    }

    /// How everything has ended so far, for those that stop for this cause.
    fn outcome(&self, cause: Cause) -> Outcome {
        let errors = || self.errors.iter().flatten();
        if let Some(error) = errors().find(|error| error.is_forced()) {
            return Outcome::Forced(format!("{error:#}").into());
        }
        // What was cut in a nested lifecycle, or went wrong in its cleanup, may be no error of this
        // one.
        let nested = |is_it: fn(&Report) -> bool| {
            let mut contexts = self.slots.iter().filter_map(|slot| slot.ctx.as_ref());
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
            // It is still leaving.
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

    /// What failed and never ended has left its cause at least.
    fn take_errors(&mut self) -> Vec<ComponentError> {
        let mut errors = std::mem::take(&mut self.errors);
        for slot in &self.slots {
            if let Some((place, cause)) = &slot.failing {
                if let Some(error @ None) = errors.get_mut(*place) {
                    *error = Some(
                        ComponentError::new(slot.name(), ComponentErrorKind::Failed)
                            .with_message(cause.to_string()),
                    );
                }
            }
        }
        errors.into_iter().flatten().collect()
    }

    fn timeline(&self, cleanup: Option<&CleanupReport>, ended: Duration) -> Vec<TimelineStep> {
        let mut timeline = self.stages.clone();
        for slot in &self.slots {
            let spans = [(StepKind::Start, &slot.start), (StepKind::Stop, &slot.stop)];
            for (kind, span) in spans {
                timeline.extend(span.as_ref().map(|span| {
                    let times = (span.began, span.ended.unwrap_or(ended));
                    TimelineStep::new(kind, slot.name(), times, span.result.clone())
                }));
            }
        }
        if let Some(cleanup) = cleanup {
            let began = ended.saturating_sub(cleanup.took);
            timeline.extend(cleanup.steps.iter().map(|step| of_cleanup(step, began)));
        }
        // The steps are large, so it is not they that are moved about.
        timeline.sort_by_cached_key(|step| step.began);
        timeline
    }

    /// Why a component stops: with the whole, or alone.
    fn cause_for(&self, index: usize) -> Cause {
        let slot = &self.slots[index];
        let failing = slot.failing.as_ref().map(|(_, cause)| cause);
        let alone = slot.asked.as_ref().or(failing).cloned();
        let whole = self.trigger.cause();
        whole.or(alone).unwrap_or(Cause::Done)
    }

    fn cause(&self) -> Cause {
        self.trigger.cause().unwrap_or(Cause::Done)
    }

    /// Returns the time of what is being dealt with: the same for the machine and for all that it says.
    fn now(&self) -> Duration {
        self.moment
    }

    fn look_at_the_clock(&mut self) {
        self.moment = self.began.elapsed();
    }

    fn emit(&mut self, component: Option<Arc<str>>, kind: EventKind) {
        let event = Event {
            at: self.now(),
            lifecycle: Arc::clone(&self.path),
            component,
            kind,
        };
        let late = std::mem::take(&mut *handle::lock(&self.shared.late_observers));
        self.herald.join(late);
        self.herald.tell(event);
    }
}

impl Slot {
    fn new(path: &str, component: Component, planned: &PlannedComponent) -> Self {
        Self {
            path: crate::group::label::join(Some(path), component.name()),
            place: component.place,
            grace: planned.grace(),
            start_timeout: planned.start_timeout(),
            component: Some(component),
            ctx: None,
            state: ComponentState::Created,
            start: None,
            stop: None,
            error: None,
            failing: None,
            asked: None,
            told: false,
            crashed: false,
            forced: false,
        }
    }

    fn status(&self) -> ComponentStatus {
        ComponentStatus::new(self.name(), self.state)
    }

    fn name(&self) -> &str {
        self.path
            .rsplit_once('/')
            .map_or(&*self.path, |(_, name)| name)
    }

    fn is_stopping(&self) -> bool {
        let told = self.ctx.as_ref().map(Context::token);
        !self.state.is_over() && told.is_some_and(CancellationToken::is_cancelled)
    }

    /// What is left of the time that it has to stop, if that has an end.
    fn left(&self, now: Duration) -> Option<Duration> {
        let told = self.stop.as_ref().filter(|_| self.told)?;
        Some(told.began.checked_add(self.grace)?.saturating_sub(now))
    }

    /// What a fault is called in the report.
    fn verdict(&self, fault: Fault, error: Option<&TaskError>) -> ComponentErrorKind {
        use ComponentErrorKind as Kind;
        let early = error.is_some_and(|error| error.end() == End::EndedEarly);
        match fault {
            Fault::StartTimedOut => Kind::StartTimedOut(self.start_timeout),
            Fault::StartOverran(limit) => Kind::StartTimedOut(limit),
            Fault::DrainTimedOut(within) => Kind::DrainTimedOut(within),
            Fault::Overran => Kind::Overran(self.grace),
            Fault::StillRunning => Kind::StillRunning(self.grace),
            _ if error.is_some_and(|error| error.end() == End::Panicked) => Kind::Panicked,
            Fault::StartFailed if early => Kind::EndedBeforeReady,
            Fault::StartFailed => Kind::StartFailed,
            Fault::EndedBeforeReady => Kind::EndedBeforeReady,
            Fault::Failing | Fault::Failed if early => Kind::EndedEarly,
            Fault::Failing | Fault::Failed => Kind::Failed,
            Fault::EndedEarly => Kind::EndedEarly,
            Fault::StopFailed => Kind::StopFailed,
        }
    }

    /// Notes in the timeline what has become of the step that went wrong.
    fn conclude(&mut self, fault: Fault, end: StepEnd, now: Duration) {
        match fault {
            Fault::StartFailed
            | Fault::EndedBeforeReady
            | Fault::StartTimedOut
            | Fault::StartOverran(_) => {
                self.crashed = true;
                if let Some(start) = &mut self.start {
                    start.ended.get_or_insert(now);
                    start.result = end;
                }
            }
            Fault::Failing | Fault::Failed | Fault::EndedEarly => {
                self.crashed = true;
                self.stop.get_or_insert_with(|| Span::from(now)).result = end;
            }
            Fault::StopFailed | Fault::Overran | Fault::StillRunning => {
                if let Some(stop) = &mut self.stop {
                    stop.result = end;
                }
            }
            Fault::DrainTimedOut(_) => {}
        }
    }

    fn final_state(&self) -> ComponentState {
        if self.forced {
            ComponentState::ForceStopped
        } else if self.crashed {
            ComponentState::Crashed
        } else {
            ComponentState::Stopped
        }
    }
}

fn machine_of(plan: &Plan, components: &[Component], is_inside: bool) -> Machine {
    let (graph, budget) = (plan.graph().clone(), plan.budget());
    let mut nodes = vec![Node::Barrier; graph.dependencies.len()];
    let planned = plan.added().iter().zip(components).enumerate();
    for (index, (planned, component)) in planned {
        nodes[index] = Node::Component(traits_of(component, planned, graph.phases[index]));
    }
    let phases = plan.phases().iter();
    let jitter = Backoff::new(budget.jitter_time(), budget.jitter_time()).jitter(Jitter::Full);
    let times = Times {
        total: budget.total(),
        start: budget.start_time(),
        jitter: jitter.delays().draw(),
        lame_duck: budget.lame_duck_time(),
        drain: budget.drain_time(),
        cleanup: budget.cleanup_time(),
        margin: budget.margin(),
        phases: phases
            .map(|phase| phase.budget_time().unwrap_or(Duration::MAX))
            .collect(),
    };
    Machine::new(graph, nodes, times, is_inside)
}

fn traits_of(component: &Component, planned: &PlannedComponent, phase: Option<usize>) -> Traits {
    Traits {
        start_timeout: planned.start_timeout(),
        grace: planned.grace(),
        is_job: component.is_job(),
        may_end: component.may_end,
        may_fail: component.may_fail,
        is_work: planned.is_work(),
        is_used: planned.has_resource(),
        has_cleanup: planned.nested().is_some(),
        drains: planned.drains(),
        phase,
    }
}

fn end_of(error: &ComponentError) -> StepEnd {
    use ComponentErrorKind as Kind;
    match error.kind {
        Kind::Panicked => StepEnd::Panicked(error.message.clone()),
        Kind::StartTimedOut(limit) | Kind::DrainTimedOut(limit) => StepEnd::TimedOut(limit),
        Kind::Overran(limit) => StepEnd::Forced(limit),
        Kind::StillRunning(limit) => StepEnd::StillRunning(limit),
        Kind::EndedEarly | Kind::EndedBeforeReady => StepEnd::Failed("it ended".into()),
        _ => StepEnd::Failed(error.message.clone()),
    }
}

fn of_cleanup(step: &StepReport, began: Duration) -> TimelineStep {
    let result = match &step.result {
        StepResult::Done => StepEnd::Done,
        StepResult::Failed(error) => StepEnd::Failed(error.clone()),
        StepResult::TimedOut(limit) => StepEnd::TimedOut(*limit),
        StepResult::StillRunning(limit) => StepEnd::StillRunning(*limit),
        StepResult::Panicked(message) => StepEnd::Panicked(message.clone()),
        StepResult::Skipped(reason) => StepEnd::Skipped(reason.to_string()),
    };
    let at = |time: Option<Duration>| began + time.unwrap_or_default();
    let times = (at(step.started), at(step.ended));
    TimelineStep::new(StepKind::Cleanup, &*step.name, times, result)
}

/// Whether somebody has pressed Ctrl-C: then no load balancer has to notice.
fn is_typed(cause: Option<&Cause>, is_terminal: bool) -> bool {
    is_terminal && cause == Some(&Cause::Signal(Signal::Interrupt))
}

/// Does the work of a component, unless the stop was asked for before it had its first turn.
///
/// What ends while everything drains has drained, and what has asked for the stop has done its part:
/// both stay until they are told.
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

/// Gives a turn to all that wait for one on this thread.
///
/// To yield is not enough: the future of a `block_on` has its next turn when a few of the tasks
/// have had one, so it would wake ever more of them, and whoever comes then would wait for all of
/// those. The task yields for its part, because a worker may run first what was spawned last.
async fn others() {
    let _ = tokio::spawn(yield_now()).await;
}

/// Waits for all of a component, and says when it begins to fail and when it is gone.
async fn follow(
    index: usize,
    mut group: TaskGroup,
    ctx: Context,
    notes: mpsc::UnboundedSender<Note>,
) {
    let (spawner, token) = (group.spawner(), group.token().clone());
    let mut wait = pin!(group.wait());
    let mut fired = pin!(token.cancelled());
    let ended = poll_fn(|cx| match wait.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => fired.as_mut().poll(cx).map(|()| None),
    });
    let result = match ended.await {
        // It has ended by itself. What it has provided is there for those that begin now.
        Some(Ok(())) if !token.is_cancelled() => {
            let _ = notes.send(Note::Ended(index, Ok(())));
            return;
        }
        Some(result) => result,
        None => {
            drop(Panic::catch(|| ctx.take_out()));
            // Another cause is that it was told, or that it wants to leave.
            if let Some(cause @ Cause::Failed(_)) = spawner.cause() {
                let _ = notes.send(Note::Failing(index, cause));
            }
            wait.await
        }
    };
    drop(Panic::catch(|| ctx.take_out()));
    let _ = notes.send(Note::Ended(index, result));
}

impl Drop for Engine {
    fn drop(&mut self) {
        // In the middle of the cleanup, all but this is over.
        self.shared.readiness.set_stopped();
        // Nothing is added from here on; what was is of the user.
        let live = handle::lock(&self.shared.live).take();
        drop(live);
        if self.machine.is_over() {
            return;
        }
        let left: Vec<_> = self
            .slots
            .iter()
            .filter(|slot| slot.ctx.is_some() && !slot.state.is_over())
            .map(|slot| format!("`{}`", slot.name()))
            .collect();
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if slot.ctx.is_some() && !slot.state.is_over() {
                self.enter(index, ComponentState::ForceStopped);
            }
        }
        // Nothing is told in its turn any more.
        for ctx in self.slots.iter().filter_map(|slot| slot.ctx.as_ref()) {
            drop(Panic::catch(|| ctx.take_out()));
        }
        if left.is_empty() {
            return;
        }
        log::guarded(|| {
            tracing::warn!(
                target: "taskgroup",
                lifecycle = self.plan.name(),
                "lifecycle was dropped before its end: {} aborted",
                left.join(", ")
            );
        });
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("machine", &self.machine)
            .finish_non_exhaustive()
    }
}
