//! How does a service take up new settings without another process?
//!
//! It stops all and starts all, in order, again and again while the cause says so. SIGHUP asks for it:
//! `cargo run --features lifecycle,signal --example reload`, then `pkill -HUP reload`. Ctrl-C stops it.

use std::sync::Arc;

use taskgroup::lifecycle::{Component, Lifecycle};
use taskgroup::{BoxError, Cause, Exit, Signal, Signals, TaskGroup};
use tokio::sync::Notify;

#[tokio::main]
async fn main() -> Result<Exit, BoxError> {
    // The signals outlive each round, so that none is missed between two of them.
    let mut process = TaskGroup::new();
    process.cancel_on(Signals::terminate()?);
    let reload = Arc::new(Notify::new());
    process.spawn(hear(process.spawner(), Arc::clone(&reload)));

    for round in 1.. {
        let asked = Arc::clone(&reload);
        let report = orders(round) // reads its settings
            .stop_on(process.spawner())
            .stop_on(async move {
                asked.notified().await;
                Cause::Reload
            })
            .run()
            .await?;
        println!("{report}");
        if report.cause != Cause::Reload {
            process.cancel();
            process.wait().await?;
            return Ok(Exit::from(report));
        }
    }
    unreachable!("it is stopped before")
}

/// Hears the signal, in every round.
async fn hear(process: taskgroup::Spawner, reload: Arc<Notify>) -> Result<(), BoxError> {
    let mut signals = Signals::watch([Signal::Hangup])?;
    let token = process.token();
    while token.run_until_cancelled(signals.recv()).await.is_some() {
        reload.notify_one();
    }
    Ok(())
}

fn orders(round: u32) -> Lifecycle {
    let worker = Component::new("worker", async move |ctx| {
        println!("round {round}");
        ctx.ready();
        Ok(ctx.stopping().await)
    });
    Lifecycle::new("orders").component(worker)
}
