//! How do I stop one part of a service and keep the rest?
//!
//! A child group has a token below its parent's: cancelling it stops that part alone, cancelling the
//! parent stops all. Names become paths. Run it with `cargo run --example nested_groups`.

use taskgroup::{BoxError, TaskGroup};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut service = TaskGroup::builder().name("orders").build()?;
    let mut imports = service.child("imports");

    for (group, name) in [(&service, "http"), (&imports, "csv"), (&imports, "xml")] {
        let token = group.token().clone();
        group.task(name).spawn(async move {
            token.cancelled().await;
            println!("{name} stops");
            Ok(())
        });
    }
    println!("running: {}", service.running());

    imports.cancel_because("the import window is over");
    imports.wait().await?;
    println!("running: {}", service.running());

    service.cancel();
    service.wait().await?;
    Ok(())
}
