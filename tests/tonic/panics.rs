//! Handlers and streams that panic.

use std::task::{Context, Poll};

use taskgroup::server::Serve;
use taskgroup::server::tonic::App;
use tonic::Code;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower_layer::Layer;
use tower_service::Service;

use crate::calls::{Calls, call};
use crate::support::server::{Server, patient};
use crate::support::wait::soon;

/// The codes that a call and a stream end with that panic, while a third is in flight.
async fn panics(server: &Server, calls: &Calls) -> (Code, Code) {
    let mut client = server.client().await;
    let mut slow = client.clone();
    let slow = tokio::spawn(async move { slow.check(call("slow")).await });
    calls.alive.reaches(1).await;
    let unary = soon(client.check(call("panics"))).await.unwrap_err();
    let stream = soon(client.watch(call("panics"))).await;
    let mut stream = stream.unwrap().into_inner();
    let stream = loop {
        match soon(stream.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it seems to be whole"),
            Err(status) => break status,
        }
    };
    soon(client.check(call(""))).await.unwrap();
    calls.alive.reaches(1).await;
    assert!(!slow.is_finished());
    (unary.code(), stream.code())
}

#[tokio::test]
async fn r20_panics_of_handlers_and_streams_leave_the_counts_of_a_clean_drain_exact() {
    let calls = Calls::default();
    let server = Server::start(&calls, |serve| serve).await;

    panics(&server, &calls).await;
    server.begin_stop().await;
    calls.release.notify_one();

    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert!(report.is_clean());
    assert_eq!(report.connections_at_stop(), 1);
    assert_eq!(report.requests_at_stop(), 1);
    assert_eq!(report.answered(), 1);
    assert_eq!(report.panicked(), 2);
}

#[tokio::test]
async fn r20_panics_that_are_caught_are_told_in_a_status() {
    let calls = Calls::default();
    let server = Server::start(&calls, |serve| serve.catch_panics()).await;

    let codes = panics(&server, &calls).await;
    server.begin_stop().await;
    calls.release.notify_one();

    assert_eq!(codes, (Code::Internal, Code::Internal));
    let (outcome, report) = server.stopped().await;
    outcome.unwrap();
    assert_eq!(report.requests_at_stop(), 1);
    assert_eq!(report.answered(), 1);
    assert_eq!(report.panicked(), 2);
}

/// Puts a service in front of another that panics when it is asked whether it is ready.
#[derive(Clone)]
struct Unready;

impl<S> Layer<S> for Unready {
    type Service = Unwell<S>;

    fn layer(&self, service: S) -> Unwell<S> {
        Unwell(service)
    }
}

#[derive(Clone)]
struct Unwell<S>(S);

impl<S: Service<R>, R> Service<R> for Unwell<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        std::panic::resume_unwind(Box::new("no hook"))
    }

    fn call(&mut self, request: R) -> S::Future {
        self.0.call(request)
    }
}

/// The code of a call to such a service, and the panics counted.
async fn unready(
    options: impl FnOnce(Serve<App<Unwell<Routes>>>) -> Serve<App<Unwell<Routes>>>,
) -> (Code, usize) {
    let calls = HealthServer::new(Calls::default());
    let server = Server::run(|listener| {
        let service = Unready.layer(Routes::new(calls));
        let serve = taskgroup::server::tonic::serve_with("grpc", listener, service);
        options(patient(serve))
    })
    .await;
    let mut client = server.client().await;
    let status = soon(client.check(call(""))).await.unwrap_err();
    drop(client);
    let (outcome, report) = server.stop().await;
    outcome.unwrap();
    (status.code(), report.panicked())
}

#[tokio::test]
async fn r20_a_service_that_panics_when_it_is_asked_whether_it_is_ready_is_counted() {
    assert_eq!(unready(|serve| serve).await.1, 1);
}

#[tokio::test]
async fn r20_a_service_that_panics_when_it_is_asked_whether_it_is_ready_is_caught() {
    let caught = unready(|serve| serve.catch_panics()).await;

    assert_eq!(caught, (Code::Internal, 1));
}
