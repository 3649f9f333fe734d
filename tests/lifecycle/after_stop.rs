//! L19: after the stop was asked for, nothing begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use taskgroup::lifecycle::{
    Budget, Component, ComponentState, EventKind, Handle, Lifecycle, ReadinessState,
};
use taskgroup::{BoxError, Cause, End};
use tokio::sync::mpsc;

use crate::support::{Diary, SECOND, obedient, states};

/// A resource that notes that it is opened.
fn resource(name: &'static str, opened: &Arc<AtomicBool>) -> Component {
    let opened = Arc::clone(opened);
    Component::resource(
        name,
        move |_| async move { Ok(opened.store(true, Ordering::SeqCst)) },
        |(), _| async { Ok(()) },
    )
}

/// A job that asks for the stop, and has ended then.
fn stopping_job() -> Component {
    Component::job("job", |ctx| async move { Ok(ctx.stop("enough")) })
}

#[test]
fn a_job_asks_for_the_stop_and_returns_and_what_comes_after_it_is_never_opened() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_time().build().unwrap();
    let opened = Arc::new(AtomicBool::new(false));
    for round in 0..200 {
        let lifecycle = Lifecycle::new("orders")
            .component(stopping_job())
            .component(resource("db", &opened).after(["job"]));
        // The run itself is on a worker in one half of the rounds.
        let report = if round % 2 == 0 {
            runtime.block_on(lifecycle.run())
        } else {
            runtime.block_on(async { tokio::spawn(lifecycle.run()).await.unwrap() })
        };
        let report = report.unwrap();
        assert!(!opened.load(Ordering::SeqCst), "opened in round {round}");
        assert!(report.is_clean(), "{report}");
        assert_eq!(
            states(&report),
            [
                ComponentState::Ended(End::Done),
                ComponentState::Ended(End::Skipped)
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_component_that_asks_for_the_stop_and_then_is_ready_starts_no_other() {
    let opened = Arc::default();
    let hasty = Component::new("hasty", |ctx| async move {
        ctx.stop("enough");
        ctx.ready();
        Ok(ctx.stopping().await)
    });
    let report = Lifecycle::new("orders")
        .component(hasty)
        .component(resource("db", &opened).after(["hasty"]))
        .run()
        .await
        .unwrap();
    assert!(!opened.load(Ordering::SeqCst));
    assert!(report.is_clean(), "{report}");
    assert_eq!(states(&report)[1], ComponentState::Ended(End::Skipped));
}

#[tokio::test(start_paused = true)]
async fn a_component_that_has_not_had_its_first_turn_when_the_stop_is_asked_for_does_not_begin() {
    let opened = Arc::default();
    // Both are started at once, and this one has the first turn.
    let report = Lifecycle::new("orders")
        .component(stopping_job())
        .component(resource("db", &opened))
        .run()
        .await
        .unwrap();
    assert!(!opened.load(Ordering::SeqCst));
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn of_many_components_those_not_yet_started_at_the_stop_are_skipped() {
    let mut lifecycle = Lifecycle::new("orders").component(stopping_job());
    for index in 0..500 {
        lifecycle = lifecycle.component(Component::new(format!("{index}"), |ctx| async move {
            ctx.ready();
            Ok(ctx.stopping().await)
        }));
    }
    let report = lifecycle.run().await.unwrap();
    assert!(report.is_clean(), "{report}");
    let states = states(&report);
    assert!(
        states[400..]
            .iter()
            .all(|state| *state == ComponentState::Ended(End::Skipped))
    );
}

#[tokio::test(start_paused = true)]
async fn in_a_nested_lifecycle_nothing_begins_when_the_one_around_it_stops() {
    let opened = Arc::default();
    let nested = Lifecycle::new("storage")
        .budget(SECOND)
        .component(stopping_job())
        .component(resource("db", &opened).after(["job"]));
    let report = Lifecycle::new("orders")
        .component(Component::lifecycle(nested))
        .component(obedient("http").after(["storage"]))
        .run()
        .await
        .unwrap();
    assert!(!opened.load(Ordering::SeqCst));
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.cause.to_string(), "cancelled on request: enough");
    assert_eq!(report.nested[0].cause, report.cause);
}

#[tokio::test(start_paused = true)]
async fn a_component_that_has_asked_for_the_stop_may_return() {
    let diary = Diary::default();
    let (sender, mut events) = mpsc::unbounded_channel();
    let done = Component::new("done", |ctx| async move {
        ctx.ready();
        tokio::time::sleep(SECOND).await;
        ctx.stop("all is copied");
        Ok::<(), BoxError>(())
    });
    let report = Lifecycle::new("orders")
        .component(done)
        .component(diary.component("worker", SECOND).after(["done"]))
        .observe(move |event| {
            if let EventKind::Ended { .. } = event.kind {
                let path = event.component.as_deref().unwrap().to_owned();
                sender.send(path).unwrap();
            }
        })
        .run()
        .await
        .unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(
        report.cause.to_string(),
        "cancelled on request: all is copied"
    );
    assert_eq!(events.recv().await.unwrap(), "orders/worker");
    assert_eq!(events.recv().await.unwrap(), "orders/done");
}

#[tokio::test(start_paused = true)]
async fn when_a_call_of_stop_has_returned_the_service_is_not_ready() {
    let lifecycle = Lifecycle::new("orders").component(obedient("db"));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    assert!(handle.readiness().is_ready());
    // The run has no turn in between.
    handle.stop("enough");
    assert!(!handle.readiness().is_ready());
    assert_eq!(handle.readiness().state(), ReadinessState::Draining);
    assert!(!handle.readiness().set_ready());
    assert!(run.await.unwrap().unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn after_a_stop_before_the_run_the_service_cannot_become_ready() {
    let lifecycle = Lifecycle::new("orders").component(obedient("db"));
    let handle = lifecycle.handle();
    handle.stop("enough");
    assert!(!handle.readiness().set_ready());
    assert_eq!(handle.readiness().state(), ReadinessState::Draining);
    lifecycle.run().await.unwrap();
    assert_eq!(handle.readiness().state(), ReadinessState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn when_a_call_that_skips_the_jitter_has_returned_the_service_is_not_ready() {
    let hurries: [fn(&Handle); 2] = [|it| it.stop_now("now"), |it| it.force("now")];
    for hurry in hurries {
        let budget = Budget::new(20 * SECOND).jitter(10 * SECOND);
        let lifecycle = Lifecycle::new("orders").budget(budget);
        let lifecycle = lifecycle.component(obedient("db"));
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        assert_eq!(handle.ready().await, Ok(()));
        handle.stop("a deployment");
        assert!(handle.readiness().is_ready());
        hurry(&handle);
        assert!(!handle.readiness().is_ready());
        run.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_jitter_the_service_is_ready_until_that_is_over() {
    let budget = Budget::new(20 * SECOND).jitter(10 * SECOND);
    let lifecycle = Lifecycle::new("orders").budget(budget);
    let lifecycle = lifecycle.component(Diary::default().component("db", SECOND));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop("enough");
    assert!(handle.readiness().is_ready());
    let seen = handle.readiness().changed(ReadinessState::Ready).await;
    assert_eq!(seen, ReadinessState::Draining);
    assert!(run.await.unwrap().unwrap().is_clean());
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn when_a_call_of_stop_has_returned_readyz_is_503() {
    use axum::http::Request;
    use tower_service::Service;

    let lifecycle = Lifecycle::new("orders").component(obedient("db"));
    let handle = lifecycle.handle();
    let routes: axum::Router = handle.readiness().routes();
    let ask = || async {
        let request = Request::get("/readyz");
        let request = request.body(axum::body::Body::empty()).unwrap();
        routes.clone().call(request).await.unwrap().status()
    };
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    assert_eq!(ask().await, 200);
    handle.stop("enough");
    assert_eq!(ask().await, 503);
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_waiter_for_readiness_is_told_of_a_stop_before_the_run() {
    let lifecycle = Lifecycle::new("orders").component(obedient("db"));
    let handle = lifecycle.handle();
    let waits = tokio::spawn({
        let handle = handle.clone();
        async move { handle.ready().await }
    });
    handle.stop("enough");
    let cause = Cause::Requested("enough".into());
    assert_eq!(waits.await.unwrap(), Err(cause.clone()));
    assert_eq!(handle.ready().await, Err(cause));
    lifecycle.run().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lifecycle_of_jobs_that_has_ended_was_ready() {
    let lifecycle = Lifecycle::new("orders").component(Component::job("job", |_| async { Ok(()) }));
    let handle = lifecycle.handle();
    lifecycle.run().await.unwrap();
    assert_eq!(handle.ready().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_for_readiness_is_told_why_it_never_comes() {
    let job = Component::job("job", |_| async { Err("no licence".into()) });
    let lifecycle = Lifecycle::new("orders").component(job);
    let handle = lifecycle.handle();
    lifecycle.run().await.unwrap();
    let error = handle.ready().await.unwrap_err();
    assert!(error.to_string().contains("no licence"), "{error}");

    let lifecycle = Lifecycle::new("orders").component(obedient("db"));
    let handle = lifecycle.handle();
    drop(lifecycle);
    assert_eq!(handle.ready().await, Err(Cause::Dropped));
}

#[tokio::test(start_paused = true)]
async fn what_is_stopped_before_it_was_started_is_skipped_and_says_why() {
    let (sender, mut skipped) = mpsc::unbounded_channel();
    let starting = Component::new("db", async |ctx| Ok(ctx.stopping().await));
    let orders = Lifecycle::new("orders")
        .component(starting)
        .component(obedient("http").after(["db"]))
        .component(obedient("queue"))
        .component(obedient("consumer").after(["queue", "db"]))
        .observe(move |event| {
            if let EventKind::Skipped(reason) = &event.kind {
                let component = event.component.as_deref().unwrap().to_owned();
                sender.send((component, reason.clone())).unwrap();
            }
        });
    let handle = orders.handle();
    let run = tokio::spawn(orders.run());
    handle.wait_for("queue", ComponentState::Running).await;
    handle.stop_component("queue", "the broker moves").unwrap();
    let skipped_alone = handle.wait_for("consumer", ComponentState::Running).await;
    assert_eq!(skipped_alone, Some(ComponentState::Ended(End::Skipped)));
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();

    assert!(report.is_clean(), "{report}");
    let moves = "cancelled on request: the broker moves".to_owned();
    let began = "the stop began".to_owned();
    let told = [skipped.recv().await, skipped.recv().await];
    assert_eq!(
        told,
        [
            Some(("orders/consumer".to_owned(), moves.clone())),
            Some(("orders/http".to_owned(), began.clone())),
        ]
    );
    let state = |name: &str| {
        let mut all = report.components.iter();
        let status = all.find(|status| status.component == name).unwrap();
        (status.state, status.message.clone())
    };
    let end = ComponentState::Ended(End::Skipped);
    assert_eq!(state("consumer"), (end, moves));
    assert_eq!(state("http"), (end, began));
    let text = report.to_string();
    assert!(
        text.contains("never started: http (the stop began)"),
        "{text}"
    );
}
