//! L5, L8, L9, L16: what comes before the stop of the components, and phases.

use std::future::pending;
use std::time::Duration;

use taskgroup::End;
use taskgroup::lifecycle::{Budget, ComponentState, EventKind, StepKind};
use taskgroup::lifecycle::{Component, Lifecycle, ReadinessState};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::support::{
    Diary, SECOND, deaf, drain_timed_out, obedient, overran, states, stopped, wrong,
};

/// A component that drains for so long, and then waits for its stop.
#[track_caller]
fn draining(diary: &Diary, name: &'static str, drain: Duration) -> Component {
    let diary = diary.clone();
    Component::new(name, move |ctx| async move {
        ctx.ready();
        ctx.draining().await;
        diary.write(format!("{name} drains"));
        sleep(drain).await;
        diary.write(format!("{name} has drained"));
        ctx.drained();
        ctx.drained();
        ctx.stopping().await;
        diary.write(format!("{name} stops"));
        Ok(())
    })
    .drains()
}

#[tokio::test(start_paused = true)]
async fn not_ready_comes_first_then_the_lame_duck_and_then_the_stop() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::new(20 * SECOND).lame_duck(5 * SECOND))
        .component(diary.component("http", SECOND));
    let handle = lifecycle.handle();
    let readiness = handle.readiness().clone();
    assert_eq!(readiness.state(), ReadinessState::Starting);
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    let began = Instant::now();
    handle.stop("enough");
    readiness.wait_for(ReadinessState::Draining).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    sleep(5 * SECOND - Duration::from_millis(1)).await;
    assert_eq!(diary.lines(), ["http starts"], "it is served");
    assert_eq!(handle.state("http"), Some(ComponentState::Running));
    let report = run.await.unwrap().unwrap();
    assert_eq!(readiness.state(), ReadinessState::Stopped);
    assert_eq!(report.took(), 6 * SECOND);
    let duck = report
        .timeline
        .iter()
        .find(|step| step.kind == StepKind::LameDuck);
    assert_eq!(duck.unwrap().took(), 5 * SECOND);
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn stop_now_has_no_lame_duck_and_ends_one() {
    let lifecycle = || {
        Lifecycle::new("orders")
            .budget(
                Budget::new(20 * SECOND)
                    .lame_duck(5 * SECOND)
                    .jitter(SECOND),
            )
            .component(obedient("http"))
    };
    let now = lifecycle();
    let handle = now.handle();
    let run = tokio::spawn(now.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop_now("at once");
    assert_eq!(run.await.unwrap().unwrap().took(), Duration::ZERO);

    let later = lifecycle();
    let handle = later.handle();
    let run = tokio::spawn(later.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop("enough");
    sleep(3 * SECOND).await;
    handle.stop_now("it takes too long");
    let report = run.await.unwrap().unwrap();
    assert_eq!(report.took(), 3 * SECOND);
    assert_eq!(report.cause.to_string(), "cancelled on request: enough");
    let duck = report
        .timeline
        .iter()
        .find(|step| step.kind == StepKind::LameDuck);
    assert_eq!(duck.unwrap().ended, report.ended);
}

#[tokio::test(start_paused = true)]
async fn a_failure_has_a_lame_duck_too_and_a_failed_start_has_none() {
    let budget = || Budget::new(20 * SECOND).lame_duck(5 * SECOND);
    let crash = |ready: bool| {
        Component::new("worker", move |ctx| async move {
            if ready {
                ctx.ready();
                sleep(SECOND).await;
            }
            Err("no partition".into())
        })
    };
    let serves = Lifecycle::new("orders").budget(budget());
    let serves = serves.component(obedient("http")).component(crash(true));
    assert_eq!(serves.run().await.unwrap().took(), 5 * SECOND);
    let does_not = Lifecycle::new("orders").budget(budget());
    let does_not = does_not.component(obedient("http")).component(crash(false));
    assert_eq!(does_not.run().await.unwrap().took(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_jitter_is_within_its_bound_and_the_service_is_ready_meanwhile() {
    let mut lengths = Vec::new();
    for _ in 0..20 {
        let (sender, mut events) = mpsc::unbounded_channel();
        let lifecycle = Lifecycle::new("orders")
            .budget(Budget::new(20 * SECOND).jitter(4 * SECOND))
            .component(obedient("http"));
        let readiness = lifecycle.readiness().clone();
        let lifecycle = lifecycle.observe(move |event| match event.kind {
            EventKind::StopTriggered { .. } => sender.send((event.at, readiness.state())).unwrap(),
            EventKind::NotReady => sender.send((event.at, readiness.state())).unwrap(),
            _ => {}
        });
        let report = stopped(lifecycle).await;
        let (triggered, ready) = events.recv().await.unwrap();
        let (not_ready, draining) = events.recv().await.unwrap();
        assert_eq!(
            (ready, draining),
            (ReadinessState::Ready, ReadinessState::Draining)
        );
        lengths.push(not_ready - triggered);
        assert_eq!(report.took(), not_ready - triggered);
    }
    assert!(
        lengths.iter().all(|length| *length <= 4 * SECOND),
        "{lengths:?}"
    );
    lengths.sort();
    lengths.dedup();
    assert!(lengths.len() > 1, "replicas do not stop at once");
}

#[tokio::test(start_paused = true)]
async fn a_failure_has_no_jitter() {
    for _ in 0..5 {
        let crash = Component::new("worker", |ctx| async move {
            ctx.ready();
            sleep(SECOND).await;
            Err("no partition".into())
        });
        let lifecycle = Lifecycle::new("orders")
            .budget(Budget::new(20 * SECOND).jitter(4 * SECOND))
            .component(crash);
        let lifecycle = lifecycle.component(obedient("http"));
        assert_eq!(lifecycle.run().await.unwrap().took(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn everything_drains_at_once_and_then_everything_closes_in_order() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::new(20 * SECOND).drain(5 * SECOND))
        .component(draining(&diary, "pool", 2 * SECOND))
        .component(draining(&diary, "http", SECOND).after(["pool"]))
        .component(diary.component("db", Duration::ZERO));
    let report = stopped(lifecycle).await;
    let mut lines = diary.lines();
    lines[1..3].sort();
    assert_eq!(
        lines[..5],
        [
            "db starts",
            "http drains",
            "pool drains",
            "http has drained",
            "pool has drained",
        ]
    );
    let place = |line: &str| lines.iter().position(|it| it == line).unwrap();
    assert!(place("http stops") < place("pool stops"));
    assert!(report.is_clean(), "{report}");
    let drain = report
        .timeline
        .iter()
        .find(|step| step.kind == StepKind::Drain);
    assert_eq!(
        drain.unwrap().took(),
        2 * SECOND,
        "it ends with the last of them"
    );
}

#[tokio::test(start_paused = true)]
async fn a_component_that_never_drains_is_named_and_the_others_close() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::new(20 * SECOND).lame_duck(SECOND).drain(5 * SECOND))
        .component(draining(&diary, "pool", 100 * SECOND))
        .component(draining(&diary, "http", SECOND))
        .component(deaf("idle").drains().grace(SECOND));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();
    let timed_out = drain_timed_out(5 * SECOND);
    let errors: Vec<_> = report
        .errors
        .iter()
        .map(|it| (&*it.component, wrong(it)))
        .collect();
    assert_eq!(errors[..2], [("pool", timed_out), ("idle", timed_out)]);
    assert!(report.was_forced());
    assert_eq!(handle.state("http"), Some(ComponentState::Ended(End::Done)));
    let at = |kind| {
        let step = report
            .timeline
            .iter()
            .find(|step| step.kind == kind)
            .unwrap();
        (
            step.began - report.stop_began,
            step.ended - report.stop_began,
        )
    };
    assert_eq!(at(StepKind::LameDuck), (Duration::ZERO, SECOND), "{report}");
    assert_eq!(at(StepKind::Drain), (SECOND, 6 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_component_that_ends_during_the_drain_has_drained() {
    let worker = Component::new("worker", |ctx| async move {
        ctx.ready();
        ctx.draining().await;
        Ok(sleep(SECOND).await)
    });
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::new(20 * SECOND).drain(5 * SECOND))
        .component(obedient("db"))
        .component(worker.drains().after(["db"]));
    let report = stopped(lifecycle).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.took(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_drain_does_not_wait_for_components_that_were_not_ready() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::new(20 * SECOND).drain(5 * SECOND))
        .component(draining(&diary, "http", SECOND))
        .component(Component::new("pool", |ctx| async move { Ok(ctx.stopping().await) }).drains());
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    handle
        .wait_for("http", ComponentState::Running)
        .await
        .unwrap();
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.took(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_phase_has_ended_before_the_next_is_told() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .budget(30 * SECOND)
        .phase("accept", None)
        .phase("work", None)
        .component(diary.component("db", Duration::ZERO).phase("work"))
        .component(diary.component("http", SECOND).phase("accept"))
        .component(diary.component("grpc", 2 * SECOND).phase("accept"));
    stopped(lifecycle).await;
    assert_eq!(
        diary.lines(),
        [
            "db starts",
            "http starts",
            "grpc starts",
            "http stops",
            "grpc stops",
            "http is gone",
            "grpc is gone",
            "db stops",
            "db is gone"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_phase_that_overruns_its_budget_is_cut_and_the_next_goes_on() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .budget(30 * SECOND)
        .phase("accept", 3 * SECOND)
        .phase("close", 2 * SECOND)
        .component(diary.component("db", SECOND).phase("close"))
        .component(deaf("http").phase("accept"))
        .component(deaf("grpc").phase("accept"));
    let report = stopped(lifecycle).await;
    assert_eq!(report.took(), 4 * SECOND, "{report}");
    let kinds: Vec<_> = report.errors.iter().map(wrong).collect();
    assert_eq!(kinds, [overran(3 * SECOND); 2]);
    assert_eq!(diary.lines().last().unwrap(), "db is gone");
}

#[tokio::test(start_paused = true)]
async fn the_budget_of_a_phase_does_not_begin_with_a_component_that_fails_before_it() {
    let diary = Diary::default();
    let crash = Component::new("cache", |ctx| async move {
        ctx.ready();
        // The helper keeps the component there while it leaves.
        ctx.group().spawn(async { Ok(sleep(2 * SECOND).await) });
        sleep(SECOND).await;
        Err("no memory".into())
    });
    let lifecycle = Lifecycle::new("orders")
        .budget(30 * SECOND)
        .phase("accept", None)
        .phase("close", 3 * SECOND)
        .component(diary.component("db", 2 * SECOND).phase("close"))
        .component(crash.phase("close"))
        .component(diary.component("http", 10 * SECOND).phase("accept"));
    let report = lifecycle.run().await.unwrap();
    assert_eq!(report.errors.len(), 1, "{report}");
    assert_eq!(states(&report)[0], ComponentState::Ended(End::Done));
    assert_eq!(report.took(), 12 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_hangs_in_the_drain_is_forced_in_its_turn() {
    let stuck = Component::new("pool", |ctx| async move {
        ctx.ready();
        ctx.draining().await;
        pending().await
    });
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::new(20 * SECOND).drain(2 * SECOND))
        .component(stuck.drains().grace(SECOND));
    let report = stopped(lifecycle).await;
    assert_eq!(report.took(), 3 * SECOND);
    let stop = report
        .timeline
        .iter()
        .find(|step| step.kind == StepKind::Stop);
    let stop = stop.unwrap();
    assert_eq!((stop.end, stop.limit), (End::TimedOut, Some(SECOND)));
}

#[tokio::test(start_paused = true)]
async fn a_lame_duck_of_which_nothing_is_left_is_over() {
    let crash = Component::new("http", |ctx| async move {
        ctx.ready();
        sleep(SECOND).await;
        Err("no descriptors".into())
    });
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::new(20 * SECOND).lame_duck(5 * SECOND))
        .component(crash);
    let report = lifecycle.run().await.unwrap();
    assert_eq!(report.took(), Duration::ZERO, "{report}");
}
