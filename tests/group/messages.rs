//! Each message of the group, word by word.

use std::error::Error;
use std::future::pending;
use std::time::Duration;

use taskgroup::group::StopRequest;
use taskgroup::{BuildError, CancellationToken, Cause, Signal, TaskError, TaskGroup};

fn line(error: &TaskError) -> String {
    format!("{}:{}", error.place().file(), error.place().line())
}

#[tokio::test]
async fn a_failed_named_task() {
    let mut group = TaskGroup::new();
    group
        .task("http")
        .spawn(async { Err::<(), _>("address in use".into()) });
    let error = group.wait().await.unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        format!("task `http` ({}) failed: address in use", line(&error))
    );
    assert_eq!(
        error.to_string(),
        format!("task `http` ({}) failed", line(&error))
    );
    assert!(line(&error).starts_with("tests/group/messages.rs:"));
    assert_eq!(error.source().unwrap().to_string(), "address in use");
}

#[tokio::test]
async fn a_failed_unnamed_task() {
    let mut group = TaskGroup::new();
    group.spawn(async { Err::<(), _>("address in use".into()) });
    let error = group.wait().await.unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        format!("task ({}) failed: address in use", line(&error))
    );
    assert_eq!(error.name(), None);
}

#[tokio::test]
async fn an_unnamed_task_in_a_named_group() {
    let mut group = TaskGroup::builder().name("orders").build().unwrap();
    group.spawn(async { Err::<(), _>("address in use".into()) });
    let error = group.wait().await.unwrap_err();
    let message = format!("task of `orders` ({}) failed: address in use", line(&error));
    assert_eq!(format!("{error:#}"), message);
}

#[tokio::test]
async fn a_panicked_task() {
    let mut group = TaskGroup::new();
    group
        .task("parser")
        .spawn(async { if true { panic!("bad byte") } else { Ok(()) } });
    let error = group.wait().await.unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        format!("task `parser` ({}) panicked: bad byte", line(&error))
    );
    assert_eq!(error.source().unwrap().to_string(), "bad byte");
}

#[tokio::test]
async fn an_essential_task_that_ended_early() {
    let mut group = TaskGroup::new();
    group.task("worker").essential().spawn(async { Ok(()) });
    let error = group.wait().await.unwrap_err();
    let message = format!(
        "task `worker` ({}) is essential and ended early",
        line(&error)
    );
    assert_eq!(format!("{error:#}"), message);
}

#[test]
fn a_task_whose_runtime_went_away() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut group = TaskGroup::new();
    let entered = runtime.enter();
    group.task("lost").spawn(pending::<Result<(), _>>());
    drop(entered);
    drop(runtime);
    let other = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let error = other.block_on(group.wait()).unwrap_err();
    let message = format!("task `lost` ({}) was dropped before it ended", line(&error));
    assert_eq!(format!("{error:#}"), message);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_had_to_abort() {
    let mut group = TaskGroup::builder().name("orders").build().unwrap();
    group.task("kafka").spawn(pending::<Result<(), _>>());
    for _ in 0..2 {
        group.spawn(pending::<Result<(), _>>());
    }
    let error = group.shutdown(Duration::from_secs(5)).await.unwrap_err();
    let stragglers: Vec<_> = error
        .stragglers()
        .iter()
        .map(|task| format!("{}:{}", task.place().file(), task.place().line()))
        .collect();
    assert_eq!(
        format!("{error:#}"),
        format!(
            "group `orders` ({}) did not stop within 5s and was aborted with 3 tasks: \
             `orders/kafka` ({}) for 5s, 2 × `orders` ({})",
            line(&error),
            stragglers[0],
            stragglers[1],
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_passed_deadline() {
    let mut group = TaskGroup::builder()
        .deadline(Duration::from_secs(30))
        .build()
        .unwrap();
    let token = group.token().clone();
    group
        .task("import")
        .spawn(async move { Ok(token.cancelled().await) });
    let error = group.wait().await.unwrap_err();
    let import = error.stragglers().iter().next().unwrap().place().line();
    assert_eq!(
        format!("{error:#}"),
        format!(
            "group ({}) passed its deadline of 30s with 1 task: \
             `import` (tests/group/messages.rs:{import}) for 30s",
            line(&error),
        )
    );
    assert_eq!(
        group.cause().unwrap().to_string(),
        "the deadline of 30s passed"
    );
}

#[test]
fn of_causes() {
    assert_eq!(
        Cause::Requested(StopRequest::default()).to_string(),
        "cancelled on request"
    );
    let reason = Cause::Requested("the lease was lost".into());
    assert_eq!(
        reason.to_string(),
        "cancelled on request: the lease was lost"
    );
    assert_eq!(
        Cause::Signal(Signal::Terminate).to_string(),
        "received SIGTERM"
    );
    let file = |at_start| Cause::File {
        path: "/run/stop".into(),
        at_start,
    };
    assert_eq!(file(false).to_string(), "stop file `/run/stop` appeared");
    assert_eq!(
        file(true).to_string(),
        "stop file `/run/stop` was there at the start"
    );
    assert_eq!(Cause::Dropped.to_string(), "the group was dropped");
    assert_eq!(Cause::Token.to_string(), "the token was cancelled");
}

#[test]
fn of_build_errors() {
    let build = |builder: taskgroup::group::Builder| format!("{:#}", builder.build().unwrap_err());
    let named = || TaskGroup::builder().name("resize");
    assert_eq!(
        build(named().limit(0)),
        "group `resize`: `limit` cannot be 0: no task could ever start"
    );
    assert_eq!(
        build(TaskGroup::builder().limit(0)),
        "a group without a name: `limit` cannot be 0: no task could ever start"
    );
    assert_eq!(
        build(TaskGroup::builder().name("")),
        "a group: `name` cannot be empty: no message could name it"
    );
    let isolated = named().isolated().build().unwrap_err();
    assert_eq!(isolated.option(), "isolated");
    let child = named().parent(&CancellationToken::new());
    let two_parents = TaskGroup::new().child_with(&child).unwrap_err();
    assert_eq!(two_parents.option(), "parent");
}

#[test]
fn a_build_error_keeps_its_type_in_an_io_error_and_in_a_boxed_one() {
    let error = TaskGroup::builder().limit(0).build().unwrap_err();
    let io = std::io::Error::from(error.clone());
    assert_eq!(io.kind(), std::io::ErrorKind::InvalidInput);
    let inside = io.get_ref().unwrap().downcast_ref::<BuildError>();
    assert_eq!(inside, Some(&error));
    let boxed: taskgroup::BoxError = error.clone().into();
    assert_eq!(boxed.downcast_ref::<BuildError>(), Some(&error));
}

/// A chain of two, as `thiserror` makes it.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve")]
struct CannotServe(#[source] std::io::Error);

fn cannot_serve() -> CannotServe {
    CannotServe(std::io::Error::other("address in use"))
}

/// An error of the old custom: its message has its source's.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve: {0}")]
struct SaysAll(#[source] std::io::Error);

async fn failed_with(error: impl Into<taskgroup::BoxError>) -> TaskError {
    let error = error.into();
    let mut group = TaskGroup::new();
    group.task("http").spawn(async { Err::<(), _>(error) });
    group.wait().await.unwrap_err()
}

#[tokio::test]
async fn no_message_of_a_chain_is_printed_twice() {
    let error = failed_with(cannot_serve()).await;
    let once = |text: String| {
        for message in ["failed", "cannot serve", "address in use"] {
            assert_eq!(text.matches(message).count(), 1, "{message}: {text}");
        }
    };
    once(format!("{error:#}"));
    once(format!("{error:?}"));
    once(format!(
        "{:#}",
        failed_with(SaysAll(cannot_serve().0)).await
    ));
    once(format!(
        "{:?}",
        failed_with(SaysAll(cannot_serve().0)).await
    ));
    once(format!("{:#}", anyhow::Error::from(error)));
    let report = anyhow::Error::from(failed_with(cannot_serve()).await);
    once(
        format!("{report:?}")
            .split("Stack backtrace")
            .next()
            .unwrap()
            .to_owned(),
    );
}

#[tokio::test]
async fn debug_is_a_text_for_a_person() {
    let error = failed_with(cannot_serve()).await;
    assert_eq!(
        format!("{error:?}"),
        format!(
            "\
task `http` ({}) failed

Caused by:
    0: cannot serve
    1: address in use",
            line(&error)
        )
    );
}

#[tokio::test(start_paused = true)]
async fn debug_tells_the_later_failures() {
    let mut group = TaskGroup::new();
    let token = group.token().clone();
    group.task("flush").spawn(async move {
        token.cancelled().await;
        Err::<(), _>("disk full".into())
    });
    group
        .task("http")
        .spawn(async { Err::<(), _>("address in use".into()) });
    let error = group.wait().await.unwrap_err();
    assert_eq!(
        format!("{error:?}"),
        format!(
            "\
task `http` ({}) failed

Caused by:
    address in use

Also:
    task `flush` ({}) failed: disk full",
            line(&error),
            line(&error.suppressed()[0]),
        )
    );
}
