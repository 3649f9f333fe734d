//! L1, L6: the start, in order.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use taskgroup::End;
use taskgroup::lifecycle::{Budget, ComponentState, EventKind, StepKind};
use taskgroup::lifecycle::{Component, Lifecycle};
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::support::{
    Diary, ENDED_BEFORE_READY, ENDED_EARLY, SECOND, START_FAILED, errors, obedient,
    start_timed_out, states, wrong,
};

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

    assert_eq!(handle.ready().await, Ok(()));
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
        format!("{error:#}"),
        "component `grpc` did not start: address in use"
    );
    assert_eq!(wrong(error), START_FAILED);
    assert_eq!(report.errors.len(), 1);
    let states: Vec<_> = report
        .components
        .iter()
        .map(|status| status.state)
        .collect();
    use ComponentState::Ended;
    let (done, failed) = (Ended(End::Done), Ended(End::Failed));
    assert_eq!(states, [done, done, failed, Ended(End::Skipped)]);
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
    assert_eq!(wrong(error), start_timed_out(3 * SECOND));
    assert_eq!(report.stop_began, 3 * SECOND);
    assert!(report.took().is_zero());
}

#[tokio::test(start_paused = true)]
async fn the_opening_of_a_resource_is_dropped_when_the_stop_comes() {
    let db = Component::resource("db", |_| pending(), |(), _| async { unreachable!() });
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

#[tokio::test(start_paused = true)]
async fn independent_components_start_at_once() {
    let slow = |name: &'static str| {
        Component::new(name, |ctx| async move {
            sleep(SECOND).await;
            ctx.ready();
            Ok(ctx.stopping().await)
        })
    };
    let lifecycle = Lifecycle::new("orders")
        .component(slow("db"))
        .component(slow("cache"))
        .component(slow("queue"));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    let began = Instant::now();
    assert_eq!(handle.ready().await, Ok(()));
    assert_eq!(began.elapsed(), SECOND);
    handle.stop("enough");
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_it_is_ready_ends_the_start_at_once() {
    let report = Lifecycle::new("orders")
        .component(Component::new("db", |_| async { panic!("no such file") }))
        .component(obedient("http").after(["db"]))
        .run()
        .await
        .unwrap();

    assert_eq!(errors(&report), ["component `db` panicked: no such file"]);
    assert_eq!(
        states(&report),
        [
            ComponentState::Ended(End::Panicked),
            ComponentState::Ended(End::Skipped)
        ]
    );
    assert_eq!(report.ended, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_end_before_it_is_ready_is_a_failed_start() {
    let report = Lifecycle::new("orders")
        .component(Component::new("db", |_| async { Ok(()) }))
        .run()
        .await
        .unwrap();
    let error = report.first_error().unwrap();
    assert_eq!(wrong(error), ENDED_BEFORE_READY);
    assert_eq!(states(&report), [ComponentState::Ended(End::EndedEarly)]);
}

#[tokio::test(start_paused = true)]
async fn a_helper_that_fails_before_the_component_is_ready_fails_the_start() {
    let db = Component::new("db", |ctx| async move {
        ctx.group().spawn(async { Err::<(), _>("no route".into()) });
        Ok(ctx.stopping().await)
    });
    let report = Lifecycle::new("orders").component(db).run().await.unwrap();
    let error = report.first_error().unwrap();
    assert_eq!(wrong(error), START_FAILED);
    assert!(format!("{error:#}").contains("no route"), "{error:#}");
    assert_eq!(report.errors.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_component_that_is_not_ready_in_time_has_failed_and_is_late_for_good() {
    let started = Arc::new(AtomicBool::new(false));
    let late = Component::new("db", |ctx| async move {
        ctx.stopping().await;
        ctx.ready();
        Ok(())
    });
    let http = {
        let started = Arc::clone(&started);
        Component::new("http", move |_| async move {
            started.store(true, Relaxed);
            Ok(())
        })
    };
    let report = Lifecycle::new("orders")
        .component(late.start_timeout(SECOND))
        .component(http.after(["db"]))
        .run()
        .await
        .unwrap();
    assert!(!started.load(Relaxed));
    assert_eq!(
        states(&report),
        [
            ComponentState::Ended(End::Failed),
            ComponentState::Ended(End::Skipped)
        ]
    );
    assert_eq!(report.errors.len(), 1);
    let start = &report.timeline[0];
    assert_eq!((start.end, start.limit), (End::Failed, Some(SECOND)));
    assert_eq!(start.took(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_stop_before_the_start_starts_nothing_and_the_report_says_so() {
    let lifecycle = Lifecycle::new("orders")
        .component(Component::new("db", |_| async { unreachable!() }))
        .component(Component::new("http", |_| async { unreachable!() }).after(["db"]));
    let (sender, mut ready) = mpsc::unbounded_channel();
    let lifecycle = lifecycle.observe(move |event| {
        if let EventKind::AllReady | EventKind::StartBegan = event.kind {
            sender.send(()).unwrap();
        }
    });
    let handle = lifecycle.handle();
    handle.stop("never mind");
    handle.stop("said that already");
    let report = lifecycle.run().await.unwrap();

    assert_eq!(report.cause.to_string(), "cancelled on request: never mind");
    assert_eq!(states(&report), [ComponentState::Ended(End::Skipped); 2]);
    assert!(report.is_clean());
    assert!(report.timeline.is_empty());
    assert!(ready.recv().await.is_none());
    assert!(handle.ready().await.is_err());
    let skipped = ComponentState::Ended(End::Skipped);
    let state = handle.wait_for("db", ComponentState::Running).await;
    assert_eq!(state, Some(skipped));
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_start_stops_what_has_started_in_reverse_and_starts_nothing_more() {
    let diary = Diary::default();
    let slow = {
        let diary = diary.clone();
        Component::new("grpc", move |ctx| async move {
            diary.write("grpc starts");
            ctx.stopping().await;
            diary.write("grpc gives up");
            Ok(())
        })
    };
    let lifecycle = Lifecycle::new("orders")
        .budget(
            Budget::new(20 * SECOND)
                .lame_duck(5 * SECOND)
                .jitter(SECOND),
        )
        .component(diary.component("db", SECOND))
        .component(slow.after(["db"]))
        .component(diary.component("http", SECOND).after(["grpc"]));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    handle
        .wait_for("grpc", ComponentState::Starting)
        .await
        .unwrap();
    sleep(SECOND).await;
    handle.stop("changed our mind");
    let report = run.await.unwrap().unwrap();

    assert_eq!(
        diary.lines(),
        [
            "db starts",
            "grpc starts",
            "grpc gives up",
            "db stops",
            "db is gone"
        ]
    );
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.took(), SECOND, "there is no lame duck: {report}");
    let grpc = report.timeline.iter().find(|step| step.subject == "grpc");
    let grpc = grpc.unwrap();
    assert_eq!(grpc.kind, StepKind::Start);
    assert_eq!((grpc.end, &*grpc.message), (End::Skipped, "the stop began"));
    assert_eq!(grpc.ended, report.stop_began);
}

#[tokio::test(start_paused = true)]
async fn a_component_added_after_the_stop_is_refused() {
    let lifecycle = Lifecycle::new("orders").component(obedient("db"));
    let handle = lifecycle.handle();
    handle.add(obedient("cache")).unwrap();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));

    handle.stop("enough");
    let error = handle.add(obedient("late")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "lifecycle `orders` is stopping, or has ended: `late` cannot be added"
    );
    assert_eq!(error.component(), Some("late"));
    let report = run.await.unwrap().unwrap();
    assert_eq!(report.components.len(), 2);
    handle.add(obedient("later")).unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_is_refused_starts_nothing_and_makes_no_report() {
    let lifecycle = Lifecycle::new("orders")
        .component(Component::new("db", |_| async { unreachable!() }).after(["nobody"]));
    let handle = lifecycle.handle();
    lifecycle.run().await.unwrap_err();
    assert!(handle.report().await.is_none());
    assert!(handle.ready().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_job_is_ready_when_it_has_ended_and_jobs_alone_end_the_lifecycle() {
    let diary = Diary::default();
    let job = |name: &'static str| {
        let diary = diary.clone();
        Component::job(name, move |_| async move {
            sleep(SECOND).await;
            Ok(diary.write(name))
        })
    };
    let lifecycle = Lifecycle::new("orders")
        .component(job("warm up").after(["migrate"]))
        .component(job("migrate"));
    let (sender, mut events) = mpsc::unbounded_channel();
    let report = lifecycle
        .observe(move |event| {
            if let EventKind::Ready(after) = event.kind {
                sender
                    .send((event.component.clone().unwrap(), after))
                    .unwrap();
            }
        })
        .run()
        .await
        .unwrap();
    assert_eq!(diary.lines(), ["migrate", "warm up"]);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.cause.to_string(), "all is done");
    assert_eq!(report.ended, 2 * SECOND);
    assert_eq!(
        events.recv().await.unwrap(),
        ("orders/migrate".into(), SECOND)
    );
    assert_eq!(
        events.recv().await.unwrap(),
        ("orders/warm up".into(), SECOND)
    );
}

#[tokio::test(start_paused = true)]
async fn when_the_run_has_ended_no_task_of_it_is_left() {
    let job = Component::job("migrate", |ctx| async move {
        ctx.group().spawn(async { Ok(sleep(SECOND).await) });
        Ok(())
    });
    let report = Lifecycle::new("orders").component(job).run().await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_empty_lifecycle_ends_at_once() {
    let report = Lifecycle::new("orders").run().await.unwrap();
    assert!(report.is_clean());
    assert_eq!(report.ended, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_told_to_stop_has_its_grace() {
    let job = Component::job("migrate", |ctx| async move {
        ctx.stopping().await;
        Ok(sleep(SECOND).await)
    });
    let lifecycle = Lifecycle::new("orders").component(job.grace(2 * SECOND));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    sleep(SECOND).await;
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.took(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_component_that_may_end_ends_well_and_another_has_ended_early() {
    let short = |name: &'static str| {
        Component::new(name, |ctx| async move {
            ctx.ready();
            Ok(sleep(SECOND).await)
        })
    };
    let lifecycle = Lifecycle::new("orders")
        .component(short("import").may_end())
        .component(obedient("http"));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    let ended = handle.ended("import").await;
    assert_eq!(ended, Some(End::Done));
    assert_eq!(handle.cause(), None);
    handle.stop("enough");
    assert!(run.await.unwrap().unwrap().is_clean());

    let lifecycle = Lifecycle::new("orders")
        .component(short("import"))
        .component(obedient("http"));
    let report = lifecycle.run().await.unwrap();
    assert_eq!(wrong(report.first_error().unwrap()), ENDED_EARLY);
    assert_eq!(
        states(&report),
        [
            ComponentState::Ended(End::EndedEarly),
            ComponentState::Ended(End::Done)
        ]
    );
}
