//! What holds over every protocol.

use std::time::Duration;

use tokio::time::{Instant, pause};

use crate::over::{End, Over, Server, Set, read_to_end};
use crate::support::server::SHORT;
use crate::support::wait::{PLENTY, soon, turns};

pub(crate) async fn r1_a_request_in_flight_is_answered_within_a_grace_that_begins_with_the_stop(
    over: Over,
) {
    let server = Server::start(over, Set::default()).await;
    let asks = server.asks("/slow").await;

    server.begin_stop().await;
    server.handlers.release.notify_one();

    let (end, client) = soon(asks).await.unwrap();
    assert_eq!(end, End::Answered);
    client.closed().await;
    let (outcome, report) = server.stop().await;
    outcome.unwrap();
    assert_eq!(report.requests_at_stop(), 1);
    assert_eq!(report.answered(), 1);
}

pub(crate) async fn an_idle_connection_is_closed_after_the_linger(over: Over) {
    let server = Server::start(over, Set::default()).await;
    let mut client = server.client().await;
    assert_eq!(client.ask("/").await, End::Answered);

    server.token.cancel();

    client.closed().await;
    let (outcome, report) = server.stop().await;
    outcome.unwrap();
    assert_eq!(report.connections_at_stop(), 1);
    assert_eq!(report.requests_at_stop(), 0);
}

pub(crate) async fn r7_a_request_on_an_old_connection_within_the_linger_is_answered(over: Over) {
    let set = Set {
        grace: 2 * PLENTY,
        linger: PLENTY,
        ..Set::default()
    };
    let server = Server::start(over, set).await;
    let mut client = server.client().await;
    assert_eq!(client.ask("/").await, End::Answered);
    server.begin_stop().await;

    assert_eq!(client.ask("/").await, End::Answered);

    drop(client);
    let (outcome, report) = server.stop().await;
    outcome.unwrap();
    assert_eq!(report.answered(), 1);
}

pub(crate) async fn r4_r11_a_request_that_never_ends_is_cut_in_words_and_counted(over: Over) {
    let set = Set {
        grace: SHORT,
        ..Set::default()
    };
    let server = Server::start(over, set).await;
    let asks = server.asks("/hangs").await;
    let alive = server.handlers.alive.clone();

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(soon(asks).await.unwrap().0, End::Unavailable);
    assert_eq!(report.requests_cut(), 1);
    assert_eq!(report.connections_cut(), 1);
    assert_eq!(report.stuck() + report.unended(), 0);
    assert_eq!(report.paths().len(), 1);
    assert!(report.paths()[0].ends_with(" /hangs"), "{report}");
    assert_eq!(alive.count(), 0);
}

pub(crate) async fn a_cut_is_a_success_for_a_lenient_server(over: Over) {
    let set = Set {
        grace: SHORT,
        is_lenient: true,
        ..Set::default()
    };
    let server = Server::start(over, set).await;
    let asks = server.asks("/hangs").await;

    let (outcome, report) = server.stop().await;

    outcome.unwrap();
    assert!(!report.is_clean());
    assert_eq!(soon(asks).await.unwrap().0, End::Unavailable);
}

pub(crate) async fn r3_dropping_the_future_leaves_nothing(over: Over) {
    let server = Server::start(over, Set::default()).await;
    let mut idle = server.client().await;
    assert_eq!(idle.ask("/").await, End::Answered);
    let silent = server.connect_silently().await;
    let busy = [server.asks("/hangs").await, server.asks("/streams").await];

    server.task.abort();
    assert!(soon(server.task).await.unwrap_err().is_cancelled());

    server.handlers.alive.reaches(0).await;
    idle.closed().await;
    soon(read_to_end(silent)).await;
    for asks in busy {
        let (end, client) = soon(asks).await.unwrap();
        assert_ne!(end, End::Answered);
        client.closed().await;
    }
}

pub(crate) async fn r3_dropping_the_future_in_the_drain_leaves_nothing(over: Over) {
    let server = Server::start(over, Set::default()).await;
    let busy = [server.asks("/hangs").await, server.asks("/streams").await];
    server.begin_stop().await;
    turns().await;
    assert!(!server.task.is_finished());

    server.task.abort();
    assert!(soon(server.task).await.unwrap_err().is_cancelled());

    server.handlers.alive.reaches(0).await;
    for asks in busy {
        let (end, client) = soon(asks).await.unwrap();
        assert_ne!(end, End::Answered);
        client.closed().await;
    }
}

pub(crate) async fn r18_a_client_that_says_nothing_is_cut(over: Over) {
    const FIRST_BYTE: Duration = Duration::from_secs(20);
    let set = Set {
        first_byte: FIRST_BYTE,
        ..Set::default()
    };
    let server = Server::start(over, set).await;
    let begin = Instant::now();
    let silent = server.connect_silently().await;
    // Until the server has accepted it.
    turns().await;
    pause();

    read_to_end(silent).await;

    let took = begin.elapsed();
    assert!(FIRST_BYTE <= took && took <= 2 * FIRST_BYTE, "{took:?}");
}

pub(crate) async fn r18_no_more_busy_connections_are_served_than_the_limit(over: Over) {
    let set = Set {
        most: 2,
        ..Set::default()
    };
    let server = Server::start(over, set).await;
    let first = server.asks("/hangs").await;
    let _second = server.asks("/hangs").await;

    let mut third = tokio_test::task::spawn(async {
        let mut third = server.client().await;
        third.ask("/").await
    });
    for _ in 0..10 {
        assert!(third.poll().is_pending());
        turns().await;
    }

    first.abort();
    assert_eq!(soon(third).await, End::Answered);
}

pub(crate) async fn r20_a_panic_leaves_the_counts_of_a_clean_drain_exact(over: Over) {
    let server = Server::start(over, Set::default()).await;
    let mut client = server.client().await;

    assert_eq!(client.ask("/panics").await, End::BrokenOff);

    let mut next = server.client().await;
    assert_eq!(next.ask("/").await, End::Answered);
    let alive = server.handlers.alive.clone();
    let (outcome, report) = server.stop().await;
    outcome.unwrap();
    assert_eq!(report.panicked(), 1);
    assert_eq!(report.requests_at_stop(), 0);
    assert_eq!(alive.count(), 0);
}

pub(crate) async fn r20_a_panic_that_is_caught_is_told_and_its_connection_lives(over: Over) {
    let set = Set {
        catches_panics: true,
        ..Set::default()
    };
    let server = Server::start(over, set).await;
    let mut client = server.client().await;

    assert_eq!(client.ask("/panics").await, End::Internal);

    assert_eq!(client.ask("/").await, End::Answered);
    let (outcome, report) = server.stop().await;
    outcome.unwrap();
    assert_eq!(report.panicked(), 1);
}

pub(crate) async fn a_request_without_a_stop_in_it_is_served_all_the_same(over: Over) {
    let set = Set {
        stop_in_requests: false,
        ..Set::default()
    };
    let server = Server::start(over, set).await;
    let mut client = server.client().await;

    assert_eq!(client.ask("/stopless").await, End::Answered);

    server.stop().await.0.unwrap();
}
