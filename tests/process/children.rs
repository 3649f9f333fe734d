//! The child processes of a process whose exit is forced.

use std::time::Duration;

use taskgroup::process::Watchdog;
use taskgroup::{Exit, Sidecar, TaskGroup};
use tokio::process::Command;

use crate::child::Child;
use crate::hangs::BUDGET;
use crate::hangs::hang;
use crate::roles::runtime;
use crate::roles::stopped_by_signals;
use crate::tests;

use rustix::process::Signal;

tests![
    x12_a_second_signal_tells_and_kills_the_group_of_a_child,
    x12_a_second_signal_kills_the_group_of_a_child_while_the_runtime_is_blocked,
    x12_a_third_signal_kills_it_too,
    x12_a_program_whose_worker_is_blocked_leaves_no_child_behind,
    x12_the_watchdog_tells_names_and_kills_the_group_of_a_child,
];

/// Says each SIGTERM and goes on; the other process of its group never hears of it.
const DEAF: &str =
    "trap 'echo told' TERM; sleep 20 & echo up; while kill -0 $! 2>/dev/null; do wait; done";

pub(crate) fn play(role: &str) -> Exit {
    if role == "children_of_a_program" {
        return of_a_program();
    }
    runtime().block_on(async {
        let mut group = stopped_by_signals();
        match role {
            "children_deaf" => deaf_child(&group),
            "children_blocked" => {
                deaf_child(&group);
                block(&group);
                block(&group);
            }
            "children_watched" => {
                Watchdog::new(BUDGET).arm(&group).unwrap().keep();
                deaf_child(&group);
            }
            _ => unreachable!("no role {role}"),
        }
        Exit::from(group.wait().await)
    })
}

fn deaf_child(group: &TaskGroup) {
    let mut command = Command::new("sh");
    command.args(["-c", DEAF]);
    // No grace ends it before the process is forced.
    let cache = Sidecar::new("cache").grace(Duration::MAX);
    group.spawn(cache.serve_process(group.token(), command));
}

/// Its body is over while the task of the child has no thread to be dropped on.
fn of_a_program() -> Exit {
    taskgroup::Program::new()
        .worker_threads(1)
        .run(async |signals| {
            let group = TaskGroup::new();
            group.cancel_on(signals);
            deaf_child(&group);
            let (go, goes) = tokio::sync::oneshot::channel();
            group.spawn(async move {
                goes.await?;
                Ok(hang())
            });
            tokio::task::spawn_blocking(crate::roles::listen).await?;
            let _ = go.send(());
            tokio::task::spawn_blocking(crate::roles::listen).await?;
            Ok::<_, taskgroup::BoxError>(())
        })
}

/// Blocks a thread of the runtime when the stop begins.
fn block(group: &TaskGroup) {
    let token = group.token().clone();
    group.spawn(async move {
        token.cancelled().await;
        // What runs beside it has had its turn: the child is told.
        tokio::task::yield_now().await;
        Ok(hang())
    });
}

/// All that have its stdout are gone, or there would be no end of it.
#[track_caller]
fn expect_no_process(child: &mut Child) {
    while !child.line().is_empty() {}
}

fn x12_a_second_signal_tells_and_kills_the_group_of_a_child() {
    let mut child = Child::start("children_deaf");
    child
        .expect("up")
        .send(Signal::TERM)
        .expect("told")
        .send(Signal::TERM)
        .expect("told")
        .expect_code(143);
    expect_no_process(&mut child);
}

fn x12_a_second_signal_kills_the_group_of_a_child_while_the_runtime_is_blocked() {
    let mut child = Child::start("children_blocked");
    child.expect("up").send(Signal::TERM);
    while child.line() != "hanging" {}
    child.send(Signal::TERM).expect_code(143);
    expect_no_process(&mut child);
}

fn x12_a_third_signal_kills_it_too() {
    let mut child = Child::start("children_deaf");
    child
        .expect("up")
        .send(Signal::TERM)
        .expect("told")
        .send(Signal::TERM)
        .expect("told")
        .send(Signal::INT)
        .expect_code(143);
    expect_no_process(&mut child);
}

fn x12_a_program_whose_worker_is_blocked_leaves_no_child_behind() {
    let mut child = Child::start("children_of_a_program");
    child.expect("up").tell("block").expect("hanging");
    child.tell("end").expect_code(0);
    expect_no_process(&mut child);
}

fn x12_the_watchdog_tells_names_and_kills_the_group_of_a_child() {
    let mut child = Child::start("children_watched");
    child
        .expect("up")
        .send(Signal::TERM)
        .expect("told")
        .expect("told")
        .expect_code(1);
    let report = child.rest_of_stderr();
    assert!(report.contains("; ended with it: process "), "{report}");
    assert!(report.ends_with(" (`sh`)\n"), "{report}");
    expect_no_process(&mut child);
}
