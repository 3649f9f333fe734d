//! What is in the database when the process is gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use sqlx::any::install_default_drivers;
use sqlx::{AnyConnection, Connection};
use tokio::runtime::{Builder, Runtime};

use crate::http;
use crate::service::{Service, Signal, fresh_path, wait_until};

const CLIENTS: usize = 40;

/// Orders until the service is gone, counting; returns what it was promised.
fn order_until_it_is_gone(service: SocketAddr, count: &AtomicUsize) -> Vec<i64> {
    let mut promised = Vec::new();
    while let Ok(answer) = http::post(service, "/orders", r#"{"item":"tea","quantity":1}"#) {
        assert_eq!(answer.status, 201, "{answer:?}");
        let id = answer
            .body
            .strip_prefix("{\"id\":")
            .and_then(|rest| rest.strip_suffix('}'));
        promised.push(id.expect("an id").parse().expect("a number"));
        count.fetch_add(1, Ordering::Relaxed);
    }
    promised
}

/// The right to write, which nobody else has as long as this is not released.
pub(crate) struct Lock {
    runtime: Runtime,
    connection: AnyConnection,
}

impl Lock {
    #[track_caller]
    pub(crate) fn of(database: &str) -> Self {
        let runtime = current_thread();
        let connection = runtime.block_on(async {
            let mut connection = connect(database).await;
            let begin = sqlx::query("BEGIN IMMEDIATE");
            begin.execute(&mut connection).await.expect("the lock");
            connection
        });
        Self {
            runtime,
            connection,
        }
    }

    #[track_caller]
    pub(crate) fn release(self) {
        let closed = self.runtime.block_on(self.connection.close());
        closed.expect("the connection can be closed");
    }
}

pub(crate) fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn connect(database: &str) -> AnyConnection {
    install_default_drivers();
    AnyConnection::connect(database)
        .await
        .expect("the database opens")
}

#[track_caller]
fn ids_in(database: &str) -> Vec<i64> {
    current_thread().block_on(async {
        let mut connection = connect(database).await;
        sqlx::query_scalar("SELECT id FROM orders ORDER BY id")
            .fetch_all(&mut connection)
            .await
            .expect("the table can be read")
    })
}

/// Forty clients order through a stop: whatever was promised is a row of the database.
#[track_caller]
pub(crate) fn every_promise_is_kept(database: &str) {
    let service = Service::start(&["--db", database]);
    let address = service.http;
    let count = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let count = Arc::clone(&count);
            thread::spawn(move || order_until_it_is_gone(address, &count))
        })
        .collect();
    // Four each on the average, and all are in the middle of others.
    wait_until("the orders", || {
        count.load(Ordering::Relaxed) >= 4 * CLIENTS
    });
    service.signal(Signal::Terminate);
    let promised = clients
        .into_iter()
        .map(|client| client.join().expect("no other status"));
    let mut promised: Vec<i64> = promised.flatten().collect();
    service.wait().assert_code(0);

    promised.sort_unstable();
    assert!(promised.len() >= CLIENTS, "only {} orders", promised.len());
    let rows = ids_in(database);
    let missing: Vec<_> = promised
        .iter()
        .filter(|id| rows.binary_search(id).is_err())
        .collect();
    assert!(
        missing.is_empty(),
        "{} of {} are missing",
        missing.len(),
        promised.len()
    );
    assert!(
        promised.windows(2).all(|pair| pair[0] != pair[1]),
        "one row, promised twice"
    );
}

#[test]
fn every_order_that_was_promised_through_a_stop_is_a_row_of_the_file() {
    every_promise_is_kept(&format!("sqlite:{}", fresh_path("sqlite").display()));
}

#[test]
fn a_file_is_found_by_both_spellings_and_keeps_its_orders() {
    let path = fresh_path("sqlite");
    for (spelling, id) in [("sqlite:", 1), ("sqlite://", 2)] {
        let service = Service::start(&["--db", &format!("{spelling}{}", path.display())]);
        let created =
            http::post(service.http, "/orders", r#"{"item":"tea","quantity":1}"#).unwrap();
        assert_eq!(created.body, format!("{{\"id\":{id}}}"));
        service.signal(Signal::Terminate);
        service.wait().assert_code(0);
    }
    assert_eq!(ids_in(&format!("sqlite:{}", path.display())), [1, 2]);
}
