//! What happens when a component does not start?
//!
//! Nothing more is started, what has been started is stopped in reverse, and the error names the culprit.
//! Run it with `cargo run --example start_order --features lifecycle`.

use std::time::Duration;

use taskgroup::lifecycle::{Component, Lifecycle};
use taskgroup::{BoxError, Exit};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Exit {
    let report = Lifecycle::new("orders")
        .component(said("http", Ok(())).after(["grpc"]))
        .component(said("grpc", Err("address in use")).after(["cache", "database"]))
        .component(said("cache", Ok(())))
        .component(said("database", Ok(())))
        .run()
        .await;
    if let Ok(report) = &report {
        println!("{report}");
    }
    Exit::from(report) // 1
}

fn said(name: &'static str, start: Result<(), &'static str>) -> Component {
    let open = move |_ctx| async move {
        sleep(Duration::from_millis(20)).await;
        println!("{name} starts: {start:?}");
        Ok::<_, BoxError>(start?)
    };
    let close = move |(), _| async move { Ok(println!("{name} stops")) };
    Component::resource(name, open, close)
}
