//! Exit statuses as the parent sees them.

use rustix::process::Signal;

use crate::child::Child;
use crate::tests;

tests![
    all_tasks_done_is_0,
    a_failed_task_is_1_and_is_named,
    a_panic_is_1_and_is_named,
    an_early_end_is_1_and_is_named,
    a_drain_that_timed_out_is_1_and_names_the_straggler,
    a_boxed_error_is_reported_as_the_error_in_it,
    an_error_can_carry_its_own_code,
    a_signal_and_a_clean_drain_is_0,
    a_stop_file_and_a_clean_drain_is_0_and_is_audited,
    a_lost_heartbeat_is_1_and_is_audited_and_reported,
    a_policy_can_show_the_signal_in_the_status,
    a_drain_that_timed_out_after_a_signal_is_1,
    lenient_makes_a_timeout_after_a_signal_0_and_reports_it,
    an_error_brings_the_signal_along,
    lenient_leaves_other_timeouts_at_1,
    a_clean_exit_can_die_of_its_signal,
    a_timeout_does_not_die_of_its_signal,
    r25_closed_pipes_do_not_change_the_status,
    r25_a_log_whose_reader_is_gone_does_not_change_the_status,
    r25_a_full_stderr_does_not_hold_the_exit,
    r25_a_locked_stderr_does_not_hold_the_report,
    r25_without_threads_the_report_is_written_anyway,
    now_ends_a_process_with_a_stuck_thread,
    the_status_of_the_second_signal_can_be_chosen,
];

fn all_tasks_done_is_0() {
    let mut child = Child::start("done");
    child.expect_code(0);
    assert_eq!(child.rest_of_stderr(), "");
}

fn a_failed_task_is_1_and_is_named() {
    let mut child = Child::start("failed");
    child.expect("ready").tell("go on").expect_code(1);
    let report = child.rest_of_stderr();
    assert!(
        report.starts_with("error: task `worker` (tests/process/ends.rs:"),
        "{report}"
    );
    assert!(report.ends_with(") failed: no table\n"), "{report}");
    assert_eq!(report.lines().count(), 1);
}

fn a_panic_is_1_and_is_named() {
    let mut child = Child::start("panicked");
    child.expect_code(1);
    let report = child.rest_of_stderr();
    let line = report.lines().last().unwrap();
    assert!(line.starts_with("error: task `worker` ("), "{report}");
    assert!(line.ends_with(") panicked: no table"), "{report}");
}

fn an_early_end_is_1_and_is_named() {
    let mut child = Child::start("ended_early");
    child.expect_code(1);
    let report = child.rest_of_stderr();
    assert!(
        report.contains("`worker`") && report.contains("ended early"),
        "{report}"
    );
}

fn a_drain_that_timed_out_is_1_and_names_the_straggler() {
    let mut child = Child::start("timed_out");
    child.expect_code(1);
    let report = child.rest_of_stderr();
    assert!(report.contains("did not stop within 0s"), "{report}");
    assert!(
        report.contains("`worker` (tests/process/ends.rs:"),
        "{report}"
    );
}

fn a_boxed_error_is_reported_as_the_error_in_it() {
    let mut child = Child::start("boxed");
    child.expect_code(1);
    assert!(child.rest_of_stderr().contains("did not stop within 0s"));
}

fn an_error_can_carry_its_own_code() {
    Child::start("own_code")
        .expect("ready")
        .tell("go on")
        .expect_code(78);
}

fn a_signal_and_a_clean_drain_is_0() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut child = Child::start("signal_clean");
        child.expect("ready").send(signal).expect_code(0);
        assert_eq!(child.rest_of_stderr(), "");
    }
}

fn a_stop_file_and_a_clean_drain_is_0_and_is_audited() {
    let mut child = Child::start("stop_file");
    let path = child.line();
    std::fs::write(&path, "").unwrap();
    child.expect("cancelled").expect_code(0);
    std::fs::remove_file(&path).unwrap();
    let log = child.rest_of_stderr();
    // It depends on the machine whether the first look has seen it.
    let found = |when: &str| log.contains(&format!("stop file `{path}` {when}, stopping group"));
    assert!(
        found("appeared") || found("was there at the start"),
        "{log}"
    );
    assert!(log.contains("outcome=\"ok\""), "{log}");
}

fn a_lost_heartbeat_is_1_and_is_audited_and_reported() {
    let mut child = Child::start("lost_heartbeat");
    child.expect("cancelled").expect_code(1);
    let log = child.rest_of_stderr();
    let cause = "heartbeat `lease` lost: no beat within 10ms";
    assert!(
        log.contains(&format!("INFO taskgroup: {cause}, stopping")),
        "{log}"
    );
    let report = log.lines().last().unwrap();
    assert!(
        report.starts_with("error: group `orders` (tests/process/ends.rs:"),
        "{log}"
    );
    assert!(report.ends_with(&format!(") failed: {cause}")), "{log}");
}

fn a_policy_can_show_the_signal_in_the_status() {
    Child::start("signal_128")
        .expect("ready")
        .send(Signal::TERM)
        .expect_code(143);
    Child::start("signal_128")
        .expect("ready")
        .send(Signal::INT)
        .expect_code(130);
}

fn a_drain_that_timed_out_after_a_signal_is_1() {
    let mut child = Child::start("signal_timed_out");
    child.expect("ready").send(Signal::TERM).expect_code(1);
    assert!(child.rest_of_stderr().contains("`worker`"));
}

fn lenient_makes_a_timeout_after_a_signal_0_and_reports_it() {
    let mut child = Child::start("signal_timed_out_lenient");
    child.expect("ready").send(Signal::TERM).expect_code(0);
    assert!(child.rest_of_stderr().contains("`worker`"));
}

fn an_error_brings_the_signal_along() {
    let mut child = Child::start("signal_timed_out_lenient_error_alone");
    child.expect("ready").send(Signal::TERM).expect_code(0);
    assert!(child.rest_of_stderr().contains("`worker`"));
}

fn lenient_leaves_other_timeouts_at_1() {
    Child::start("lenient").expect_code(1);
}

fn a_clean_exit_can_die_of_its_signal() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut child = Child::start("signal_reraised");
        child.expect("ready").send(signal).expect_killed_by(signal);
    }
}

fn a_timeout_does_not_die_of_its_signal() {
    Child::start("signal_timed_out_reraised")
        .expect("ready")
        .send(Signal::TERM)
        .expect_code(1);
}

fn r25_closed_pipes_do_not_change_the_status() {
    let mut child = Child::start("failed");
    child
        .expect("ready")
        .close_stdout_and_stderr()
        .tell("go on")
        .expect_code(1);
    let mut child = Child::start("signal_clean");
    child
        .expect("ready")
        .close_stdout_and_stderr()
        .send(Signal::TERM)
        .expect_code(0);
}

fn r25_a_log_whose_reader_is_gone_does_not_change_the_status() {
    let start = |role| {
        let mut child = Child::start(role);
        child.expect("ready").close_stderr();
        child
    };
    start("logged_failure").tell("go on").expect_code(1);
    start("logged_panic").tell("go on").expect_code(1);
    start("logged_drain").tell("go on").expect_code(0);
    start("logged_signal").send(Signal::TERM).expect_code(0);
}

fn r25_a_full_stderr_does_not_hold_the_exit() {
    Child::start_with_full_stderr("failed")
        .expect("ready")
        .tell("go on")
        .expect_code(1);
}

fn r25_a_locked_stderr_does_not_hold_the_report() {
    let mut child = Child::start("stderr_is_locked");
    child.expect("locked").tell("go on").expect_code(1);
    let report = child.rest_of_stderr();
    assert!(report.starts_with("error: "), "{report}");
    assert_eq!(report.lines().count(), 1, "{report}");
}

/// Reads in `/proc` how much memory it has, which other systems do not have.
fn r25_without_threads_the_report_is_written_anyway() {
    if cfg!(target_os = "linux") {
        let mut child = Child::start("asked_without_words");
        child.expect_code(1);
        assert_eq!(child.rest_of_stderr(), "error: no table\n");
    }
}

fn now_ends_a_process_with_a_stuck_thread() {
    let mut child = Child::start("now");
    child.expect_code(1);
    assert!(
        child
            .rest_of_stderr()
            .contains("still running: 1 task: `stuck` (")
    );
}

fn the_status_of_the_second_signal_can_be_chosen() {
    Child::start("second_signal_is_3")
        .expect("ready")
        .send(Signal::TERM)
        .expect("SIGTERM")
        .send(Signal::TERM)
        .expect_code(3);
}
