//! [`Context`]: what a component is given to run.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::haste::Haste;
use super::plan::Plan;
use super::provided::Outlet;
use super::report::Report;
use crate::cleanup::{CleanupHandle, Outcome};
use crate::group::cause::Cause;
use crate::group::deadline;
use crate::group::deadline::DeadlinePassed;
use crate::group::error::TaskError;
use crate::group::lock::lock;
use crate::group::panic::Panic;
use crate::group::stop_request::StopRequest;
use crate::group::{Spawner, TaskGroup};
use crate::lifecycle::readiness::Readiness;
use crate::server::in_flight::InFlight;
use crate::server::stop_signal::sealed::StopParts;
use crate::server::stop_signal::{Limit, Parts, StopSignal};

/// Tells a component when to stop and until when, and lets it report that it is ready.
///
/// It is a [`StopSignal`], so servers accept it in place of a token, as in `serve.run(&ctx)`.
///
/// # Clones
///
/// A clone is another handle on the same context, for helpers of the component. It keeps nothing
/// alive.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::BoxError;
/// use taskgroup::lifecycle::{Component, Context, Lifecycle};
///
/// async fn worker(ctx: Context) -> Result<(), BoxError> {
///     let mut interval = tokio::time::interval(Duration::from_millis(100));
///     ctx.ready();
///     while ctx.token().run_until_cancelled(interval.tick()).await.is_some() {
///         ctx.stop("that was enough");
///     }
///     assert_eq!(ctx.cause().unwrap().to_string(), "cancelled on request: that was enough");
///     assert!(ctx.remaining().unwrap() <= Duration::from_secs(3));
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), BoxError> {
/// let lifecycle = Lifecycle::new("orders");
/// let report = lifecycle.component(Component::new("worker", worker).grace(Duration::from_secs(3))).run().await?;
/// assert!(report.is_clean());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Context {
    shared: Arc<Shared>,
}

struct Shared {
    path: Arc<str>,
    group: Spawner,
    limit: Limit,
    in_flight: Arc<InFlight>,
    said: Said,
    whole: Arc<Whole>,
    index: usize,
    notes: mpsc::UnboundedSender<Note>,
    outlets: Vec<Box<dyn Outlet>>,
    /// Set for components that are told how everything else has ended.
    outcome: Option<OnceLock<Outcome>>,
    /// The plan of a component that is a lifecycle, until it runs.
    plan: Mutex<Option<Plan>>,
    nested: Mutex<Option<Report>>,
}

/// The notes that the engine has heard already, so that a repeated one does not keep it busy.
#[derive(Default)]
struct Said {
    ready: AtomicBool,
    drained: AtomicBool,
    stop: AtomicBool,
}

/// What all components of a lifecycle share.
pub(super) struct Whole {
    pub(super) trigger: Spawner,
    /// What the lifecycle around this one shares.
    pub(super) outer: Option<Arc<Whole>>,
    /// Fires halfway through the lame duck.
    pub(super) leaving: CancellationToken,
    pub(super) draining: CancellationToken,
    pub(super) readiness: Readiness,
    pub(super) cleanup: CleanupHandle,
    pub(super) haste: watch::Receiver<Haste>,
}

impl Whole {
    /// This one and the enclosing ones.
    fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |whole| whole.outer.as_deref())
    }

    /// Whether a stop was requested, of this lifecycle or an enclosing one. Nothing begins after
    /// that.
    pub(super) fn is_asked_to_stop(&self) -> bool {
        self.all().any(|whole| whole.trigger.is_cancelled())
    }

    /// Returns the reason, from the innermost lifecycle that has one.
    pub(super) fn why_to_stop(&self) -> Option<Cause> {
        self.all().find_map(|whole| whole.trigger.cause())
    }
}

/// A note to the engine, about a component or about the whole.
#[derive(Debug)]
pub(super) enum Note {
    Ready(usize),
    /// The component waits, or no longer waits, for another process to end before it starts.
    Held(usize, bool),
    /// The component says that it is ready, but a value is missing.
    NotProvided(usize, NotProvided),
    Drained(usize),
    /// The component is a lifecycle that has nothing left to do.
    Idle(usize),
    /// The component is a lifecycle that has done all its work, and ends.
    Finished(usize),
    /// A task of the component has failed, and the others have been told.
    Failing(usize, Cause),
    /// All tasks of the component are gone.
    Ended(usize, Result<(), TaskError>),
    /// The trigger's token has fired.
    Stop,
    /// A component is to be added, or to stop while the rest goes on.
    Asked,
    /// The stop skips a part of its order.
    Hurry(Haste),
    /// The component that contains this lifecycle has been told to stop.
    Told,
}

/// A component reported ready without a value that it provides.
#[derive(Clone, Debug, thiserror::Error)]
#[error("it was ready without having provided `{value}`")]
pub(super) struct NotProvided {
    value: Arc<str>,
}

/// The time in which the start of a component waits for another process.
#[cfg(all(feature = "restart", unix))]
pub(crate) struct Waits(Context);

#[cfg(all(feature = "restart", unix))]
impl Drop for Waits {
    fn drop(&mut self) {
        self.0.held(false);
    }
}

impl Context {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        path: Arc<str>,
        group: Spawner,
        whole: Arc<Whole>,
        index: usize,
        notes: mpsc::UnboundedSender<Note>,
        outlets: Vec<Box<dyn Outlet>>,
        wants_outcome: bool,
        plan: Option<Plan>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                path,
                group,
                limit: Limit::to_be_set(),
                in_flight: Arc::default(),
                said: Said::default(),
                whole,
                index,
                notes,
                outlets,
                outcome: wants_outcome.then(OnceLock::new),
                plan: plan.into(),
                nested: Mutex::default(),
            }),
        }
    }

    /// Returns the path of the component, such as `orders/http`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.path
    }

    /// Returns the token that fires when the component is to stop.
    ///
    /// That is when all components that depend on it have ended. It fires at once when a task of
    /// the component has failed.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        self.shared.group.token()
    }

    /// Waits until the component is to stop.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub fn stopping(&self) -> WaitForCancellationFuture<'_> {
        self.token().cancelled()
    }

    /// Reports that the component is ready, so that those after it are started.
    ///
    /// Later calls do nothing, and neither does a call after the component was told to stop. The
    /// component fails if a value that it [provides](super::Provided::provider) is missing.
    pub fn ready(&self) {
        if !self.shared.said.ready.swap(true, Ordering::Relaxed) {
            let index = self.shared.index;
            self.say(match self.not_provided() {
                None => Note::Ready(index),
                Some(error) => Note::NotProvided(index, error),
            });
        }
    }

    /// Returns why the lifecycle is stopping, or `None` before it is.
    ///
    /// It is never `None` once the token has fired.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        let whole = self.shared.whole.trigger.cause();
        // A failed task of the component is about to stop the whole.
        whole.or_else(|| self.shared.group.cause())
    }

    /// Returns the time by which the component must be gone, after which it is forced.
    ///
    /// It is `None` before the component is told to stop, and for a grace and a budget without end.
    /// It is set before the token fires. Only when the token fires because a task of the component
    /// has failed is it set a moment later. In a nested lifecycle it can move nearer, when the
    /// enclosing one has less time left.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.shared.limit.deadline()
    }

    /// When what runs in the component has to end by itself, a moment before the component would be
    /// forced.
    pub(super) fn end_by(&self) -> Option<Instant> {
        Some(Instant::now() + self.shared.limit.left()?)
    }

    /// Returns the time that is left until the [`deadline`](Self::deadline).
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.deadline()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Clips the timeout of a call to the time that is left for it.
    ///
    /// That time ends a little before the [`deadline`](Self::deadline), by a tenth of the grace and
    /// at most 250 ms, to leave time for handling the answer. Before the component is told to stop,
    /// the timeout stays as it is. For a call that may still run when the stop begins, use
    /// [`until_deadline`](Self::until_deadline).
    #[must_use]
    pub fn clip(&self, timeout: Duration) -> Duration {
        deadline::clip(timeout, self.shared.limit.work_deadline())
    }

    /// Runs work for at most the grace of the component.
    ///
    /// The stop alone does not touch the work. The work is dropped when the time that
    /// [`clip`](Self::clip) leaves has passed, also if the deadline moves nearer. Without a stop,
    /// or with a grace without end, this waits for the work.
    ///
    /// # Errors
    ///
    /// Returns [`DeadlinePassed`] if the work was given up. Work that is ready at once is never
    /// given up.
    ///
    /// # Panics
    ///
    /// Panics if the runtime has no timer and the work is running when the stop begins.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the work with it.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::BoxError;
    /// use taskgroup::lifecycle::{Component, Context, Lifecycle};
    ///
    /// async fn worker(ctx: Context) -> Result<(), BoxError> {
    ///     ctx.ready();
    ///     ctx.stopping().await;
    ///     let flush = std::future::pending::<()>();
    ///     let given_up = ctx.until_deadline(flush).await.unwrap_err();
    ///     Ok(println!("not flushed: {given_up}"))
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), BoxError> {
    /// let lifecycle = Lifecycle::new("orders").component(Component::new("worker", worker));
    /// # let handle = lifecycle.handle();
    /// # tokio::spawn(async move { let _ = handle.ready().await; handle.stop("enough") });
    /// assert!(lifecycle.run().await?.is_clean(), "it has ended in time");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn until_deadline<F: Future>(&self, work: F) -> Result<F::Output, DeadlinePassed> {
        deadline::until(work, self.shared.limit.work_deadline_passed()).await
    }

    /// Returns the group of the component, to spawn helpers into.
    ///
    /// They share its token, are joined before it counts as stopped, and are forced with it. A
    /// helper that fails is a failure of the component.
    #[must_use]
    pub fn group(&self) -> &Spawner {
        &self.shared.group
    }

    /// Makes a group below that of the component, which can be stopped and waited for earlier.
    #[track_caller]
    #[must_use = "a dropped group aborts its tasks"]
    pub fn child(&self, name: impl AsRef<str>) -> TaskGroup {
        self.shared.group.child(name)
    }

    /// Waits until everything is to drain, which is the first phase of a two-phase stop.
    ///
    /// It comes before any component is told to stop, to all components that
    /// [drain](super::Component::drains) at once. The other components get it too, if there is one
    /// that drains.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        self.shared.whole.draining.clone().cancelled_owned()
    }

    /// Reports that the component has drained. Later calls do nothing.
    pub fn drained(&self) {
        if !self.shared.said.drained.swap(true, Ordering::Relaxed) {
            self.say(Note::Drained(self.shared.index));
        }
    }

    /// Reports, once, that the lifecycle that is this component has nothing left to do.
    pub(super) fn idle(&self) {
        self.say(Note::Idle(self.shared.index));
    }

    /// Says, until what it returns is dropped, that the start of the component waits for another process.
    #[cfg(all(feature = "restart", unix))]
    pub(crate) fn waits_for_another_process(&self) -> Waits {
        self.held(true);
        Waits(self.clone())
    }

    pub(super) fn held(&self, is_held: bool) {
        self.say(Note::Held(self.shared.index, is_held));
    }

    pub(super) fn finished(&self) {
        self.say(Note::Finished(self.shared.index));
    }

    /// Returns whether the service as a whole wants traffic, for `/readyz` and the health service.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.shared.whole.readiness
    }

    /// Returns a handle to push steps that run when all components have ended, the last one first.
    #[must_use]
    pub fn cleanup(&self) -> &CleanupHandle {
        &self.shared.whole.cleanup
    }

    /// Sets how much is in flight in this component, for the report and the metrics of the stop.
    ///
    /// Call it on every change. The counts that matter are the one when the stop is triggered and
    /// the one when this component is told. Later calls are ignored, except for the first of a
    /// component that had set none. Servers that run with the context are counted automatically,
    /// and added.
    pub fn set_in_flight(&self, count: usize) {
        self.shared.in_flight.say(count);
    }

    /// Stops the whole, the outermost lifecycle, for this reason. The first cause wins.
    ///
    /// A [`StopRequest`] can also set the exit status.
    ///
    /// Once this has returned, nothing more is started, not even components that wait for this one
    /// to be ready. The component may return `Ok` from then on without a failure. It is still told
    /// to stop in its turn, and counts as running until then.
    pub fn stop(&self, reason: impl Into<StopRequest>) {
        self.shared.said.stop.store(true, Ordering::Relaxed);
        if let Some(outermost) = self.shared.whole.all().last() {
            outermost.trigger.cancel_because(reason);
        }
    }

    /// Whether the component has asked for the stop.
    pub(super) fn has_asked_to_stop(&self) -> bool {
        self.shared.said.stop.load(Ordering::Relaxed)
    }

    fn say(&self, note: Note) {
        // Notes go unheard when the lifecycle is over.
        let _ = self.shared.notes.send(note);
    }

    pub(super) fn limit(&self) -> &Limit {
        &self.shared.limit
    }

    /// Returns the count in flight now or, once told to stop, the count at that time. `None` if
    /// unknown.
    pub(super) fn in_flight(&self) -> Option<usize> {
        self.shared.in_flight.get()
    }

    /// Keeps the current count in flight.
    pub(super) fn keep_in_flight(&self) {
        self.shared.in_flight.told();
    }

    /// Reports a failure in the component, which is about to stop by itself.
    pub(super) fn fail(&self, cause: Cause) {
        self.say(Note::Failing(self.shared.index, cause));
    }

    pub(super) fn whole(&self) -> &Arc<Whole> {
        &self.shared.whole
    }

    /// Returns whether the component has values to take out.
    pub(super) fn provides(&self) -> bool {
        self.shared.outlets.iter().any(|outlet| outlet.is_there())
    }

    /// Returns the path of the component. Its values are compared with this very `Arc`.
    pub(super) fn path(&self) -> &Arc<str> {
        &self.shared.path
    }

    /// Returns a value that the component should have provided by now, if one is missing.
    pub(super) fn not_provided(&self) -> Option<NotProvided> {
        let mut outlets = self.shared.outlets.iter();
        let missing = outlets.find(|outlet| !outlet.is_there())?;
        Some(NotProvided {
            value: missing.value().name,
        })
    }

    /// Returns whether the component wants to know how everything that used it has ended.
    pub(super) fn wants_outcome(&self) -> bool {
        self.shared.outcome.is_some()
    }

    /// Called before the token fires.
    pub(super) fn set_outcome(&self, outcome: Outcome) {
        if let Some(place) = &self.shared.outcome {
            let _ = place.set(outcome);
        }
    }

    /// Returns how everything that used the component has ended.
    pub(super) fn outcome(&self) -> Outcome {
        let told = self.shared.outcome.as_ref().and_then(OnceLock::get);
        told.cloned().unwrap_or_else(|| match self.cause() {
            // A failed task of its own makes the token fire before an outcome is set.
            Some(Cause::Failed(task)) => Outcome::Failed(task.message().into()),
            Some(cause) => Outcome::Stopped(cause),
            None => Outcome::Clean,
        })
    }

    /// Takes out the values that the component has provided.
    pub(super) fn take_out(&self) {
        let mut panicked = None;
        for outlet in &self.shared.outlets {
            // A panicking destructor of one value does not keep the others in.
            let taken_out = Panic::catch(|| outlet.clear(&self.shared.path));
            panicked = panicked.or(taken_out.err());
        }
        if let Some(panic) = panicked {
            panic.resume();
        }
    }

    pub(super) fn take_plan(&self) -> Option<Plan> {
        lock(&self.shared.plan).take()
    }

    pub(super) fn keep_nested(&self, report: Report) {
        *lock(&self.shared.nested) = Some(report);
    }

    /// Applies `look` to the report of a nested lifecycle that has ended, if there is one.
    pub(super) fn look_at_nested<T>(&self, look: impl FnOnce(&Report) -> T) -> Option<T> {
        lock(&self.shared.nested).as_ref().map(look)
    }

    pub(super) fn take_nested(&self) -> Option<Report> {
        lock(&self.shared.nested).take()
    }
}

impl StopSignal for Context {}

impl StopParts for Context {
    fn parts(&self) -> Parts {
        Parts::new(
            self.token().clone(),
            self.shared.whole.leaving.clone(),
            self.shared.limit.clone(),
            Arc::clone(&self.shared.in_flight),
        )
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("name", &self.shared.path)
            .field("cause", &self.cause())
            .field("deadline", &self.deadline())
            .finish_non_exhaustive()
    }
}
