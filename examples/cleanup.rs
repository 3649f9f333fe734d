//! What was opened is closed in reverse, and what if one of them hangs?
//!
//! Each resource pushes its step when it is open; after the active phase they run last in first out,
//! each within its own time. The cache hangs and is cut, the registry is down and only tried, and the
//! key is erased whatever happens. The report prints as a table.
//!
//! `cargo run --example cleanup --features lifecycle`

use std::future::pending;
use std::io;
use std::time::Duration;

use taskgroup::cleanup::{Cleanup, Step};
use taskgroup::{BoxError, Exit, TaskGroup};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Exit {
    service().await.into()
}

async fn service() -> Result<(), BoxError> {
    let mut cleanup = Cleanup::new();

    let erase = Step::new("key", |_| async { Ok(()) });
    cleanup.push(erase.always(Duration::from_millis(100)))?;

    let database = Step::new("database", |outcome| async move {
        let last = if outcome.is_done() {
            "commit"
        } else {
            "roll back"
        };
        println!("database: {last}, then close");
        Ok(sleep(Duration::from_millis(20)).await)
    });
    cleanup.push(database)?;

    let cache = Step::new("cache", |_| pending());
    cleanup.push(cache.deadline(Duration::from_millis(300)).best_effort())?;

    let registry = Step::retrying("registry", 2, Duration::from_millis(50), |_| async {
        Ok(deregister().await?)
    });
    let registry = registry.critical().best_effort();
    cleanup.push(registry.target("consul"))?;

    let mut group = TaskGroup::new();
    group.task("worker").spawn(async { Ok(()) });
    let result = group.wait().await;

    let report = cleanup.run(&result, Duration::from_secs(8)).await;
    println!("{report}");
    result?;
    Ok(report.into_result()?)
}

async fn deregister() -> io::Result<()> {
    Err(io::ErrorKind::ConnectionRefused.into())
}
