//! L20: a lifecycle with nothing left to do ends.

use std::sync::Arc;
use std::time::Duration;

use taskgroup::cleanup::Outcome;
use taskgroup::lifecycle::{Budget, Component, ComponentState, Lifecycle, StepKind};
use taskgroup::process::ExitPolicy;
use taskgroup::{Cause, End, Exit};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::support::{Diary, ENDED_EARLY, SECOND, obedient, states, wrong};

/// A resource that writes down when it is closed, and how all that used it has ended.
#[track_caller]
fn resource(name: &'static str, diary: &Diary) -> Component {
    let diary = diary.clone();
    Component::resource(
        name,
        async |_ctx| Ok(()),
        async move |(), outcome: Outcome| {
            let how = if outcome.is_done() { "done" } else { "stopped" };
            Ok(diary.write(format!("{name} is closed: {how}")))
        },
    )
}

/// A job that takes a second.
#[track_caller]
fn job(name: &'static str) -> Component {
    Component::job(name, async |_ctx| Ok(sleep(SECOND).await))
}

/// Lets time pass in which a lifecycle with nothing to do would have ended, and then stops it.
async fn still_runs(lifecycle: Lifecycle) {
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    sleep(100 * SECOND).await;
    assert_eq!(handle.cause(), None);
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn when_the_jobs_are_done_a_lifecycle_of_jobs_and_resources_ends_and_is_clean() {
    let diary = Diary::default();
    let report = Lifecycle::new("orders")
        .component(resource("database", &diary))
        .component(job("migrate").after(["database"]))
        .component(job("import").after(["migrate"]))
        .run()
        .await
        .unwrap();

    assert!(report.is_clean(), "{report}");
    assert_eq!(report.cause, Cause::Done);
    assert_eq!(report.ended, 2 * SECOND);
    assert_eq!(diary.lines(), ["database is closed: done"]);
    assert_eq!(states(&report), [ComponentState::Ended(End::Done); 3]);
    assert_eq!(ExitPolicy::strict().done(7).exit_of(&report).code(), 7);
    assert_eq!(Exit::from(report).code(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lifecycle_whose_jobs_are_done_ends_by_itself() {
    let budget = Budget::new(30 * SECOND)
        .jitter(5 * SECOND)
        .lame_duck(5 * SECOND);
    let report = Lifecycle::new("orders")
        .budget(budget)
        .component(resource("database", &Diary::default()))
        .component(job("import").after(["database"]))
        .run()
        .await
        .unwrap();
    assert_eq!(report.took(), Duration::ZERO, "{report}");
    let waits = |kind| kind == StepKind::Jitter || kind == StepKind::LameDuck;
    assert!(!report.timeline.iter().any(|step| waits(step.kind)));
}

#[tokio::test(start_paused = true)]
async fn a_component_that_may_end_keeps_the_lifecycle_going_until_it_has_ended() {
    let report = Lifecycle::new("orders")
        .component(resource("database", &Diary::default()))
        .component(job("migrate").after(["database"]))
        .component(
            Component::new("import", async |ctx| {
                ctx.ready();
                Ok(sleep(7 * SECOND).await)
            })
            .may_end(),
        )
        .run()
        .await
        .unwrap();
    assert_eq!(report.cause, Cause::Done);
    assert_eq!(report.stop_began, 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_comes_after_the_last_job_is_opened_before_the_end() {
    let diary = Diary::default();
    let report = Lifecycle::new("orders")
        .component(job("migrate"))
        .component(resource("database", &diary).after(["migrate"]))
        .run()
        .await
        .unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(diary.lines(), ["database is closed: done"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_keeps_it_going_and_so_does_a_lifecycle_of_resources_alone() {
    let database = || resource("database", &Diary::default());
    let with_worker = Lifecycle::new("orders")
        .component(database())
        .component(job("migrate").after(["database"]))
        .component(obedient("worker").after(["migrate"]));
    still_runs(with_worker).await;
    still_runs(Lifecycle::new("orders").component(database())).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_is_asked_for_first_is_the_cause_although_all_is_done() {
    let done = Arc::new(Notify::new());
    let last = Arc::clone(&done);
    let lifecycle = Lifecycle::new("orders")
        .component(resource("database", &Diary::default()))
        .component(Component::job("import", async move |ctx| {
            last.notified().await;
            Ok(ctx.stop("the queue is empty"))
        }));
    let run = tokio::spawn(lifecycle.run());
    done.notify_one();
    let report = run.await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(report.cause.to_string().contains("the queue is empty"));
}

#[tokio::test(start_paused = true)]
async fn a_lifecycle_of_jobs_inside_is_done_as_a_job_is() {
    let jobs = || {
        Lifecycle::new("setup")
            .component(job("migrate"))
            .component(job("seed"))
    };
    let inside = jobs();
    let inner = inside.handle();
    let orders = Lifecycle::new("orders")
        .component(Component::lifecycle(inside))
        .component(obedient("worker").after(["setup"]));
    let run = orders.start().await.unwrap();
    let setup = inner.report().await.unwrap();
    assert_eq!(setup.cause, Cause::Done);
    sleep(100 * SECOND).await;
    assert_eq!(run.handle().cause(), None, "nothing stops for it");
    assert_eq!(run.handle().ended("setup").await, Some(End::Done));
    let report = run.stop("enough").await;
    assert!(report.is_clean(), "{report}");

    // When nothing else is left, what is around it is done as well.
    let orders = Lifecycle::new("orders").component(Component::lifecycle(jobs()));
    let report = orders.run().await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.cause, Cause::Done);
}

#[tokio::test(start_paused = true)]
async fn a_lifecycle_inside_that_was_stopped_before_its_jobs_were_done_has_ended_early() {
    let inside = Lifecycle::new("setup").component(obedient("migrate"));
    let inner = inside.handle();
    let orders = Lifecycle::new("orders").component(Component::lifecycle(inside));
    let run = orders.start().await.unwrap();
    inner.stop("by hand");
    let report = run.handle().report().await.unwrap();
    assert_eq!(report.errors.len(), 1, "{report}");
    assert_eq!(wrong(&report.errors[0]), ENDED_EARLY);
    assert_eq!(report.errors[0].component, "setup");
}

#[tokio::test(start_paused = true)]
async fn a_lifecycle_inside_counts_until_only_resources_are_left_in_it() {
    let diary = Diary::default();
    let inside = || {
        Lifecycle::new("storage")
            .component(resource("database", &diary))
            .component(job("migrate").after(["database"]))
    };
    let orders = Lifecycle::new("orders")
        .component(Component::lifecycle(inside()))
        .component(job("import").after(["storage"]));
    let report = orders.run().await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.cause, Cause::Done);
    assert_eq!(report.ended, 2 * SECOND);
    assert_eq!(diary.lines(), ["database is closed: done"]);

    // What is inside does not end by itself: others use it.
    let orders = Lifecycle::new("orders")
        .component(Component::lifecycle(inside()))
        .component(obedient("worker").after(["storage"]));
    still_runs(orders).await;

    // Nor does what is around it, while there is work inside.
    let inside = inside().component(obedient("compactor"));
    let orders = Lifecycle::new("orders")
        .component(Component::lifecycle(inside))
        .component(job("import").after(["storage"]));
    still_runs(orders).await;
}
