//! The service under test. A new generation of it reads from a file how it is to behave.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use taskgroup::lifecycle::{Budget, Component, Context, Lifecycle, Report};
use taskgroup::process::systemd;
use taskgroup::restart::Restart;
use taskgroup::{BoxError, Signals};

/// The variable that makes this binary a child.
pub(crate) const ROLE: &str = "TASKGROUP_RESTART_ROLE";
/// The directory of the control socket, of the file with the mode, and of all others.
pub(crate) const PLACE: &str = "TASKGROUP_RESTART_PLACE";
/// How long a new process may take, in milliseconds.
pub(crate) const TIMEOUT: &str = "TASKGROUP_RESTART_TIMEOUT";

fn place() -> PathBuf {
    PathBuf::from(std::env::var_os(PLACE).unwrap())
}

fn mode() -> String {
    fs::read_to_string(place().join("mode")).unwrap_or_default()
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// One line in a file, at once.
fn note(file: &str, text: &str) {
    let path = place().join(file);
    let mut file = fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// `service --restart`
pub(crate) async fn ask(_signals: Signals) -> Result<(), BoxError> {
    let pid = taskgroup::restart::request(place().join("restart.sock")).await?;
    say(&format!("process {pid} has taken over"));
    Ok(())
}

pub(crate) async fn run(signals: Signals) -> Result<Report, BoxError> {
    let own = std::process::id();
    let mode = mode();
    if mode == "exits" {
        return Err("there is no database".into());
    }
    let timeout = std::env::var(TIMEOUT).map_or(30_000, |timeout| timeout.parse().unwrap());
    let mut restart =
        Restart::at(place().join("restart.sock")).handover_timeout(Duration::from_millis(timeout));
    if place().join("notify-reload").exists() {
        restart = restart.notify_reload();
    }
    let restart = restart.begin().await?;
    let tcp = restart.tcp("http", "127.0.0.1:0")?;
    let address = tcp.local_addr()?;
    let unix = restart.unix("local", place().join("http.sock"))?;

    tokio::spawn({
        let restart = restart.clone();
        async move {
            restart.taken_over().await;
            say(&format!("{own} serves at {address}"));
        }
    });

    let lifecycle = Lifecycle::new("service").budget(Budget::new(Duration::from_secs(20)));
    let app = Router::new()
        .route("/pid", get(async move || own.to_string()))
        .route(
            "/slow",
            get(async move || {
                note("slow", "begun");
                while !place().join("release").exists() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                own.to_string()
            }),
        )
        .merge(lifecycle.readiness().routes());
    let http = Component::new("http", async move |ctx: Context| {
        let server = taskgroup::server::axum::serve("http", tcp, app)
            .also_on(unix)
            // It is skipped when another process has taken over.
            .lame_duck(Duration::from_secs(5));
        ctx.ready();
        Ok(server.run(&ctx).await?)
    });
    let cache = Component::new("cache", {
        let mode = mode.clone();
        async move |ctx: Context| {
            match &*mode {
                "fails" => return Err("the cache is cold".into()),
                "hangs" => std::future::pending().await,
                _ => ctx.ready(),
            }
            Ok(ctx.stopping().await)
        }
    });
    let worker = Component::new("worker", {
        let restart = restart.clone();
        async move |ctx: Context| {
            let Some(lease) = restart.lease(&ctx).await else {
                return Ok(());
            };
            note("work", &format!("begins {own}"));
            ctx.ready();
            tokio::select! {
                () = lease.wanted() => {}
                () = ctx.stopping() => {}
            }
            note("work", &format!("ends {own}"));
            drop(lease);
            Ok(ctx.stopping().await)
        }
    });
    let janitor = Component::new("janitor", {
        let restart = restart.clone();
        async move |ctx: Context| {
            if !restart.alone(&ctx).await {
                return Ok(());
            }
            note("alone", &own.to_string());
            ctx.ready();
            Ok(ctx.stopping().await)
        }
    });
    let report = lifecycle
        .component(http)
        .component(cache)
        .component(worker)
        // It waits for what waits for the old process.
        .component(
            Component::new("behind", async |ctx: Context| {
                ctx.ready();
                Ok(ctx.stopping().await)
            })
            .after(["worker"]),
        )
        .component(janitor)
        .observe(systemd::observer())
        .restart(&restart)
        .stop_on(signals)
        .run()
        .await?;
    say(&format!("{own} ends: {}", report.cause));
    Ok(report)
}
