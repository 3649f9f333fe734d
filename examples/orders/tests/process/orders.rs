//! Orders over REST, while nothing goes wrong.

use std::net::TcpStream;

use crate::http::{self, Answer};
use crate::service::{Service, wait_until};

#[track_caller]
fn order(service: &Service, body: &str) -> Answer {
    http::post(service.http, "/orders", body).expect("an answer")
}

#[track_caller]
fn get(service: &Service, path: &str) -> Answer {
    http::get(service.http, path).expect("an answer")
}

#[test]
fn an_order_is_created_read_and_fulfilled() {
    let service = Service::start(&[]);
    let created = order(&service, r#"{"item":"tea","quantity":2}"#);
    assert_eq!(
        (created.status, created.body.as_str()),
        (201, r#"{"id":1}"#)
    );

    let read = get(&service, "/orders/1");
    assert_eq!(read.status, 200);
    assert!(
        read.body
            .starts_with(r#"{"id":1,"item":"tea","quantity":2,"status":""#),
        "{read:?}"
    );
    wait_until("the fulfilment", || {
        get(&service, "/orders/1").body.contains("fulfilled")
    });
}

#[test]
fn an_order_that_is_not_there_is_a_404_with_a_reason() {
    let service = Service::start(&[]);
    let answer = get(&service, "/orders/7");
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (404, r#"{"error":"there is no order 7"}"#)
    );
}

#[test]
fn an_order_that_makes_no_sense_is_a_400_with_a_reason() {
    let service = Service::start(&[]);
    for (body, reason) in [
        (r#"{"item":"tea","quantity":0}"#, "quantity"),
        (r#"{"item":" ","quantity":1}"#, "item"),
        (r#"{"item":"tea","quantity":-1}"#, "quantity"),
        (r#"{"item":"tea","quantity":4294967296}"#, "quantity"),
        (r#"{"item":"tea"}"#, "quantity"),
        (r#"{"item":"tea","#, "JSON"),
        ("", "JSON"),
    ] {
        let answer = order(&service, body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(
            answer.body.contains("error") && answer.body.contains(reason),
            "{answer:?}"
        );
    }
    // None of them has become a row.
    assert_eq!(get(&service, "/slow").body, r#"{"orders":0}"#);
}

#[test]
fn it_is_live_and_ready_when_it_says_so() {
    let service = Service::start(&[]);
    assert_eq!(get(&service, "/livez").status, 200);
    assert_eq!(get(&service, "/readyz").status, 200);
    TcpStream::connect(service.grpc).expect("the back listens too");
}

#[test]
fn a_slow_request_waits_and_then_asks_the_back() {
    let service = Service::start(&[]);
    order(&service, r#"{"item":"tea","quantity":2}"#);
    let answer = get(&service, "/slow?ms=50");
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, r#"{"orders":1}"#)
    );
}

#[test]
fn faults_exist_only_when_asked_for() {
    let service = Service::start(&[]);
    let answer = http::post(service.http, "/faults/worker-error", "").unwrap();
    assert_eq!(answer.status, 404);
}
