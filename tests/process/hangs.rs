//! The ways in which a stop hangs, each with a watchdog.

use std::cell::Cell;
use std::fs;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;
use rustix::time::ClockId;
use rustix::time::clock_gettime;
use taskgroup::lifecycle::Lifecycle;
use taskgroup::process::{ExitPolicy, Watchdog};
use taskgroup::{CancellationToken, Exit, TaskGroup};
use tokio::sync::oneshot;

use crate::mains::with_a_blocked_worker;
use crate::roles::runtime;
use crate::roles::say;
use crate::roles::stopped_by_signals;
use crate::roles::success;
use crate::roles::terminate;

/// What all the watchdogs here give.
pub(crate) const BUDGET: Duration = Duration::from_millis(300);

/// The budget of a run that gives up what is stuck, which takes it a second.
const FORCED: Duration = Duration::from_secs(3);

pub(crate) fn play(role: &str) -> Exit {
    match role {
        "watched_one_of_two_workers" => workers(1),
        "watched_all_workers" => workers(2),
        "watched_current_thread" => current_thread(),
        "watched_tokio_main" => tokio_main(),
        "watched_after_a_failed_run" => after_the_run(failed_run),
        "watched_after_a_clean_run" => after_the_run(clean_run),
        "watched_after_a_forced_run" => forced_run(),
        "watched_stdout_is_locked" => blocking(|| hang_with(io::stdout().lock())),
        "watched_stderr_is_locked" => blocking(|| hang_with(io::stderr().lock())),
        "watched_without_descriptors" => blocking(hang_without_descriptors),
        "watched_without_threads" => without_threads(),
        "watched_exit" => exit(),
        "watched_clean" => clean(),
        "watched_disarmed" => disarmed(),
        "watched_no_thread" => no_thread(),
        "watched_idle" => idle(),
        _ => unreachable!("no role {role}"),
    }
}

fn watched(group: &TaskGroup) {
    Watchdog::new(BUDGET).arm(group).unwrap().keep();
}

pub(crate) fn hang() {
    say("hanging");
    loop {
        thread::sleep(Duration::MAX);
    }
}

fn hang_with<T>(_held: T) {
    hang();
}

fn hang_without_descriptors() {
    limit(Resource::Nofile, 0);
    hang();
}

fn without_threads() -> Exit {
    blocking(|| {
        limit(Resource::As, memory() + (1 << 20));
        hang();
    })
}

/// Of two, `count` sleep forever; `wait` is on the thread of `main`, which is not one of them.
fn workers(count: usize) -> Exit {
    runtime().block_on(async {
        let mut group = stopped_by_signals();
        watched(&group);
        for _ in 0..count {
            group.task("stuck").spawn(async { Ok(hang()) });
        }
        Exit::from(group.wait().await)
    })
}

/// The task blocks the only thread there is, that of `main`.
fn current_thread() -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        let mut group = stopped_by_signals();
        watched(&group);
        group.task("stuck").spawn(async { Ok(hang()) });
        Exit::from(group.wait().await)
    })
}

/// The body ends, and what waits for the closure is what the macro has written.
#[tokio::main]
async fn tokio_main() -> Exit {
    let group = TaskGroup::new();
    watched(&group);
    let (started, starts) = oneshot::channel();
    group.task("stuck").spawn_blocking(|_| {
        started.send(()).unwrap();
        Ok(hang())
    });
    starts.await.unwrap();
    say("the body is over");
    success()
}

/// What `#[tokio::main]` does: a closure that hangs holds up the end of the runtime.
fn after_the_run(run: impl AsyncFnOnce(TaskGroup) -> Exit) -> Exit {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(2)
        .enable_all()
        .thread_name("orders-rt");
    builder.build().unwrap().block_on(async {
        let (started, starts) = oneshot::channel();
        tokio::task::spawn_blocking(|| {
            started.send(()).unwrap();
            hang();
        });
        starts.await.unwrap();
        let group = TaskGroup::builder().name("orders").build().unwrap();
        watched(&group);
        run(group).await
    })
}

async fn failed_run(mut group: TaskGroup) -> Exit {
    let reader = async { Err::<(), _>("no table".into()) };
    group.task("reader").spawn(reader);
    let result = group.wait().await;
    let policy = ExitPolicy::strict().failed(70);
    policy.exit_caused_by(result, group.cause())
}

async fn clean_run(mut group: TaskGroup) -> Exit {
    group.cancel_because("the lease was lost");
    Exit::from(group.wait().await)
}

/// A component that blocks its thread is given up; the end of the runtime waits for it.
fn forced_run() -> Exit {
    runtime().block_on(async {
        let orders = Lifecycle::new("orders").budget(FORCED).watchdog();
        let report = with_a_blocked_worker(orders.stop_on(terminate())).await;
        let policy = ExitPolicy::strict().timed_out_after_signal(71);
        policy.exit_of(&report.unwrap())
    })
}

fn blocking(hang: fn()) -> Exit {
    runtime().block_on(async {
        let mut group = stopped_by_signals();
        watched(&group);
        group.task("stuck").spawn_blocking(move |_| Ok(hang()));
        Exit::from(group.wait().await)
    })
}

/// What runs inside of `exit` hangs: no other thread can leave through it.
fn exit() -> Exit {
    struct Hangs(CancellationToken);
    impl Drop for Hangs {
        fn drop(&mut self) {
            self.0.cancel();
            hang();
        }
    }
    thread_local!(static HANGS: Cell<Option<Hangs>> = const { Cell::new(None) });

    let token = CancellationToken::new();
    Watchdog::new(BUDGET).arm_on(&token).unwrap().keep();
    HANGS.set(Some(Hangs(token)));
    success().now()
}

fn clean() -> Exit {
    runtime().block_on(async {
        let mut group = stopped_by_signals();
        // A child that is not done by then has failed anyway.
        let budget = Duration::from_secs(25);
        Watchdog::new(budget).arm(&group).unwrap().keep();
        let token = group.token().clone();
        group.spawn(async move { Ok(token.cancelled().await) });
        say("ready");
        Exit::from(group.wait().await)
    })
}

/// Another one, with more time and another end, shows that the time of the first is over.
fn disarmed() -> Exit {
    let token = CancellationToken::new();
    let (sender, over) = mpsc::channel();
    let disarmed = Watchdog::new(BUDGET).arm_on(&token).unwrap();
    let other = Watchdog::new(2 * BUDGET)
        .report_with(|_| ())
        .exit_with(move |_| sender.send(()).unwrap());
    other.arm_on(&token).unwrap().keep();

    token.cancel();
    drop(disarmed);
    over.recv().unwrap();
    success()
}

/// One waits for its token while the other waits for its time, which is over when all is.
fn idle() -> Exit {
    let (token, other) = (CancellationToken::new(), CancellationToken::new());
    let (sender, over) = mpsc::channel();
    let _waits = Watchdog::new(BUDGET).arm_on(&token).unwrap();
    let counts = Watchdog::new(BUDGET)
        .report_with(|_| ())
        .exit_with(move |_| sender.send(()).unwrap());
    let _counts = counts.arm_on(&other).unwrap();

    other.cancel();
    over.recv().unwrap();
    let used = clock_gettime(ClockId::ProcessCPUTime);
    say(Duration::try_from(used).unwrap() < BUDGET / 3);
    success()
}

fn no_thread() -> Exit {
    // A megabyte more is enough for all but the stack of a thread; a limit of processes would not
    // hold for root.
    limit(Resource::As, memory() + (1 << 20));
    let refused = Watchdog::new(BUDGET).arm_on(&CancellationToken::new());
    say(refused.is_err());
    success()
}

/// How many bytes the process has mapped.
pub(crate) fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let size = lines.find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let kilobytes: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes << 10
}

/// What the process has it keeps.
pub(crate) fn limit(resource: Resource, most: u64) {
    let limit = Rlimit {
        current: Some(most),
        ..getrlimit(resource)
    };
    setrlimit(resource, limit).unwrap();
}
