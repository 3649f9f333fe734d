//! L2, L4, L6: the stop, in reverse order and in time.

use taskgroup::lifecycle::{ComponentErrorKind, ComponentState};
use taskgroup::{Component, Lifecycle};

use crate::support::{Diary, SECOND, deaf, obedient};

#[tokio::test(start_paused = true)]
async fn independent_components_stop_at_once_and_dependencies_after_them() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .component(diary.component("db", SECOND))
        .component(diary.component("grpc", SECOND).after(["db"]))
        .component(diary.component("worker", 2 * SECOND).after(["db"]));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert!(handle.ready().await);
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();

    assert_eq!(
        diary.lines()[3..],
        [
            "grpc stops",
            "worker stops",
            "grpc is gone",
            "worker is gone",
            "db stops",
            "db is gone"
        ]
    );
    assert_eq!(report.took(), 3 * SECOND);
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn who_overruns_is_forced_and_named_and_the_next_goes_on() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .component(diary.component("db", SECOND))
        .component(deaf("worker").after(["db"]).grace(3 * SECOND));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert!(handle.ready().await);
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();

    assert_eq!(report.took(), 4 * SECOND);
    assert_eq!(report.errors.len(), 1);
    assert_eq!(
        report.errors[0].kind,
        ComponentErrorKind::Overran(3 * SECOND)
    );
    assert_eq!(
        report.stragglers[0].task.as_deref(),
        Some("orders/worker/run")
    );
    assert_eq!(handle.state("worker"), Some(ComponentState::ForceStopped));
    assert_eq!(handle.state("db"), Some(ComponentState::Stopped));
    assert!(diary.lines().contains(&"db is gone".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_stops_the_whole_and_is_the_first_error() {
    let crash = Component::new("worker", |ctx| async move {
        ctx.ready();
        tokio::time::sleep(SECOND).await;
        panic!("boom");
    });
    let report = Lifecycle::new("orders")
        .component(obedient("db"))
        .component(crash.after(["db"]))
        .run()
        .await
        .unwrap();

    assert_eq!(
        report.first_error().unwrap().to_string(),
        "component `worker` panicked: boom"
    );
    assert_eq!(report.errors.len(), 1);
    assert!(
        report.cause.to_string().contains("boom"),
        "{}",
        report.cause
    );
}
