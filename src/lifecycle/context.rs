//! [`Context`]: what a component is given.

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
use crate::group::cause::Cause;
use crate::group::deadline;
use crate::group::deadline::DeadlinePassed;
use crate::group::error::TaskError;
use crate::group::lock::lock;
use crate::group::panic::Panic;
use crate::group::stop_request::StopRequest;
use crate::group::{Spawner, TaskGroup};
use crate::lifecycle::cleanup::{CleanupHandle, Outcome};
use crate::lifecycle::readiness::Readiness;
use crate::server::in_flight::InFlight;
use crate::server::stop_signal::sealed::StopParts;
use crate::server::stop_signal::{Limit, Parts, StopSignal};

/// What a component is given: when to stop and until when, and how to say that it is ready.
///
/// It is a [`StopSignal`], so servers take it where they take a token: `serve.run(&ctx)`.
///
/// # Clones
///
/// A clone is another handle on the same context, for helpers of the component. It keeps nothing alive.
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
    /// Of those that are told how everything else has ended.
    outcome: Option<OnceLock<Outcome>>,
    /// The plan of a lifecycle that is this component, until it runs.
    plan: Mutex<Option<Plan>>,
    nested: Mutex<Option<Report>>,
}

/// What the engine has heard already: who says it again and again must not keep it busy.
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
    /// Fires in the middle of the lame duck.
    pub(super) leaving: CancellationToken,
    pub(super) draining: CancellationToken,
    pub(super) readiness: Readiness,
    pub(super) cleanup: CleanupHandle,
    pub(super) haste: watch::Receiver<Haste>,
}

impl Whole {
    /// This one, and those around it.
    fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |whole| whole.outer.as_deref())
    }

    /// Whether the stop was asked for, of this lifecycle or of one around it: nothing begins then.
    pub(super) fn is_asked_to_stop(&self) -> bool {
        self.all().any(|whole| whole.trigger.is_cancelled())
    }

    /// Returns why that was, as the innermost has it.
    pub(super) fn why_to_stop(&self) -> Option<Cause> {
        self.all().find_map(|whole| whole.trigger.cause())
    }
}

/// What the engine hears: of a component, or of the whole.
#[derive(Debug)]
pub(super) enum Note {
    Ready(usize),
    /// It says that it is ready, and is not.
    NotProvided(usize, NotProvided),
    Drained(usize),
    /// It is a lifecycle that has nothing left to do.
    Idle(usize),
    /// It is a lifecycle that has done all it had to do, and ends.
    Finished(usize),
    /// A task of the component has failed, and the others have been told.
    Failing(usize, Cause),
    /// All tasks of the component are gone.
    Ended(usize, Result<(), TaskError>),
    /// The trigger's token has fired.
    Stop,
    /// A component is to be added, or to stop while the rest goes on.
    Asked,
    /// The stop leaves out a part of its order.
    Hurry(Haste),
    /// The component that this lifecycle is inside of has been told to stop.
    Told,
}

/// A component was ready without a value that it provides.
#[derive(Clone, Debug, thiserror::Error)]
#[error("it was ready without having provided `{value}`")]
pub(super) struct NotProvided {
    value: Arc<str>,
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
    /// That is when all that depend on it have ended, or when a task of the component has failed:
    /// then it fires at once.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        self.shared.group.token()
    }

    /// Waits until the component is to stop.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future loses nothing.
    pub fn stopping(&self) -> WaitForCancellationFuture<'_> {
        self.token().cancelled()
    }

    /// Says that the component is ready, so that those after it are started.
    ///
    /// Later calls do nothing, and so does one after the component was told to stop. What the
    /// component [provides](super::Provided::provider) has to be there: it fails otherwise.
    pub fn ready(&self) {
        if !self.shared.said.ready.swap(true, Ordering::Relaxed) {
            let index = self.shared.index;
            self.say(match self.not_provided() {
                None => Note::Ready(index),
                Some(error) => Note::NotProvided(index, error),
            });
        }
    }

    /// Returns why the lifecycle is stopping; nothing before it is.
    ///
    /// Whoever sees the token fired can read it.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        let whole = self.shared.whole.trigger.cause();
        // A task of the component has failed, which is about to stop the whole.
        whole.or_else(|| self.shared.group.cause())
    }

    /// Returns until when the component is to be gone, after which it is forced.
    ///
    /// Nothing before it was told to stop, and nothing for a grace and a budget without end. It is
    /// set before the token fires; only when the token fires because a task of the component has
    /// failed, it is set a moment later. In a nested lifecycle it can come nearer, when what is
    /// around that has less time left.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.shared.limit.deadline()
    }

    /// Returns what is left until the [`deadline`](Self::deadline).
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.deadline()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Clips the timeout of a call that is about to be made to what is left for it.
    ///
    /// What is left ends a little before the [`deadline`](Self::deadline), so that there is time to
    /// deal with the answer: a tenth of the grace, at most 250 ms. Before the component was told to
    /// stop, the timeout stays as it is. A call that may still run when the stop begins is better bound
    /// with [`until_deadline`](Self::until_deadline).
    #[must_use]
    pub fn clip(&self, timeout: Duration) -> Duration {
        deadline::clip(timeout, self.shared.limit.work_deadline())
    }

    /// Does work that may use up the grace of the component, but not more.
    ///
    /// The stop alone does not touch the work. It is given up, by dropping it, when what
    /// [`clip`](Self::clip) leaves has passed. A deadline that comes nearer is noticed. Without a stop,
    /// or with a grace without end, this waits for the work.
    ///
    /// # Errors
    ///
    /// [`DeadlinePassed`] if the work was given up. Work that is ready at once is never given up.
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

    /// Makes a group of its own below that of the component: it can be stopped and waited for earlier.
    #[track_caller]
    #[must_use = "a dropped group aborts its tasks"]
    pub fn child(&self, name: impl AsRef<str>) -> TaskGroup {
        self.shared.group.child(name)
    }

    /// Waits until everything is to drain: the first phase of a two-phase stop.
    ///
    /// It comes before any component is told to stop, to all that [drain](super::Component::drains)
    /// at once; for any other component it comes too, if there is one that drains.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future loses nothing.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        self.shared.whole.draining.clone().cancelled_owned()
    }

    /// Says that the component has drained. Later calls do nothing.
    pub fn drained(&self) {
        if !self.shared.said.drained.swap(true, Ordering::Relaxed) {
            self.say(Note::Drained(self.shared.index));
        }
    }

    /// Says that the lifecycle that the component is has nothing left to do, once.
    pub(super) fn idle(&self) {
        self.say(Note::Idle(self.shared.index));
    }

    pub(super) fn finished(&self) {
        self.say(Note::Finished(self.shared.index));
    }

    /// Returns whether the service as a whole wants traffic, for `/readyz` and the health service.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.shared.whole.readiness
    }

    /// Returns where to push steps that run when all components have ended, the last one first.
    #[must_use]
    pub fn cleanup(&self) -> &CleanupHandle {
        &self.shared.whole.cleanup
    }

    /// Says how much is in flight in this component, for the report and the metrics of the stop.
    ///
    /// Say it whenever it changes: what is known when the stop is triggered, and when this
    /// component is told, is what counts. Later calls are ignored, but for the first of a component
    /// that had said nothing before. Servers that are run with the context are counted without it,
    /// and added.
    pub fn set_in_flight(&self, count: usize) {
        self.shared.in_flight.say(count);
    }

    /// Stops the whole, the outermost lifecycle, for this reason. The first cause wins.
    ///
    /// A [`StopRequest`] also says with which exit status.
    ///
    /// When this has returned, nothing more is started: not what waits for this component to be
    /// ready either. The component may return `Ok` from then on without that being a failure. Its
    /// turn to be told comes as ever, and until then it counts as running.
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
        // Nobody listens any more when the lifecycle is over.
        let _ = self.shared.notes.send(note);
    }

    pub(super) fn limit(&self) -> &Limit {
        &self.shared.limit
    }

    /// Returns what is in flight now or, once told to stop, what was then; nothing if nobody can say.
    pub(super) fn in_flight(&self) -> Option<usize> {
        self.shared.in_flight.get()
    }

    /// Keeps what has been said to be in flight.
    pub(super) fn keep_in_flight(&self) {
        self.shared.in_flight.told();
    }

    /// Says that something of the component has failed, which is about to stop by itself.
    pub(super) fn fail(&self, cause: Cause) {
        self.say(Note::Failing(self.shared.index, cause));
    }

    pub(super) fn whole(&self) -> &Arc<Whole> {
        &self.shared.whole
    }

    /// Returns whether there is something to be taken out.
    pub(super) fn provides(&self) -> bool {
        self.shared.outlets.iter().any(|outlet| outlet.is_there())
    }

    /// Returns the path of the component, which is this very one for its values.
    pub(super) fn path(&self) -> &Arc<str> {
        &self.shared.path
    }

    /// Returns what the component was to provide by now, if it has not.
    pub(super) fn not_provided(&self) -> Option<NotProvided> {
        let mut outlets = self.shared.outlets.iter();
        let missing = outlets.find(|outlet| !outlet.is_there())?;
        Some(NotProvided {
            value: missing.value().name,
        })
    }

    /// Returns whether the component is told how everything that used it has ended.
    pub(super) fn wants_outcome(&self) -> bool {
        self.shared.outcome.is_some()
    }

    /// It is set before the token fires.
    pub(super) fn set_outcome(&self, outcome: Outcome) {
        if let Some(place) = &self.shared.outcome {
            let _ = place.set(outcome);
        }
    }

    /// Returns how everything that used the component has ended.
    pub(super) fn outcome(&self) -> Outcome {
        let told = self.shared.outcome.as_ref().and_then(OnceLock::get);
        told.cloned().unwrap_or_else(|| match self.cause() {
            // A task of its own has failed, which makes the token fire before anything is told.
            Some(Cause::Failed(task)) => Outcome::Failed(task.message().into()),
            Some(cause) => Outcome::Stopped(cause),
            None => Outcome::Clean,
        })
    }

    /// Takes out what the component has provided.
    pub(super) fn take_out(&self) {
        let mut panicked = None;
        for outlet in &self.shared.outlets {
            // The destructor of one value does not keep the others in.
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

    /// Returns what the report of a nested lifecycle that has ended says, if there is one.
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
