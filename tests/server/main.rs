//! Facts about servers that hold over every protocol, from one table. The names begin with the number of the
//! requirement that they show.
//!
//! Time is real, and nothing depends on it, except that what hangs on purpose is given a short grace.

mod facts;
mod over;
#[path = "../pki/mod.rs"]
mod pki;
#[path = "../support/mod.rs"]
mod support;

use crate::over::Over;

/// Runs each fact over each protocol.
macro_rules! over_each {
    ($($fact:ident)*) => {$(
        mod $fact {
            use super::*;

            #[tokio::test]
            async fn over_http1() {
                facts::$fact(Over::Http1).await;
            }

            #[tokio::test]
            async fn over_http2() {
                facts::$fact(Over::Http2).await;
            }

            #[tokio::test]
            async fn over_tls() {
                facts::$fact(Over::Tls).await;
            }

            #[cfg(unix)]
            #[tokio::test]
            async fn over_a_unix_socket() {
                facts::$fact(Over::Unix).await;
            }

            #[tokio::test]
            async fn over_grpc() {
                facts::$fact(Over::Grpc).await;
            }

            #[tokio::test]
            async fn over_grpc_and_tls() {
                facts::$fact(Over::GrpcTls).await;
            }
        }
    )*};
}

over_each! {
    r1_a_request_in_flight_is_answered_within_a_grace_that_begins_with_the_stop
    an_idle_connection_is_closed_after_the_linger
    r7_a_request_on_an_old_connection_within_the_linger_is_answered
    r4_r11_a_request_that_never_ends_is_cut_in_words_and_counted
    a_cut_is_a_success_for_a_lenient_server
    r3_dropping_the_future_leaves_nothing
    r3_dropping_the_future_in_the_drain_leaves_nothing
    r18_a_client_that_says_nothing_is_cut
    r18_no_more_busy_connections_are_served_than_the_limit
    r20_a_panic_leaves_the_counts_of_a_clean_drain_exact
    r20_a_panic_that_is_caught_is_told_and_its_connection_lives
    a_request_without_a_stop_in_it_is_served_all_the_same
}
