//! L23: one component is stopped, or added, while the rest goes on.

use taskgroup::lifecycle::{
    Budget, Component, ComponentState, Context, Lifecycle, Provided, Run, StepKind,
};
use taskgroup::{BoxError, End};
use tokio::time::{Instant, sleep};

use crate::support::{Diary, SECOND, deaf, errors, obedient, states};

use ComponentState::{Created, Running};

const DONE: ComponentState = ComponentState::Ended(End::Done);
const SKIPPED: ComponentState = ComponentState::Ended(End::Skipped);

async fn running(lifecycle: Lifecycle) -> Run {
    lifecycle.start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_is_stopped_after_those_that_use_it_and_the_rest_goes_on() {
    let diary = Diary::default();
    let run = running(
        Lifecycle::new("orders")
            .component(diary.component("db", SECOND))
            .component(diary.component("queue", SECOND).after(["db"]))
            .component(diary.component("consumer", SECOND).after(["queue"]))
            .component(diary.component("http", SECOND).after(["db"])),
    )
    .await;
    let handle = run.handle().clone();
    let began = Instant::now();
    handle.stop_component("queue", "the broker moves").unwrap();
    handle.stop_component("queue", "a second call").unwrap();
    assert_eq!(handle.ended("queue").await, Some(End::Done));
    assert_eq!(began.elapsed(), 2 * SECOND);
    assert_eq!(
        diary.lines()[4..],
        [
            "consumer stops",
            "consumer is gone",
            "queue stops",
            "queue is gone"
        ]
    );
    sleep(60 * SECOND).await;
    assert_eq!(handle.state("db"), Some(Running));
    assert_eq!(handle.state("http"), Some(Running));
    assert!(handle.readiness().is_ready());

    let report = run.stop("enough").await;
    assert_eq!(
        diary.lines()[8..],
        ["http stops", "http is gone", "db stops", "db is gone"]
    );
    assert!(report.is_clean(), "{report}");
    assert_eq!(states(&report), [DONE; 4]);
    assert_eq!(report.took(), 2 * SECOND);
    let rows = report.timeline.iter();
    let rows: Vec<_> = rows
        .filter(|step| step.kind == StepKind::Stop)
        .map(|step| &*step.subject)
        .collect();
    assert_eq!(rows, ["consumer", "queue", "http", "db"]);
}

#[tokio::test(start_paused = true)]
async fn a_component_that_is_stopped_alone_knows_why() {
    let (send, told) = tokio::sync::oneshot::channel();
    let worker = Component::new("worker", async |ctx: Context| {
        ctx.ready();
        ctx.stopping().await;
        let _ = send.send((ctx.cause().unwrap().to_string(), ctx.remaining()));
        Ok(())
    });
    let run = running(
        Lifecycle::new("orders")
            .component(worker.grace(3 * SECOND))
            .component(obedient("http")),
    )
    .await;
    let handle = run.handle();
    handle.stop_component("worker", "replaced").unwrap();
    let (cause, left) = told.await.unwrap();
    assert_eq!(cause, "cancelled on request: replaced");
    assert_eq!(left, Some(3 * SECOND));
    assert_eq!(handle.cause(), None);
    assert!(run.stop("enough").await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_component_that_is_stopped_alone_and_overruns_is_forced_alone() {
    let run = running(
        Lifecycle::new("orders")
            .component(deaf("worker").grace(2 * SECOND))
            .component(obedient("http")),
    )
    .await;
    let handle = run.handle().clone();
    let began = Instant::now();
    handle.stop_component("worker", "replaced").unwrap();
    assert_eq!(handle.ended("worker").await, Some(End::TimedOut));
    assert_eq!(began.elapsed(), 2 * SECOND);
    assert_eq!(handle.cause(), None);
    let report = run.stop("enough").await;
    assert_eq!(
        errors(&report),
        ["component `worker` did not stop within 2s and was forced"]
    );
    assert_eq!(report.stragglers[0].component, "worker");
}

#[tokio::test(start_paused = true)]
async fn a_component_that_fails_while_it_is_stopped_alone_stops_no_other() {
    let worker = Component::new("worker", async |ctx: Context| {
        ctx.ready();
        ctx.stopping().await;
        Err("the disk is full".into())
    });
    let run = running(
        Lifecycle::new("orders")
            .component(obedient("db"))
            .component(worker.after(["db"]))
            .component(obedient("http")),
    )
    .await;
    let handle = run.handle().clone();
    handle.stop_component("db", "replaced").unwrap();
    assert_eq!(handle.ended("db").await, Some(End::Done));
    assert_eq!(handle.cause(), None);
    let report = run.stop("enough").await;
    assert_eq!(
        errors(&report),
        ["component `worker` failed while it stopped: the disk is full"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
    let lifecycle = Lifecycle::new("orders")
        .component(obedient("db"))
        .component(obedient("http"));
    let handle = lifecycle.handle();
    let early = handle.stop_component("db", "too early").unwrap_err();
    assert_eq!(
        early.to_string(),
        "lifecycle `orders` is not running: `db` cannot be stopped"
    );
    let run = running(lifecycle).await;
    let error = handle.stop_component("dv", "a typing error").unwrap_err();
    assert_eq!(
        error.to_string(),
        "lifecycle `orders` has no component `dv`: there are `db`, `http`"
    );
    assert!(error.is_unknown());
    assert_eq!(error.component(), Some("dv"));
    assert!(run.stop("enough").await.is_clean());
    handle.stop_component("db", "too late").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_component_stopped_before_its_start_never_starts_and_the_start_completes_without_it() {
    let slow = Component::new("slow", async |ctx: Context| {
        let opening = sleep(10 * SECOND);
        if ctx.token().run_until_cancelled(opening).await.is_some() {
            ctx.ready();
        }
        Ok(ctx.stopping().await)
    });
    let lifecycle = Lifecycle::new("orders")
        .component(slow)
        .component(obedient("user").after(["slow"]))
        .component(obedient("http"));
    let handle = lifecycle.handle();
    let began = Instant::now();
    let run = tokio::spawn(lifecycle.start());
    assert_eq!(handle.wait_for("http", Running).await, Some(Running));
    handle.stop_component("slow", "not now").unwrap();
    let run = run.await.unwrap().unwrap();
    assert!(began.elapsed() < 11 * SECOND);
    let report = run.stop("enough").await;
    assert!(report.is_clean(), "{report}");
    let mut all: Vec<_> = report
        .components
        .iter()
        .map(|one| (&*one.component, one.state))
        .collect();
    all.sort_unstable_by_key(|(name, _)| *name);
    assert_eq!(all, [("http", DONE), ("slow", DONE), ("user", SKIPPED)]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_the_whole_takes_over_one_that_is_on_its_way() {
    let diary = Diary::default();
    let run = running(
        Lifecycle::new("orders")
            .budget(Budget::new(15 * SECOND))
            .component(diary.component("db", SECOND))
            .component(deaf("worker").grace(8 * SECOND).after(["db"]))
            .component(diary.component("http", SECOND).after(["db"])),
    )
    .await;
    let handle = run.handle().clone();
    handle.stop_component("worker", "replaced").unwrap();
    sleep(SECOND).await;
    let report = run.stop("enough").await;
    assert!(report.took() == 8 * SECOND, "{report}");
    assert_eq!(diary.lines()[2..4], ["http stops", "http is gone"]);
    assert_eq!(diary.lines()[4..], ["db stops", "db is gone"]);
    assert_eq!(report.errors.len(), 1, "{report}");
}

#[tokio::test(start_paused = true)]
async fn phases_count_as_dependencies_and_their_time_begins_with_the_stop() {
    let diary = Diary::default();
    let run = running(
        Lifecycle::new("orders")
            .phase("accept", 2 * SECOND)
            .phase("close", None)
            .component(diary.component("http", SECOND).phase("accept"))
            .component(diary.component("db", SECOND).phase("close"))
            .component(obedient("other")),
    )
    .await;
    let handle = run.handle().clone();
    handle.stop_component("db", "replaced").unwrap();
    handle.ended("db").await;
    assert_eq!(
        diary.lines()[2..],
        ["http stops", "http is gone", "db stops", "db is gone"]
    );
    assert!(run.stop("enough").await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_nested_lifecycle_is_stopped_alone_in_its_own_order() {
    let diary = Diary::default();
    let inner = Lifecycle::new("billing")
        .component(diary.component("ledger", SECOND))
        .component(diary.component("invoices", SECOND).after(["ledger"]));
    let run = running(
        Lifecycle::new("orders")
            .component(Component::lifecycle(inner))
            .component(obedient("http")),
    )
    .await;
    let handle = run.handle().clone();
    handle.stop_component("billing", "sold").unwrap();
    assert_eq!(handle.ended("billing").await, Some(End::Done));
    assert_eq!(
        diary.lines()[2..],
        [
            "invoices stops",
            "invoices is gone",
            "ledger stops",
            "ledger is gone"
        ]
    );
    let report = run.stop("enough").await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(
        report.nested[0].cause.to_string(),
        "cancelled on request: sold"
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_work_that_is_stopped_alone_ends_the_lifecycle() {
    let db = Component::resource(
        "db",
        async |_| Ok::<_, BoxError>(()),
        async |(), _| Ok::<_, BoxError>(()),
    );
    let mut run = running(
        Lifecycle::new("orders")
            .component(db)
            .component(obedient("worker").after(["db"])),
    )
    .await;
    run.handle().stop_component("worker", "enough").unwrap();
    let report = run.wait().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.cause.to_string(), "all is done");
}

#[tokio::test(start_paused = true)]
async fn an_added_component_starts_after_what_it_uses_and_stops_before_it() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .component(diary.component("db", SECOND))
        .component(diary.component("http", SECOND).after(["db"]));
    let handle = lifecycle.handle();
    let run = running(lifecycle).await;
    sleep(60 * SECOND).await;
    let queue = diary.component("queue", SECOND).after(["db"]);
    handle.add(queue).unwrap();
    handle
        .add(diary.component("consumer", SECOND).after(["queue", "http"]))
        .unwrap();
    assert_eq!(handle.wait_for("consumer", Running).await, Some(Running));
    assert_eq!(diary.lines()[2..], ["queue starts", "consumer starts"]);
    let names: Vec<_> = handle.states().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["db", "http", "queue", "consumer"]);

    let report = run.stop("enough").await;
    let lines = diary.lines();
    assert_eq!(lines[4..6], ["consumer stops", "consumer is gone"]);
    assert_eq!(lines.last().unwrap(), "db is gone");
    assert_eq!(lines[lines.len() - 2], "db stops");
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.components.len(), 4);
    assert_eq!(report.took(), 3 * SECOND);
    let text = report.to_string();
    assert!(
        text.contains("started 2 components in 0s, and 2 later"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_added_component_waits_for_what_it_uses_through_finished_jobs() {
    let diary = Diary::default();
    let run = running(
        Lifecycle::new("orders")
            .component(diary.component("db", SECOND))
            .component(Component::job("migrate", async |_| Ok(())).after(["db"])),
    )
    .await;
    let handle = run.handle();
    handle
        .add(diary.component("worker", SECOND).after(["migrate"]))
        .unwrap();
    assert_eq!(handle.wait_for("worker", Running).await, Some(Running));
    let report = run.stop("enough").await;
    assert_eq!(
        diary.lines()[2..],
        ["worker stops", "worker is gone", "db stops", "db is gone"]
    );
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn the_plan_refuses_one_that_is_added_as_it_would_before() {
    let pool: Provided<u8> = Provided::new("pool");
    let run = running(
        Lifecycle::new("orders")
            .budget(Budget::new(10 * SECOND))
            .component(obedient("db"))
            .component(obedient("http").grace(4 * SECOND).after(["db"])),
    )
    .await;
    let handle = run.handle();
    let refused = |component: Component, why: &str| {
        let error = handle.add(component).unwrap_err();
        assert_eq!(error.to_string(), why);
    };
    refused(obedient("db"), "two components have the name `db`");
    refused(
        obedient("x").after(["pool"]),
        "component `x` depends on `pool`, which does not exist: there are `db`, `http`",
    );
    refused(
        Component::using(&pool).run("x", async |ctx, _| {
            ctx.ready();
            Ok(ctx.stopping().await)
        }),
        "component `x` uses `pool`, which no component provides",
    );
    refused(
        obedient("x").after(["x"]),
        "component `x` depends on itself",
    );
    let error = handle.add(obedient("x").grace(60 * SECOND)).unwrap_err();
    assert!(error.is_budget(), "{error:#}");
    let error = handle.add(obedient("x").phase("late")).unwrap_err();
    assert!(error.is_unknown(), "{error:#}");
    assert_eq!(handle.states().len(), 2);
    let report = run.stop("enough").await;
    assert!(report.is_clean());
    assert_eq!(report.components.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_added_component_gets_the_values_of_running_ones() {
    let (db, pool) = Component::shared(
        "db",
        async |_| Ok::<_, BoxError>(7_u8),
        async |_, _| Ok::<_, BoxError>(()),
    );
    let run = running(
        Lifecycle::new("orders")
            .component(db)
            .component(obedient("http")),
    )
    .await;
    let handle = run.handle();
    let worker = Component::using(&pool).run("worker", async |ctx, pool| {
        assert_eq!(pool, 7);
        ctx.ready();
        Ok(ctx.stopping().await)
    });
    handle.add(worker).unwrap();
    assert_eq!(handle.wait_for("worker", Running).await, Some(Running));
    handle.stop_component("db", "moved").unwrap();
    handle.ended("db").await;
    assert_eq!(handle.state("worker"), Some(DONE));
    assert!(run.stop("enough").await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn the_name_of_one_that_was_stopped_is_free_for_another() {
    let diary = Diary::default();
    let run = running(
        Lifecycle::new("orders")
            .component(diary.component("db", SECOND))
            .component(diary.component("worker", SECOND).after(["db"])),
    )
    .await;
    // The lifecycle goes on for it.
    let handle = run.handle();
    handle.add(obedient("http")).unwrap();
    handle.stop_component("worker", "a new version").unwrap();
    let again = || diary.component("worker", SECOND).after(["db"]);
    let early = handle.add(again()).unwrap_err();
    assert!(early.is_duplicate(), "it has not ended");
    handle.ended("worker").await;
    handle.add(again()).unwrap();
    assert_eq!(handle.state("worker"), Some(Created));
    assert_eq!(handle.wait_for("worker", Running).await, Some(Running));
    let report = run.stop("enough").await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.components.len(), 4);
    let rows = report.components.iter();
    assert_eq!(rows.filter(|one| one.component == "worker").count(), 2);
    assert_eq!(
        diary.lines()[2..],
        [
            "worker stops",
            "worker is gone",
            "worker starts",
            "worker stops",
            "worker is gone",
            "db stops",
            "db is gone"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_component_that_depends_on_a_stopped_or_failed_one_cannot_be_added() {
    let broken = Component::new("cache", async |ctx: Context| {
        ctx.ready();
        sleep(SECOND).await;
        Err("gone".into())
    });
    let run = running(
        Lifecycle::new("orders")
            .component(obedient("http"))
            .component(broken.may_fail())
            .component(deaf("queue").grace(5 * SECOND)),
    )
    .await;
    let handle = run.handle();
    handle.ended("cache").await;
    handle.stop_component("queue", "moved").unwrap();
    for name in ["cache", "queue"] {
        let error = handle.add(obedient("late").after([name])).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("component `late` depends on `{name}`, which was stopped or has failed")
        );
    }
    handle.ended("queue").await;
    let error = handle.add(obedient("late").after(["queue"])).unwrap_err();
    assert!(error.is_unknown(), "its name is free: {error:#}");
    run.stop("enough").await;
}

#[tokio::test(start_paused = true)]
async fn an_added_component_that_is_not_ready_in_time_is_a_failed_start() {
    let silent = || {
        Component::new("silent", async |ctx: Context| Ok(ctx.stopping().await))
            .start_timeout(3 * SECOND)
    };
    let run = running(Lifecycle::new("orders").component(obedient("http"))).await;
    let handle = run.handle().clone();
    handle.add(silent().may_fail()).unwrap();
    handle.ended("silent").await;
    assert_eq!(handle.cause(), None, "all were ready, and it may fail");

    handle.stop_component("silent", "to make room").unwrap();
    handle.add(silent()).unwrap();
    let mut run = run;
    let report = run.wait().await;
    assert_eq!(report.errors.len(), 2, "{report}");
    for error in errors(&report) {
        assert!(error.contains("was not ready within 3s"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_component_can_be_added_once_the_stop_has_begun() {
    let run = running(Lifecycle::new("orders").component(obedient("http"))).await;
    let handle = run.handle().clone();
    handle.stop("enough");
    for _ in 0..2 {
        let error = handle.add(obedient("late")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "lifecycle `orders` is stopping, or has ended: `late` cannot be added"
        );
        handle.report().await;
    }
    let report = run.stop("again").await;
    assert_eq!(report.components.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_is_added_to_a_phase_after_another_of_it_was_stopped() {
    let diary = Diary::default();
    let run = running(
        Lifecycle::new("orders")
            .phase("accept", None)
            .phase("close", None)
            .component(diary.component("http", SECOND).phase("accept"))
            .component(diary.component("db", SECOND).phase("close"))
            .component(diary.component("cache", SECOND).phase("close"))
            .component(obedient("other")),
    )
    .await;
    let handle = run.handle();
    handle.stop_component("db", "replaced").unwrap();
    handle.ended("db").await;
    assert_eq!(handle.state("http"), Some(DONE));
    handle
        .add(diary.component("db", SECOND).phase("close"))
        .unwrap();
    handle
        .add(diary.component("http", SECOND).phase("accept"))
        .unwrap();
    assert_eq!(handle.wait_for("http", Running).await, Some(Running));
    let report = run.stop("enough").await;
    assert!(report.is_clean(), "{report}");
    let lines = diary.lines();
    assert_eq!(
        lines[7..11],
        ["db starts", "http starts", "http stops", "http is gone"]
    );
    assert!(lines[11..13].contains(&"db stops".to_owned()));
    assert!(lines[11..13].contains(&"cache stops".to_owned()));
}
