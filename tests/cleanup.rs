//! Steps at the end: last in first out, bounded, safe against panics.

use std::fmt;
use std::future::{pending, poll_fn};
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use taskgroup::cleanup::Cleanup;
use taskgroup::cleanup::{
    CleanupHandle, CleanupReport, Outcome, PushError, Step, StepHandle, StepReport,
};
use taskgroup::{BoxError, Cause, End, Sidecar, SidecarError, TaskGroup};
use tokio::time::{Instant, advance, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What the steps have done, in order.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// A step that notes its name.
    fn step(&self, name: &'static str) -> Step {
        let log = self.clone();
        Step::new(name, move |_| async move {
            log.note(name);
            Ok(())
        })
    }
}

/// Panics without the noise of the hook.
fn boom() {
    resume_unwind(Box::new("boom"));
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        boom();
    }
}

fn failing(name: &'static str) -> Step {
    Step::new(name, |_| async { Err("no".into()) })
}

fn hanging(name: &'static str) -> Step {
    Step::new(name, |_| pending())
}

/// Runs one step with a minute to go.
async fn run_one(step: Step) -> StepReport {
    let mut cleanup = Cleanup::new();
    cleanup.push(step).unwrap();
    let mut report = cleanup.run(Outcome::Clean, MINUTE).await;
    assert_eq!(report.steps.len(), 1);
    report.steps.remove(0)
}

/// How a step has ended, the time that was not enough, and what it said.
type How<'a> = (End, Option<Duration>, &'a str);

const DONE: How<'_> = (End::Done, None, "");

fn failed(message: &str) -> How<'_> {
    (End::Failed, None, message)
}

fn timed_out(limit: Duration) -> How<'static> {
    (End::TimedOut, Some(limit), "")
}

fn skipped(why: &str) -> How<'_> {
    (End::Skipped, None, why)
}

fn result(step: &StepReport) -> How<'_> {
    (step.end, step.limit, &step.message)
}

fn results(report: &CleanupReport) -> Vec<(&str, How<'_>)> {
    let steps = report.steps.iter();
    steps.map(|step| (&*step.name, result(step))).collect()
}

#[tokio::test(start_paused = true)]
async fn steps_run_last_in_first_out_and_one_by_one() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    for name in ["a", "b", "c"] {
        let log = log.clone();
        let step = Step::new(name, move |_| async move {
            log.note(format!("{name} begins"));
            sleep(SECOND).await;
            log.note(format!("{name} ends"));
            Ok(())
        });
        cleanup.push(step).unwrap();
    }
    let report = cleanup.run(Outcome::Clean, MINUTE).await;

    assert!(report.is_clean());
    assert_eq!(
        log.take(),
        [
            "c begins", "c ends", "b begins", "b ends", "a begins", "a ends"
        ]
    );
    let times = report.steps.iter().map(|step| (step.started, step.ended));
    let times: Vec<_> = times.collect();
    let at = |seconds| Some(seconds * SECOND);
    assert_eq!(
        times,
        [(at(0), at(1)), (at(1), at(2)), (at(2), at(3))],
        "counted from the begin of the run"
    );
    assert_eq!(report.took, 3 * SECOND);
}

#[tokio::test]
async fn critical_steps_go_first_and_low_ones_last() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    for name in [
        "critical 1",
        "low 1",
        "normal 1",
        "low 2",
        "critical 2",
        "normal 2",
    ] {
        let step = log.step(name);
        let step = match name.split(' ').next() {
            Some("critical") => step.critical(),
            Some("low") => step.low(),
            _ => step,
        };
        cleanup.push(step).unwrap();
    }
    let order = [
        "critical 2",
        "critical 1",
        "normal 2",
        "normal 1",
        "low 2",
        "low 1",
    ];
    assert_eq!(cleanup.pending(), order);
    cleanup.run(Outcome::Clean, MINUTE).await;
    assert_eq!(log.take(), order);
}

#[tokio::test(start_paused = true)]
async fn every_step_is_told_how_the_active_phase_ended() {
    let mut group = TaskGroup::new();
    group
        .task("disk")
        .spawn(async { Err::<(), _>("disk full".into()) });
    let failed = group.wait().await;
    let mut group: TaskGroup = TaskGroup::new();
    let cleanly = group.wait().await;
    assert_eq!(Outcome::from(&cleanly), Outcome::Clean);

    let mut cleanup = Cleanup::new();
    let log = Log::default();
    for name in ["a", "b"] {
        let log = log.clone();
        let step = Step::new(name, move |outcome: Outcome| async move {
            log.note(outcome.to_string());
            Ok(())
        });
        cleanup.push(step).unwrap();
    }
    let report = cleanup.run(&failed, MINUTE).await;
    let told = format!("failed: {:#}", failed.unwrap_err());
    assert_eq!(log.take(), [told.clone(), told]);
    assert!(matches!(report.outcome, Outcome::Failed(_)));
}

#[tokio::test(start_paused = true)]
async fn the_outcome_is_forced_when_something_had_to_be_cut() {
    let mut group = TaskGroup::new();
    group.spawn(pending::<Result<(), _>>());
    let aborted = group.shutdown(Duration::ZERO).await;
    assert!(matches!(Outcome::from(&aborted), Outcome::Forced(_)));

    let mut group = TaskGroup::<SidecarError>::typed();
    let token = group.token().clone();
    group.spawn(async move {
        let server = |_stop| pending::<Result<(), BoxError>>();
        Sidecar::new("http").serve(&token, server).await
    });
    group.cancel();
    let cut = group.wait().await;
    assert!(matches!(Outcome::from(&cut), Outcome::Forced(_)));

    let mut group = TaskGroup::new();
    group
        .task("first")
        .spawn(async { Err::<(), _>("no".into()) });
    group.spawn(pending::<Result<(), _>>());
    let both = group.shutdown(SECOND).await;
    assert!(matches!(
        group.cause(),
        Some(Cause::Failed(_) | Cause::Requested(_))
    ));
    assert!(matches!(Outcome::from(&both), Outcome::Forced(_)));
}

#[tokio::test]
async fn a_failure_keeps_no_other_step_from_running_and_the_first_is_named() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    cleanup.push(log.step("last")).unwrap();
    cleanup.push(failing("second")).unwrap();
    let wrapped = || std::io::Error::other(Wrapper);
    let first = Step::new("first", move |_| async move { Err(wrapped().into()) });
    cleanup.push(first).unwrap();
    let report = cleanup.run(Outcome::Clean, MINUTE).await;

    assert_eq!(log.take(), ["last"]);
    let error = report.into_result().unwrap_err();
    assert_eq!(error.step().name, "first");
    assert_eq!(
        format!("{error:#}"),
        "cleanup step `first` failed: cannot flush: disk full; cleanup step `second` failed: no"
    );
    assert_eq!(error.report().steps.len(), 3);
}

#[derive(Debug)]
struct Wrapper;

impl fmt::Display for Wrapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot flush")
    }
}

impl std::error::Error for Wrapper {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&DiskFull)
    }
}

#[derive(Debug)]
struct DiskFull;

impl fmt::Display for DiskFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("disk full")
    }
}

impl std::error::Error for DiskFull {}

#[tokio::test(start_paused = true)]
async fn a_panic_anywhere_in_a_step_ends_that_step_alone() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    cleanup.push(log.step("last")).unwrap();
    for step in [
        Step::new("function", |_| {
            boom();
            async { Ok(()) }
        }),
        Step::retrying("retried function", 3, SECOND, |_| {
            boom();
            async { Ok(()) }
        }),
        Step::new("future", |_| async { Ok(boom()) }),
        Step::new("destructor", |_| {
            let guard = PanicsInDrop;
            async move { Ok(drop(guard)) }
        }),
        Step::retrying("captured", 0, SECOND, {
            let guard = PanicsInDrop;
            move |_| {
                let _guard = &guard;
                async { Ok(()) }
            }
        }),
    ] {
        cleanup.push(step).unwrap();
    }
    let report = cleanup.run(Outcome::Clean, MINUTE).await;

    assert_eq!(log.take(), ["last"]);
    let (last, panicked) = report.steps.split_last().unwrap();
    assert_eq!(last.end, End::Done);
    assert_eq!(panicked.len(), 5);
    for step in panicked {
        let boom = (End::Panicked, None, "boom");
        assert_eq!((step.attempts, result(step)), (1, boom), "{}", step.name);
    }
    assert_eq!(report.took, Duration::ZERO, "a panic is not retried");
}

#[tokio::test(start_paused = true)]
async fn a_destructor_that_panics_in_a_cut_or_skipped_step_changes_nothing() {
    let mut cleanup = Cleanup::new();
    let guard = PanicsInDrop;
    let step = Step::new("skipped", move |_| async move { Ok(drop(guard)) });
    cleanup.push(step).unwrap();
    let guard = PanicsInDrop;
    let cut = Step::new("cut", move |_| async move {
        pending::<()>().await;
        Ok(drop(guard))
    });
    cleanup.push(cut.fatal()).unwrap();
    let report = cleanup.run(Outcome::Clean, MINUTE).await;

    assert_eq!(
        results(&report),
        [
            ("cut", timed_out(Step::DEFAULT_DEADLINE)),
            ("skipped", skipped("fatal step `cut` was not done"))
        ]
    );
}

#[tokio::test]
async fn an_error_that_panics_while_it_is_printed_is_a_failure() {
    #[derive(Debug)]
    struct Unprintable;

    impl fmt::Display for Unprintable {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            boom();
            Ok(())
        }
    }

    impl std::error::Error for Unprintable {}

    let step = run_one(Step::new("odd", |_| async { Err(Unprintable.into()) })).await;
    assert_eq!(result(&step), failed("(its message panicked: boom)"));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_overruns_is_dropped_and_named_and_the_next_one_runs() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    cleanup.push(log.step("next")).unwrap();
    let guard = DropNote(log.clone(), "hung is gone");
    let hung = Step::new("hung", move |_| async move {
        pending::<()>().await;
        Ok(drop(guard))
    });
    cleanup.push(hung.deadline(2 * SECOND)).unwrap();
    let report = cleanup.run(Outcome::Clean, MINUTE).await;

    assert_eq!(log.take(), ["hung is gone", "next"]);
    assert_eq!(report.took, 2 * SECOND);
    assert_eq!(
        report.into_result().unwrap_err().to_string(),
        "cleanup step `hung` timed out after 2s"
    );
}

struct DropNote(Log, &'static str);

impl Drop for DropNote {
    fn drop(&mut self) {
        self.0.note(self.1);
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_budget_is_spent_the_rest_is_skipped_and_named() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    cleanup.push(log.step("never")).unwrap();
    cleanup.push(hanging("clipped")).unwrap();
    cleanup.push(hanging("hung")).unwrap();
    let budget = 7 * SECOND;
    let report = cleanup.run(Outcome::Clean, budget).await;

    assert_eq!(log.take(), [""; 0]);
    assert_eq!(
        results(&report),
        [
            ("hung", timed_out(5 * SECOND)),
            ("clipped", timed_out(2 * SECOND)),
            (
                "never",
                (End::Skipped, Some(budget), "the budget of 7s was spent")
            ),
        ]
    );
    assert_eq!(report.took, budget);
    assert_eq!(
        report.steps[2].to_string(),
        "cleanup step `never` skipped: the budget of 7s was spent"
    );
}

#[tokio::test(start_paused = true)]
async fn with_a_budget_of_zero_only_the_always_run_steps_run() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    cleanup.push(log.step("plain")).unwrap();
    cleanup.push(log.step("always").always(SECOND)).unwrap();
    let report = cleanup.run(Outcome::Clean, Duration::ZERO).await;

    assert_eq!(log.take(), ["always"]);
    assert!(!report.is_clean());
}

#[tokio::test(start_paused = true)]
async fn without_a_budget_every_step_has_its_own_deadline_and_no_other() {
    let mut cleanup = Cleanup::new();
    let year = 365 * 24 * 60 * MINUTE;
    let patient = Step::new("patient", move |_| async move { Ok(sleep(year).await) });
    cleanup.push(patient.deadline(Duration::MAX)).unwrap();
    cleanup.push(hanging("hung")).unwrap();
    let report = cleanup.run(Outcome::Clean, Duration::MAX).await;

    assert_eq!(result(&report.steps[0]), timed_out(5 * SECOND));
    assert_eq!(report.steps[1].end, End::Done);
    assert!(
        report
            .to_string()
            .starts_with("cleanup took 31536005s of any time;")
    );
}

#[tokio::test(start_paused = true)]
async fn a_fatal_failure_skips_the_rest_except_what_always_runs() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    cleanup.push(log.step("rest")).unwrap();
    cleanup.push(log.step("secrets").always(SECOND)).unwrap();
    cleanup.push(failing("journal").fatal()).unwrap();
    cleanup.push(failing("before")).unwrap();
    let report = cleanup.run(Outcome::Clean, MINUTE).await;

    assert_eq!(log.take(), ["secrets"]);
    assert_eq!(
        results(&report),
        [
            ("before", failed("no")),
            ("journal", failed("no")),
            ("secrets", DONE),
            ("rest", skipped("fatal step `journal` was not done")),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_always_run_step_runs_after_panics_and_overruns_within_its_guaranteed_time() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    cleanup.push(hanging("key 2").always(SECOND)).unwrap();
    let quick = log.step("key 1").always(SECOND).deadline(SECOND / 2);
    cleanup.push(quick).unwrap();
    cleanup.push(hanging("hung")).unwrap();
    cleanup
        .push(Step::new("panics", |_| async { Ok(boom()) }))
        .unwrap();
    assert_eq!(
        cleanup.guaranteed(),
        SECOND + SECOND / 2,
        "no more than the deadline of each"
    );
    let report = cleanup.run(Outcome::Clean, 3 * SECOND).await;

    assert_eq!(log.take(), ["key 1"]);
    assert_eq!(result(&report.steps[3]), timed_out(SECOND));
    assert_eq!(report.took, 4 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_always_run_step_has_what_is_left_of_the_budget_if_that_is_more() {
    let mut cleanup = Cleanup::new();
    cleanup.push(hanging("key").always(SECOND)).unwrap();
    let report = cleanup.run(Outcome::Clean, 3 * SECOND).await;
    assert_eq!(result(&report.steps[0]), timed_out(3 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_best_effort_leaves_the_cleanup_clean_however_it_ends() {
    let mut cleanup = Cleanup::new();
    cleanup.push(failing("skipped").best_effort()).unwrap();
    cleanup.push(hanging("hung").best_effort()).unwrap();
    let panics = Step::new("panics", |_| async { Ok(boom()) });
    cleanup.push(panics.best_effort()).unwrap();
    cleanup.push(failing("fails").best_effort()).unwrap();
    let report = cleanup.run(Outcome::Clean, 2 * SECOND).await;

    assert!(report.steps.iter().all(|step| step.end != End::Done));
    assert!(report.is_clean());
    assert!(report.into_result().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_step_is_retried_with_pauses_that_double() {
    let began = Instant::now();
    let log = Log::default();
    let notes = log.clone();
    let step = Step::retrying("lease", 3, SECOND / 2, move |_| {
        notes.note(format!("{:?}", began.elapsed()));
        async { Err("busy".into()) }
    });
    let step = run_one(step).await;

    assert_eq!(log.take(), ["0ns", "500ms", "1.5s", "3.5s"]);
    assert_eq!(step.attempts, 4);
    assert_eq!(result(&step), failed("busy"));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_could_not_begin_in_time_is_not_waited_for() {
    let step = Step::retrying("lease", 9, SECOND, |_| async { Err("busy".into()) });
    let step = run_one(step.deadline(3 * SECOND)).await;
    assert_eq!((step.attempts, step.ended), (2, Some(SECOND)));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_overruns_is_not_retried() {
    let step = Step::retrying("lease", 9, Duration::ZERO, |_| pending());
    let step = run_one(step.deadline(SECOND)).await;
    assert_eq!((step.attempts, step.ended), (1, Some(SECOND)));
    assert_eq!(result(&step), timed_out(SECOND));
}

#[tokio::test(start_paused = true)]
async fn all_attempts_share_the_deadline_of_the_step() {
    let step = Step::retrying("lease", u32::MAX, Duration::ZERO, |_| async {
        sleep(SECOND * 2).await;
        Err("busy".into())
    });
    let step = run_one(step.deadline(5 * SECOND)).await;
    assert_eq!((step.attempts, step.ended), (3, Some(5 * SECOND)));
    assert_eq!(result(&step), timed_out(5 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_target_on_which_two_steps_in_a_row_have_failed_is_given_up() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    let steps = [
        log.step("other").target("vault"),
        log.step("always").target("consul").always(SECOND),
        log.step("too late").target("consul"),
        hanging("4").target("consul").best_effort(),
        failing("3").target("consul"),
        log.step("2").target("consul"),
        failing("1").target("consul"),
    ];
    for step in steps {
        cleanup.push(step).unwrap();
    }
    let report = cleanup.run(Outcome::Clean, MINUTE).await;

    assert_eq!(log.take(), ["2", "always", "other"], "a success forgives");
    let given_up = skipped("target `consul` was given up");
    assert_eq!(result(&report.steps[4]), given_up);
}

#[tokio::test]
async fn a_push_after_the_run_has_begun_is_refused_and_gives_the_step_back() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    let handle = cleanup.handle();
    let late = log.step("late");
    let refused = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&refused);
    let pushes = Step::new("pushes", move |_| async move {
        *kept.lock().unwrap() = handle.push(late).err();
        Ok(())
    });
    cleanup.push(pushes).unwrap();
    assert!(cleanup.run(Outcome::Clean, MINUTE).await.is_clean());

    let error = refused.lock().unwrap().take().unwrap();
    assert!(error.is_closed());
    assert_eq!(
        error.to_string(),
        "cleanup step `late` came when the cleanup was closed"
    );
    let mut other = Cleanup::new();
    other.push(error.into_step()).unwrap();
    other.run(Outcome::Clean, MINUTE).await;
    assert_eq!(log.take(), ["late"]);
}

#[tokio::test]
async fn steps_are_pushed_from_tasks_while_the_service_runs() {
    let mut cleanup = Cleanup::new();
    let mut group = TaskGroup::new();
    let log = Log::default();
    for _ in 0..10 {
        let (handle, step) = (cleanup.handle(), log.step("connection"));
        group.spawn(async move { Ok(drop(handle.push(step)?)) });
    }
    let result = group.wait().await;
    let report = cleanup.run(&result, MINUTE).await;

    assert!(report.is_clean());
    assert_eq!(log.take(), ["connection"; 10], "names may repeat");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_push_that_races_with_the_begin_of_the_run_is_run_or_refused() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (handle, log) = (cleanup.handle(), log.clone());
            let push = move || handle.push(log.step("connection")).is_err();
            std::thread::spawn(move || (0..500).filter(|_| push()).count())
        })
        .collect();
    let report = cleanup.run(Outcome::Clean, MINUTE).await;
    let refused = threads.into_iter().map(|thread| thread.join().unwrap());
    let refused: usize = refused.sum();

    assert_eq!(log.take().len(), report.steps.len());
    assert_eq!(report.steps.len() + refused, 4 * 500);
}

#[test]
fn a_step_that_makes_no_sense_is_refused_by_name() {
    let cleanup = Cleanup::new();
    let refused = |step: Step| {
        let error = cleanup.push(step).unwrap_err();
        assert!(!error.is_closed());
        error.to_string()
    };
    let step = || failing("db");
    assert_eq!(
        refused(step().deadline(Duration::ZERO)),
        "cleanup step `db` has a deadline of 0s: it could never run"
    );
    assert_eq!(
        refused(step().always(Duration::ZERO)),
        "cleanup step `db` always runs and has a guaranteed time of 0s"
    );
    assert_eq!(
        refused(step().fatal().best_effort()),
        "cleanup step `db` is both a best effort and fatal"
    );
    assert_eq!(refused(failing("")), "a cleanup step has an empty name");
    assert!(cleanup.pending().is_empty());
}

#[tokio::test]
async fn a_step_that_is_withdrawn_never_runs_and_stands_in_no_report() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    let inner = cleanup.push(log.step("withdrawn in the run")).unwrap();
    let begun = cleanup.push(log.step("begun")).unwrap();
    let before = cleanup.push(log.step("withdrawn before")).unwrap();
    let notes = log.clone();
    let withdraws = Step::new("withdraws", move |_| async move {
        let step = inner.withdraw().ok_or("too late")?;
        Ok(notes.note(format!("took back: {}", step.name())))
    });
    cleanup.push(withdraws).unwrap();
    assert_eq!(before.withdraw().unwrap().name(), "withdrawn before");
    let report = cleanup.run(Outcome::Clean, MINUTE).await;

    assert_eq!(log.take(), ["took back: withdrawn in the run", "begun"]);
    assert_eq!(report.steps.len(), 2);
    assert!(begun.withdraw().is_none(), "too late");
    assert!(before.withdraw().is_none(), "the second time");
}

#[tokio::test(start_paused = true)]
async fn a_second_run_runs_nothing_and_returns_the_same_report() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    cleanup.push(log.step("once")).unwrap();
    cleanup.push(hanging("hung")).unwrap();
    let first = cleanup.run(Outcome::Clean, MINUTE).await;
    sleep(SECOND).await;
    let second = cleanup
        .run(Outcome::Failed("later".into()), Duration::ZERO)
        .await;

    assert_eq!(format!("{first:?}"), format!("{second:?}"));
    assert_eq!(log.take(), ["once"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_dropped_midway_goes_on_where_it_was() {
    let mut cleanup = Cleanup::new();
    let log = Log::default();
    cleanup.push(log.step("last")).unwrap();
    let notes = log.clone();
    let slow = Step::retrying("slow", 1, 2 * SECOND, move |_| {
        let notes = notes.clone();
        notes.note("slow begins");
        async move {
            sleep(2 * SECOND).await;
            notes.note("slow ends");
            Err("no".into())
        }
    });
    cleanup.push(slow.deadline(MINUTE)).unwrap();
    let limit = SECOND + SECOND * 3 / 5;
    while timeout(limit, cleanup.run(Outcome::Clean, MINUTE))
        .await
        .is_err()
    {
        log.note("dropped");
    }

    let (begins, ends, dropped) = ("slow begins", "slow ends", "dropped");
    assert_eq!(
        log.take(),
        [
            begins, dropped, ends, dropped, begins, dropped, ends, "last"
        ]
    );
    let report = cleanup.run(Outcome::Clean, MINUTE).await;
    assert_eq!(report.steps[0].attempts, 2);
    assert_eq!(report.took, 6 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_clock_runs_on_while_a_run_is_dropped() {
    let mut cleanup = Cleanup::new();
    cleanup.push(failing("never")).unwrap();
    cleanup.push(hanging("hung")).unwrap();
    let run = cleanup.run(Outcome::Clean, 5 * SECOND);
    timeout(SECOND, run).await.unwrap_err();
    sleep(MINUTE).await;
    let report = cleanup.run(Outcome::Clean, MINUTE).await;

    assert_eq!(result(&report.steps[0]), timed_out(5 * SECOND));
    assert_eq!(report.steps[0].ended, Some(5 * SECOND));
    let spent = (End::Skipped, Some(5 * SECOND), "the budget of 5s was spent");
    assert_eq!(result(&report.steps[1]), spent);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_blocks_the_only_thread_is_waited_for_and_costs_the_others_their_time() {
    let mut cleanup = Cleanup::new();
    cleanup.push(failing("never")).unwrap();
    cleanup
        .push(Step::new("blocks", |_| block(MINUTE)))
        .unwrap();
    let report = cleanup.run(Outcome::Clean, 8 * SECOND).await;

    assert_eq!(report.steps[0].end, End::Done);
    assert_eq!(report.took, MINUTE);
    let spent = (End::Skipped, Some(8 * SECOND), "the budget of 8s was spent");
    assert_eq!(result(&report.steps[1]), spent);
}

#[tokio::test]
async fn a_blocking_step_is_run_and_told_and_may_fail_or_panic() {
    let mut cleanup = Cleanup::new();
    let here = std::thread::current().id();
    let told = Step::blocking("told", move |outcome| {
        assert_eq!(outcome, Outcome::Clean);
        assert_ne!(std::thread::current().id(), here);
        Ok(())
    });
    cleanup.push(told).unwrap();
    let fails = Step::blocking("fails", |_| Err("no".into()));
    cleanup.push(fails).unwrap();
    let panics = Step::blocking("panics", |_| Ok(boom()));
    cleanup.push(panics).unwrap();
    let report = cleanup.run(Outcome::Clean, MINUTE).await;

    assert_eq!(
        results(&report),
        [
            ("panics", (End::Panicked, None, "boom")),
            ("fails", failed("no")),
            ("told", DONE),
        ]
    );
}

/// Lets time pass within one poll.
async fn block(time: Duration) -> Result<(), BoxError> {
    poll_fn(|cx| {
        let _yields = pin!(advance(time)).poll(cx);
        Poll::Ready(Ok(()))
    })
    .await
}

#[test]
fn dropping_a_cleanup_drops_its_steps_and_runs_none() {
    let log = Log::default();
    let cleanup = Cleanup::new();
    for (name, gone) in [("first", "first is gone"), ("second", "second is gone")] {
        let (notes, guard) = (log.clone(), DropNote(log.clone(), gone));
        let step = Step::new(name, move |_| async move {
            notes.note("ran");
            Ok(drop(guard))
        });
        cleanup.push(step).unwrap();
    }
    let guard = PanicsInDrop;
    let odd = Step::new("odd", move |_| async move { Ok(drop(guard)) });
    let odd = cleanup.push(odd).unwrap();
    let handle = cleanup.handle();
    drop(cleanup);

    assert_eq!(log.take(), ["second is gone", "first is gone"]);
    assert!(odd.withdraw().is_none());
    assert!(handle.push(failing("late")).unwrap_err().is_closed());
}

#[tokio::test(start_paused = true)]
async fn dropping_a_cleanup_in_the_middle_of_a_step_aborts_that_step() {
    let log = Log::default();
    let mut cleanup = Cleanup::new();
    cleanup.push(log.step("never")).unwrap();
    let guard = DropNote(log.clone(), "hung is gone");
    let hung = Step::new("hung", move |_| async move {
        pending::<()>().await;
        Ok(drop(guard))
    });
    cleanup.push(hung).unwrap();
    let run = cleanup.run(Outcome::Clean, MINUTE);
    timeout(SECOND, run).await.unwrap_err();
    assert_eq!(log.take(), [""; 0]);
    drop(cleanup);
    // The clock goes on when the runtime has nothing left to do.
    sleep(SECOND).await;
    assert_eq!(log.take(), ["hung is gone"]);
}

#[tokio::test(start_paused = true)]
async fn a_report_prints_as_a_table() {
    let mut cleanup = Cleanup::new();
    let lease = Step::retrying("lease", 1, SECOND, |_| async {
        Err("busy:\ntry later".into())
    });
    cleanup.push(lease.low()).unwrap();
    cleanup.push(failing("journal").fatal()).unwrap();
    cleanup
        .push(Step::new("Büro", |_| async { Ok(()) }))
        .unwrap();
    let flush = Step::retrying("flush", 1, SECOND, |_| async {
        Err("busy:\ntry later".into())
    });
    cleanup.push(flush.critical()).unwrap();
    let outcome = Outcome::Failed("no\nquorum".into());
    let report = cleanup.run(outcome, MINUTE).await;

    assert_eq!(
        report.to_string(),
        "\
cleanup took 1s of 60s; the active phase was failed: no quorum
  step     priority  began  took  result
  flush    critical  0s     1s    failed: busy: try later (2 attempts)
  Büro     normal    1s     0s    done
  journal  normal    1s     0s    failed: no
  lease    low       -      -     skipped: fatal step `journal` was not done"
    );
}

#[tokio::test]
async fn a_cleanup_without_steps_is_clean_and_one_line() {
    let report = Cleanup::new().run(Outcome::Clean, SECOND).await;
    assert!(report.is_clean());
    let line = report.to_string();
    assert!(
        line.ends_with("of 1s; the active phase was clean"),
        "{line}"
    );
}

#[test]
fn everything_can_be_sent_and_shared() {
    fn shared<T: Send + Sync + fmt::Debug>() {}
    shared::<Cleanup>();
    shared::<CleanupHandle>();
    shared::<CleanupReport>();
    shared::<Outcome>();
    shared::<PushError>();
    shared::<Step>();
    shared::<StepHandle>();

    fn sent(_: impl Send) {}
    let result: Result<(), taskgroup::TaskError<std::io::Error>> = Ok(());
    sent(Cleanup::new().run(&result, SECOND));
}

/// A random step: its options, and what each attempt does.
#[derive(Clone, Debug)]
struct Spec {
    priority: Priority,
    deadline: u64,
    retries: u32,
    backoff: u64,
    kind: Kind,
    always: Option<u64>,
    target: Option<usize>,
    /// The last one is for all attempts that come after it.
    attempts: Vec<Act>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Priority {
    Critical,
    Normal,
    Low,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    BestEffort,
    Fatal,
}

/// What an attempt does, after this many milliseconds.
#[derive(Clone, Copy, Debug)]
enum Act {
    Ends(u64),
    Fails(u64),
    Panics(u64),
    Hangs,
}

const TARGETS: [&str; 2] = ["consul", "vault"];

fn spec() -> impl Strategy<Value = Spec> {
    let act = prop_oneof![
        (0..30_u64).prop_map(Act::Ends),
        (0..30_u64).prop_map(Act::Fails),
        (0..30_u64).prop_map(Act::Panics),
        Just(Act::Hangs),
    ];
    let priority = prop_oneof![
        Just(Priority::Critical),
        Just(Priority::Normal),
        Just(Priority::Low)
    ];
    let kind = prop_oneof![
        6 => Just(Kind::Plain),
        3 => Just(Kind::BestEffort),
        1 => Just(Kind::Fatal),
    ];
    let always = prop_oneof![4 => Just(None), 1 => (1..20_u64).prop_map(Some)];
    let target = prop_oneof![Just(None), (0..TARGETS.len()).prop_map(Some)];
    let attempts = vec(act, 1..4);
    let options = (priority, 1..60_u64, 0..4_u32, 0..20_u64);
    (options, kind, always, target, attempts).prop_map(
        |((priority, deadline, retries, backoff), kind, always, target, attempts)| Spec {
            priority,
            deadline,
            retries,
            backoff,
            kind,
            always,
            target,
            attempts,
        },
    )
}

/// Counts what is alive of the steps: functions that were not dropped, and attempts under way.
#[derive(Clone, Debug, Default)]
struct Alive {
    functions: Arc<AtomicUsize>,
    attempts: Arc<AtomicUsize>,
    begun: Arc<Mutex<Vec<usize>>>,
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

impl Spec {
    fn step(&self, index: usize, alive: &Alive) -> Step {
        let function = Counted::new(&alive.functions);
        let (alive, acts) = (alive.clone(), self.attempts.clone());
        let mut count = 0;
        let attempt = move |_| {
            let _captured = &function;
            let act = acts[count.min(acts.len() - 1)];
            count += 1;
            alive.begun.lock().unwrap().push(index);
            let guard = Counted::new(&alive.attempts);
            let under_way = alive.attempts.load(Ordering::SeqCst);
            async move {
                let _guard = guard;
                assert_eq!(under_way, 1, "one by one");
                match act {
                    Act::Ends(after) => sleep(ms(after)).await,
                    Act::Fails(after) => {
                        sleep(ms(after)).await;
                        return Err("no".into());
                    }
                    Act::Panics(after) => {
                        sleep(ms(after)).await;
                        boom();
                    }
                    Act::Hangs => pending().await,
                }
                Ok(())
            }
        };
        let step = match self.retries {
            // The other constructor has its turn as well.
            0 => Step::new(index.to_string(), attempt),
            retries => Step::retrying(index.to_string(), retries, ms(self.backoff), attempt),
        };
        let step = match self.priority {
            Priority::Critical => step.critical(),
            Priority::Normal => step,
            Priority::Low => step.low(),
        };
        let step = step.deadline(ms(self.deadline));
        let step = match self.kind {
            Kind::Plain => step,
            Kind::BestEffort => step.best_effort(),
            Kind::Fatal => step.fatal(),
        };
        let step = match self.always {
            Some(guaranteed) => step.always(ms(guaranteed)),
            None => step,
        };
        match self.target {
            Some(target) => step.target(TARGETS[target]),
            None => step,
        }
    }
}

/// Runs the steps, and drops the run's future every `interval` milliseconds.
fn run(specs: &[Spec], budget: Duration, interval: u64, alive: &Alive) -> CleanupReport {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut cleanup = Cleanup::new();
        for (index, spec) in specs.iter().enumerate() {
            cleanup.push(spec.step(index, alive)).unwrap();
        }
        let began = Instant::now();
        for _ in 0..1000 {
            let run = cleanup.run(Outcome::Clean, budget);
            if let Ok(report) = timeout(ms(interval), run).await {
                assert_eq!(report.took, began.elapsed());
                return report;
            }
        }
        panic!("it does not end");
    })
}

fn check(specs: &[Spec], budget: Duration, report: &CleanupReport, alive: &Alive) {
    let spec = |step: &StepReport| &specs[step.name.parse::<usize>().unwrap()];
    let mut order: Vec<_> = (0..specs.len()).rev().collect();
    order.sort_by_key(|index| specs[*index].priority);
    let turns: Vec<usize> = report
        .steps
        .iter()
        .map(|s| s.name.parse().unwrap())
        .collect();
    assert_eq!(turns, order, "each once, in the right order");

    let attempts = report.steps.iter().flat_map(|step| {
        let index: usize = step.name.parse().unwrap();
        std::iter::repeat_n(index, step.attempts as usize)
    });
    let attempts: Vec<_> = attempts.collect();
    assert_eq!(*alive.begun.lock().unwrap(), attempts, "nothing else ran");

    let mut clock = Duration::ZERO;
    let mut fatal = None;
    let mut failures = [0; TARGETS.len()];
    for step in &report.steps {
        let Spec {
            always,
            target,
            kind,
            retries,
            deadline,
            ..
        } = spec(step);
        let failed = step.end.is_failure();
        assert_eq!(step.best_effort, *kind == Kind::BestEffort);
        match step.end {
            End::Skipped => {
                assert!(always.is_none(), "it always runs");
                assert_eq!((step.attempts, step.started, step.ended), (0, None, None));
                let why = &*step.message;
                if let Some(limit) = step.limit {
                    assert!(limit == budget && clock >= budget && why.contains("budget"));
                } else if why.starts_with("fatal") {
                    assert!(why.contains(&format!("`{}`", fatal.as_ref().unwrap())));
                } else {
                    let target = target.expect(why);
                    assert!(why.contains(&format!("target `{}`", TARGETS[target])));
                    assert!(failures[target] >= 2);
                }
            }
            _ => {
                assert!((1..=1 + retries).contains(&step.attempts));
                assert_eq!(step.started, Some(clock), "right after the one before");
                let allowed = budget
                    .saturating_sub(clock)
                    .max(ms(always.unwrap_or(0)))
                    .min(ms(*deadline));
                let took = step.ended.unwrap() - clock;
                assert!(took <= allowed, "{step} took {took:?} of {allowed:?}");
                assert_eq!(step.limit.is_some(), step.end == End::TimedOut);
                if let Some(limit) = step.limit {
                    assert_eq!((limit, took), (allowed, allowed));
                }
                assert!(always.is_some() || fatal.is_none() && clock < budget);
                let given_up = target.is_some_and(|target| failures[target] >= 2);
                assert!(always.is_some() || !given_up);
                clock += took;
            }
        }
        if let Some(target) = *target {
            failures[target] = match step.end {
                End::Done => 0,
                _ => failures[target] + usize::from(failed),
            };
        }
        if *kind == Kind::Fatal && step.end != End::Done {
            fatal.get_or_insert(step.name.clone());
        }
    }

    let guaranteed: u64 = specs.iter().filter_map(|spec| spec.always).sum();
    assert_eq!(report.took, clock);
    assert!(report.took <= budget + ms(guaranteed));
    let clean = report
        .steps
        .iter()
        .all(|step| step.end == End::Done || spec(step).kind == Kind::BestEffort);
    assert_eq!(report.is_clean(), clean);
    assert_eq!(alive.functions.load(Ordering::SeqCst), 0);
    assert_eq!(alive.attempts.load(Ordering::SeqCst), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_steps_run_in_order_within_their_time_and_nothing_is_left(
        specs in vec(spec(), 0..12),
        budget in 0..300_u64,
        interval in prop_oneof![Just(1_000_000), 1..50_u64],
    ) {
        let alive = Alive::default();
        let report = run(&specs, ms(budget), interval, &alive);
        check(&specs, ms(budget), &report, &alive);
    }
}
