//! [`Workers`]: the options of a pool.

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, ready};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::at_stop::AtStop;
use super::error::JobError;
use super::handler::{Each, Handle, Several};
use super::intake::{Pause, Source, take_in};
use super::job::Job;
use super::parcel::{HandedBack, KeyOf, WeightOf, key_of};
use super::policy::{DeadLetter, HandBack, OnFailure, Policy};
use super::pool::{Extend, Guard, Keeper, Leaves, Pool, Times, Work};
use super::pusher::Pusher;
use super::queue::Batch;
use super::receipt::Receipt;
use super::results::Results;
use super::shared::{Options, Shared};
use super::stage::{Origin, Stage};
use super::valve::Valve;
use super::watermark::{Holds, Watched, Watermark};
use super::worker::Worker;
use crate::BoxError;
use crate::backoff::Backoff;
use crate::group::build_error::BuildError;
use crate::group::time::Rounded;

/// Works on items with limited concurrency, and loses none. Items that are not done when the time is up are
/// handed back.
///
/// An item is taken in from a [queue](Self::queue) of the pool, or from a [source](Self::source) such as a
/// broker or a stream. From then on it has exactly one end:
///
/// - **done** if its handler returned `Ok`, and the acknowledgement, if there is one, was confirmed.
/// - **failed** or **panicked** if that was its last attempt. With [`retry`](Self::retry) there are several
///   attempts, and a [dead-letter function](Self::dead_letter) takes items that have failed for good. Without
///   one, it is a failure of the group, or [only counted](Self::on_failure).
/// - **handed back** in all other cases. The item was not begun, it waited for its next attempt, it was cut,
///   or its handler handed it back. This costs no attempt.
///
/// # The stop
///
/// The stop begins when the token of the group fires, or when the lifecycle stops the pool.
///
/// 1. No items come in any longer. Pushers get their items back, and the source is [paused](Self::pause).
/// 2. Buffered items are worked off or, [if set](Self::at_stop), handed back at once. A backoff ends at once,
///    unless its next attempt is due before the deadline.
/// 3. After the [grace](Self::grace) all work that is still under way is cut, by dropping its future.
/// 4. The [leases](Self::keep_alive) are no longer extended. The remaining items go to the
///    [hand-back](Self::hand_back) in the order of the intake, with a time of its own.
/// 5. The [report](super::PipelineReport) tells how all items ended. It is `Ok` unless something was cut
///    under way, something is still running, or an acknowledgement, a dead letter or the hand-back failed.
///
/// Each step is done even if the one before it failed. After a failure that stops the pool, work under way is
/// finished, and the rest is handed back.
///
/// # Cost
///
/// The workers are tasks, but an item is not. Its handler runs in place in a worker, without an allocation.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::pipeline::{Job, JobError, Workers};
/// use taskgroup::TaskGroup;
/// use taskgroup::supervise::Backoff;
///
/// async fn send(mail: Job<String>) -> Result<(), JobError> {
///     if !mail.contains('@') {
///         return Err(JobError::permanent("no address"));
///     }
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let mut group = TaskGroup::new();
/// let (pusher, pool) = Workers::new("mail", send)
///     .limit(8)
///     .retry(Backoff::default(), 5)
///     .dead_letter(|mail| async move { Ok(println!("not sent: {}", *mail)) })
///     .grace(Duration::from_secs(20))
///     .hand_back(|mails| async move { Ok(println!("{} mails to be sent later", mails.len())) })
///     .queue(1000)?;
/// let report = pool.spawn(&group);
/// pusher.push("ann@example.org".to_owned()).await?;
/// pusher.push("nobody".to_owned()).await?;
///
/// group.cancel();
/// assert_eq!(report.await?.to_string(), "1 done, 1 failed");
/// group.wait().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "workers do nothing until they have an intake and are spawned"]
pub struct Workers<T: Send + 'static, R: Send + 'static = ()> {
    name: Cow<'static, str>,
    limit: usize,
    batch: Batch,
    /// Whether the handler takes several items at once.
    is_batched: bool,
    key: Option<KeyOf<T>>,
    weight: Option<WeightOf<T>>,
    valve: Option<Valve>,
    watermark: Option<Arc<dyn Watched>>,
    policy: Policy<T, R>,
    times: Times,
    pause: Option<Pause>,
    pause_within: Duration,
    keeper: Option<Keeper<R>>,
    lease: Option<fn(&R) -> R>,
    buffer: Option<usize>,
    meter: Option<Meter<T, R>>,
    start: Start<T, R>,
}

/// How to report the numbers of the pool, and the lag of its watermark.
type Meter<T, R> = fn(Arc<Shared<T, R>>, Option<Arc<dyn Watched>>) -> Work;

type Start<T, R> = Arc<dyn Fn(Worker<T, R>) -> Work + Send + Sync>;

impl<T: Send + 'static, R: Receipt> Workers<T, R> {
    /// Makes workers with a handler of one item.
    ///
    /// One runs at a time unless there is a [`limit`](Self::limit). The result of the handler ends the
    /// attempt, see [`JobError`].
    pub fn new<F, W>(name: impl Into<Cow<'static, str>>, handler: F) -> Self
    where
        F: Fn(Job<T, R>) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        Self::of(name.into(), Batch::ONE, Each(handler))
    }

    /// Makes workers with a handler of up to `size` items at once.
    ///
    /// A batch begins when `size` items are there, or when the first of them has waited for `longest`. At the
    /// stop it begins at once. The items of a batch are in the order of the intake. An item that is tried
    /// again is in a batch of its own.
    ///
    /// The result of the handler ends the attempt for each item, unless the handler has called
    /// [`done`](Job::done), [`fail`](Job::fail) or [`hand_back`](Job::hand_back) on its [`Job`]. After a
    /// panic or an error, all items that were not marked as done have failed. If a handler marks some items
    /// as done and returns `Ok`, those that it has not marked have failed as well, since it has forgotten them.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::TaskGroup;
    /// use taskgroup::pipeline::{Job, OnFailure, Workers};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let mut group = TaskGroup::new();
    /// let rows = Workers::batches("rows", 100, Duration::from_secs(1), |rows: Vec<Job<u32>>| async {
    ///     for row in rows {
    ///         if *row == 13 {
    ///             row.fail(std::io::Error::other("a row of ill omen"));
    ///         }
    ///     }
    ///     Ok(())
    /// });
    /// let (pusher, pool) = rows.on_failure(OnFailure::Count).queue(1000)?;
    /// let report = pool.spawn(&group);
    /// for row in 1..=20 {
    ///     pusher.push(row).await?;
    /// }
    /// drop(pusher);
    /// assert_eq!(report.await?.to_string(), "19 done, 1 failed");
    /// # group.wait().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn batches<F, W>(
        name: impl Into<Cow<'static, str>>,
        size: usize,
        longest: Duration,
        handler: F,
    ) -> Self
    where
        F: Fn(Vec<Job<T, R>>) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        let weight = u64::MAX;
        let batch = Batch {
            size,
            longest,
            weight,
        };
        let mut workers = Self::of(name.into(), batch, Several(handler));
        workers.is_batched = true;
        workers
    }

    /// Makes workers whose handler has an output for each item, and the [`Results`] that collect the outputs.
    ///
    /// The results are in the order of the items, regardless of the order in which the handlers return. It is
    /// for a job that has an end, whose items come [from an iterator](super::from_iter). After the stop no
    /// more items are taken from that, and the results that are done by then remain.
    ///
    /// # Examples
    ///
    /// Ten thousand pages, 64 at once. Ctrl-C, as the token of the group, keeps the available results:
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    /// use taskgroup::pipeline::{Job, Workers, from_iter};
    ///
    /// # async fn fetch(url: &str) -> Result<String, std::io::Error> { Ok(format!("the page {url}")) }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let mut group = TaskGroup::new(); // .stop_on(signals)
    /// let urls = (0..10_000).map(|page| format!("https://example.org/{page}"));
    /// let (workers, pages) = Workers::map("fetch", |url: Job<String>| async move { Ok(fetch(&url).await?) });
    /// workers.limit(64).source(from_iter(urls))?.spawn(&group);
    /// group.wait().await?;
    /// for (index, page) in pages.take() {
    ///     assert_eq!(page, format!("the page https://example.org/{index}"));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<U, F, W>(name: impl Into<Cow<'static, str>>, map: F) -> (Self, Results<U>)
    where
        U: Send + 'static,
        F: Fn(Job<T, R>) -> W + Send + Sync + 'static,
        W: Future<Output = Result<U, JobError>> + Send + 'static,
    {
        let results = Results::new();
        let kept = results.clone();
        let workers = Self::new(name, move |job: Job<T, R>| {
            let (index, kept) = (job.index(), kept.clone());
            let mapping = map(job);
            async move { Ok(kept.keep(index, mapping.await?)) }
        });
        (workers, results)
    }

    fn of<H: Handle<T, R>>(name: Cow<'static, str>, batch: Batch, handler: H) -> Self
    where
        H::Future: 'static,
    {
        let handler = Arc::new(handler);
        Self {
            name,
            limit: 1,
            batch,
            is_batched: false,
            key: None,
            weight: None,
            valve: None,
            watermark: None,
            policy: Policy {
                retry: None,
                on_failure: OnFailure::default(),
                parks_failed_keys: false,
                dead_letter: None,
                hand_back: None,
                hand_back_within: Duration::from_secs(1),
            },
            times: Times {
                at_stop: AtStop::default(),
                grace: None,
            },
            pause: None,
            pause_within: Duration::from_secs(1),
            keeper: None,
            lease: None,
            buffer: None,
            meter: None,
            start: Arc::new(move |worker| Box::pin(worker.work(Arc::clone(&handler)))),
        }
    }

    /// Limits what the items of a [batch](Self::batches) weigh together, such as their bytes.
    ///
    /// A batch then begins when it has its number of items, or when the items that are there weigh `most`, or
    /// when the first of them has waited for its time, whichever comes first. No batch weighs more than `most`,
    /// unless it is a single item that does. `most` is from 1 upwards. `weigh` is called once for each item, when
    /// it is taken in, and must not block.
    ///
    /// # Examples
    ///
    /// Up to 500 rows, or a mebibyte, or those of one second:
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::pipeline::{Job, Workers};
    ///
    /// # fn main() -> Result<(), taskgroup::BoxError> {
    /// let second = Duration::from_secs(1);
    /// let rows = Workers::batches("rows", 500, second, |_: Vec<Job<String>>| async { Ok(()) });
    /// let (rows, pool) = rows.batch_weight(1 << 20, |row| row.len() as u64).queue(1000)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch_weight(
        mut self,
        most: u64,
        weigh: impl Fn(&T) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.batch.weight = most;
        self.weight = Some(Arc::new(weigh));
        self
    }

    /// Lets this valve [pause and resume](Valve) the pool by hand. A second call replaces the first valve.
    pub fn valve(mut self, valve: &Valve) -> Self {
        self.valve = Some(valve.clone());
        self
    }

    /// Tells the pool of this watermark, whose [marks](super::Mark) are its receipts or a part of them.
    ///
    /// When a partition is [revoked](Watermark::revoke), the pool then hands back at once the items that are in its
    /// buffer or between two attempts. Its [metrics](Self::metrics) get the gauge `pipeline_watermark_lag`. A
    /// second call replaces the first watermark.
    pub fn watermark<P>(mut self, watermark: &Watermark<P>) -> Self
    where
        P: Eq + Hash + Clone + Send + 'static,
    {
        self.watermark = Some(Arc::new(watermark.clone()));
        self
    }

    /// Sets how many handlers run at once, from 1 upwards. The default is 1.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Tries an item up to `attempts` times, from 1 upwards, and waits for the backoff in between.
    ///
    /// Without it, an item is tried once. A [permanent](JobError::permanent) error ends the attempts at once.
    /// An item that waits for its next attempt does not occupy a worker, unless more of them wait than there
    /// are workers. An item that [comes in](super::Received::attempt) with all its attempts used up has
    /// failed without a further one.
    pub fn retry(mut self, backoff: Backoff, attempts: u32) -> Self {
        self.policy.retry = Some((backoff, attempts));
        self
    }

    /// Sets the effect of an item's last failure, which applies without a [dead-letter function](Self::dead_letter).
    ///
    /// The item is not acknowledged then. [`OnFailure::FailGroup`] is the default, and suits a queue of the
    /// pool. With a broker, a restart meets the same item again, so a retry and dead letters suit it better.
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.policy.on_failure = on_failure;
        self
    }

    /// Passes items that have failed for the last time to this function. [`Job::last_error`] has the reason.
    ///
    /// When it has returned `Ok`, the item is acknowledged, and has failed or panicked. If it fails, panics
    /// or is cut, the item is not acknowledged, but handed back. The function runs in the worker of the item.
    pub fn dead_letter<F, W>(mut self, dead_letter: F) -> Self
    where
        F: Fn(Job<T, R>) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let dead_letter: DeadLetter<T, R> = Box::new(move |job| Box::pin(dead_letter(job)));
        self.policy.dead_letter = Some(dead_letter);
        self
    }

    /// Works on one item of a key at a time, in the order of the intake, including its retries.
    ///
    /// Other keys go on meanwhile, and those that are ready take turns. Items without a key have no order. A
    /// key uses memory only while it has items. The items of a busy key take their places in the buffer, so
    /// one key can fill it.
    ///
    /// After an item was handed back, no later item of its key begins. The key is parked, and its items are
    /// handed back at the stop. After a last failure a key goes on, unless
    /// [`park_failed_keys`](Self::park_failed_keys) is set.
    pub fn keys<K: Hash>(mut self, key: impl Fn(&T) -> Option<K> + Send + Sync + 'static) -> Self {
        self.key = Some(key_of(key));
        self
    }

    /// Parks a key whose item has failed for the last time. Its later items are handed back at the stop.
    pub fn park_failed_keys(mut self) -> Self {
        self.policy.parks_failed_keys = true;
        self
    }

    /// Sets the end of buffered items at the stop. The default is [`AtStop::Drain`].
    pub fn at_stop(mut self, at_stop: AtStop) -> Self {
        self.times.at_stop = at_stop;
        self
    }

    /// Sets how long the items may take at the stop before they are cut. The default is 10 s.
    ///
    /// In a lifecycle it is the time of the component, less the time for the hand-back, or a grace that is
    /// set and shorter. With zero the items are cut at once. With [`Duration::MAX`] they are never cut.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.times.grace = Some(grace);
        self
    }

    /// Hands items back to this function, one by one before the stop, and all remaining ones at the stop in
    /// the order of the intake.
    ///
    /// Before the stop an item is handed back at once, by its handler, by a later stage, by its receipt, or
    /// because its dead letter failed. A broker delivers it again. A function that returns it with a delay
    /// keeps it from coming straight back.
    ///
    /// If the function fails, panics or is late, that is an error of the pool. Without a function, items go
    /// to the [leftovers](Pool::leftovers).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::TaskGroup;
    /// use taskgroup::pipeline::{HandedBack, Job, PipelineError, Workers};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let mut group = TaskGroup::new();
    /// let hang = |_: Job<&str>| async { Ok(std::future::pending().await) };
    /// let (pusher, pool) = Workers::new("mail", hang)
    ///     .grace(Duration::from_secs(5))
    ///     .hand_back(|left: Vec<HandedBack<&str>>| async move {
    ///         for item in left {
    ///             println!("{:?}: {}, begun: {}", item.item(), item.reason(), item.is_begun());
    ///         }
    ///         Ok(())
    ///     })
    ///     .queue(10)?;
    /// pool.spawn(&group);
    /// pusher.push("ann").await?;
    /// pusher.push("bob").await?;
    /// tokio::task::yield_now().await;
    ///
    /// group.cancel();
    /// let error = group.wait().await.unwrap_err().into_error().unwrap();
    /// let error = error.downcast_ref::<PipelineError>().unwrap();
    /// assert_eq!(error.report().to_string(), "2 handed back (1 cut, 1 never begun)");
    /// # Ok(())
    /// # }
    /// ```
    pub fn hand_back<F, W>(mut self, hand_back: F) -> Self
    where
        F: Fn(Vec<HandedBack<T, R>>) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let hand_back: HandBack<T, R> = Box::new(move |items| Box::pin(hand_back(items)));
        self.policy.hand_back = Some(hand_back);
        self
    }

    /// Sets how long the [hand-back](Self::hand_back) may take, in addition to the grace, from above zero. The
    /// default is 1 s.
    pub fn hand_back_within(mut self, time: Duration) -> Self {
        self.policy.hand_back_within = time;
        self
    }

    /// Asks the broker at the stop to send no more, by cancelling a consumer, pausing a partition or
    /// unsubscribing.
    ///
    /// The function and a fetch that is under way share the time `within`. Its default is 1 s. With
    /// the function, the pool fetches until the source ends or that time is over, since the source may still
    /// have items. Without it, the pool awaits only the fetch that is under way. Items that come are handed
    /// back. It is for a [source](Self::source). A queue ignores it.
    pub fn pause<F, W>(mut self, within: Duration, pause: F) -> Self
    where
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.pause = Some(Box::new(|| Box::pin(pause())));
        self.pause_within = within;
        self
    }

    /// Sets how many items of a [source](Self::source) are fetched and not begun, from 1 upwards. The default
    /// is the [limit](Self::limit) or the size of a batch, whichever is larger.
    pub fn buffer(mut self, items: usize) -> Self {
        self.buffer = Some(items);
        self
    }

    /// Extends the leases of all held items at intervals, whether they are buffered, running, or between two
    /// attempts.
    ///
    /// The function gets copies of their receipts. If it fails, the failure is logged and counted, and the
    /// function is called again the next time. It has been joined before items are handed back.
    pub fn keep_alive<F, W>(mut self, every: Duration, extend: F) -> Self
    where
        R: Clone,
        F: Fn(Vec<R>) -> W + Send + 'static,
        W: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let extend: Extend<R> = Box::new(move |leases| {
            let leases = leases.into_iter().map(Arc::unwrap_or_clone);
            Box::pin(extend(leases.collect()))
        });
        self.keeper = Some(Keeper { every, extend });
        self.lease = Some(R::clone);
        self
    }

    /// Writes the numbers of the pool through the facade of the crate [`metrics`](https://docs.rs/metrics),
    /// when the pool starts, every second, and when it is over.
    ///
    /// | name | kind | what it is |
    /// |---|---|---|
    /// | `pipeline_in_flight` | gauge | items that were begun and have no end yet |
    /// | `pipeline_buffered` | gauge | items that nobody has begun |
    /// | `pipeline_in_backoff` | gauge | items that wait for their next attempt |
    /// | `pipeline_capacity` | gauge | how many items the buffer holds |
    /// | `pipeline_oldest_buffered_seconds` | gauge | how long the oldest item that nobody has begun has waited |
    /// | `pipeline_paused` | gauge | 1 while a [valve](Self::valve) pauses the pool, else 0 |
    /// | `pipeline_watermark_lag` | gauge | items of a partition that the [watermark](Self::watermark) has not passed, of the partition with the most |
    /// | `pipeline_taken_in_total` | counter | items that were taken in |
    /// | `pipeline_begun_total` | counter | items that a handler has begun |
    /// | `pipeline_attempts_total` | counter | attempts that were begun |
    /// | `pipeline_ended_total` | counter | items that have ended; its label `end` is `done`, `failed`, `panicked` or `handed back` |
    /// | `pipeline_cut_total` | counter | items that were cut under way |
    /// | `pipeline_acks_failed_total` | counter | acknowledgements that failed |
    /// | `pipeline_dead_letters_total` | counter | items that the dead-letter function has taken |
    ///
    /// All have the label `pipeline`, the name of the pool, which each stage of a chain has for itself. All
    /// start at 0, so that you can take a rate. The only cost for each item is a look at the clock.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    /// use taskgroup::pipeline::{Job, Workers};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let mut group = TaskGroup::new();
    /// let mail = Workers::new("mail", |_: Job<&str>| async { Ok(()) }).metrics();
    /// let (pusher, pool) = mail.queue(10)?;
    /// pool.spawn(&group);
    /// pusher.push("ann").await?;
    /// # drop(pusher);
    /// # group.wait().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "metrics")]
    pub fn metrics(mut self) -> Self {
        self.meter = Some(|shared, lag| Box::pin(super::metrics::meter(shared, lag)));
        self
    }

    /// Gives the workers a source, and makes a pool of them.
    ///
    /// # Errors
    ///
    /// A [`BuildError`] if the name is empty, or an option has an invalid value.
    pub fn source<S>(mut self, source: S) -> Result<Pool<T, R>, BuildError>
    where
        S: Source<Item = T, Receipt = R>,
    {
        let capacity = self.buffer.unwrap_or(self.limit.max(self.batch.size));
        let (pause, within) = (self.pause.take(), self.pause_within);
        let mut pool = self.build("buffer", capacity)?;
        let shared = Arc::clone(&pool.guard.0);
        pool.intake = Some(Box::pin(take_in(shared, source, pause, within)));
        Ok(pool)
    }

    fn build(self, buffer: &'static str, capacity: usize) -> Result<Pool<T, R>, BuildError> {
        self.check(buffer, capacity)?;
        let shared = Arc::new(Shared::new(Options {
            name: self.name.into(),
            capacity,
            limit: self.limit,
            batch: self.batch,
            key: self.key,
            weight: self.weight,
            valve: self.valve,
            lease: self.lease,
            is_metered: self.meter.is_some(),
        }));
        let policy = Arc::new(self.policy);
        let workers = (0..self.limit).map(|index| Worker::new(&shared, &policy, index));
        let works = workers.map(|worker| (self.start)(worker)).collect();
        if let Some(watermark) = &self.watermark {
            let pool: Arc<dyn Holds> = Arc::<Shared<T, R>>::clone(&shared);
            watermark.attach(Arc::downgrade(&pool));
        }
        let lag = self.watermark;
        let meter = self.meter.map(|meter| meter(Arc::clone(&shared), lag));
        Ok(Pool {
            guard: Guard(shared, Leaves::ToLeftovers),
            policy,
            times: self.times,
            works,
            intake: None,
            keeper: self.keeper,
            meter,
        })
    }

    fn check(&self, buffer: &'static str, capacity: usize) -> Result<(), BuildError> {
        if self.name.is_empty() {
            return Err(BuildError::empty_name("a pipeline"));
        }
        let what = format!("pipeline `{}`", self.name);
        let refuse = |option, value: Cow<'static, str>, why: Cow<'static, str>| {
            Err(BuildError::new(what.clone(), option, value, why))
        };
        let most = Semaphore::MAX_PERMITS;
        let Batch {
            size,
            longest,
            weight,
        } = self.batch;
        if self.limit == 0 {
            return refuse("limit", "0".into(), "no item could ever begin".into());
        }
        if size == 0 {
            return refuse("size", "0".into(), "no batch could ever be full".into());
        }
        if capacity == 0 || capacity > most {
            let why = format!("it must hold 1 to {most} items");
            return refuse(buffer, capacity.to_string().into(), why.into());
        }
        if size > capacity {
            let why = format!("with a `{buffer}` of {capacity} no batch could ever be full");
            return refuse("size", size.to_string().into(), why.into());
        }
        if weight == 0 {
            return refuse(
                "batch_weight",
                "0".into(),
                "no item could be in a batch".into(),
            );
        }
        if self.weight.is_some() && !self.is_batched {
            let why = "its handler takes one item, and only a batch has a weight";
            return refuse("batch_weight", weight.to_string().into(), why.into());
        }
        if size > 1 && self.key.is_some() && longest == Duration::MAX {
            let why = "it has keys, and one busy key could keep a batch from being full";
            return refuse("longest", Rounded(longest).to_string().into(), why.into());
        }
        if let Some((backoff, attempts)) = &self.policy.retry {
            if *attempts == 0 {
                let why = "an item has to be tried once at least";
                return refuse("attempts", "0".into(), why.into());
            }
            backoff.check(&what)?;
        }
        if self.policy.hand_back.is_some() && self.policy.hand_back_within.is_zero() {
            let why = "no hand-back could be done in time";
            return refuse("hand_back_within", "0s".into(), why.into());
        }
        let every = self.keeper.as_ref().map(|keeper| keeper.every);
        if every.is_some_and(|every| every.is_zero()) {
            return refuse("keep_alive", "0s".into(), "it would do nothing else".into());
        }
        Ok(())
    }
}

impl<T: Send + 'static> Workers<T> {
    /// Gives the workers a queue that holds up to `capacity` items that have not begun, and makes a pool of
    /// them.
    ///
    /// # Errors
    ///
    /// A [`BuildError`] if the name is empty, or an option has an invalid value.
    pub fn queue(self, capacity: usize) -> Result<(Pusher<T>, Pool<T>), BuildError> {
        let pool = self.build("capacity", capacity)?;
        Ok((Pusher::new(&pool.guard.0), pool))
    }
}

impl<T: Send + 'static> Workers<T, Origin> {
    /// Makes a stage of a chain, which is a pool that earlier stages [pass](Stage::pass) their jobs on to.
    ///
    /// Its queue holds up to `capacity` items, and a stage that finds it full waits. It stops
    /// [after its pushers](AtStop::AfterPushers), whatever else was set. Without a hand-back function, its items are
    /// handed back by the stage that took the item in.
    ///
    /// When an earlier stage is cut, and this one has jobs of it, this one is cut as well, so all stages
    /// share the deadline of the first.
    ///
    /// # Errors
    ///
    /// A [`BuildError`] if the name is empty, or an option has an invalid value.
    pub fn stage(mut self, capacity: usize) -> Result<(Stage<T>, Pool<T, Origin>), BuildError> {
        self.times.at_stop = AtStop::AfterPushers;
        if self.policy.hand_back.is_none() {
            // The earlier stage gets its job back when this is dropped.
            self = self.hand_back(|items| {
                drop(items);
                ready(Ok(()))
            });
        }
        let mut pool = self.build("capacity", capacity)?;
        pool.guard.1 = Leaves::ToStage;
        Ok((Stage::new(&pool.guard.0), pool))
    }
}

impl<T: Send + 'static, R: Send + 'static> fmt::Debug for Workers<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("name", &self.name)
            .field("limit", &self.limit)
            .field("batch", &self.batch)
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}
