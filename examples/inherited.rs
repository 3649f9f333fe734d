//! How does a server take a socket that systemd holds, so that no client is refused while it restarts?
//!
//! The service manager listens, and the service takes what it is given. Started by hand, it listens itself.
//!
//! ```text
//! cargo build --features axum,signal --example inherited
//! systemd-socket-activate -l 127.0.0.1:8080 target/debug/examples/inherited
//! ```
//!
//! The stop of the server only closes its own descriptor. A client that comes meanwhile waits in the queue of the
//! socket, and is answered by the next process.

use axum::{Router, routing::get};
use listenfd::ListenFd;
use taskgroup::server::Listening;
use taskgroup::{BoxError, Exit, Signals, TaskGroup};

fn main() -> Exit {
    taskgroup::main(run)
}

async fn run(signals: Signals) -> Result<(), BoxError> {
    let inherited = ListenFd::from_env().take_tcp_listener(0)?;
    let listener = match inherited {
        // It is checked, and set non-blocking, when the server starts.
        Some(listener) => Listening::from(listener),
        None => tokio::net::TcpListener::bind("127.0.0.1:8080")
            .await?
            .into(),
    };
    println!("listening on {}", listener.local_addr()?);

    let app = Router::new().route("/", get(async || "hello"));
    let mut group = TaskGroup::new();
    group.cancel_on(signals);
    group.spawn(taskgroup::server::axum::serve("http", listener, app).run(group.token()));
    Ok(group.wait().await?)
}
