//! [`Handle`]: looks at a lifecycle from outside, and stops it.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::error::Error;
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
use crate::group::chain;
use crate::group::end::End;
pub(super) use crate::group::lock::lock;
use crate::group::running::Running;
use crate::group::stop_request::StopRequest;
use crate::lifecycle::readiness::Readiness;

/// Looks at a [`Lifecycle`](super::Lifecycle) from anywhere, and stops it; cheap to clone.
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
    /// Where the components are: in the group of another one, if it is nested.
    pub(super) work: Mutex<Spawner>,
    /// How much of its order the stop leaves out.
    pub(super) haste: watch::Sender<Haste>,
    pub(super) readiness: Readiness,
    /// Fires when all components are ready.
    pub(super) all_ready: CancellationToken,
    /// Nothing any more once the run has begun.
    pub(super) registry: Mutex<Option<Vec<Component>>>,
    /// What a handle can ask of the run; nothing before and after it.
    pub(super) live: Mutex<Option<Live>>,
    /// Those that the run has not taken over yet.
    pub(super) late_observers: Mutex<Vec<Observer>>,
    /// Empty before the run.
    pub(super) states: Mutex<States>,
    /// Changes with them.
    pub(super) changes: watch::Sender<()>,
}

/// What a handle can ask of a run.
pub(super) struct Live {
    plan: Arc<Plan>,
    /// Those components that were asked to stop while the rest goes on, and all that use them.
    stopped: HashSet<usize>,
    requests: VecDeque<Request>,
    notes: mpsc::UnboundedSender<Note>,
}

/// What a handle has asked for.
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

    /// Makes the plan that has the component too.
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
    /// Lists the components of a run that begins.
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
    /// Lets the stop leave out that much of its order, if it has not left out more.
    pub(super) fn hurry(&self, haste: Haste) {
        self.haste.send_if_modified(|most| {
            let is_more = haste > *most;
            *most = haste.max(*most);
            is_more
        });
    }
}

/// Lets nothing be added any more when it is dropped, and drops what was added to a lifecycle that
/// never ran.
pub(super) struct Registry(pub(super) Arc<Shared>);

impl Drop for Registry {
    fn drop(&mut self) {
        let components = lock(&self.0.registry).take();
        // Not under the lock: they are of the user.
        drop(components);
    }
}

/// The components with their states, as they were added.
#[derive(Default)]
pub(super) struct States {
    names: Vec<String>,
    /// That of the plan.
    order: Vec<usize>,
    states: Vec<ComponentState>,
}

impl States {
    /// The last one that has the name: those before it have been stopped.
    fn index_of(&self, component: &str) -> Option<usize> {
        self.names.iter().rposition(|name| name == component)
    }
}

/// A component was not added to a lifecycle: it makes no plan with the others, or the stop has begun.
///
/// [`source`](Error::source) is a [`PlanError`], which says why.
pub struct AddError {
    lifecycle: Cow<'static, str>,
    component: Box<Component>,
    why: PlanError,
}

impl AddError {
    /// Gives the component back.
    pub fn into_component(self) -> Component {
        *self.component
    }

    /// Returns why it was not added.
    #[must_use]
    pub fn plan_error(&self) -> &PlanError {
        &self.why
    }

    fn what(&self) -> String {
        let (component, lifecycle) = (self.component.name(), &self.lifecycle);
        format!("component `{component}` was not added to lifecycle `{lifecycle}`")
    }
}

impl Error for AddError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.why)
    }
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        chain::show(f, &self.what(), Some(&self.why))
    }
}

impl fmt::Debug for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f
                .debug_struct("AddError")
                .field("component", &self.component)
                .field("why", &self.why)
                .finish_non_exhaustive();
        }
        chain::explain(f, &self.what(), Some(&self.why), None)
    }
}

impl Handle {
    /// Adds a component: for modules that register their own, before the run and while it goes on.
    ///
    /// Before the run nothing is checked yet; the [plan](super::Lifecycle::plan) does that. While the
    /// lifecycle runs, the checks of the plan are made at once, with all that there is. The component
    /// is started when all that it depends on are ready, has its
    /// [start timeout](Component::start_timeout), and takes its place in the order of the stop. The
    /// graces of those that ask for none are shared anew. That takes time in proportion to the number of
    /// components. If it does not start, the whole stops, unless it
    /// [may fail](Component::may_fail) and all were ready.
    ///
    /// The name of a component that was [stopped](Self::stop_component), and has ended, is free again.
    /// Then [`state`](Self::state) is that of the new one, and the report has a row for each of them.
    ///
    /// # Errors
    ///
    /// With the others it makes no plan; or what it depends on has failed or was stopped; or the stop
    /// has begun. The error says why, names the component and gives it back.
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
    /// assert_eq!(
    ///     format!("{second:#}"),
    ///     "component `worker` was not added to lifecycle `orders`: two components have the name `worker`"
    /// );
    /// assert!(run.stop("enough").await.is_clean());
    /// # Ok(())
    /// # }
    /// ```
    pub fn add(&self, component: Component) -> Result<(), AddError> {
        if let Some(components) = lock(&self.shared.registry).as_mut() {
            components.push(component);
            return Ok(());
        }
        let over = || Kind::Over {
            lifecycle: self.shared.name.to_string(),
        };
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
        let (live, plan) = match added {
            Ok(added) => added,
            Err(why) => {
                return Err(AddError {
                    lifecycle: self.shared.name.clone(),
                    component: Box::new(component),
                    why,
                });
            }
        };
        live.plan = Arc::clone(&plan);
        let request = Request::Add(Box::new(component), plan);
        live.requests.push_back(request);
        let notes = live.notes.clone();
        drop(guard);
        self.tell(&notes);
        Ok(())
    }

    /// Stops the lifecycle for this reason; the first cause wins.
    ///
    /// When this has returned, [readiness](Self::readiness) is draining, unless the budget has a
    /// [jitter](super::Budget::jitter), and no component is started any longer. What has been started
    /// hears of it from the run.
    ///
    /// Later calls do nothing, as does one when all is over. Called before the run, nothing is started.
    pub fn stop(&self, reason: impl Into<StopRequest>) {
        self.shared.trigger.cancel_because(reason);
    }

    /// Stops it, without jitter and lame duck: for a stop that no load balancer has to notice.
    ///
    /// In the middle of a jitter or a lame duck it ends them.
    pub fn stop_now(&self, reason: impl Into<StopRequest>) {
        self.shared.hurry(Haste::Now);
        self.stop(reason);
    }

    /// Stops it by force: aborts what is left, now.
    ///
    /// It comes after [`stop`](Self::stop) and [`stop_now`](Self::stop_now), for an operator who has waited
    /// for long enough, and works at any time before the end. No component has any time, those that were not
    /// told before do not run again, and resources are not closed. All the same every task is joined, the
    /// [cleanup](super::Lifecycle::cleanup) runs, also that of lifecycles inside, and there is a report: it names
    /// all that was forced, and is not clean. The cause is still the first one.
    ///
    /// When all components have ended already, it changes nothing.
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
    }

    /// Stops one component for this reason, while the rest goes on.
    ///
    /// What depends on it, by name, by value or by phase, is stopped first: in the order of any stop,
    /// each within its grace, and forced after that. What has not been started yet never will be. All of
    /// it is in the report, with its state. A stop that takes too long or fails is an error of the
    /// report, and stops nothing else. If no work is left after it, the lifecycle ends.
    ///
    /// The call does not wait: [`ended`](Self::ended) does. Later calls do nothing, and so does one
    /// after the stop of the whole has begun.
    ///
    /// # Errors
    ///
    /// There is no component of this name, or the lifecycle is not running yet. Components inside of a
    /// nested lifecycle are stopped by the handle of that one.
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

    /// Tells the run that something was asked of it. Not under a lock: wakers are of the user.
    fn tell(&self, notes: &mpsc::UnboundedSender<Note>) {
        let _ = notes.send(Note::Asked);
        self.shared.changes.send_modify(|()| ());
    }

    /// Returns why it stops, or has stopped; nothing before the stop.
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

    /// Returns who is running now, by component.
    #[must_use]
    pub fn running(&self) -> Running {
        let work = lock(&self.shared.work).clone();
        work.running()
    }

    /// Returns the state of a component; nothing before the run, or if there is no such component.
    #[must_use]
    pub fn state(&self, component: &str) -> Option<ComponentState> {
        let states = lock(&self.shared.states);
        let index = states.index_of(component)?;
        states.states.get(index).copied()
    }

    /// Returns the states of all components, in the order of the plan; nothing before the run.
    #[must_use]
    pub fn states(&self) -> Vec<(String, ComponentState)> {
        let states = lock(&self.shared.states);
        let state = |&index: &usize| (states.names[index].clone(), states.states[index]);
        states.order.iter().map(state).collect()
    }

    /// Calls `observer` with everything that happens from now on, and returns the states of all
    /// components, which are those before that; nothing before the run.
    ///
    /// No change is missed in between. What happens while this is called may be in both. The
    /// observer is called as one of [`Lifecycle::observe`](super::Lifecycle::observe) is.
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
        // A state is entered before it is told, so one that is told to nobody else is read here.
        lock(&self.shared.late_observers).push(Box::new(observer));
        self.states()
    }

    /// Waits until a component is in this state or a later one, and returns that.
    ///
    /// Returns `None` when the lifecycle is over without it, or has no such component.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future loses nothing.
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
    /// That of a component that was never started is [`End::Skipped`]. Returns `None` when there is no such
    /// component, or no run.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future loses nothing.
    ///
    /// # Examples
    ///
    /// See [`stop_component`](Self::stop_component).
    pub async fn ended(&self, component: &str) -> Option<End> {
        let ended = ComponentState::Ended(End::Done);
        self.wait_for(component, ended).await?.end()
    }

    /// Whether it runs, and nothing of it has this name.
    fn has_no(&self, component: &str) -> bool {
        let states = lock(&self.shared.states);
        !states.names.is_empty() && states.index_of(component).is_none()
    }

    /// Waits until all components are ready.
    ///
    /// It is `Ok` for good once they have been: jobs that have ended were ready, and a stop that comes
    /// later changes nothing.
    ///
    /// # Errors
    ///
    /// The stop was asked for before all were ready: the cause says why. That is so at once when it
    /// was asked for before the run, and when the lifecycle was dropped or its plan refused.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future loses nothing.
    pub async fn ready(&self) -> Result<(), Cause> {
        let all_ready = &self.shared.all_ready;
        let ready = all_ready.run_until_cancelled(self.token().cancelled());
        match ready.await {
            Some(()) if !all_ready.is_cancelled() => Err(self.cause().unwrap_or(Cause::Token)),
            _ => Ok(()),
        }
    }

    /// Waits until all is over, and returns the report: the same for every caller.
    ///
    /// Returns `None` if there will be none: the lifecycle was dropped, or its plan refused.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future loses nothing.
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
