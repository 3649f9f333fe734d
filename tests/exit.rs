//! `Exit` and `ExitPolicy` as pure mappings; what a real `main` does with them is in tests/process.

use std::error::Error;
use std::fmt;
use std::future::pending;
use std::io;
use std::time::Duration;

use taskgroup::cleanup::{Cleanup, Outcome, Step};
use taskgroup::lifecycle::{Component, Context, Lifecycle};
use taskgroup::process::ExitPolicy;
use taskgroup::{
    BoxError, CancellationToken, Cause, End, Exit, Sidecar, SidecarError, Signal, TaskError,
    TaskGroup,
};

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

fn signalled() -> Option<Cause> {
    Some(Cause::Signal(Signal::Terminate))
}

fn group() -> TaskGroup {
    TaskGroup::builder().name("orders").build().unwrap()
}

async fn failed() -> TaskError {
    let mut group = group();
    group
        .task("db")
        .spawn(async { Err::<(), _>("no table".into()) });
    group.wait().await.unwrap_err()
}

async fn panicked() -> TaskError {
    let mut group = group();
    group.task("db").spawn(async {
        if true {
            panic!("no table");
        }
        Ok(())
    });
    group.wait().await.unwrap_err()
}

async fn ended_early() -> TaskError {
    let mut group = group();
    group.task("db").essential().spawn(async { Ok(()) });
    group.wait().await.unwrap_err()
}

async fn timed_out() -> TaskError {
    let mut group = group();
    group.task("db").spawn(pending::<Result<(), _>>());
    group.shutdown(Duration::ZERO).await.unwrap_err()
}

/// The drain times out first, then the straggler fails while it is being dropped.
async fn timed_out_then_panicked() -> TaskError {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("cannot flush");
        }
    }
    let mut group = group();
    let bomb = Bomb;
    group.task("db").spawn(async move {
        pending::<()>().await;
        drop(bomb);
        Ok(())
    });
    tokio::task::yield_now().await;
    group.shutdown(Duration::ZERO).await.unwrap_err()
}

/// A server in a sidecar, and what it did.
async fn server(does: impl Future<Output = Result<(), BoxError>> + Send + 'static) -> TaskError {
    let mut group = group();
    let http = Sidecar::new("http").grace(Duration::ZERO);
    let token = group.token().clone();
    group.spawn(http.serve(&token, |_stop| does));
    tokio::task::yield_now().await;
    group.cancel();
    group.wait().await.unwrap_err()
}

/// A task whose runtime goes away under the group.
fn aborted() -> TaskError {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
    };
    let mut group = group();
    let gone = runtime();
    gone.block_on(async {
        group.task("db").spawn(pending::<Result<(), _>>());
    });
    drop(gone);
    runtime().block_on(group.wait()).unwrap_err()
}

#[derive(Debug)]
struct Caused(&'static str, Option<Box<Caused>>);

impl fmt::Display for Caused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Caused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_deref().map(|cause| cause as _)
    }
}

fn caused() -> Caused {
    let port = Caused("address in use", None);
    Caused("cannot serve", Some(Box::new(port)))
}

#[test]
fn all_tasks_done_has_its_row() {
    assert_eq!(distinct().exit(Ok::<(), TaskError>(())).code(), 10);
    assert_eq!(
        distinct()
            .exit_caused_by(Ok::<(), TaskError>(()), Some(Cause::Done))
            .code(),
        10
    );
}

#[test]
fn a_stop_that_was_asked_for_has_its_row_or_the_status_of_the_request() {
    let policy = distinct().requested(18);
    let code = |cause| {
        let exit = policy.exit_caused_by(Ok::<(), TaskError>(()), Some(cause));
        exit.code()
    };
    assert_eq!(code(Cause::Requested("enough".into())), 18);
    assert_eq!(code(Cause::Deadline(Duration::from_secs(1))), 18);
    let restart = taskgroup::group::StopRequest::new("restart").code(75);
    assert_eq!(code(Cause::Requested(restart)), 75);
}

#[test]
fn a_clean_drain_after_a_signal_has_its_row() {
    let clean = Ok::<(), TaskError>(());
    assert_eq!(distinct().exit_caused_by(clean, signalled()).code(), 11);
}

#[test]
fn the_status_of_a_clean_drain_can_show_the_signal() {
    let policy = ExitPolicy::strict().signal(None);
    let clean = || Ok::<(), TaskError>(());
    assert_eq!(policy.exit_caused_by(clean(), signalled()).code(), 143);
    let interrupted = Some(Cause::Signal(Signal::Interrupt));
    assert_eq!(policy.exit_caused_by(clean(), interrupted).code(), 130);
    assert_eq!(policy.exit(clean()).code(), 0);
}

#[tokio::test]
async fn each_failure_has_its_row() {
    assert_eq!(distinct().exit(Err(failed().await)).code(), 12);
    assert_eq!(distinct().exit(Err(panicked().await)).code(), 13);
    assert_eq!(distinct().exit(Err(ended_early().await)).code(), 14);
    assert_eq!(distinct().exit(Err(timed_out().await)).code(), 16);
}

#[tokio::test]
async fn a_server_has_the_row_of_what_it_did() {
    let stuck = || server(pending());
    assert_eq!(distinct().exit(Err(stuck().await)).code(), 16);
    assert_eq!(
        distinct()
            .exit_caused_by(Err(stuck().await), signalled())
            .code(),
        17
    );
    assert_eq!(
        ExitPolicy::lenient()
            .exit_caused_by(Err(stuck().await), signalled())
            .code(),
        0
    );

    let failed = server(async { Err("address in use".into()) });
    assert_eq!(distinct().exit(Err(failed.await)).code(), 12);
    let panicked = server(async { if true { panic!("no table") } else { Ok(()) } });
    assert_eq!(distinct().exit(Err(panicked.await)).code(), 13);
    let ended = server(async { Ok(()) });
    assert_eq!(distinct().exit(Err(ended.await)).code(), 14);
}

#[tokio::test]
async fn a_server_that_did_not_drain_is_named() {
    let line = Exit::from(Err::<(), _>(server(pending()).await)).to_string();
    assert!(
        line.contains("server `http` did not drain within 0s"),
        "{line}"
    );
    assert_eq!(line.lines().count(), 1);
}

#[tokio::test]
async fn a_message_that_is_in_the_line_is_not_repeated() {
    let line = Exit::from(Err::<(), _>(
        server(async { Err("address in use".into()) }).await,
    ))
    .to_string();
    assert_eq!(line.matches("address in use").count(), 1, "{line}");
}

#[test]
fn a_lost_task_has_its_row() {
    assert_eq!(distinct().exit(Err(aborted())).code(), 15);
}

#[tokio::test]
async fn a_timeout_after_a_signal_has_its_row_and_other_failures_have_not() {
    let after_signal = |error| distinct().exit_caused_by(Err(error), signalled()).code();
    assert_eq!(after_signal(timed_out().await), 17);
    assert_eq!(after_signal(failed().await), 12);
    assert_eq!(after_signal(panicked().await), 13);
    assert_eq!(after_signal(ended_early().await), 14);
}

#[tokio::test]
async fn a_timeout_gives_way_to_a_failure_that_came_after_it() {
    let error = timed_out_then_panicked().await;
    assert!(error.suppressed()[0].end() == End::Panicked, "{error:?}");
    assert_eq!(
        distinct().exit_caused_by(Err(error), signalled()).code(),
        13
    );
}

#[tokio::test]
async fn strict_is_the_default_and_fails_for_everything_that_was_not_clean() {
    for error in [
        failed().await,
        panicked().await,
        ended_early().await,
        timed_out().await,
    ] {
        assert_eq!(
            ExitPolicy::default()
                .exit_caused_by(Err(error), signalled())
                .code(),
            1
        );
    }
    assert_eq!(
        ExitPolicy::default().to_string(),
        ExitPolicy::strict().to_string()
    );
}

#[tokio::test]
async fn lenient_forgives_a_timeout_after_a_signal_alone() {
    let lenient = ExitPolicy::lenient();
    assert_eq!(
        lenient
            .exit_caused_by(Err(timed_out().await), signalled())
            .code(),
        0
    );
    assert_eq!(lenient.exit(Err(timed_out().await)).code(), 1);
    assert_eq!(
        lenient
            .exit_caused_by(Err(failed().await), signalled())
            .code(),
        1
    );
}

#[tokio::test]
async fn a_boxed_task_error_has_the_row_of_the_task_error() {
    let boxed = BoxError::from(panicked().await);
    assert_eq!(distinct().exit(Err(boxed)).code(), 13);
}

#[tokio::test]
async fn a_group_that_fails_inside_a_task_has_the_row_of_its_failure() {
    let mut outer = TaskGroup::new();
    outer.spawn(async { Err::<(), _>(panicked().await.into()) });
    assert_eq!(distinct().exit(outer.wait().await).code(), 13);
}

#[tokio::test]
async fn a_group_of_another_error_type_has_the_same_rows() {
    let mut typed = TaskGroup::<io::Error>::typed();
    typed.spawn(async { Err::<(), _>(io::Error::other("no disk")) });
    assert_eq!(distinct().exit(typed.wait().await).code(), 12);

    let mut reports = TaskGroup::<anyhow::Error>::reports();
    reports.spawn(async { Err::<(), _>(anyhow::anyhow!("no disk")) });
    assert_eq!(distinct().exit(reports.wait().await).code(), 12);
}

#[tokio::test]
async fn an_error_in_the_chain_carries_its_own_code() {
    let policy = distinct().code_from(|error| {
        let cause = error.downcast_ref::<Caused>()?;
        (cause.0 == "address in use").then_some(98)
    });
    let mut group = TaskGroup::new();
    group.spawn(async { Err::<(), _>(caused().into()) });
    assert_eq!(policy.exit(group.wait().await).code(), 98);
    assert_eq!(policy.exit(Err(BoxError::from(caused()))).code(), 98);
    assert_eq!(policy.exit(Err(failed().await)).code(), 12);
}

#[tokio::test]
async fn the_outermost_error_is_asked_for_its_code_first() {
    let policy = ExitPolicy::strict().code_from(|error| match error.downcast_ref::<Caused>()?.0 {
        "cannot serve" => Some(1),
        _ => Some(2),
    });
    assert_eq!(policy.exit(Err(BoxError::from(caused()))).code(), 1);
}

#[cfg(feature = "signal")]
#[tokio::test]
async fn an_exit_that_dies_of_its_signal_has_the_status_a_shell_shows() {
    let policy = ExitPolicy::strict().reraise();
    let clean = || Ok::<(), TaskError>(());
    assert_eq!(policy.exit_caused_by(clean(), signalled()).code(), 143);
    assert_eq!(policy.exit(clean()).code(), 0);
    assert_eq!(
        policy
            .exit_caused_by(Err(timed_out().await), signalled())
            .code(),
        1
    );
}

#[cfg(feature = "signal")]
#[test]
fn a_second_signal_cannot_be_a_success() {
    let policy = ExitPolicy::strict().second_signal(0);
    let error = policy.terminate_on([Signal::Interrupt]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(
        format!("{error:#}"),
        "an exit policy: `second_signal` cannot be 0: a forced exit is no success"
    );
}

#[test]
fn a_clean_exit_says_nothing() {
    assert_eq!(Exit::from(Ok::<(), TaskError>(())).to_string(), "");
}

#[tokio::test]
async fn a_failure_is_one_line() {
    let line = Exit::from(Err::<(), _>(failed().await)).to_string();
    assert!(
        line.starts_with("error: task `orders/db` (tests/exit.rs:"),
        "{line}"
    );
    assert!(line.ends_with(") failed: no table"), "{line}");
}

#[tokio::test]
async fn sources_follow_in_the_line_once_each() {
    let boxed = Exit::from(Err::<(), _>(BoxError::from(caused())));
    assert_eq!(boxed.to_string(), "error: cannot serve: address in use");

    let mut group = TaskGroup::new();
    group.spawn(async { Err::<(), _>(caused().into()) });
    let line = Exit::from(group.wait().await).to_string();
    assert!(
        line.ends_with(") failed: cannot serve: address in use"),
        "{line}"
    );
}

/// The status of a cleanup with these steps, by a policy that tells its rows apart.
async fn code_of_cleanup<const N: usize>(steps: [Step; N], budget: Duration) -> u8 {
    let mut cleanup = Cleanup::new();
    for step in steps {
        cleanup.push(step).unwrap();
    }
    let report = cleanup.run(Outcome::Clean, budget).await;
    let result: Result<(), BoxError> = report.into_result().map_err(Into::into);
    distinct().exit(result).code()
}

/// A step that fails, after all others.
fn fails(name: &'static str) -> Step {
    Step::new(name, |_| async { Err("disk full".into()) }).low()
}

fn hangs(name: &'static str) -> Step {
    Step::new(name, |_| pending())
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_has_the_row_of_the_step_that_failed() {
    const BUDGET: Duration = Duration::from_secs(20);
    let panics = || {
        Step::new("panics", |_| async {
            std::panic::resume_unwind(Box::new("no hook"))
        })
    };
    let last = || fails("fails");

    assert_eq!(code_of_cleanup([last()], BUDGET).await, 12);
    assert_eq!(code_of_cleanup([panics()], BUDGET).await, 13);
    assert_eq!(code_of_cleanup([panics(), last()], BUDGET).await, 13);
    assert_eq!(code_of_cleanup([hangs("hangs")], BUDGET).await, 16);
    // As everywhere, a timeout gives way to what is worse.
    assert_eq!(code_of_cleanup([hangs("hangs"), last()], BUDGET).await, 12);
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_whose_budget_was_spent_has_timed_out() {
    let steps = [hangs("first"), fails("never")];

    assert_eq!(code_of_cleanup(steps, Duration::from_secs(1)).await, 16);
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_in_the_error_of_a_task_has_its_row() {
    let mut group = group();
    group.task("db").spawn(async {
        let mut cleanup = Cleanup::new();
        cleanup.push(hangs("hangs"))?;
        let report = cleanup.run(Outcome::Clean, Duration::MAX).await;
        Ok(report.into_result()?)
    });

    let error = group.wait().await.unwrap_err();
    assert_eq!(distinct().exit(Err(error)).code(), 16);
}

#[tokio::test]
async fn later_failures_are_lines_of_their_own() {
    let report = Exit::from(Err::<(), _>(timed_out_then_panicked().await)).to_string();
    let lines: Vec<_> = report.lines().collect();
    assert_eq!(lines.len(), 2, "{report}");
    assert!(
        lines[0].starts_with("error: group `orders` (tests/exit.rs:"),
        "{report}"
    );
    assert!(lines[0].contains("did not stop within 0s"), "{report}");
    assert!(
        lines[1].starts_with("also: task `orders/db` (tests/exit.rs:"),
        "{report}"
    );
    assert!(lines[1].ends_with(") panicked: cannot flush"), "{report}");
}

#[tokio::test]
async fn a_report_has_ten_lines_and_counts_the_other_failures() {
    let mut group = TaskGroup::new();
    for number in 0..10_000 {
        group.spawn(async move { Err::<(), _>(format!("no table {number}").into()) });
    }
    let report = Exit::from(group.wait().await).to_string();
    let lines: Vec<_> = report.lines().collect();
    assert_eq!(lines.len(), 11, "{report}");
    assert!(lines[9].starts_with("also: task "), "{report}");
    assert_eq!(lines[10], "also: 9990 more");
}

#[tokio::test]
async fn a_timeout_names_the_stragglers() {
    let line = Exit::from(Err::<(), _>(timed_out().await)).to_string();
    assert!(
        line.contains("1 task: `orders/db` (tests/exit.rs:"),
        "{line}"
    );
}

#[test]
fn a_policy_prints_as_one_line() {
    assert_eq!(
        ExitPolicy::strict().to_string(),
        "done 0, requested 0, signal 0, failed 1, panicked 1, ended early 1, aborted 1, timed out 1, timed out \
         after a signal 1, second signal 128 + n"
    );
    assert_eq!(
        distinct()
            .signal(None)
            .second_signal(3)
            .code_from(|_| None)
            .to_string(),
        "done 10, requested 0, signal 128 + n, failed 12, panicked 13, ended early 14, aborted 15, timed out \
         16, timed out after a signal 17, second signal 3, an error's own code first"
    );
}

#[cfg(feature = "signal")]
#[test]
fn a_policy_says_that_it_dies_of_the_signal() {
    let line = ExitPolicy::lenient().reraise().to_string();
    assert!(line.contains("timed out after a signal 0,"), "{line}");
    assert!(
        line.ends_with(", dies of the signal after a clean drain"),
        "{line}"
    );
}

#[test]
fn everything_is_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Exit>();
    check::<ExitPolicy>();
}

// An error keeps its row, its chain and its type, whatever it is wrapped in.

#[derive(Debug, thiserror::Error)]
#[error("no quorum")]
struct NoQuorum;

/// Shows only the sources of what it wraps.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Transparent(#[from] TaskError<anyhow::Error>);

fn code_75() -> ExitPolicy {
    distinct().code_from(|error| error.is::<NoQuorum>().then_some(75))
}

/// The failure of a group of reports.
async fn report_of(
    task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) -> TaskError<anyhow::Error> {
    let mut group = TaskGroup::<anyhow::Error>::reports();
    group.task("db").essential().spawn(task);
    group.wait().await.unwrap_err()
}

#[tokio::test]
async fn the_rows_of_a_group_of_reports_are_those_of_any_group() {
    let fails = || report_of(async { Err(NoQuorum.into()) });
    let panics = || report_of(async { panic!("no table") });
    let ends = || report_of(async { Ok(()) });

    assert_eq!(code_75().exit(Err(fails().await)).code(), 75);
    assert_eq!(distinct().exit(Err(fails().await)).code(), 12);
    assert_eq!(distinct().exit(Err(panics().await)).code(), 13);
    assert_eq!(distinct().exit(Err(ends().await)).code(), 14);
    // As `?` converts it, in `main` or in a task of another group.
    let boxed = |error: TaskError<anyhow::Error>| Err(BoxError::from(error));
    assert_eq!(code_75().exit(boxed(fails().await)).code(), 75);
    assert_eq!(distinct().exit(boxed(panics().await)).code(), 13);
    let report = |error: TaskError<anyhow::Error>| Err(anyhow::Error::from(error));
    assert_eq!(code_75().exit(report(fails().await)).code(), 75);
    assert_eq!(distinct().exit(report(ends().await)).code(), 14);
    let inner = panics().await;
    let nested = report_of(async { Err(inner.into()) }).await;
    assert_eq!(distinct().exit(Err(nested)).code(), 13);
}

#[tokio::test]
async fn a_wrapper_does_not_hide_how_a_task_ended() {
    let ended = report_of(async { Ok(()) }).await;
    let transparent = BoxError::from(Transparent(ended));
    assert_eq!(distinct().exit(Err(transparent)).code(), 14);

    let ended = report_of(async { Ok(()) }).await;
    let io = BoxError::from(io::Error::other(ended));
    assert_eq!(distinct().exit(Err(io)).code(), 14);

    let panicked = report_of(async { panic!("no table") }).await;
    let context = anyhow::Error::from(panicked).context("in the shop");
    assert_eq!(distinct().exit(Err(context)).code(), 13);
}

#[tokio::test]
async fn an_exit_is_made_of_an_anyhow_result() {
    async fn run() -> anyhow::Result<()> {
        Err(anyhow::Error::from(NoQuorum).context("cannot start"))
    }
    let exit = Exit::from(run().await);
    assert_eq!(exit.code(), 1);
    assert_eq!(exit.to_string(), "error: cannot start: no quorum");
    assert_eq!(code_75().exit(run().await).code(), 75);
    assert_eq!(
        code_75().exit(Err(anyhow::Error::from(NoQuorum))).code(),
        75
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_and_a_cleanup_have_their_rows_alone_and_in_a_report() {
    let token = CancellationToken::new();
    token.cancel();
    let server = || async {
        let served: Result<(), SidecarError> = Sidecar::new("http")
            .grace(Duration::ZERO)
            .serve(&token, |_stop| pending::<io::Result<()>>())
            .await;
        served.unwrap_err()
    };
    assert_eq!(distinct().exit(Err(server().await)).code(), 16);
    let report = anyhow::Error::from(server().await).context("in the shop");
    assert_eq!(distinct().exit(Err(report)).code(), 16);

    let cleanup = || async {
        let mut cleanup = Cleanup::new();
        cleanup.push(hangs("hangs")).unwrap();
        let report = cleanup.run(Outcome::Clean, Duration::MAX).await;
        report.into_result().unwrap_err()
    };
    assert_eq!(distinct().exit(Err(cleanup().await)).code(), 16);
    let report = anyhow::Error::from(cleanup().await);
    assert_eq!(distinct().exit(Err(report)).code(), 16);
}

#[tokio::test]
async fn a_program_with_anyhow_has_components_and_an_exit() {
    async fn worker(ctx: Context) -> anyhow::Result<()> {
        ctx.ready();
        Err(anyhow::Error::from(NoQuorum).context("cannot vote"))
    }
    async fn run() -> anyhow::Result<()> {
        let orders = Lifecycle::new("orders").component(Component::function("worker", worker));
        Ok(orders.run().await?.into_result()?)
    }
    let exit = Exit::from(run().await);
    assert_eq!(exit.code(), 1);
    assert!(
        exit.to_string().ends_with(": cannot vote: no quorum"),
        "{exit}"
    );
    assert_eq!(code_75().exit(run().await).code(), 75);
}

#[tokio::test]
async fn a_run_that_was_not_clean_has_the_row_of_its_component() {
    let panics = Component::new("worker", async |_| panic!("no table"));
    let report = Lifecycle::new("orders").component(panics).run().await;
    let error = report.unwrap().into_result().unwrap_err();
    assert_eq!(distinct().exit(Err(anyhow::Error::from(error))).code(), 13);
}
