//! How does everything drain before anything closes?
//!
//! With a stop in two parts, or with phases, each of which has a budget of its own. Run it with `cargo run
//! --example phases --features lifecycle`.

use std::time::Duration;

use taskgroup::BoxError;
use taskgroup::lifecycle::{Budget, Component, Context, Lifecycle};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let consumer = |ctx| drains(ctx, 20);
    let publisher = |ctx| drains(ctx, 60);
    let orders = Lifecycle::new("orders")
        .budget(Budget::new(10 * SECOND).drain(2 * SECOND))
        .phase("accept", 3 * SECOND)
        .phase("close", None)
        .component(
            Component::new("consumer", consumer)
                .drains()
                .phase("accept"),
        )
        .component(
            Component::new("publisher", publisher)
                .drains()
                .phase("accept"),
        )
        .component(Component::new("database", |ctx| drains(ctx, 0)).phase("close"));
    println!("{}\n", orders.plan()?);

    let handle = orders.handle();
    let run = tokio::spawn(orders.run());
    let _ = handle.ready().await;
    handle.stop("a deployment");
    println!("{}", run.await??);
    Ok(())
}

async fn drains(ctx: Context, millis: u64) -> Result<(), BoxError> {
    ctx.ready();
    ctx.draining().await; // take nothing new
    sleep(Duration::from_millis(millis)).await; // finish what there is
    ctx.drained();
    ctx.stopping().await; // everybody else has drained too
    Ok(println!("{} closes", ctx.name()))
}
