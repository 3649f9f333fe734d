//! Which exit status does my service end with?
//!
//! The argument chooses what happens; look at `$?` afterwards.
//!
//! ```text
//! cargo run --features signal --example exit_code -- done      # 0
//! cargo run --features signal --example exit_code -- failed    # 1
//! cargo run --features signal --example exit_code -- config    # 78: the error's own code
//! cargo run --features signal --example exit_code -- panicked  # 101: a row that was changed
//! cargo run --features signal --example exit_code -- signal    # 0 after Ctrl-C
//! cargo run --features signal --example exit_code -- stuck     # 1 after Ctrl-C and a second
//! ```

use std::error::Error;
use std::future::pending;
use std::time::Duration;

use taskgroup::process::ExitPolicy;
use taskgroup::{Exit, Program, Signals, TaskError, TaskGroup};

#[derive(Debug, thiserror::Error)]
#[error("the port is missing in the configuration")]
struct BadConfig;

fn main() -> Exit {
    let policy = ExitPolicy::strict().panicked(101).code_from(own_code);
    println!("{policy}");
    Program::new().policy(policy).run(run)
}

async fn run(signals: Signals) -> Result<(), TaskError> {
    let mut group = TaskGroup::new();
    group.cancel_on(signals);
    let token = group.token().clone();
    let what = std::env::args().nth(1).unwrap_or_default();
    group.task("worker").spawn(async move {
        match &*what {
            "failed" => Err("no such table".into()),
            "config" => Err(BadConfig.into()),
            "panicked" => panic!("index out of bounds"),
            "signal" => Ok(token.cancelled().await),
            "stuck" => pending().await,
            _ => Ok(()),
        }
    });

    let stop = group.token().clone();
    tokio::select! {
        result = group.wait() => result,
        () = stop.cancelled() => group.shutdown(Duration::from_secs(1)).await,
    }
}

fn own_code(error: &(dyn Error + 'static)) -> Option<u8> {
    error.is::<BadConfig>().then_some(78)
}
