//! How do the tasks of a request log in the span of the request?
//!
//! A group that was built `in_current_span` runs each task in the span that is current at the spawn.
//! Run it with `cargo run --example spans`.

use taskgroup::{BoxError, TaskGroup};
use tracing::{info, info_span};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().init();
    let mut group = TaskGroup::builder().in_current_span().build()?;
    for id in 1..=2 {
        let _entered = info_span!("request", id).entered();
        group.spawn(async {
            info!("stored");
            Ok(())
        });
    }
    group.wait().await?;
    Ok(())
}
