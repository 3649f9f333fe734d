//! What a component is given, and what it can say: G7, L14, S10.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use taskgroup::cleanup::{Outcome, Step};
use taskgroup::lifecycle::{Component, ComponentState, Context, EventKind, Lifecycle};
use taskgroup::{BoxError, End};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::support::{Diary, SECOND, obedient, overran, stopped, wrong};

#[tokio::test(start_paused = true)]
async fn the_deadline_and_the_cause_are_there_before_the_token_fires() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let worker = {
        let seen = Arc::clone(&seen);
        Component::new("worker", move |ctx: Context| async move {
            assert_eq!(ctx.deadline(), None);
            assert!(ctx.cause().is_none());
            let helper = ctx.clone();
            // Code that runs where the token is cancelled: nothing has been polled in between.
            let _look = taskgroup::group::OnCancel::new(ctx.token(), async move || {
                let cause = helper.cause().unwrap().to_string();
                seen.lock()
                    .unwrap()
                    .push((helper.remaining().unwrap(), cause));
            });
            ctx.ready();
            ctx.stopping().await;
            assert_eq!(ctx.deadline(), Some(Instant::now() + 3 * SECOND));
            sleep(SECOND).await;
            assert_eq!(ctx.remaining(), Some(2 * SECOND));
            Ok(())
        })
    };
    let report = stopped(Lifecycle::new("orders").component(worker.grace(3 * SECOND))).await;
    assert!(report.is_clean(), "{report}");
    let seen = seen.lock().unwrap().clone();
    assert_eq!(
        seen,
        [(3 * SECOND, "cancelled on request: enough".to_owned())]
    );
}

#[tokio::test(start_paused = true)]
async fn an_observer_of_the_begin_of_a_stop_sees_the_deadline() {
    let (sender, mut seen) = mpsc::unbounded_channel();
    let context = Arc::new(Mutex::new(None::<Context>));
    let worker = {
        let context = Arc::clone(&context);
        Component::new("worker", move |ctx: Context| async move {
            *context.lock().unwrap() = Some(ctx.clone());
            ctx.ready();
            Ok(ctx.stopping().await)
        })
    };
    let lifecycle = Lifecycle::new("orders").component(worker.grace(3 * SECOND));
    let report = stopped(lifecycle.observe(move |event| {
        if let EventKind::StopBegan(within) = event.kind {
            let context = context.lock().unwrap();
            let ctx = context.as_ref().unwrap();
            sender
                .send((within, ctx.remaining(), ctx.token().is_cancelled()))
                .unwrap();
        }
    }))
    .await;
    assert!(report.is_clean(), "{report}");
    let (within, remaining, fired) = seen.recv().await.unwrap();
    assert_eq!(Some(within), remaining);
    assert!(fired);
}

#[tokio::test(start_paused = true)]
async fn a_grace_and_a_budget_without_end_have_no_deadline() {
    let worker = Component::new("worker", |ctx: Context| async move {
        ctx.ready();
        ctx.stopping().await;
        assert_eq!((ctx.deadline(), ctx.remaining()), (None, None));
        Ok(sleep(1000 * SECOND).await)
    });
    let lifecycle = Lifecycle::new("orders").budget(Duration::MAX);
    let report = stopped(lifecycle.component(worker.grace(Duration::MAX))).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.took(), 1000 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_component_can_stop_the_whole_and_the_first_cause_wins() {
    let worker = Component::new("worker", |ctx: Context| async move {
        ctx.ready();
        ctx.stop("the queue is empty");
        ctx.stop("really");
        Ok(ctx.stopping().await)
    });
    let lifecycle = Lifecycle::new("orders")
        .component(worker)
        .component(obedient("db"));
    let report = lifecycle.run().await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(
        report.cause.to_string(),
        "cancelled on request: the queue is empty"
    );
}

#[tokio::test(start_paused = true)]
async fn code_that_cleans_up_reads_why() {
    let diary = Diary::default();
    let db = {
        let diary = diary.clone();
        Component::new("db", move |ctx: Context| async move {
            ctx.ready();
            ctx.stopping().await;
            diary.write(ctx.cause().unwrap().to_string());
            Ok(())
        })
    };
    let crash = Component::new("worker", |ctx| async move {
        ctx.ready();
        Err("no partition".into())
    });
    let lifecycle = Lifecycle::new("orders")
        .component(db)
        .component(crash.after(["db"]));
    let cleanup = lifecycle.cleanup();
    let (sender, mut outcome) = mpsc::unbounded_channel();
    cleanup
        .push(Step::new("alert", move |it: Outcome| async move {
            sender.send(it).unwrap();
            Ok::<(), BoxError>(())
        }))
        .unwrap();
    let report = lifecycle.run().await.unwrap();
    assert!(
        diary.lines()[0].contains("no partition"),
        "{:?}",
        diary.lines()
    );
    let outcome = outcome.recv().await.unwrap();
    assert!(
        matches!(&outcome, Outcome::Failed(why) if why.contains("no partition")),
        "{outcome:?}"
    );
    assert!(report.cleanup.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn cleanup_steps_run_after_all_components_the_last_pushed_first() {
    let diary = Diary::default();
    let step = |name: &'static str| {
        let diary = diary.clone();
        Step::new(name, move |outcome: Outcome| async move {
            diary.write(format!(
                "{name}: {}",
                if outcome.is_clean() {
                    "clean"
                } else {
                    "forced"
                }
            ));
            Ok::<(), BoxError>(())
        })
    };
    let db = {
        let (diary, late) = (diary.clone(), step("pushed by db"));
        Component::new("db", move |ctx: Context| async move {
            ctx.cleanup().push(late).unwrap();
            ctx.ready();
            ctx.stopping().await;
            Ok(diary.write("db is gone"))
        })
    };
    let lifecycle = Lifecycle::new("orders").component(db);
    lifecycle.cleanup().push(step("pushed first")).unwrap();
    let cleanup = lifecycle.cleanup();
    let report = stopped(lifecycle).await;
    assert_eq!(
        diary.lines(),
        ["db is gone", "pushed by db: clean", "pushed first: clean"]
    );
    assert!(report.is_clean(), "{report}");
    assert!(cleanup.push(step("too late")).is_err());
}

#[tokio::test(start_paused = true)]
async fn cleanup_is_told_when_something_was_forced_and_has_its_time_anyway() {
    let (sender, mut outcome) = mpsc::unbounded_channel();
    let budget = taskgroup::lifecycle::Budget::new(10 * SECOND).cleanup(2 * SECOND);
    let lifecycle = Lifecycle::new("orders").budget(budget);
    let lifecycle = lifecycle.component(crate::support::deaf("db"));
    lifecycle
        .cleanup()
        .push(Step::new("flush", move |it: Outcome| async move {
            sleep(2 * SECOND).await;
            sender.send(it).unwrap();
            Ok::<(), BoxError>(())
        }))
        .unwrap();
    let report = stopped(lifecycle).await;
    assert!(matches!(outcome.recv().await, Some(Outcome::Forced(_))));
    assert!(report.took() <= 10 * SECOND, "{report}");
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_when_the_stop_begins_is_in_the_report() {
    let worker = Component::new("worker", |ctx: Context| async move {
        ctx.set_in_flight(9);
        ctx.set_in_flight(5);
        ctx.ready();
        ctx.stopping().await;
        ctx.set_in_flight(2);
        sleep(SECOND).await;
        Ok(ctx.set_in_flight(0))
    });
    let queue = Component::new("queue", |ctx: Context| async move {
        ctx.ready();
        ctx.stopping().await;
        // It looks only now.
        Ok(ctx.set_in_flight(3))
    });
    let (sender, mut ends) = mpsc::unbounded_channel();
    let lifecycle = Lifecycle::new("orders").component(worker).component(queue);
    let report = stopped(lifecycle.observe(move |event| {
        if let EventKind::Ended { in_flight, .. } = event.kind {
            sender.send(in_flight).unwrap();
        }
    }))
    .await;
    assert_eq!(report.in_flight, 8);
    let mut each = [ends.recv().await.unwrap(), ends.recv().await.unwrap()];
    each.sort_unstable();
    assert_eq!(each, [3, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_observer_changes_nothing_and_the_others_hear() {
    let (sender, mut heard) = mpsc::unbounded_channel();
    let lifecycle = Lifecycle::new("orders")
        .component(obedient("db"))
        .observe(|_| panic!("observer"))
        .observe(move |event| {
            if let EventKind::Stopped { errors, .. } = event.kind {
                sender.send(errors).unwrap();
            }
        });
    let report = stopped(lifecycle).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(heard.recv().await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_component_that_says_ready_all_the_time_does_not_hold_up_the_clock() {
    let noisy = Component::new("noisy", |ctx: Context| async move {
        loop {
            ctx.ready();
            ctx.drained();
            tokio::task::yield_now().await;
        }
    });
    let lifecycle = Lifecycle::new("orders").component(noisy.grace(SECOND));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop("enough");
    // The clock stands still while something is always ready.
    while !run.is_finished() {
        tokio::task::yield_now().await;
        tokio::time::advance(SECOND / 10).await;
    }
    let report = run.await.unwrap().unwrap();
    assert_eq!(wrong(&report.errors[0]), overran(SECOND));
    assert!(report.took() < 2 * SECOND, "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_nobody_ends_as_soon_as_there_is_a_run() {
    let lifecycle = Lifecycle::new("orders").component(obedient("db"));
    let handle = lifecycle.handle();
    let wait = tokio::spawn({
        let handle = handle.clone();
        async move { handle.wait_for("nobody", ComponentState::Running).await }
    });
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(wait.await.unwrap(), None);
    assert_eq!(handle.state("nobody"), None);
    assert_eq!(handle.ready().await, Ok(()));
    assert_eq!(handle.cause(), None);
    assert!(!handle.token().is_cancelled());
    handle.stop("enough");
    run.await.unwrap().unwrap();
    // A state that it has passed by counts.
    let passed = handle.wait_for("db", ComponentState::Running).await;
    assert_eq!(passed, Some(ComponentState::Ended(End::Done)));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_aborts_all_and_the_handle_says_so() {
    let diary = Diary::default();
    let guard = crate::support::Guard(diary.clone(), "db is dropped");
    let db = Component::new("db", |ctx: Context| async move {
        let _guard = guard;
        ctx.ready();
        Ok(ctx.stopping().await)
    });
    let lifecycle = Lifecycle::new("orders").component(db);
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    assert!(handle.report().await.is_none());
    while !handle.running().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(diary.lines(), ["db is dropped"]);
    assert!(!handle.readiness().is_ready());
    assert_eq!(
        handle.state("db"),
        Some(ComponentState::Ended(End::Aborted))
    );
    assert_eq!(handle.ended("db").await, Some(End::Aborted));
}

#[tokio::test(start_paused = true)]
async fn work_may_use_up_the_grace_but_not_more() {
    let (sender, mut took) = mpsc::unbounded_channel();
    let worker = Component::new("worker", async move |ctx: Context| {
        let long = 60 * SECOND;
        assert_eq!(ctx.clip(long), long, "nothing is known before the stop");
        ctx.ready();
        // It is running when the stop begins, which does not touch it.
        let began = Instant::now();
        let hangs = ctx.until_deadline(std::future::pending::<()>()).await;
        assert_eq!(
            hangs.unwrap_err().to_string(),
            "the deadline of the stop passed"
        );
        sender.send(began.elapsed()).unwrap();
        assert_eq!(ctx.clip(long), Duration::ZERO);
        assert_eq!(
            ctx.until_deadline(async { 7 }).await,
            Ok(7),
            "what is there is there"
        );
        Ok(())
    });
    let lifecycle = Lifecycle::new("orders").component(worker.grace(4 * SECOND));
    let report = stopped(lifecycle).await;
    assert!(report.is_clean(), "{report}");
    let took = took.recv().await.unwrap();
    assert!(took >= SECOND * 15 / 4 && took < 4 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_resource_is_closed_with_the_outcome_and_its_cause() {
    async fn told(with: Component, reason: Option<&'static str>) -> Outcome {
        let (sender, mut told) = mpsc::unbounded_channel();
        let transaction = Component::resource(
            "transaction",
            async |_| Ok(()),
            async move |(), outcome| Ok(sender.send(outcome).unwrap()),
        );
        let lifecycle = Lifecycle::new("orders").component(transaction);
        let lifecycle = lifecycle.component(with.after(["transaction"]));
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        assert_eq!(handle.ready().await, Ok(()));
        if let Some(reason) = reason {
            handle.stop(reason);
        }
        drop(run.await.unwrap().unwrap());
        told.recv().await.unwrap()
    }

    let outcome = told(obedient("worker"), Some("a deployment")).await;
    assert!(outcome.is_clean() && !outcome.is_done());
    let stopped =
        matches!(&outcome, Outcome::Stopped(cause) if cause.to_string().contains("a deployment"));
    assert!(stopped, "{outcome:?}");

    let fails = Component::new("worker", async |ctx: Context| {
        ctx.ready();
        Err("disk full".into())
    });
    let outcome = told(fails, None).await;
    let failed = matches!(&outcome, Outcome::Failed(why) if why.contains("`worker`"));
    assert!(failed, "{outcome:?}");

    let forced = told(crate::support::deaf("worker"), Some("a deployment")).await;
    assert!(matches!(forced, Outcome::Forced(_)), "{forced:?}");
}

#[tokio::test(start_paused = true)]
async fn a_step_knows_that_everything_was_done_and_nothing_was_stopped() {
    let (sender, mut told) = mpsc::unbounded_channel();
    let lifecycle = Lifecycle::new("orders").component(Component::job("import", async |_| Ok(())));
    let step = Step::new("commit", move |outcome: Outcome| async move {
        Ok(sender.send(outcome.is_done()).unwrap())
    });
    let _step = lifecycle.cleanup().push(step).unwrap();
    assert!(lifecycle.run().await.unwrap().is_clean());
    assert_eq!(told.recv().await, Some(true));
}
