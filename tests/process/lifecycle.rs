//! The exit table of a lifecycle, as the parent sees it.

use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use crate::child::Child;
use crate::hangs::BUDGET;
use crate::tests;

tests![
    a_lifecycle_whose_components_are_done_is_0,
    a_lifecycle_that_a_signal_has_stopped_well_is_0,
    a_lifecycle_that_a_call_has_stopped_well_is_0,
    a_lifecycle_that_a_stop_file_has_stopped_well_is_0_and_is_audited_once,
    a_lifecycle_that_has_lost_its_heartbeat_is_1,
    a_component_that_fails_is_1_and_the_rest_is_stopped_in_order,
    a_component_that_panics_is_1_and_is_named,
    a_component_that_ends_early_is_1_and_is_named,
    a_component_that_does_not_start_is_1_and_is_named,
    a_component_that_fails_in_its_stop_is_1_and_the_next_is_stopped,
    a_component_that_is_forced_is_1_and_is_named_with_its_task,
    a_signal_while_it_starts_stops_what_has_started,
    a_second_signal_in_the_stop_of_a_component_is_128_and_the_signal,
    x4_in_three_steps_a_second_signal_forces_a_lifecycle_which_cleans_up_and_reports,
    x4_in_three_steps_a_third_signal_ends_a_process_that_cannot_be_forced,
    the_running_tasks_of_components_are_listed_and_nothing_stops,
    a_component_that_blocks_a_worker_is_ended_by_the_watchdog_and_named,
    components_that_block_all_workers_are_ended_by_the_watchdog_and_named,
    components_that_block_all_workers_are_ended_though_stderr_is_full,
    in_a_pod_the_first_line_of_the_report_is_the_termination_message,
    what_the_watchdog_says_is_the_termination_message_too,
];

/// What the report and the end may take when the machine is busy with other tests.
const IN_TIME: Duration = Duration::from_secs(1);

#[track_caller]
fn expect_error(role: &str, error: &str) {
    let mut child = Child::start(role);
    expect_closing(&mut child);
    child.expect_code(1);
    let report = child.rest_of_stderr();
    let line = report.lines().find(|line| line.starts_with("error: "));
    assert_eq!(line, Some(error), "{report}");
}

/// It may be stopping before anybody has seen it ready.
#[track_caller]
fn expect_closing(child: &mut Child) {
    if child.line() == "ready" {
        child.expect("closing");
    }
}

fn a_lifecycle_whose_components_are_done_is_0() {
    let mut child = Child::start("lives_done");
    child.expect("ready");
    child.send(Signal::TERM).expect("closing").expect_code(0);
    assert_eq!(child.rest_of_stderr(), "");
}

fn a_lifecycle_that_a_signal_has_stopped_well_is_0() {
    let mut child = Child::start("lives_stopped");
    child.expect("ready").send(Signal::TERM);
    child.expect("closing").expect_code(0);
    assert_eq!(child.rest_of_stderr(), "");
}

fn a_lifecycle_that_a_call_has_stopped_well_is_0() {
    let mut child = Child::start("lives_called");
    expect_closing(&mut child);
    child.expect_code(0);
    assert_eq!(child.rest_of_stderr(), "");
}

fn a_lifecycle_that_a_stop_file_has_stopped_well_is_0_and_is_audited_once() {
    let mut child = Child::start("lives_stop_file");
    let path = child.line();
    child.expect("ready");
    std::fs::write(&path, "").unwrap();
    child.expect("closing").expect_code(0);
    std::fs::remove_file(&path).unwrap();
    let log = child.rest_of_stderr();
    // It depends on the machine whether the first look has seen it.
    assert!(
        log.contains(&format!("INFO taskgroup: stop file `{path}` ")),
        "{log}"
    );
    for line in [", stopping group=\"orders\"", "shutdown complete"] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
    for line in ["shutdown triggered", "group stopped"] {
        assert!(!log.contains(line), "{log}");
    }
}

fn a_lifecycle_that_has_lost_its_heartbeat_is_1() {
    let mut child = Child::start("lives_heartbeat");
    child.expect_code(1);
    let report = child.rest_of_stderr();
    let error =
        "error: lifecycle `orders` had to stop: heartbeat `lease` lost: no beat within 10ms";
    assert!(report.contains(error), "{report}");
}

fn a_component_that_fails_is_1_and_the_rest_is_stopped_in_order() {
    expect_error("lives_failed", "error: component `worker` failed: no table");
}

/// A path without a file, and the variable that asks for a termination message there.
fn message_path(name: &str) -> String {
    let name = format!("taskgroup-message-{name}-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    drop(std::fs::remove_file(&path));
    path.to_str().unwrap().to_owned()
}

#[track_caller]
fn message_at(path: &str) -> String {
    let message = std::fs::read_to_string(path).unwrap();
    std::fs::remove_file(path).unwrap();
    message
}

fn in_a_pod_the_first_line_of_the_report_is_the_termination_message() {
    let path = message_path("report");
    let asked = [("TERMINATION_MESSAGE_PATH", &*path)];
    let mut child = Child::start_in("lives_stopped", &asked);
    child.expect("ready").send(Signal::TERM);
    child.expect("closing").expect_code(0);
    let message = message_at(&path);
    assert!(
        message.starts_with("orders: clean, stopped in "),
        "{message}"
    );
    assert!(message.ends_with(": received SIGTERM"), "{message}");

    let mut child = Child::start_in("lives_failed", &asked);
    expect_closing(&mut child);
    child.expect_code(1);
    let message = message_at(&path);
    let (verdict, errors) = message.split_once('\n').unwrap();
    assert!(
        verdict.starts_with("orders: FAILED, stopped in "),
        "{message}"
    );
    assert_eq!(errors, "error: component `worker` failed: no table");
}

fn what_the_watchdog_says_is_the_termination_message_too() {
    let path = message_path("watchdog");
    let asked = [("TERMINATION_MESSAGE_PATH", &*path)];
    let mut child = Child::start_in("lives_all_blocked", &asked);
    let stopped = stop_blocked(&mut child);
    expect_end_by_the_watchdog(&mut child, stopped);
    let message = message_at(&path);
    assert!(
        message.starts_with("error: the process did not stop within "),
        "{message}"
    );
}

fn a_component_that_panics_is_1_and_is_named() {
    expect_error(
        "lives_panicked",
        "error: component `worker` panicked: no table",
    );
}

fn a_component_that_ends_early_is_1_and_is_named() {
    let error = "error: component `worker` ended before it was told to";
    expect_error("lives_ended_early", error);
}

fn a_component_that_does_not_start_is_1_and_is_named() {
    let mut child = Child::start("lives_not_started");
    child.expect_code(1);
    let report = child.rest_of_stderr();
    let error = "error: component `worker` did not start: no table\n";
    assert!(report.ends_with(error), "{report}");
}

fn a_component_that_fails_in_its_stop_is_1_and_the_next_is_stopped() {
    let mut child = Child::start("lives_stop_failed");
    child.expect("ready").send(Signal::TERM);
    child.expect("closing").expect_code(1);
    let error = "error: component `worker` failed while it stopped: no table\n";
    assert_eq!(child.rest_of_stderr(), error);
}

fn a_component_that_is_forced_is_1_and_is_named_with_its_task() {
    let mut child = Child::start("lives_deaf");
    child.expect("ready").send(Signal::TERM);
    child.expect("closing").expect_code(1);
    let report = child.rest_of_stderr();
    let error = "error: component `deaf` did not stop within 50ms and was forced\n";
    assert!(report.starts_with(error), "{report}");
}

fn a_signal_while_it_starts_stops_what_has_started() {
    let mut child = Child::start("lives_starting");
    child.expect("starting").send(Signal::TERM);
    child.expect("closing").expect_code(0);
    assert_eq!(child.rest_of_stderr(), "");
}

fn a_second_signal_in_the_stop_of_a_component_is_128_and_the_signal() {
    let mut child = Child::start("lives_blocked");
    child.expect("ready").send(Signal::TERM);
    // They do not depend on each other.
    let mut lines = [child.line(), child.line()];
    lines.sort();
    assert_eq!(lines, ["closing", "hanging"]);
    child.send(Signal::INT).expect_code(130);
}

fn x4_in_three_steps_a_second_signal_forces_a_lifecycle_which_cleans_up_and_reports() {
    let mut child = Child::start("lives_escalate");
    child.expect("ready").send(Signal::TERM).expect("closing");
    child.send(Signal::TERM).expect("cleaned up").expect_code(1);
    let report = child.rest_of_stderr();
    assert!(report.contains("component `deaf` "), "{report}");
    assert!(report.contains("was forced"), "{report}");
}

fn x4_in_three_steps_a_third_signal_ends_a_process_that_cannot_be_forced() {
    let mut child = Child::start("lives_escalate_blocked");
    child.expect("ready").send(Signal::TERM);
    // They do not depend on each other.
    let mut lines = [child.line(), child.line()];
    lines.sort();
    assert_eq!(lines, ["closing", "hanging"]);
    let line = child.send(Signal::TERM).expect_logged("forcing");
    assert!(
        line.contains("received SIGTERM, forcing the stop; a third signal forces the exit"),
        "{line}"
    );
    child.send(Signal::INT).expect_code(130);
}

fn the_running_tasks_of_components_are_listed_and_nothing_stops() {
    let mut child = Child::start("lives_listed");
    child.expect("ready");
    for _ in 0..2 {
        let line = child.send(Signal::USR1).expect_logged("running: ");
        assert!(line.contains("running: 2 tasks: "), "{line}");
        assert!(
            line.contains("`orders/deaf/run` (tests/process/lives.rs:"),
            "{line}"
        );
    }
    // Also while it stops.
    child.send(Signal::TERM).expect("closing").expect_code(1);
}

#[track_caller]
fn expect_end_by_the_watchdog(child: &mut Child, stopped: Instant) {
    child.expect_code(1);
    let took = stopped.elapsed();
    assert!(took >= BUDGET, "{took:?}");
    assert!(took < BUDGET + IN_TIME, "{took:?}");
}

fn a_component_that_blocks_a_worker_is_ended_by_the_watchdog_and_named() {
    let mut child = Child::start("lives_blocked");
    child.expect("ready");
    let stopped = Instant::now();
    expect_end_by_the_watchdog(child.send(Signal::TERM), stopped);
    expect_named(&mut child);
}

fn components_that_block_all_workers_are_ended_by_the_watchdog_and_named() {
    let mut child = Child::start("lives_all_blocked");
    let stopped = stop_blocked(&mut child);
    expect_end_by_the_watchdog(&mut child, stopped);
    expect_named(&mut child);
}

fn components_that_block_all_workers_are_ended_though_stderr_is_full() {
    let mut child = Child::start_with_full_stderr("lives_all_blocked");
    let stopped = stop_blocked(&mut child);
    expect_end_by_the_watchdog(&mut child, stopped);
}

/// Stops it once both of its workers hang.
#[track_caller]
fn stop_blocked(child: &mut Child) -> Instant {
    let mut hanging = 0;
    while hanging < 2 {
        hanging += usize::from(child.line() == "hanging");
    }
    let stopped = Instant::now();
    child.send(Signal::TERM);
    stopped
}

#[track_caller]
fn expect_named(child: &mut Child) {
    let report = child.rest_of_stderr();
    let start = "error: the process did not stop within 300ms (received SIGTERM) and is ended; ";
    let line = report.lines().find(|line| line.starts_with(start));
    let line = line.unwrap_or_else(|| panic!("{report}"));
    assert!(
        line.contains("`orders/stuck/run` (tests/process/lives.rs:"),
        "{line}"
    );
}
