//! [`Watchdog`]: ends a process whose stop takes too long.

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;
use std::thread;
use std::thread::Thread;
use std::time::Duration;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use crate::group::Spawner;
use crate::group::TaskGroup;
use crate::group::build_error::BuildError;
use crate::group::cause::Cause;
use crate::group::log::bounded;
use crate::group::log::stderr;
use crate::group::running::Running;
use crate::group::time::Rounded;
#[cfg(feature = "lifecycle")]
use crate::lifecycle::Lifecycle;
use crate::process::exit::decided;
use crate::process::exit::decided::Decided;
use crate::process::termination;
use crate::process::threads;
use crate::server::forced;

/// Ends the process if its stop takes longer than a budget, whatever the runtime is doing.
///
/// The budget is the time of the whole stop, from the moment the token fires until the process is gone. When
/// it is over, one line on stderr says what the budget was, why the stop began and what was still running,
/// and the process ends with status 1, or [as the run has ended](#after-the-run). The watchdog has a thread
/// of its own, named `taskgroup-watchdog`, so it works where the timers of a runtime do not. One blocked
/// worker can be enough to stop all timers. It also works for a closure of `spawn_blocking` that hangs, for
/// which `#[tokio::main]` waits when its body is over.
///
/// A `Watchdog` is only the plan. [`arm`](Self::arm) and [`arm_on`](Self::arm_on) start the thread.
///
/// **It is for the owner of a process alone**, for `main`. A library must not end the process of its caller,
/// and a test must not end its runner. Nothing in this crate arms a watchdog by itself.
///
/// # The budget
///
/// It has to be shorter than what the platform grants before it kills, such as the 30 s of Kubernetes, and
/// longer than the graces inside it, so that it ends only what they could not. [`Duration::ZERO`] ends the
/// process as soon as the token fires, [`Duration::MAX`] never does.
///
/// The budget is measured with [`Instant`]. On Linux and macOS the time in which the machine is suspended
/// does not count. The time in which the process is stopped (SIGSTOP, a debugger) does.
///
/// The budget does not run before the token fires. Use a liveness probe for a program that hangs without
/// having been asked to stop.
///
/// # After the run
///
/// The run may be over while something holds up the end of `main`. For example, `#[tokio::main]` waits for
/// every closure of `spawn_blocking`. If an [`Exit`](crate::Exit) was made since the stop began, or no task
/// is running in the group, the line says that the run was over, with the status and the errors of the last
/// `Exit`, and which threads are left. Only Linux tells their names, and elsewhere the line says that they
/// are not known. The process then ends with the status of that `Exit`. If that is 0, the watchdog's own
/// status is used, because a forced end is never a success. Without an `Exit`, and for
/// [`arm_on`](Self::arm_on), the run counts as still going on.
///
/// # How it ends the process
///
/// Another thread writes the line, and has 200 ms for it. A stderr that accepts no bytes, a panic, or a lock
/// that is held forever costs the line and not the end. On Unix the thread bypasses the lock of
/// [`std::io::stderr`]. If the system has no thread left, the watchdog writes the line itself.
///
/// At the same time it ends what would outlive the process and what only destructors would have ended. The
/// child processes of `Sidecar::serve_process` (feature `process`) get SIGTERM, and half a second later it
/// kills their process groups. It does not wait that long if they end earlier. If a server was about to close
/// its listening socket, the watchdog restores the socket, as another process may hold it too.
///
/// Then the process ends with `_exit`, and not with [`process::exit`](std::process::exit), because the
/// orderly way out has had its time. Functions registered with `atexit` would run beside threads that still
/// use what they tear down. A crash there would change the status, and they may hang. If another thread is
/// hanging in `exit` already, a second call would wait for that one. No destructor runs, and what is still in
/// a buffer of stdout is lost. Windows has no such call, so the watchdog calls `process::exit` there, and
/// aborts if that has not ended the process within 200 ms.
///
/// # Comparison to the other ends
///
/// [`TaskGroup::shutdown`] bounds the stop of a group with the timers of the runtime, and returns an error to
/// be handled. It comes first, with less time. [`Exit::now`](crate::Exit::now) ends a process whose `main`
/// cannot return, if `main` gets that far. The second signal of [`Signals`](crate::Signals) ends the process
/// in the same way, by hand.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use taskgroup::{BoxError, Exit, TaskGroup};
/// use taskgroup::process::Watchdog;
///
/// fn main() -> Exit {
///     taskgroup::main(async |signals| -> Result<(), BoxError> {
///         let mut group = TaskGroup::new();
///         group.cancel_on(signals);
///         Watchdog::new(Duration::from_secs(28)).arm(&group)?.keep();
///         // spawn servers and workers here
///         Ok(group.wait().await?)
///     })
/// }
/// ```
#[must_use = "a watchdog does nothing unless it is armed"]
pub struct Watchdog {
    budget: Duration,
    code: u8,
    report: Box<dyn FnOnce(&str) + Send>,
    /// `None` if it ends the process.
    exit: Option<Box<dyn FnOnce(u8) + Send>>,
}

/// A [`Watchdog`] that waits for its token. Dropping it disarms it.
///
/// # Drop
///
/// The watchdog no longer ends the process, even if the budget has begun, and its thread ends by itself. The
/// drop does not wait for it. A watchdog whose budget is over cannot be called back.
///
/// A `main` that drops it as its last value is not watched while the runtime shuts down after it. See
/// [`keep`](Self::keep).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::CancellationToken;
/// use taskgroup::process::Watchdog;
///
/// let token = CancellationToken::new();
/// let watchdog = Watchdog::new(Duration::from_secs(5)).arm_on(&token)?;
/// token.cancel();
/// drop(watchdog); // stopped in time
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "the watchdog is disarmed when the value is dropped; `keep` it armed"]
#[derive(Debug)]
pub struct ArmedWatchdog {
    disarm: DropGuard,
}

/// How long the report may delay the end.
const REPORTING: Duration = Duration::from_millis(200);

impl Watchdog {
    /// Plans the end of the process, with status 1, `budget` after the token has fired.
    ///
    /// With [`Duration::ZERO`] the process ends when the token fires, with [`Duration::MAX`] never.
    pub fn new(budget: Duration) -> Self {
        Self {
            budget,
            code: 1,
            report: Box::new(stderr::write_line),
            exit: None,
        }
    }

    /// Sets the exit status. The default is 1, and arming fails with 0.
    ///
    /// If the run was over and had failed, its status is used instead, see [`Watchdog`].
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Passes the report to `report`, for example for a log, instead of writing it to stderr.
    ///
    /// It is called on a thread of its own and may take 200 ms. Then the process ends, even if it has
    /// panicked or is still busy.
    pub fn report_with(mut self, report: impl FnOnce(&str) + Send + 'static) -> Self {
        self.report = Box::new(report);
        self
    }

    /// Calls `exit` with the exit status instead of ending the process.
    ///
    /// It is for tests, and for another kind of end, such as an abort that leaves a core file. The thread of
    /// the watchdog calls `exit` and does nothing else. `exit` decides whether and when the process ends, and
    /// has to deal with its child processes.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::process;
    /// use std::time::Duration;
    /// use taskgroup::process::Watchdog;
    ///
    /// let watchdog = Watchdog::new(Duration::from_secs(28)).exit_with(|_status| process::abort());
    /// # drop(watchdog);
    /// ```
    pub fn exit_with(mut self, exit: impl FnOnce(u8) + Send + 'static) -> Self {
        self.exit = Some(Box::new(exit));
        self
    }

    /// Starts the thread that waits for the token of `group`. Its report says why the group was cancelled,
    /// and what is running in it and in the groups below it.
    ///
    /// It does not keep the group open. The token of a group also fires when the group is dropped.
    ///
    /// # Errors
    ///
    /// As [`arm_on`](Self::arm_on).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    /// use taskgroup::TaskGroup;
    /// use taskgroup::process::Watchdog;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let group = TaskGroup::new();
    /// group.task("kafka").spawn(std::future::pending::<Result<(), _>>());
    ///
    /// let (sender, report) = mpsc::channel();
    /// let _armed = Watchdog::new(Duration::from_millis(10))
    ///     .report_with(move |report| sender.send(report.to_owned()).unwrap())
    ///     .exit_with(drop) // as a test does
    ///     .arm(&group)?;
    /// group.cancel_because("the lease was lost");
    ///
    /// let report = report.recv().unwrap();
    /// assert!(report.contains("did not stop within 10ms"));
    /// assert!(report.contains("the lease was lost"));
    /// assert!(report.contains("still running: 1 task: `kafka`"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn arm<E: Send + 'static>(self, group: &TaskGroup<E>) -> io::Result<ArmedWatchdog> {
        let spawner = group.spawner();
        self.start(group.token().clone(), move || {
            Some((spawner.cause(), spawner.running()))
        })
    }

    /// Starts the thread that waits for `token`, for a program without a group of its own.
    ///
    /// If the token has fired already, the budget counts from now. Two watchdogs on one token are independent
    /// of each other.
    ///
    /// # Errors
    ///
    /// The system's error if it has no thread left, and [`InvalidInput`](io::ErrorKind::InvalidInput) if the
    /// exit status is 0, as a forced end is never a success. The watchdog is not armed then.
    ///
    /// # Examples
    ///
    /// See [`ArmedWatchdog`].
    pub fn arm_on(self, token: &CancellationToken) -> io::Result<ArmedWatchdog> {
        self.start(token.clone(), || None)
    }

    /// Returns the same plan with another budget.
    fn with_budget(self, budget: Duration) -> Self {
        Self { budget, ..self }
    }

    /// Waits for the token of `trigger`. The report lists the tasks that are running in `work`.
    fn arm_for(self, trigger: &Spawner, work: Spawner) -> io::Result<ArmedWatchdog> {
        let cause = trigger.clone();
        self.start(trigger.token().clone(), move || {
            Some((cause.cause(), work.running()))
        })
    }

    fn start(
        self,
        token: CancellationToken,
        look: impl FnOnce() -> Option<Seen> + Send + 'static,
    ) -> io::Result<ArmedWatchdog> {
        if self.code == 0 {
            let why = "a forced end is no success";
            return Err(BuildError::new("a watchdog", "code", "0", why).into());
        }
        let disarmed = CancellationToken::new();
        let disarm = disarmed.clone().drop_guard();
        thread::Builder::new()
            .name("taskgroup-watchdog".into())
            .spawn(move || {
                if let Some(fired) = budget_is_over(self.budget, &token, &disarmed) {
                    self.fire(fired, look);
                }
            })?;
        Ok(ArmedWatchdog { disarm })
    }

    /// Leaves everything that can hang to the thread of the report, including the locks of the group.
    fn fire(self, fired: Instant, look: impl FnOnce() -> Option<Seen> + Send + 'static) {
        let budget = self.budget;
        let status = Arc::new(AtomicU8::new(self.code));
        let seen_status = Arc::clone(&status);
        let look = move || {
            let end = Forced::new(budget, fired, look());
            if let Some(failed) = end.status() {
                seen_status.store(failed, Ordering::Relaxed);
            }
            end.to_string()
        };
        let in_pod = self.exit.is_none();
        let writing = bounded::start((self.report, look), move |(report, look)| {
            let line = look();
            if in_pod {
                termination::write(&line, REPORTING / 4);
            }
            report(&line);
        });
        if self.exit.is_none() {
            // This runs beside the report, so that both together take no longer than one of them.
            forced::begin();
            forced::undo_all(forced::TELLING, || false);
        }
        match writing {
            Ok(writing) => writing.wait(REPORTING),
            Err((_, look)) => stderr::write_line_here(&look(), REPORTING),
        }
        let status = status.load(Ordering::Relaxed);
        match self.exit {
            Some(exit) => exit(status),
            None => forced::end(status),
        }
    }
}

#[cfg(feature = "lifecycle")]
impl Lifecycle {
    /// Ends the process if the stop takes longer than the budget, whatever the runtime is doing.
    ///
    /// See [`Watchdog`]. The budget is that of the lifecycle. It counts from the moment the stop begins until
    /// the process is gone. The watchdog stays armed when the run has ended, because a thread that hangs can
    /// hold up the end of `main`. **It is for the owner of a process alone**, so a lifecycle inside another
    /// one has no watchdog.
    pub fn watchdog(self) -> Self {
        self.watchdog_with(|watchdog| watchdog)
    }

    /// The same with options, such as another exit status or a custom report.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::Lifecycle;
    ///
    /// let lifecycle = Lifecycle::new("orders").watchdog_with(|watchdog| watchdog.code(70));
    /// # drop(lifecycle);
    /// ```
    pub fn watchdog_with(self, options: impl FnOnce(Watchdog) -> Watchdog) -> Self {
        let watchdog = options(Watchdog::new(Duration::MAX));
        self.guard_with(|budget, trigger, work| {
            watchdog.with_budget(budget).arm_for(trigger, work)?.keep();
            Ok(())
        })
    }
}

impl ArmedWatchdog {
    /// Keeps the watchdog armed until the process is gone.
    ///
    /// It is for a `main` that waits for more than its body when it returns. `#[tokio::main]` waits for every
    /// closure of `spawn_blocking`, and destructors of statics and thread-locals come after that. A process
    /// that ends in time is not disturbed.
    ///
    /// This cannot be undone. The token must be one that fires only when the process is to end. The token of
    /// a group in the middle of a program would take the rest of the program with it.
    pub fn keep(self) {
        self.disarm.disarm();
    }
}

/// What the group knew at the end, which is the cause and the running tasks.
type Seen = (Option<Cause>, Running);

/// Waits until `budget` has passed since `token` fired, and returns when it fired. Returns `None` as soon as
/// it is disarmed.
fn budget_is_over(
    budget: Duration,
    token: &CancellationToken,
    disarmed: &CancellationToken,
) -> Option<Instant> {
    let fired = wait_until(disarmed.run_until_cancelled(token.cancelled()), None);
    fired.flatten()?;
    let fired = Instant::now();
    // A moment that the clock cannot express never comes.
    let deadline = fired.checked_add(budget);
    let disarmed = wait_until(disarmed.cancelled(), deadline);
    disarmed.is_none().then_some(fired)
}

/// Runs `future` on this thread, without a runtime, and gives up at the deadline if there is one.
///
/// No wakeup is lost, since a thread that is unparked before it parks does not park. After a spurious wakeup
/// the future and the clock are checked again.
fn wait_until<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => thread::park(),
            Some(Duration::ZERO) => return None,
            Some(left) => thread::park_timeout(left),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What is known about a process when it is ended.
struct Forced {
    budget: Duration,
    cause: Option<Cause>,
    running: Option<Running>,
    /// How the run has ended, if it is over.
    over: Option<Decided>,
}

impl Forced {
    fn new(budget: Duration, fired: Instant, seen: Option<Seen>) -> Self {
        let (cause, running) = match seen {
            Some((cause, running)) => (cause, Some(running)),
            None => (None, None),
        };
        let over = running.as_ref().and_then(|running| {
            // An end decided before the stop is that of another run, unless no task is left to run.
            decided::last().filter(|decided| running.is_empty() || decided.at() >= fired)
        });
        Self {
            budget,
            cause,
            running,
            over,
        }
    }

    /// Returns the status of a run that is over and has failed.
    fn status(&self) -> Option<u8> {
        let status = self.over.as_ref()?.status();
        (status != 0).then_some(status)
    }
}

impl fmt::Display for Forced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let budget = Rounded(self.budget);
        write!(f, "error: the process did not stop within {budget}")?;
        if let Some(cause) = &self.cause {
            write!(f, " ({cause})")?;
        }
        f.write_str(" and is ended")?;
        if let Some(over) = &self.over {
            write!(f, "; its run was over, with {over}")?;
        }
        match &self.running {
            None => {}
            Some(running) if running.is_empty() => {
                f.write_str("; no task of the group is running")?;
            }
            Some(running) => write!(f, "; still running: {running}")?,
        }
        if self.over.is_some() {
            let names = threads::names();
            write!(f, "; {}", threads::describe(names.as_deref()))?;
        }
        match &forced::names()[..] {
            [] => Ok(()),
            names => write!(f, "; ended with it: {}", names.join(", ")),
        }
    }
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog")
            .field("budget", &self.budget)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}
