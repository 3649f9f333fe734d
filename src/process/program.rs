//! [`main`] and [`Program`]: a whole program, from its signals to its exit status.

use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::runtime::Runtime;

use crate::BoxError;
use crate::group::build_error::BuildError;
use crate::group::log::bounded;
use crate::group::log::console;
use crate::group::panic::Panic;
use crate::group::signal::Signal;
use crate::process::exit::Exit;
use crate::process::exit::ExitPolicy;
use crate::process::exit::InForce;
use crate::process::signals::Signals;
use crate::process::signals::TERMINATE;
use crate::server::forced;

/// Runs `body` as the whole of a program, and returns how the process ends.
///
/// Call it in `fn main() -> Exit`. In this order it
///
/// 1. registers SIGINT and SIGTERM, as [`Signals::terminate`] does, and hands them to `body`;
/// 2. builds a runtime of several threads, with timers and IO;
/// 3. runs `body` on it, on the thread of `main`;
/// 4. makes an [`Exit`] of the value of `body`, which may be of any type that converts to one, such as the
///    result of a group or of a lifecycle;
/// 5. drops the runtime, without waiting for its threads.
///
/// If the program has installed no `tracing` subscriber, the lines that matter to a person at the terminal go
/// to stderr. They tell what stops the program, how to force the exit, what the program waits for, and how it
/// ended. With a subscriber they are only events. If nobody reads stderr, the lines are lost, but the program
/// is not held up.
///
/// When `main` returns it, the [`Exit`] prints its report and ends the process. A [`Program`] has options for
/// another runtime, other signals or another policy. This function is equivalent to
/// `Program::new().run(body)`.
///
/// # The end
///
/// The status is that of `body`, even if other work is still running. At the end of its body,
/// `#[tokio::main]` waits forever for a thread that a task has blocked, a closure of `spawn_blocking` that
/// hangs, or a read of [`tokio::io::stdin`](https://docs.rs/tokio/latest/tokio/io/fn.stdin.html) that gets no
/// input. This function does not wait. Another thread drops what the remaining tasks own, and has one second
/// for it. The end of the process cuts the rest.
///
/// While `body` runs, a task that blocks its thread holds up the other work of that thread. The runtime has
/// at least two threads, so one blocked thread stops neither the timers nor the stop. For more than one, arm
/// a [`Watchdog`](crate::process::Watchdog).
///
/// # Errors
///
/// It reports errors only in the `Exit`. If a signal cannot be registered, or the runtime cannot be built,
/// `body` is not called, and the `Exit` has the status of a failure and the reason.
///
/// # Panics
///
/// It catches a panic of `body`. The `Exit` then has the message, and the policy's status for panics, which
/// is 1 by default.
///
/// # Comparison to `#[tokio::main]`
///
/// The attribute builds the same runtime. It leaves the signals at their default reaction until the body has
/// registered them, and it waits for blocked threads at the end. Use it where neither matters, for example in
/// a test or a tool.
///
/// # Examples
///
/// ```no_run
/// use taskgroup::Exit;
/// # #[cfg(feature = "lifecycle")]
/// use taskgroup::lifecycle::{Component, Lifecycle};
///
/// # #[cfg(feature = "lifecycle")]
/// fn main() -> Exit {
///     taskgroup::main(async |signals| {
///         let worker = Component::new("worker", |ctx| async move {
///             ctx.ready();
///             Ok(ctx.stopping().await)
///         });
///         Lifecycle::new("orders").component(worker).stop_on(signals).run().await
///     })
/// }
/// # #[cfg(not(feature = "lifecycle"))]
/// # fn main() {}
/// ```
///
/// A body that returns early with `?`:
///
/// ```
/// use taskgroup::{BoxError, Exit, TaskGroup};
///
/// # fn main() {
/// let exit = taskgroup::main(async |signals| -> Result<(), BoxError> {
///     let port: u16 = "http".parse()?;
///     let mut group = TaskGroup::new();
///     group.cancel_on(signals);
///     // spawn servers and workers here
///     # drop(port);
///     Ok(group.wait().await?)
/// });
/// assert_eq!(exit.to_string(), "error: invalid digit found in string");
/// # }
/// ```
pub fn main<B, R>(body: B) -> Exit
where
    B: AsyncFnOnce(Signals) -> R,
    Exit: From<R>,
{
    Program::new().run(body)
}

/// The options of [`main`]: the runtime, the signals and the exit policy of a program.
///
/// # Examples
///
/// ```
/// use taskgroup::{BoxError, Program, Signal};
/// use taskgroup::process::ExitPolicy;
///
/// let program = Program::new()
///     .worker_threads(4)
///     .signals([Signal::Terminate])
///     .policy(ExitPolicy::strict().failed(70));
/// let exit = program.run(async |_signals| Err::<(), BoxError>("no database".into()));
/// assert_eq!(exit.code(), 70);
/// ```
#[derive(Debug)]
#[must_use = "a program does nothing until it runs"]
pub struct Program {
    threads: Threads,
    signals: Option<Vec<Signal>>,
    policy: ExitPolicy,
}

#[derive(Debug)]
enum Threads {
    /// One thread for each processor, and at least two.
    Default,
    Workers(usize),
    Current,
    /// A runtime that the caller configures.
    Own(Box<runtime::Builder>),
}

/// The minimum number of workers. With one, a task that blocks it stops all timers.
const WORKERS: usize = 2;

/// How long writing the last lines may take.
const SAYING: Duration = Duration::from_secs(1);

/// How long the runtime may take to drop the remaining tasks.
const LETTING_GO: Duration = Duration::from_secs(1);

impl Program {
    /// Makes a program with the options of [`main`].
    pub fn new() -> Self {
        Self {
            threads: Threads::Default,
            signals: None,
            policy: ExitPolicy::strict(),
        }
    }

    /// Sets the number of threads of the runtime.
    ///
    /// By default it is the number of processors that the process may use, and at least 2. The variable
    /// `TOKIO_WORKER_THREADS` is ignored. With 0 the program does not start. The last call of this method,
    /// [`current_thread`](Self::current_thread) or [`runtime`](Self::runtime) wins.
    pub fn worker_threads(mut self, count: usize) -> Self {
        self.threads = Threads::Workers(count);
        self
    }

    /// Runs everything on the thread of `main`.
    ///
    /// A task that blocks it holds up all others, and the stop too. Only a second signal or a
    /// [`Watchdog`](crate::process::Watchdog) then ends the process.
    pub fn current_thread(mut self) -> Self {
        self.threads = Threads::Current;
        self
    }

    /// Builds the runtime with `builder` unchanged. The caller has to call `enable_all` if it is needed.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::Program;
    ///
    /// let mut runtime = tokio::runtime::Builder::new_multi_thread();
    /// runtime.enable_all().thread_name("orders");
    /// let program = Program::new().runtime(runtime);
    /// # drop(program);
    /// ```
    pub fn runtime(mut self, builder: runtime::Builder) -> Self {
        self.threads = Threads::Own(Box::new(builder));
        self
    }

    /// Sets the signals that ask the program to stop, in place of those of
    /// [`Signals::terminate`].
    ///
    /// An empty set, or a signal that the platform does not have, keeps the program from starting. See
    /// [`Signals::terminate_on`].
    pub fn signals(mut self, set: impl IntoIterator<Item = Signal>) -> Self {
        self.signals = Some(set.into_iter().collect());
        self
    }

    /// Sets the exit policy. The default is [`ExitPolicy::strict`].
    ///
    /// It sets the status for the second signal and for a panic of the body. [`Exit::from`](Exit) applies it
    /// while the program runs, and so does the conversion of the body's value.
    pub fn policy(mut self, policy: ExitPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Runs `body` as the whole of a program. See [`main`], also for errors and panics.
    pub fn run<B, R>(self, body: B) -> Exit
    where
        B: AsyncFnOnce(Signals) -> R,
        Exit: From<R>,
    {
        let Self {
            threads,
            signals,
            policy,
        } = self;
        let _in_force = InForce::new(policy.clone());
        console::open();
        let exit = run(threads, signals, &policy, body);
        // This comes before the report, which is printed when `main` returns.
        console::close(SAYING);
        exit
    }
}

fn run<B, R>(threads: Threads, signals: Option<Vec<Signal>>, policy: &ExitPolicy, body: B) -> Exit
where
    B: AsyncFnOnce(Signals) -> R,
    Exit: From<R>,
{
    let (signals, runtime) = match begin(threads, signals, policy) {
        Ok(begun) => begun,
        Err(error) => return policy.exit(Err(error)),
    };
    let ended = Panic::catch(|| Exit::from(runtime.block_on(body(signals))));
    // Another thread drops the runtime if possible, because a destructor may block.
    let unended = bounded::within(LETTING_GO, runtime, Runtime::shutdown_background).err();
    if let Some(runtime) = unended {
        runtime.shutdown_background();
    }
    // The tasks of a blocked thread still hold their resources.
    forced::undo_all(forced::TELLING, || false);
    ended.unwrap_or_else(|panic| policy.exit_of_panic(&panic))
}

/// Registers the signals first, because building the runtime takes time.
fn begin(
    threads: Threads,
    signals: Option<Vec<Signal>>,
    policy: &ExitPolicy,
) -> Result<(Signals, Runtime), BoxError> {
    let signals = policy.terminate_on(signals.unwrap_or_else(|| TERMINATE.to_vec()))?;
    Ok((signals, threads.build()?))
}

impl Threads {
    fn build(self) -> Result<Runtime, BoxError> {
        let mut builder = match self {
            Self::Workers(0) => {
                let why = "nothing could ever run";
                let refused = BuildError::new("a program", "worker_threads", "0", why);
                return Err(refused.into());
            }
            Self::Workers(count) => several(count),
            Self::Default => {
                let processors = thread::available_parallelism();
                several(processors.map_or(WORKERS, |count| WORKERS.max(count.get())))
            }
            Self::Current => {
                let mut builder = runtime::Builder::new_current_thread();
                builder.enable_all();
                builder
            }
            Self::Own(builder) => *builder,
        };
        let runtime = builder.build();
        Ok(runtime.map_err(|error| format!("cannot build the runtime: {error}"))?)
    }
}

fn several(workers: usize) -> runtime::Builder {
    let mut builder = runtime::Builder::new_multi_thread();
    builder.worker_threads(workers).enable_all();
    builder
}

impl Default for Program {
    fn default() -> Self {
        Self::new()
    }
}
