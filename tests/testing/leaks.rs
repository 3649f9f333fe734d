//! The guard names what is left, and nothing else.
//!
//! Tests of this binary run beside each other, so what belongs to the process is looked at in a child: the
//! same binary with `--exact`.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use taskgroup::testing::Leaks;
use taskgroup::{BoxError, TaskGroup};
use tokio::sync::oneshot;

/// Nothing goes away by itself in these tests.
fn at_once(leaks: Leaks) -> Leaks {
    leaks.patience(Duration::ZERO)
}

#[tokio::test]
async fn tasks_of_a_group_are_left_by_name_and_place() {
    let leaks = at_once(Leaks::watch());
    let group = TaskGroup::builder().name("orders").build().unwrap();
    group
        .task("mail")
        .spawn(std::future::pending::<Result<(), BoxError>>());
    group.spawn(std::future::pending::<Result<(), BoxError>>());
    let left = leaks.left();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(
        left[0].starts_with("task `orders/mail` (tests/testing/leaks.rs:"),
        "{left:?}"
    );
    assert!(
        left[1].starts_with("task 1 × `orders` (tests/testing/leaks.rs:"),
        "{left:?}"
    );

    drop(group);
    leaks.patience(Duration::from_secs(10)).check().await;
}

#[tokio::test]
async fn raw_tasks_are_left_by_their_number() {
    let earlier = tokio::spawn(std::future::pending::<()>());
    let leaks = Leaks::watch();
    let tasks = [(); 2].map(|()| tokio::spawn(std::future::pending::<()>()));
    assert_eq!(leaks.left(), ["2 tasks of a plain `tokio::spawn`"]);
    tasks.iter().for_each(|task| task.abort());
    leaks.check().await;
    earlier.abort();
}

#[tokio::test]
#[should_panic = "1 task of a plain `tokio::spawn`"]
async fn a_check_fails_when_the_patience_is_over() {
    let leaks = at_once(Leaks::watch());
    tokio::spawn(std::future::pending::<()>());
    leaks.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_drop_waits_for_a_task_that_is_about_to_end() {
    let _leaks = Leaks::watch();
    let (sender, receiver) = oneshot::channel::<()>();
    tokio::spawn(receiver);
    // A worker drops the task, while the drop of the guard waits on this thread.
    drop(sender);
}

#[tokio::test]
#[should_panic = "the failure of the test"]
async fn a_test_that_fails_keeps_its_own_failure() {
    let _leaks = at_once(Leaks::watch());
    tokio::spawn(std::future::pending::<()>());
    panic!("the failure of the test");
}

#[tokio::test]
async fn an_ignored_line_is_not_a_leak() {
    let leaks = Leaks::watch().ignore("a plain `tokio::spawn`");
    tokio::spawn(std::future::pending::<()>());
    leaks.check().await;
}

/// Runs one of the ignored tests below, which fails, in a process of its own, and returns what it says.
#[cfg(target_os = "linux")]
fn in_a_process(test: &str, options: &[&str]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = format!("leaks::{test}");
    command
        .args([&name, "--ignored", "--nocapture"])
        .args(options);
    // What a runner of tests may have set.
    command
        .env_remove("NEXTEST")
        .env_remove("RUST_TEST_THREADS");
    let output = command.output().unwrap();
    assert!(!output.status.success(), "it has not failed");
    String::from_utf8(output.stderr).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_guard_that_has_to_be_alone_fails_beside_another() {
    let said = in_a_process("has_another_guard_beside_it", &[]);
    let why = "child processes were not compared: another test had a guard at the same time";
    assert!(said.contains(why), "{said}");
}

#[test]
#[ignore = "it fails: another test runs it"]
fn has_another_guard_beside_it() {
    let _other = Leaks::watch();
    drop(at_once(Leaks::watch().alone()));
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_process_leaves_is_named_by_its_kind() {
    let said = in_a_process("leaves_a_bit_of_everything", &["--exact"]);
    for line in [
        "descriptor ",
        ": /dev/null",
        ": TCP socket that listens on 127.0.0.1:",
        ": TCP socket 127.0.0.1:",
        ": sleep 600",
        "`left-behind`",
    ] {
        assert!(said.contains(line), "{line:?} is not in:\n{said}");
    }
    assert!(
        !said.contains("taskgroup-") && !said.contains("tokio"),
        "{said}"
    );
}

#[test]
#[ignore = "it leaves things behind: another test runs it"]
fn leaves_a_bit_of_everything() {
    let before = std::fs::File::open("/dev/zero").unwrap();
    let leaks = at_once(Leaks::watch().alone());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let thread = std::thread::Builder::new().name("left-behind".into());
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (started, has_started) = std::sync::mpsc::channel();
    let thread = thread.spawn(move || {
        started.send(()).unwrap();
        let _ = released.recv();
    });
    has_started.recv().unwrap();
    let left = leaks.left();
    child.kill().unwrap();
    child.wait().unwrap();
    drop(release);
    thread.unwrap().join().unwrap();
    drop((before, listener, client, file));
    // Now nothing is left.
    drop(leaks.patience(Duration::from_secs(10)));
    panic!("left: {left:#?}");
}
