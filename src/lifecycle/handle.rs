//! [`Handle`]: looks at a lifecycle from outside, and stops it.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::component::Component;
use super::component_state::ComponentState;
use super::context::Note;
use super::event::{Event, Observer};
use super::haste::Haste;
use super::plan::error::{Kind, Names, PlanError};
use super::report::Report;
use crate::group::Spawner;
use crate::group::cause::Cause;
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
/// assert_eq!(handle.state("worker"), Some(ComponentState::Stopped));
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
    /// To the run; nothing before it.
    pub(super) notes: Mutex<Option<mpsc::UnboundedSender<Note>>>,
    /// Those that the run has not taken over yet.
    pub(super) late_observers: Mutex<Vec<Observer>>,
    /// Empty before the run.
    pub(super) states: watch::Sender<Arc<States>>,
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
    pub(super) names: Vec<String>,
    /// That of the plan.
    pub(super) order: Vec<usize>,
    pub(super) states: Mutex<Vec<ComponentState>>,
}

/// A component was added when the lifecycle had begun to run, or was gone.
#[derive(Debug, thiserror::Error)]
#[error("component `{}` was added to lifecycle `{lifecycle}` after its start", component.name())]
pub struct AddError {
    lifecycle: Cow<'static, str>,
    component: Box<Component>,
}

impl AddError {
    /// Gives the component back.
    pub fn into_component(self) -> Component {
        *self.component
    }
}

impl Handle {
    /// Adds a component, if the run has not begun: for modules that register their own.
    ///
    /// # Errors
    ///
    /// The run has begun, or the lifecycle is gone. The error names the component and gives it back.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Component, Lifecycle};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let lifecycle = Lifecycle::new("orders");
    /// let handle = lifecycle.handle();
    /// handle.add(Component::job("warm-up", |_| async { Ok(()) }))?;
    /// lifecycle.run().await?;
    ///
    /// let late = handle.add(Component::job("late", |_| async { Ok(()) })).unwrap_err();
    /// assert_eq!(late.to_string(), "component `late` was added to lifecycle `orders` after its start");
    /// # Ok(())
    /// # }
    /// ```
    pub fn add(&self, component: Component) -> Result<(), AddError> {
        let mut registry = lock(&self.shared.registry);
        match registry.as_mut() {
            Some(components) => Ok(components.push(component)),
            None => Err(AddError {
                lifecycle: self.shared.name.clone(),
                component: Box::new(component),
            }),
        }
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
    /// The call does not wait: [`wait_for`](Self::wait_for) does. Later calls do nothing, and so does one
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
    /// handle.wait_for("queue", ComponentState::Stopped).await;
    /// assert_eq!(handle.state("consumer"), Some(ComponentState::Stopped), "first");
    /// assert_eq!(handle.state("http"), Some(ComponentState::Running));
    ///
    /// let unknown = handle.stop_component("qeue", "a typing error").unwrap_err();
    /// assert_eq!(
    ///     unknown.to_string(),
    ///     "lifecycle `orders` has no component `qeue`: there are `http`, `queue`, `consumer`"
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
        let states = Arc::clone(&self.shared.states.borrow());
        if states.names.is_empty() {
            return Err(Kind::NotRunning {
                lifecycle: self.shared.name.to_string(),
                component: component.to_owned(),
            }
            .into());
        }
        let Some(index) = states.names.iter().rposition(|name| name == component) else {
            return Err(Kind::UnknownComponent {
                lifecycle: self.shared.name.to_string(),
                unknown: component.to_owned(),
                known: Names::of(states.names.iter().map(String::as_str)),
            }
            .into());
        };
        let notes = lock(&self.shared.notes).clone();
        if let Some(notes) = notes {
            let _ = notes.send(Note::StopOne(index, cause));
        }
        Ok(())
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
        let states = Arc::clone(&self.shared.states.borrow());
        let index = states.names.iter().position(|name| name == component)?;
        lock(&states.states).get(index).copied()
    }

    /// Returns the states of all components, in the order of the plan; nothing before the run.
    #[must_use]
    pub fn states(&self) -> Vec<(String, ComponentState)> {
        let states = Arc::clone(&self.shared.states.borrow());
        let now = lock(&states.states).clone();
        let state = |&index: &usize| (states.names[index].clone(), now[index]);
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
    ///     if let EventKind::Ended { state, .. } = event.kind {
    ///         sender.send(state).unwrap();
    ///     }
    /// });
    /// assert_eq!(states, [("worker".to_owned(), ComponentState::Running)]);
    ///
    /// handle.stop("enough");
    /// run.await??;
    /// assert_eq!(ends.recv().await, Some(ComponentState::Stopped));
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
        let mut changes = self.shared.states.subscribe();
        let mut report = self.report.clone();
        let mut over = std::pin::pin!(report.wait_for(Option::is_some));
        loop {
            changes.mark_unchanged();
            if let Some(now) = self.state(component).filter(|now| *now >= state) {
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
                return self.state(component).filter(|now| *now >= state);
            }
        }
    }

    /// Whether it runs, and nothing of it has this name.
    fn has_no(&self, component: &str) -> bool {
        let states = self.shared.states.borrow();
        !states.names.is_empty() && !states.names.iter().any(|name| name == component)
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
