//! How do I start a task again when it fails, without looking away forever?
//!
//! A consumer loses its broker again and again, and what stands on it is restarted with it. The third
//! restart within a minute is one too many: the supervisor gives up, and the group ends with its error.
//! Run it with `cargo run --example supervise --features supervise`.

use std::time::Duration;

use taskgroup::supervise::{Backoff, Strategy, Supervisor};
use taskgroup::{BoxError, TaskGroup};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();

    let mut group = TaskGroup::builder().name("orders").build()?;
    Supervisor::new("kafka")
        .strategy(Strategy::RestForOne)
        .intensity(2, Duration::from_secs(60))
        .backoff(Backoff::new(
            Duration::from_millis(50),
            Duration::from_secs(5),
        ))
        .child("metrics", |token| async move {
            println!("metrics: on");
            Ok(token.cancelled().await)
        })
        .child("consumer", |_token| async {
            println!("consumer: on");
            sleep(Duration::from_millis(20)).await;
            Err("the broker is gone".into())
        })
        .child("committer", |token| async move {
            println!("committer: on");
            token.cancelled().await;
            println!("committer: told to stop, for the consumer or for good");
            Ok(())
        })
        .spawn(&group)?;

    let error = group.wait().await.unwrap_err();
    println!("{error:#}");
    assert_eq!(error.name(), Some("orders/kafka"));
    Ok(())
}
