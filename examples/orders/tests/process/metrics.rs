//! `GET /metrics`, from the first component to the last.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::http;
use crate::service::{Service, Signal, orders_on_free_ports, wait_until};

const ANYWHERE: [&str; 2] = ["--metrics", "127.0.0.1:0"];

#[track_caller]
fn value(metrics: SocketAddr, of: &str) -> u64 {
    let answer = http::get(metrics, "/metrics").expect("an answer");
    assert_eq!(answer.status, 200);
    let line = answer
        .body
        .lines()
        .find_map(|line| line.strip_prefix(of)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("no {of}: {}", answer.body));
    value.trim().parse().expect("a number")
}

#[test]
fn requests_and_orders_are_counted() {
    let service = Service::start(&ANYWHERE);
    let metrics = service.metrics.expect("an address");
    assert_eq!(value(metrics, "orders_created_total"), 0);
    for _ in 0..2 {
        http::post(service.http, "/orders", r#"{"item":"tea","quantity":1}"#).unwrap();
    }
    http::get(service.http, "/orders/7").unwrap();
    let requests = |route, status| {
        let name = format!("http_requests_total{{route=\"{route}\",status=\"{status}\"}}");
        value(metrics, &name)
    };
    assert_eq!(requests("/orders", 201), 2);
    assert_eq!(requests("/orders/{id}", 404), 1);
    assert_eq!(value(metrics, "orders_created_total"), 2);
    wait_until("the fulfilment", || {
        value(metrics, "orders_fulfilled_total") == 2
    });
}

#[test]
fn they_are_there_before_the_drain_and_during_it() {
    let service = Service::start(&[&ANYWHERE[..], &["--grace", "60"]].concat());
    let metrics = service.metrics.expect("an address");
    let slow = http::in_flight(&service, "/slow?ms=60000");
    assert_eq!(http::get(metrics, "/metrics").unwrap().status, 200);
    assert_eq!(http::get(metrics, "/readyz").unwrap().status, 200);
    service.signal(Signal::Terminate);
    wait_until("the closed socket of http", || {
        http::get(service.http, "/livez").is_err()
    });
    for _ in 0..2 {
        assert_eq!(http::get(metrics, "/metrics").unwrap().status, 200);
    }
    // As it was at the signal.
    let in_flight = "shutdown_in_flight{component=\"orders/http\"}";
    assert_eq!(value(metrics, in_flight), 1);
    // The probes can still ask here.
    assert_eq!(http::get(metrics, "/livez").unwrap().status, 200);
    assert_eq!(http::get(metrics, "/readyz").unwrap().status, 503);
    service.insist(Signal::Terminate).assert_code(143);
    drop(slow);
}

#[test]
fn they_are_the_last_to_stop() {
    let service = Service::start(&[]);
    service.signal(Signal::Terminate);
    let end = service.wait();
    end.assert_code(0);
    let closed = end.stderr().find("database: closed").expect("the database");
    let metrics = end
        .stderr()
        .find("server `metrics` drained")
        .expect("the metrics");
    assert!(closed < metrics, "{}", end.stderr());
}

#[test]
fn at_the_end_they_wait_for_one_more_scrape_which_sees_how_the_stop_went() {
    let arguments = [&ANYWHERE[..], &["--last-scrape", "20"]].concat();
    let service = Service::start(&arguments);
    let metrics = service.metrics.expect("an address");
    let pending = "shutdown_pending{component=\"orders/database\"}";
    assert_eq!(value(metrics, pending), 1);
    service.signal(Signal::Terminate);
    let mut last = String::new();
    wait_until("the last scrape", || match http::get(metrics, "/metrics") {
        Ok(answer) => {
            last = answer.body;
            false
        }
        Err(_) => true,
    });
    assert!(last.contains(&format!("{pending} 0\n")), "{last}");
    let end = service.wait();
    end.assert_code(0);
    end.assert_within(Duration::from_secs(15));
}

#[test]
fn the_open_connection_of_a_scraper_does_not_hold_up_the_stop() {
    let service = Service::start(&ANYWHERE);
    let metrics = service.metrics.expect("an address");
    let mut scraper = TcpStream::connect(metrics).expect("a connection");
    scraper
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
        .expect("a request that is sent");
    let mut answer = [0; 12];
    scraper.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    service.signal(Signal::Terminate);
    let end = service.wait();
    end.assert_code(0);
    end.assert_within(Duration::from_secs(5));
    drop(scraper);
}

#[test]
fn services_on_one_machine_have_an_address_each_unless_they_are_told_one() {
    let services = [Service::start(&[]), Service::start(&[])];
    let address = |service: &Service| {
        let log = service.process.stderr();
        let rest = log
            .split_once("metrics: on http://")
            .expect("an address")
            .1
            .to_owned();
        rest.split_once("/metrics")
            .expect("a path")
            .0
            .parse()
            .expect("an address")
    };
    let [first, second]: [SocketAddr; 2] = services.each_ref().map(address);
    assert_ne!(first, second);
    for metrics in [first, second] {
        assert_eq!(http::get(metrics, "/metrics").unwrap().status, 200);
    }

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let end = orders_on_free_ports(&["--metrics", &taken]).start().wait();
    end.assert_code(1);
    end.assert_says(&format!("server `metrics`: cannot listen on {taken}"));
}
