//! `Watchdog` with an end that is not the end; what it does to a process is in tests/process.

use std::future::pending;
use std::io;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvError;
use std::sync::mpsc::Sender;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;
use std::time::Instant;

use taskgroup::process::{ArmedWatchdog, Watchdog};
use taskgroup::{CancellationToken, TaskGroup};

const SOON: Duration = Duration::from_millis(20);

#[derive(Debug, PartialEq)]
enum Event {
    Reported(String),
    Ended(u8),
}

use Event::Ended;
use Event::Reported;

/// A watchdog and what it does. When its thread is over, nothing more can come.
fn watchdog(budget: Duration) -> (Watchdog, Receiver<Event>) {
    let (sender, events) = mpsc::channel();
    let report = send_to(&sender);
    let exit = send_to(&sender);
    let watchdog = Watchdog::new(budget)
        .report_with(move |line| report(Reported(line.to_owned())))
        .exit_with(move |code| exit(Ended(code)));
    (watchdog, events)
}

fn send_to(sender: &Sender<Event>) -> impl Fn(Event) + Send + 'static {
    let sender = sender.clone();
    move |event| sender.send(event).unwrap()
}

fn armed(budget: Duration, token: &CancellationToken) -> (ArmedWatchdog, Receiver<Event>) {
    let (watchdog, events) = watchdog(budget);
    (watchdog.arm_on(token).unwrap(), events)
}

fn fired() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}

#[track_caller]
fn report_of(events: &Receiver<Event>) -> String {
    match events.recv() {
        Ok(Reported(line)) => line,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_reports_and_then_ends_once_when_the_budget_after_the_token_is_over() {
    let token = CancellationToken::new();
    let (_armed, events) = armed(SOON, &token);
    assert_eq!(events.try_recv(), Err(TryRecvError::Empty));

    let stopped = Instant::now();
    token.cancel();

    let report = report_of(&events);
    assert!(stopped.elapsed() >= SOON);
    assert_eq!(
        report,
        "error: the process did not stop within 20ms and is ended"
    );
    assert_eq!(events.recv(), Ok(Ended(1)));
    assert_eq!(events.recv(), Err(RecvError));
}

#[test]
fn a_token_that_has_fired_before_counts_from_the_arming() {
    let armed_at = Instant::now();
    let (_armed, events) = armed(SOON, &fired());

    report_of(&events);
    assert!(armed_at.elapsed() >= SOON);
    assert_eq!(events.recv(), Ok(Ended(1)));
}

#[test]
fn a_budget_of_zero_is_over_at_once() {
    let token = CancellationToken::new();
    let (_armed, events) = armed(Duration::ZERO, &token);
    token.cancel();
    assert_eq!(
        report_of(&events),
        "error: the process did not stop within 0s and is ended"
    );
    assert_eq!(events.recv(), Ok(Ended(1)));
}

#[test]
fn the_longest_budget_is_never_over() {
    let token = fired();
    let (longest, nothing) = armed(Duration::MAX, &token);
    let (_other, events) = armed(SOON, &token);
    report_of(&events);
    assert_eq!(nothing.try_recv(), Err(TryRecvError::Empty));

    drop(longest);
    assert_eq!(nothing.recv(), Err(RecvError));
}

#[test]
fn a_drop_before_the_token_disarms_it_and_ends_its_thread() {
    let token = CancellationToken::new();
    let (armed, events) = armed(Duration::ZERO, &token);

    drop(armed);

    // The thread has dropped all it had, and the token is still to come.
    assert_eq!(events.recv(), Err(RecvError));
    token.cancel();
}

#[test]
fn a_drop_within_the_budget_disarms_it_and_ends_its_thread() {
    let (armed, events) = armed(Duration::from_secs(3600), &fired());

    drop(armed);

    assert_eq!(events.recv(), Err(RecvError));
}

#[test]
fn a_token_that_fires_after_the_drop_changes_nothing() {
    let token = CancellationToken::new();
    let (dropped, nothing) = armed(Duration::ZERO, &token);
    let (_kept, events) = armed(SOON, &token);

    drop(dropped);
    token.cancel();

    report_of(&events);
    assert_eq!(nothing.recv(), Err(RecvError));
}

#[test]
fn a_kept_watchdog_stays_armed_without_an_owner() {
    let token = CancellationToken::new();
    let (armed, events) = armed(SOON, &token);

    armed.keep();
    token.cancel();

    report_of(&events);
    assert_eq!(events.recv(), Ok(Ended(1)));
}

#[test]
fn two_on_one_token_end_each_in_its_time() {
    let token = CancellationToken::new();
    let (_later, last) = armed(2 * SOON, &token);
    let (_sooner, first) = armed(SOON, &token);
    token.cancel();

    for events in [first, last] {
        report_of(&events);
        assert_eq!(events.recv(), Ok(Ended(1)));
    }
}

#[test]
fn the_status_can_be_chosen_and_is_not_a_success() {
    let (watchdog, events) = watchdog(Duration::ZERO);
    let _armed = watchdog.code(70).arm_on(&fired()).unwrap();
    report_of(&events);
    assert_eq!(events.recv(), Ok(Ended(70)));

    let error = Watchdog::new(SOON).code(0).arm_on(&fired()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(
        error.to_string(),
        "a watchdog: `code` cannot be 0: a forced end is no success"
    );
}

#[test]
fn a_report_that_panics_does_not_hold_the_end() {
    let (watchdog, events) = watchdog(Duration::ZERO);
    let _armed = watchdog
        .report_with(|_| panic!("the log is gone"))
        .arm_on(&fired())
        .unwrap();

    assert_eq!(events.recv(), Ok(Ended(1)));
}

#[test]
fn a_report_that_hangs_does_not_hold_the_end() {
    let (_open, for_ever) = mpsc::channel::<()>();
    let (watchdog, events) = watchdog(Duration::ZERO);
    let _armed = watchdog
        .report_with(move |_| for_ever.recv().unwrap())
        .arm_on(&fired())
        .unwrap();

    assert_eq!(events.recv(), Ok(Ended(1)));
}

#[tokio::test]
async fn the_report_names_the_cause_and_the_running_tasks_of_child_groups_too() {
    let group = TaskGroup::builder().name("orders").build().unwrap();
    let child = group.child("http");
    group.task("kafka").spawn(pending::<Result<(), _>>());
    child.task("accept").spawn(pending::<Result<(), _>>());
    child.spawn(pending::<Result<(), _>>());
    let (watchdog, events) = watchdog(SOON);
    let _armed = watchdog.arm(&group).unwrap();

    group.cancel_because("the lease was lost");

    let report = report_of(&events);
    let cause = "within 20ms (cancelled on request: the lease was lost) and is ended; ";
    assert!(report.contains(cause), "{report}");
    assert!(report.contains("still running: 3 tasks: "), "{report}");
    for task in [
        "`orders/kafka`",
        "`orders/http/accept`",
        "1 × `orders/http`",
    ] {
        assert!(
            report.contains(&format!("{task} (tests/watchdog.rs:")),
            "{report}"
        );
    }
    assert!(report.contains(") for "), "{report}");
}

#[tokio::test]
async fn the_token_of_a_group_fires_when_the_group_is_dropped() {
    let group = TaskGroup::new();
    let (watchdog, events) = watchdog(Duration::ZERO);
    let _armed = watchdog.arm(&group).unwrap();

    drop(group);

    assert_eq!(
        report_of(&events),
        "error: the process did not stop within 0s (the group was dropped) and is ended; no task \
         of the group is running"
    );
}

#[test]
fn a_plan_prints_and_everything_is_send() {
    fn check<T: Send>(_: &T) {}
    let plan = Watchdog::new(SOON).code(70);
    check(&plan);
    assert_eq!(
        format!("{plan:?}"),
        "Watchdog { budget: 20ms, code: 70, .. }"
    );
    check(&plan.arm_on(&CancellationToken::new()).unwrap());
}
