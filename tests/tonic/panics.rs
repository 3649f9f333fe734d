//! Handlers and streams that panic.

use tonic::Code;

use crate::support::{Calls, Server, call, soon};

/// The codes that a call and a stream end with that panic, while a third is in flight.
async fn panics(server: &Server, calls: &Calls) -> (Code, Code) {
    let mut client = server.client().await;
    let mut slow = client.clone();
    let slow = tokio::spawn(async move { slow.check(call("slow")).await });
    calls.reach(1).await;
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
    calls.reach(1).await;
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
