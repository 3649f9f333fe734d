//! A lifecycle in a group, under a token, in another one, and again and again: L22.

use std::sync::Arc;

use taskgroup::lifecycle::{Component, EventKind, Lifecycle};
use taskgroup::{BoxError, CancellationToken, Cause, TaskGroup};
use tokio::sync::Notify;

use crate::support::{Diary, SECOND, deaf, obedient, stopped};

/// Stops one after another.
fn orders(diary: &Diary) -> Lifecycle {
    Lifecycle::new("orders")
        .component(diary.component("db", SECOND))
        .component(diary.component("http", SECOND).after(["db"]))
}

const IN_ORDER: [&str; 6] = [
    "db starts",
    "http starts",
    "http stops",
    "http is gone",
    "db stops",
    "db is gone",
];

#[tokio::test(start_paused = true)]
async fn a_lifecycle_in_a_group_stops_in_order_when_the_group_is_cancelled() {
    let diary = Diary::default();
    let mut group = TaskGroup::new();
    let lifecycle = orders(&diary).stop_on(group.spawner());
    let handle = lifecycle.handle();
    group
        .task("orders")
        .spawn(async move { Ok::<_, BoxError>(lifecycle.run().await?.into_result()?) });
    assert_eq!(handle.ready().await, Ok(()));
    group.cancel_because("a deployment");
    group.wait().await.unwrap();
    assert_eq!(diary.lines(), IN_ORDER);
    assert_eq!(handle.cause(), group.cause());
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_another_task_of_the_group_stops_a_lifecycle_in_order() {
    let diary = Diary::default();
    let mut group = TaskGroup::new();
    let lifecycle = orders(&diary).stop_on(group.spawner());
    let handle = lifecycle.handle();
    group
        .task("orders")
        .spawn(async move { Ok::<_, BoxError>(lifecycle.run().await?.into_result()?) });
    assert_eq!(handle.ready().await, Ok(()));
    group
        .task("disk")
        .spawn(async { Err::<(), _>("full".into()) });
    let error = group.wait().await.unwrap_err();
    assert_eq!(error.name(), Some("disk"));
    assert_eq!(diary.lines(), IN_ORDER);
    assert!(matches!(handle.cause(), Some(Cause::Failed(_))));
    assert!(
        handle.report().await.unwrap().is_clean(),
        "it is not its own failure"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lifecycle_under_a_token_stops_in_order() {
    let diary = Diary::default();
    let token = CancellationToken::new();
    let run = orders(&diary)
        .stop_on(token.clone().cancelled_owned())
        .start()
        .await;
    let mut run = run.unwrap();
    token.cancel();
    assert!(run.wait().await.is_clean());
    assert_eq!(diary.lines(), IN_ORDER);
}

#[tokio::test(start_paused = true)]
async fn nested_lifecycles_with_default_budgets_fit() {
    let diary = Diary::default();
    let innermost = Lifecycle::new("innermost").component(diary.component("db", SECOND));
    let inner = Lifecycle::new("inner")
        .component(Component::lifecycle(innermost))
        .component(diary.component("http", SECOND).after(["innermost"]));
    let outer = Lifecycle::new("outer")
        .component(obedient("log"))
        .component(Component::lifecycle(inner).after(["log"]))
        .component(obedient("web").after(["inner"]));
    let report = stopped(outer).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.took(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_nested_lifecycle_stops_in_the_time_that_the_plan_shows_for_it() {
    // One that is deaf is forced at the end of its own grace, of all that the default gives.
    for total in [5 * SECOND, 100 * SECOND] {
        let inner = Lifecycle::new("inner")
            .component(obedient("db"))
            .component(deaf("queue").after(["db"]));
        let outer = Lifecycle::new("outer")
            .budget(total)
            .component(Component::lifecycle(inner));
        let plan = outer.plan().unwrap();
        let planned = plan.components().next().unwrap();
        let inside = planned.nested().unwrap();
        assert_eq!(inside.budget().total(), planned.grace());
        let queue = inside.components().nth(1).unwrap();
        let report = stopped(outer).await;
        assert_eq!(report.nested[0].errors.len(), 1, "{report}");
        let took = report.took();
        assert!(took >= queue.grace(), "{took:?} of {plan}");
        assert!(took <= queue.grace() + SECOND / 1000, "{took:?} of {plan}");
    }
}

#[test]
fn a_nested_lifecycle_that_asks_for_a_time_has_its_budget() {
    let inner = Lifecycle::new("inner").component(obedient("db").grace(8 * SECOND));
    let outer = Lifecycle::new("outer").component(Component::lifecycle(inner));
    let error = outer.plan().unwrap_err();
    assert!(error.is_budget(), "it is not cut in silence: {error}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_a_loop_that_goes_on_while_the_cause_says_so() {
    let diary = Diary::default();
    let reload = Arc::new(Notify::new());
    let mut rounds = 0;
    let report = loop {
        rounds += 1;
        let asked = Arc::clone(&reload);
        let lifecycle = orders(&diary).stop_on(async move {
            asked.notified().await;
            Cause::Reload
        });
        let (handle, again) = (lifecycle.handle(), Arc::clone(&reload));
        let lifecycle = lifecycle.observe(move |event| {
            if let EventKind::AllReady = event.kind {
                match rounds {
                    3 => handle.stop("enough"),
                    _ => again.notify_one(),
                }
            }
        });
        let report = lifecycle.run().await.unwrap();
        if report.cause != Cause::Reload {
            break report;
        }
    };
    assert!(report.is_clean(), "{report}");
    assert_eq!(
        (rounds, report.cause),
        (3, Cause::Requested("enough".into()))
    );
    assert_eq!(diary.lines(), IN_ORDER.repeat(3));
}
