//! What hardly anybody does, and what happens then.

use std::sync::Arc;
use std::time::Duration;

use taskgroup::cleanup::{Outcome, Step};
use taskgroup::lifecycle::{Budget, Component, Context, Lifecycle, ReadinessState};
use taskgroup::process::ExitPolicy;
use taskgroup::{Cancelled, Cause};

use crate::support::{Diary, SECOND, deaf, obedient, stopped};

#[tokio::test(start_paused = true)]
async fn what_is_forced_in_a_nested_lifecycle_has_the_same_exit_status() {
    let budget = Budget::new(10 * SECOND);
    let alone = Lifecycle::new("inner")
        .budget(budget.clone())
        .component(deaf("deaf").grace(SECOND));
    let policy = ExitPolicy::strict().timed_out(75);
    let alone = policy.exit_of(&stopped(alone).await);
    assert_eq!(alone.code(), 75);
    let inner = Lifecycle::new("inner")
        .budget(budget)
        .component(deaf("deaf").grace(SECOND));
    let outer = Lifecycle::new("outer")
        .budget(30 * SECOND)
        .component(Component::lifecycle(inner));
    let report = stopped(outer).await;
    let exit = policy.exit_of(&report);
    assert_eq!(alone.code(), exit.code(), "{exit}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_in_its_cleanup_has_stopped() {
    let lifecycle = Lifecycle::new("orders").component(obedient("worker"));
    let flush = Step::new("flush", |_| async { std::future::pending().await });
    let _step = lifecycle.cleanup().push(flush).unwrap();
    let (handle, readiness) = (lifecycle.handle(), lifecycle.readiness().clone());
    handle.stop("at once");
    let run = tokio::spawn(lifecycle.run());
    tokio::time::sleep(Duration::from_millis(1)).await;
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    assert!(handle.report().await.is_none());
    assert_eq!(readiness.state(), ReadinessState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_nested_lifecycle_does_not_begin_when_the_stop_was_asked_for() {
    let diary = Diary::default();
    let inner = Lifecycle::new("inner")
        .component(diary.component("db", SECOND))
        .component(diary.component("http", SECOND).after(["db"]));
    let config = Component::new("config", |ctx| async move {
        ctx.stop("at once");
        ctx.ready();
        Ok(ctx.stopping().await)
    });
    let report = Lifecycle::new("outer")
        .budget(30 * SECOND)
        .component(config)
        .component(Component::lifecycle(inner).after(["config"]))
        .run()
        .await
        .unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(diary.lines(), [""; 0], "{report}");
    assert!(report.nested.is_empty(), "{report}");
    assert!(report.took() < SECOND, "{report}");
}

#[test]
fn nothing_can_be_added_to_a_lifecycle_that_is_gone() {
    let held = Arc::new(());
    let lifecycle = Lifecycle::new("orders");
    let handle = lifecycle.handle();
    let (ours, own) = (Arc::clone(&held), handle.clone());
    let lifecycle = lifecycle.component(Component::job("first", |_| async move {
        drop((ours, own));
        Ok(())
    }));
    drop(lifecycle);
    assert_eq!(Arc::strong_count(&held), 1, "a handle keeps nothing alive");
    let error = handle.add(obedient("late")).unwrap_err();
    assert_eq!(error.component(), Some("late"));
}

/// Nests `inner`, and returns what the cleanup of the outer one is told.
async fn outcome_around(inner: Lifecycle) -> Outcome {
    let outer = Lifecycle::new("outer")
        .budget(30 * SECOND)
        .component(Component::lifecycle(inner.budget(5 * SECOND)));
    let (sender, told) = std::sync::mpsc::channel();
    let step = Step::new("mark", move |outcome| async move {
        Ok(sender.send(outcome).unwrap())
    });
    let _step = outer.cleanup().push(step).unwrap();
    stopped(outer).await;
    told.recv().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_cleanup_is_told_what_went_wrong_in_a_nested_lifecycle() {
    let clean = Lifecycle::new("inner").component(obedient("worker"));
    assert!(matches!(outcome_around(clean).await, Outcome::Stopped(_)));

    let forced = Lifecycle::new("inner").component(deaf("deaf").grace(SECOND));
    let outcome = outcome_around(forced).await;
    assert!(matches!(outcome, Outcome::Forced(_)), "{outcome:?}");

    let failed = Lifecycle::new("inner").component(obedient("worker"));
    let flush = Step::new("flush", |_| async { Err("disk full".into()) });
    let _step = failed.cleanup().push(flush).unwrap();
    let outcome = outcome_around(failed).await;
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_thread_of_a_component_is_told_when_the_run_is_dropped() {
    let (started, starts) = tokio::sync::oneshot::channel();
    let (told, tells) = std::sync::mpsc::channel();
    let component = Component::new("worker", |ctx: Context| async move {
        let group = ctx.group().clone();
        ctx.group().spawn_blocking(move |token| {
            started.send(()).unwrap();
            tokio::runtime::Handle::current().block_on(token.cancelled());
            told.send(group.cause()).unwrap();
            // It counts for nothing: it was aborted with its component.
            Err::<(), _>(Cancelled.into())
        });
        ctx.ready();
        std::future::pending().await
    });
    let run = tokio::spawn(Lifecycle::new("orders").component(component).run());
    starts.await.unwrap();
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    // A bound only for the case that the thread is never told, which would wait forever.
    assert_eq!(tells.recv_timeout(60 * SECOND), Ok(Some(Cause::Dropped)));
}
