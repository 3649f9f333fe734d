//! What can stop my service, other than a signal?
//!
//! A file, a lease that is lost, a time that is up. The first one is the cause.
//!
//! ```text
//! cargo run --example triggers             # 1 after ten seconds: the lease is lost
//! touch orders.stop                        # 0, when called in time in another terminal, same folder
//! cargo run --example triggers             # 0 at once: the file is still there
//! rm orders.stop
//! ```

use std::time::Duration;

use taskgroup::process::{Heartbeat, StopFile};
use taskgroup::{CancellationToken, Exit, TaskGroup};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Exit {
    tracing_subscriber::fmt().init();
    let mut group = TaskGroup::builder().name("orders").build().expect("a name");
    let (heartbeat, monitor) = Heartbeat::new("lease", 3 * SECOND);
    group.cancel_on(StopFile::new("orders.stop"));
    group.cancel_on(monitor);
    group.cancel_on(async {
        sleep(24 * 3600 * SECOND).await;
        "a day is over, and a fresh one takes the place"
    });

    let token = group.token().clone();
    group.task("lease").spawn(renew(heartbeat, token.clone()));
    group.task("worker").spawn(async move {
        token.cancelled().await;
        println!("giving back the work that has begun");
        Ok(())
    });

    println!("serving until `touch orders.stop`");
    Exit::from(group.wait().await)
}

/// Renews the lease every second; after seven of them no answer comes.
async fn renew(heartbeat: Heartbeat, token: CancellationToken) -> Result<(), taskgroup::BoxError> {
    for renewal in 0.. {
        if token.run_until_cancelled(sleep(SECOND)).await.is_none() {
            break;
        }
        if renewal < 7 {
            heartbeat.beat();
        }
    }
    Ok(())
}
