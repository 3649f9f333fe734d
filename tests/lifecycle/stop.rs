//! L2, L4, L6: the stop, in reverse order and in time.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use taskgroup::lifecycle::{Component, ComponentError, ComponentState, Lifecycle, StepKind};
use taskgroup::{BoxError, End};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{advance, sleep};

use crate::support::{
    Diary, ENDED_EARLY, FAILED, Guard, SECOND, STOP_FAILED, deaf, errors, obedient, overran,
    states, stopped, wrong,
};

#[tokio::test(start_paused = true)]
async fn independent_components_stop_at_once_and_dependencies_after_them() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .component(diary.component("db", SECOND))
        .component(diary.component("grpc", SECOND).after(["db"]))
        .component(diary.component("worker", 2 * SECOND).after(["db"]));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
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
async fn a_component_that_overruns_is_forced_and_named_and_the_stop_goes_on() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .component(diary.component("db", SECOND))
        .component(deaf("worker").after(["db"]).grace(3 * SECOND));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();

    assert_eq!(report.took(), 4 * SECOND);
    assert_eq!(report.errors.len(), 1);
    assert_eq!(wrong(&report.errors[0]), overran(3 * SECOND));
    assert_eq!(
        report.stragglers[0].task.as_deref(),
        Some("orders/worker/run")
    );
    assert_eq!(
        handle.state("worker"),
        Some(ComponentState::Ended(End::TimedOut))
    );
    assert_eq!(handle.state("db"), Some(ComponentState::Ended(End::Done)));
    assert!(diary.lines().contains(&"db is gone".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_stops_the_whole_and_is_the_first_error() {
    let crash = Component::new("worker", |ctx| async move {
        ctx.ready();
        sleep(SECOND).await;
        panic!("boom");
    });
    let report = Lifecycle::new("orders")
        .component(obedient("db"))
        .component(crash.after(["db"]))
        .run()
        .await
        .unwrap();

    assert_eq!(
        format!("{:#}", report.first_error().unwrap()),
        "component `worker` panicked: boom"
    );
    assert_eq!(report.errors.len(), 1);
    assert!(
        report.cause.to_string().contains("boom"),
        "{}",
        report.cause
    );
}

/// A component that is ready at once, and ends its stop in this way.
fn ends(name: &'static str, stop: fn() -> Result<(), BoxError>) -> Component {
    Component::new(name, move |ctx| async move {
        ctx.ready();
        ctx.stopping().await;
        stop()
    })
}

#[tokio::test(start_paused = true)]
async fn a_failure_and_a_panic_in_a_stop_do_not_keep_the_next_from_stopping() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .component(diary.component("db", SECOND))
        .component(ends("grpc", || panic!("poisoned")).after(["db"]))
        .component(ends("http", || Err("socket is gone".into())).after(["grpc"]));
    let report = stopped(lifecycle).await;

    assert_eq!(
        errors(&report),
        [
            "component `http` failed while it stopped: socket is gone",
            "component `grpc` panicked: poisoned",
        ]
    );
    assert_eq!(wrong(&report.errors[0]), STOP_FAILED);
    assert_eq!(report.cause.to_string(), "cancelled on request: enough");
    assert!(diary.lines().contains(&"db is gone".to_owned()));
    let ends = [End::Done, End::Panicked, End::Failed];
    assert_eq!(states(&report), ends.map(ComponentState::Ended));
}

#[tokio::test(start_paused = true)]
async fn any_number_of_callers_stop_it_once_and_see_one_report() {
    let lifecycle = Lifecycle::new("orders").component(obedient("db"));
    let handle = lifecycle.handle();
    let early = tokio::spawn({
        let handle = handle.clone();
        async move { handle.report().await.unwrap() }
    });
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.clone().stop("the first");
    handle.stop("the second");
    handle.stop_now("the third");
    let report = run.await.unwrap().unwrap();
    handle.stop("much too late");

    let (early, late) = (early.await.unwrap(), handle.report().await.unwrap());
    assert!(Arc::ptr_eq(&early, &late));
    assert_eq!(report.to_string(), late.to_string());
    assert_eq!(report.cause.to_string(), "cancelled on request: the first");
    assert_eq!(handle.cause(), Some(report.cause));
}

#[tokio::test(start_paused = true)]
async fn a_forced_component_is_gone_before_the_next_one_is_told() {
    let diary = Diary::default();
    let worker = {
        let diary = diary.clone();
        Component::new("worker", move |ctx| async move {
            let guard = Guard(diary.clone(), "worker is dropped");
            let helper = Guard(diary, "its helper is dropped");
            ctx.group().task("helper").spawn(async move {
                let _helper = helper;
                Ok(pending::<()>().await)
            });
            ctx.ready();
            let _guard = guard;
            pending().await
        })
    };
    let lifecycle = Lifecycle::new("orders")
        .component(diary.component("db", SECOND))
        .component(worker.after(["db"]).grace(SECOND));
    let handle = lifecycle.handle();
    let report = stopped(lifecycle).await;

    let mut lines = diary.lines();
    lines[1..3].sort();
    assert_eq!(
        lines,
        [
            "db starts",
            "its helper is dropped",
            "worker is dropped",
            "db stops",
            "db is gone"
        ]
    );
    let mut tasks: Vec<_> = report
        .stragglers
        .iter()
        .map(|it| it.task.as_deref())
        .collect();
    tasks.sort_unstable();
    assert_eq!(
        tasks,
        [Some("orders/worker/helper"), Some("orders/worker/run")]
    );
    assert!(report.stragglers[0].place.contains("stop.rs"));
    assert!(handle.running().is_empty());
    let stop = report
        .timeline
        .iter()
        .find(|step| step.kind == StepKind::Stop);
    let stop = stop.unwrap();
    assert_eq!((stop.end, stop.limit), (End::TimedOut, Some(SECOND)));
}

#[tokio::test(start_paused = true)]
async fn a_grace_of_zero_is_told_and_forced_at_once() {
    let lifecycle = Lifecycle::new("orders").component(deaf("db").grace(Duration::ZERO));
    let report = stopped(lifecycle).await;
    assert_eq!(report.took(), Duration::ZERO);
    assert_eq!(wrong(&report.errors[0]), overran(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_row_of_components_that_do_not_listen_is_forced_within_the_budget() {
    let mut lifecycle = Lifecycle::new("orders").budget(10 * SECOND);
    for (index, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        let before = (index > 0).then(|| ["a", "b", "c", "d", "e"][index - 1]);
        lifecycle = lifecycle.component(deaf(name).after(before));
    }
    let report = stopped(lifecycle).await;
    assert_eq!(report.errors.len(), 5);
    assert_eq!(report.stragglers.len(), 5);
    assert_eq!(states(&report), [ComponentState::Ended(End::TimedOut); 5]);
    assert!(report.took() <= 10 * SECOND, "{report}");
    assert!(report.was_forced());
}

#[tokio::test(start_paused = true)]
async fn threads_that_hang_are_named_as_still_running_and_the_budget_holds() {
    let (release, _) = tokio::sync::broadcast::channel::<()>(1);
    let (gone, mut all_gone) = mpsc::unbounded_channel::<()>();
    let (begun, mut threads) = mpsc::unbounded_channel();
    let hung = |name: &'static str| {
        let (mut released, gone) = (release.subscribe(), gone.clone());
        let begun = begun.clone();
        Component::new(name, |ctx| async move {
            ctx.group().task("fsync").spawn_blocking(move |_| {
                begun.send(()).unwrap();
                let _ = released.blocking_recv();
                drop(gone);
                Ok(())
            });
            ctx.ready();
            Ok(ctx.stopping().await)
        })
    };
    let lifecycle = Lifecycle::new("orders")
        .budget(10 * SECOND)
        .component(obedient("log"))
        .component(hung("db").after(["log"]))
        .component(hung("cache").after(["db"]).grace(SECOND));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    threads.recv().await.unwrap();
    threads.recv().await.unwrap();
    handle.stop("enough");
    // The clock does not go on by itself while a thread of Tokio is busy.
    while !run.is_finished() {
        yield_now().await;
        advance(SECOND / 100).await;
    }
    let report = run.await.unwrap().unwrap();
    assert!(report.took() <= 10 * SECOND, "{report}");
    let ends: Vec<_> = report.errors.iter().map(ComponentError::end).collect();
    assert_eq!(ends, [End::StillRunning; 2]);
    let fsyncs: Vec<_> = report.stragglers.iter().map(ToString::to_string).collect();
    assert_eq!(fsyncs.len(), 2, "{fsyncs:?}");
    assert!(
        report
            .stragglers
            .iter()
            .all(|straggler| straggler.still_running)
    );
    assert_eq!(handle.state("log"), Some(ComponentState::Ended(End::Done)));
    assert_eq!(
        handle.state("db"),
        Some(ComponentState::Ended(End::StillRunning))
    );

    release.send(()).unwrap();
    drop(gone);
    assert!(all_gone.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_helper_that_fails_stops_its_component_and_then_the_whole() {
    let diary = Diary::default();
    let worker = {
        let diary = diary.clone();
        Component::new("worker", move |ctx| async move {
            ctx.ready();
            ctx.group().task("poll").spawn(async {
                sleep(SECOND).await;
                Err::<(), _>("no partition".into())
            });
            ctx.stopping().await;
            diary.write(ctx.cause().unwrap().to_string());
            Ok(())
        })
    };
    let lifecycle = Lifecycle::new("orders")
        .component(diary.component("db", SECOND))
        .component(worker.after(["db"]));
    let report = lifecycle.run().await.unwrap();
    assert_eq!(report.errors.len(), 1);
    assert_eq!(wrong(&report.errors[0]), FAILED);
    assert!(errors(&report)[0].contains("poll"), "{report}");
    assert!(
        diary.lines()[1].contains("no partition"),
        "{:?}",
        diary.lines()
    );
    assert_eq!(
        states(&report),
        [
            ComponentState::Ended(End::Done),
            ComponentState::Ended(End::Failed)
        ]
    );
    assert_eq!(report.stop_began, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_component_whose_helper_fails_and_that_takes_no_notice_is_forced_and_has_failed() {
    let worker = Component::new("worker", |ctx| async move {
        ctx.ready();
        ctx.group()
            .spawn(async { Err::<(), _>("no partition".into()) });
        pending().await
    });
    let lifecycle = Lifecycle::new("orders")
        .component(obedient("db"))
        .component(worker.after(["db"]).grace(SECOND));
    let report = lifecycle.run().await.unwrap();
    let kinds: Vec<_> = report.errors.iter().map(wrong).collect();
    assert_eq!(kinds, [FAILED, overran(SECOND)]);
    assert!(errors(&report)[0].contains("no partition"), "{report}");
    assert_eq!(states(&report)[1], ComponentState::Ended(End::TimedOut));
    assert_eq!(report.took(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn all_errors_of_a_component_are_reported_once() {
    let worker = Component::new("worker", |ctx| async move {
        ctx.ready();
        for name in ["a", "b"] {
            let token = ctx.token().clone();
            ctx.group().task(name).spawn(async move {
                token.cancelled().await;
                Err::<(), _>(format!("{name} is lost").into())
            });
        }
        ctx.stopping().await;
        sleep(SECOND).await;
        Err("and so am I".into())
    });
    let (sender, mut failed) = mpsc::unbounded_channel();
    let lifecycle = Lifecycle::new("orders")
        .component(worker)
        .observe(move |event| {
            if let taskgroup::lifecycle::EventKind::Failed(error) = &event.kind {
                sender.send(error.message.clone()).unwrap();
            }
        });
    let report = stopped(lifecycle).await;
    let mut heard = Vec::new();
    while let Some(message) = failed.recv().await {
        heard.push(message);
    }
    let messages: Vec<_> = report
        .errors
        .iter()
        .map(|error| error.message.clone())
        .collect();
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert!(messages[0].contains("a is lost") && messages[1].contains("b is lost"));
    assert!(messages[2].contains("and so am I"));
    assert_eq!(heard, messages, "observers hear of each");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_component_during_the_lame_duck_is_a_failure() {
    let budget = taskgroup::lifecycle::Budget::new(20 * SECOND).lame_duck(5 * SECOND);
    let eager = |handle: taskgroup::lifecycle::Handle| {
        Component::new("http", move |ctx| async move {
            ctx.ready();
            // That is the token of the whole: it says nothing to a component.
            Ok(handle.token().cancelled().await)
        })
    };
    let lifecycle = Lifecycle::new("orders").budget(budget);
    let http = eager(lifecycle.handle());
    let report = stopped(lifecycle.component(http).component(obedient("db"))).await;
    assert_eq!(wrong(&report.errors[0]), ENDED_EARLY);
    assert_eq!(report.cause.to_string(), "cancelled on request: enough");
    assert_eq!(report.took(), 5 * SECOND, "the lame duck goes on: {report}");
}
