//! L7: a lifecycle as a component of another one.

use std::future::pending;
use std::time::Duration;

use taskgroup::End;
use taskgroup::lifecycle::{Budget, Component, ComponentState, Context, Lifecycle, ReadinessState};
use tokio::time::sleep;

use crate::support::{
    Diary, FAILED, SECOND, START_FAILED, deaf, errors, obedient, overran, stopped, wrong,
};

#[tokio::test(start_paused = true)]
async fn it_starts_and_stops_as_one_component_with_an_order_inside() {
    let diary = Diary::default();
    let storage = Lifecycle::new("storage")
        .component(diary.component("disk", SECOND))
        .component(diary.component("index", SECOND).after(["disk"]));
    let inner = storage.handle();
    let lifecycle = Lifecycle::new("orders")
        .budget(30 * SECOND)
        .component(diary.component("log", SECOND))
        .component(Component::lifecycle(storage).after(["log"]))
        .component(diary.component("http", SECOND).after(["storage"]));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    assert_eq!(inner.ready().await, Ok(()));
    assert_eq!(inner.state("index"), Some(ComponentState::Running));
    let running: Vec<_> = inner
        .running()
        .iter()
        .map(|task| task.name().unwrap().to_owned())
        .collect();
    assert!(
        running.contains(&"orders/storage/disk/run".to_owned()),
        "{running:?}"
    );
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();

    let lines = diary.lines();
    let stops: Vec<_> = lines
        .iter()
        .filter(|line| line.ends_with("stops"))
        .collect();
    assert_eq!(
        lines[..4],
        ["log starts", "disk starts", "index starts", "http starts"]
    );
    assert_eq!(
        stops,
        ["http stops", "index stops", "disk stops", "log stops"]
    );
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.took(), 4 * SECOND);
    assert_eq!(report.nested.len(), 1);
    assert_eq!(
        report.nested[0].cause.to_string(),
        "cancelled on request: enough"
    );
    assert_eq!(inner.readiness().state(), ReadinessState::Stopped);
    assert!(inner.running().is_empty());
    let of_inner = inner.report().await.unwrap();
    assert_eq!(of_inner.to_string(), report.nested[0].to_string());
}

#[tokio::test(start_paused = true)]
async fn its_failure_stops_what_is_around_it_at_once() {
    let crash = Component::new("disk", |ctx: Context| async move {
        ctx.ready();
        sleep(SECOND).await;
        Err("no space".into())
    });
    let diary = Diary::default();
    let storage = Lifecycle::new("storage")
        .budget(Budget::new(8 * SECOND).lame_duck(3 * SECOND))
        .component(diary.component("index", 2 * SECOND))
        .component(crash);
    let inner = storage.handle();
    let lifecycle = Lifecycle::new("orders")
        .budget(30 * SECOND)
        .component(Component::lifecycle(storage))
        .component(diary.component("http", SECOND));
    let report = lifecycle.run().await.unwrap();

    assert_eq!(report.stop_began, SECOND, "{report}");
    assert_eq!(
        report.took(),
        2 * SECOND,
        "there is no lame duck inside: {report}"
    );
    assert_eq!(report.errors.len(), 1, "{report}");
    assert_eq!(wrong(&report.errors[0]), FAILED);
    assert_eq!(report.errors[0].component, "storage");
    assert!(errors(&report)[0].contains("no space"), "{report}");
    assert!(report.cause.to_string().contains("no space"), "{report}");
    assert_eq!(
        errors(&report.nested[0]),
        ["component `disk` failed: no space"]
    );
    assert_eq!(inner.report().await.unwrap().errors.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn its_failed_start_is_a_failed_start() {
    let disk = Component::new("disk", |_| async { Err("no space".into()) });
    let storage = Lifecycle::new("storage").budget(5 * SECOND).component(disk);
    let lifecycle = Lifecycle::new("orders")
        .component(Component::lifecycle(storage))
        .component(obedient("http").after(["storage"]));
    let handle = lifecycle.handle();
    let report = lifecycle.run().await.unwrap();
    assert_eq!(report.errors.len(), 1, "{report}");
    assert_eq!(wrong(&report.errors[0]), START_FAILED);
    assert_eq!(
        handle.state("http"),
        Some(ComponentState::Ended(End::Skipped))
    );
    assert_eq!(
        handle.state("storage"),
        Some(ComponentState::Ended(End::Failed))
    );
}

#[tokio::test(start_paused = true)]
async fn it_has_what_is_left_of_the_budget_above_it() {
    let storage = Lifecycle::new("storage")
        .budget(10 * SECOND)
        .component(obedient("index"))
        .component(deaf("disk").after(["index"]));
    let lifecycle = Lifecycle::new("orders")
        .budget(20 * SECOND)
        .component(obedient("db"))
        .component(
            Component::lifecycle(storage)
                .after(["db"])
                .grace(10 * SECOND),
        );
    let report = stopped(lifecycle).await;
    assert!(report.took() <= 10 * SECOND, "{report}");
    // The disk was forced by its own lifecycle, in time.
    let [error] = &report.nested[0].errors[..] else {
        panic!("{report}")
    };
    assert_eq!(error.end(), End::TimedOut);
    assert_eq!(report.errors.len(), 1, "{report}");
    assert!(report.was_forced());
}

#[tokio::test(start_paused = true)]
async fn a_stop_inside_that_has_begun_has_no_more_than_what_is_left_above_it() {
    let storage = Lifecycle::new("storage")
        .budget(10 * SECOND)
        .component(deaf("disk"));
    let inner = storage.handle();
    let slow = Component::new("queue", |ctx| async move {
        ctx.ready();
        ctx.stopping().await;
        Ok(sleep(3 * SECOND).await)
    });
    // The inner stop begins by itself; its end is an early one for those around it.
    let lifecycle = Lifecycle::new("orders")
        .budget(16 * SECOND)
        .component(Component::lifecycle(storage))
        .component(slow.after(["storage"]).grace(4 * SECOND));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    inner.stop("by itself");
    sleep(SECOND).await;
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();
    assert!(report.took() <= 16 * SECOND, "{report}");
    assert_eq!(
        report.nested.len(),
        1,
        "it was not cut from outside: {report}"
    );
    assert!(inner.report().await.unwrap().took() <= 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn when_it_is_cut_from_outside_nothing_of_it_is_left() {
    let diary = Diary::default();
    let storage = Lifecycle::new("storage").budget(5 * SECOND);
    let cleanup = storage.cleanup();
    let hang = taskgroup::cleanup::Step::new("flush", |_| pending());
    cleanup
        .push(hang.deadline(100 * SECOND).always(100 * SECOND))
        .unwrap();
    let storage = storage.component(diary.component("disk", Duration::ZERO));
    let inner = storage.handle();
    let lifecycle = Lifecycle::new("orders")
        .budget(20 * SECOND)
        .component(obedient("db"))
        .component(
            Component::lifecycle(storage)
                .after(["db"])
                .grace(5 * SECOND),
        );
    let handle = lifecycle.handle();
    let report = stopped(lifecycle).await;
    assert_eq!(report.took(), 5 * SECOND, "{report}");
    assert_eq!(wrong(&report.errors[0]), overran(5 * SECOND));
    assert!(inner.report().await.is_none());
    assert!(handle.running().is_empty() && inner.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_from_inside_stops_the_outermost() {
    let worker = Component::new("worker", |ctx: Context| async move {
        ctx.ready();
        ctx.stop("nothing left to do");
        Ok(ctx.stopping().await)
    });
    let inner = Lifecycle::new("inner").component(worker);
    let middle = Lifecycle::new("middle").budget(15 * SECOND);
    let middle = middle.component(Component::lifecycle(inner));
    let report = Lifecycle::new("orders")
        .budget(30 * SECOND)
        .component(Component::lifecycle(middle))
        .run()
        .await
        .unwrap();
    assert_eq!(
        report.cause.to_string(),
        "cancelled on request: nothing left to do"
    );
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.nested[0].nested[0].cause, report.cause);
}

#[tokio::test(start_paused = true)]
async fn its_components_see_the_readiness_of_the_whole() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let worker = Component::new("worker", |ctx: Context| async move {
        let readiness = ctx.readiness().clone();
        ctx.ready();
        let _ = sender.send(readiness.wait_for(ReadinessState::Ready).await);
        Ok(ctx.stopping().await)
    });
    let inner = Lifecycle::new("inner").component(worker);
    let slow = Component::new("slow", |ctx| async move {
        sleep(SECOND).await;
        ctx.ready();
        Ok(ctx.stopping().await)
    });
    let lifecycle = Lifecycle::new("orders")
        .budget(30 * SECOND)
        .component(Component::lifecycle(inner))
        .component(slow);
    let inner_report = stopped(lifecycle).await;
    assert_eq!(receiver.await.unwrap(), ReadinessState::Ready);
    assert!(inner_report.is_clean());
}

#[tokio::test(start_paused = true)]
async fn the_reports_of_several_are_in_the_order_of_the_plan() {
    let nested = |name: &'static str| {
        Component::lifecycle(
            Lifecycle::new(name)
                .budget(3 * SECOND)
                .component(obedient("part")),
        )
    };
    let lifecycle = Lifecycle::new("orders")
        .budget(30 * SECOND)
        .component(nested("c").after(["b"]))
        .component(nested("a"))
        .component(nested("b").after(["a"]));
    let handle = lifecycle.handle();
    let report = stopped(lifecycle).await;
    let names: Vec<_> = report
        .nested
        .iter()
        .map(|nested| nested.name.as_str())
        .collect();
    assert_eq!(names.len(), 3);
    assert!(names[0].ends_with('a') && names[1].ends_with('b') && names[2].ends_with('c'));
    let states: Vec<_> = handle.states().into_iter().map(|(name, _)| name).collect();
    assert_eq!(states, ["a", "b", "c"], "as in the plan");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_inside_comes_nearer_with_the_one_around_it() {
    let (sender, mut deadlines) = tokio::sync::mpsc::unbounded_channel();
    let witness = Component::new("index", |ctx: Context| async move {
        ctx.ready();
        ctx.stopping().await;
        sender.send(ctx.remaining().unwrap()).unwrap();
        sleep(SECOND).await;
        Ok(sender.send(ctx.remaining().unwrap() + SECOND).unwrap())
    });
    let crash = Component::new("disk", |ctx: Context| async move {
        ctx.ready();
        sleep(SECOND).await;
        Err("no space".into())
    });
    let storage = Lifecycle::new("storage")
        .budget(10 * SECOND)
        .component(witness)
        .component(crash);
    let lifecycle = Lifecycle::new("orders")
        .budget(20 * SECOND)
        .component(Component::lifecycle(storage));
    let report = lifecycle.run().await.unwrap();
    assert_eq!(report.errors.len(), 1, "{report}");
    let (first, last) = (
        deadlines.recv().await.unwrap(),
        deadlines.recv().await.unwrap(),
    );
    // A little is kept, so that it ends by itself.
    assert!(last < first, "{first:?} {last:?}");
}
