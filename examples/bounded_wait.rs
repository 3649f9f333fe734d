//! How do I stop on a signal without hanging on a task that is deaf to its token?
//!
//! A group with a grace: once it is cancelled, for whatever cause, `wait` forces and names what is left
//! after it. Run it with `cargo run --example bounded_wait`.

use std::future::pending;
use std::time::Duration;

use taskgroup::{BoxError, TaskGroup};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let grace = Duration::from_millis(200);
    let mut group = TaskGroup::builder().name("sync").grace(grace).build()?;
    group.task("deaf").spawn(pending::<Result<(), _>>());

    group.cancel_because("the example is over");
    let error = group.wait().await.unwrap_err();
    println!("{error}");
    for straggler in error.stragglers().iter() {
        println!("forced: {straggler}");
    }
    Ok(())
}
