//! How does a thread that blocks stop with the rest?
//!
//! A closure of `spawn_blocking` is a member like any other and gets the token to look at. It cannot
//! be aborted: look at the token between two pieces of work that take a bounded time. Run it with
//! `cargo run --example blocking_worker`.

use std::time::Duration;

use taskgroup::{BoxError, CancellationToken, TaskGroup};

fn compress(token: &CancellationToken) -> Result<u32, BoxError> {
    let mut blocks = 0;
    while !token.is_cancelled() {
        std::thread::sleep(Duration::from_millis(50)); // a block of work
        blocks += 1;
    }
    println!("compressor: closing the file after {blocks} blocks");
    Ok(blocks)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut group = TaskGroup::new();
    let blocks = group.task("compressor").spawn_blocking(compress);

    tokio::time::sleep(Duration::from_millis(500)).await;
    println!("running: {}", group.running());
    group.cancel_because("the disk is full");
    group.wait().await?;
    println!("{} blocks were written", blocks.await?);
    Ok(())
}
