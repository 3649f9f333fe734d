//! A program that `taskgroup::main` runs, as the parent sees it: its end is bounded and its status true.

use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use crate::child::Child;
use crate::tests;

tests![
    a_program_that_a_signal_has_stopped_is_0,
    a_program_whose_body_has_read_stdin_ends_with_its_own_status,
    a_program_with_a_blocked_worker_ends_with_its_own_status_and_report,
    a_closure_that_hangs_does_not_hold_up_the_end_of_a_program,
    a_destructor_that_hangs_does_not_hold_up_the_end_of_a_program,
    a_panic_in_the_body_of_a_program_has_the_status_of_the_policy,
    a_program_without_signals_does_not_start,
    a_program_without_worker_threads_does_not_start,
    the_policy_of_a_program_decides_about_its_failures,
    the_policy_of_a_program_decides_about_the_second_signal,
    a_program_has_its_signals_before_its_runtime,
    without_a_log_the_stop_of_a_group_is_told_on_stderr,
    without_a_log_the_stop_of_a_lifecycle_is_told_on_stderr,
    without_a_log_the_failure_that_stops_a_lifecycle_is_told_on_stderr,
    with_a_log_the_stop_is_told_there_and_once,
    a_log_that_takes_nothing_of_this_crate_is_all_there_is,
    a_program_without_a_log_ends_in_time_though_stderr_is_full,
    a_program_without_a_log_has_its_status_though_stderr_is_closed,
    a_cleanup_step_that_blocks_its_thread_has_its_deadline,
    a_destructor_in_a_cleanup_step_that_blocks_its_thread_has_a_deadline,
    a_blocking_cleanup_step_has_its_deadline_on_a_runtime_of_one_thread,
    the_destructor_of_a_value_that_a_job_has_provided_does_not_hold_up_the_end,
    a_cleanup_step_that_the_watchdog_ends_is_named,
    all_is_done_and_somebody_has_asked_for_the_stop_are_two_rows_of_the_policy,
    a_component_that_asks_for_the_stop_gives_the_reason_and_the_exit_status,
    a_failure_goes_before_the_exit_status_of_a_request,
];

/// What the end may take when the machine is busy with other tests.
const IN_TIME: Duration = Duration::from_secs(5);

/// The error lines of a child that has ended.
fn errors(child: &mut Child) -> Vec<String> {
    let stderr = child.rest_of_stderr();
    let lines = stderr.lines().filter(|line| line.contains("error: "));
    lines.map(str::to_owned).collect()
}

fn a_program_that_a_signal_has_stopped_is_0() {
    let mut child = Child::start("main_group");
    child.expect("ready").send(Signal::TERM).expect_code(0);
    assert_eq!(errors(&mut child), [""; 0]);
}

fn a_program_whose_body_has_read_stdin_ends_with_its_own_status() {
    let mut child = Child::start("main_stdin");
    child.expect("ready").send(Signal::TERM);
    let stopped = Instant::now();
    child.expect_code(0);
    assert!(stopped.elapsed() < IN_TIME);
    assert_eq!(errors(&mut child), [""; 0]);
}

fn a_program_with_a_blocked_worker_ends_with_its_own_status_and_report() {
    let mut child = Child::start("main_blocked_worker");
    child.expect("ready").send(Signal::TERM);
    let stopped = Instant::now();
    child.expect_code(1);
    assert!(stopped.elapsed() < IN_TIME);
    let error =
        "error: component `stuck` did not stop within 50ms, was forced, and is still running";
    assert_eq!(errors(&mut child), [error]);
}

fn a_closure_that_hangs_does_not_hold_up_the_end_of_a_program() {
    Child::start("main_blocking_closure").expect_code(0);
}

fn a_destructor_that_hangs_does_not_hold_up_the_end_of_a_program() {
    Child::start("main_blocking_destructor").expect_code(0);
}

fn a_panic_in_the_body_of_a_program_has_the_status_of_the_policy() {
    let mut child = Child::start("main_panics");
    child.expect_code(70);
    let error = "error: the program panicked: no table";
    assert_eq!(errors(&mut child), [error]);
}

fn a_program_without_signals_does_not_start() {
    let mut child = Child::start("main_without_signals");
    child.expect("").expect_code(1);
    let error = "error: signals: `set` cannot be empty: there would be nothing to listen for";
    assert_eq!(errors(&mut child), [error]);
}

fn a_program_without_worker_threads_does_not_start() {
    let mut child = Child::start("main_without_workers");
    child.expect("").expect_code(1);
    let error = "error: a program: `worker_threads` cannot be 0: nothing could ever run";
    assert_eq!(errors(&mut child), [error]);
}

fn the_policy_of_a_program_decides_about_its_failures() {
    let mut child = Child::start("main_policy");
    child.expect("ready").send(Signal::TERM).expect("received");
    child.tell("go on").expect_code(70);
}

fn the_policy_of_a_program_decides_about_the_second_signal() {
    let mut child = Child::start("main_policy");
    child.expect("ready").send(Signal::TERM).expect("received");
    child.send(Signal::INT).expect_code(3);
}

fn a_program_has_its_signals_before_its_runtime() {
    let mut child = Child::start("main_early_signal");
    child.expect("the runtime is being built");
    child.send(Signal::TERM).tell("go on");
    child.expect("SIGTERM").expect_code(0);
}

/// Stops a child with SIGTERM, and returns all that it has said on stderr.
#[track_caller]
fn told(role: &str) -> String {
    let mut child = Child::start(role);
    child.expect("ready").send(Signal::TERM).expect_code(0);
    child.rest_of_stderr()
}

const STOPPING: &str = "orders: received SIGTERM, stopping; a second signal forces the exit";

fn without_a_log_the_stop_of_a_group_is_told_on_stderr() {
    assert_eq!(told("main_group"), format!("{STOPPING}\norders: stopped\n"));
}

fn without_a_log_the_stop_of_a_lifecycle_is_told_on_stderr() {
    let told = told("main_lifecycle");
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert_eq!(lines[0], STOPPING);
    assert!(lines[1].starts_with("orders: stopped in "), "{told}");
}

fn without_a_log_the_failure_that_stops_a_lifecycle_is_told_on_stderr() {
    let mut child = Child::start("main_failing_lifecycle");
    child.expect_code(1);
    let told = child.rest_of_stderr();
    let lines: Vec<_> = told.lines().collect();
    let error = "component `migrate` did not start: no table";
    assert_eq!(lines.len(), 3, "{told}");
    assert_eq!(lines[0], format!("orders: {error}, stopping"));
    assert!(lines[1].starts_with("orders: stopped in "), "{told}");
    assert_eq!(lines[2], format!("error: {error}"));
}

fn with_a_log_the_stop_is_told_there_and_once() {
    for role in ["main_logged_group", "main_logged_lifecycle"] {
        let told = told(role);
        assert_eq!(
            told.matches("received SIGTERM, stopping").count(),
            1,
            "{told}"
        );
        let plain = told.lines().find(|line| line.starts_with("orders: "));
        assert_eq!(plain, None, "{told}");
    }
}

fn a_log_that_takes_nothing_of_this_crate_is_all_there_is() {
    assert_eq!(told("main_filtered_lifecycle"), "");
}

fn a_program_without_a_log_ends_in_time_though_stderr_is_full() {
    let mut child = Child::start_with_full_stderr("main_lifecycle");
    child.expect("ready").send(Signal::TERM);
    let stopped = Instant::now();
    child.expect_code(0);
    assert!(stopped.elapsed() < IN_TIME);
}

fn a_program_without_a_log_has_its_status_though_stderr_is_closed() {
    let mut child = Child::start("main_lifecycle");
    child.expect("ready").close_stderr();
    child.send(Signal::TERM).expect_code(0);
}

#[track_caller]
fn expect_step_left_behind(role: &str) {
    let mut child = Child::start(role);
    child.expect("ready").send(Signal::TERM);
    child.expect("closed").expect_code(1);
    let error = "error: cleanup step `stuck` still running after 100ms";
    assert_eq!(errors(&mut child), [error]);
}

fn a_cleanup_step_that_blocks_its_thread_has_its_deadline() {
    expect_step_left_behind("main_blocking_step");
}

fn a_destructor_in_a_cleanup_step_that_blocks_its_thread_has_a_deadline() {
    expect_step_left_behind("main_blocking_destructor_of_a_step");
}

fn a_blocking_cleanup_step_has_its_deadline_on_a_runtime_of_one_thread() {
    expect_step_left_behind("main_blocking_step_on_its_own_thread");
}

fn the_destructor_of_a_value_that_a_job_has_provided_does_not_hold_up_the_end() {
    Child::start("main_blocking_destructor_of_a_value").expect_code(0);
}

fn a_cleanup_step_that_the_watchdog_ends_is_named() {
    let mut child = Child::start("main_watched_step");
    child.expect("ready").send(Signal::TERM).expect_code(1);
    let error = errors(&mut child).remove(0);
    let named = "still running: 1 task: `orders/cleanup/stuck` (tests/process/mains.rs:";
    assert!(error.contains(named), "{error}");
}

fn all_is_done_and_somebody_has_asked_for_the_stop_are_two_rows_of_the_policy() {
    Child::start("main_done").expect_code(6);
    Child::start("main_called").expect_code(5);
}

fn a_component_that_asks_for_the_stop_gives_the_reason_and_the_exit_status() {
    let mut child = Child::start("main_called_with_a_status");
    child.expect_code(75);
    let told = child.rest_of_stderr();
    let reason = "orders: cancelled on request: restart, stopping\n";
    assert!(told.starts_with(reason), "{told}");
}

fn a_failure_goes_before_the_exit_status_of_a_request() {
    let mut child = Child::start("main_called_and_failed");
    child.expect_code(1);
    let error = "error: component `worker` failed while it stopped: no table";
    assert_eq!(errors(&mut child), [error]);
}
