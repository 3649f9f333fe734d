//! Every option that takes a duration takes the longest ones: none overflows a clock, at its start or at its end.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::time::Duration;

use taskgroup::cleanup::{Cleanup, Outcome, Step};
use taskgroup::lifecycle::{Budget, Check, Component, Context, Lifecycle};
use taskgroup::process::{Heartbeat, StopFile};
use taskgroup::supervise::{Backoff, Periodic, Strategy, Supervisor};
use taskgroup::{BoxError, Cause, Sidecar, TaskGroup};
use tokio::time::{sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// Longer than any of this takes unless it waits for a time that never comes.
const DAY: Duration = Duration::from_secs(86_400);

/// What no clock can show; and what one can show, but not add to.
const LONGEST: [Duration; 2] = [Duration::MAX, Duration::from_secs(u64::MAX / 4)];

/// A use of an option from the start to the end.
type Use = fn(Duration) -> Pin<Box<dyn Future<Output = ()>>>;

/// What an option is called, and how it is used.
type Case = (&'static str, Use);

macro_rules! cases {
    ($($name:literal => |$long:ident| $body:block),* $(,)?) => {
        [$(($name, {
            let case: Use = |$long| Box::pin(async move { $body });
            case
        })),*]
    };
}

/// A lifecycle with one component that works for a second when it is told to stop.
fn service(budget: impl Into<Budget>, component: impl FnOnce(Component) -> Component) -> Lifecycle {
    let worker = Component::new("worker", |ctx: Context| async move {
        ctx.ready();
        ctx.stopping().await;
        assert!(ctx.clip(SECOND) <= SECOND);
        ctx.until_deadline(sleep(SECOND)).await?;
        Ok(())
    });
    Lifecycle::new("orders")
        .budget(budget)
        .component(component(worker))
}

/// Runs it and stops it, without jitter and lame duck.
async fn stopped(lifecycle: Lifecycle) {
    let run = lifecycle.start().await.unwrap();
    let report = run.stop_now("enough").await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.took(), SECOND);
}

/// A group with one task that works for a second when it is told to stop.
fn working(group: TaskGroup) -> TaskGroup {
    let token = group.token().clone();
    group.spawn(async move {
        token.cancelled().await;
        Ok(sleep(SECOND).await)
    });
    group
}

async fn wait(mut group: TaskGroup) {
    sleep(SECOND).await;
    group.cancel();
    group.wait().await.unwrap();
}

#[test]
fn the_longest_durations_are_taken_by_every_option() {
    let cases = cases![
        "Builder::deadline" => |long| {
            wait(working(TaskGroup::builder().deadline(long).build().unwrap())).await;
        },
        "Builder::grace" => |long| {
            wait(working(TaskGroup::builder().grace(long).build().unwrap())).await;
        },
        "TaskGroup::shutdown" => |long| {
            working(TaskGroup::new()).shutdown(long).await.unwrap();
        },
        "a trigger that sleeps" => |long| {
            let group = working(TaskGroup::new());
            group.cancel_on(async move { sleep(long).await; Cause::Deadline(long) });
            wait(group).await;
        },
        "StopFile::every" => |long| {
            let group = working(TaskGroup::new());
            group.cancel_on(StopFile::new("not there").every(long));
            wait(group).await;
        },
        "Heartbeat::new" => |long| {
            let group = working(TaskGroup::new());
            let (heartbeat, lost) = Heartbeat::new("lease", long);
            group.cancel_on(lost);
            sleep(SECOND).await;
            heartbeat.beat();
            wait(group).await;
        },
        "Sidecar::grace" => |long| {
            let group = TaskGroup::new();
            let server = Sidecar::new("http").grace(long);
            group.spawn(server.serve(group.token(), |stop| async move {
                stop.await;
                Ok::<(), BoxError>(sleep(SECOND).await)
            }));
            wait(group).await;
        },
        "Supervisor" => |long| {
            let group = TaskGroup::new();
            Supervisor::new("workers")
                .strategy(Strategy::OneForAll)
                .intensity(3, long)
                .reset_after(long)
                .grace(long)
                .backoff(Backoff::new(SECOND, long))
                .child("fails", |_| async { Err("once more".into()) })
                .permanent("works", |token| async move { Ok(token.cancelled().await) })
                .spawn(&group)
                .unwrap();
            wait(group).await;
        },
        "Supervisor::backoff" => |long| {
            let group = TaskGroup::new();
            Supervisor::new("workers")
                .backoff(Backoff::new(long, long))
                .child("fails", |_| async { Err("once more".into()) })
                .spawn(&group)
                .unwrap();
            wait(group).await;
        },
        "Periodic" => |long| {
            for first_after in [false, true] {
                let group = TaskGroup::new();
                let mut poll = Periodic::new("poll", long).grace(long).last_run(long);
                if first_after {
                    poll = poll.first_after_a_period();
                }
                let poll = poll.backoff(Backoff::new(long, long));
                let run = poll.run(group.token(), |_| async { Err("no table".into()) });
                drop(group.spawn(run.unwrap()));
                let mut group = group;
                sleep(SECOND).await;
                group.cancel();
                // Its last run has failed.
                let error: taskgroup::TaskError = group.wait().await.unwrap_err();
                assert!(!error.is_timed_out(), "{error:#}");
            }
        },
        "Cleanup" => |long| {
            let mut cleanup = Cleanup::new();
            let step = |name| Step::new(name, |_| async { Ok(sleep(SECOND).await) });
            cleanup.push(step("deadline").deadline(long)).unwrap();
            cleanup.push(step("both").deadline(long).always(SECOND)).unwrap();
            let report = cleanup.run(Outcome::Clean, long).await;
            assert!(report.is_clean(), "{report}");
            assert_eq!(report.took, 2 * SECOND);
        },
        "Step::always" => |long| {
            let mut cleanup = Cleanup::new();
            let step = Step::new("always", |_| async { Ok(sleep(SECOND).await) });
            // It may be refused as too long, and in words.
            drop(cleanup.push(step.deadline(long).always(long)));
            drop(cleanup.run(Outcome::Clean, SECOND).await);
        },
        "Step::retrying" => |long| {
            let mut cleanup = Cleanup::new();
            let step = Step::retrying("again", 3, long, |_| async { Err("busy".into()) });
            cleanup.push(step.deadline(long)).unwrap();
            let run = cleanup.run(Outcome::Clean, long);
            // The pause before the second attempt never ends, or does not exist.
            drop(timeout(DAY / 2, run).await);
        },
        "Budget::new" => |long| {
            stopped(service(long, |worker| worker)).await;
        },
        "the parts of a Budget" => |long| {
            let budget = Budget::new(Duration::MAX).jitter(long).lame_duck(long);
            let budget = budget.drain(long).cleanup(long).start_within(long);
            stopped(service(budget, |worker| worker.grace(long).start_timeout(long))).await;
            let budget = Budget::new(long).jitter(long).lame_duck(long).cleanup(long);
            let plan = service(budget, |worker| worker).plan();
            // Any time has room for all of them.
            assert_eq!(plan.is_ok(), long == Duration::MAX);
        },
        "Budget::pre_stop" => |long| {
            let budget = Budget::new(10 * SECOND).pre_stop(long);
            stopped(service(budget.clone(), |worker| worker)).await;
            // The longest time is longer than any limit but none.
            let budget = budget.platform("the platform", Duration::MAX);
            stopped(service(budget, |worker| worker)).await;
        },
        "Budget::platform" => |long| {
            let budget = Budget::new(10 * SECOND).platform("the platform", long);
            stopped(service(budget, |worker| worker)).await;
        },
        "Component::grace" => |long| {
            let budget = Budget::new(Duration::MAX);
            stopped(service(budget, |worker| worker.grace(long).start_timeout(long))).await;
        },
        "Lifecycle::phase" => |long| {
            let phases = service(Duration::MAX, |worker| worker.phase("last"));
            stopped(phases.phase("last", long)).await;
        },
        "a drain" => |long| {
            let budget = Budget::new(Duration::MAX).drain(long);
            let drains = Component::new("drains", |ctx: Context| async move {
                ctx.ready();
                ctx.draining().await;
                ctx.drained();
                Ok(ctx.stopping().await)
            });
            stopped(service(budget, |worker| worker).component(drains.drains())).await;
        },
        "Check" => |long| {
            let check = Check::new("database", async || Ok(())).every(long).timeout(long);
            stopped(service(10 * SECOND, |worker| worker).check(check)).await;
        },
        "a nested lifecycle" => |long| {
            let nested = Component::lifecycle(service(long, |worker| worker));
            stopped(Lifecycle::new("outer").budget(Duration::MAX).component(nested)).await;
        },
    ];
    all(&cases);
}

#[cfg(feature = "signal")]
#[test]
fn so_do_signals_and_the_watchdog() {
    use taskgroup::process::Watchdog;
    use taskgroup::{Signal, Signals};

    all(&cases![
        "Signals::insist_after" => |long| {
            let signals = Signals::terminate_on([Signal::Interrupt]).unwrap();
            let group = working(TaskGroup::new());
            group.cancel_on(signals.insist_after(long));
            wait(group).await;
        },
        "Watchdog::new" => |long| {
            let group = working(TaskGroup::new());
            let watchdog = Watchdog::new(long).exit_with(|_| unreachable!("it never fires"));
            let armed = watchdog.arm(&group).unwrap();
            wait(group).await;
            drop(armed);
        },
        "Lifecycle::watchdog" => |long| {
            stopped(service(long, |worker| worker).watchdog()).await;
        },
    ]);
}

#[cfg(feature = "pipeline")]
#[test]
fn so_does_a_pipeline() {
    use taskgroup::pipeline::{Job, Workers};

    all(&cases![
        "Workers" => |long| {
            let group = TaskGroup::new();
            let work = |_: Job<u32>| async { Ok(sleep(SECOND).await) };
            let workers = Workers::new("mail", work).grace(long).hand_back_within(long);
            let (pusher, pool) = workers.queue(10).unwrap();
            pool.spawn(&group);
            pusher.push(1).await.unwrap();
            wait(group).await;
        },
        "Workers::batches" => |long| {
            let group = TaskGroup::new();
            let work = |_: Vec<Job<u32>>| async { Ok(sleep(SECOND).await) };
            let workers = Workers::batches("rows", 10, long, work);
            let (pusher, pool) = workers.queue(100).unwrap();
            pool.spawn(&group);
            pusher.push(1).await.unwrap();
            wait(group).await;
        },
        "Workers::retry" => |long| {
            let group = TaskGroup::new();
            let work = |_: Job<u32>| async { Err(std::io::Error::other("busy").into()) };
            let workers = Workers::new("mail", work).retry(Backoff::new(long, long), 3);
            let (pusher, pool) = workers.queue(10).unwrap();
            pool.spawn(&group);
            pusher.push(1).await.unwrap();
            let mut group = group;
            sleep(SECOND).await;
            group.cancel();
            // The item waits for its second attempt, and is handed back.
            drop(group.wait().await);
        },
    ]);
}

#[cfg(feature = "axum")]
#[test]
fn so_do_servers() {
    use taskgroup::server::{LameDuck, Stop};

    all(&cases![
        "Serve" => |long| {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let server = taskgroup::server::axum::serve("http", listener, axum::Router::new());
            let server = server.grace(long).idle_grace(long).kill_grace(long);
            let server = server.first_byte_timeout(long).header_timeout(long).linger(long);
            let token = taskgroup::CancellationToken::new();
            token.cancel();
            // The linger may never end: nobody can say that no connection will come.
            drop(timeout(DAY / 2, server.run(&token)).await);
        },
        "LameDuck::new" => |long| {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let duck = LameDuck::new(long);
            let server = taskgroup::server::axum::serve("http", listener, axum::Router::new());
            let group = TaskGroup::new();
            group.spawn(server.lame_duck(duck.clone()).run(group.token()));
            let mut group = group;
            sleep(SECOND).await;
            group.cancel();
            assert!(timeout(DAY / 2, group.wait()).await.is_err());
            duck.skip();
            group.wait().await.unwrap();
        },
        "Stop::begun" => |long| {
            let stop = Stop::begun(long);
            assert_eq!(stop.clip(SECOND), SECOND);
            stop.until_deadline(sleep(SECOND)).await.unwrap();
        },
    ]);
}

/// Runs each case with each of the longest durations, on a clock of its own.
#[track_caller]
fn all(cases: &[Case]) {
    let mut failed = Vec::new();
    for (name, case) in cases {
        for long in LONGEST {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap();
            let run = || runtime.block_on(async { timeout(DAY, case(long)).await.is_ok() });
            match catch_unwind(AssertUnwindSafe(run)) {
                Ok(true) => {}
                Ok(false) => failed.push(format!("{name} with {long:?} did not end")),
                Err(_) => failed.push(format!("{name} with {long:?} panicked")),
            }
        }
    }
    assert_eq!(failed, [""; 0]);
}
