//! [`Handle`]: watches a lifecycle from outside, and stops it.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::component::Component;
use super::component_state::ComponentState;
use super::context::Note;
use super::event::{Event, Observer};
use super::haste::Haste;
use super::plan::Plan;
use super::plan::error::{Kind, Names, PlanError};
use super::report::Report;
use crate::group::Spawner;
use crate::group::cause::Cause;
use crate::group::end::End;
pub(super) use crate::group::lock::lock;
use crate::group::running::Running;
use crate::group::stop_request::StopRequest;
use crate::lifecycle::readiness::Readiness;

/// Watches a [`Lifecycle`](super::Lifecycle) from anywhere, and stops it. Cheap to clone.
///
/// It is made before the run, works before, during and after it, and keeps nothing alive.
///
/// # Examples
///
/// ```
/// use taskgroup::End;
/// use taskgroup::lifecycle::{Component, ComponentState, Lifecycle};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let lifecycle = Lifecycle::new("orders").component(Component::new("worker", |ctx| async move {
///     ctx.ready();
///     Ok(ctx.stopping().await)
/// }));
/// let handle = lifecycle.handle();
/// assert_eq!(handle.state("worker"), None);
///
/// let run = tokio::spawn(lifecycle.run());
/// assert_eq!(handle.ready().await, Ok(()));
/// assert_eq!(handle.state("worker"), Some(ComponentState::Running));
///
/// handle.stop("the lease was lost");
/// handle.stop("a second call changes nothing");
/// let report = handle.report().await.unwrap();
/// assert_eq!(report.cause, run.await??.cause);
/// assert_eq!(handle.state("worker"), Some(ComponentState::Ended(End::Done)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) report: watch::Receiver<Option<Arc<Report>>>,
}

pub(super) struct Shared {
    pub(super) name: Cow<'static, str>,
    pub(super) trigger: Spawner,
    /// The group of the components. It belongs to the outer lifecycle if this one is nested.
    pub(super) work: Mutex<Spawner>,
    /// How much of its order the stop skips.
    pub(super) haste: watch::Sender<Haste>,
    pub(super) readiness: Readiness,
    /// Fires when all components are ready.
    pub(super) all_ready: CancellationToken,
    /// Fires when all components are ready that do not wait for another process.
    pub(super) settled: CancellationToken,
    /// `None` once the run has begun.
    pub(super) registry: Mutex<Option<Vec<Component>>>,
    /// What a handle can ask of the run. `None` before and after it.
    pub(super) live: Mutex<Option<Live>>,
    /// The observers that the run has not taken over yet.
    pub(super) late_observers: Mutex<Vec<Observer>>,
    /// Empty before the run.
    pub(super) states: Mutex<States>,
    /// Changes with the states.
    pub(super) changes: watch::Sender<()>,
}

/// The state of a run that a handle can send requests to.
pub(super) struct Live {
    plan: Arc<Plan>,
    /// The components that were asked to stop while the rest goes on, and all that use them.
    stopped: HashSet<usize>,
    requests: VecDeque<Request>,
    notes: mpsc::UnboundedSender<Note>,
}

/// A request from a handle.
pub(super) enum Request {
    Add(Box<Component>, Arc<Plan>),
    Stop(usize, Cause),
}

impl Live {
    pub(super) fn new(plan: Arc<Plan>, notes: mpsc::UnboundedSender<Note>) -> Self {
        Self {
            plan,
            stopped: HashSet::new(),
            requests: VecDeque::new(),
            notes,
        }
    }

    fn stop(&mut self, index: usize, cause: Cause) {
        let users = self.plan.graph().users_of(index);
        self.stopped.extend(users);
        self.requests.push_back(Request::Stop(index, cause));
    }

    /// Makes a plan that includes the component.
    fn plan_with(
        &self,
        component: &Component,
        states: &[ComponentState],
    ) -> Result<Plan, PlanError> {
        let is_over = |index: usize| states[index].end().is_some();
        let all = 0..states.len();
        let gone: Vec<_> = all
            .map(|index| self.stopped.contains(&index) && is_over(index))
            .collect();
        let plan = self.plan.with(component.node()?, &gone)?;
        let graph = plan.graph();
        let mut uses = graph.dependencies[states.len()].iter().copied();
        let is_lost = |used: usize| {
            let end = states.get(used).and_then(|state| state.end());
            self.stopped.contains(&used) || end.is_some_and(|end| end != End::Done)
        };
        match uses.find(|&used| graph.is_component(used) && is_lost(used)) {
            Some(used) => Err(Kind::DependsOnGone {
                component: component.name().to_owned(),
                dependency: plan.added()[used].name().to_owned(),
            }
            .into()),
            None => Ok(plan),
        }
    }
}

impl Shared {
    /// Lists the components at the beginning of a run.
    pub(super) fn list(&self, names: Vec<String>, order: Vec<usize>) {
        let states = vec![ComponentState::Created; names.len()];
        *lock(&self.states) = States {
            names,
            order,
            states,
        };
        self.changes.send_modify(|()| ());
    }

    pub(super) fn enter(&self, index: usize, state: ComponentState) {
        lock(&self.states).states[index] = state;
        self.changes.send_modify(|()| ());
    }

    pub(super) fn next_request(&self) -> Option<Request> {
        lock(&self.live).as_mut()?.requests.pop_front()
    }
}

impl Shared {
    /// Lets the stop skip at least this much of its order.
    pub(super) fn hurry(&self, haste: Haste) {
        self.haste.send_if_modified(|most| {
            let is_more = haste > *most;
            *most = haste.max(*most);
            is_more
        });
    }
}

/// When dropped, it closes the lifecycle to additions, and drops the components that were added to
/// a lifecycle that never ran.
pub(super) struct Registry(pub(super) Arc<Shared>);

impl Drop for Registry {
    fn drop(&mut self) {
        let components = lock(&self.0.registry).take();
        // Not under the lock, because their destructors are user code.
        drop(components);
    }
}

/// The components with their states, as they were added.
#[derive(Default)]
pub(super) struct States {
    names: Vec<String>,
    /// The order of the plan.
    order: Vec<usize>,
    states: Vec<ComponentState>,
}

impl States {
    /// The last component of that name. Earlier ones have been stopped.
    fn index_of(&self, component: &str) -> Option<usize> {
        self.names.iter().rposition(|name| name == component)
    }
}

impl Handle {
    /// Adds a component, before or during the run. Modules can use it to register their own
    /// components.
    ///
    /// Before the run nothing is checked yet, since the [plan](super::Lifecycle::plan) does that.
    /// During the run, the checks of the plan are made at once, against all components. The
    /// component starts when all that it depends on are ready, has its [start
    /// timeout](Component::start_timeout), and takes its place in the order of the stop. The graces
    /// of components without their own are shared out again. That takes time in proportion to the
    /// number of components. If the new component does not start, the whole stops, unless it [may
    /// fail](Component::may_fail) and all were ready.
    ///
    /// The name of a component that was [stopped](Self::stop_component), and has ended, is free
    /// again. If it is reused, [`state`](Self::state) is that of the new component, and the report
    /// has a row for each of them.
    ///
    /// # Errors
    ///
    /// Returns an error if the plan would be invalid, if a dependency has failed or was stopped, or
    /// if the stop has begun. The error names the component, which is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::ComponentState;
    /// use taskgroup::lifecycle::{Component, Lifecycle};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// # let component = |name: &'static str| Component::new(name, async |ctx| { ctx.ready(); Ok(ctx.stopping().await) });
    /// let lifecycle = Lifecycle::new("orders");
    /// let handle = lifecycle.handle();
    /// handle.add(component("database"))?;
    /// let run = lifecycle.start().await?;
    ///
    /// handle.add(component("worker").after(["database"]))?;
    /// handle.wait_for("worker", ComponentState::Running).await;
    ///
    /// let second = handle.add(component("worker")).unwrap_err();
    /// assert_eq!(second.to_string(), "two components have the name `worker`");
    /// assert!(run.stop("enough").await.is_clean());
    /// # Ok(())
    /// # }
    /// ```
    pub fn add(&self, component: Component) -> Result<(), PlanError> {
        if let Some(components) = lock(&self.shared.registry).as_mut() {
            components.push(component);
            return Ok(());
        }
        let over = || Kind::Over {
            lifecycle: self.shared.name.to_string(),
            component: component.name().to_owned(),
        };
        // It is given back before the component is dropped, whose destructor is user code.
        let mut guard = lock(&self.shared.live);
        let added = match guard.as_mut() {
            Some(live) if !self.shared.trigger.is_cancelled() => {
                let mut states = lock(&self.shared.states);
                live.plan_with(&component, &states.states).map(|plan| {
                    states.names.push(component.name().to_owned());
                    states.states.push(ComponentState::Created);
                    states.order = plan.graph().start_order().collect();
                    (live, Arc::new(plan))
                })
            }
            _ => Err(over().into()),
        };
        let (live, plan) = added?;
        live.plan = Arc::clone(&plan);
        let request = Request::Add(Box::new(component), plan);
        live.requests.push_back(request);
        let notes = live.notes.clone();
        drop(guard);
        self.tell(&notes);
        Ok(())
    }

    /// Stops the lifecycle for this reason. The first cause wins.
    ///
    /// Once this has returned, [readiness](Self::readiness) is draining, unless the budget has a
    /// [jitter](super::Budget::jitter), and no more components are started. The run tells the
    /// components that have been started.
    ///
    /// Later calls do nothing, and neither does a call after the end. If it is called before the
    /// run, nothing is started.
    pub fn stop(&self, reason: impl Into<StopRequest>) {
        self.shared.trigger.cancel_because(reason);
    }

    /// Stops it without jitter and lame duck, when no load balancer has to notice the stop.
    ///
    /// A jitter or a lame duck in progress ends at once.
    ///
    /// Once this has returned, [readiness](Self::readiness) is draining, also with a jitter.
    pub fn stop_now(&self, reason: impl Into<StopRequest>) {
        self.shared.hurry(Haste::Now);
        self.stop(reason);
        // With a jitter in the budget the token alone does not say so.
        self.shared.readiness.set_draining();
    }

    /// Stops it by force, which aborts everything that is left now.
    ///
    /// It is for an operator who has waited long enough after [`stop`](Self::stop) or
    /// [`stop_now`](Self::stop_now), and works at any time before the end. Components get no more
    /// time. Those that were not told before do not run again, and resources are not closed. Even
    /// so, every task is joined and the [cleanup](super::Lifecycle::cleanup) runs, also in nested
    /// lifecycles. The report names everything that was forced, and is not clean. The cause is
    /// still the first one.
    ///
    /// It changes nothing when all components have ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Component, Lifecycle};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let worker = Component::new("worker", async |ctx| {
    ///     ctx.ready();
    ///     std::future::pending().await // it does not listen
    /// });
    /// let run = Lifecycle::new("orders").component(worker).start().await?;
    /// run.handle().stop("a deployment");
    /// let report = run.force("it has taken too long").await;
    /// assert!(report.was_forced());
    /// assert_eq!(report.cause.to_string(), "cancelled on request: a deployment");
    /// assert_eq!(report.took(), std::time::Duration::ZERO);
    /// # Ok(())
    /// # }
    /// ```
    pub fn force(&self, reason: impl Into<StopRequest>) {
        self.shared.hurry(Haste::Force);
        self.stop(reason);
        self.shared.readiness.set_draining();
    }

    /// Stops one component for this reason, while the rest goes on.
    ///
    /// The components that depend on it, by name, by value or by phase, are stopped first. They
    /// stop in the usual order, each within its grace, and are forced after that. Components that
    /// have not been started never will be. The report has all of them, with their states. A stop
    /// that takes too long or fails is an error of the report, and stops nothing else. If no work
    /// is left after it, the lifecycle ends.
    ///
    /// The call does not wait. Use [`ended`](Self::ended) for that. Later calls do nothing, and
    /// neither does a call after the stop of the whole has begun.
    ///
    /// # Errors
    ///
    /// Returns an error if no component has this name, or if the lifecycle is not running yet. To
    /// stop a component of a nested lifecycle, use the handle of that one.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::End;
    /// use taskgroup::lifecycle::{Component, ComponentState, Lifecycle};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// # let component = |name: &'static str| Component::new(name, async |ctx| { ctx.ready(); Ok(ctx.stopping().await) });
    /// let run = Lifecycle::new("orders")
    ///     .component(component("http"))
    ///     .component(component("queue"))
    ///     .component(component("consumer").after(["queue"]))
    ///     .start()
    ///     .await?;
    /// let handle = run.handle();
    /// handle.stop_component("queue", "the broker moves")?;
    /// assert_eq!(handle.ended("queue").await, Some(End::Done));
    /// assert_eq!(handle.state("consumer"), Some(ComponentState::Ended(End::Done)), "first");
    /// assert_eq!(handle.state("http"), Some(ComponentState::Running));
    ///
    /// let unknown = handle.stop_component("kue", "a typing error").unwrap_err();
    /// assert_eq!(
    ///     unknown.to_string(),
    ///     "lifecycle `orders` has no component `kue`: there are `http`, `queue`, `consumer`"
    /// );
    /// assert!(run.stop("enough").await.is_clean());
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop_component(
        &self,
        component: &str,
        reason: impl Into<StopRequest>,
    ) -> Result<(), PlanError> {
        let cause = Cause::Requested(reason.into());
        let index = {
            let states = lock(&self.shared.states);
            if states.names.is_empty() {
                return Err(Kind::NotRunning {
                    lifecycle: self.shared.name.to_string(),
                    component: component.to_owned(),
                }
                .into());
            }
            states.index_of(component).ok_or_else(|| {
                let names = states.names.iter().map(String::as_str);
                PlanError::from(Kind::UnknownComponent {
                    lifecycle: self.shared.name.to_string(),
                    unknown: component.to_owned(),
                    known: Names::of(names),
                })
            })?
        };
        let notes = lock(&self.shared.live).as_mut().map(|live| {
            live.stop(index, cause);
            live.notes.clone()
        });
        notes.into_iter().for_each(|notes| self.tell(&notes));
        Ok(())
    }

    /// Sends the run a note. Not under a lock, because wakers are user code.
    fn tell(&self, notes: &mpsc::UnboundedSender<Note>) {
        let _ = notes.send(Note::Asked);
        self.shared.changes.send_modify(|()| ());
    }

    /// Returns why it stops, or has stopped. `None` before the stop.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.shared.trigger.cause()
    }

    /// Returns the token that fires when the stop begins, before any component is told.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        self.shared.trigger.token()
    }

    /// Returns whether the service wants traffic, for `/readyz` and the health service.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.shared.readiness
    }

    /// Returns the running tasks, by component.
    #[must_use]
    pub fn running(&self) -> Running {
        let work = lock(&self.shared.work).clone();
        work.running()
    }

    /// Returns the state of a component. `None` before the run, or if the component is unknown.
    #[must_use]
    pub fn state(&self, component: &str) -> Option<ComponentState> {
        let states = lock(&self.shared.states);
        let index = states.index_of(component)?;
        states.states.get(index).copied()
    }

    /// Returns the states of all components, in the order of the plan. Empty before the run.
    #[must_use]
    pub fn states(&self) -> Vec<(String, ComponentState)> {
        let states = lock(&self.shared.states);
        let state = |&index: &usize| (states.names[index].clone(), states.states[index]);
        states.order.iter().map(state).collect()
    }

    /// Calls `observer` with every event from now on, and returns the states of all components
    /// before that, which is empty before the run.
    ///
    /// No change in between is missed. A change during the call may appear in both. The observer is
    /// called like one of [`Lifecycle::observe`](super::Lifecycle::observe).
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::End;
    /// use taskgroup::lifecycle::{Component, ComponentState, EventKind, Lifecycle};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let lifecycle = Lifecycle::new("orders").component(Component::new("worker", |ctx| async move {
    ///     ctx.ready();
    ///     Ok(ctx.stopping().await)
    /// }));
    /// let handle = lifecycle.handle();
    /// let run = tokio::spawn(lifecycle.run());
    /// assert!(handle.ready().await.is_ok());
    ///
    /// let (sender, mut ends) = tokio::sync::mpsc::unbounded_channel();
    /// let states = handle.observe(move |event| {
    ///     if let EventKind::Ended { end, .. } = event.kind {
    ///         sender.send(end).unwrap();
    ///     }
    /// });
    /// assert_eq!(states, [("worker".to_owned(), ComponentState::Running)]);
    ///
    /// handle.stop("enough");
    /// run.await??;
    /// assert_eq!(ends.recv().await, Some(End::Done));
    /// # Ok(())
    /// # }
    /// ```
    pub fn observe(
        &self,
        observer: impl FnMut(&Event) + Send + 'static,
    ) -> Vec<(String, ComponentState)> {
        // A state is set before its event is sent, so an event that the observer misses is in these
        // states.
        lock(&self.shared.late_observers).push(Box::new(observer));
        self.states()
    }

    /// Waits until a component is in this state or a later one, and returns its state.
    ///
    /// Returns `None` if the lifecycle ends first, or has no such component.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn wait_for(&self, component: &str, state: ComponentState) -> Option<ComponentState> {
        let has_come = |now: &ComponentState| now.has_reached(state);
        let mut changes = self.shared.changes.subscribe();
        let mut report = self.report.clone();
        let mut over = std::pin::pin!(report.wait_for(Option::is_some));
        loop {
            changes.mark_unchanged();
            if let Some(now) = self.state(component).filter(has_come) {
                return Some(now);
            }
            let mut changed = std::pin::pin!(changes.changed());
            let is_over = std::future::poll_fn(|cx| {
                if over.as_mut().poll(cx).is_ready() {
                    return std::task::Poll::Ready(true);
                }
                changed.as_mut().poll(cx).map(|_| false)
            });
            if self.has_no(component) {
                return None;
            }
            if is_over.await {
                return self.state(component).filter(has_come);
            }
        }
    }

    /// Waits until a component has ended, and returns how.
    ///
    /// A component that was never started ends as [`End::Skipped`]. Returns `None` if the component
    /// is unknown, or if the lifecycle never runs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Examples
    ///
    /// See [`stop_component`](Self::stop_component).
    pub async fn ended(&self, component: &str) -> Option<End> {
        let ended = ComponentState::Ended(End::Done);
        self.wait_for(component, ended).await?.end()
    }

    /// Whether it runs without a component of this name.
    fn has_no(&self, component: &str) -> bool {
        let states = lock(&self.shared.states);
        !states.names.is_empty() && states.index_of(component).is_none()
    }

    /// Waits until all components are ready.
    ///
    /// It stays `Ok` once they have been ready, even if jobs have ended or a stop comes later.
    ///
    /// # Errors
    ///
    /// Returns the cause if a stop was requested before all were ready. It returns at once if that
    /// was before the run, if the lifecycle was dropped, or if its plan was refused.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn ready(&self) -> Result<(), Cause> {
        let all_ready = &self.shared.all_ready;
        let ready = all_ready.run_until_cancelled(self.token().cancelled());
        match ready.await {
            Some(()) if !all_ready.is_cancelled() => Err(self.cause().unwrap_or(Cause::Token)),
            _ => Ok(()),
        }
    }

    /// Waits until the run is over, and returns the report. Every caller gets the same one.
    ///
    /// Returns `None` if the lifecycle was dropped or its plan was refused.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn report(&self) -> Option<Arc<Report>> {
        let mut report = self.report.clone();
        let report = report.wait_for(Option::is_some).await.ok()?;
        report.clone()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("name", &self.shared.name)
            .field("readiness", &self.shared.readiness)
            .field("cause", &self.cause())
            .finish_non_exhaustive()
    }
}
