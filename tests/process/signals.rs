//! Signals as the parent sends them.

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
    Child::start("drop")
        .expect("alive")
        .send(Signal::TERM)
        .tell("still there?")
        .expect("alive")
        .send(Signal::INT)
        .expect_code(130);
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
