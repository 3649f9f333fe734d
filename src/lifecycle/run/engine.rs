//! The loop of a run. It tells the [machine](super::machine) what has happened, and carries out its
//! actions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::herald::Herald;
use super::ledger::Ledger;
use super::machine;
use super::machine::{Action, Machine};
use super::slot::Slot;
use super::traits::machine_of;
use super::waiting;
use super::waiting::Waiting;
use crate::cleanup::{Cleanup, Outcome};
use crate::group::cause::Cause;
use crate::group::deadline;
use crate::group::end::End;
use crate::group::log;
use crate::group::panic::Panic;
use crate::group::signal::Signal;
use crate::group::turn::turn;
use crate::group::{Spawner, TaskGroup};
use crate::lifecycle::component::Component;
use crate::lifecycle::component_state::ComponentState;
use crate::lifecycle::context::{Context, Note, Whole};
use crate::lifecycle::event::{Event, EventKind, Observer};
use crate::lifecycle::handle;
use crate::lifecycle::handle::Request;
use crate::lifecycle::haste::Haste;
use crate::lifecycle::plan::Plan;
use crate::lifecycle::plan::budget::detect::is_terminal;
use crate::lifecycle::readiness::Check;
use crate::lifecycle::report::Report;
use crate::lifecycle::step_kind::StepKind;

mod act;
mod finish;

/// How many actions are done before other tasks on this thread get a turn.
const AT_ONCE: usize = 64;

/// The parts of a lifecycle when it begins to run.
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
    /// The component that contains this lifecycle.
    pub(in crate::lifecycle) outer: Option<Context>,
}

/// A running lifecycle. Dropped before its end, it aborts all of its components.
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
    /// The tasks that wait for the components. They own the groups, so dropping them aborts everything.
    followers: JoinSet<()>,
    began: Instant,
    moment: Duration,
    ledger: Ledger,
    waiting: Waiting,
    /// How many components are about to be ready, and do not wait for another process.
    starting: usize,
    /// Whether the enclosing lifecycle stops and has not told this one yet.
    ends_before_told: bool,
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
                // The health checks end with the drain, or with the engine.
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
            ledger: Ledger::default(),
            waiting: Waiting::new(),
            starting: 0,
            ends_before_told: false,
        }
    }

    /// Starts all components, waits for the stop, and stops all components.
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
            self.settle();
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

    /// Turns the triggers into notes.
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
            // The haste of the enclosing lifecycle applies here too.
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
        let at = at.and_then(|at| self.deadline(at));
        // The engine holds a sender, so the notes never end.
        let note = deadline::by(at, self.inbox.recv()).await.flatten();
        self.look_at_the_clock();
        match note {
            None => {
                self.say_what_is_waited_for();
                machine::Event::Tick
            }
            Some(Note::Ready(index)) => machine::Event::Ready(index),
            Some(Note::Held(index, is_held)) => {
                self.change(index, |slot| slot.is_held = is_held);
                machine::Event::Tick
            }
            Some(Note::NotProvided(index, error)) => {
                self.slots[index].fail(error);
                machine::Event::Tick
            }
            Some(Note::Drained(index)) => machine::Event::Drained(index),
            Some(Note::Idle(index)) => machine::Event::Idle(index),
            Some(Note::Finished(index)) => machine::Event::Finished(index),
            Some(Note::Failing(index, cause)) => {
                self.slots[index].failing.get_or_insert(cause);
                machine::Event::Failing(index)
            }
            Some(Note::Ended(index, result)) => {
                machine::Event::Ended(index, self.slots[index].ended(result))
            }
            Some(Note::Stop) => {
                // The note about the stop may arrive first.
                let mut haste = *self.shared.haste.borrow();
                let cause = self.trigger.cause();
                let is_handed_over = matches!(cause, Some(Cause::HandedOver(_)));
                if is_handed_over || is_typed(cause.as_ref(), is_terminal()) {
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

    /// The enclosing lifecycle stops this one. Nobody has to notice, and the time is limited.
    fn told(&mut self, actions: &mut Vec<Action>) -> machine::Event {
        let outer = self.outer.as_ref();
        if let Some(left) = outer.and_then(|outer| outer.limit().left()) {
            let until = self.now().saturating_add(left);
            self.machine.cap(until, self.now(), actions);
        }
        self.shared.hurry(Haste::Now);
        let cause = outer.and_then(Context::cause).unwrap_or(Cause::Token);
        self.trigger.spawner().cancel_for(cause);
        machine::Event::Hurry(Haste::Now)
    }

    /// Returns the end of the cleanup's time, once only the cleanup is left.
    async fn perform(&mut self, actions: &mut Vec<Action>) -> Option<Duration> {
        let mut clean = None;
        for (count, action) in actions.drain(..).enumerate() {
            if count % AT_ONCE == AT_ONCE - 1 {
                turn().await;
            }
            match action {
                Action::Start(index) if self.whole.is_asked_to_stop() => {
                    self.refuse_to_start(index);
                }
                Action::Start(index) => self.start(index),
                Action::Ready(index) => self.ready(index),
                Action::AllReady => self.all_ready(),
                Action::Failing { node, stops_all } => self.failing(node, stops_all),
                Action::Blame(blame) => self.blame(blame),
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
                    self.ledger.end_stage(self.now());
                    self.begin_stage(StepKind::Drain, until, EventKind::DrainBegan);
                    self.whole.draining.cancel();
                }
                Action::DrainIsOver => self.end_drain(),
                Action::Tell(index, until) => self.tell(index, until),
                Action::Hurry(index, until) => self.hurry(index, until),
                Action::Force(index) => self.force(index),
                Action::Skip(index) => self.skip(index),
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

    /// Whether all components are ready, apart from those that wait for another process and those behind them. All
    /// that can be started have been by now.
    fn settle(&self) {
        let is_settled = self.starting == 0 && !self.whole.is_asked_to_stop();
        if !is_settled || self.shared.settled.is_cancelled() {
            return;
        }
        self.shared.settled.cancel();
        if let (Some(outer), true) = (&self.outer, self.slots.iter().any(|slot| slot.is_held)) {
            outer.held(true);
        }
    }

    /// Changes what a component's slot says, and counts those that start.
    fn change(&mut self, index: usize, change: impl FnOnce(&mut Slot)) {
        let slot = &mut self.slots[index];
        self.starting -= usize::from(slot.is_starting());
        change(slot);
        self.starting += usize::from(slot.is_starting());
    }

    fn say_what_is_waited_for(&mut self) {
        if !self.waiting.is_due(self.now()) {
            return;
        }
        let now = self.now();
        let told = self.slots.iter().filter(|slot| slot.is_stopping());
        let waited: Vec<_> = told.map(|slot| (slot.name(), slot.left(now))).collect();
        if !waited.is_empty() {
            self.emit(None, EventKind::Waiting(waiting::list(&waited)));
        }
    }

    fn outcome(&self, cause: Cause) -> Outcome {
        self.ledger.outcome(cause, &self.slots)
    }

    fn cause(&self) -> Cause {
        self.trigger.cause().unwrap_or(Cause::Done)
    }

    /// Returns the time of the event being handled. The machine and all its messages share it.
    fn now(&self) -> Duration {
        self.moment
    }

    fn look_at_the_clock(&mut self) {
        self.moment = self.began.elapsed();
    }

    /// Returns the instant of a time since the start of the run. `None` if it never comes.
    fn deadline(&self, until: Duration) -> Option<Instant> {
        let at = self.began.checked_add(until);
        at.filter(|_| until < Duration::MAX)
    }

    fn emit_of(&mut self, index: usize, kind: EventKind) {
        let component = Arc::clone(&self.slots[index].path);
        self.emit(Some(component), kind);
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

/// Whether a person has pressed Ctrl-C. Then no load balancer has to notice.
fn is_typed(cause: Option<&Cause>, is_terminal: bool) -> bool {
    is_terminal && cause == Some(&Cause::Signal(Signal::Interrupt))
}

impl Drop for Engine {
    fn drop(&mut self) {
        // In the middle of the cleanup, everything else has ended.
        self.shared.readiness.set_stopped();
        // No components are added from here on. Dropping the added ones runs user code.
        let live = handle::lock(&self.shared.live).take();
        drop(live);
        if self.machine.is_over() {
            return;
        }
        let left: Vec<_> = self
            .slots
            .iter()
            .filter(|slot| slot.is_there())
            .map(|slot| format!("`{}`", slot.name()))
            .collect();
        for index in 0..self.slots.len() {
            if self.slots[index].is_there() {
                self.enter(index, ComponentState::Ended(End::Aborted));
            } else if self.slots[index].state == ComponentState::Created {
                self.enter(index, ComponentState::Ended(End::Skipped));
            }
        }
        // From here on no component is told in its turn.
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
