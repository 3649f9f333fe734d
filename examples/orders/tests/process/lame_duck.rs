//! The time between the signal and the stop.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{self, KeptAlive};
use crate::service::{AT_ONCE, STOP_SIGNALS, Service, Signal};

#[test]
fn a_lame_duck_is_live_and_not_ready_and_serves_every_client() {
    let service = Service::start(&["--lame-duck", "60"]);
    service.begin_to_stop(Signal::Terminate);
    for _ in 0..3 {
        assert_eq!(http::get(service.http, "/livez").unwrap().status, 200);
        assert_eq!(http::get(service.http, "/readyz").unwrap().status, 503);
        let order = http::post(service.http, "/orders", r#"{"item":"tea","quantity":1}"#);
        assert_eq!(order.unwrap().status, 201);
    }
    service.insist(Signal::Terminate).assert_code(143);
}

#[test]
fn in_its_second_half_a_lame_duck_sends_its_clients_elsewhere() {
    let service = Service::start(&["--lame-duck", "3"]);
    let mut client = KeptAlive::connect(&service);
    let begin = Instant::now();
    service.signal(Signal::Terminate);
    while !client.get("/livez").contains("connection: close") {
        thread::sleep(Duration::from_millis(10));
    }
    let half = Duration::from_millis(1500);
    assert!(begin.elapsed() >= half, "{:?}", begin.elapsed());
    // It is not stopping yet.
    let answer = http::get(service.http, "/livez");
    assert_eq!(answer.expect("an answer").status, 200);

    service.wait().assert_code(0);
    assert!(begin.elapsed() >= 2 * half, "{:?}", begin.elapsed());
}

#[test]
fn the_grace_begins_when_the_lame_duck_ends() {
    let service = Service::start(&["--lame-duck", "3", "--grace", "3"]);
    let slow = http::in_flight(&service, "/slow?ms=3500");
    service.signal(Signal::Terminate);
    assert_eq!(slow.answer().expect("an answer").status, 200);
    service.wait().assert_code(0);
}

#[test]
fn a_second_signal_forces_the_exit_of_a_lame_duck() {
    for (signal, code) in STOP_SIGNALS {
        let service = Service::start(&["--lame-duck", "60"]);
        service.begin_to_stop(signal);
        TcpStream::connect(service.http).expect("it listens");
        let begin = Instant::now();
        service.insist(signal).assert_code(code);
        assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    }
}
