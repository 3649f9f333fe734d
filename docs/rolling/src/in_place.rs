//! A replica that is replaced in place. Its routes are those of the plain one.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use taskgroup::lifecycle::{Component, Context, Lifecycle};
use taskgroup::restart::{Restart, request};
use taskgroup::{BoxError, Signals};

use crate::plain;

/// Serves until another process has taken over, or a signal has come.
pub(crate) async fn serve(http: SocketAddr, control: PathBuf) -> Result<(), BoxError> {
    let signals = Signals::terminate()?;
    let restart = Restart::at(control).begin().await?;
    let listener = restart.tcp("http", http)?;
    let lifecycle = Lifecycle::new("in place");
    let app = plain::routes().merge(lifecycle.readiness().routes());
    let http = Component::new("http", async move |ctx: Context| {
        let server = taskgroup::server::axum::serve("http", listener, app);
        ctx.ready();
        Ok(server.run(&ctx).await?)
    });
    // The output of a second generation is not read.
    let _ = writeln!(io::stdout(), "ready {}", std::process::id());
    let lifecycle = lifecycle.component(http).restart(&restart);
    let report = lifecycle.stop_on(signals).run().await?;
    match report.is_clean() {
        true => Ok(()),
        false => Err(report.to_string().into()),
    }
}

/// Replaces the process whose control socket this is.
pub(crate) async fn replace(control: PathBuf) -> Result<(), BoxError> {
    let pid = request(control).await?;
    Ok(writeln!(io::stdout(), "ready {pid}")?)
}
