//! What hardly anybody does, and what happens then.

use std::sync::Arc;
use std::time::Duration;

use taskgroup::cleanup::{Outcome, Step};
use taskgroup::lifecycle::{Budget, Provided};
use taskgroup::{Component, ExitPolicy, Lifecycle, ReadinessState};

use crate::support::{Diary, SECOND, deaf, obedient, stopped};

#[tokio::test(start_paused = true)]
async fn what_a_job_provides_is_there_for_those_after_it() {
    let value = Provided::<u32>::new("value");
    let (ours, theirs) = (value.clone(), value.clone());
    let job = Component::job("load", |ctx| async move {
        ctx.provide(&ours, 8);
        Ok(())
    });
    let user = Component::new("user", |ctx| async move {
        assert_eq!(theirs.get()?, 8);
        ctx.ready();
        ctx.stopping().await;
        assert_eq!(theirs.get()?, 8);
        Ok(())
    });
    let report = stopped(
        Lifecycle::new("orders")
            .component(job)
            .component(user.after(["load"])),
    )
    .await;
    assert!(report.is_clean(), "{report}");
    assert!(value.get().is_err(), "it is taken out at the end");
}

#[tokio::test(start_paused = true)]
async fn a_component_takes_out_only_what_is_still_its_own() {
    let value = Provided::<u32>::new("value");
    let (first, second, theirs) = (value.clone(), value.clone(), value.clone());
    let old = Component::new("old", |ctx| async move {
        ctx.ready_with(&first, 1);
        tokio::time::sleep(SECOND).await;
        Ok(())
    });
    let new = Component::new("new", |ctx| async move {
        ctx.ready_with(&second, 2);
        Ok(ctx.stopping().await)
    });
    let user = Component::new("user", |ctx| async move {
        ctx.ready();
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(theirs.get()?, 2);
        ctx.stop("seen");
        Ok(ctx.stopping().await)
    });
    let report = Lifecycle::new("orders")
        .component(old.may_end())
        .component(new.after(["old"]))
        .component(user.after(["new"]))
        .run()
        .await
        .unwrap();
    assert!(report.is_clean(), "{report}");
}

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

#[tokio::test(start_paused = true)]
async fn what_is_provided_again_and_again_is_not_kept() {
    let value = Provided::<Arc<()>>::new("value");
    let (ours, shared) = (value.clone(), Arc::new(()));
    let given = Arc::clone(&shared);
    let lifecycle = Lifecycle::new("orders").component(Component::new("renew", |ctx| async move {
        for _ in 0..100 {
            ctx.provide(&ours, Arc::clone(&given));
        }
        assert_eq!(Arc::strong_count(&given), 3);
        ctx.ready();
        Ok(ctx.stopping().await)
    }));
    assert!(stopped(lifecycle).await.is_clean());
    assert!(value.get().is_err());
    assert_eq!(Arc::strong_count(&shared), 1);
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
    assert_eq!(error.into_component().name(), "late");
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
    assert!(matches!(outcome_around(clean).await, Outcome::Clean));

    let forced = Lifecycle::new("inner").component(deaf("deaf").grace(SECOND));
    let outcome = outcome_around(forced).await;
    assert!(matches!(outcome, Outcome::Forced(_)), "{outcome:?}");

    let failed = Lifecycle::new("inner").component(obedient("worker"));
    let flush = Step::new("flush", |_| async { Err("disk full".into()) });
    let _step = failed.cleanup().push(flush).unwrap();
    let outcome = outcome_around(failed).await;
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_destructor_that_panics_does_not_keep_a_resource_open() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("bang");
        }
    }
    let (bomb, diary) = (Provided::<Bomb>::new("bomb"), Diary::default());
    let closed = diary.clone();
    let lifecycle = Lifecycle::new("orders").component(Component::resource(
        "db",
        move |ctx| async move { Ok(ctx.provide(&bomb, Bomb)) },
        move |()| async move { Ok(closed.write("closed")) },
    ));
    let report = stopped(lifecycle).await;
    assert_eq!(diary.lines(), ["closed"], "{report}");
}
