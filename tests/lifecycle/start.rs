//! L1, L6: the start, in order.

use std::future::pending;

use taskgroup::lifecycle::{ComponentErrorKind, ComponentState};
use taskgroup::{Component, Lifecycle};
use tokio::time::sleep;

use crate::support::{Diary, SECOND, obedient};

#[tokio::test(start_paused = true)]
async fn components_start_after_what_they_depend_on_is_ready() {
    let diary = Diary::default();
    let slow = {
        let diary = diary.clone();
        Component::new("db", move |ctx| async move {
            diary.write("db starts");
            sleep(SECOND).await;
            diary.write("db is ready");
            ctx.ready();
            Ok(ctx.stopping().await)
        })
    };
    let lifecycle = Lifecycle::new("orders")
        .component(diary.component("http", SECOND).after(["grpc"]))
        .component(diary.component("grpc", SECOND).after(["db"]))
        .component(slow);
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());

    assert!(handle.ready().await);
    assert_eq!(
        diary.lines(),
        ["db starts", "db is ready", "grpc starts", "http starts"]
    );
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_stops_what_has_started_and_names_the_culprit() {
    let diary = Diary::default();
    let report = Lifecycle::new("orders")
        .component(diary.component("db", SECOND))
        .component(diary.component("cache", SECOND).after(["db"]))
        .component(
            Component::new("grpc", |_| async { Err("address in use".into()) }).after(["cache"]),
        )
        .component(diary.component("http", SECOND).after(["grpc"]))
        .run()
        .await
        .unwrap();

    assert_eq!(
        diary.lines(),
        [
            "db starts",
            "cache starts",
            "cache stops",
            "cache is gone",
            "db stops",
            "db is gone"
        ]
    );
    let error = report.first_error().unwrap();
    assert_eq!(
        error.to_string(),
        "component `grpc` did not start: address in use"
    );
    assert_eq!(error.kind, ComponentErrorKind::StartFailed);
    assert_eq!(report.errors.len(), 1);
    let states: Vec<_> = report
        .components
        .iter()
        .map(|status| status.state)
        .collect();
    use ComponentState::{Crashed, Created, Stopped};
    assert_eq!(states, [Stopped, Stopped, Crashed, Created]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_takes_too_long_is_stopped_and_named() {
    let hung = Component::new("db", |ctx| async move { Ok(ctx.stopping().await) });
    let report = Lifecycle::new("orders")
        .component(hung.start_timeout(3 * SECOND))
        .component(obedient("http").after(["db"]))
        .run()
        .await
        .unwrap();

    let error = report.first_error().unwrap();
    assert_eq!(error.kind, ComponentErrorKind::StartTimedOut(3 * SECOND));
    assert_eq!(report.stop_began, 3 * SECOND);
    assert!(report.took().is_zero());
}

#[tokio::test(start_paused = true)]
async fn the_opening_of_a_resource_is_dropped_when_the_stop_comes() {
    let db = Component::resource("db", |_| pending(), |()| async { unreachable!() });
    let lifecycle = Lifecycle::new("orders").component(db);
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    handle
        .wait_for("db", ComponentState::Starting)
        .await
        .unwrap();
    handle.stop("changed our mind");

    let report = run.await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
}
