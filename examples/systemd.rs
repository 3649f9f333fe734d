//! How does systemd know that my service is ready, is stopping and is alive?
//!
//! The observer tells it, if there is one: started by hand, nothing is sent. With a unit of `Type=notify`, as in the docs
//! of `taskgroup::process::systemd`, `systemctl status` shows "draining: waiting for worker" while this one stops.
//!
//! ```text
//! cargo build --features signal,systemd --example systemd
//! systemd-run --user --pty --property=Type=notify --property=WatchdogSec=10 \
//!     --property=TimeoutStopSec=40 --setenv=TIMEOUT_STOP_SEC=40 target/debug/examples/systemd
//! ```

#![cfg_attr(not(unix), allow(unused_imports))]

use std::time::Duration;

use taskgroup::lifecycle::{Budget, Component, Lifecycle, Report};
use taskgroup::{BoxError, Exit, Signals};
use tokio::time::sleep;

#[cfg(unix)]
fn main() -> Exit {
    taskgroup::main(run)
}

#[cfg(unix)]
async fn run(signals: Signals) -> Result<Report, BoxError> {
    // The budget has to be smaller than what systemd grants before it kills; if not, nothing is started.
    // A unit says it with `Environment=TIMEOUT_STOP_SEC=40` beside `TimeoutStopSec=40`.
    let budget = Budget::detect();
    let worker = Component::new("worker", |ctx| async move {
        ctx.ready();
        ctx.stopping().await;
        Ok(sleep(Duration::from_secs(5)).await)
    });

    println!("press Ctrl-C");
    let report = Lifecycle::new("orders")
        .budget(budget)
        .component(worker)
        .stop_on(signals)
        .observe(taskgroup::process::systemd::observer())
        .watchdog()
        .run()
        .await?;
    Ok(report)
}

#[cfg(not(unix))]
fn main() {}
