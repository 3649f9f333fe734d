//! The table of orders, in SQLite or PostgreSQL. Both understand the same statements, but for the
//! type of the key.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, ConnectOptions, Connection};

/// More would only queue up: SQLite has one writer.
const CONNECTIONS: u32 = 4;

/// Where the orders are kept.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    options: AnyConnectOptions,
    kind: Kind,
    /// The URL without its password and parameters, fit for a log.
    shown: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) id: i64,
    pub(crate) item: String,
    pub(crate) quantity: u32,
    pub(crate) status: String,
}

/// A cheap handle on the pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: AnyPool,
}

impl Database {
    /// Names a file in the system's directory for temporary files that does not exist yet.
    pub(crate) fn fresh_file() -> Result<Self, String> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let name = format!("orders-{}-{}.sqlite", std::process::id(), now.as_millis());
        format!("sqlite:{}", std::env::temp_dir().join(name).display()).parse()
    }
}

impl FromStr for Database {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        sqlx::any::install_default_drivers();
        let (kind, url) = match url.split_once(':') {
            Some(("sqlite", _)) => (Kind::Sqlite, create_if_missing(url)),
            Some(("postgres" | "postgresql", _)) => (Kind::Postgres, url.to_owned()),
            _ => return Err("a database is given as `sqlite:PATH` or `postgres://…`".to_owned()),
        };
        let options = AnyConnectOptions::from_str(&url).map_err(|error| error.to_string())?;
        let shown = shown(&options, kind, &url);
        Ok(Self {
            options,
            kind,
            shown,
        })
    }
}

fn shown(options: &AnyConnectOptions, kind: Kind, url: &str) -> String {
    if kind == Kind::Sqlite {
        // As it was written: a path can be copied from there.
        return url.split('?').next().unwrap_or_default().to_owned();
    }
    let mut url = options.database_url.clone();
    url.set_query(None);
    // Refused where a URL has no host, and so no password.
    let _ = url.set_password(None);
    url.into()
}

/// Without this, SQLite opens existing files only.
fn create_if_missing(url: &str) -> String {
    match url.split_once('?') {
        Some((_, parameters)) if parameters.contains("mode=") => url.to_owned(),
        Some(_) => format!("{url}&mode=rwc"),
        None => format!("{url}?mode=rwc"),
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Store {
    /// Connects once, so that a wrong URL fails here and now, and makes the table if it is missing.
    pub(crate) async fn open(database: &Database) -> Result<Self, sqlx::Error> {
        let mut connection = AnyConnection::connect_with(&database.options).await?;
        prepare(&mut connection, database.kind).await?;
        connection.close().await?;

        let quiet = database.options.clone().disable_statement_logging();
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect_lazy_with(quiet);
        Ok(Self { pool })
    }

    /// Returns after the commit.
    pub(crate) async fn create(&self, item: &str, quantity: u32) -> Result<Order, sqlx::Error> {
        // In a transaction although it is one statement: the row of a bare `INSERT … RETURNING`
        // arrives here before SQLite has committed it.
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query_as(
            "INSERT INTO orders (item, quantity, status) VALUES ($1, $2, 'pending')
             RETURNING id, item, quantity, status",
        )
        .bind(item)
        .bind(i64::from(quantity))
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        order(row)
    }

    pub(crate) async fn get(&self, id: i64) -> Result<Option<Order>, sqlx::Error> {
        sqlx::query_as("SELECT id, item, quantity, status FROM orders WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?
            .map(order)
            .transpose()
    }

    pub(crate) async fn count(&self) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("SELECT COUNT(*) FROM orders")
            .fetch_one(&self.pool)
            .await
    }

    /// Moves the oldest pending orders, at most `batch`, to `fulfilled`; returns how many.
    pub(crate) async fn fulfil(&self, batch: u32) -> Result<u64, sqlx::Error> {
        sqlx::query(
            "UPDATE orders SET status = 'fulfilled' WHERE id IN
             (SELECT id FROM orders WHERE status = 'pending' ORDER BY id LIMIT $1)",
        )
        .bind(i64::from(batch))
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected())
    }

    /// Closes every connection; waits for those in use.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

async fn prepare(connection: &mut AnyConnection, kind: Kind) -> Result<(), sqlx::Error> {
    let table = match kind {
        Kind::Sqlite => {
            // Kept in the file. Readers and the writer do not wait for each other.
            sqlx::query("PRAGMA journal_mode = WAL")
                .execute(&mut *connection)
                .await?;
            "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY,
             item TEXT NOT NULL, quantity BIGINT NOT NULL, status TEXT NOT NULL)"
        }
        Kind::Postgres => {
            "CREATE TABLE IF NOT EXISTS orders (id BIGSERIAL PRIMARY KEY,
             item TEXT NOT NULL, quantity BIGINT NOT NULL, status TEXT NOT NULL)"
        }
    };
    sqlx::query(table).execute(connection).await?;
    Ok(())
}

fn order(row: (i64, String, i64, String)) -> Result<Order, sqlx::Error> {
    let (id, item, quantity, status) = row;
    let quantity = u32::try_from(quantity).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(Order {
        id,
        item,
        quantity,
        status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn database(url: &str) -> Database {
        url.parse().expect("a database")
    }

    #[test]
    fn the_printed_url_keeps_the_password_to_itself() {
        let printed =
            database("postgres://shop:secret@db.example:5432/orders?x=secret").to_string();
        assert_eq!(printed, "postgres://shop@db.example:5432/orders");
    }

    #[test]
    fn the_printed_url_of_a_file_is_its_path_as_it_was_written() {
        let printed = database("sqlite:/data/my orders.sqlite").to_string();
        assert_eq!(printed, "sqlite:/data/my orders.sqlite");
        let printed = database("sqlite:///data/o.sqlite?cache=shared").to_string();
        assert_eq!(printed, "sqlite:///data/o.sqlite");
    }

    #[test]
    fn a_missing_file_is_created_unless_the_url_says_otherwise() {
        assert_eq!(create_if_missing("sqlite:a"), "sqlite:a?mode=rwc");
        assert_eq!(
            create_if_missing("sqlite:a?cache=shared"),
            "sqlite:a?cache=shared&mode=rwc"
        );
        assert_eq!(create_if_missing("sqlite:a?mode=rw"), "sqlite:a?mode=rw");
    }

    #[test]
    fn both_spellings_of_postgresql_are_known() {
        assert_eq!(database("postgres://localhost/a").kind, Kind::Postgres);
        assert_eq!(database("postgresql://localhost/a").kind, Kind::Postgres);
    }
}
