//! How is a component made of others?
//!
//! A module has a lifecycle of its own, with its own order; to the one above it is a component. Or it registers
//! its components there. Run it with `cargo run --example nested --features lifecycle`.

use taskgroup::BoxError;
use taskgroup::lifecycle::{Component, Handle, Lifecycle, PlanError};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let orders = Lifecycle::new("orders")
        .budget(std::time::Duration::from_secs(28))
        .component(quiet("database"))
        .component(billing().after(["database"]));
    register_search(&orders.handle())?;
    println!("{}\n", orders.plan()?);

    let handle = orders.handle();
    let run = tokio::spawn(orders.run());
    let _ = handle.ready().await;
    println!("{}\n", handle.running());
    handle.stop("a deployment");
    println!("{}", run.await??);
    Ok(())
}

fn billing() -> Component {
    let billing = Lifecycle::new("billing")
        .component(quiet("ledger"))
        .component(quiet("invoices").after(["ledger"]));
    Component::lifecycle(billing)
}

fn register_search(orders: &Handle) -> Result<(), PlanError> {
    orders.add(quiet("index").after(["database"]))?;
    orders.add(quiet("search").after(["index"]))
}

fn quiet(name: &'static str) -> Component {
    Component::new(name, |ctx| async move {
        ctx.ready();
        Ok(ctx.stopping().await)
    })
}
