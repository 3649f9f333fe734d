//! A running `consumer`, and its database.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection, query, query_as, query_scalar};
use taskgroup::testing::{Binary, Process};
use tokio::runtime::{Builder, Runtime};

use crate::broker::Broker;
use crate::support::{PATIENCE, fresh_path, wait_until};

/// A database, which many consumers use one after the other.
pub(crate) struct Database {
    path: PathBuf,
    runtime: Runtime,
}

pub(crate) fn consumer(arguments: &[&str]) -> Binary {
    let binary = Binary::new(env!("CARGO_BIN_EXE_consumer"));
    binary.args(arguments).patience(PATIENCE)
}

/// The right to write, which nobody else has as long as this is not released.
pub(crate) struct Lock<'a> {
    database: &'a Database,
    connection: SqliteConnection,
}

impl Lock<'_> {
    pub(crate) fn release(self) {
        let closed = self.database.runtime.block_on(self.connection.close());
        closed.expect("the connection can be closed");
    }
}

impl Database {
    pub(crate) fn lock(&self) -> Lock<'_> {
        let connection = self.runtime.block_on(async {
            let options = SqliteConnectOptions::new().filename(&self.path);
            let mut connection = options.connect().await.expect("the database opens");
            let begin = query("BEGIN IMMEDIATE");
            begin.execute(&mut connection).await.expect("the lock");
            connection
        });
        Lock {
            database: self,
            connection,
        }
    }

    pub(crate) fn new() -> Self {
        Self {
            path: fresh_path("orders.db"),
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    /// Starts a consumer over the database, and waits until it is ready.
    #[track_caller]
    pub(crate) fn consume(&self, broker: &Broker, options: &[&str]) -> Process {
        let process = self.start(broker, options);
        process.ready_line("ready");
        process
    }

    /// Starts a consumer over the database, which may end before it is ready.
    pub(crate) fn start(&self, broker: &Broker, options: &[&str]) -> Process {
        let database = [OsStr::new("--db"), self.path.as_os_str()];
        let consumer = consumer(&["--nats", &broker.url]).args(database);
        consumer.args(options).start()
    }

    fn look<T>(&self, look: impl AsyncFnOnce(&mut SqliteConnection) -> T) -> T {
        self.runtime.block_on(async {
            let options = SqliteConnectOptions::new().filename(&self.path);
            let mut connection = options.connect().await.expect("the database opens");
            let seen = look(&mut connection).await;
            connection.close().await.expect("the database closes");
            seen
        })
    }

    /// The ids of all orders, each with the number of its delivery.
    pub(crate) fn rows(&self) -> BTreeMap<u64, u64> {
        let rows: Vec<(i64, i64)> = self.look(async |connection| {
            let rows = query_as("SELECT id, delivery FROM orders");
            rows.fetch_all(connection).await.expect("the orders")
        });
        let rows = rows.into_iter();
        rows.map(|(id, delivery)| (id.cast_unsigned(), delivery.cast_unsigned()))
            .collect()
    }

    /// How much was sold, of all items.
    pub(crate) fn sold(&self) -> u64 {
        let sold: i64 = self.look(async |connection| {
            let sold = query_scalar("SELECT COALESCE(SUM(quantity), 0) FROM sold");
            sold.fetch_one(connection).await.expect("what was sold")
        });
        sold.cast_unsigned()
    }

    /// The messages that were begun and had no good end, with the number of their attempts.
    pub(crate) fn attempts(&self) -> BTreeMap<u64, u32> {
        let attempts: Vec<(i64, u32)> = self.look(async |connection| {
            let attempts = query_as("SELECT message, begun FROM attempts");
            attempts.fetch_all(connection).await.expect("the attempts")
        });
        let attempts = attempts.into_iter();
        attempts
            .map(|(message, begun)| (message.cast_unsigned(), begun))
            .collect()
    }

    #[track_caller]
    pub(crate) fn wait_for_rows(&self, count: usize) {
        wait_until("the rows", || self.rows().len() >= count);
    }

    #[track_caller]
    pub(crate) fn wait_until_begun(&self, messages: usize) {
        wait_until("the attempts", || self.attempts().len() >= messages);
    }

    /// Nothing is acknowledged that is not here. The ids of the orders are the numbers of their messages.
    #[track_caller]
    pub(crate) fn assert_acknowledged_is_committed(&self, broker: &Broker) {
        // In this order: a row that comes after the first look does not count.
        let state = broker.state();
        let rows = self.rows();
        let missing: Vec<_> = (1..=state.floor)
            .filter(|id| !rows.contains_key(id))
            .collect();
        assert!(
            missing.is_empty(),
            "acknowledged, and not here: {missing:?}"
        );
        assert!(
            state.acknowledged() <= rows.len() as u64,
            "{state:?}, and {} rows",
            rows.len()
        );
    }

    /// Waits until the orders 1 to `last` are acknowledged, and each had its effect and its event once.
    #[track_caller]
    pub(crate) fn assert_all_are_done(&self, broker: &Broker, last: u64) {
        wait_until("the acknowledgement of all orders", || {
            let state = broker.state();
            (state.floor, state.pending) == (last, 0)
        });
        let rows: Vec<_> = self.rows().into_keys().collect();
        assert_eq!(rows, (1..=last).collect::<Vec<_>>());
        assert_eq!(self.sold(), last, "an effect that happened twice, or never");
        let once: BTreeMap<_, _> = (1..=last).map(|id| (id, 1)).collect();
        assert_eq!(broker.events(), once);
    }
}
