//! Whole programs, as `taskgroup::main` runs them.

use std::future::pending;
use std::thread;
use std::time::Duration;

use taskgroup::cleanup::Step;
use taskgroup::group::StopRequest;
use taskgroup::lifecycle::{Budget, Component, Lifecycle, PlanError, Provided, Report};
use taskgroup::process::ExitPolicy;
use taskgroup::{BoxError, Exit, Program, Signals, TaskError, TaskGroup};
use tokio::io::AsyncReadExt;
use tokio::runtime;
use tokio::sync::oneshot;
use tracing_subscriber::filter::LevelFilter;

use crate::hangs::BUDGET;
use crate::roles::log_to_stderr;
use crate::roles::say;

pub(crate) fn play(role: &str) -> Exit {
    match role {
        "main_group" => taskgroup::main(group),
        "main_logged_group" => taskgroup::main(async |signals| {
            log_to_stderr();
            group(signals).await
        }),
        "main_lifecycle" => taskgroup::main(async |signals| run(signals, waits()).await),
        "main_logged_lifecycle" => taskgroup::main(async |signals| {
            log_to_stderr();
            run(signals, waits()).await
        }),
        "main_filtered_lifecycle" => taskgroup::main(async |signals| {
            tracing_subscriber::fmt()
                .with_max_level(LevelFilter::OFF)
                .init();
            run(signals, waits()).await
        }),
        "main_failing_lifecycle" => taskgroup::main(async |signals| run(signals, fails()).await),
        "main_stdin" => taskgroup::main(async |signals| run(signals, reads_stdin()).await),
        "main_blocked_worker" => two_workers().run(blocked_worker),
        "main_blocking_closure" => taskgroup::main(blocking_closure),
        "main_blocking_destructor" => Program::new().current_thread().run(blocking_destructor),
        "main_panics" => Program::new()
            .policy(ExitPolicy::strict().panicked(70))
            .run(async |_| -> Result<(), BoxError> { panic!("no table") }),
        "main_without_signals" => Program::new().signals([]).run(never),
        "main_without_workers" => Program::new().worker_threads(0).run(never),
        "main_policy" => Program::new()
            .policy(ExitPolicy::strict().failed(70).second_signal(3))
            .run(policy),
        "main_early_signal" => early_signal(),
        "main_done" => asked(Component::job("job", |_| async { Ok(()) })),
        "main_called" => asked(stops("the queue is empty".into())),
        "main_called_with_a_status" => asked(stops(StopRequest::new("restart").code(75))),
        "main_called_and_failed" => asked(Component::new("worker", |ctx| async move {
            ctx.ready();
            ctx.stop(StopRequest::new("restart").code(75));
            ctx.stopping().await;
            Err("no table".into())
        })),
        "main_blocking_step" => two_workers().run(async |signals| {
            let stuck = Step::new("stuck", |_| async { Ok(hang()) });
            clean(signals, stuck).await
        }),
        "main_blocking_destructor_of_a_step" => two_workers().run(async |signals| {
            let hangs = Hangs;
            let stuck = Step::new("stuck", |_| async move { Ok(drop(hangs)) });
            clean(signals, stuck).await
        }),
        "main_blocking_step_on_its_own_thread" => {
            Program::new().current_thread().run(async |signals| {
                let stuck = Step::blocking("stuck", |_| Ok(hang()));
                clean(signals, stuck).await
            })
        }
        "main_blocking_destructor_of_a_value" => two_workers().run(blocking_value),
        "main_watched_step" => Program::new().current_thread().run(watched_step),
        _ => unreachable!("no role {role}"),
    }
}

fn two_workers() -> Program {
    Program::new().worker_threads(2)
}

async fn never(_signals: Signals) -> Result<(), BoxError> {
    say("the body was called");
    Ok(())
}

async fn group(signals: Signals) -> Result<(), TaskError> {
    let mut group = TaskGroup::builder().name("orders").build().unwrap();
    group.cancel_on(signals);
    let token = group.token().clone();
    group.spawn(async move { Ok(token.cancelled().await) });
    say("ready");
    group.wait().await
}

async fn run(signals: Signals, component: Component) -> Result<Report, PlanError> {
    let orders = Lifecycle::new("orders").component(component);
    orders.stop_on(signals).run().await
}

/// The thread that reads it is never given back: nobody writes.
fn reads_stdin() -> Component {
    Component::new("console", |ctx| async move {
        let mut stdin = tokio::io::stdin();
        let mut buffer = [0];
        let read = stdin.read(&mut buffer);
        ctx.ready();
        say("ready");
        drop(ctx.token().run_until_cancelled(read).await);
        Ok(())
    })
}

fn waits() -> Component {
    Component::new("worker", |ctx| async move {
        ctx.ready();
        say("ready");
        Ok(ctx.stopping().await)
    })
}

/// Two rows of the policy that differ.
fn asked(component: Component) -> Exit {
    let policy = ExitPolicy::strict().done(6).requested(5);
    let program = Program::new().policy(policy);
    program.run(async |signals| run(signals, component).await)
}

fn stops(request: StopRequest) -> Component {
    Component::new("worker", |ctx| async move {
        ctx.ready();
        ctx.stop(request);
        Ok(ctx.stopping().await)
    })
}

fn fails() -> Component {
    Component::job("migrate", |_| async { Err("no table".into()) })
}

async fn blocked_worker(signals: Signals) -> Result<Report, PlanError> {
    with_a_blocked_worker(Lifecycle::new("orders").stop_on(signals)).await
}

/// A component holds its thread before there is a stop, so that it cannot be forced in time on any
/// machine. It is woken from the thread of `main`: nothing else waits for the thread that it holds.
pub(crate) async fn with_a_blocked_worker(orders: Lifecycle) -> Result<Report, PlanError> {
    let (go, gone) = oneshot::channel();
    let stuck = Component::new("stuck", |ctx| async move {
        ctx.ready();
        gone.await?;
        say("ready");
        Ok(hang())
    });
    let orders = orders.component(stuck.grace(Duration::from_millis(50)));
    let handle = orders.handle();
    let block = async {
        handle.ready().await.unwrap();
        go.send(()).unwrap();
    };
    let (report, ()) = tokio::join!(orders.run(), block);
    report
}

async fn blocking_closure(_signals: Signals) -> Result<(), BoxError> {
    let (started, starts) = oneshot::channel();
    tokio::task::spawn_blocking(|| {
        started.send(()).unwrap();
        hang();
    });
    Ok(starts.await?)
}

/// Its destructor blocks the thread.
struct Hangs;

impl Drop for Hangs {
    fn drop(&mut self) {
        hang();
    }
}

/// A lifecycle with a step in front of another one.
async fn clean(signals: Signals, stuck: Step) -> Result<Report, BoxError> {
    let orders = Lifecycle::new("orders").component(waits());
    let cleanup = orders.cleanup();
    cleanup.push(Step::new("last", |_| async { Ok(say("closed")) }))?;
    cleanup.push(stuck.deadline(Duration::from_millis(100)))?;
    Ok(orders.stop_on(signals).run().await?)
}

/// What a job has provided is dropped when everything has ended.
async fn blocking_value(_signals: Signals) -> Result<Report, BoxError> {
    let value = Provided::new("value");
    let job = Component::using(value.provider());
    let job = job.job("job", async |_, value| Ok(value.set(Hangs)));
    let orders = Lifecycle::new("orders").component(job);
    let orders = orders.budget(Budget::new(Duration::from_millis(1500)));
    Ok(orders.run().await?)
}

/// A step that blocks the only thread there is.
async fn watched_step(signals: Signals) -> Result<Report, BoxError> {
    let orders = Lifecycle::new("orders").budget(BUDGET).watchdog();
    let orders = orders.component(waits());
    let cleanup = orders.cleanup();
    cleanup.push(Step::new("stuck", |_| async { Ok(hang()) }))?;
    Ok(orders.stop_on(signals).run().await?)
}

/// What is dropped with the runtime blocks the thread that drops it.
async fn blocking_destructor(_signals: Signals) -> Result<(), BoxError> {
    let (started, starts) = oneshot::channel();
    tokio::spawn(async {
        let _hangs = Hangs;
        started.send(()).unwrap();
        pending::<()>().await;
    });
    Ok(starts.await?)
}

/// The policy counts for an `Exit` that is made in the body, too.
async fn policy(signals: Signals) -> Exit {
    let mut signals = signals.insist_after(Duration::ZERO);
    let failed = Exit::from(Err::<(), BoxError>("no table".into()));
    say("ready");
    signals.recv().await;
    say("received");
    if std::io::stdin().read_line(&mut String::new()).is_err() {
        pending::<()>().await;
    }
    failed
}

/// The first thread of the runtime is not made before the parent says so.
fn early_signal() -> Exit {
    let mut builder = runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().thread_name_fn(|| {
        say("the runtime is being built");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        "worker".to_owned()
    });
    let program = Program::new().runtime(builder);
    program.run(async |mut signals: Signals| -> Result<(), BoxError> {
        say(signals.recv().await);
        Ok(())
    })
}

fn hang() {
    loop {
        thread::sleep(Duration::MAX);
    }
}
