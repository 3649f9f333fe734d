//! L23: what the failure of a component does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use taskgroup::lifecycle::{Component, ComponentState, EventKind, Lifecycle, StepKind};
use taskgroup::supervise::{Backoff, Supervisor};
use taskgroup::{BoxError, End};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::support::{
    Diary, ENDED_EARLY, PANICKED, SECOND, deaf, errors, obedient, states, stopped, wrong,
};

/// A component that is ready at once, and fails a second later.
#[track_caller]
fn failing(name: &'static str) -> Component {
    Component::new(name, async |ctx| {
        ctx.ready();
        sleep(SECOND).await;
        Err("the connection was reset".into())
    })
}

#[tokio::test(start_paused = true)]
async fn a_component_that_may_fail_fails_alone_and_the_others_stop_in_order_later() {
    let diary = Diary::default();
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let run = Lifecycle::new("orders")
        .component(diary.component("db", SECOND))
        .component(failing("cache").may_fail().after(["db"]))
        .component(diary.component("http", SECOND).after(["cache"]))
        .observe(move |event| {
            if let EventKind::Failed(error) = &event.kind {
                sender.send(format!("{error:#}")).unwrap();
            }
        })
        .start()
        .await
        .unwrap();
    let handle = run.handle().clone();
    let state = handle.ended("cache").await;
    assert_eq!(state, Some(End::Failed));
    assert_eq!(
        heard.recv().await.unwrap(),
        "component `cache` failed: the connection was reset"
    );
    sleep(3600 * SECOND).await;
    assert_eq!(diary.lines(), ["db starts", "http starts"]);
    assert_eq!(handle.cause(), None);
    assert!(handle.readiness().is_ready());

    let report = run.stop("enough").await;
    assert_eq!(
        diary.lines()[2..],
        ["http stops", "http is gone", "db stops", "db is gone"],
        "the database waits for http, through the cache that is gone"
    );

    assert_eq!(
        states(&report),
        [
            ComponentState::Ended(End::Done),
            ComponentState::Ended(End::Failed),
            ComponentState::Ended(End::Done)
        ]
    );
    assert_eq!(
        errors(&report),
        ["component `cache` failed: the connection was reset"]
    );
    assert_eq!(report.cause.to_string(), "cancelled on request: enough");
    assert!(!report.is_clean(), "something did go wrong");
    assert!(!report.was_forced());
}

#[tokio::test(start_paused = true)]
async fn a_panic_and_an_early_end_are_failures_that_it_may_have() {
    let panics = Component::new("panics", async |ctx| {
        ctx.ready();
        sleep(SECOND).await;
        if true {
            std::panic::resume_unwind(Box::new("boom"));
        }
        Ok(())
    });
    let ends = Component::new("ends", async |ctx| {
        ctx.ready();
        Ok(sleep(SECOND).await)
    });
    let run = Lifecycle::new("orders")
        .component(panics.may_fail())
        .component(ends.may_fail())
        .component(obedient("http"))
        .start()
        .await
        .unwrap();
    sleep(2 * SECOND).await;
    assert_eq!(run.handle().cause(), None);
    let report = run.stop("enough").await;
    let mut kinds: Vec<_> = report.errors.iter().map(wrong).collect();
    kinds.sort_by_key(|kind| format!("{kind:?}"));
    assert_eq!(kinds, [ENDED_EARLY, PANICKED]);
}

#[tokio::test(start_paused = true)]
async fn the_helpers_of_one_that_may_fail_have_its_grace_and_are_forced_after_it() {
    let began = Instant::now();
    let run = Lifecycle::new("orders")
        .component(
            Component::new("cache", async |ctx| {
                ctx.group()
                    .task("flush")
                    .spawn(std::future::pending::<Result<(), _>>());
                ctx.ready();
                sleep(SECOND).await;
                Err("the connection was reset".into())
            })
            .may_fail()
            .grace(3 * SECOND),
        )
        .component(obedient("http"))
        .start()
        .await
        .unwrap();
    let handle = run.handle().clone();
    let state = handle.ended("cache").await;
    assert_eq!(state, Some(End::TimedOut));
    assert_eq!(began.elapsed(), 4 * SECOND);
    assert_eq!(handle.state("http"), Some(ComponentState::Running));
    let report = run.stop("enough").await;
    assert!(report.was_forced());
    assert_eq!(
        report.stragglers[0].task.as_deref(),
        Some("orders/cache/flush")
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_leaves_one_that_is_still_failing_no_more_than_the_budget_does() {
    let cache = Component::new("cache", async |ctx| {
        ctx.group()
            .task("flush")
            .spawn(std::future::pending::<Result<(), _>>());
        ctx.ready();
        sleep(SECOND).await;
        Err("the connection was reset".into())
    });
    let run = Lifecycle::new("orders")
        .budget(10 * SECOND)
        .component(cache.may_fail().grace(8 * SECOND))
        .component(obedient("http"))
        .start()
        .await
        .unwrap();
    // It has until the ninth second, and the budget of the stop ends in the eighteenth.
    sleep(8 * SECOND).await;
    let report = run.stop("enough").await;
    assert!(report.took() <= 2 * SECOND, "{report}");
    assert!(report.was_forced());
}

#[tokio::test(start_paused = true)]
async fn before_all_are_ready_a_failure_is_that_of_the_start() {
    let slow = Component::new("slow", async |ctx| {
        sleep(5 * SECOND).await;
        ctx.ready();
        Ok(ctx.stopping().await)
    });
    let lifecycle = Lifecycle::new("orders")
        .component(failing("cache").may_fail())
        .component(slow);
    let error = lifecycle.start().await.unwrap_err();
    assert!(
        error.to_string().contains("component `cache` failed"),
        "{error}"
    );

    let broken = Component::job("cache", async |_| Err("no route to host".into()));
    let lifecycle = Lifecycle::new("orders").component(broken.may_fail());
    let error = lifecycle.start().await.unwrap_err();
    assert!(
        error.to_string().contains("`cache` did not start"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_restarts_a_component_with_a_backoff_and_then_fails() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let supervisor = Supervisor::new("consumer")
        .backoff(Backoff::new(SECOND, 8 * SECOND).no_jitter())
        .intensity(3, 60 * SECOND)
        .child("run", move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Err::<(), BoxError>("the broker is gone".into()) }
        });
    let diary = Diary::default();
    let began = Instant::now();
    let report = Lifecycle::new("orders")
        .component(diary.component("db", SECOND))
        .component(Component::supervisor(supervisor).after(["db"]))
        .run()
        .await
        .unwrap();
    // Waits of one, two and four seconds; then the whole stops.
    assert_eq!(runs.load(Ordering::Relaxed), 4);
    assert_eq!(began.elapsed(), 8 * SECOND);
    assert_eq!(report.errors.len(), 1);
    assert_eq!(report.errors[0].component, "consumer");
    assert_eq!(diary.lines().last().unwrap(), "db is gone");
}

#[tokio::test(start_paused = true)]
async fn a_failed_component_has_only_its_own_row_in_the_report() {
    let (send, sent) = oneshot::channel::<()>();
    let cache = Component::new("cache", async move |ctx| {
        ctx.ready();
        let _ = sent.await;
        Err("gone".into())
    });
    let lifecycle = Lifecycle::new("orders")
        .component(cache.may_fail())
        .component(deaf("worker").grace(Duration::ZERO));
    let handle = lifecycle.handle();
    tokio::spawn(async move {
        assert!(handle.ready().await.is_ok());
        send.send(()).unwrap();
    });
    let state = {
        let handle = lifecycle.handle();
        tokio::spawn(async move { handle.ended("cache").await })
    };
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(state.await.unwrap(), Some(End::Failed));
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();
    let rows = report
        .timeline
        .iter()
        .filter(|step| step.kind == StepKind::Stop);
    let rows: Vec<_> = rows
        .map(|step| (&*step.subject, step.end.is_failure()))
        .collect();
    assert_eq!(rows, [("cache", true), ("worker", true)]);
}

#[tokio::test(start_paused = true)]
async fn all_that_may_fail_and_have_end_the_lifecycle() {
    let report = Lifecycle::new("orders")
        .component(failing("cache").may_fail())
        .run()
        .await
        .unwrap();
    assert_eq!(report.cause.to_string(), "all is done");
    assert!(!report.is_clean());
    let clean = stopped(Lifecycle::new("orders").component(obedient("http").may_fail())).await;
    assert!(clean.is_clean());
}
