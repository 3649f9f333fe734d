//! Signals as the parent sends them.

use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use crate::child::Child;
use crate::tests;

tests![
    the_first_signal_is_received,
    a_signal_from_before_the_runtime_is_kept,
    a_dropped_recv_loses_no_signal,
    a_second_sigint_exits_with_130,
    a_second_sigterm_exits_with_143,
    the_second_signal_may_be_another_one_of_the_set,
    after_a_drop_the_first_signal_does_not_kill_and_the_second_does,
    a_signal_that_nobody_heard_is_delivered_to_the_next_listener,
    a_watched_signal_never_ends_the_process,
    overlapping_sets_hear_the_same_first_signal,
    dropped_values_leave_no_thread_and_no_file_behind,
    a_signal_cancels_the_group_and_says_so,
    a_signal_from_before_the_group_cancels_it,
    the_second_signal_forces_a_group_that_does_not_end,
    a_group_with_a_grace_ends_after_a_signal_though_a_task_is_deaf,
    the_second_signal_works_while_every_thread_of_the_runtime_is_blocked,
    the_second_signal_works_while_stderr_is_full,
    the_second_signal_works_after_the_group_is_over,
    one_signal_stops_two_groups,
    a_signal_while_the_group_stops_already_says_so,
    a_listener_ends_with_its_group,
    running_tasks_are_listed_and_nothing_stops,
    running_tasks_are_listed_while_the_runtime_is_blocked,
    a_log_that_panics_does_not_end_the_listener,
    without_descriptors_nothing_is_armed_and_sigterm_kills,
    without_threads_nothing_is_armed_and_sigterm_kills,
    a_signal_that_was_received_is_not_delivered_to_the_next_value,
    x10_the_same_act_that_arrives_twice_is_one_stop,
    x10_only_a_signal_that_was_chosen_insists,
    x10_no_log_promises_a_force_that_does_not_come,
    x10_a_second_signal_counts_from_300_ms_on,
    x4_in_three_steps_two_signals_are_received_and_the_third_ends_the_process,
    x4_in_three_steps_a_second_signal_aborts_a_group_and_names_what_was_cut,
    x4_in_three_steps_a_second_signal_that_nobody_hears_ends_the_process,
    x11_what_was_ignored_at_the_start_stays_ignored,
];

fn the_first_signal_is_received() {
    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        Child::start("recv")
            .expect("ready")
            .send(signal)
            .expect(name)
            .expect_code(0);
    }
}

fn a_signal_from_before_the_runtime_is_kept() {
    Child::start("recv_later")
        .expect("ready")
        .send(Signal::TERM)
        .tell("go on")
        .expect("SIGTERM")
        .expect_code(0);
}

fn a_dropped_recv_loses_no_signal() {
    Child::start("recv_after_a_dropped_recv")
        .expect("ready")
        .send(Signal::TERM)
        .expect("SIGTERM")
        .expect_code(0);
}

fn a_second_sigint_exits_with_130() {
    Child::start("drain_for_ever")
        .expect("ready")
        .send(Signal::INT)
        .expect("SIGINT")
        .send(Signal::INT)
        .expect_code(130);
}

fn a_second_sigterm_exits_with_143() {
    Child::start("drain_for_ever")
        .expect("ready")
        .send(Signal::TERM)
        .expect("SIGTERM")
        .send(Signal::TERM)
        .expect_code(143);
}

fn the_second_signal_may_be_another_one_of_the_set() {
    Child::start("drain_for_ever")
        .expect("ready")
        .send(Signal::INT)
        .expect("SIGINT")
        .send(Signal::TERM)
        .expect_code(143);
    Child::start("drain_for_ever")
        .expect("ready")
        .send(Signal::TERM)
        .expect("SIGTERM")
        .send(Signal::INT)
        .expect_code(130);
}

fn after_a_drop_the_first_signal_does_not_kill_and_the_second_does() {
    let mut child = Child::start("drop");
    expect_nothing_came_of_it(child.expect("ready").send(Signal::TERM));
    child.send(Signal::INT).expect_code(130);
}

fn a_signal_that_nobody_heard_is_delivered_to_the_next_listener() {
    Child::start("drop_then_recv")
        .expect("dropped")
        .send(Signal::INT)
        .tell("go on")
        .expect("SIGINT")
        .expect_code(0);
}

fn a_watched_signal_never_ends_the_process() {
    let mut child = Child::start("watch");
    child.expect("ready");
    for _ in 0..2 {
        child.send(Signal::USR1).expect("SIGUSR1");
        child.send(Signal::TERM).expect("SIGTERM");
    }
    child.expect_code(0);
}

fn overlapping_sets_hear_the_same_first_signal() {
    Child::start("two")
        .expect("ready")
        .send(Signal::TERM)
        .expect("SIGTERM")
        .expect("SIGTERM")
        .send(Signal::HUP)
        .expect_code(129);
}

/// Counts in `/proc`, which other systems do not have.
fn dropped_values_leave_no_thread_and_no_file_behind() {
    if cfg!(target_os = "linux") {
        Child::start("many")
            .expect("nothing is left")
            .expect_code(0);
    }
}

fn a_signal_cancels_the_group_and_says_so() {
    let mut child = Child::start("group");
    child.expect("ready").send(Signal::INT);
    let line = child.expect_logged("received SIGINT");
    assert!(line.contains(
        "INFO taskgroup: received SIGINT, stopping; press Ctrl+C again to force the exit"
    ));
    assert!(line.contains("group=\"orders\" cause=received SIGINT signal=SIGINT"));
    child
        .expect("cancelled")
        .expect("received SIGINT")
        .expect_code(0);
}

fn a_signal_from_before_the_group_cancels_it() {
    Child::start("group_after_the_signal")
        .expect("ready")
        .send(Signal::TERM)
        .tell("go on")
        .expect("cancelled")
        .expect_code(0);
}

fn the_second_signal_forces_a_group_that_does_not_end() {
    for (first, second, code) in [
        (Signal::INT, Signal::INT, 130),
        (Signal::TERM, Signal::TERM, 143),
        (Signal::TERM, Signal::INT, 130),
    ] {
        Child::start("group_drains_for_ever")
            .expect("ready")
            .send(first)
            .expect("cancelled")
            .send(second)
            .expect_code(code);
    }
}

fn a_group_with_a_grace_ends_after_a_signal_though_a_task_is_deaf() {
    let mut child = Child::start("group_has_a_grace");
    child.expect("ready").send(Signal::TERM).expect_code(1);
    let said = child.rest_of_stderr();
    assert!(said.contains("did not stop within 50ms"), "{said}");
    assert!(said.contains("`deaf`"), "{said}");
}

fn the_second_signal_works_while_every_thread_of_the_runtime_is_blocked() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        Child::start("blocked_runtime")
            .expect("blocked")
            .expect("blocked")
            .expect("blocked")
            .send(signal)
            .expect("cancelled")
            .send(signal)
            .expect_code(code);
    }
}

fn the_second_signal_works_while_stderr_is_full() {
    for role in ["group_drains_for_ever", "blocked_runtime"] {
        let mut child = Child::start_with_full_stderr(role);
        while !["ready", "blocked"].contains(&&*child.line()) {}
        if role == "blocked_runtime" {
            child.expect("blocked").expect("blocked");
        }
        child
            .send(Signal::TERM)
            .expect("cancelled")
            .send(Signal::TERM)
            .expect_code(143);
    }
}

fn the_second_signal_works_after_the_group_is_over() {
    Child::start("passive_phase")
        .expect("ready")
        .send(Signal::TERM)
        .expect("cancelled")
        .expect("over")
        .send(Signal::TERM)
        .expect_code(143);
}

fn one_signal_stops_two_groups() {
    Child::start("two_groups")
        .expect("ready")
        .send(Signal::TERM)
        .expect("cancelled")
        .expect("cancelled")
        .expect_code(0);
}

fn a_signal_while_the_group_stops_already_says_so() {
    let mut child = Child::start("group_fails");
    child.expect("draining").send(Signal::TERM);
    child.expect_logged("received SIGTERM, stopping already; a second signal forces the exit");
    child.tell("go on").expect_code(1);
    assert!(
        child
            .rest_of_stderr()
            .contains("error: task `orders/worker` (")
    );
}

/// Looks into `/proc`, which other systems do not have.
fn a_listener_ends_with_its_group() {
    if cfg!(target_os = "linux") {
        Child::start("no_listener")
            .expect("listening")
            .expect("not listening")
            .expect_code(0);
    }
}

fn running_tasks_are_listed_and_nothing_stops() {
    let mut child = Child::start("list");
    child.expect("ready");
    for _ in 0..2 {
        let line = child.send(Signal::USR1).expect_logged("running: ");
        assert!(line.contains("running: 4 tasks: "), "{line}");
        assert!(
            line.contains("`orders/kafka` (tests/process/roles.rs:"),
            "{line}"
        );
        assert!(line.contains(") for "), "{line}");
        assert!(
            line.contains("3 × `orders` (tests/process/roles.rs:"),
            "{line}"
        );
    }
    child.send(Signal::TERM).expect_code(0);
}

fn running_tasks_are_listed_while_the_runtime_is_blocked() {
    let mut child = Child::start("blocked_runtime");
    child.expect("blocked").expect("blocked").expect("blocked");
    let line = child.send(Signal::USR1).expect_logged("running: ");
    assert!(
        line.contains("`orders/stuck` (tests/process/roles.rs:"),
        "{line}"
    );
}

fn a_log_that_panics_does_not_end_the_listener() {
    let mut child = Child::start("panicking_log");
    child.expect("ready");
    for _ in 0..3 {
        child.send(Signal::USR1).expect("logged");
    }
}

fn without_descriptors_nothing_is_armed_and_sigterm_kills() {
    Child::start("asked_without_descriptors")
        .expect("true")
        .send(Signal::TERM)
        .expect_killed_by(Signal::TERM);
}

/// Reads in `/proc` how much memory it has, which other systems do not have.
fn without_threads_nothing_is_armed_and_sigterm_kills() {
    if cfg!(target_os = "linux") {
        Child::start("asked_without_threads")
            .expect("true")
            .send(Signal::TERM)
            .expect_killed_by(Signal::TERM);
    }
}

fn a_signal_that_was_received_is_not_delivered_to_the_next_value() {
    Child::start("asked_of_the_next")
        .expect("ready")
        .send(Signal::TERM)
        .expect("SIGTERM")
        .expect("again")
        .send(Signal::INT)
        .expect("SIGINT")
        .expect_code(0);
}

/// What comes after the second mark has seen all that was sent before the first one.
#[track_caller]
fn expect_nothing_came_of_it(child: &mut Child) {
    for _ in 0..2 {
        child.send(Signal::USR2).expect("SIGUSR2");
    }
}

/// A Ctrl-C that a parent passes on as SIGTERM, and a supervisor that signals the process and its group.
fn x10_the_same_act_that_arrives_twice_is_one_stop() {
    for (first, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        let mut child = Child::start("asked_in_the_pause");
        child.expect("ready").send(first).expect(name);
        expect_nothing_came_of_it(child.send(Signal::TERM));
        expect_nothing_came_of_it(child.send(Signal::INT));
    }
}

fn x10_only_a_signal_that_was_chosen_insists() {
    let mut child = Child::start("asked_to_insist");
    child.expect("ready").send(Signal::TERM).expect("SIGTERM");
    for _ in 0..3 {
        expect_nothing_came_of_it(child.send(Signal::TERM));
    }
    child.send(Signal::INT).expect_code(130);
}

fn x10_no_log_promises_a_force_that_does_not_come() {
    let mut child = Child::start("asked_as_a_group_to_insist");
    let line = child.expect("ready").send(Signal::TERM);
    let line = line.expect_logged("received SIGTERM, stopping");
    assert!(
        line.contains("stopping; SIGINT forces the exit cause="),
        "{line}"
    );
    let mut child = Child::start("asked_as_a_group_for_ever");
    let line = child.expect("ready").send(Signal::TERM);
    let line = line.expect_logged("received SIGTERM, stopping");
    assert!(line.contains("received SIGTERM, stopping cause="), "{line}");
}

/// Signals it as fast as it answers.
fn x10_a_second_signal_counts_from_300_ms_on() {
    let mut child = Child::start("asked_by_default");
    let started = Instant::now();
    while child.line() == "alive" {
        child.send(Signal::TERM);
        child.try_tell("still there?");
    }
    assert!(started.elapsed() >= Duration::from_millis(300));
    child.expect_code(143);
}

fn x11_what_was_ignored_at_the_start_stays_ignored() {
    if cfg!(target_os = "linux") {
        Child::start_ignoring("asked_what_is_ignored", "INT HUP")
            .expect("ready")
            .send(Signal::INT)
            .send(Signal::HUP)
            .send(Signal::TERM)
            .expect("SIGTERM")
            .expect_code(0);
    }
}

fn x4_in_three_steps_two_signals_are_received_and_the_third_ends_the_process() {
    Child::start("asked_in_three_steps")
        .expect("ready")
        .send(Signal::TERM)
        .expect("SIGTERM")
        .send(Signal::TERM)
        .expect("SIGTERM")
        .send(Signal::TERM)
        .expect_code(143);
}

fn x4_in_three_steps_a_second_signal_aborts_a_group_and_names_what_was_cut() {
    let mut child = Child::start("asked_in_three_steps_of_a_group");
    child.expect("ready").send(Signal::INT).expect("cancelled");
    child.send(Signal::INT).expect_code(1);
    let said = child.rest_of_stderr();
    for line in [
        "received SIGINT, stopping; press Ctrl+C again to force the stop",
        "received SIGINT, forcing the stop; press Ctrl+C again to force the exit",
        "was aborted with 1 task: `deaf`",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

fn x4_in_three_steps_a_second_signal_that_nobody_hears_ends_the_process() {
    Child::start("asked_in_three_steps_after_the_group")
        .expect("ready")
        .send(Signal::TERM)
        .expect("cancelled")
        .expect("over")
        .send(Signal::TERM)
        .expect_code(143);
}
