//! Starting a lifecycle and going on, and what its errors say.

use std::error::Error;

use taskgroup::cleanup::Step;
use taskgroup::lifecycle::{Component, ComponentState, Lifecycle, ReadinessState};
use tokio::time::sleep;

use crate::support::{Diary, Guard, SECOND, obedient};

fn broken(name: &'static str, why: &'static str) -> Component {
    Component::job(name, move |_| async move {
        Err(std::io::Error::other(why).into())
    })
}

#[tokio::test(start_paused = true)]
async fn start_returns_when_all_is_ready_and_the_run_goes_on() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders").component(diary.component("worker", SECOND));
    let mut run = lifecycle.start().await.unwrap();
    assert_eq!(diary.lines(), ["worker starts"]);
    assert_eq!(run.handle().state("worker"), Some(ComponentState::Running));
    assert!(
        tokio::time::timeout(SECOND, run.wait()).await.is_err(),
        "it waits for a reason"
    );
    let report = run.stop("enough").await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.took(), SECOND);
    assert!(report.into_result().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_returns_the_report_when_all_has_been_stopped() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .component(diary.component("database", SECOND))
        .component(broken("migrate", "locked").after(["database"]));
    let error = lifecycle.start().await.unwrap_err();
    assert_eq!(diary.lines().last().unwrap(), "database is gone");
    let report = error.report().unwrap();
    assert_eq!(report.errors.len(), 1);
    assert!(
        error
            .to_string()
            .contains("component `migrate` did not start"),
        "{error}"
    );
    assert!(error.plan_error().is_none());

    let lifecycle = Lifecycle::new("orders").component(obedient("a").after(["b"]));
    let error = lifecycle.start().await.unwrap_err();
    assert!(error.plan_error().unwrap().is_unknown());
    assert!(error.report().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_stopped_says_why() {
    let lifecycle = Lifecycle::new("orders").component(obedient("worker"));
    lifecycle.handle().stop("changed my mind");
    let error = lifecycle.start().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "lifecycle `orders`: was stopped before it was ready: cancelled on request: changed my mind"
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_aborts_its_components() {
    let diary = Diary::default();
    let guard = diary.clone();
    let worker = Component::new("worker", async move |ctx| {
        let _guard = Guard(guard, "worker is dropped");
        ctx.ready();
        std::future::pending().await
    });
    let lifecycle = Lifecycle::new("orders").component(worker);
    let handle = lifecycle.handle();
    drop(lifecycle.start().await.unwrap());
    assert!(handle.report().await.is_none());
    sleep(SECOND).await;
    assert_eq!(diary.lines(), ["worker is dropped"]);
    assert_eq!(handle.readiness().state(), ReadinessState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_stands_for_several_names_them_all() {
    let several = || {
        let lifecycle = Lifecycle::new("orders")
            .component(broken("migrate", "locked"))
            .component(broken("index", "full"));
        let flush = Step::new("flush", |_| async { Err("disk full".into()) });
        let _step = lifecycle.cleanup().push(flush).unwrap();
        lifecycle
    };
    let error = several().run().await.unwrap().into_result().unwrap_err();
    let message = error.to_string();
    for name in ["`migrate`", "`index`", "`flush`"] {
        assert!(message.contains(name), "{message}");
    }
    let mut chain = std::iter::successors(error.source(), |error| (*error).source());
    assert!(chain.any(|error| error.is::<std::io::Error>()), "{error:?}");

    let outer = Lifecycle::new("shop").component(Component::lifecycle(several()));
    let report = outer.budget(60 * SECOND).run().await.unwrap();
    let error = report.errors[0].message.clone();
    assert!(
        error.contains("`migrate`") && error.contains("`index`"),
        "{error}"
    );
}
