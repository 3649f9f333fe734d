//! How do I stop everything within two seconds, and learn what did not stop?
//!
//! `shutdown` cancels, waits for the grace, aborts what is left, joins it, and names it. Run it with
//! `cargo run --example shutdown_with_grace`.

use std::time::Duration;

use taskgroup::TaskGroup;

#[tokio::main]
async fn main() {
    let mut group = TaskGroup::builder()
        .name("service")
        .build()
        .expect("the options are good");

    let token = group.token().clone();
    group.task("polite").spawn(async move {
        token.cancelled().await;
        println!("polite: flushing");
        tokio::time::sleep(Duration::from_millis(300)).await;
        println!("polite: done");
        Ok(())
    });
    group.task("deaf").spawn(async {
        // Never looks at the token.
        std::future::pending::<Result<(), _>>().await
    });
    tokio::task::yield_now().await;
    println!("running: {}", group.running());

    let error = group
        .shutdown(Duration::from_secs(2))
        .await
        .expect_err("one task is deaf");
    println!("{error:#}");
    assert!(error.is_timed_out());
    assert_eq!(error.stragglers().count(), 1);
    assert!(error.still_running().is_empty(), "the abort was confirmed");
}
