//! What if the shutdown hangs? Press Ctrl-C a second time.
//!
//! The first Ctrl-C (or SIGTERM) cancels the group. One of its tasks takes far too long over that,
//! and blocks its thread into the bargain; the second one ends the process at once, with 130.
//!
//! ```text
//! cargo run --features signal --example second_ctrl_c
//! ```

use std::thread;
use std::time::Duration;

use taskgroup::{BoxError, Exit, Signals, TaskGroup};

fn main() -> Exit {
    // The signals come first: from here on none kills the process by accident.
    taskgroup::main(run)
}

async fn run(signals: Signals) -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let mut group = TaskGroup::new();
    group.cancel_on(signals);
    let token = group.token().clone();
    group.task("slow").spawn(async move {
        token.cancelled().await;
        thread::sleep(Duration::from_secs(60));
        Ok(())
    });

    println!("press Ctrl-C, then press it again");
    group.wait().await?;
    Ok(())
}
