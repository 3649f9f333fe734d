//! The watchdog as the parent sees it: what hangs is over soon after its budget, and is named.

use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use crate::child::Child;
use crate::hangs::BUDGET;
use crate::tests;

tests![
    r22_one_blocked_worker_of_two_is_ended_in_time_and_named,
    r22_all_workers_blocked_are_ended_in_time_and_named,
    r22_a_blocked_current_thread_runtime_is_ended_in_time_and_named,
    r22_a_closure_that_outlives_the_body_of_main_is_ended_in_time_and_named,
    r22_a_full_stderr_does_not_hold_the_watchdog,
    r22_a_closed_stderr_does_not_hold_the_watchdog,
    r22_a_locked_stdout_does_not_hold_the_watchdog,
    r22_a_locked_stderr_holds_neither_the_watchdog_nor_its_report,
    r22_without_descriptors_the_watchdog_reports_anyway,
    r22_without_threads_the_watchdog_reports_anyway,
    r22_without_threads_a_full_stderr_does_not_hold_the_watchdog,
    r22_an_exit_that_hangs_is_ended_in_time,
    after_a_failed_run_the_watchdog_has_its_status_and_errors_and_names_the_threads,
    after_a_clean_run_the_watchdog_says_so_and_has_its_own_status,
    after_a_run_that_gave_up_the_watchdog_has_its_status_and_errors,
    r22_a_clean_stop_is_not_disturbed_by_the_watchdog,
    r22_a_dropped_watchdog_does_not_end_the_process,
    r22_a_watchdog_that_gets_no_thread_is_refused,
    r22_a_watchdog_uses_no_processor_while_it_waits,
];

/// What the report and the end may take when the machine is busy with other tests.
const IN_TIME: Duration = Duration::from_secs(1);

#[track_caller]
fn expect_end(child: &mut Child, stopped: Instant) {
    child.expect_code(1);
    let took = stopped.elapsed();
    assert!(took >= BUDGET, "{took:?}");
    assert!(took < BUDGET + IN_TIME, "{took:?}");
}

/// Stops the child once `count` of its threads hang.
#[track_caller]
fn expect_end_after_signal(child: &mut Child, count: usize) {
    for _ in 0..count {
        child.expect("hanging");
    }
    let stopped = Instant::now();
    expect_end(child.send(Signal::TERM), stopped);
}

#[track_caller]
fn expect_report(child: &mut Child, end: &str, running: &str) {
    let report = child.rest_of_stderr();
    let start = format!("error: the process did not stop within 300ms ({end}) and is ended; ");
    assert!(report.starts_with(&start), "{report}");
    assert!(report.contains(running), "{report}");
    assert_eq!(report.lines().count(), 1, "{report}");
}

#[track_caller]
fn expect_stuck(role: &str) {
    let mut child = Child::start(role);
    expect_end_after_signal(&mut child, 1);
    let running = "still running: 1 task: `orders/stuck` (tests/process/hangs.rs:";
    expect_report(&mut child, "received SIGTERM", running);
}

fn r22_one_blocked_worker_of_two_is_ended_in_time_and_named() {
    expect_stuck("watched_one_of_two_workers");
}

fn r22_all_workers_blocked_are_ended_in_time_and_named() {
    let mut child = Child::start("watched_all_workers");
    expect_end_after_signal(&mut child, 2);
    let running = "still running: 2 tasks: `orders/stuck` (tests/process/hangs.rs:";
    expect_report(&mut child, "received SIGTERM", running);
}

fn r22_a_blocked_current_thread_runtime_is_ended_in_time_and_named() {
    expect_stuck("watched_current_thread");
}

fn r22_a_closure_that_outlives_the_body_of_main_is_ended_in_time_and_named() {
    let mut child = Child::start("watched_tokio_main");
    let lines = [child.line(), child.line()];
    let stopped = Instant::now();
    assert!(lines.contains(&"the body is over".into()), "{lines:?}");
    child.expect_code(1);
    assert!(stopped.elapsed() < BUDGET + IN_TIME);
    let running = "still running: 1 task: `stuck` (tests/process/hangs.rs:";
    expect_report(&mut child, "the group was dropped", running);
}

fn r22_a_full_stderr_does_not_hold_the_watchdog() {
    let mut child = Child::start_with_full_stderr("watched_all_workers");
    expect_end_after_signal(&mut child, 2);
}

fn r22_a_closed_stderr_does_not_hold_the_watchdog() {
    let mut child = Child::start("watched_all_workers");
    expect_end_after_signal(child.close_stderr(), 2);
}

fn r22_a_locked_stdout_does_not_hold_the_watchdog() {
    expect_stuck("watched_stdout_is_locked");
}

fn r22_a_locked_stderr_holds_neither_the_watchdog_nor_its_report() {
    expect_stuck("watched_stderr_is_locked");
}

fn r22_without_descriptors_the_watchdog_reports_anyway() {
    expect_stuck("watched_without_descriptors");
}

/// Reads in `/proc` how much memory it has, which other systems do not have.
fn r22_without_threads_the_watchdog_reports_anyway() {
    if cfg!(target_os = "linux") {
        expect_stuck("watched_without_threads");
    }
}

fn r22_without_threads_a_full_stderr_does_not_hold_the_watchdog() {
    if cfg!(target_os = "linux") {
        let mut child = Child::start_with_full_stderr("watched_without_threads");
        expect_end_after_signal(&mut child, 1);
    }
}

fn r22_an_exit_that_hangs_is_ended_in_time() {
    let mut child = Child::start("watched_exit");
    child.expect("hanging");
    let stopped = Instant::now();
    child.expect_code(1);
    assert!(stopped.elapsed() < BUDGET + IN_TIME);
}

/// Expects the one line of a child that is ended after its run: so it begins, and then comes how the run
/// was over. The threads that are left are known on Linux.
#[track_caller]
fn expect_end_after_the_run(child: &mut Child, code: i32, begin: &str, over: &str) {
    child.expect_code(code);
    let report = child.rest_of_stderr();
    let begin = format!("error: the process did not stop within 300ms ({begin}");
    assert!(report.starts_with(&begin), "{report}");
    assert!(report.contains(over), "{report}");
    let mut end = "no task of the group is running".to_owned();
    if cfg!(target_os = "linux") {
        end += "; 2 threads are left beside that of `main`: `limit`, `orders-rt`";
    }
    assert!(report.ends_with(&format!("; {end}\n")), "{report}");
    assert_eq!(report.lines().count(), 1, "{report}");
}

fn after_a_failed_run_the_watchdog_has_its_status_and_errors_and_names_the_threads() {
    let mut child = Child::start("watched_after_a_failed_run");
    let begin = "task `orders/reader` (tests/process/hangs.rs:";
    let over = " and is ended; its run was over, with status 70: task `orders/reader` (tests/";
    expect_end_after_the_run(child.expect("hanging"), 70, begin, over);
}

fn after_a_clean_run_the_watchdog_says_so_and_has_its_own_status() {
    let mut child = Child::start("watched_after_a_clean_run");
    let begin = "cancelled on request: the lease was lost) and is ended";
    let over = "; its run was over, with status 0; no task ";
    expect_end_after_the_run(child.expect("hanging"), 1, begin, over);
}

fn after_a_run_that_gave_up_the_watchdog_has_its_status_and_errors() {
    let mut child = Child::start("watched_after_a_forced_run");
    child.expect("ready").send(Signal::TERM).expect_code(71);
    let report = child.rest_of_stderr();
    let over = "error: the process did not stop within 3s (received SIGTERM) and is ended; its run was \
                over, with status 71: component `stuck` did not stop within 50ms, was forced, and is \
                still running; still running: 1 task: `orders/stuck/run` (";
    assert!(report.starts_with(over), "{report}");
    assert_eq!(report.lines().count(), 1, "{report}");
}

fn r22_a_clean_stop_is_not_disturbed_by_the_watchdog() {
    let mut child = Child::start("watched_clean");
    child.expect("ready").send(Signal::TERM).expect_code(0);
    assert_eq!(child.rest_of_stderr(), "");
}

fn r22_a_dropped_watchdog_does_not_end_the_process() {
    let mut child = Child::start("watched_disarmed");
    child.expect_code(0);
    assert_eq!(child.rest_of_stderr(), "");
}

/// Reads in `/proc` how much memory it has, which other systems do not have.
fn r22_a_watchdog_that_gets_no_thread_is_refused() {
    if cfg!(target_os = "linux") {
        Child::start("watched_no_thread")
            .expect("true")
            .expect_code(0);
    }
}

fn r22_a_watchdog_uses_no_processor_while_it_waits() {
    Child::start("watched_idle").expect("true").expect_code(0);
}
