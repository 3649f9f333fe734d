//! What becomes of components that do not stop as they should?
//!
//! Each is in the report, and none keeps the next from stopping. Run it with `cargo run --example
//! overrun --features lifecycle`.

use std::future::pending;
use std::time::Duration;

use taskgroup::lifecycle::{Component, Context, Lifecycle};
use taskgroup::{BoxError, Exit};

#[tokio::main]
async fn main() -> Exit {
    let lifecycle = Lifecycle::new("orders")
        .component(Component::new("database", well))
        .component(
            Component::new("deaf", deaf)
                .after(["database"])
                .grace(Duration::from_millis(200)),
        )
        .component(Component::new("panics", panics).after(["deaf"]))
        .component(Component::new("fails", fails).after(["panics"]));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    let _ = handle.ready().await;
    handle.stop("a deployment");
    match run.await {
        Ok(report) => {
            if let Ok(report) = &report {
                println!("{report}");
            }
            Exit::from(report) // 1
        }
        Err(error) => Exit::from(Err::<(), BoxError>(error.into())),
    }
}

async fn well(ctx: Context) -> Result<(), BoxError> {
    ctx.ready();
    ctx.stopping().await;
    Ok(println!("the database is closed all the same"))
}

async fn deaf(ctx: Context) -> Result<(), BoxError> {
    ctx.ready();
    pending().await
}

async fn panics(ctx: Context) -> Result<(), BoxError> {
    ctx.ready();
    ctx.stopping().await;
    panic!("a lock was poisoned");
}

async fn fails(ctx: Context) -> Result<(), BoxError> {
    ctx.ready();
    ctx.stopping().await;
    Err("the queue is gone".into())
}
