//! [`Exit`]: the exit status of a process, and the report that it writes to stderr.

#[cfg(feature = "signal")]
pub(crate) mod decided;
#[cfg(feature = "lifecycle")]
mod of_report;

use std::error::Error;
use std::fmt;
#[cfg(feature = "signal")]
use std::io;
use std::process;
use std::process::ExitCode;
use std::process::Termination;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

#[cfg(feature = "signal")]
use crate::group::build_error::BuildError;
use crate::group::cause::Cause;
use crate::group::chain;
use crate::group::end::End;
use crate::group::lock::lock;
use crate::group::log::stderr;
#[cfg(feature = "signal")]
use crate::group::panic::Panic;
use crate::group::signal::Signal;
use crate::group::verdict;
use crate::group::verdict::Failed;
#[cfg(feature = "signal")]
use crate::process::signals::Signals;
use crate::process::termination;
#[cfg(feature = "signal")]
use crate::server::forced;

/// Tells how a process ends, with an exit status and the lines that explain it. `main` returns it.
///
/// `Exit::from(result)` takes what [`TaskGroup::wait`](crate::TaskGroup::wait) returned, a
/// `Result<(), BoxError>` or an `anyhow::Result<()>`, and applies [`ExitPolicy::strict`]. The status is 0
/// when all went well, which includes a signal and a clean drain, and 1 otherwise. For another mapping, use
/// another [`ExitPolicy`]. In a `Program` (feature `signal`) that has a policy, `Exit::from` applies that
/// one.
///
/// When `main` returns it, the `Exit` writes the error to stderr. The first failure is a line with its
/// sources, and each later failure is a line of its own. It writes at most ten lines, and the number of the
/// other failures. It ignores write errors, and gives up on a stderr that accepts no bytes for a second, so
/// neither a closed pipe nor a full one changes the exit status. On Unix it bypasses the lock of
/// [`std::io::stderr`], which a thread may hold forever.
///
/// No method except [`now`](Self::now) ends the process.
///
/// # In a pod
///
/// In a pod of Kubernetes it also writes the termination message, which `kubectl describe pod` shows. That is the first
/// line of a lifecycle's report, such as `orders: clean, stopped in 2.001s of 28s: received SIGTERM`, and then the lines for
/// stderr, cut at 4096 bytes. It does so if `KUBERNETES_SERVICE_HOST` is set and `/dev/termination-log` exists. For another
/// path, or another platform, set the variable `TERMINATION_MESSAGE_PATH`. It ignores errors. A
/// [`Watchdog`](crate::process::Watchdog) writes its line there too, but not a second signal, which ends the process at
/// once.
///
/// # What comes after
///
/// `taskgroup::main` (feature `signal`) runs a whole program, and does not wait for blocked threads at the
/// end. `#[tokio::main]` shuts its runtime down before `main` returns, and waits without a bound for blocking
/// closures that are still running. See [`now`](Self::now).
///
/// # Examples
///
/// ```
/// use taskgroup::{Exit, TaskGroup};
///
/// # #[cfg(feature = "signal")]
/// fn main() -> Exit {
///     taskgroup::main(async |signals| {
///         let mut group = TaskGroup::new();
///         group.cancel_on(signals);
///         # group.cancel();
///         group.task("port").spawn(async { Ok("8080".parse::<u16>()?) });
///         group.wait().await
///     })
/// }
/// # #[cfg(not(feature = "signal"))]
/// # fn main() {}
/// ```
///
/// The same without this type:
///
/// ```
/// use std::process::ExitCode;
/// # use taskgroup::TaskError;
/// # fn by_hand(result: Result<(), TaskError>) -> ExitCode {
/// match result {
///     Ok(()) => ExitCode::SUCCESS,
///     Err(error) => { tracing::error!("{error:#}"); ExitCode::FAILURE }
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the exit status is lost unless `main` returns it"]
pub struct Exit {
    status: u8,
    report: String,
    /// The first line of a lifecycle's report.
    verdict: String,
    /// The signal to die of, set only after a clean end.
    raise: Option<Signal>,
}

/// Maps what happened to an exit status. Each row can be changed.
///
/// | what happened | [`strict`](Self::strict) | [`lenient`](Self::lenient) | set by |
/// |---|---|---|---|
/// | all tasks done, by themselves | 0 | 0 | [`done`](Self::done) |
/// | a call, a stop file or a time that was up, and a clean drain | 0 | 0 | [`requested`](Self::requested) |
/// | a signal, and a clean drain | 0 | 0 | [`signal`](Self::signal) |
/// | a task failed, a start failed, a heartbeat was lost | 1 | 1 | [`failed`](Self::failed) |
/// | a task or a cleanup step panicked | 1 | 1 | [`panicked`](Self::panicked) |
/// | an essential task or a server ended early | 1 | 1 | [`ended_early`](Self::ended_early) |
/// | a task was lost with its runtime | 1 | 1 | [`aborted`](Self::aborted) |
/// | a drain or a cleanup step timed out, a straggler was forced | 1 | 1 | [`timed_out`](Self::timed_out) |
/// | the same after a signal | 1 | 0 | [`timed_out_after_signal`](Self::timed_out_after_signal) |
/// | a second signal | 128 + n | 128 + n | [`second_signal`](Self::second_signal) |
///
/// The first failure decides, but a timeout gives way to any other failure that comes after it. The code of
/// an error that carries one overrides the rows, see [`code_from`](Self::code_from).
///
/// A policy prints as one line, for the startup log of a service.
///
/// # Examples
///
/// ```
/// use taskgroup::BoxError;
/// use taskgroup::process::ExitPolicy;
///
/// let policy = ExitPolicy::lenient().panicked(70).signal(None); // 128 + n, as a shell shows it
/// let exit = policy.exit(Err::<(), BoxError>("no database".into()));
/// assert_eq!(exit.code(), 1);
/// assert_eq!(exit.to_string(), "error: no database");
/// ```
#[derive(Clone, Debug)]
pub struct ExitPolicy {
    done: u8,
    requested: u8,
    signal: SignalStatus,
    failed: u8,
    panicked: u8,
    ended_early: u8,
    aborted: u8,
    timed_out: u8,
    timed_out_after_signal: u8,
    second_signal: SignalStatus,
    code_from: Option<CodeFrom>,
    reraise: bool,
}

type CodeFrom = fn(&(dyn Error + 'static)) -> Option<u8>;

/// The exit status that stands for a signal. `None` is 128 + n.
type SignalStatus = Option<u8>;

/// How long writing the report may take.
const PRINTING: Duration = Duration::from_secs(1);

impl Exit {
    /// Returns the exit status.
    ///
    /// For an exit that dies of its signal, it is the status that a shell shows for that, 128 + n.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::{BoxError, Exit};
    ///
    /// assert_eq!(Exit::from(Ok::<(), BoxError>(())).code(), 0);
    /// assert_eq!(Exit::from(Err::<(), BoxError>("no database".into())).code(), 1);
    /// ```
    #[must_use]
    pub fn code(&self) -> u8 {
        self.status
    }

    /// Writes the report and ends the process at once, with the exit status that returning from `main` would
    /// give.
    ///
    /// It is for a `main` that cannot return. `taskgroup::main` (feature `signal`) always returns. Under
    /// `#[tokio::main]` the runtime waits after the body for blocking closures that are still running, so a
    /// closure that hangs keeps the process alive. A group names such closures in
    /// [`still_running`](crate::TaskError::still_running).
    ///
    /// It skips the destructors of everything that is still in scope in any thread. Do the necessary work
    /// first, such as dropping the guards that flush a log, or closing the database. The C library's `atexit`
    /// functions run.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use taskgroup::{Exit, TaskGroup};
    ///
    /// #[tokio::main]
    /// async fn main() -> Exit {
    ///     let mut group = TaskGroup::new();
    ///     let result = group.shutdown(std::time::Duration::from_secs(5)).await;
    ///     match result {
    ///         Err(error) if !error.still_running().is_empty() => Exit::from(Err::<(), _>(error)).now(),
    ///         result => Exit::from(result),
    ///     }
    /// }
    /// ```
    pub fn now(self) -> ! {
        self.leave();
        process::exit(i32::from(self.status))
    }

    /// Tells the watchdog that this is how the process ends unless something holds it up.
    fn noted(self) -> Self {
        #[cfg(feature = "signal")]
        decided::note(self.status, &self.report);
        self
    }

    /// Writes the report, and dies of the signal if the policy asks for that.
    fn leave(&self) {
        #[cfg(feature = "signal")]
        forced::give_way();
        let lines = [&*self.verdict, &self.report];
        let lines: Vec<_> = lines.into_iter().filter(|line| !line.is_empty()).collect();
        termination::write(&lines.join("\n"), PRINTING);
        if !self.report.is_empty() {
            stderr::last_words(self.report.clone(), PRINTING);
        }
        #[cfg(feature = "signal")]
        if let Some(signal) = self.raise {
            crate::process::signals::die_of(signal);
        }
    }
}

impl ExitPolicy {
    /// Makes the default policy, under which every unclean end is a failure with status 1.
    #[must_use]
    pub fn strict() -> Self {
        Self {
            done: 0,
            requested: 0,
            signal: Some(0),
            failed: 1,
            panicked: 1,
            ended_early: 1,
            aborted: 1,
            timed_out: 1,
            timed_out_after_signal: 1,
            second_signal: None,
            code_from: None,
            reraise: false,
        }
    }

    /// Makes the strict policy, but with status 0 for a drain that timed out after a signal.
    ///
    /// It is for a service whose restarts must not raise an alarm because a client held its connection. The
    /// report is still printed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::{Cause, Signal, TaskError, TaskGroup};
    /// use taskgroup::process::ExitPolicy;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let mut group = TaskGroup::new();
    /// group.spawn(std::future::pending::<Result<(), _>>());
    /// let forced = group.shutdown(Duration::ZERO).await;
    ///
    /// let caused_by = Some(Cause::Signal(Signal::Terminate)); // group.cause() in a service
    /// assert_eq!(ExitPolicy::lenient().exit_caused_by(forced, caused_by).code(), 0);
    /// # });
    /// ```
    #[must_use]
    pub fn lenient() -> Self {
        Self::strict().timed_out_after_signal(0)
    }

    /// Sets the status for when all tasks are done without a request to stop. The default is 0.
    #[must_use]
    pub fn done(mut self, code: u8) -> Self {
        self.done = code;
        self
    }

    /// Sets the status after a clean drain whose cause was not a signal (a call, a stop file, or a time
    /// limit). The default is 0.
    ///
    /// The status of a [`StopRequest`](crate::group::StopRequest) that has one overrides it. The policy must
    /// know the cause, see [`exit_caused_by`](Self::exit_caused_by).
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::{Cause, TaskError};
    /// use taskgroup::group::StopRequest;
    /// use taskgroup::process::ExitPolicy;
    ///
    /// let policy = ExitPolicy::strict().requested(5);
    /// let exit = |cause| policy.exit_caused_by(Ok::<(), TaskError>(()), Some(cause)).code();
    /// assert_eq!(exit(Cause::Done), 0);
    /// assert_eq!(exit(Cause::Requested("the queue is empty".into())), 5);
    /// assert_eq!(exit(Cause::Requested(StopRequest::new("restart").code(75))), 75);
    /// ```
    #[must_use]
    pub fn requested(mut self, code: u8) -> Self {
        self.requested = code;
        self
    }

    /// Sets the status after a signal and a clean drain. The default is 0.
    ///
    /// `None` is 128 + n, as a shell shows it, such as 130 for SIGINT and 143 for SIGTERM.
    #[must_use]
    pub fn signal(mut self, status: impl Into<Option<u8>>) -> Self {
        self.signal = status.into();
        self
    }

    /// Sets the status when a task returned an error or a heartbeat was lost. The default is 1.
    #[must_use]
    pub fn failed(mut self, code: u8) -> Self {
        self.failed = code;
        self
    }

    /// Sets the status when a task or a server panicked. The default is 1.
    #[must_use]
    pub fn panicked(mut self, code: u8) -> Self {
        self.panicked = code;
        self
    }

    /// Sets the status when an essential task or a server ended early. The default is 1.
    #[must_use]
    pub fn ended_early(mut self, code: u8) -> Self {
        self.ended_early = code;
        self
    }

    /// Sets the status when a task was lost with its runtime. The default is 1.
    #[must_use]
    pub fn aborted(mut self, code: u8) -> Self {
        self.aborted = code;
        self
    }

    /// Sets the status when a drain timed out or a straggler was forced, and no signal was the
    /// cause. The default is 1.
    #[must_use]
    pub fn timed_out(mut self, code: u8) -> Self {
        self.timed_out = code;
        self
    }

    /// Sets the status when a drain timed out or a straggler was forced after a signal. The
    /// default is 1, and 0 in [`lenient`](Self::lenient).
    #[must_use]
    pub fn timed_out_after_signal(mut self, code: u8) -> Self {
        self.timed_out_after_signal = code;
        self
    }

    /// Sets the status when a second signal forces the exit. The default is `None`, which is 128 + n.
    ///
    /// The signal handlers use it, so it applies only to the signals that the policy itself registers, with
    /// `terminate_on` (feature `signal`).
    #[must_use]
    pub fn second_signal(mut self, status: impl Into<Option<u8>>) -> Self {
        self.second_signal = status.into();
        self
    }

    /// Asks `code` for the status of an error before the rows are used.
    ///
    /// `code` is called with the failure that decides, and then with each of its [sources](Error::source)
    /// until it returns a status. The first is the [`TaskError`](crate::TaskError), the next is the task's
    /// own error, and so on.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::BoxError;
    /// use taskgroup::process::ExitPolicy;
    ///
    /// #[derive(Debug, thiserror::Error)]
    /// #[error("the configuration is wrong")]
    /// struct BadConfig;
    ///
    /// let policy = ExitPolicy::strict().code_from(|error| error.is::<BadConfig>().then_some(78));
    /// let exit = policy.exit(Err::<(), BoxError>(BadConfig.into()));
    /// assert_eq!(exit.code(), 78);
    /// ```
    #[must_use]
    pub fn code_from(mut self, code: fn(&(dyn Error + 'static)) -> Option<u8>) -> Self {
        self.code_from = Some(code);
        self
    }

    /// Makes the process die of the signal that stopped it, after a clean drain.
    ///
    /// The parent then sees a process that a signal terminated, as if it had no handler. A shell, for
    /// example, stops its script after a Ctrl-C. The signal is raised when `main` returns the `Exit`, with
    /// the system's default reaction, so SIGQUIT leaves a core file.
    ///
    /// The policy must know the cause, see [`exit_caused_by`](Self::exit_caused_by). The status is 128 + n on
    /// Windows, and for PID 1, which no signal kills.
    #[cfg(feature = "signal")]
    #[must_use]
    pub fn reraise(mut self) -> Self {
        self.reraise = true;
        self
    }

    /// Listens to `set` as [`Signals::terminate_on`], with this policy's status for the second
    /// signal.
    ///
    /// # Errors
    ///
    /// As [`Signals::terminate_on`]. A status of 0 is also rejected, because a forced exit is never a
    /// success.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::Signal;
    /// use taskgroup::process::ExitPolicy;
    ///
    /// let policy = ExitPolicy::strict().second_signal(3);
    /// let signals = policy.terminate_on([Signal::Interrupt])?;
    /// # drop(signals);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(feature = "signal")]
    pub fn terminate_on(&self, set: impl IntoIterator<Item = Signal>) -> io::Result<Signals> {
        if self.second_signal == Some(0) {
            let why = "a forced exit is no success";
            return Err(BuildError::new("an exit policy", "second_signal", "0", why).into());
        }
        Signals::terminate_with(set, |signal| status_of(signal, self.second_signal))
    }

    /// Decides how the process ends.
    ///
    /// Equivalent to [`exit_caused_by`](Self::exit_caused_by) with `None`. An error carries its cause, but an
    /// `Ok` does not, so the row for a signal and a clean drain is not used.
    pub fn exit<X>(&self, result: Result<(), X>) -> Exit
    where
        X: AsRef<dyn Error + Send + Sync>,
    {
        self.exit_caused_by(result, None)
    }

    /// Decides how the process ends, from the `result` of the group and its `cause`, which is
    /// [`TaskGroup::cause`](crate::TaskGroup::cause).
    ///
    /// The error may be that of any group, a [`BoxError`](crate::BoxError), or a report such as
    /// `anyhow::Error`. The policy finds the errors of this crate inside it, with all their details. Without
    /// a cause, that of a [`TaskError`](crate::TaskError) is used.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    /// use taskgroup::process::ExitPolicy;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let policy = ExitPolicy::strict().signal(None); // 128 + n
    /// let mut group = TaskGroup::new();
    /// let result = group.wait().await;
    /// assert_eq!(policy.exit_caused_by(result, group.cause()).code(), 0);
    /// # });
    /// ```
    pub fn exit_caused_by<X>(&self, result: Result<(), X>, cause: Option<Cause>) -> Exit
    where
        X: AsRef<dyn Error + Send + Sync>,
    {
        let Err(error) = result else {
            return self.clean(cause.as_ref()).noted();
        };
        let error: &(dyn Error + 'static) = error.as_ref();
        let signal = signal_of(cause.or_else(|| verdict::cause_of(error)));
        let failures = verdict::failures_of(error);
        self.failure(&failures, signal.is_some()).noted()
    }

    /// The policy that [`Exit::from`] applies.
    fn in_force() -> Self {
        in_force().clone().unwrap_or_default()
    }

    /// Returns the status of an exit that a second signal forces.
    #[cfg(feature = "test-util")]
    pub(crate) fn code_of_second(&self, signal: Signal) -> u8 {
        status_of(signal, self.second_signal)
    }

    /// Decides how a program ends when its body has panicked.
    #[cfg(feature = "signal")]
    pub(crate) fn exit_of_panic(&self, panic: &Panic) -> Exit {
        Exit {
            status: self.panicked,
            report: format!("error: the program panicked: {}", panic.message()),
            verdict: String::new(),
            raise: None,
        }
        .noted()
    }

    fn clean(&self, cause: Option<&Cause>) -> Exit {
        let signal = signal_of(cause.cloned());
        let status = match (cause, signal) {
            (None | Some(Cause::Done), _) => self.done,
            (_, Some(signal)) if self.reraise => status_of(signal, None),
            (_, Some(signal)) => status_of(signal, self.signal),
            (Some(Cause::Requested(request)), _) => request.exit_code().unwrap_or(self.requested),
            _ => self.requested,
        };
        let raise = signal.filter(|_| self.reraise);
        Exit {
            status,
            report: String::new(),
            verdict: String::new(),
            raise,
        }
    }

    fn failure(&self, failures: &[Failed<'_>], after_signal: bool) -> Exit {
        let status = match verdict::decisive(failures) {
            Some((end, error)) => self
                .own_code(error)
                .unwrap_or_else(|| self.code_of(end, after_signal)),
            None => self.failed,
        };
        Exit {
            status,
            report: report(failures),
            verdict: String::new(),
            raise: None,
        }
    }

    fn own_code(&self, error: &(dyn Error + 'static)) -> Option<u8> {
        chain::errors(error).find_map(self.code_from?)
    }

    fn code_of(&self, end: End, after_signal: bool) -> u8 {
        match end {
            End::Panicked => self.panicked,
            End::EndedEarly => self.ended_early,
            End::Aborted => self.aborted,
            End::TimedOut | End::StillRunning if after_signal => self.timed_out_after_signal,
            End::TimedOut | End::StillRunning => self.timed_out,
            // A skipped task is part of another failure, but alone it still counts as one.
            End::Failed | End::Done | End::Skipped => self.failed,
        }
    }
}

/// The policy of the program that runs in this process, if the program set one.
static IN_FORCE: Mutex<Option<ExitPolicy>> = Mutex::new(None);

/// Keeps a policy in force for [`Exit::from`] until it is dropped.
#[cfg(feature = "signal")]
pub(crate) struct InForce {
    before: Option<ExitPolicy>,
}

#[cfg(feature = "signal")]
impl InForce {
    pub(crate) fn new(policy: ExitPolicy) -> Self {
        Self {
            before: in_force().replace(policy),
        }
    }
}

#[cfg(feature = "signal")]
impl Drop for InForce {
    fn drop(&mut self) {
        *in_force() = self.before.take();
    }
}

fn in_force() -> MutexGuard<'static, Option<ExitPolicy>> {
    lock(&IN_FORCE)
}

fn status_of(signal: Signal, status: SignalStatus) -> u8 {
    status.unwrap_or(128 + signal.number())
}

fn signal_of(cause: Option<Cause>) -> Option<Signal> {
    match cause? {
        Cause::Signal(signal) => Some(signal),
        _ => None,
    }
}

/// How many failures get a line of their own.
const SHOWN: usize = 10;

fn report(failures: &[Failed<'_>]) -> String {
    let line = |(index, (_, error)): (usize, &Failed<'_>)| {
        let word = if index == 0 { "error" } else { "also" };
        format!("{word}: {}", chain::line_of(*error))
    };
    let shown = failures.iter().enumerate().take(SHOWN);
    let mut lines: Vec<_> = shown.map(line).collect();
    match failures.len() - lines.len() {
        0 => {}
        more => lines.push(format!("also: {more} more")),
    }
    lines.join("\n")
}

/// Takes what [`TaskGroup::wait`](crate::TaskGroup::wait) returned, a boxed error, or a report such as
/// `anyhow::Error`.
impl<X> From<Result<(), X>> for Exit
where
    X: AsRef<dyn Error + Send + Sync>,
{
    fn from(result: Result<(), X>) -> Self {
        ExitPolicy::in_force().exit(result)
    }
}

impl Default for ExitPolicy {
    fn default() -> Self {
        Self::strict()
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        self.leave();
        ExitCode::from(self.status)
    }
}

/// The text for stderr, empty when all went well.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report)
    }
}

impl fmt::Display for ExitPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_signal =
            |status: SignalStatus| status.map_or("128 + n".to_owned(), |code| code.to_string());
        let rows: [(&str, &dyn fmt::Display); 10] = [
            ("done", &self.done),
            ("requested", &self.requested),
            ("signal", &of_signal(self.signal)),
            ("failed", &self.failed),
            ("panicked", &self.panicked),
            ("ended early", &self.ended_early),
            ("aborted", &self.aborted),
            ("timed out", &self.timed_out),
            ("timed out after a signal", &self.timed_out_after_signal),
            ("second signal", &of_signal(self.second_signal)),
        ];
        for (index, (row, status)) in rows.into_iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{row} {status}")?;
        }
        if self.code_from.is_some() {
            f.write_str(", an error's own code first")?;
        }
        if self.reraise {
            f.write_str(", dies of the signal after a clean drain")?;
        }
        Ok(())
    }
}
