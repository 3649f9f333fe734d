//! The database: the orders, how much of each item is sold, and which attempts have no end.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{SqlitePool, query, query_scalar};

use crate::order::Order;

/// A cheap handle on the one connection: SQLite has one writer.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: SqlitePool,
}

const TABLES: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL, quantity INTEGER NOT NULL,
     delivery INTEGER NOT NULL)",
    // An effect that shows if an order is written twice.
    "CREATE TABLE IF NOT EXISTS sold (item TEXT PRIMARY KEY, quantity INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS attempts (message INTEGER PRIMARY KEY, begun INTEGER NOT NULL)",
];

impl Store {
    pub(crate) async fn open(path: &Path) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        let pool = SqlitePoolOptions::new().max_connections(1);
        let pool = pool.connect_with(options).await?;
        for table in TABLES {
            query(table).execute(&pool).await?;
        }
        Ok(Self { pool })
    }

    /// Returns how many attempts at a message were begun, and had no good end.
    pub(crate) async fn begun(&self, message: u64) -> Result<u32, sqlx::Error> {
        let begun = query_scalar("SELECT begun FROM attempts WHERE message = $1")
            .bind(message.cast_signed())
            .fetch_optional(&self.pool)
            .await?;
        Ok(begun.unwrap_or_default())
    }

    /// Writes down that an attempt begins: if it takes the process along, the next process knows.
    pub(crate) async fn begin(&self, message: u64, attempt: u32) -> Result<(), sqlx::Error> {
        let begin =
            "INSERT INTO attempts VALUES ($1, $2) ON CONFLICT DO UPDATE SET begun = excluded.begun";
        let begin = query(begin).bind(message.cast_signed()).bind(attempt);
        begin.execute(&self.pool).await?;
        Ok(())
    }

    /// Writes an order that was delivered so often, in one transaction with its id and its effect.
    ///
    /// Returns whether it is new. One that is known changes nothing.
    pub(crate) async fn write(
        &self,
        message: u64,
        order: &Order,
        delivery: i64,
    ) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let written = query("INSERT INTO orders VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING")
            .bind(order.id)
            .bind(&order.item)
            .bind(order.quantity)
            .bind(delivery)
            .execute(&mut *transaction)
            .await?;
        let is_new = written.rows_affected() == 1;
        if is_new {
            let sell = "INSERT INTO sold VALUES ($1, $2)
                 ON CONFLICT DO UPDATE SET quantity = quantity + excluded.quantity";
            let sell = query(sell).bind(&order.item).bind(order.quantity);
            sell.execute(&mut *transaction).await?;
        }
        let forget = query("DELETE FROM attempts WHERE message = $1");
        let forget = forget.bind(message.cast_signed());
        forget.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(is_new)
    }

    /// Sets how many attempts at a message have failed: one that was cut or handed back counts for nothing.
    pub(crate) async fn set_failed(
        &self,
        messages: impl IntoIterator<Item = (u64, u32)>,
    ) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        for (message, failed) in messages {
            let set = match failed {
                0 => query("DELETE FROM attempts WHERE message = $1"),
                _ => query("UPDATE attempts SET begun = $2 WHERE message = $1"),
            };
            let set = set.bind(message.cast_signed()).bind(failed);
            set.execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    /// Returns how many orders there are, and how much was sold of all items.
    pub(crate) async fn sums(&self) -> Result<(i64, i64), sqlx::Error> {
        let orders = query_scalar("SELECT COUNT(*) FROM orders").fetch_one(&self.pool);
        let orders = orders.await?;
        let sold = query_scalar("SELECT COALESCE(SUM(quantity), 0) FROM sold");
        Ok((orders, sold.fetch_one(&self.pool).await?))
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}
