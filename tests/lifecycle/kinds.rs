//! What a component can be made of, and what stops the whole from outside: X5, V1, V2, S1, S2.

use std::error::Error;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use taskgroup::lifecycle::{Budget, Component, ComponentState, Context, Lifecycle};
use taskgroup::process::{Heartbeat, StopFile};
use taskgroup::supervise::{Backoff, Periodic, Supervisor};
use taskgroup::{BoxError, Cause, End, Exit, Sidecar, SidecarError};
use tokio::time::{Instant, sleep};

use crate::support::{
    Diary, FAILED, SECOND, START_FAILED, STOP_FAILED, errors, obedient, states, stopped, wrong,
};

/// A trigger that comes after this time.
async fn after(time: Duration) -> Cause {
    sleep(time).await;
    Cause::Deadline(time)
}

#[tokio::test(start_paused = true)]
async fn a_lost_heartbeat_stops_the_whole_and_is_its_first_error() {
    let (heartbeat, monitor) = Heartbeat::new("lease", SECOND);
    let lifecycle = Lifecycle::new("orders")
        .stop_on(monitor)
        .component(obedient("db"));
    let report = lifecycle.run().await.unwrap();
    drop(heartbeat);
    assert!(matches!(report.cause, Cause::Heartbeat(_)), "{report}");
    assert_eq!(report.errors.len(), 1, "{report}");
    assert_eq!(wrong(&report.errors[0]), FAILED);
    assert!(errors(&report)[0].contains("lease"), "{report}");
    assert_eq!(states(&report), [ComponentState::Ended(End::Done)]);
    assert_eq!(Exit::from(report).code(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_heartbeat_that_is_the_cause_is_the_first_error_whatever_is_heard_first() {
    let (heartbeat, monitor) = Heartbeat::new("lease", SECOND);
    let crash = Component::new("crash", |_| async { Err("the lease is gone".into()) });
    let holder = Component::new("holder", |ctx: Context| async move {
        drop(heartbeat);
        Ok(ctx.stopping().await)
    });
    let mut lifecycle = Lifecycle::new("orders").stop_on(monitor);
    lifecycle = lifecycle.component(crash).component(holder);
    // So many are not started in one go: both have happened before the rest is.
    for index in 0..300 {
        let name = format!("c{index}");
        lifecycle = lifecycle.component(Component::new(name, |ctx| async move {
            ctx.ready();
            Ok(ctx.stopping().await)
        }));
    }
    let report = lifecycle.run().await.unwrap();
    assert!(matches!(report.cause, Cause::Heartbeat(_)), "{report}");
    let kinds: Vec<_> = report.errors.iter().map(wrong).collect();
    assert_eq!(kinds, [FAILED, START_FAILED]);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_is_given_up_in_the_stop_is_not_an_error() {
    let (heartbeat, monitor) = Heartbeat::new("lease", SECOND);
    let worker = Component::new("worker", |ctx: Context| async move {
        ctx.ready();
        ctx.stopping().await;
        drop(heartbeat);
        Ok(sleep(3 * SECOND).await)
    });
    let lifecycle = Lifecycle::new("orders").stop_on(monitor).component(worker);
    assert!(stopped(lifecycle).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_time_that_is_up_and_a_file_stop_it_well() {
    let lifecycle = Lifecycle::new("orders").stop_on(after(5 * SECOND));
    let report = lifecycle.component(obedient("db")).run().await.unwrap();
    assert_eq!(report.cause, Cause::Deadline(5 * SECOND));
    assert_eq!(report.stop_began, 5 * SECOND);
    assert!(report.is_clean());
    assert_eq!(Exit::from(report).code(), 0);

    // A file that is always there.
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let lifecycle = Lifecycle::new("orders")
        .stop_on(after(1000 * SECOND))
        .stop_on(StopFile::new(file));
    let report = lifecycle.component(obedient("db")).run().await.unwrap();
    assert!(matches!(report.cause, Cause::File { .. }), "{report}");
    assert!(report.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_trigger_counts_from_the_start_of_the_run() {
    let lifecycle = Lifecycle::new("orders").stop_on(after(5 * SECOND));
    sleep(100 * SECOND).await;
    let report = lifecycle.component(obedient("db")).run().await.unwrap();
    assert_eq!(report.stop_began, 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_starts_again_what_fails_and_stops_with_the_rest() {
    let starts = Arc::new(AtomicUsize::new(0));
    let supervisor = Supervisor::new("workers")
        .backoff(Backoff::new(SECOND, SECOND))
        .permanent("poll", {
            let starts = Arc::clone(&starts);
            move |token| {
                let first = starts.fetch_add(1, Relaxed) == 0;
                async move {
                    if first {
                        return Err("no partition".into());
                    }
                    Ok(token.cancelled().await)
                }
            }
        });
    let lifecycle = Lifecycle::new("orders")
        .component(obedient("db"))
        .component(Component::supervisor(supervisor).after(["db"]));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    sleep(5 * SECOND).await;
    assert_eq!(starts.load(Relaxed), 2);
    assert_eq!(handle.cause(), None);
    let running: Vec<_> = handle
        .running()
        .iter()
        .filter_map(|task| Some(task.name()?.to_owned()))
        .collect();
    assert!(
        running.iter().any(|name| name == "orders/workers/poll"),
        "{running:?}"
    );
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn the_children_of_a_supervisor_have_no_more_time_than_its_component() {
    let supervisor = Supervisor::new("workers")
        .grace(3 * SECOND)
        .child("last", |token| async move { Ok(token.cancelled().await) })
        .child("deaf", |_| pending())
        .child("deafer", |_| pending());
    let component = Component::supervisor(supervisor).grace(5 * SECOND);
    let lifecycle = Lifecycle::new("orders")
        .budget(20 * SECOND)
        .component(component);
    let run = lifecycle.start().await.unwrap();
    let report = run.stop("enough").await;
    assert!(report.took() <= 5 * SECOND, "{report}");
    assert!(report.was_forced());
    let error = format!("{:#}", report.first_error().unwrap());
    let named = "child `deafer` did not stop within 3s and was aborted; child `deaf` did not stop within 1.755s";
    assert!(error.contains(named), "{error}");
    assert!(!error.contains("`last`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn supervised_tasks_get_values_each_time_they_are_started() {
    let starts = Arc::new(AtomicUsize::new(0));
    let opened = Arc::clone(&starts);
    let open = move |_: Context| async move { Ok(opened) };
    let (database, pool) = Component::shared("database", open, async |_, _| Ok(()));
    let workers = Component::using(&pool).supervisor("workers", |supervisor, pool| {
        let backoff = Backoff::new(SECOND, SECOND);
        supervisor.backoff(backoff).child("poll", move |token| {
            let is_first = pool.fetch_add(1, Relaxed) == 0;
            async move {
                if is_first {
                    return Err("no partition".into());
                }
                Ok(token.cancelled().await)
            }
        })
    });
    let lifecycle = Lifecycle::new("orders")
        .component(workers)
        .component(database);
    let run = lifecycle.start().await.unwrap();
    sleep(5 * SECOND).await;
    assert_eq!(starts.load(Relaxed), 2);
    let report = run.stop("enough").await;
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_periodic_run_has_no_more_time_than_its_component() {
    let flush = Periodic::new("flush", 60 * SECOND).grace(30 * SECOND);
    let component = Component::periodic(flush, |_| pending()).grace(5 * SECOND);
    let lifecycle = Lifecycle::new("orders")
        .budget(20 * SECOND)
        .component(component);
    let run = lifecycle.start().await.unwrap();
    let report = run.stop("enough").await;
    assert!(report.took() < 5 * SECOND, "{report}");
    let error = format!("{:#}", report.first_error().unwrap());
    assert!(
        error.contains("periodic task `flush`") && error.contains("4.95s"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_gives_up_is_a_failure_of_its_component() {
    let supervisor = Supervisor::new("workers")
        .intensity(2, 10 * SECOND)
        .permanent("poll", |_| async { Err("no partition".into()) });
    let lifecycle = Lifecycle::new("orders")
        .component(obedient("db"))
        .component(Component::supervisor(supervisor).after(["db"]));
    let report = lifecycle.run().await.unwrap();
    assert_eq!(report.errors.len(), 1, "{report}");
    assert_eq!(report.errors[0].component, "workers");
    assert_eq!(wrong(&report.errors[0]), FAILED);
    assert!(errors(&report)[0].contains("no partition"), "{report}");
    assert_eq!(
        states(&report),
        [
            ComponentState::Ended(End::Done),
            ComponentState::Ended(End::Failed)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_is_stopped_during_a_backoff() {
    let supervisor = Supervisor::new("workers")
        .backoff(Backoff::new(100 * SECOND, 100 * SECOND))
        .permanent("poll", |_| async { Err("no partition".into()) });
    let lifecycle = Lifecycle::new("orders").component(Component::supervisor(supervisor));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    sleep(SECOND).await;
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.took(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_cannot_be_is_a_failed_start() {
    let lifecycle =
        Lifecycle::new("orders").component(Component::supervisor(Supervisor::new("none")));
    let report = lifecycle.run().await.unwrap();
    assert_eq!(wrong(&report.errors[0]), START_FAILED, "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_periodic_task_runs_until_the_stop_and_once_more_at_the_end() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let periodic = Periodic::new("flush", 10 * SECOND).last_run(SECOND);
    let flush = Component::periodic(periodic, move |_tick| {
        counted.fetch_add(1, Relaxed);
        async { Ok(()) }
    });
    let lifecycle = Lifecycle::new("orders").component(flush);
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    sleep(25 * SECOND).await;
    assert_eq!(runs.load(Relaxed), 3);
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(runs.load(Relaxed), 4);
    assert_eq!(report.took(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_periodic_task_that_gives_up_is_a_failure_and_one_that_cannot_be_a_failed_start() {
    let failing = |period| {
        let periodic = Periodic::new("flush", period).fail_after(2);
        Component::periodic(periodic, |_tick| async {
            Err::<(), BoxError>("disk full".into())
        })
    };
    let lifecycle = Lifecycle::new("orders").component(failing(SECOND));
    let report = lifecycle.run().await.unwrap();
    assert_eq!(report.errors.len(), 1, "{report}");
    assert_eq!(wrong(&report.errors[0]), FAILED);
    assert!(errors(&report)[0].contains("disk full"), "{report}");

    let lifecycle = Lifecycle::new("orders").component(failing(Duration::ZERO));
    let report = lifecycle.run().await.unwrap();
    assert_eq!(wrong(&report.errors[0]), START_FAILED, "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_periodic_task_is_stopped_during_a_backoff() {
    let periodic = Periodic::new("flush", SECOND).backoff(Backoff::new(100 * SECOND, 100 * SECOND));
    let flush = Component::periodic(periodic, |_tick| async { Err("disk full".into()) });
    let lifecycle = Lifecycle::new("orders").component(flush);
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    sleep(5 * SECOND).await;
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();
    assert_eq!(report.took(), Duration::ZERO, "{report}");
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn the_future_of_a_server_is_a_component_as_it_is() {
    let http = Component::new("http", |ctx: Context| {
        ctx.ready();
        Sidecar::new("http").serve(&ctx, |_stop| async { io::Result::Ok(sleep(SECOND).await) })
    });
    let report = Lifecycle::new("orders")
        .component(http)
        .run()
        .await
        .unwrap();
    let error = report.first_error().unwrap();
    assert!(error.source().unwrap().is::<SidecarError>(), "{error:?}");
}

/// A server that never ends, with much more time than its component.
fn server(name: &'static str) -> Component {
    Component::new(name, move |ctx: Context| async move {
        let serving = Sidecar::new(name)
            .grace(60 * SECOND)
            .serve(&ctx, |_stop| pending::<io::Result<()>>());
        ctx.ready();
        Ok(serving.await?)
    })
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_has_no_more_than_its_component_and_reports_its_own_error() {
    let lifecycle = Lifecycle::new("orders")
        .component(obedient("db"))
        .component(server("http").after(["db"]).grace(2 * SECOND));
    let report = stopped(lifecycle).await;
    assert_eq!(report.errors.len(), 1, "{report}");
    let error = &report.errors[0];
    assert_eq!(wrong(error), STOP_FAILED, "it was not forced: {report}");
    let task = error.task_error().unwrap().source().unwrap();
    assert!(task.downcast_ref::<SidecarError>().unwrap().is_timed_out());
    assert!(error.is_forced() && report.was_forced());
    assert!(
        report.took() < 2 * SECOND && report.took() > SECOND,
        "{report}"
    );
    assert!(report.stragglers.is_empty());
    assert_eq!(states(&report)[1], ComponentState::Ended(End::Failed));
    assert_eq!(Exit::from(report).code(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_has_no_more_than_the_budget_leaves() {
    let slow = Component::new("queue", |ctx: Context| async move {
        ctx.ready();
        ctx.stopping().await;
        Ok(sleep(4 * SECOND).await)
    });
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::new(10 * SECOND))
        .component(server("http"))
        .component(slow.after(["http"]));
    let report = stopped(lifecycle).await;
    assert!(report.took() <= 10 * SECOND, "{report}");
    assert_eq!(report.errors.len(), 1, "{report}");
    assert_eq!(wrong(&report.errors[0]), STOP_FAILED);
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_ends_by_itself_stops_the_whole() {
    let http = Component::new("http", |ctx: Context| async move {
        let serving = Sidecar::new("http").serve(&ctx, |_stop| async {
            sleep(SECOND).await;
            io::Result::Ok(())
        });
        ctx.ready();
        Ok(serving.await?)
    });
    let report = Lifecycle::new("orders")
        .component(http)
        .run()
        .await
        .unwrap();
    assert_eq!(report.errors.len(), 1, "{report}");
    assert!(!report.was_forced());
    assert_eq!(states(&report), [ComponentState::Ended(End::Failed)]);
    assert_eq!(report.stop_began, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_resource_is_opened_used_and_closed() {
    let diary = Diary::default();
    let (opened, closed) = (diary.clone(), diary.clone());
    let db = Component::resource(
        "db",
        move |_| async move {
            sleep(SECOND).await;
            opened.write("db is open");
            Ok(7)
        },
        move |db, _| async move {
            sleep(SECOND).await;
            closed.write(format!("db {db} is closed"));
            Ok(())
        },
    );
    let began = Instant::now();
    let lifecycle = Lifecycle::new("orders")
        .component(db)
        .component(diary.component("http", SECOND).after(["db"]));
    let report = stopped(lifecycle).await;
    assert_eq!(
        diary.lines(),
        [
            "db is open",
            "http starts",
            "http stops",
            "http is gone",
            "db 7 is closed"
        ]
    );
    assert!(report.is_clean(), "{report}");
    assert_eq!(began.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_does_not_close_or_open_is_named() {
    let failing = |open: bool| {
        Component::resource(
            "db",
            move |_| async move {
                if open {
                    Ok(())
                } else {
                    Err("no such host".into())
                }
            },
            |(), _| async { Err("connection reset".into()) },
        )
    };
    let report = stopped(Lifecycle::new("orders").component(failing(true))).await;
    assert_eq!(
        errors(&report),
        ["component `db` failed while it stopped: connection reset"]
    );
    let report = Lifecycle::new("orders")
        .component(failing(false))
        .run()
        .await
        .unwrap();
    assert_eq!(
        errors(&report),
        ["component `db` did not start: no such host"]
    );
}
