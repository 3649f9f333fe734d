//! [`Supervisor`]: restarts tasks when they fail, and gives up when they fail too often.
//!
//! [`state`] decides what happens next, without a clock, and the rest of this file does it.

mod state;
mod error;
mod run;
mod periodic;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::BoxError;
use crate::TaskHandle;
use crate::group::build_error::BuildError;
use crate::group::cancelled::Cancelled;
use crate::group::chain;
use crate::group::failure::Failure;
use crate::group::into_task::{Inside, IntoTask};
use crate::group::log;
use crate::group::run_future::RunFuture;
use crate::group::time::Rounded;
use crate::group::{Spawner, TaskGroup};

pub use self::error::SupervisorError;
pub use self::periodic::{Periodic, PeriodicError, Tick};
pub use self::state::Strategy;
pub use crate::backoff::Backoff;

use self::error::{Described, Fault, Overrun, Report};
use self::run::{Ended, RunEnd, Start, boxed, run};
use self::state::{Action, Answer, Ending, Event, Limits, State};

/// Runs children, restarts those that fail, and gives up when that happens too often.
///
/// A group ends at the first failure. That is right for most tasks, but wrong for a consumer that
/// loses its broker twice a day. A supervisor stands between the two. It is a member of the group,
/// and its children are members below it. Only a failure that it cannot mend becomes a failure of
/// the group.
///
/// The words and the rules are those of [Erlang/OTP's supervisors][otp]. OTP has no backoff between
/// restarts, so that follows the [AWS Architecture Blog][aws].
///
/// # The rules
///
/// 1. Children start in the order in which they were added. To start is to spawn, without a wait
///    for readiness. A [`child`](Self::child) that returns `Ok` is done and is not started again,
///    not even for a sibling. One that returns an error or panics is restarted. A
///    [`permanent`](Self::permanent) child is restarted whatever it returns.
/// 2. The [`strategy`](Self::strategy) says which siblings are stopped and restarted with it. They
///    stop one by one, in reverse order of start. Each is told by its own token, given the
///    [`grace`](Self::grace), then aborted, and always joined. When all of them are gone and the
///    backoff is over, they start in order.
/// 3. The [`backoff`](Self::backoff) counts from the failure. It grows with each failure of the
///    child in a row, and starts over when the child has run for
///    [`reset_after`](Self::reset_after).
/// 4. The [`intensity`](Self::intensity) bounds the restarts of all children together within a
///    window of time. Siblings that are restarted along do not count. A failure that would exceed
///    it is *escalated*. The other children are stopped in reverse order, and the supervisor ends
///    with an error, which cancels its group.
/// 5. When the group's token fires, nothing more is started, not even after a backoff. The children
///    stop in reverse order, each with the grace. A failure of a child then, other than
///    [`Cancelled`], is an error of the supervisor. A closed group ends the supervisor in the same
///    way, as soon as a child would have to be started in it.
/// 6. When all children are done, the supervisor returns `Ok`.
///
/// So the stop takes at most the grace and a second for each child. The abort of a child is always
/// reported, as a warning in the log if it was for a sibling, and as an error at the end. A child
/// that cannot be aborted, because it blocks its thread, ends the supervisor with an error, and no
/// child is started beside it.
///
/// # The intensity and the backoff
///
/// The two are independent. If the waits of a child that always fails do not fit into the window,
/// the intensity is never exceeded and the child is restarted forever. You may want that. The time
/// in which siblings are being stopped is not counted, so a long grace does not carry restarts out
/// of the window. With the defaults, the supervisor gives up a child that always fails at once
/// within about three seconds.
///
/// # Comparison to `TaskGroup` and `Sidecar`
///
/// A task that must not end early, and whose failure is the failure of the service, is
/// [`essential`](crate::group::Task::essential). A server is a [`Sidecar`](crate::Sidecar). A
/// supervisor is for work that loses nothing in a restart, such as a consumer, a watcher or a
/// connection.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use taskgroup::TaskGroup;
/// use taskgroup::supervise::Supervisor;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// static RUNS: AtomicU32 = AtomicU32::new(0);
///
/// let mut group = TaskGroup::new();
/// Supervisor::new("kafka")
///     .child("consumer", |_token| async {
///         match RUNS.fetch_add(1, Ordering::SeqCst) {
///             0 => Err("the broker is gone".into()),
///             1 => panic!("not a number"),
///             _ => Ok(()),
///         }
///     })
///     .spawn(&group)?;
///
/// group.wait().await?;
/// assert_eq!(RUNS.load(Ordering::SeqCst), 3);
/// # Ok(())
/// # }
/// ```
///
/// [otp]: https://www.erlang.org/doc/system/sup_princ.html
/// [aws]: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
#[derive(Debug)]
#[must_use = "a supervisor does nothing until it is spawned"]
pub struct Supervisor {
    name: Cow<'static, str>,
    backoff: Backoff,
    limits: Limits,
    children: Vec<Child>,
}

/// A child as it was added.
struct Child {
    name: Cow<'static, str>,
    start: Start,
    permanent: bool,
    place: &'static Location<'static>,
}

impl Supervisor {
    /// Makes a supervisor without children.
    ///
    /// Its strategy is [one-for-one](Strategy::OneForOne), its intensity 5 restarts within 60 s,
    /// and its grace 5 s. Its backoff is 100 ms doubling up to 30 s, and starts over after 60 s.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            backoff: Backoff::default(),
            limits: Limits {
                strategy: Strategy::default(),
                intensity: 5,
                window: Duration::from_secs(60),
                reset_after: Duration::from_secs(60),
                grace: Duration::from_secs(5),
            },
            children: Vec::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Sets which children are restarted when one has failed, by default [`Strategy::OneForOne`].
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.limits.strategy = strategy;
        self
    }

    /// Allows at most `restarts` restarts within `window`, by default 5 within 60 s.
    ///
    /// A restart counts from the failure that caused it. With 0 the first failure is escalated.
    /// With [`usize::MAX`] no failure is. A window of zero is an error of [`run`](Self::run). A
    /// window of [`Duration::MAX`] counts all restarts.
    pub fn intensity(mut self, restarts: usize, window: Duration) -> Self {
        self.limits.intensity = restarts;
        self.limits.window = window;
        self
    }

    /// Sets how long a restart waits, by [default](Backoff::default) 100 ms doubling up to 30 s.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets how long a child must have run for its backoff to start over, by default 60 s.
    ///
    /// With zero the backoff never grows. With [`Duration::MAX`] it never starts over.
    pub fn reset_after(mut self, reset_after: Duration) -> Self {
        self.limits.reset_after = reset_after;
        self
    }

    /// Sets the time that each child gets to stop before it is aborted, by default 5 s.
    ///
    /// With zero a child is told and aborted at once. With [`Duration::MAX`] it is never aborted.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.limits.grace = grace;
        self
    }

    /// Adds a child that is restarted when it fails, and done when it returns `Ok`. OTP calls it
    /// transient.
    ///
    /// `start` is called for each run, in the child's task, with a token for that run. The token
    /// fires when the child is to stop, also for a sibling, and at the end of the run, so that
    /// anything that the child has spawned elsewhere can follow it.
    #[track_caller]
    pub fn child<F, W>(self, name: impl Into<Cow<'static, str>>, start: F) -> Self
    where
        F: Fn(CancellationToken) -> W + Send + Sync + 'static,
        W: IntoTask<BoxError, Value = (), Task: Send + 'static>,
    {
        let start = boxed(move |token| start(token).into_task(Inside));
        self.add(name.into(), false, start, Location::caller())
    }

    /// Adds a child that is restarted when it fails and when it returns `Ok`. OTP calls it
    /// permanent.
    ///
    /// A return before the child is told to stop counts as a failure,
    /// [`End::EndedEarly`](crate::End::EndedEarly).
    #[track_caller]
    pub fn permanent<F, W>(self, name: impl Into<Cow<'static, str>>, start: F) -> Self
    where
        F: Fn(CancellationToken) -> W + Send + Sync + 'static,
        W: IntoTask<BoxError, Value = (), Task: Send + 'static>,
    {
        let start = boxed(move |token| start(token).into_task(Inside));
        self.add(name.into(), true, start, Location::caller())
    }

    fn add(
        mut self,
        name: Cow<'static, str>,
        permanent: bool,
        start: Start,
        place: &'static Location<'static>,
    ) -> Self {
        self.children.push(Child {
            name,
            start,
            permanent,
            place,
        });
        self
    }

    /// Spawns the supervisor into a group, as a task of its name. Its children are named below it.
    ///
    /// [`running`](TaskGroup::running) lists `kafka`, `kafka/consumer` and so on. Equivalent to
    /// `group.task(name).spawn(self.run(group)?)`.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run). A later failure is a failure of the group, a [`SupervisorError`].
    ///
    /// # Panics
    ///
    /// Panics outside of a Tokio runtime.
    #[track_caller]
    pub fn spawn<E>(self, group: &TaskGroup<E>) -> Result<TaskHandle<()>, BuildError>
    where
        E: From<SupervisorError> + Send + 'static,
    {
        let place = Location::caller();
        let task = group.task(self.name.clone());
        Ok(task.spawn_from(place, self.run(group)?.with_error()))
    }

    /// Makes the supervisor a future, to spawn into `group` or to run inside a task of it.
    ///
    /// Its children are members of a [child group](TaskGroup::child) of the supervisor's name. They
    /// start only once the future is polled. To run a supervisor below another one, run it in a
    /// child of that one, on a separate group with the child's token as
    /// [parent](crate::group::Builder::parent).
    ///
    /// # Errors
    ///
    /// Returns a [`BuildError`] if there are no children, if a name is empty or duplicated, or if
    /// the window of the [`intensity`](Self::intensity) or the factor of the
    /// [`backoff`](Self::backoff) is zero. The future resolves to an error after too many restarts,
    /// or when a child failed or had to be aborted at the end.
    ///
    /// # Panics
    ///
    /// The future panics outside of a Tokio runtime whose timers are enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the children without waiting for them, but the group still waits.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    /// use taskgroup::supervise::Supervisor;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let mut group = TaskGroup::new();
    /// let kafka = Supervisor::new("kafka")
    ///     .child("consumer", |token| async move { Ok(token.cancelled().await) })
    ///     .run(&group)?;
    /// group.task("kafka").essential().spawn(kafka);
    ///
    /// group.cancel();
    /// group.wait().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn run<E>(
        self,
        group: &TaskGroup<E>,
    ) -> Result<
        RunFuture<
            impl Future<Output = Result<(), SupervisorError>> + Send + use<E>,
            SupervisorError,
        >,
        BuildError,
    >
    where
        E: Send + 'static,
    {
        self.check()?;
        let group = group.child(&self.name);
        let spawner = group.spawner();
        Ok(RunFuture::new(async move {
            // It aborts the children if this future is dropped.
            let _group = group;
            Run::new(self, spawner, || None).drive().await
        }))
    }

    /// Makes the supervisor a future whose children are members of the group itself, which has its name and waits for
    /// them. They have no more time to stop than until `deadline`.
    pub(crate) fn run_within<E: Send + 'static>(
        self,
        group: Spawner<E>,
        deadline: impl Fn() -> Option<Instant> + Send + 'static,
    ) -> Result<impl Future<Output = Result<(), SupervisorError>> + Send, BuildError> {
        self.check()?;
        Ok(Run::new(self, group, deadline).drive())
    }

    fn check(&self) -> Result<(), BuildError> {
        if self.name.is_empty() {
            return Err(BuildError::empty_name("a supervisor"));
        }
        let what = format!("supervisor `{}`", self.name);
        let refuse = |option, value: Cow<'static, str>, why| {
            Err(BuildError::new(what.clone(), option, value, why))
        };
        if self.children.is_empty() {
            return refuse("child", "missing".into(), "there is nothing to supervise");
        }
        if self.limits.window.is_zero() {
            let value = format!("{} within 0s", self.limits.intensity);
            let why = "no restart could ever be counted";
            return refuse("intensity", value.into(), why);
        }
        self.backoff.check(&what)?;
        let mut names = HashSet::new();
        for Child { name, .. } in &self.children {
            if name.is_empty() {
                let why = "no message could name it";
                return refuse("child", "without a name".into(), why);
            }
            if !names.insert(name) {
                let value = format!("`{name}` twice");
                let why = "no message could tell them apart";
                return refuse("child", value.into(), why);
            }
        }
        Ok(())
    }
}

/// A running supervisor. When it is dropped, the children that are left are told, and its group aborts them.
///
/// Each run of a child sends its end. Asking the handles of all children for the next end would
/// take time in proportion to the number of children, for each end.
struct Run<E, D> {
    name: Cow<'static, str>,
    children: Vec<Child>,
    limits: Limits,
    state: State,
    began: Instant,
    /// The runs that have not ended, by child. They are dropped, which tells them, before their
    /// group is.
    alive: Vec<Option<Alive>>,
    send_end: mpsc::UnboundedSender<(usize, RunEnd)>,
    ends: mpsc::UnboundedReceiver<(usize, RunEnd)>,
    fault: Option<Fault>,
    /// When each child was told, and then the time that it had.
    told: Vec<Duration>,
    forced: Vec<Overrun>,
    group: Spawner<E>,
    /// When the children have to be gone, known once they are told.
    deadline: D,
}

/// One run of a child.
struct Alive {
    token: CancellationToken,
    force: CancellationToken,
}

impl<E: Send + 'static, D: Fn() -> Option<Instant>> Run<E, D> {
    fn new(supervisor: Supervisor, group: Spawner<E>, deadline: D) -> Self {
        let Supervisor {
            name,
            backoff,
            limits,
            children,
        } = supervisor;
        let supervised = children.len();
        let delays = children.iter().map(|_| backoff.delays());
        let (send_end, ends) = mpsc::unbounded_channel();
        Self {
            name,
            state: State::new(limits.clone(), delays),
            limits,
            began: Instant::now(),
            alive: children.iter().map(|_| None).collect(),
            children,
            send_end,
            ends,
            fault: None,
            told: vec![Duration::ZERO; supervised],
            forced: Vec::new(),
            group,
            deadline,
        }
    }

    async fn drive(mut self) -> Result<(), SupervisorError> {
        loop {
            self.notice_the_cancel();
            if let Some(deadline) = (self.deadline)() {
                self.state
                    .end_by(deadline.saturating_duration_since(self.began));
            }
            match self.state.next(self.began.elapsed()) {
                Action::Start(child) => self.start(child),
                Action::Tell(child) => self.tell(child),
                Action::Force(child) => self.force(child),
                Action::Wait(limit) => self.wait(limit).await,
                Action::End(ending) => return self.conclude(ending),
            }
        }
    }

    fn notice_the_cancel(&mut self) {
        if !self.state.is_ending() && self.group.token().is_cancelled() {
            self.state.on(Event::Cancelled, self.began.elapsed());
        }
    }

    fn start(&mut self, child: usize) {
        let Child {
            name, start, place, ..
        } = &self.children[child];
        let (token, force) = (CancellationToken::new(), CancellationToken::new());
        let ended = Ended {
            child,
            end: Some(Err(Failure::Aborted)),
            send: self.send_end.clone(),
        };
        let run = run(Arc::clone(start), token.clone(), force.clone(), ended);
        let task = self.group.task(name.clone());
        if task.spawn_from(place, run).is_refused() {
            let now = self.began.elapsed();
            self.state.on(Event::Refused(child), now);
            return;
        }
        self.alive[child] = Some(Alive { token, force });
    }

    fn tell(&mut self, child: usize) {
        self.told[child] = self.began.elapsed();
        if let Some(alive) = &self.alive[child] {
            alive.token.cancel();
        }
    }

    fn force(&mut self, child: usize) {
        if let Some(alive) = &self.alive[child] {
            alive.force.cancel();
        }
        // Less than its grace, if the deadline was nearer.
        let took = self.began.elapsed().saturating_sub(self.told[child]);
        let within = took.min(self.limits.grace);
        self.told[child] = within;
        let path = self.path(child);
        log::guarded(|| {
            tracing::warn!(
                target: "taskgroup",
                "child `{path}` did not stop within {} and is aborted",
                Rounded(within)
            );
        });
        if self.state.is_ending() {
            self.forced.push(self.overrun(child));
        }
    }

    /// Waits until a child has ended or the group is cancelled, at most for `limit`.
    async fn wait(&mut self, limit: Duration) {
        let ended = timeout(limit, self.ends.recv());
        let ended = if self.state.is_ending() {
            ended.await.ok()
        } else {
            let token = self.group.token();
            token.run_until_cancelled(ended).await.and_then(Result::ok)
        };
        // First, so that a failure after the cancel causes no restart.
        self.notice_the_cancel();
        // The channel never ends, because `self` has a sender.
        if let Some((child, end)) = ended.flatten() {
            self.ended(child, end);
        }
    }

    fn ended(&mut self, child: usize, end: RunEnd) {
        if self.alive[child].take().is_none() {
            // It was refused, so it never ran.
            return;
        }
        let now = self.began.elapsed();
        let end = match end {
            Ok(()) if self.children[child].permanent => Err(Failure::EndedEarly),
            end => end,
        };
        let Err(failure) = end else {
            self.state.on(Event::Done(child), now);
            return;
        };
        let answer = self.state.on(Event::Failed(child), now);
        if answer == Answer::Expected && is_part_of_a_stop(&failure) {
            return;
        }
        self.log_failure(child, &failure, answer);
        let exceeded = match answer {
            Answer::Escalate => Some((self.limits.intensity, self.limits.window)),
            Answer::Expected if self.state.is_ending() => None,
            Answer::Expected | Answer::Restart(_) => return,
        };
        self.fault.get_or_insert(Fault {
            child: self.children[child].name.clone(),
            failure,
            exceeded,
        });
    }

    /// Only this line reports a failure that is mended.
    fn log_failure(&self, child: usize, failure: &Failure, answer: Answer) {
        let path = self.path(child);
        log::guarded(|| {
            let what = Described(failure, "").to_string();
            let what = match failure.source() {
                Some(error) => format!("{what}: {}", chain::line_of(error)),
                None => what,
            };
            let what = match answer {
                Answer::Restart(delay) => format!("{what}; restart in {}", Rounded(delay)),
                Answer::Escalate => format!("{what}; too many restarts"),
                Answer::Expected => format!("{what}; it was to stop"),
            };
            if matches!(failure, Failure::Panicked(_)) {
                tracing::error!(target: "taskgroup", "child `{path}` {what}");
            } else {
                tracing::warn!(target: "taskgroup", "child `{path}` {what}");
            }
        });
    }

    /// A child that was forced, and the time that it had.
    fn overrun(&self, child: usize) -> Overrun {
        Overrun {
            child: self.children[child].name.clone(),
            within: self.told[child],
        }
    }

    fn path(&self, child: usize) -> String {
        let supervisor = self.group.name().unwrap_or(&self.name);
        format!("{supervisor}/{}", self.children[child].name)
    }

    fn conclude(mut self, ending: Option<Ending>) -> Result<(), SupervisorError> {
        // A child that is alive at the end could not be aborted.
        let alive = (0..self.children.len()).filter(|&child| self.alive[child].is_some());
        let lost: Vec<_> = alive.map(|child| self.overrun(child)).collect();
        if let Some(Ending::Lost(child)) = ending {
            // It was aborted for a sibling. It may be gone by now, but it is the reason for this
            // end.
            let overrun = self.overrun(child);
            if !self.forced.iter().any(|it| it.child == overrun.child) {
                self.forced.push(overrun);
            }
        }
        if self.fault.is_none() && self.forced.is_empty() && lost.is_empty() {
            return Ok(());
        }
        Err(SupervisorError(Box::new(Report {
            supervisor: self.name,
            fault: self.fault,
            forced: self.forced,
            lost,
        })))
    }
}

/// Whether this is an expected end of a child that was to stop.
fn is_part_of_a_stop(failure: &Failure) -> bool {
    match failure {
        Failure::Failed(error) => Cancelled::is_behind(&**error),
        Failure::EndedEarly | Failure::Aborted => true,
        _ => false,
    }
}

/// Tells tasks that the run has spawned elsewhere that the run has ended.
impl Drop for Alive {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("name", &self.name)
            .field("permanent", &self.permanent)
            .finish_non_exhaustive()
    }
}
