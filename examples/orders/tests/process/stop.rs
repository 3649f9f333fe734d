//! The way out, asked for by a signal.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::database::Lock;
use crate::http::{self, InFlight};
use crate::service::{AT_ONCE, STOP_SIGNALS, Service, Signal, fresh_path, wait_until};

#[test]
fn a_signal_when_idle_ends_it_with_0_within_a_second() {
    for (signal, _) in STOP_SIGNALS {
        // A busy machine gets three attempts at the second.
        let took = (0..3).map(|_| {
            let service = Service::start(&["--grace", "30"]);
            let begin = Instant::now();
            service.signal(signal);
            service.wait().assert_code(0);
            begin.elapsed()
        });
        let took: Vec<_> = took.collect();
        assert!(
            took.iter().any(|took| *took < Duration::from_secs(1)),
            "{took:?}"
        );
    }
}

#[test]
fn a_connection_without_a_request_does_not_hold_it_up() {
    let service = Service::start(&["--grace", "30"]);
    let _silent = TcpStream::connect(service.http).unwrap();
    assert_eq!(http::get(service.http, "/livez").unwrap().status, 200);
    let begin = Instant::now();
    service.signal(Signal::Terminate);
    service.wait().assert_code(0);
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

#[test]
fn half_a_request_does_not_hold_it_up() {
    let service = Service::start(&["--grace", "30"]);
    let half = http::half(&service, "/livez");
    let begin = Instant::now();
    service.signal(Signal::Terminate);
    service.wait().assert_code(0);
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    drop(half);
}

#[test]
fn half_a_request_has_the_idle_grace_to_become_a_whole_one() {
    let service = Service::start(&["--grace", "60", "--idle-grace", "30"]);
    let half = http::half(&service, "/livez");
    service.signal(Signal::Terminate);
    // Longer than the default, with what comes before it. The clock of the service is the real one.
    thread::sleep(Duration::from_secs(2));
    assert_eq!(half.finish().expect("an answer").status, 200);
    service.wait().assert_code(0);
}

#[test]
fn it_is_live_and_not_ready_from_the_first_moment_of_the_stop() {
    let service = Service::start(&["--grace", "60", "--idle-grace", "30"]);
    // Nobody can connect in the drain, so these two have done so before.
    let live = http::half(&service, "/livez");
    let ready = http::half(&service, "/readyz");
    service.begin_to_stop(Signal::Terminate);
    let ready = ready.finish().expect("an answer");
    assert_eq!((ready.status, ready.body.as_str()), (503, "draining"));
    assert_eq!(live.finish().expect("an answer").status, 200);
    service.wait().assert_code(0);
}

#[test]
fn the_stop_begins_at_once() {
    let service = Service::start(&["--grace", "60"]);
    let slow = http::in_flight(&service, "/slow?ms=60000");
    let begin = Instant::now();
    service.signal(Signal::Terminate);
    wait_until("the closed socket", || {
        TcpStream::connect(service.http).is_err()
    });
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    service.insist(Signal::Terminate).assert_code(143);
    drop(slow);
}

#[test]
fn a_request_in_flight_is_answered() {
    for (signal, _) in STOP_SIGNALS {
        let service = Service::start(&[]);
        let slow = http::in_flight(&service, "/slow?ms=1500");
        service.begin_to_stop(signal);
        assert_eq!(slow.answer().expect("an answer").status, 200);
        service.wait().assert_code(0);
    }
}

#[test]
fn a_request_that_outlasts_the_grace_is_a_failure_of_its_server() {
    for (signal, _) in STOP_SIGNALS {
        let service = Service::start(&["--grace", "1"]);
        let slow = http::in_flight(&service, "/slow?ms=60000");
        let begin = Instant::now();
        service.signal(signal);
        assert_eq!(slow.answer().expect("an answer").status, 503);
        let end = service.wait();
        let took = begin.elapsed();
        end.assert_code(1);
        end.assert_says(
            "server `http` was given 1s to drain: \
             1 request on 1 connection was cut (GET /slow)",
        );
        end.assert_says("server `grpc` drained");
        assert!(took >= Duration::from_secs(1), "{took:?}");
        assert!(took < AT_ONCE, "{took:?}");
    }
}

/// The back waits for the database, which somebody else keeps locked.
#[test]
fn a_call_that_would_outlast_the_drain_is_given_up_in_time_for_an_answer() {
    let path = format!("sqlite:{}", fresh_path("sqlite").display());
    let service = Service::start(&["--db", &path, "--grace", "2.5"]);
    let lock = Lock::of(&path);
    let order = http::send(
        service.http,
        "POST",
        "/orders",
        r#"{"item":"tea","quantity":1}"#,
    );
    service.begin_to_stop(Signal::Terminate);
    let answer = order.and_then(InFlight::answer).expect("an answer");
    assert_eq!(answer.status, 504, "{answer:?}");
    let told = answer.body.contains("the deadline of the stop passed");
    assert!(told, "{answer:?}");
    lock.release();
    service.wait().assert_code(0);
}

#[test]
fn an_event_stream_ends_with_the_stop() {
    let service = Service::start(&["--grace", "30"]);
    let mut events = http::send(service.http, "GET", "/events", "").unwrap();
    let mut seen = String::new();
    while !seen.contains("data: 0") {
        seen += &events.some().expect("the first event");
    }
    assert!(seen.starts_with("HTTP/1.1 200 OK"), "{seen}");

    let begin = Instant::now();
    service.signal(Signal::Terminate);
    // The last chunk of a body that is complete.
    assert!(
        events
            .rest()
            .expect("the end of the stream")
            .ends_with("0\r\n\r\n")
    );
    service.wait().assert_code(0);
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

#[test]
fn a_second_signal_while_it_drains_forces_the_exit() {
    for (signal, code) in STOP_SIGNALS {
        let service = Service::start(&["--grace", "60"]);
        let _slow = http::in_flight(&service, "/slow?ms=60000");
        service.begin_to_stop(signal);
        let begin = Instant::now();
        service.insist(signal).assert_code(code);
        assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    }
}

#[test]
fn a_second_signal_of_the_other_kind_forces_the_exit_too() {
    let service = Service::start(&["--grace", "60"]);
    let _slow = http::in_flight(&service, "/slow?ms=60000");
    service.begin_to_stop(Signal::Terminate);
    service.insist(Signal::Interrupt).assert_code(130);
}

#[test]
fn a_second_signal_forces_the_exit_with_every_runtime_thread_blocked() {
    for (signal, code) in STOP_SIGNALS {
        let service = Service::start(&["--faults", "--grace", "60"]);
        let block = http::send(service.http, "POST", "/faults/block-runtime?ms=60000", "");
        service.process.line("every thread of the runtime sleeps");
        service.signal(signal);
        let begin = Instant::now();
        service.insist(signal).assert_code(code);
        assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
        drop(block);
    }
}

#[test]
fn sigusr1_lists_the_running_tasks_and_stops_nothing() {
    let service = Service::start(&[]);
    for lists in 1..=2 {
        service.signal(Signal::User1);
        wait_until("the list", || {
            let stderr = service.process.stderr();
            stderr.lines().filter(|line| names_all_tasks(line)).count() == lists
        });
        assert_eq!(http::get(service.http, "/livez").unwrap().status, 200);
    }
    service.signal(Signal::Terminate);
    service.wait().assert_code(0);
}

#[test]
fn sigusr1_lists_the_tasks_that_a_drain_waits_for() {
    let service = Service::start(&["--grace", "60"]);
    let slow = http::in_flight(&service, "/slow?ms=60000");
    service.begin_to_stop(Signal::Terminate);
    // The worker says that it has stopped a moment before it is gone, so a list may still have it.
    let mut list = None;
    wait_until("a list without the worker", || {
        service.signal(Signal::User1);
        let stderr = service.process.stderr();
        let mut lists = stderr.lines().filter(|line| line.contains("SIGUSR1"));
        list = lists
            .find(|list| !list.contains("`orders/worker"))
            .map(str::to_owned);
        list.is_some()
    });
    let list = list.expect("a line");
    for left in [
        "`orders/http/run`",
        "`orders/grpc/run`",
        "`orders/metrics/run`",
    ] {
        assert!(list.contains(left), "{left}: {list}");
    }
    service.insist(Signal::Terminate).assert_code(143);
    drop(slow);
}

fn names_all_tasks(line: &str) -> bool {
    line.contains("SIGUSR1")
        && [
            "`orders/http/run`",
            "`orders/grpc/run`",
            "`orders/worker/run`",
        ]
        .iter()
        .all(|it| line.contains(it))
}
