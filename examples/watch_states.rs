//! How does one see what the components are doing?
//!
//! By an observer, which hears of every step with its time, and by asking a handle. Run it with `cargo run
//! --example watch_states --features lifecycle`.

use std::time::Duration;

use taskgroup::BoxError;
use taskgroup::lifecycle::{Component, ComponentState, EventKind, Lifecycle};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let orders = Lifecycle::new("orders")
        .component(slow("database"))
        .component(slow("worker").after(["database"]))
        .observe(|event| {
            let component = event.component.as_deref().unwrap_or("all of it");
            match &event.kind {
                EventKind::StartBegan => println!("{component}: starts"),
                EventKind::Ready(took) => println!("{component}: ready after {took:.1?}"),
                EventKind::StopBegan(within) => println!("{component}: stops within {within:?}"),
                EventKind::Failed(error) => println!("{component}: {error:#}"),
                EventKind::Ended { end, took, .. } => println!("{component}: {end} {took:.1?}"),
                _ => {}
            }
        });
    let handle = orders.handle();
    let run = tokio::spawn(orders.run());

    handle.wait_for("worker", ComponentState::Running).await;
    println!("{:?}", handle.states());
    handle.stop("a deployment");
    assert!(run.await??.is_clean());
    println!("{:?}", handle.states());
    Ok(())
}

fn slow(name: &'static str) -> Component {
    Component::new(name, |ctx| async move {
        sleep(Duration::from_millis(20)).await;
        ctx.ready();
        ctx.stopping().await;
        Ok(sleep(Duration::from_millis(20)).await)
    })
}
