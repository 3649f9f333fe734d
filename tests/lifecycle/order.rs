//! L19: the order of a stop holds through components that are over.

use std::future::pending;
use std::sync::mpsc as blocking;

use taskgroup::lifecycle::{Component, ComponentState, EventKind, Lifecycle, Provided, Report};
use taskgroup::{BoxError, End};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{advance, sleep};

use crate::support::{Diary, SECOND, errors, obedient, stopped};

/// The order in which three components in a row stop, each of them a second.
const ONE_AFTER_ANOTHER: [&str; 4] = ["worker stops", "worker is gone", "db stops", "db is gone"];

/// `db` ← `middle` ← `worker`.
fn row(diary: &Diary, middle: Component) -> Lifecycle {
    Lifecycle::new("orders")
        .component(diary.component("db", SECOND))
        .component(middle.after(["db"]))
        .component(diary.component("worker", SECOND).after(["middle"]))
}

#[track_caller]
fn one_after_another(diary: &Diary) {
    let lines = diary.lines();
    let stops: Vec<_> = lines
        .iter()
        .filter(|line| !line.ends_with("starts"))
        .collect();
    assert_eq!(stops, ONE_AFTER_ANOTHER);
}

#[tokio::test(start_paused = true)]
async fn the_database_is_told_when_the_worker_after_a_finished_migration_has_ended() {
    let diary = Diary::default();
    let log = diary.clone();
    let (database, pool) = Component::shared(
        "database",
        async |_| Ok("a pool"),
        async move |_, _| Ok(log.write("database is closed")),
    );
    let worker = {
        let (pool, diary) = (pool.clone(), diary.clone());
        Component::new("worker", move |ctx| async move {
            ctx.ready();
            ctx.stopping().await;
            // The rest of its batch.
            sleep(SECOND).await;
            diary.write(format!("worker has {}", pool.get().unwrap()));
            Ok(())
        })
    };
    let migrations = Component::job("migrations", |_| async { Ok(()) });
    let lifecycle = Lifecycle::new("orders")
        .component(database)
        .component(migrations.after(["database"]))
        .component(worker.after(["migrations"]));
    let report = stopped(lifecycle).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(diary.lines(), ["worker has a pool", "database is closed"]);
    assert_eq!(pool.get(), None);
}

#[tokio::test(start_paused = true)]
async fn the_order_holds_through_a_component_that_may_end_and_has() {
    let diary = Diary::default();
    let middle = Component::new("middle", |ctx| async move { Ok(ctx.ready()) }).may_end();
    let lifecycle = row(&diary, middle);
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    handle.ended("middle").await;
    handle.stop("enough");
    assert!(run.await.unwrap().unwrap().is_clean());
    one_after_another(&diary);
}

/// Runs it until `middle` ends in this way.
async fn fails(diary: &Diary, end: fn() -> Result<(), BoxError>) -> Report {
    let lifecycle = row(
        diary,
        Component::new("middle", move |ctx| async move {
            ctx.ready();
            sleep(SECOND).await;
            end()
        }),
    );
    lifecycle.run().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_order_holds_through_a_component_that_has_failed() {
    let diary = Diary::default();
    let report = fails(&diary, || Err("the disk is full".into())).await;
    assert_eq!(
        errors(&report),
        ["component `middle` failed: the disk is full"]
    );
    one_after_another(&diary);

    let diary = Diary::default();
    let report = fails(&diary, || panic!("boom")).await;
    assert_eq!(errors(&report), ["component `middle` panicked: boom"]);
    one_after_another(&diary);
}

#[tokio::test(start_paused = true)]
async fn the_order_holds_through_a_component_whose_helper_has_failed() {
    let diary = Diary::default();
    let middle = Component::new("middle", |ctx| async move {
        ctx.group().spawn(async {
            sleep(SECOND).await;
            Err::<(), _>("no partition".into())
        });
        ctx.ready();
        Ok(ctx.stopping().await)
    });
    let report = row(&diary, middle).run().await.unwrap();
    assert_eq!(report.errors.len(), 1);
    one_after_another(&diary);
}

#[tokio::test(start_paused = true)]
async fn the_order_holds_in_the_rollback_of_a_failed_start() {
    let diary = Diary::default();
    let middle = Component::job("middle", |_| async { Ok(()) });
    let late = Component::job("late", |_| async {
        sleep(SECOND).await;
        Err("no licence".into())
    });
    let never = obedient("never").after(["worker", "late"]);
    let lifecycle = row(&diary, middle).component(late).component(never);
    let handle = lifecycle.handle();
    let report = lifecycle.run().await.unwrap();
    assert_eq!(
        errors(&report),
        ["component `late` did not start: no licence"]
    );
    assert_eq!(
        handle.state("never"),
        Some(ComponentState::Ended(End::Skipped))
    );
    one_after_another(&diary);
}

#[tokio::test(start_paused = true)]
async fn the_order_holds_when_the_middle_one_asks_for_the_stop_and_returns() {
    let diary = Diary::default();
    let middle = Component::new("middle", |ctx| async move {
        ctx.ready();
        sleep(SECOND).await;
        ctx.stop("I am done");
        Ok(())
    });
    row(&diary, middle).run().await.unwrap();
    one_after_another(&diary);
}

#[tokio::test(start_paused = true)]
async fn the_order_holds_when_the_middle_one_asks_for_the_stop_and_fails() {
    let diary = Diary::default();
    let middle = Component::new("middle", |ctx| async move {
        ctx.ready();
        sleep(SECOND).await;
        ctx.stop("I cannot go on");
        Err("the disk is full".into())
    });
    let report = row(&diary, middle).run().await.unwrap();
    assert_eq!(
        report.cause.to_string(),
        "cancelled on request: I cannot go on"
    );
    assert_eq!(report.errors.len(), 1);
    one_after_another(&diary);
}

#[tokio::test(start_paused = true)]
async fn the_order_holds_through_a_component_that_was_forced() {
    let diary = Diary::default();
    // It is leaving because a task of it failed, and takes no notice: its time is up before the
    // worker has ended.
    let middle = Component::new("middle", |ctx| async move {
        ctx.group().spawn(async {
            sleep(SECOND).await;
            Err::<(), _>("no partition".into())
        });
        ctx.ready();
        pending().await
    });
    let report = row(&diary, middle.grace(SECOND / 2)).run().await.unwrap();
    assert!(report.was_forced(), "{report}");
    one_after_another(&diary);
}

#[tokio::test(start_paused = true)]
async fn the_order_holds_through_a_component_that_is_lost() {
    let diary = Diary::default();
    let (release, released) = blocking::channel::<()>();
    let middle = Component::new("middle", move |ctx| async move {
        let (begun, begins) = oneshot::channel();
        ctx.group().spawn_blocking(move |_| {
            begun.send(()).unwrap();
            let _ = released.recv();
            Ok(())
        });
        begins.await?;
        ctx.ready();
        sleep(SECOND).await;
        Err("no partition".into())
    });
    let lifecycle = Lifecycle::new("orders").component(diary.component("db", SECOND));
    let worker = {
        let (diary, handle) = (diary.clone(), lifecycle.handle());
        Component::new("worker", move |ctx| async move {
            ctx.ready();
            ctx.stopping().await;
            diary.write("worker stops");
            let lost = handle.ended("middle");
            assert!(lost.await.is_some());
            sleep(SECOND).await;
            Ok(diary.write("worker is gone"))
        })
    };
    let lifecycle = lifecycle
        .component(middle.after(["db"]).grace(SECOND))
        .component(worker.after(["middle"]));
    let run = tokio::spawn(lifecycle.run());
    // The clock does not go on by itself while a thread of Tokio is busy.
    while !run.is_finished() {
        yield_now().await;
        advance(SECOND / 100).await;
    }
    let report = run.await.unwrap().unwrap();
    assert!(report.stragglers[0].still_running, "{report}");
    one_after_another(&diary);
    release.send(()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_order_holds_through_a_nested_lifecycle_that_has_ended() {
    let diary = Diary::default();
    let nested = Lifecycle::new("middle")
        .budget(SECOND)
        .component(Component::job("warm-up", |_| async { Ok(()) }));
    let middle = Component::lifecycle(nested).may_end();
    let lifecycle = row(&diary, middle);
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    handle.ended("middle").await;
    handle.wait_for("worker", ComponentState::Running).await;
    handle.stop("enough");
    assert!(run.await.unwrap().unwrap().is_clean());
    one_after_another(&diary);
}

#[tokio::test(start_paused = true)]
async fn the_order_holds_through_a_phase_that_is_over() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .phase("accept", None)
        .phase("work", None)
        .phase("close", None)
        .component(diary.component("worker", SECOND).phase("accept"))
        .component(Component::job("warm-up", |_| async { Ok(()) }).phase("work"))
        .component(diary.component("db", SECOND).phase("close"));
    assert!(stopped(lifecycle).await.is_clean());
    one_after_another(&diary);
}

#[tokio::test(start_paused = true)]
async fn what_a_finished_job_has_provided_stays_until_all_have_ended() {
    let diary = Diary::default();
    let schema = Provided::new("schema");
    let middle = Component::using(schema.provider());
    let middle = middle.job("middle", async |_, schema| Ok(schema.set(7)));
    let db = {
        let (schema, diary) = (schema.clone(), diary.clone());
        Component::new("db", move |ctx| async move {
            ctx.ready();
            ctx.stopping().await;
            Ok(diary.write(format!("schema {}", schema.get().unwrap())))
        })
    };
    let lifecycle = Lifecycle::new("orders")
        .component(db)
        .component(middle.after(["db"]))
        .component(obedient("worker").after(["middle"]));
    assert!(stopped(lifecycle).await.is_clean());
    assert_eq!(diary.lines(), ["schema 7"]);
    assert_eq!(schema.get(), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_printed_is_what_runs() {
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    let job = |name| Component::job(name, |_| async { Ok(()) });
    let may_end = |name| Component::new(name, |ctx| async move { Ok(ctx.ready()) }).may_end();
    let slow = |name| {
        Component::new(name, |ctx| async move {
            ctx.ready();
            ctx.stopping().await;
            Ok(sleep(SECOND).await)
        })
    };
    let lifecycle = Lifecycle::new("orders")
        .component(slow("db"))
        .component(job("migrate").after(["db"]))
        .component(slow("cache"))
        .component(may_end("fill").after(["cache", "migrate"]))
        .component(slow("grpc").after(["fill"]))
        .component(job("warm-up").after(["grpc"]))
        .component(slow("http").after(["warm-up"]))
        .observe(move |event| {
            if let EventKind::StopBegan(_) = event.kind {
                let path = event.component.as_deref().unwrap().to_owned();
                sender.send((event.at, path)).unwrap();
            }
        });
    let plan = lifecycle.plan().unwrap();
    let report = stopped(lifecycle).await;
    assert!(report.is_clean(), "{report}");

    let level = |path: &str| {
        let is_it = |name: &str| path.ends_with(&format!("/{name}"));
        let mut components = plan.components();
        components.find(|it| is_it(it.name())).unwrap().stop_level()
    };
    let mut levels = Vec::new();
    while let Some((at, path)) = told.recv().await {
        levels.push((level(&path), at.as_secs()));
    }
    // Each waits for those with a smaller number, of which the finished ones take no time.
    assert_eq!(levels, [(1, 0), (3, 1), (5, 2), (6, 2)]);
}
