//! L19: after the stop was asked for, nothing begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use taskgroup::lifecycle::{ComponentState, EventKind};
use taskgroup::{BoxError, Component, Lifecycle};

use crate::support::{Diary, SECOND, obedient, states};

/// A resource that notes that it is opened.
fn resource(name: &'static str, opened: &Arc<AtomicBool>) -> Component {
    let opened = Arc::clone(opened);
    Component::resource(
        name,
        move |_| async move { Ok(opened.store(true, Ordering::SeqCst)) },
        |()| async { Ok(()) },
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
            [ComponentState::Stopped, ComponentState::Created]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_the_stop_and_then_is_ready_starts_nothing_by_that() {
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
    assert_eq!(states(&report)[1], ComponentState::Created);
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
async fn of_very_many_components_those_that_have_not_been_started_stay_so() {
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
            .all(|state| *state == ComponentState::Created)
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
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
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
