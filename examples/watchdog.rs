//! What if the stop hangs so badly that no timeout of the runtime comes to an end?
//!
//! Ctrl-C (or SIGTERM) stops the group, which has a second for it. Two tasks block both workers of the
//! runtime then, so that second is never over: its timer is one of the runtime's. The watchdog has a
//! thread of its own; after two seconds it says who was running and ends the process with 1.
//!
//! ```text
//! cargo run --features signal --example watchdog
//! ```

use std::thread;
use std::time::Duration;

use taskgroup::process::Watchdog;
use taskgroup::{BoxError, Exit, Program, Signals, TaskGroup};

fn main() -> Exit {
    Program::new().worker_threads(2).run(run)
}

async fn run(signals: Signals) -> Result<(), BoxError> {
    let mut group = TaskGroup::new();
    group.cancel_on(signals);
    // The whole stop has this much; what the platform grants before it kills has to be more.
    Watchdog::new(Duration::from_secs(2)).arm(&group)?.keep();

    for shard in 0..2 {
        let token = group.token().clone();
        group.task(format!("flush-{shard}")).spawn(async move {
            token.cancelled().await;
            // Blocks its thread: this has no place in a task, and happens.
            thread::sleep(Duration::from_secs(3600));
            Ok(())
        });
    }

    println!("press Ctrl-C");
    group.token().clone().cancelled().await;
    group.shutdown(Duration::from_secs(1)).await?;
    Ok(())
}
