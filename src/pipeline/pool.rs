//! [`Pool`]: workers with their intake, ready to be spawned. The module also runs and stops them.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::at_stop::AtStop;
use super::deadlines::Deadlines;
use super::error::{Fault, PipelineError, Unclean};
use super::leftovers::Leftovers;
use super::policy::{Policy, run_hand_back};
use super::report::PipelineReport;
use super::run::{after, passed, run_until};
use super::shared::Shared;
use crate::BoxError;
use crate::TaskHandle;
use crate::group::cause::{Cause, FailedTask};
use crate::group::chain;
use crate::group::deadline;
use crate::group::label::Label;
use crate::group::log;
use crate::group::panic::Panic;
use crate::group::time::CONFIRMATION;
use crate::group::{Spawner, TaskGroup};
#[cfg(feature = "lifecycle")]
use crate::lifecycle::{Component, Context};
use crate::server::stop_signal::Parts;
use crate::server::stop_signal::sealed::StopParts;

/// Workers with their intake, ready to be spawned.
///
/// [`Workers::queue`](super::Workers::queue) and [`Workers::source`](super::Workers::source) make one.
/// [`spawn`](Self::spawn) makes it a member of a [`TaskGroup`], and [`component`](Self::component) makes it a
/// component of a [`Lifecycle`](crate::lifecycle::Lifecycle).
///
/// A dropped pool takes no more items in, and puts those that were pushed into its
/// [leftovers](Self::leftovers).
#[must_use = "a pool does nothing until it is spawned"]
pub struct Pool<T: Send + 'static, R: Send + 'static = ()> {
    pub(super) guard: Guard<T, R>,
    pub(super) policy: Arc<Policy<T, R>>,
    pub(super) times: Times,
    pub(super) works: Vec<Work>,
    pub(super) intake: Option<Work>,
    pub(super) keeper: Option<Keeper<R>>,
    /// Reports the numbers until the pool is over.
    pub(super) meter: Option<Work>,
}

pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Extends the leases of all items that the pool holds.
pub(super) struct Keeper<R> {
    pub(super) every: Duration,
    pub(super) extend: Extend<R>,
}

pub(super) type Extend<R> = Box<dyn Fn(Vec<Arc<R>>) -> Extending + Send>;

pub(super) type Extending = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// How a stop proceeds, and how long it takes, as the user has set it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) at_stop: AtStop,
    pub(super) grace: Option<Duration>,
}

/// Hands back the pushed items of a pool that is dropped.
pub(super) struct Guard<T, R>(pub(super) Arc<Shared<T, R>>, pub(super) Leaves);

/// Where the remaining items go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    ToLeftovers,
    /// To the earlier stage of a chain, which gets an item when it is dropped here.
    ToStage,
}

impl<T, R> Drop for Guard<T, R> {
    fn drop(&mut self) {
        self.0.cut_all();
        self.0.over.cancel();
        if self.1 == Leaves::ToStage {
            drop(self.0.take_left());
        }
    }
}

impl<T: Send + 'static, R: Send + Sync + 'static> Pool<T, R> {
    /// Returns the place for items that are handed back without a function.
    ///
    /// Such items then count as claimed. An unclaimed item makes the end of the pool an error.
    #[must_use]
    pub fn leftovers(&self) -> Leftovers<T, R> {
        self.guard.0.claim();
        Leftovers(Arc::clone(&self.guard.0))
    }

    /// Spawns the pool into a group, as a task with its name. Its workers are members below it.
    ///
    /// The token of the group stops it. [`running`](TaskGroup::running) lists `mail`, `mail/worker-0` and so on.
    ///
    /// # Errors
    ///
    /// The task fails with a [`PipelineError`] unless the report is [clean](PipelineReport::is_clean).
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    #[track_caller]
    pub fn spawn<E>(self, group: &TaskGroup<E>) -> TaskHandle<PipelineReport>
    where
        E: From<PipelineError> + Send + 'static,
    {
        let place = Location::caller();
        let name = &self.guard.0.name;
        let task = group.task(name.to_string());
        let child = group.child(name);
        let (above, parts) = (group.spawner(), group.token().parts());
        let driving = async move { Ok(self.drive(child.spawner(), above, place, parts).await?) };
        task.spawn_from(place, driving)
    }

    /// Runs the pool in a component, until the component is told to stop and the stop is over.
    ///
    /// It is for a pool that needs something that the component [uses](Component::using), such as the
    /// connection of its source. A pool that is made before the start is a [component](Self::component)
    /// itself. The workers are tasks of the component, and the report of the lifecycle counts the items in
    /// flight. The stop may take the time of the component, less the time for the hand-back, and at most the
    /// [grace](super::Workers::grace) if one is set.
    ///
    /// # Errors
    ///
    /// The report is not [clean](PipelineReport::is_clean).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cuts the jobs without waiting for them, but the component still waits. Their items
    /// and those of the queue are in the [leftovers](Self::leftovers).
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Component, Lifecycle};
    /// use taskgroup::pipeline::{Job, Received, Workers, from_stream};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let (database, store) = Component::shared(
    ///     "database",
    ///     async |_| Ok("a connection"),
    ///     async |_, _| Ok(()),
    /// );
    /// let orders = Component::using(&store).run("orders", async |ctx, store| {
    ///     let orders = futures_util::stream::iter((1..=3).map(Received::from));
    ///     let pool = Workers::new("orders", move |order: Job<u32>| async move {
    ///         Ok(println!("order {} goes through {store}", *order))
    ///     });
    ///     let pool = pool.source(from_stream(orders))?;
    ///     ctx.ready();
    ///     let report = pool.run(&ctx).await?;
    ///     Ok(assert_eq!(report.done(), 3))
    /// });
    /// let lifecycle = Lifecycle::new("shop").component(database).component(orders.may_end());
    /// # let handle = lifecycle.handle();
    /// # tokio::spawn(async move { let _ = handle.ready().await; handle.stop("enough") });
    /// assert!(lifecycle.run().await?.is_clean());
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "lifecycle")]
    #[track_caller]
    pub fn run(
        self,
        ctx: &Context,
    ) -> impl Future<Output = Result<PipelineReport, PipelineError>> + Send + use<T, R> {
        let place = Location::caller();
        let (group, parts) = (ctx.group().clone(), ctx.parts());
        async move {
            let shared = Arc::clone(&self.guard.0);
            let _counted = parts.count_in_flight(move || shared.in_flight());
            self.drive(group.clone(), group, place, parts).await
        }
    }

    /// Makes the pool a component with its name.
    ///
    /// It is ready when its workers have been spawned, and [runs](Self::run) until it is told to stop. A pool
    /// that ends with its last pusher or its source needs [`may_end`](Component::may_end).
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::Lifecycle;
    /// use taskgroup::pipeline::{Job, Workers};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let (pusher, mail) = Workers::new("mail", |_: Job<&str>| async { Ok(()) }).queue(10)?;
    /// pusher.push("ann").await?;
    ///
    /// let lifecycle = Lifecycle::new("shop").component(mail.component());
    /// # let handle = lifecycle.handle();
    /// # tokio::spawn(async move { let _ = handle.ready().await; handle.stop("enough") });
    /// assert!(lifecycle.run().await?.is_clean());
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "lifecycle")]
    #[track_caller]
    pub fn component(self) -> Component {
        let name = self.guard.0.name.to_string();
        Component::new(name, |ctx: Context| async move {
            ctx.ready();
            self.run(&ctx).await?;
            Ok::<_, BoxError>(())
        })
    }

    /// Runs the pool until it is told to stop, or has no work left, and stops it.
    ///
    /// A failure cancels the group `above` at once.
    async fn drive<E: Send + 'static>(
        self,
        group: Spawner<E>,
        above: Spawner<E>,
        place: &'static Location<'static>,
        stop: Parts,
    ) -> Result<PipelineReport, PipelineError> {
        let Self {
            guard,
            policy,
            times,
            works,
            intake,
            keeper,
            meter,
        } = self;
        let shared = &*guard.0;
        if times.at_stop == AtStop::HandBack {
            shared.begin_nothing_after(&stop.token);
        }
        for (index, work) in works.into_iter().enumerate() {
            spawn(&group, worker_name(index), work);
        }
        let intake = intake.map(|intake| spawn(&group, "intake".to_owned(), intake));
        let keeper = keeper.map(|keeper| {
            let keeping = keep_alive(Arc::clone(&guard.0), keeper);
            spawn(&group, "keep-alive".to_owned(), keeping)
        });
        let returning = policy.hand_back.is_some().then(|| {
            let returning = return_withdrawn(Arc::clone(&guard.0), Arc::clone(&policy));
            spawn(&group, "hand-back".to_owned(), returning)
        });
        let meter = meter.map(|meter| spawn(&group, "metrics".to_owned(), meter));

        let recalled = shared.recalled.cancelled();
        let running = deadline::until(shared.settled(true), stop.token.cancelled());
        let is_told = !matches!(deadline::until(running, recalled).await, Ok(Ok(())));
        let failed = shared.look_at_fault(|fault| cause_of(&shared.name, place, fault));
        let at_stop = match failed {
            // Work under way is finished, and no other item begins.
            Some(_) => AtStop::HandBack,
            None if shared.is_paused() => AtStop::HandBack,
            None => times.at_stop,
        };
        let within = match policy.hand_back {
            Some(_) => policy.hand_back_within,
            None => Duration::ZERO,
        };
        let until = match shared.recalled.is_cancelled() {
            true => Deadlines::now(within),
            false => Deadlines::of(&stop, is_told, times.grace, within),
        };
        shared.stop(at_stop, until.cut);
        if let Some(cause) = failed {
            above.fail_early(&cause);
        }

        // If one step fails, the next one is still done.
        let cut = async {
            let recalled = shared.recalled.cancelled();
            drop(deadline::until(cut_at(until.cut, &stop), recalled).await);
        };
        let mut cut = pin!(cut);
        let stopped = async {
            if let Some(intake) = intake {
                let _ = intake.await;
            }
            shared.settled(false).await;
        };
        let _ = deadline::until(stopped, cut.as_mut()).await;
        shared.cut_all();
        let joined = until.join_by();
        let _ = deadline::until(shared.settled(false), passed(joined)).await;
        for helper in keeper.into_iter().chain(returning) {
            let _ = deadline::until(helper, passed(joined)).await;
        }
        let later = hand_back(shared, &policy, until.hand_back_by(within)).await;
        shared.over.cancel();
        if let Some(meter) = meter {
            let _ = deadline::until(meter, sleep(CONFIRMATION)).await;
        }
        report(shared, shared.take_fault().or(later))
    }
}

/// Ends when work under way is cut, even if the enclosing stop shortens the time later.
async fn cut_at(at: Option<Instant>, stop: &Parts) {
    let _ = deadline::until(passed(at), stop.limit.work_deadline_passed()).await;
}

/// Returns why the group above stops.
fn cause_of(name: &str, place: &'static Location<'static>, fault: &Fault) -> Cause {
    let label = Label::named(None, name, place);
    let message = format!("pipeline `{name}`: {fault:#}");
    Cause::Failed(FailedTask::new(&label, fault.end(), message))
}

fn worker_name(index: usize) -> String {
    format!("worker-{index}")
}

fn spawn<E: Send + 'static>(group: &Spawner<E>, name: String, work: Work) -> TaskHandle<()> {
    group.task(name).spawn(async move {
        work.await;
        Ok(())
    })
}

/// Hands back the items of revoked partitions at once, until the stop.
fn return_withdrawn<T, R>(shared: Arc<Shared<T, R>>, policy: Arc<Policy<T, R>>) -> Work
where
    T: Send + 'static,
    R: Send + Sync + 'static,
{
    Box::pin(async move {
        let Some(function) = &policy.hand_back else {
            return;
        };
        let mut stopping = pin!(shared.stopping.cancelled());
        loop {
            let withdrawn = shared.withdrawn.notified();
            if deadline::until(stopping.as_mut(), withdrawn).await.is_ok() {
                return;
            }
            let items = shared.take_withdrawn();
            if items.is_empty() {
                continue;
            }
            let (count, until) = (items.len(), after(policy.hand_back_within));
            if let Err(error) = run_hand_back(function, items, until).await {
                shared.count(|numbers| numbers.hand_backs_failed += count);
                log::guarded(|| {
                    let (name, error) = (&*shared.name, chain::line_of(&*error));
                    tracing::warn!(target: "taskgroup", pipeline = name, error, count, "items could not be handed back");
                });
            }
        }
    })
}

/// Extends the leases at intervals, until jobs are cut.
fn keep_alive<T, R>(shared: Arc<Shared<T, R>>, keeper: Keeper<R>) -> Work
where
    T: Send + 'static,
    R: Send + Sync + 'static,
{
    Box::pin(async move {
        let mut cut = pin!(shared.cut.cancelled());
        loop {
            let wait = sleep(keeper.every);
            if deadline::until(cut.as_mut(), wait).await.is_ok() {
                return;
            }
            let leases = shared.leases();
            if leases.is_empty() {
                continue;
            }
            let ended = match Panic::catch(|| (keeper.extend)(leases)) {
                Ok(extending) => run_until(|| extending, cut.as_mut()).await,
                Err(panic) => Some(Err(panic)),
            };
            let error = match ended {
                Some(Ok(Ok(()))) | None => continue,
                Some(Ok(Err(error))) => error,
                Some(Err(panic)) => panic.into(),
            };
            shared.count(|numbers| numbers.keep_alives_failed += 1);
            log::guarded(|| {
                let (name, error) = (&*shared.name, chain::line_of(&*error));
                tracing::warn!(target: "taskgroup", pipeline = name, error, "the leases could not be kept alive");
            });
        }
    })
}

/// Hands the remaining items back, if there is a function for it.
async fn hand_back<T: Send + 'static, R: Send + 'static>(
    shared: &Shared<T, R>,
    policy: &Policy<T, R>,
    until: Option<Instant>,
) -> Option<Fault> {
    let hand_back = policy.hand_back.as_ref()?;
    let items = shared.take_left();
    if items.is_empty() {
        return None;
    }
    let count = items.len();
    let error = run_hand_back(hand_back, items, until).await.err()?;
    shared.count(|numbers| numbers.hand_backs_failed += count);
    Some(Fault::HandBack(error))
}

fn report<T, R>(
    shared: &Shared<T, R>,
    fault: Option<Fault>,
) -> Result<PipelineReport, PipelineError> {
    let numbers = shared.numbers();
    let workers = shared.running().into_iter();
    let report = PipelineReport {
        numbers,
        still_running: numbers.in_flight(),
        workers: workers
            .map(|index| format!("{}/{}", shared.name, worker_name(index)))
            .collect(),
        unclaimed: if shared.is_claimed() {
            0
        } else {
            shared.left()
        },
        is_faulty: fault.is_some(),
    };
    log::guarded(|| {
        tracing::debug!(target: "taskgroup", pipeline = &*shared.name, %report, "the pipeline has ended");
    });
    if report.is_clean() {
        return Ok(report);
    }
    Err(PipelineError(Box::new(Unclean {
        name: Arc::clone(&shared.name),
        report,
        fault,
    })))
}

impl<T: Send + 'static, R: Send + 'static> fmt::Debug for Pool<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.guard.0.name)
            .field("workers", &self.works.len())
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}
