//! Reports and the rows they are in. All else about exits is tested through the public API.

use std::future::pending;
use std::io;
use std::time::Duration;

use super::*;
use crate::BoxError;
use crate::cleanup::Cleanup;
use crate::cleanup::Outcome;
use crate::cleanup::Step;
use crate::group::TaskGroup;
use crate::group::cause::Cause;
use crate::group::error::TaskError;
use crate::group::signal::Signal;
use crate::lifecycle::ComponentError;
use crate::lifecycle::ComponentState;
use crate::lifecycle::ComponentStatus;
use crate::lifecycle::StepKind;
use crate::server::sidecar::Sidecar;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
#[error("no quorum")]
struct NoQuorum;

/// A policy that tells its rows apart.
fn distinct() -> ExitPolicy {
    ExitPolicy::strict()
        .done(10)
        .signal(11)
        .failed(12)
        .panicked(13)
        .ended_early(14)
        .aborted(15)
        .timed_out(16)
        .timed_out_after_signal(17)
}

fn report(errors: impl IntoIterator<Item = ComponentError>) -> Report {
    Report {
        name: "orders".into(),
        cause: Cause::Done,
        errors: errors.into_iter().collect(),
        timeline: Vec::new(),
        components: Vec::new(),
        stragglers: Vec::new(),
        in_flight: 0,
        stop_began: Duration::ZERO,
        ended: Duration::ZERO,
        budget: LIMIT,
        cleanup: None,
        nested: Vec::new(),
    }
}

const START: Option<StepKind> = Some(StepKind::Start);
const DRAIN: Option<StepKind> = Some(StepKind::Drain);
const STOP: Option<StepKind> = Some(StepKind::Stop);

fn alone(during: Option<StepKind>, end: End) -> ComponentError {
    let error = ComponentError::new("http", during, end);
    error.within(end.is_forced().then_some(LIMIT))
}

async fn task_failed(error: impl Into<BoxError>) -> TaskError {
    let error = error.into();
    let mut group = TaskGroup::new();
    group
        .task("http")
        .spawn(async { Err::<(), BoxError>(error) });
    group.wait().await.unwrap_err()
}

async fn cleanup(step: Step) -> Report {
    let mut cleanup = Cleanup::new();
    cleanup.push(step).unwrap();
    let mut report = report([]);
    report.cleanup = Some(cleanup.run(Outcome::Clean, LIMIT).await);
    report
}

fn code(report: &Report) -> u8 {
    distinct().exit_of(report).code()
}

#[test]
fn a_clean_report_is_done_or_its_signal() {
    let mut report = report([]);
    assert_eq!(code(&report), 10);

    report.cause = Cause::Signal(Signal::Terminate);
    let exit = distinct().exit_of(&report);
    assert_eq!((exit.code(), exit.to_string().as_str()), (11, ""));
    assert_eq!(Exit::from(&report).code(), 0);
    assert_eq!(Exit::from(report).code(), 0);
}

#[test]
fn each_end_of_a_component_is_in_its_row() {
    let late = ComponentError::new("http", START, End::Failed).within(Some(LIMIT));
    for (error, row) in [
        (alone(START, End::Failed), 12),
        (late, 12),
        (alone(START, End::EndedEarly), 14),
        (alone(None, End::Failed), 12),
        (alone(None, End::Panicked), 13),
        (alone(None, End::EndedEarly), 14),
        (alone(None, End::Aborted), 15),
        (alone(STOP, End::Failed), 12),
        (alone(DRAIN, End::TimedOut), 16),
        (alone(STOP, End::TimedOut), 16),
        (alone(STOP, End::StillRunning), 16),
    ] {
        let mut report = report([error.clone()]);
        assert_eq!(code(&report), row, "{error}");

        report.cause = Cause::Signal(Signal::Terminate);
        let row = if row == 16 { 17 } else { row };
        assert_eq!(code(&report), row, "{error} after a signal");
    }
}

#[test]
fn a_timeout_gives_way_to_a_failure_and_both_are_told() {
    let report = report([
        alone(STOP, End::TimedOut),
        alone(None, End::Panicked).with_message("boom"),
    ]);
    let exit = distinct().exit_of(&report);

    assert_eq!(exit.code(), 13);
    assert_eq!(
        exit.to_string(),
        "\
error: component `http` did not stop within 2s and was forced
also: component `http` panicked: boom"
    );
}

#[tokio::test]
async fn the_own_error_of_a_task_is_asked_for_its_code() {
    let task = task_failed(NoQuorum).await;
    let error = alone(START, End::Failed).with_task(task).0;
    let policy = distinct().code_from(|error| error.is::<NoQuorum>().then_some(78));
    let exit = policy.exit_of(&report([error]));

    assert_eq!(exit.code(), 78);
    assert_eq!(
        exit.to_string(),
        "error: component `http` did not start: no quorum"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_timed_out_decides_for_its_component() {
    let token = CancellationToken::new();
    token.cancel();
    let server = Sidecar::new("http").serve(&token, |_stop| pending::<Result<(), io::Error>>());
    let task = task_failed(server.await.unwrap_err()).await;
    let error = alone(STOP, End::Failed).with_task(task).0;
    assert_eq!(code(&report([error.clone()])), 16);

    // The same error on its own, and in a task of another group.
    let exit = distinct().exit(Err::<(), BoxError>(Box::new(error.clone())));
    assert_eq!(exit.code(), 16);
    assert_eq!(exit.to_string(), format!("error: {error:#}"));
    assert_eq!(distinct().exit(Err(task_failed(error).await)).code(), 16);
}

#[tokio::test]
async fn a_component_error_without_a_task_keeps_its_row_when_it_is_returned() {
    let error = alone(None, End::EndedEarly);

    assert_eq!(distinct().exit(Err(task_failed(error).await)).code(), 14);
}

#[test]
fn a_task_that_was_lost_is_aborted() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut group: TaskGroup = TaskGroup::new();
    runtime.block_on(async {
        group.task("http").spawn(pending::<Result<(), BoxError>>());
    });
    drop(runtime);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let task = runtime.block_on(group.wait()).unwrap_err();
    let error = alone(None, task.end()).with_task(task).0;

    assert_eq!(code(&report([error])), 15);
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_is_in_the_row_of_its_worst_step() {
    let failed = cleanup(Step::new("db", |_| async { Err("disk full".into()) })).await;
    let exit = distinct().exit_of(&failed);
    assert_eq!(exit.code(), 12);
    assert_eq!(
        exit.to_string(),
        "error: cleanup step `db` failed: disk full"
    );

    assert_eq!(code(&cleanup(Step::new("db", |_| pending())).await), 16);

    let boom = |_| async {
        std::panic::resume_unwind(Box::new("boom"));
        #[allow(unreachable_code)]
        Ok(())
    };
    assert_eq!(code(&cleanup(Step::new("db", boom)).await), 13);

    let best_effort = Step::new("db", |_| pending()).best_effort();
    assert_eq!(code(&cleanup(best_effort).await), 10);
}

#[test]
fn nested_reports_count() {
    let mut outer = report([]);
    outer.nested = vec![report([]), report([alone(None, End::EndedEarly)])];

    assert_eq!(code(&outer), 14);
}

#[test]
fn what_was_forced_without_an_error_is_not_done() {
    let mut outer = report([]);
    outer.cause = Cause::Signal(Signal::Terminate);
    outer.components = vec![ComponentStatus::new(
        "db",
        ComponentState::Ended(End::TimedOut),
    )];
    let exit = distinct().exit_of(&outer);

    assert_eq!(exit.code(), 17);
    assert_eq!(exit.to_string(), "error: `orders` was forced");
}

#[tokio::test(start_paused = true)]
async fn the_signal_that_cancelled_a_group_is_found_inside_a_report() {
    let mut group = TaskGroup::<anyhow::Error>::reports();
    group.spawn(pending::<Result<(), _>>());
    group.spawner().cancel_for(Cause::Signal(Signal::Terminate));
    let forced = group.shutdown(Duration::ZERO).await.unwrap_err();

    let report = anyhow::Error::from(forced).context("in the shop");
    assert_eq!(distinct().exit(Err(report)).code(), 17);
}
