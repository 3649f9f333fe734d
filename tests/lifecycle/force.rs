//! L24: a stop can be hurried: now, then by force.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use taskgroup::cleanup::{Outcome, Step};
use taskgroup::lifecycle::{Budget, ComponentState};
use taskgroup::lifecycle::{Component, Context, Lifecycle};
use taskgroup::{BoxError, Cause, End, Exit};
use tokio::runtime;
use tokio::time::{Instant, sleep};

use crate::support::{Diary, SECOND, deaf, errors, overran, states, wrong};

/// A step that writes down how all has ended.
fn step(diary: &Diary, name: &'static str) -> Step {
    let diary = diary.clone();
    Step::new(name, async move |outcome: Outcome| {
        let how = match outcome {
            Outcome::Forced(_) => "forced",
            _ => "not forced",
        };
        Ok(diary.write(format!("{name}: {how}")))
    })
}

#[tokio::test(start_paused = true)]
async fn force_aborts_what_is_left_now_and_still_cleans_up_and_reports() {
    let diary = Diary::default();
    let closing = diary.clone();
    let pool = Component::resource(
        "pool",
        async |_ctx| Ok(()),
        async move |(), _| Ok(closing.write("pool is closed")),
    );
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::new(100 * SECOND).lame_duck(10 * SECOND))
        .component(pool)
        .component(diary.component("worker", 30 * SECOND).after(["pool"]))
        .component(deaf("http").after(["worker"]).grace(50 * SECOND));
    let _ = lifecycle.cleanup().push(step(&diary, "release"));
    let run = lifecycle.start().await.unwrap();
    run.handle().stop("enough");
    sleep(15 * SECOND).await;
    let asked = Instant::now();
    let report = run.force("it takes too long").await;

    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(report.cause.to_string(), "cancelled on request: enough");
    // No task had another turn.
    assert_eq!(diary.lines(), ["worker starts", "release: forced"]);
    assert_eq!(states(&report), [ComponentState::Ended(End::TimedOut); 3]);
    let mut kinds: Vec<_> = report.errors.iter().map(wrong).collect();
    kinds.sort_unstable_by_key(|kind| format!("{kind:?}"));
    // What was told five seconds ago has had that long.
    assert_eq!(
        kinds,
        [
            overran(Duration::ZERO),
            overran(Duration::ZERO),
            overran(5 * SECOND),
        ]
    );
    let forced: Vec<_> = report
        .stragglers
        .iter()
        .map(|task| &*task.component)
        .collect();
    for name in ["pool", "worker", "http"] {
        assert!(forced.contains(&name), "{report}");
    }
    assert!(report.was_forced() && !report.is_clean());
    assert_eq!(Exit::from(report).code(), 1);
    assert_eq!(runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_can_be_hurried_twice() {
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::new(100 * SECOND).lame_duck(10 * SECOND))
        .component(deaf("worker").grace(50 * SECOND));
    let run = lifecycle.start().await.unwrap();
    let handle = run.handle().clone();
    handle.stop("enough");
    sleep(SECOND).await;
    handle.stop_now("now");
    let told = handle.wait_for("worker", ComponentState::Draining).await;
    assert_eq!(told, Some(ComponentState::Draining));
    sleep(SECOND).await;
    let report = run.force("it takes too long").await;
    assert_eq!(report.took(), 2 * SECOND);
    assert_eq!(
        errors(&report),
        ["component `worker` did not stop within 1s and was forced"]
    );
}

#[tokio::test(start_paused = true)]
async fn force_alone_is_a_stop_too_and_later_calls_change_nothing() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders")
        .component(diary.component("db", SECOND))
        .component(diary.component("worker", SECOND).after(["db"]));
    let run = lifecycle.start().await.unwrap();
    let handle = run.handle().clone();
    let report = run.force("out of patience").await;
    assert_eq!(
        report.cause.to_string(),
        "cancelled on request: out of patience"
    );
    assert_eq!(states(&report), [ComponentState::Ended(End::TimedOut); 2]);
    assert_eq!(diary.lines(), ["db starts", "worker starts"]);

    handle.force("once more");
    assert_eq!(
        handle.report().await.unwrap().to_string(),
        report.to_string()
    );
}

#[tokio::test(start_paused = true)]
async fn force_in_the_middle_of_the_start_and_before_it() {
    let starting = Component::new("worker", async |_ctx| std::future::pending().await);
    let lifecycle = Lifecycle::new("orders").component(starting.start_timeout(100 * SECOND));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    handle.wait_for("worker", ComponentState::Starting).await;
    handle.force("out of patience");
    let report = run.await.unwrap().unwrap();
    assert!(report.was_forced(), "{report}");
    assert_eq!(report.took(), Duration::ZERO);

    let lifecycle = Lifecycle::new("orders").component(deaf("worker"));
    lifecycle.handle().force("never mind");
    let report = lifecycle.run().await.unwrap();
    assert!(report.is_clean(), "nothing was started: {report}");
}

#[tokio::test(start_paused = true)]
async fn force_when_all_have_ended_leaves_the_cleanup_alone() {
    let diary = Diary::default();
    let lifecycle = Lifecycle::new("orders").component(crate::support::obedient("worker"));
    let handle = lifecycle.handle();
    let slow = diary.clone();
    let forced = handle.clone();
    let _ = lifecycle.cleanup().push(Step::new("flush", async move |_| {
        forced.force("out of patience");
        sleep(SECOND).await;
        Ok(slow.write("flushed"))
    }));
    let run = lifecycle.start().await.unwrap();
    let report = run.stop_now("enough").await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(diary.lines(), ["flushed"]);
}

#[tokio::test(start_paused = true)]
async fn a_lifecycle_inside_is_forced_with_its_own_cleanup_and_report() {
    let diary = Diary::default();
    let billing = Lifecycle::new("billing")
        .budget(50 * SECOND)
        .component(deaf("ledger"))
        .component(deaf("invoices").after(["ledger"]));
    let _ = billing.cleanup().push(step(&diary, "release"));
    let run = Lifecycle::new("orders")
        .budget(100 * SECOND)
        .component(Component::lifecycle(billing))
        .component(deaf("http").after(["billing"]))
        .start()
        .await
        .unwrap();
    let report = run.force("out of patience").await;
    assert_eq!(report.took(), Duration::ZERO, "{report}");
    assert_eq!(diary.lines(), ["release: forced"]);
    assert!(report.was_forced());
    let inside = &report.nested[0];
    assert_eq!(states(inside), [ComponentState::Ended(End::TimedOut); 2]);
    assert_eq!(inside.stragglers.len(), 2, "{report}");
}

/// What is aborted had to be dropped, and its destructors can read that.
#[tokio::test(start_paused = true)]
async fn the_tasks_of_a_dropped_run_see_its_end_as_their_cause() {
    struct Sees(Context, Arc<Mutex<Vec<Option<Cause>>>>);
    impl Drop for Sees {
        fn drop(&mut self) {
            assert!(self.0.token().is_cancelled());
            self.1.lock().unwrap().push(self.0.cause());
        }
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&seen);
    let worker = Component::new("worker", async move |ctx: Context| {
        let of_helper = Sees(ctx.clone(), Arc::clone(&sees));
        ctx.group().task("helper").spawn(async move {
            let _sees = of_helper;
            std::future::pending::<Result<(), BoxError>>().await
        });
        let _sees = Sees(ctx.clone(), sees);
        ctx.ready();
        std::future::pending().await
    });
    let run = Lifecycle::new("orders").component(worker).start().await;
    drop(run.unwrap());
    while runtime::Handle::current().metrics().num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }
    let dropped = Some(Cause::Dropped);
    assert_eq!(*seen.lock().unwrap(), [dropped.clone(), dropped]);
}
