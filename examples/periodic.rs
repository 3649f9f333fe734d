//! How do I run something every few seconds, and once more at the end?
//!
//! Points are flushed every 50 ms. When the group is cancelled, what has come in since is flushed by a
//! last run, with a deadline that begins only then. Run it with `cargo run --example periodic --features supervise`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use taskgroup::supervise::{Backoff, Periodic};
use taskgroup::{BoxError, TaskGroup};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (points, flushed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut group = TaskGroup::new();

    let flush = Periodic::new("flush", Duration::from_millis(50))
        .first_after_a_period()
        .backoff(Backoff::default())
        .last_run(Duration::from_secs(2))
        .run(group.token(), {
            let (points, flushed) = (Arc::clone(&points), Arc::clone(&flushed));
            move |tick| {
                let count = points.swap(0, Ordering::SeqCst);
                flushed.fetch_add(count, Ordering::SeqCst);
                async move {
                    // A real one sends them, and looks at `tick.token()` while it does.
                    println!("{count} points, the last: {}", tick.is_last());
                    Ok(())
                }
            }
        })?;
    group.task("flush").spawn(flush);

    for _ in 0..20 {
        points.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(10)).await;
    }
    group.cancel();
    group.wait().await?;

    assert_eq!(flushed.load(Ordering::SeqCst), 20);
    println!("nothing is lost");
    Ok(())
}
