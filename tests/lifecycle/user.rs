//! Programs that a user would write from the docs alone.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use taskgroup::cleanup::{Outcome, Step};
use taskgroup::lifecycle::{
    Budget, Check, Component, ComponentState, Context, EventKind, Lifecycle, Provided, Provider,
};
use taskgroup::{BoxError, Cause, TaskGroup};
use tokio::time::sleep;

use crate::support::SECOND;

type Lines = Arc<Mutex<Vec<String>>>;

fn say(lines: &Lines, line: impl Into<String>) {
    lines.lock().unwrap().push(line.into());
}

async fn serve(ctx: Context) -> anyhow::Result<()> {
    ctx.ready();
    ctx.stopping().await;
    Ok(())
}

/// A transaction is committed when everything was done, and rolled back when it was told to stop.
#[tokio::test(start_paused = true)]
async fn a_resource_commits_when_all_is_done_and_rolls_back_with_the_cause_when_it_is_not() {
    let how = |outcome: &Outcome| match outcome {
        Outcome::Clean => "commit".to_owned(),
        Outcome::Stopped(cause) => format!("roll back: {cause}"),
        other => format!("roll back: {other}"),
    };
    let run = |job_takes: Duration, stop_after: Duration| async move {
        let lines = Lines::default();
        let log = Arc::clone(&lines);
        let close = move |(), outcome: Outcome| async move { Ok(say(&log, how(&outcome))) };
        let lifecycle = Lifecycle::new("import")
            .component(Component::resource("transaction", async |_| Ok(()), close))
            .component(
                Component::job("import", move |ctx: Context| async move {
                    let work = sleep(job_takes);
                    ctx.token().run_until_cancelled(work).await;
                    Ok(())
                })
                .after(["transaction"]),
            )
            .stop_on(async move {
                sleep(stop_after).await;
                "a deployment"
            });
        let report = lifecycle.run().await.unwrap();
        assert!(report.is_clean(), "{report}");
        std::mem::take(&mut *lines.lock().unwrap())
    };
    assert_eq!(run(SECOND, 60 * SECOND).await, ["commit"]);
    assert_eq!(
        run(60 * SECOND, SECOND).await,
        ["roll back: cancelled on request: a deployment"]
    );
}

/// What a module adds later uses a value that is there already, and leaves before it is closed.
#[tokio::test(start_paused = true)]
async fn a_module_that_is_added_and_removed_uses_what_is_there() {
    let lines = Lines::default();
    let (opened, closed) = (Arc::clone(&lines), Arc::clone(&lines));
    let (database, pool) = Component::shared(
        "database",
        move |_| async move {
            say(&opened, "open");
            Ok("pool".to_owned())
        },
        move |_, _| async move { Ok(say(&closed, "close")) },
    );
    let run = Lifecycle::new("orders")
        .component(database)
        .component(Component::function("http", serve))
        .start()
        .await
        .unwrap();
    let handle = run.handle().clone();
    for round in 1..=2 {
        let log = Arc::clone(&lines);
        let search =
            Component::using(&pool).run("search", move |ctx: Context, pool: String| async move {
                ctx.ready();
                ctx.stopping().await;
                Ok(say(&log, format!("search {round} leaves {pool}")))
            });
        handle.add(search).unwrap();
        let running = ComponentState::Running;
        assert_eq!(handle.wait_for("search", running).await, Some(running));
        if round == 1 {
            handle.stop_component("search", "a new version").unwrap();
            handle.ended("search").await;
        }
    }
    let report = run.stop("enough").await;
    assert!(report.is_clean(), "{report}");
    let lines = lines.lock().unwrap().clone();
    assert_eq!(
        lines,
        [
            "open",
            "search 1 leaves pool",
            "search 2 leaves pool",
            "close"
        ]
    );
}

/// A service below somebody's token, with checks, a cleanup step and an observer.
#[tokio::test(start_paused = true)]
async fn a_service_in_a_group_is_told_and_its_checks_come_and_go() {
    let mut group = TaskGroup::new();
    let (set, healthy) = tokio::sync::watch::channel(false);
    let check = Check::new("broker", move || {
        let healthy = *healthy.borrow();
        async move {
            if healthy {
                Ok(())
            } else {
                Err("no leader".into())
            }
        }
    });
    let lines = Lines::default();
    let log = Arc::clone(&lines);
    let address: Provided<u16> = Provided::new("port");
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::new(20 * SECOND).lame_duck(SECOND))
        .check(check.every(SECOND))
        .stop_on(group.spawner())
        .component(Component::using(address.provider()).run(
            "http",
            async |ctx: Context, port: Provider<u16>| {
                port.set(8080);
                ctx.ready();
                ctx.cleanup()
                    .push(Step::new("lease", async |_| Ok(())).best_effort())?;
                Ok::<_, BoxError>(ctx.stopping().await)
            },
        ))
        .observe(move |event| {
            if let EventKind::StopTriggered { cause, .. } = &event.kind {
                say(&log, cause.to_string());
            }
        });
    let (handle, readiness) = (lifecycle.handle(), lifecycle.readiness().clone());
    group.spawn(async move { Ok(lifecycle.run().await?.into_result()?) });
    assert_eq!(address.wait().await, 8080);
    assert_eq!(handle.ready().await, Ok(()));
    assert!(!readiness.is_ready());
    set.send_replace(true);
    sleep(2 * SECOND).await;
    assert!(readiness.is_ready());
    set.send_replace(false);
    sleep(2 * SECOND).await;
    assert_eq!(
        readiness.failing(),
        [("broker".to_owned(), "no leader".to_owned())]
    );

    group.cancel_because("a deployment");
    group.wait().await.unwrap();
    let report = handle.report().await.unwrap();
    assert!(
        matches!(report.cause, Cause::Requested(_)),
        "{}",
        report.cause
    );
    assert_eq!(report.took(), SECOND, "the lame duck");
    let cleanup = report.cleanup.as_ref().unwrap();
    assert_eq!(cleanup.steps[0].name, "lease");
    let lines = lines.lock().unwrap().clone();
    assert_eq!(lines, ["cancelled on request: a deployment"]);
}
