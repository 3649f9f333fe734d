//! What happens when one task of many fails?
//!
//! The others are told by the token, clean up, and are waited for; the first error comes out with
//! the name of its task. Run it with `cargo run --example first_error`.

use std::time::Duration;

use taskgroup::{CancellationToken, Cancelled, Cause, TaskGroup};

async fn download(part: u32, token: CancellationToken) -> Result<u32, taskgroup::BoxError> {
    let work = tokio::time::sleep(Duration::from_millis(u64::from(part) * 100));
    // Work that can be given up at any time is simply not continued. `Cancelled` is an error for
    // the one who wanted the part, and no failure for the group.
    token.run_until_cancelled(work).await.ok_or(Cancelled)?;
    if part == 3 {
        return Err("connection reset".into());
    }
    println!("part {part} is here");
    Ok(part)
}

#[tokio::main]
async fn main() {
    let mut group = TaskGroup::new();
    for part in 1..=5 {
        group
            .task(format!("part-{part}"))
            .spawn(download(part, group.token().clone()));
    }

    let spawner = group.spawner();
    let token = group.token().clone();
    group.task("cleanup").spawn(async move {
        token.cancelled().await;
        // A task that sees the token can read why it fired.
        if let Some(Cause::Failed(task)) = spawner.cause() {
            println!("removing what is half done, because of {:?}", task.name());
        }
        Ok(())
    });

    match group.wait().await {
        Ok(()) => println!("all parts are here"),
        Err(error) => println!("{error:#}"),
    }
    assert!(group.running().is_empty());
}
