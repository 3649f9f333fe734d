//! The harness, with shell scripts as the programs under test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use taskgroup::Signal;
use taskgroup::testing::{Binary, Load, Process, Reply};

fn sh(script: &str) -> Binary {
    Binary::new("sh").args(["-c", script])
}

/// The message of an assertion that fails.
#[track_caller]
fn failure<T>(test: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| drop(test()))).expect_err("it does not fail");
    panic.downcast_ref::<String>().expect("a message").clone()
}

const SERVES: &str =
    "trap 'echo stopping >&2; exit 3' TERM; echo ready; while :; do sleep 0.01; done";

#[test]
fn a_process_is_ready_stops_on_a_signal_and_says_how() {
    let process = sh(SERVES).start();
    assert_eq!(process.ready_line("ready"), "ready");
    assert!(process.catches(Signal::Terminate) || !cfg!(target_os = "linux"));
    process.signal(Signal::Terminate);
    let end = process.wait();
    end.assert_code(3)
        .assert_says("stopping")
        .assert_within(Duration::from_secs(20));
    assert_eq!((end.stdout(), end.killed_by()), ("ready\n", None));
}

#[test]
fn a_process_that_ends_before_it_is_ready_fails_the_test_at_once_with_the_whole_story() {
    let process = sh("echo 'no database' >&2; exit 7").start();
    let story = failure(|| process.ready_line("ready"));
    for part in [
        "ended without a line with \"ready\"",
        "\"sh\" \"-c\"",
        "stderr: no database",
        "has ended: exit status: 7",
    ] {
        assert!(story.contains(part), "{part:?} is not in:\n{story}");
    }
}

#[test]
fn a_wait_is_bounded() {
    let process = sh("sleep 600").patience(Duration::ZERO).start();
    let story = failure(|| process.until("the end of the world", |_| false));
    assert!(
        story.contains("the end of the world has not come within"),
        "{story}"
    );
    let story = failure(|| process.wait());
    assert!(story.contains("it has not ended within 0s"), "{story}");
}

#[test]
fn assertions_that_fail_tell_the_story() {
    let end = sh("echo one; echo two >&2; exit 1").start().wait();
    for message in [
        failure(|| end.assert_code(0).clone()),
        failure(|| end.assert_says("three").clone()),
        failure(|| end.assert_within(Duration::ZERO).clone()),
    ] {
        assert!(
            message.contains("stdout: one") && message.contains("stderr: two"),
            "{message}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_handler_has_taken_a_delivered_signal_and_one_that_is_blocked_is_pending() {
    let process = sh(SERVES).start();
    process.ready_line("ready");
    process.deliver(Signal::Terminate);
    process.wait().assert_code(3);

    // A stopped process takes nothing.
    let process = sh(SERVES).patience(Duration::from_millis(50)).start();
    process.until("the handler", |process| process.catches(Signal::Terminate));
    let pid = rustix::process::Pid::from_raw(process.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    process.until("the stopped process", |process| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()));
        status.unwrap().contains("T (stopped)")
    });
    let story = failure(|| process.deliver(Signal::Terminate));
    assert!(story.contains("it has not taken SIGTERM"), "{story}");
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_process_leaves_behind_is_named() {
    // The shell that forks is `sleep` only once it has executed it.
    let script = "sleep 600 >&- 2>&- & echo $! > pid; \
        until grep -q sleep /proc/$!/comm; do :; done; touch orders.sock";
    let end = sh(script).in_a_new_directory().start();
    let end = end.wait();
    let left = end.left();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left[0].ends_with(": sleep 600"), "{left:?}");
    assert_eq!(left[1..], ["file orders.sock", "file pid"]);
    assert!(failure(|| end.assert_nothing_left().clone()).contains("sleep 600"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_is_left_behind_is_named_with_its_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = "exec 3<&0; sleep 600 >&- 2>&- & until grep -q sleep /proc/$!/comm; do :; done";
    let process = sh(script).start_with(|command| {
        command.stdin(OwnedFd::from(listener));
    });
    let end = process.wait();
    let left = end.left();
    assert_eq!(left.len(), 2, "{left:?}");
    let listens = format!(": TCP socket that listens on {address}");
    assert!(left[1].ends_with(&listens), "{left:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_connection_has_sent_is_waited_for_until_it_is_read() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"GET").unwrap();
    let process = sh("sleep 600").patience(Duration::from_millis(20)).start();
    let unread = || failure(|| process.reads(&client));
    assert!(unread().contains("is not read"), "before it is accepted");
    let (mut server, _) = listener.accept().unwrap();
    assert!(unread().contains("is not read"), "before it is read");
    server.read_exact(&mut [0; 3]).unwrap();
    process.reads(&client);
}

#[cfg(target_os = "linux")]
#[test]
fn dropping_a_process_kills_its_group_and_removes_its_directory() {
    let process = sh("sleep 600 & echo $!; wait").in_a_new_directory().start();
    let pid = process.line("");
    let directory = process.directory().unwrap().to_owned();
    drop(process);
    assert!(!directory.exists());
    // It is a zombie at most, until init has waited for it.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(
        state.is_empty() || state.contains(") Z ") || state.contains(") X "),
        "{state}"
    );
}

#[test]
fn a_false_notify_socket_records_what_systemd_would_be_told() {
    let process = sh(SERVES).notified().start_with(|command| {
        let socket = command
            .get_envs()
            .find(|(name, _)| *name == "NOTIFY_SOCKET");
        let path = socket.unwrap().1.unwrap().to_owned();
        // In place of the program, which is a shell and has no sockets.
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"READY=1\nMAINPID=17", &path).unwrap();
        sender.send_to(b"STOPPING=1", &path).unwrap();
    });
    process.ready_notify();
    process.until("the end", |process| process.notified().len() == 3);
    assert_eq!(process.notified(), ["READY=1", "MAINPID=17", "STOPPING=1"]);
}

#[test]
fn a_port_and_an_answer_make_it_ready() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        for status in ["", "503 Unready", "200 OK"] {
            let (mut client, _) = listener.accept().unwrap();
            if !status.is_empty() {
                let _ = client.read(&mut [0; 1024]).unwrap();
                write!(client, "HTTP/1.1 {status}\r\n\r\n").unwrap();
            }
        }
    });
    let process = sh(SERVES).start();
    process.ready_port(address);
    process.ready_http(address, "/readyz");
    server.join().unwrap();
}

#[test]
fn a_second_generation_starts_beside_the_first() {
    let binary = sh(SERVES);
    let (old, new) = (binary.start(), binary.start());
    assert_ne!(old.id(), new.id());
    new.ready_line("ready");
    old.ready_line("ready");
    old.insist(Signal::Terminate).assert_code(3);
    assert!(
        new.story()
            .lines()
            .iter()
            .all(|line| !line.contains("has ended"))
    );
}

/// As a background job of a shell script does, which ignores SIGINT.
#[cfg(target_os = "linux")]
#[test]
fn signals_that_the_tests_ignore_are_not_ignored_by_the_program() {
    let this = std::env::current_exe().unwrap();
    let script = format!(
        "trap '' INT TERM; exec {} --exact process::plays_a_test_that_ignores_signals --ignored",
        this.display()
    );
    sh(&script).start().wait().assert_code(0);
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "another test runs it, with signals ignored"]
fn plays_a_test_that_ignores_signals() {
    let process: Process = sh("echo ready; exec sleep 600").start();
    process.line("ready");
    process.signal(Signal::Interrupt);
    assert_eq!(process.wait().killed_by(), Some(2));
}

#[test]
fn a_load_counts_what_is_done_and_what_is_lost() {
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let load = Load::start(1, move || {
        let turn = turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            match turn {
                0 | 2 => Ok(Reply::Done),
                1 => Err("reset".into()),
                _ => Ok(Reply::Refused),
            }
        }
    });
    load.reaches(2);
    assert!(failure(|| load.reaches(3)).contains("2 of 3 requests are done"));
    let loaded = load.end();
    assert_eq!(
        (loaded.done(), loaded.lost()),
        (2, ["reset".to_owned()].as_slice())
    );
    assert!(failure(|| loaded.assert_nothing_lost().clone()).contains("1 of 3 requests were lost"));
}

#[test]
fn an_http_load_tells_a_cut_answer_from_a_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let load = Load::http(1, address, "/");
    use std::io::{Read, Write};
    for answer in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 503 Busy\r\n\r\n",
        "HTTP/1.1 200",
    ] {
        let (mut client, _) = listener.accept().unwrap();
        let _ = client.read(&mut [0; 1024]).unwrap();
        client.write_all(answer.as_bytes()).unwrap();
    }
    drop(listener);
    assert!(failure(|| load.reaches(2)).contains("0 clients go on"));
    let loaded = load.end();
    assert_eq!(loaded.done(), 1);
    assert!(loaded.lost().len() >= 2, "{loaded:?}");
    assert!(
        loaded.lost()[0].contains("503") && loaded.lost()[1].contains("no answer"),
        "{loaded:?}"
    );
}
