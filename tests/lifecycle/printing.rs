//! How the errors of a lifecycle print: each message once, whatever prints them.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use taskgroup::BoxError;
use taskgroup::cleanup::{Cleanup, CleanupError, Outcome, Step};
use taskgroup::lifecycle::{Component, Lifecycle, RunError};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{SECOND, obedient};

/// What a log writes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// What a subscriber of `tracing` writes of an error that is a field of an event.
fn traced(error: &(dyn Error + 'static)) -> String {
    let lines = Lines::default();
    let log = tracing_subscriber::fmt().with_writer(lines.clone());
    tracing::subscriber::with_default(log.with_ansi(false).finish(), || {
        tracing::error!(error, "it failed");
    });
    String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
}

/// Prints an error in every way in which a chain is printed, and checks that each message is there
/// once.
#[track_caller]
fn assert_each_once<X: Error + Clone + Send + Sync + 'static>(error: &X, messages: &[&str]) {
    let anyhow = anyhow::Error::from(error.clone());
    let eyre = eyre::Report::from(error.clone());
    let boxed: BoxError = error.clone().into();
    let texts: [&dyn fmt::Display; 8] = [
        &format_args!("{error:#}"),
        &format_args!("{error:?}"),
        &format_args!("{anyhow:#}"),
        &format_args!("{anyhow:?}"),
        &format_args!("{eyre:#}"),
        &format_args!("{eyre:?}"),
        // What `main` prints.
        &format_args!("{boxed:?}"),
        &traced(error),
    ];
    for text in texts.map(ToString::to_string) {
        // With `RUST_BACKTRACE` a report has one.
        let text = text.split("Stack backtrace").next().unwrap();
        for message in messages {
            assert_eq!(text.matches(message).count(), 1, "`{message}` in:\n{text}");
        }
        assert!(!text.contains('{'), "derived: {text}");
    }
}

fn broken(name: &'static str, why: &'static str) -> Component {
    Component::job(
        name,
        move |_| async move { Err(io::Error::other(why).into()) },
    )
}

async fn not_clean(steps: impl IntoIterator<Item = Step>) -> CleanupError {
    let mut cleanup = Cleanup::new();
    for step in steps {
        cleanup.push(step).unwrap();
    }
    let report = cleanup.run(Outcome::Clean, 60 * SECOND).await;
    report.into_result().unwrap_err()
}

fn failing(name: &'static str, why: &'static str) -> Step {
    Step::new(
        name,
        move |_| async move { Err(io::Error::other(why).into()) },
    )
}

fn panicking(name: &'static str) -> Step {
    Step::new(name, |_| async {
        std::panic::resume_unwind(Box::new("boom"));
        #[allow(unreachable_code)]
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_cleanup_has_that_of_its_step_as_its_source() {
    let error = not_clean([failing("database", "disk full")]).await;

    assert_eq!(error.to_string(), "cleanup step `database` failed");
    let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.to_string(), "disk full");
    assert_eq!(
        format!("{error:?}"),
        "cleanup step `database` failed\n\nCaused by:\n    disk full"
    );
    assert_each_once(&error, &["cleanup step `database` failed", "disk full"]);

    let error = not_clean([panicking("key")]).await;
    assert!(error.source().unwrap().is::<taskgroup::group::Panic>());
    assert_each_once(&error, &["cleanup step `key` panicked", "boom"]);
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_of_which_several_steps_failed_names_each_with_its_reason() {
    let hangs = Step::new("cache", |_| std::future::pending());
    let error = not_clean([
        failing("log", "no space"),
        hangs,
        failing("db", "no quorum"),
    ])
    .await;

    assert_eq!(
        error.to_string(),
        "cleanup step `db` failed (also: cleanup step `cache` timed out after 5s; \
         cleanup step `log` failed: no space)"
    );
    assert_eq!(
        format!("{error:#}"),
        "cleanup step `db` failed: no quorum; cleanup step `cache` timed out after 5s; \
         cleanup step `log` failed: no space"
    );
    let messages = [
        "`db` failed",
        "no quorum",
        "`cache`",
        "`log` failed",
        "no space",
    ];
    assert_each_once(&error, &messages);

    // The same reason is that of each of them.
    let error = not_clean([failing("log", "read-only"), failing("db", "read-only")]).await;
    for text in [
        format!("{error:#}"),
        format!("{:#}", anyhow::Error::from(error.clone())),
    ] {
        assert_eq!(text.matches("read-only").count(), 2, "{text}");
    }
    let nested = Lifecycle::new("shop").component(Component::job("tidy", move |_| {
        let error = error.clone();
        async move { Err(error.into()) }
    }));
    let report = nested.run().await.unwrap();
    let message = &report.errors[0].message;
    assert_eq!(message.matches("read-only").count(), 2, "{message}");
}

async fn not_well(lifecycle: Lifecycle) -> RunError {
    lifecycle.run().await.unwrap().into_result().unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_run_that_failed_in_one_way_has_its_reason_as_the_source() {
    let lifecycle = Lifecycle::new("orders").component(broken("migrate", "locked"));
    let error = not_well(lifecycle).await;

    let message = "lifecycle `orders`: component `migrate` did not start";
    assert_eq!(error.to_string(), message);
    assert!(error.source().unwrap().is::<io::Error>());
    assert_eq!(
        format!("{error:?}"),
        format!("{message}\n\nCaused by:\n    locked")
    );
    assert_each_once(&error, &["`orders`", "component `migrate`", "locked"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_failed_in_several_ways_names_each_with_its_reason() {
    let lifecycle = Lifecycle::new("orders")
        .component(broken("migrate", "locked"))
        .component(broken("index", "full"));
    let _step = lifecycle
        .cleanup()
        .push(failing("flush", "no space"))
        .unwrap();
    let error = not_well(lifecycle).await;

    assert_eq!(
        error.to_string(),
        "lifecycle `orders`: component `migrate` did not start (also: component `index` failed \
         while it stopped: full; cleanup step `flush` failed: no space)"
    );
    assert!(error.source().unwrap().is::<io::Error>());
    assert_eq!(
        format!("{error:?}"),
        "lifecycle `orders`: component `migrate` did not start\n\nCaused by:\n    locked\n\n\
         Also:\n    component `index` failed while it stopped: full\n    \
         cleanup step `flush` failed: no space"
    );
    let messages = [
        "component `migrate` did not start",
        "locked",
        "component `index` failed while it stopped",
        "full",
        "step `flush` failed",
        "no space",
    ];
    assert_each_once(&error, &messages);
}

#[tokio::test]
async fn a_run_without_a_plan_prints_the_mistake() {
    let lifecycle = Lifecycle::new("orders")
        .component(obedient("grpc"))
        .component(obedient("http").after(["db"]));
    let error = lifecycle.start().await.unwrap_err();

    let message = "component `http` depends on `db`, which does not exist: there is `grpc`";
    let plan_error = error.plan_error().unwrap();
    assert_eq!(format!("{error:?}"), message);
    assert_eq!(format!("{plan_error:?}"), message);
    assert_each_once(plan_error, &[message]);
    assert_each_once(&error, &[message]);
}
