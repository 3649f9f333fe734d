//! How do I get a picture of a stop?
//!
//! `Report::to_svg` draws one. The stop here runs on a paused clock, so it takes no time and is always the same. One
//! request never ends, so the server is forced. Run it with
//! `cargo run --features svg --example picture -- docs/shutdown.svg`, which makes the picture of the README.

use std::future::pending;
use std::time::Duration;

use taskgroup::BoxError;
use taskgroup::cleanup::Step;
use taskgroup::lifecycle::{Budget, Component, Lifecycle, Report};
use tokio::time::sleep;

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let report = forced().await?;
    match std::env::args().nth(1) {
        Some(file) => std::fs::write(file, report.to_svg())?,
        None => println!("{report}\n\n{}", clean().await?),
    }
    Ok(())
}

/// A stop in which everything drains.
pub async fn clean() -> Result<Report, BoxError> {
    stop(Component::new("http", async |ctx| {
        ctx.ready();
        ctx.stopping().await;
        Ok(sleep(Duration::from_secs(3)).await) // the longest request
    }))
    .await
}

/// A stop in which the grace of one component runs out.
pub async fn forced() -> Result<Report, BoxError> {
    stop(Component::new("http", async |ctx| {
        ctx.group()
            .task("GET /report")
            .spawn(pending::<Result<(), BoxError>>());
        ctx.ready();
        Ok(ctx.stopping().await)
    }))
    .await
}

async fn stop(http: Component) -> Result<Report, BoxError> {
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::new(Duration::from_secs(28)).lame_duck(Duration::from_secs(2)))
        .component(part("database", 300))
        .component(part("grpc", 500).after(["database"]))
        .component(part("worker", 1200).after(["database"]))
        .component(http.after(["grpc"]).grace(Duration::from_secs(5)));
    let flush = Step::new("flush traces", async |_| {
        Ok(sleep(Duration::from_millis(400)).await)
    });
    lifecycle.cleanup().push(flush)?;
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    handle.ready().await?;
    handle.stop("a deployment");
    Ok(run.await??)
}

/// A component that stops in this many milliseconds.
fn part(name: &'static str, takes: u64) -> Component {
    Component::new(name, async move |ctx| {
        ctx.ready();
        ctx.stopping().await;
        Ok(sleep(Duration::from_millis(takes)).await)
    })
}
