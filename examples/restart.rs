//! How is a service replaced by a new version of itself, without anyone being refused?
//!
//! The new process takes the listening socket over from the old one, which then answers what it has and ends. Not for a
//! container whose first process is the service.
//!
//! ```text
//! cargo run --features axum,restart,signal --example restart &
//! cargo run --features axum,restart,signal --example restart -- --restart
//! curl http://127.0.0.1:8080
//! ```
//!
//! In a unit of systemd the second command is `ExecReload`. It waits, and fails with the reason.

#[cfg(unix)]
mod service {
    use axum::{Router, routing::get};
    use taskgroup::lifecycle::{Component, Context, Lifecycle, Report};
    use taskgroup::restart::Restart;
    use taskgroup::{BoxError, Signals};

    fn control() -> std::path::PathBuf {
        std::env::temp_dir().join("taskgroup-example-restart.sock")
    }

    pub(crate) async fn ask(_signals: Signals) -> Result<(), BoxError> {
        let pid = taskgroup::restart::request(control()).await?;
        Ok(println!("process {pid} has taken over"))
    }

    pub(crate) async fn run(signals: Signals) -> Result<Report, BoxError> {
        let restart = Restart::at(control()).begin().await?;
        // The socket of the old process, if there is one.
        let listener = restart.tcp("http", "127.0.0.1:8080")?;
        let own = std::process::id();

        let http = Component::new("http", async move |ctx: Context| {
            let app = Router::new().route("/", get(async move || format!("process {own}\n")));
            let server = taskgroup::server::axum::serve("http", listener, app);
            ctx.ready();
            Ok(server.run(&ctx).await?)
        });
        // Only one process may work on the queue.
        let worker = Component::new("worker", {
            let restart = restart.clone();
            async move |ctx: Context| {
                let Some(lease) = restart.lease(&ctx).await else {
                    return Ok(());
                };
                println!("process {own} works");
                ctx.ready();
                tokio::select! {
                    () = lease.wanted() => {}
                    () = ctx.stopping() => {}
                }
                println!("process {own} works no more");
                drop(lease);
                Ok(ctx.stopping().await)
            }
        });
        let lifecycle = Lifecycle::new("orders").component(http).component(worker);
        let report = lifecycle.restart(&restart).stop_on(signals).run().await?;
        println!("process {own} ends: {}", report.cause);
        Ok(report)
    }
}

#[cfg(unix)]
fn main() -> taskgroup::Exit {
    match std::env::args().nth(1).as_deref() {
        Some("--restart") => taskgroup::main(service::ask),
        _ => taskgroup::main(service::run),
    }
}

#[cfg(not(unix))]
fn main() {}
