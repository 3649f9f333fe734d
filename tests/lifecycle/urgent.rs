//! L21: a lost lease tells everybody at once.

use std::time::Duration;

use taskgroup::Cause;
use taskgroup::lifecycle::{
    Budget, Component, Event, EventKind, Lifecycle, Provided, Report, StepKind,
};
use taskgroup::process::{Heartbeat, HeartbeatMonitor};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::support::{Diary, SECOND, deaf, errors, obedient};

/// A lease of a second that nobody renews, and that nobody lets go of.
fn lease() -> (Heartbeat, HeartbeatMonitor) {
    Heartbeat::new("lease", SECOND)
}

/// With all that takes time in a stop.
fn slow() -> Budget {
    Budget::new(100 * SECOND)
        .jitter(10 * SECOND)
        .lame_duck(10 * SECOND)
        .drain(10 * SECOND)
}

fn is_clean_but_for_the_lease(report: &Report) {
    assert!(matches!(report.cause, Cause::Heartbeat(_)), "{report}");
    assert_eq!(errors(report).len(), 1, "{report}");
    assert!(!report.was_forced(), "{report}");
}

/// A component that takes part in the drain, and would need the whole of the time for it.
#[track_caller]
fn draining(name: &'static str) -> Component {
    Component::new(name, async |ctx| {
        ctx.ready();
        ctx.draining().await;
        Ok(ctx.stopping().await)
    })
    .drains()
}

/// A lifecycle whose resource is in use by all others, which come one after another.
fn chain(diary: &Diary) -> Lifecycle {
    let closing = diary.clone();
    let (pool, value) = Component::shared(
        "pool",
        async |_ctx| Ok(()),
        async move |(), _| Ok(closing.write("pool is closed")),
    );
    let uses = |name: &'static str, value: &Provided<()>| {
        let diary = diary.clone();
        Component::using(value).run(name, async move |ctx, ()| {
            ctx.ready();
            ctx.stopping().await;
            diary.write(format!("{name} stops"));
            sleep(SECOND).await;
            Ok(diary.write(format!("{name} is gone")))
        })
    };
    Lifecycle::new("orders")
        .budget(slow())
        .component(pool)
        .component(uses("back", &value))
        .component(uses("front", &value).after(["back"]))
        .component(draining("consumer").after(["front"]))
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_tells_everybody_at_once_without_jitter_lame_duck_drain_or_order() {
    let (_lease, lost) = lease();
    let diary = Diary::default();
    let report = chain(&diary).stop_on(lost).run().await.unwrap();

    assert_eq!(
        diary.lines(),
        [
            "back stops",
            "front stops",
            "back is gone",
            "front is gone",
            // It is closed when nobody uses it any longer.
            "pool is closed",
        ]
    );
    is_clean_but_for_the_lease(&report);
    assert_eq!(report.took(), SECOND, "{report}");
    let waits = |kind| kind == StepKind::Jitter || kind == StepKind::LameDuck;
    assert!(!report.timeline.iter().any(|step| waits(step.kind)));
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_asks_for_it_stops_in_order_with_a_lame_duck() {
    let (_lease, lost) = lease();
    let diary = Diary::default();
    let budget = Budget::new(100 * SECOND).lame_duck(10 * SECOND);
    let lifecycle = Lifecycle::new("orders")
        .budget(budget)
        .component(diary.component("back", SECOND))
        .component(diary.component("front", SECOND).after(["back"]));
    let report = lifecycle.stop_on(lost.in_order()).run().await.unwrap();
    is_clean_but_for_the_lease(&report);
    assert_eq!(report.took(), 12 * SECOND, "{report}");
    let stops = ["front stops", "front is gone", "back stops", "back is gone"];
    assert_eq!(diary.lines()[2..], stops);
}

#[tokio::test(start_paused = true)]
async fn an_overrun_of_a_user_is_what_closes_a_resource_before_it_is_done() {
    let (_lease, lost) = lease();
    let diary = Diary::default();
    let closing = diary.clone();
    let pool = Component::resource(
        "pool",
        async |_ctx| Ok(()),
        async move |(), _| Ok(closing.write("pool is closed")),
    );
    let report = Lifecycle::new("orders")
        .component(pool)
        .component(deaf("worker").after(["pool"]).grace(3 * SECOND))
        .stop_on(lost)
        .run()
        .await
        .unwrap();
    assert_eq!(report.took(), 3 * SECOND, "{report}");
    assert_eq!(diary.lines(), ["pool is closed"]);
    assert_eq!(report.stragglers[0].component, "worker");
}

/// Sends when a component is told, as seconds since the start.
fn told(sender: mpsc::UnboundedSender<(String, Duration)>) -> impl FnMut(&Event) + Send {
    move |event| {
        if let EventKind::StopBegan(_) = event.kind {
            let path = event.component.as_deref().unwrap();
            let name = path.rsplit('/').next().unwrap().to_owned();
            let _ = sender.send((name, event.at));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_while_an_ordinary_stop_is_under_way_hurries_it() {
    // In the lame duck, in the drain, and in the middle of the order.
    for lasts in [5, 25, 31] {
        let (_lease, lost) = Heartbeat::new("lease", lasts * SECOND);
        let (sender, mut events) = mpsc::unbounded_channel();
        let budget = Budget::new(100 * SECOND)
            .lame_duck(20 * SECOND)
            .drain(10 * SECOND);
        let stubborn = Component::new("stubborn", async |ctx| {
            ctx.ready();
            ctx.stopping().await;
            Ok(sleep(Duration::from_secs(2)).await)
        });
        let lifecycle = Lifecycle::new("orders")
            .budget(budget)
            .component(obedient("back"))
            .component(stubborn.after(["back"]))
            .component(draining("consumer"))
            .observe(told(sender))
            .stop_on(lost);
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        assert_eq!(handle.ready().await, Ok(()));
        handle.stop("enough");
        let report = run.await.unwrap().unwrap();
        // The stop is what was asked for.
        assert_eq!(report.cause, Cause::Requested("enough".into()));
        let mut told = Vec::new();
        while let Some(event) = events.recv().await {
            told.push(event);
        }
        let back = told.iter().find(|(name, _)| name == "back").unwrap();
        assert_eq!(back.1, lasts * SECOND, "{report}");
        let drained_in_time = errors(&report).is_empty();
        assert_eq!(drained_in_time, lasts < 30, "{report}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given_up_in_an_ordinary_stop_hurries_nothing() {
    let (lease, lost) = Heartbeat::new("lease", 50 * SECOND);
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::new(100 * SECOND).lame_duck(10 * SECOND))
        .component(obedient("worker"))
        .stop_on(lost);
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop("enough");
    drop(lease);
    let report = run.await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.took(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_urgent_stop_is_urgent_in_nested_lifecycles() {
    let (_lease, lost) = lease();
    let diary = Diary::default();
    let billing = Lifecycle::new("billing")
        .budget(30 * SECOND)
        .component(diary.component("ledger", SECOND))
        .component(diary.component("invoices", SECOND).after(["ledger"]));
    let report = Lifecycle::new("orders")
        .budget(slow())
        .component(Component::lifecycle(billing))
        .component(diary.component("http", SECOND).after(["billing"]))
        .stop_on(lost)
        .run()
        .await
        .unwrap();
    is_clean_but_for_the_lease(&report);
    assert_eq!(report.took(), SECOND, "{report}");
    let mut stops = diary.lines()[3..6].to_vec();
    stops.sort_unstable();
    assert_eq!(stops, ["http stops", "invoices stops", "ledger stops"]);
}

#[tokio::test(start_paused = true)]
async fn a_lifecycle_with_a_resource_is_told_when_those_outside_that_use_it_have_ended() {
    let (_lease, lost) = lease();
    let diary = Diary::default();
    let closing = diary.clone();
    let pool = Component::resource(
        "pool",
        async |_ctx| Ok(()),
        async move |(), _| Ok(closing.write("pool is closed")),
    );
    let storage = Lifecycle::new("storage")
        .budget(30 * SECOND)
        .component(pool);
    let report = Lifecycle::new("orders")
        .budget(slow())
        .component(Component::lifecycle(storage))
        .component(diary.component("worker", SECOND).after(["storage"]))
        .stop_on(lost)
        .run()
        .await
        .unwrap();
    is_clean_but_for_the_lease(&report);
    let end = [
        "worker starts",
        "worker stops",
        "worker is gone",
        "pool is closed",
    ];
    assert_eq!(diary.lines(), end);
}
