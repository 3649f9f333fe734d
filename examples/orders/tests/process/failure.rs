//! The way out when something fails, and when nobody reads what is said about it.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use crate::http;
use crate::service::{Service, Signal, orders_on_free_ports, unread};

#[test]
fn a_worker_that_ends_in_any_way_ends_the_service_after_the_requests_in_flight() {
    for fault in ["worker-error", "worker-panic", "worker-end"] {
        let service = Service::start(&["--faults"]);
        let slow = http::in_flight(&service, "/slow?ms=700");
        let asked = http::post(service.http, &format!("/faults/{fault}"), "");
        assert_eq!(asked.expect("an answer").status, 202);
        assert_eq!(slow.answer().expect("an answer").status, 200, "{fault}");
        let end = service.wait();
        end.assert_code(1);
        end.assert_says("error: component `worker` ");
    }
}

#[test]
fn a_handler_that_panics_costs_its_connection_and_nothing_else() {
    let service = Service::start(&["--faults"]);
    let error = http::post(service.http, "/faults/handler-panic", "").expect_err("no answer");
    assert!(error.to_string().contains("not an answer: \"\""), "{error}");
    assert_eq!(http::get(service.http, "/livez").unwrap().status, 200);
    service.signal(Signal::Terminate);
    service.wait().assert_code(0);
}

#[test]
fn the_exit_code_is_right_when_nobody_has_ever_read_its_output() {
    let stopped = orders_on_free_ports(&[]).start_with(unread);
    stopped.until("the handlers", |stopped| stopped.catches(Signal::Terminate));
    // It has a moment to write to the pipes that are closed. At any other time it would end as well.
    thread::sleep(Duration::from_millis(200));
    stopped.signal(Signal::Terminate);
    stopped.wait().assert_code(0);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let failed = orders_on_free_ports(&["--http", &address]);
    failed.start_with(unread).wait().assert_code(1);
}

#[test]
fn the_exit_code_is_right_when_the_readers_go_away_while_it_serves() {
    for (path, code) in [("/faults/worker-panic", 1), ("/livez", 0)] {
        let service = Service::start_with_readers_that_leave(&["--faults"]);
        http::get(service.http, path).unwrap();
        if code == 0 {
            service.signal(Signal::Terminate);
        }
        service.wait().assert_code(code);
    }
}
