//! The end of a stop that would not end by itself.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use taskgroup::testing::Ended;

use crate::http;
use crate::service::{AT_ONCE, Service, Signal, orders_on_free_ports};

const BUDGET: Duration = Duration::from_secs(3);
const OPTIONS: [&str; 3] = ["--faults", "--budget", "3"];

const ENDED: &str =
    "error: the process did not stop within 3s (received SIGTERM) and is ended; still running: ";

/// Stops it, and sees that it is gone with the budget.
#[track_caller]
fn ends_with_the_budget(service: &Service) -> Ended {
    let begin = Instant::now();
    service.signal(Signal::Terminate);
    let end = service.wait();
    let took = begin.elapsed();
    end.assert_code(1);
    assert!(took >= BUDGET, "{took:?}: {}", end.stderr());
    assert!(took < BUDGET + AT_ONCE, "{took:?}");
    end
}

#[test]
fn a_runtime_that_is_blocked_is_ended_with_the_budget_and_named() {
    let service = Service::start(&OPTIONS);
    let block = http::send(service.http, "POST", "/faults/block-runtime?ms=60000", "");
    service.process.line("every thread of the runtime sleeps");
    let end = ends_with_the_budget(&service);
    end.assert_says(ENDED);
    end.assert_says("`orders/http/run`");
    drop(block);
}

/// The other threads of the runtime do the rest, so that the watchdog has nothing to end. There is
/// another one always: `taskgroup::main` makes two at least.
#[test]
fn a_component_that_holds_a_thread_is_given_up_and_named() {
    for threads in ["1", "4"] {
        let binary = orders_on_free_ports(&OPTIONS).env("TOKIO_WORKER_THREADS", threads);
        let service = Service::start_with(&binary);
        let asked = http::post(service.http, "/faults/worker-block", "");
        assert_eq!(asked.expect("an answer").status, 202);
        service.process.line("the worker sleeps");
        let begin = Instant::now();
        service.signal(Signal::Terminate);
        let end = service.wait();
        let took = begin.elapsed();
        end.assert_code(1);
        end.assert_says("error: component `worker` did not stop within ");
        assert!(!end.stderr().contains(ENDED), "{}", end.stderr());
        assert!(took < BUDGET + AT_ONCE, "{took:?}");
    }
}

/// Nothing that is written to it goes through, not the line of the watchdog either.
#[test]
fn a_full_stderr_does_not_hold_up_the_end() {
    let (unread, stderr) = UnixStream::pair().unwrap();
    let theirs = OwnedFd::from(stderr.try_clone().unwrap());
    let service = Service::start_changed(&orders_on_free_ports(&OPTIONS), |command| {
        command.stderr(theirs);
    });
    let block = http::send(service.http, "POST", "/faults/block-runtime?ms=60000", "");
    let mut unread = BufReader::new(unread);
    let mut line = String::new();
    while !line.contains("every thread of the runtime sleeps") {
        line.clear();
        assert_ne!(unread.read_line(&mut line).unwrap(), 0);
    }
    fill(&stderr);
    ends_with_the_budget(&service);
    drop((block, unread));
}

#[test]
fn a_full_stderr_alone_does_not_hold_up_the_end() {
    let (unread, stderr) = UnixStream::pair().unwrap();
    let theirs = OwnedFd::from(stderr.try_clone().unwrap());
    let service = Service::start_changed(&orders_on_free_ports(&OPTIONS), |command| {
        command.stderr(theirs);
    });
    fill(&stderr);
    ends_with_the_budget(&service);
    drop(unread);
}

fn fill(mut stream: &UnixStream) {
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[b'x'; 4096]).is_ok() {}
    while stream.write(b"x").is_ok() {}
    stream.set_nonblocking(false).unwrap();
}
