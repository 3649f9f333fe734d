//! The exact text of reports.

use std::time::Duration;

use super::*;
#[cfg(feature = "serde")]
use crate::BoxError;
use crate::cleanup::Cleanup;
use crate::cleanup::Outcome;
use crate::cleanup::Step;
use crate::group::TaskGroup;
#[cfg(feature = "serde")]
use crate::group::cause::LostHeartbeat;
use crate::group::signal::Signal;
use crate::lifecycle::component_state::ComponentState;
use crate::lifecycle::step_kind::StepKind;

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

fn step(kind: StepKind, subject: &str, (began, ended): (u64, u64), end: End) -> TimelineStep {
    TimelineStep::new(kind, subject, (ms(began), ms(ended)), end)
}

/// A report of a stop after a signal, `began` to `ended`, with two components.
fn report(began: u64, ended: u64) -> Report {
    Report {
        name: "orders".into(),
        cause: Cause::Signal(Signal::Terminate),
        errors: Vec::new(),
        timeline: vec![
            step(StepKind::Start, "db", (0, 100), End::Done),
            step(StepKind::Start, "http", (100, 120), End::Done),
        ],
        components: vec![
            ComponentStatus::new("db", ComponentState::Ended(End::Done)),
            ComponentStatus::new("http", ComponentState::Ended(End::Done)),
        ],
        stragglers: Vec::new(),
        in_flight: 0,
        stop_began: ms(began),
        ended: ms(ended),
        budget: ms(28_000),
        cleanup: None,
        nested: Vec::new(),
    }
}

fn clean() -> Report {
    let mut report = report(60_000, 67_500);
    report.in_flight = 3;
    report.timeline.extend([
        step(StepKind::LameDuck, "orders", (60_000, 65_000), End::Done),
        step(StepKind::Stop, "http", (65_000, 67_000), End::Done),
        step(StepKind::Stop, "db", (67_000, 67_010), End::Done),
        step(StepKind::Cleanup, "log", (67_010, 67_500), End::Done),
    ]);
    report
}

fn forced() -> Report {
    let mut report = report(60_000, 72_010);
    let limit = ms(2000);
    let error = ComponentError::new("http", Some(StepKind::Stop), End::TimedOut);
    report.errors = vec![error.within(Some(limit))];
    report.components[1].state = ComponentState::Ended(End::TimedOut);
    let skipped = step(StepKind::LameDuck, "", (60_000, 60_000), End::Skipped);
    report.timeline.extend([
        skipped.saying(None, "nothing serves"),
        step(StepKind::Stop, "http", (60_000, 62_000), End::TimedOut).saying(Some(limit), ""),
        step(StepKind::Stop, "db", (62_000, 72_010), End::Done),
    ]);
    report.stragglers = vec![
        Straggler {
            component: "http".into(),
            task: Some("orders/http/conn".into()),
            count: 1,
            place: "src/main.rs:42".into(),
            age: Some(ms(9100)),
            blocking: false,
            still_running: false,
        },
        Straggler {
            component: "http".into(),
            task: None,
            count: 2,
            place: "src/worker.rs:12".into(),
            age: None,
            blocking: true,
            still_running: true,
        },
    ];
    report
}

fn start_failed() -> Report {
    let mut report = report(90, 100);
    report.cause = Cause::Requested(crate::group::StopRequest::default());
    report.components = vec![
        ComponentStatus::new("db", ComponentState::Ended(End::Done)),
        ComponentStatus::new("http", ComponentState::Ended(End::Failed)),
        ComponentStatus {
            message: "the stop began".into(),
            ..ComponentStatus::new("worker", ComponentState::Ended(End::Skipped))
        },
    ];
    report.errors = vec![
        ComponentError::new("http", Some(StepKind::Start), End::Failed)
            .with_message("address in use"),
        ComponentError::new("db", Some(StepKind::Stop), End::Failed).with_message("disk\nfull"),
    ];
    report.timeline = vec![
        step(StepKind::Start, "db", (0, 50), End::Done),
        step(StepKind::Start, "http", (50, 90), End::Failed).saying(None, "address in use"),
        step(StepKind::Stop, "db", (90, 100), End::Failed).saying(None, "disk\nfull"),
    ];
    report
}

/// A cleanup with a step that failed, one that was done, and a best effort that hung.
async fn cleanup() -> CleanupReport {
    let mut cleanup = Cleanup::new();
    let failing = |_| async { Err("disk full".into()) };
    cleanup.push(Step::new("database", failing)).unwrap();
    let hanging = Step::new("cache", |_| std::future::pending()).deadline(ms(500));
    cleanup.push(hanging.best_effort()).unwrap();
    cleanup
        .push(Step::new("log", |_| async { Ok(()) }))
        .unwrap();
    cleanup.run(Outcome::Clean, ms(20_000)).await
}

/// Checks what holds for every text, and returns it after a line break.
#[track_caller]
fn text(report: &Report) -> String {
    let text = report.to_string();
    assert!(text.lines().all(|line| line == line.trim_end()));
    assert!(!text.ends_with('\n'));
    assert_eq!(text, report.clone().to_string());
    format!("\n{text}")
}

#[test]
fn a_clean_stop_is_a_verdict_and_its_rows() {
    let report = clean();

    assert!(report.is_clean());
    assert!(!report.was_forced());
    assert!(report.first_error().is_none());
    assert_eq!(report.took(), ms(7500));
    assert_eq!(
        text(&report),
        "
orders: clean, stopped in 7.5s of 28s: received SIGTERM; 3 in flight
  started 2 components in 120ms
    0.000s  lame duck        |##############......|  5.000s  done
    5.000s  stop       http  |.............######.|  2.000s  done
    7.000s  stop       db    |..................#.|  0.010s  done
    7.010s  cleanup    log   |..................##|  0.490s  done"
    );
}

#[test]
fn a_forced_stop_names_the_tasks_that_were_forced() {
    let report = forced();

    assert!(!report.is_clean());
    assert!(report.was_forced());
    assert_eq!(report.first_error().unwrap().component, "http");
    assert_eq!(
        text(&report),
        "
orders: FORCED, stopped in 12.01s of 28s: received SIGTERM
  started 2 components in 120ms
    0.000s  lame duck        |#...................|   0.000s  skipped: nothing serves
  ! 0.000s  stop       http  |####................|   2.000s  timed out after 2s
    2.000s  stop       db    |...#################|  10.010s  done
error: component `http` did not stop within 2s and was forced
forced: component `http`: task `orders/http/conn` (src/main.rs:42) for 9.1s
forced: component `http`: 2 tasks (src/worker.rs:12), blocking, still running"
    );
}

#[test]
fn a_failed_start_shows_the_start_too() {
    let report = start_failed();

    assert!(!report.was_forced());
    assert_eq!(
        text(&report),
        "
orders: FAILED to start, stopped in 10ms of 28s: cancelled on request
  never started: worker (the stop began)
    -0.090s  start  db    |##########..........|  0.050s  done
  ! -0.040s  start  http  |..........########..|  0.040s  failed: address in use
  !  0.000s  stop   db    |..................##|  0.010s  failed: disk full
error: component `http` did not start: address in use
also: component `db` failed while it stopped: disk full"
    );
}

#[test]
fn a_start_cut_short_by_a_signal_names_the_components_that_never_started() {
    let mut report = report(40, 50);
    report.timeline.truncate(1);
    report.timeline[0] =
        step(StepKind::Start, "db", (0, 45), End::Skipped).saying(None, "the stop began");
    report.components = (0..20)
        .map(|n| ComponentStatus::new(format!("c{n}"), ComponentState::Ended(End::Skipped)))
        .collect();

    assert_eq!(
        text(&report),
        "
orders: clean, stopped in 10ms of 28s: received SIGTERM
  never started: c0, c1, c2, c3, c4, c5, c6, c7 and 12 more
    -0.040s  start  db  |##################..|  0.045s  skipped: the stop began"
    );
}

#[test]
fn fifty_components_are_fifty_rows_of_one_width() {
    let mut report = report(10_000, 15_000);
    report.timeline.clear();
    for n in 0..50 {
        let name = format!("component-{n}-of-the-market-service");
        let began = 10_000 + n / 5 * 500;
        let times = (began, began + 20 * n);
        let failed = "no connection to the server with is to take it";
        report.timeline.push(match n {
            7 => step(StepKind::Stop, &name, times, End::Failed).saying(None, failed),
            _ => step(StepKind::Stop, &name, times, End::Done),
        });
    }
    let text = text(&report);
    let rows: Vec<_> = text.lines().skip(2).collect();

    assert_eq!(rows.len(), 50);
    assert!(rows.iter().all(|row| row.chars().count() <= 120), "{text}");
    let bar = |row: &&str| row.find('|').map(|at| row[..at].chars().count());
    assert!(rows.iter().all(|row| bar(row) == bar(&rows[0])));
    assert_eq!(rows[..8].join("\n"), "    0.000s  stop  component-0-of-the-mark…  |#...................|  0.000s  done
    0.000s  stop  component-1-of-the-mark…  |#...................|  0.020s  done
    0.000s  stop  component-2-of-the-mark…  |#...................|  0.040s  done
    0.000s  stop  component-3-of-the-mark…  |#...................|  0.060s  done
    0.000s  stop  component-4-of-the-mark…  |#...................|  0.080s  done
    0.500s  stop  component-5-of-the-mark…  |..#.................|  0.100s  done
    0.500s  stop  component-6-of-the-mark…  |..#.................|  0.120s  done
  ! 0.500s  stop  component-7-of-the-mark…  |..#.................|  0.140s  failed: no connection to the server wit…");
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_that_was_not_clean_is_an_error() {
    let mut report = report(1000, 2000);
    report.cleanup = Some(cleanup().await);

    assert!(!report.is_clean());
    assert!(!report.was_forced(), "a best effort counts for nothing");
    assert!(report.first_error().is_none());
    assert_eq!(
        text(&report),
        "
orders: FAILED, stopped in 1s of 28s: received SIGTERM
  started 2 components in 120ms
error: cleanup step `database` failed: disk full
best effort: cleanup step `cache` timed out after 500ms"
    );
}

#[test]
fn nested_reports_are_indented_and_count() {
    let mut inner = forced();
    inner.name = "shop/orders".into();
    inner.stragglers.clear();
    let mut outer = clean();
    outer.name = "shop".into();
    for step in &mut outer.timeline {
        // The subject of a step of the lifecycle itself may be the lifecycle's name, which the row does not
        // show.
        step.subject = step.subject.replace("orders", "shop");
    }
    outer.nested = vec![inner, clean()];

    assert!(outer.was_forced());
    assert!(!outer.is_clean());
    assert_eq!(
        text(&outer),
        "
shop: FORCED, stopped in 7.5s of 28s: received SIGTERM; 3 in flight
  started 2 components in 120ms
    0.000s  lame duck        |##############......|  5.000s  done
    5.000s  stop       http  |.............######.|  2.000s  done
    7.000s  stop       db    |..................#.|  0.010s  done
    7.010s  cleanup    log   |..................##|  0.490s  done
  shop/orders: FORCED, stopped in 12.01s of 28s: received SIGTERM
    started 2 components in 120ms
      0.000s  lame duck        |#...................|   0.000s  skipped: nothing serves
    ! 0.000s  stop       http  |####................|   2.000s  timed out after 2s
      2.000s  stop       db    |...#################|  10.010s  done
  error: component `http` did not stop within 2s and was forced
  orders: clean, stopped in 7.5s of 28s: received SIGTERM; 3 in flight
    started 2 components in 120ms
      0.000s  lame duck        |##############......|  5.000s  done
      5.000s  stop       http  |.............######.|  2.000s  done
      7.000s  stop       db    |..................#.|  0.010s  done
      7.010s  cleanup    log   |..................##|  0.490s  done"
    );
}

#[test]
fn a_lifecycle_without_steps_is_one_line() {
    let mut report = report(0, 0);
    report.timeline.clear();
    report.components.clear();
    report.budget = Duration::MAX;

    assert_eq!(
        text(&report),
        "\norders: clean, stopped in 0s of any time: received SIGTERM"
    );
}

#[test]
fn a_forced_component_without_an_error_is_not_clean() {
    let mut report = clean();
    report.components[0].state = ComponentState::Ended(End::TimedOut);

    assert!(report.was_forced());
    assert!(!report.is_clean());
}

#[test]
fn a_step_never_ends_before_it_begins() {
    let step = step(StepKind::Stop, "db", (20, 10), End::Done);

    assert_eq!((step.ended, step.took()), (ms(20), Duration::ZERO));
}

#[test]
fn at_most_twenty_forced_tasks_are_named() {
    let mut report = forced();
    let task = report.stragglers.remove(0);
    report.stragglers = vec![task; 25];
    let text = text(&report);
    let lines: Vec<_> = text.lines().filter(|l| l.starts_with("forced:")).collect();

    assert_eq!(lines.len(), 21);
    assert_eq!(lines.last(), Some(&"forced: 5 more"));
}

#[tokio::test(start_paused = true)]
async fn a_straggler_is_what_was_running() {
    let group: TaskGroup = TaskGroup::builder().name("orders").build().unwrap();
    group
        .task("http")
        .spawn(std::future::pending::<Result<(), BoxError>>());
    tokio::time::advance(ms(1500)).await;
    let running = group.running();
    let task = running.iter().next().unwrap();
    let straggler = Straggler::new("http", task, true);

    let line = task.place().line();
    assert_eq!(straggler.place, format!("{}:{line}", file!()));
    assert_eq!(
        straggler.to_string(),
        format!(
            "component `http`: task `orders/http` ({}:{line}) for 1.5s, still running",
            file!()
        )
    );
}

/// A report with every word of the format.
#[cfg(feature = "serde")]
async fn everything() -> Report {
    let mut group = TaskGroup::new();
    let job = group.task("orders/http");
    job.spawn(async { Err::<(), BoxError>("no port".into()) });
    drop(group.wait().await);

    let ends = [
        End::Done,
        End::Failed,
        End::Panicked,
        End::EndedEarly,
        End::Aborted,
        End::TimedOut,
        End::StillRunning,
        End::Skipped,
    ];
    let kinds = [
        StepKind::Start,
        StepKind::Jitter,
        StepKind::LameDuck,
        StepKind::Drain,
        StepKind::Stop,
        StepKind::Cleanup,
    ];
    let states = [
        ComponentState::Created,
        ComponentState::Starting,
        ComponentState::Running,
        ComponentState::Draining,
    ];
    let causes = [
        group.cause().unwrap(),
        Cause::Requested(crate::group::StopRequest::new("a deployment")),
        Cause::Done,
        Cause::Signal(Signal::Terminate),
        Cause::Deadline(ms(1500)),
        Cause::File {
            path: "/run/stop".into(),
            at_start: true,
        },
        Cause::Heartbeat(LostHeartbeat::new("lease".into(), Some(ms(1500)))),
        Cause::Reload,
        Cause::Dropped,
        Cause::Token,
    ];
    let outcomes = [
        Outcome::Clean,
        Outcome::Stopped(Cause::Reload),
        Outcome::Failed("no port".into()),
        Outcome::Forced("`http` was cut".into()),
    ];
    let step_of = |(kind, end)| step(kind, "http", (60_000, 61_500), end);
    let stopped = ends.map(|end| (StepKind::Stop, end));

    let mut report = forced();
    report.in_flight = 3;
    report.budget = Duration::MAX;
    let done = kinds.map(|kind| (kind, End::Done));
    report.timeline = done.into_iter().chain(stopped).map(step_of).collect();
    report.timeline[11] = step_of((StepKind::Stop, End::TimedOut)).saying(Some(ms(2000)), "slow");
    let states = states
        .into_iter()
        .chain(ends.map(ComponentState::Ended))
        .map(|state| ComponentStatus::new("http", state));
    report.components = states.collect();
    let during = [None, Some(StepKind::Start), Some(StepKind::Drain)];
    let failed = during
        .map(|during| ComponentError::new("http", during, End::Failed).with_message("no port"));
    report.errors.extend(failed);
    let mut all = Cleanup::new();
    for (name, is_critical) in [("first", true), ("last", false)] {
        let done = Step::new(name, |_| async { Ok(()) });
        let done = if is_critical {
            done.critical()
        } else {
            done.low()
        };
        all.push(done).unwrap();
    }
    report.cleanup = Some(cleanup().await);
    let mut inner = clean();
    (inner.timeline, inner.components) = (Vec::new(), Vec::new());
    let inside = causes.into_iter().map(|cause| Report {
        cause,
        ..inner.clone()
    });
    report.nested = inside.collect();
    let all = all.run(Outcome::Clean, Duration::MAX).await;
    let cleaned = outcomes.map(|outcome| CleanupReport {
        outcome,
        ..all.clone()
    });
    for (inside, cleaned) in report.nested.iter_mut().zip(cleaned) {
        inside.cleanup = Some(cleaned);
    }
    report
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn the_file_of_json_shows_each_word_of_the_format() {
    let report = everything().await;
    let Cause::Failed(failed) = &report.nested[0].cause else {
        panic!("the first cause is a failure");
    };
    let place = format!("{}:{}", failed.place().file(), failed.place().line());
    let json = serde_json::to_string_pretty(&report).unwrap();

    // The line of a spawn in this file changes with the file.
    let json = json.replace(&place, "src/main.rs:7");
    assert_eq!(json, include_str!("../../../tests/report.json").trim_end());
}

#[test]
fn no_time_is_too_long_to_be_drawn() {
    let mut report = report(0, 0);
    for (began, ended) in [
        (Duration::ZERO, Duration::MAX),
        (Duration::MAX, Duration::MAX),
        (Duration::MAX, Duration::ZERO),
    ] {
        let times = (began, ended);
        let step = TimelineStep::new(StepKind::Stop, "db", times, End::Done);
        report.timeline.push(step);
        for (began, ended) in [(Duration::ZERO, Duration::MAX), (Duration::MAX, ms(1))] {
            (report.stop_began, report.ended) = (began, ended);
            let text = text(&report);
            let rows = text.lines().filter(|line| line.contains("|"));
            assert!(rows.clone().all(|row| row.contains('#')), "{text}");
            assert_eq!(rows.count(), report.timeline.len() - 2, "{text}");
        }
    }
}

#[test]
fn a_report_can_be_shared() {
    fn assert<T: Send + Sync + Unpin + 'static>() {}
    assert::<Report>();
}

#[test]
fn the_text_in_the_docs_is_what_is_printed() {
    let mut report = forced();
    report.ended = ms(67_012);
    report.in_flight = 3;
    report.stragglers.truncate(1);
    report.timeline.truncate(2);
    let limit = ms(2000);
    report.timeline.extend([
        step(StepKind::LameDuck, "", (60_000, 65_000), End::Done),
        step(StepKind::Stop, "http", (65_000, 67_002), End::TimedOut).saying(Some(limit), ""),
        step(StepKind::Stop, "db", (67_002, 67_012), End::Done),
    ]);

    let docs = include_str!("../report.rs").lines();
    let block = docs.skip_while(|line| *line != "/// ```text").skip(1);
    let block: Vec<_> = block
        .take_while(|line| *line != "/// ```")
        .filter_map(|line| line.strip_prefix("/// "))
        .collect();
    assert_eq!(report.to_string(), block.join("\n"));
}
