//! What is my service doing right now? Ask it with SIGUSR1.
//!
//! The signal logs the running tasks, with names, places and ages, and stops nothing. It works while
//! the runtime is blocked, too. Unix only: Windows has no such signal, and says so.
//!
//! ```text
//! cargo run --features signal --example list_running
//! kill -USR1 PID
//! ```

use std::time::Duration;

use taskgroup::{BoxError, Exit, Signal, Signals, TaskGroup};

fn main() -> Exit {
    taskgroup::main(run)
}

async fn run(signals: Signals) -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let mut group = TaskGroup::builder().name("orders").build()?;
    group.cancel_on(signals);
    group.list_on(Signals::watch([Signal::User1])?);

    for topic in ["orders", "payments"] {
        let token = group.token().clone();
        group
            .task(format!("kafka-{topic}"))
            .spawn(async move { Ok(token.cancelled().await) });
    }
    for _ in 0..3 {
        let token = group.token().clone();
        group.spawn(async move {
            let work = async { tokio::time::sleep(Duration::from_secs(3600)).await };
            token.run_until_cancelled(work).await;
            Ok(())
        });
    }

    println!("kill -USR1 {}", std::process::id());
    group.wait().await?;
    Ok(())
}
