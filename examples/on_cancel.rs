//! How does code that knows no tokens hear of a cancellation?
//!
//! A query runs on a thread of its own and can only be interrupted through a handle, as with many
//! databases. The callback interrupts it when the group is cancelled; a query that has ended takes its
//! callback back.
//!
//! `cargo run --example on_cancel`

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use taskgroup::group::OnCancel;
use taskgroup::{BoxError, CancellationToken, End, TaskGroup};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut group = TaskGroup::new();
    let quick = query(Duration::from_millis(10), group.token().clone());
    let quick = group.task("quick").spawn(quick);
    let slow = query(Duration::from_secs(3600), group.token().clone());
    let slow = group.task("slow").spawn(slow);

    sleep(Duration::from_millis(200)).await;
    group.cancel();
    group.wait().await?;

    let (quick, slow) = (quick.await?, slow.await?);
    assert_eq!((quick, slow), ("done", "interrupted"));
    println!("the quick query is {quick}, the slow one {slow}");
    Ok(())
}

async fn query(takes: Duration, token: CancellationToken) -> Result<&'static str, BoxError> {
    let (interrupt, interrupted) = channel();
    let callback = OnCancel::new(&token, || async move { drop(interrupt) });

    let answer = tokio::task::spawn_blocking(move || blocking_query(takes, &interrupted)).await?;

    // The token lives as long as the service; a callback that is not withdrawn would as well.
    if !callback.withdraw() {
        assert_eq!(callback.finished().await, End::Done);
    }
    Ok(answer)
}

fn blocking_query(takes: Duration, interrupted: &Receiver<()>) -> &'static str {
    match interrupted.recv_timeout(takes) {
        Err(RecvTimeoutError::Timeout) => "done",
        _ => "interrupted",
    }
}
