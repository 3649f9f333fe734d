//! How does a child process become a member of a group?
//!
//! `cargo run --example child_process --features process`

use std::process::Stdio;
use std::time::Duration;

use taskgroup::{BoxError, Sidecar, SidecarError, TaskGroup};
use tokio::process::Command;
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // It ends by the SIGTERM that it gets when the group is cancelled.
    let mut polite = Command::new("sleep");
    polite.arg("3600").stdin(Stdio::null());

    let mut group = TaskGroup::new();
    let cache = Sidecar::new("cache").serve_process(group.token(), polite);
    group.task("cache").spawn(cache);
    sleep(Duration::from_millis(100)).await;
    group.cancel();
    group.wait().await?;
    println!("cache: stopped");

    // It ignores SIGTERM, and is killed at the end of its grace.
    let mut stubborn = Command::new("sh");
    stubborn
        .args(["-c", "trap '' TERM; sleep 3600"])
        .stdin(Stdio::null());

    let mut group = TaskGroup::new();
    let search = Sidecar::new("search")
        .grace(Duration::from_millis(500))
        .serve_process(group.token(), stubborn);
    group.task("search").spawn(search);
    sleep(Duration::from_millis(100)).await;
    group.cancel();
    let Err(error) = group.wait().await else {
        return Err("a forced stop is no success".into());
    };
    println!("{error:#}");

    let error = error.into_error()?;
    let error = error.downcast::<SidecarError>()?;
    assert!(error.is_timed_out());
    Ok(())
}
