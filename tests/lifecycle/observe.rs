//! Observers that join while the lifecycle runs.

use std::sync::{Arc, Mutex};

use taskgroup::lifecycle::{ComponentState, EventKind, Lifecycle};

use crate::support::obedient;

#[tokio::test(start_paused = true)]
async fn an_observer_that_joins_late_knows_every_state() {
    let lifecycle = Lifecycle::new("orders")
        .component(obedient("db"))
        .component(obedient("http").after(["db"]));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));

    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let states = handle.observe(move |event| {
        let Some(component) = &event.component else {
            return;
        };
        let what = match &event.kind {
            EventKind::StopBegan(_) => "stops",
            EventKind::Ended { .. } => "ended",
            kind => panic!("{kind:?}"),
        };
        log.lock().unwrap().push(format!("{component} {what}"));
    });
    let running = |name: &str| (name.to_owned(), ComponentState::Running);
    assert_eq!(states, [running("db"), running("http")]);

    handle.stop("enough");
    run.await.unwrap().unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        [
            "orders/http stops",
            "orders/http ended",
            "orders/db stops",
            "orders/db ended",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_joins_before_the_run_hears_everything() {
    let lifecycle = Lifecycle::new("orders").component(obedient("db"));
    let handle = lifecycle.handle();
    let count = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&count);
    assert_eq!(handle.observe(move |_| *counted.lock().unwrap() += 1), []);
    let all = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&all);
    let lifecycle = lifecycle.observe(move |_| *counted.lock().unwrap() += 1);
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop("enough");
    run.await.unwrap().unwrap();
    assert_eq!(*count.lock().unwrap(), *all.lock().unwrap());
}
