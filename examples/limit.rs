//! How do I run a million jobs, and no more than eight at once?
//!
//! `spawn_when_ready` holds the caller back, so neither tasks nor memory pile up. `spawn` would queue
//! the tasks, `try_spawn` refuse them. Run it with `cargo run --release --example limit`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use taskgroup::{BoxError, TaskGroup};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut group = TaskGroup::builder().name("jobs").limit(8).build()?;

    for _ in 0..1_000_000 {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        let job = async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        };
        // An error means that the group was cancelled: a job has failed, and `wait` says which.
        if group.spawn_when_ready(job).await.is_err() {
            break;
        }
    }

    group.wait().await?;
    println!(
        "a million jobs done, at most {} at once",
        most.load(Ordering::SeqCst)
    );
    Ok(())
}
