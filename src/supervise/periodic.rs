//! [`Periodic`]: runs a closure again and again, never twice at once.
//!
//! [`Streak`] decides what follows a run, without a clock, and the rest of this file does it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::BoxError;
use crate::backoff::{Backoff, Delays};
use crate::group::build_error::BuildError;
use crate::group::cancelled::Cancelled;
use crate::group::chain;
use crate::group::end::End;
use crate::group::log;
use crate::group::run_future::RunFuture;
use crate::group::time::Rounded;
use crate::group::verdict;
use crate::group::verdict::Ended;

/// Runs an async closure periodically, until a token fires.
///
/// It is a future, for [`TaskGroup::spawn`](crate::TaskGroup::spawn).
///
/// # The rules
///
/// 1. Runs never overlap. The next one begins when the last one has ended and its future is gone.
/// 2. The first run begins at once, or [after a period](Self::first_after_a_period).
/// 3. Ticks come every period, counted from beginning to beginning. Tokio's [`MissedTickBehavior`]
///    says what happens to those that pass during a run. By default they are skipped. One late run
///    comes at once, and then the ticks go on as if none had been late.
/// 4. An error is logged as a warning. The next run comes with the next tick, or after a
///    [`backoff`](Self::backoff), from which the ticks are counted again. After too many errors [in
///    a row](Self::fail_after) the future resolves to an error. A panic passes through the future,
///    and a group records it as the failure of the task.
/// 5. When the token fires between two runs, no more runs begin. A run in progress sees the token
///    and has the [`grace`](Self::grace) to end. After that it is dropped, which is an error.
/// 6. Then comes the [last run](Self::last_run), if one is set.
///
/// # Drop
///
/// Dropping the future drops the run in progress, and skips the last run.
///
/// # Comparison to `tokio::time::interval`
///
/// An [`Interval`](tokio::time::Interval) has only the ticks. Use it in a loop that also waits for
/// other things.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use std::time::Duration;
/// use taskgroup::TaskGroup;
/// use taskgroup::supervise::Periodic;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// static RUNS: AtomicU32 = AtomicU32::new(0);
///
/// let mut group = TaskGroup::new();
/// let flush = Periodic::new("flush", Duration::from_secs(60))
///     .last_run(Duration::from_secs(2))
///     .run(group.token(), |_tick| async {
///         RUNS.fetch_add(1, Ordering::SeqCst);
///         Ok(())
///     })?;
/// group.task("flush").spawn(flush);
///
/// tokio::time::sleep(Duration::from_secs(150)).await; // after 0 s, 60 s and 120 s
/// group.cancel();
/// group.wait().await?;
/// assert_eq!(RUNS.load(Ordering::SeqCst), 4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "it does nothing until it is given something to run"]
pub struct Periodic {
    name: Cow<'static, str>,
    period: Duration,
    first_after: Duration,
    missed: MissedTickBehavior,
    backoff: Option<Backoff>,
    fail_after: Option<u32>,
    grace: Duration,
    last_run: Option<Duration>,
}

/// The argument of a run of a [`Periodic`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::{BoxError, CancellationToken};
/// use taskgroup::supervise::Periodic;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let token = CancellationToken::new();
/// token.cancel();
/// let flush = Periodic::new("flush", Duration::from_secs(60)).last_run(Duration::from_secs(2));
/// let flush = flush.run(&token, |tick| async move {
///     assert!(tick.is_last());
///     assert!(!tick.token().is_cancelled());
///     Ok(())
/// })?;
/// Ok(flush.await?)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Tick {
    token: CancellationToken,
    is_last: bool,
}

/// How a periodic task failed.
///
/// The message names the task. [`source`](Error::source) is the error of the run, if it returned
/// one.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::{CancellationToken, End};
/// use taskgroup::supervise::Periodic;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BuildError> {
/// let token = CancellationToken::new();
/// let refresh = Periodic::new("refresh", Duration::from_secs(60)).fail_after(3);
/// let refresh = refresh.run(&token, |_tick| async { Err("no route to host".into()) })?;
///
/// let error = refresh.await.unwrap_err();
/// assert_eq!(error.end(), End::Failed);
/// assert_eq!(
///     format!("{error:#}"),
///     "periodic task `refresh` failed 3 times in a row: no route to host"
/// );
/// # Ok(())
/// # }
/// ```
pub struct PeriodicError {
    name: Cow<'static, str>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Failed { errors: u32, error: BoxError },
    Overran { grace: Duration },
    LastFailed { error: BoxError },
    LastOverran { deadline: Duration },
}

impl Periodic {
    /// Makes a periodic task with this name, which its errors contain.
    ///
    /// It runs at once and then every `period`. Zero is an error of [`run`](Self::run). With
    /// [`Duration::MAX`] it runs once. By default it goes on at the next tick after any number of
    /// errors, has a grace of 5 s, and has no last run.
    pub fn new(name: impl Into<Cow<'static, str>>, period: Duration) -> Self {
        Self {
            name: name.into(),
            period,
            first_after: Duration::ZERO,
            missed: MissedTickBehavior::Skip,
            backoff: None,
            fail_after: None,
            grace: Duration::from_secs(5),
            last_run: None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Begins with a period of waiting. By default the first run comes at once.
    pub fn first_after_a_period(mut self) -> Self {
        self.first_after = self.period;
        self
    }

    /// Sets what happens to ticks that pass during a run, by default [`MissedTickBehavior::Skip`].
    pub fn missed(mut self, missed: MissedTickBehavior) -> Self {
        self.missed = missed;
        self
    }

    /// Waits this long after a failed run, in place of the period, until a run succeeds.
    ///
    /// It may be shorter than the period, to retry soon, or longer, to relieve a server. By default
    /// the period is kept.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// Fails after this many errors in a row, from 1 upwards. By default it never fails. Zero is an
    /// error of [`run`](Self::run).
    pub fn fail_after(mut self, errors: u32) -> Self {
        self.fail_after = Some(errors);
        self
    }

    /// Sets the time that a run in progress has to end when the token fires, by default 5 s.
    ///
    /// With zero it is dropped at once. With [`Duration::MAX`] it is never dropped.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Runs once more when the token has fired, for at most `deadline`.
    ///
    /// Zero is an error of [`run`](Self::run). With [`Duration::MAX`] the last run has no deadline.
    ///
    /// The deadline counts from the beginning of the last run. The run has a new
    /// [token](Tick::token), which has not fired. The last run comes even if no run has begun
    /// before, or if the one in progress was dropped, but not after a failure or a panic.
    pub fn last_run(mut self, deadline: Duration) -> Self {
        self.last_run = Some(deadline);
        self
    }

    /// Makes it a future that calls `run` at every tick, until `token` fires.
    ///
    /// The future is `Send` when `run` and what it returns are.
    ///
    /// # Errors
    ///
    /// Returns a [`BuildError`] if the name is empty, or if the period, the deadline of the last
    /// run, the number of errors or the factor of the backoff is zero. The future resolves to a
    /// [`PeriodicError`] after too many errors in a row, when a run was dropped at the end of the
    /// grace, and when the last run failed or passed its deadline. An error of the run in progress
    /// when the token fires is logged and counted like any other.
    ///
    /// # Panics
    ///
    /// The future panics when a run does, and outside of a Tokio runtime whose timers are enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the run in progress, as [Drop](Self#drop) says.
    ///
    /// # Examples
    ///
    /// See [`Periodic`].
    pub fn run<F, W>(
        self,
        token: &CancellationToken,
        run: F,
    ) -> Result<
        RunFuture<impl Future<Output = Result<(), PeriodicError>> + use<F, W>, PeriodicError>,
        BuildError,
    >
    where
        F: FnMut(Tick) -> W,
        W: Future<Output = Result<(), BoxError>>,
    {
        self.check()?;
        let token = token.clone();
        Ok(RunFuture::new(self.drive(token, run, || None)))
    }

    /// The same, with no more time after the token has fired than until `deadline`.
    pub(crate) fn run_within<F, W>(
        self,
        token: &CancellationToken,
        run: F,
        deadline: impl Fn() -> Option<Instant>,
    ) -> Result<impl Future<Output = Result<(), PeriodicError>>, BuildError>
    where
        F: FnMut(Tick) -> W,
        W: Future<Output = Result<(), BoxError>>,
    {
        self.check()?;
        let token = token.clone();
        Ok(self.drive(token, run, deadline))
    }

    fn check(&self) -> Result<(), BuildError> {
        if self.name.is_empty() {
            return Err(BuildError::empty_name("a periodic task"));
        }
        let what = format!("periodic task `{}`", self.name);
        let refuse = |option, value, why| Err(BuildError::new(what.clone(), option, value, why));
        if self.period.is_zero() {
            return refuse("period", "0s", "it would never rest");
        }
        if self.fail_after == Some(0) {
            return refuse("fail_after", "0", "it would fail before it starts");
        }
        if self.last_run.is_some_and(|deadline| deadline.is_zero()) {
            return refuse("last_run", "0s", "it could do nothing");
        }
        match &self.backoff {
            Some(backoff) => backoff.check(&what),
            None => Ok(()),
        }
    }

    async fn drive<F, W>(
        self,
        token: CancellationToken,
        mut run: F,
        deadline: impl Fn() -> Option<Instant>,
    ) -> Result<(), PeriodicError>
    where
        F: FnMut(Tick) -> W,
        W: Future<Output = Result<(), BoxError>>,
    {
        let ran = self.run_until_cancelled(&token, &mut run, &deadline).await;
        if let Err(Kind::Failed { .. }) = ran {
            return self.conclude(ran);
        }
        let last = self.run_for_the_last_time(run, &deadline).await;
        if let (Err(_), Err(kind)) = (&ran, &last) {
            self.log(chain::line_of(kind));
        }
        self.conclude(ran.and(last))
    }

    async fn run_until_cancelled<F, W>(
        &self,
        token: &CancellationToken,
        mut run: F,
        deadline: &impl Fn() -> Option<Instant>,
    ) -> Result<(), Kind>
    where
        F: FnMut(Tick) -> W,
        W: Future<Output = Result<(), BoxError>>,
    {
        token.run_until_cancelled(sleep(self.first_after)).await;
        let mut ticks = interval(self.period);
        ticks.set_missed_tick_behavior(self.missed);
        let mut streak = Streak::new(self);
        loop {
            token.run_until_cancelled(ticks.tick()).await;
            // The token and the tick may both have fired.
            if token.is_cancelled() {
                return Ok(());
            }
            let tick = Tick {
                token: token.clone(),
                is_last: false,
            };
            let Err(error) = self.within_the_grace(token, run(tick), deadline).await? else {
                streak.succeeded();
                continue;
            };
            if token.is_cancelled() && Cancelled::is_behind(&*error) {
                return Ok(());
            }
            match streak.failed() {
                Next::Retry(delay) if !token.is_cancelled() => {
                    self.log(format_args!(
                        "failed: {}; again in {}",
                        chain::line_of(&*error),
                        Rounded(delay)
                    ));
                    token.run_until_cancelled(sleep(delay)).await;
                    ticks.reset_immediately();
                }
                Next::Tick | Next::Retry(_) => {
                    self.log(format_args!("failed: {}", chain::line_of(&*error)));
                }
                Next::Fail(errors) => return Err(Kind::Failed { errors, error }),
            }
        }
    }

    /// Runs `work` to its end. When the token fires, `work` has the grace.
    async fn within_the_grace<W: Future>(
        &self,
        token: &CancellationToken,
        work: W,
        deadline: &impl Fn() -> Option<Instant>,
    ) -> Result<W::Output, Kind> {
        let mut work = pin!(work);
        if let Some(output) = token.run_until_cancelled(work.as_mut()).await {
            return Ok(output);
        }
        let grace = self.grace.min(left(deadline()));
        let ended = timeout(grace, work).await;
        ended.map_err(|_| Kind::Overran { grace })
    }

    async fn run_for_the_last_time<F, W>(
        &self,
        mut run: F,
        deadline: &impl Fn() -> Option<Instant>,
    ) -> Result<(), Kind>
    where
        F: FnMut(Tick) -> W,
        W: Future<Output = Result<(), BoxError>>,
    {
        let Some(asked) = self.last_run else {
            return Ok(());
        };
        let deadline = asked.min(left(deadline()));
        let token = CancellationToken::new();
        // Tells tasks that the run has spawned elsewhere that it has ended, also when it is
        // dropped.
        let _end = token.clone().drop_guard();
        let tick = Tick {
            token,
            is_last: true,
        };
        match timeout(deadline, run(tick)).await {
            Ok(result) => result.map_err(|error| Kind::LastFailed { error }),
            Err(_) => Err(Kind::LastOverran { deadline }),
        }
    }

    /// Logs an error that is not returned.
    fn log(&self, what: impl fmt::Display) {
        let name = &self.name;
        log::guarded(|| tracing::warn!(target: "taskgroup", "periodic task `{name}` {what}"));
    }

    fn conclude(self, ran: Result<(), Kind>) -> Result<(), PeriodicError> {
        ran.map_err(|kind| PeriodicError {
            name: self.name,
            kind,
        })
    }
}

fn left(deadline: Option<Instant>) -> Duration {
    deadline.map_or(Duration::MAX, |at| {
        at.saturating_duration_since(Instant::now())
    })
}

/// The number of errors in a row, and what follows the next one.
#[derive(Debug)]
struct Streak {
    errors: u32,
    fail_after: Option<u32>,
    delays: Option<Delays>,
}

#[derive(Debug)]
enum Next {
    /// The next tick.
    Tick,
    /// A run after this time, from which the ticks are counted again.
    Retry(Duration),
    /// The end, after this many errors.
    Fail(u32),
}

impl Streak {
    fn new(periodic: &Periodic) -> Self {
        Self {
            errors: 0,
            fail_after: periodic.fail_after,
            delays: periodic.backoff.as_ref().map(Backoff::delays),
        }
    }

    fn succeeded(&mut self) {
        self.errors = 0;
        if let Some(delays) = &mut self.delays {
            delays.reset();
        }
    }

    fn failed(&mut self) -> Next {
        self.errors = self.errors.saturating_add(1);
        if self.fail_after.is_some_and(|most| self.errors >= most) {
            return Next::Fail(self.errors);
        }
        match &mut self.delays {
            Some(delays) => Next::Retry(delays.draw()),
            None => Next::Tick,
        }
    }
}

impl Tick {
    /// Returns the token that tells this run to end.
    ///
    /// It is the token that ends the periodic task. The last run has its own token, which fires
    /// when that run is over.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Returns whether this is the last run, which comes after the token of the periodic task has
    /// fired.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.is_last
    }
}

impl PeriodicError {
    /// Returns the name of the periodic task.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns how it ended. It is [`Failed`](End::Failed) after too many errors in a row or an
    /// error of the last run, and [`TimedOut`](End::TimedOut) when a run was dropped at the end of
    /// its time.
    #[must_use]
    pub fn end(&self) -> End {
        match self.kind {
            Kind::Failed { .. } | Kind::LastFailed { .. } => End::Failed,
            Kind::Overran { .. } | Kind::LastOverran { .. } => End::TimedOut,
        }
    }

    /// Returns whether it was the last run that failed or was dropped.
    #[must_use]
    pub fn is_of_the_last_run(&self) -> bool {
        matches!(
            self.kind,
            Kind::LastFailed { .. } | Kind::LastOverran { .. }
        )
    }
}

impl PeriodicError {
    fn message(&self) -> String {
        format!("periodic task `{}` {}", self.name, self.kind)
    }
}

impl fmt::Display for PeriodicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        chain::show(f, &self.message(), self.kind.source())
    }
}

impl fmt::Debug for PeriodicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f
                .debug_struct("PeriodicError")
                .field("name", &self.name)
                .field("kind", &self.kind)
                .finish();
        }
        chain::explain(f, &self.message(), self.kind.source(), None)
    }
}

/// What the task did. If a run returned an error, that is the source.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { errors: 1, .. } => f.write_str("failed"),
            Self::Failed { errors, .. } => write!(f, "failed {errors} times in a row"),
            Self::Overran { grace } => {
                write!(
                    f,
                    "did not end its run within {} and was dropped",
                    Rounded(*grace)
                )
            }
            Self::LastFailed { .. } => f.write_str("failed in its last run"),
            Self::LastOverran { deadline } => {
                write!(
                    f,
                    "did not end its last run within {} and was dropped",
                    Rounded(*deadline)
                )
            }
        }
    }
}

impl Error for Kind {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed { error, .. } | Self::LastFailed { error } => Some(&**error),
            Self::Overran { .. } | Self::LastOverran { .. } => None,
        }
    }
}

impl Error for PeriodicError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        verdict::tell(self);
        self.kind.source()
    }
}

impl Ended for PeriodicError {
    fn end(&self) -> End {
        self.end()
    }

    fn as_error(&self) -> &(dyn Error + 'static) {
        self
    }
}

/// Lets [`Exit`](crate::Exit) take the error.
impl AsRef<dyn Error + Send + Sync> for PeriodicError {
    fn as_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }
}
