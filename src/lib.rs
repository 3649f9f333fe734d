//! Task groups and graceful shutdown for [Tokio](https://tokio.rs) services.
//!
//! - No task outlives its group. `wait` returns when every task has ended.
//! - The first failure cancels the other tasks, and `wait` returns it with the name of its task.
//! - A stop takes a bounded time, reports what it did, and never calls a forced end a success.
//!
//! ```
//! use taskgroup::{BoxError, TaskGroup};
//!
//! async fn fetch_all(urls: Vec<String>) -> Result<(), BoxError> {
//!     let mut group = TaskGroup::new();
//!     for url in urls {
//!         group.spawn(async move { fetch(&url).await });
//!     }
//!     Ok(group.wait().await?) // all tasks have ended
//! }
//! # async fn fetch(_: &str) -> Result<(), BoxError> { Ok(()) }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() { fetch_all(vec!["a".into(), "b".into()]).await.unwrap(); }
//! ```
//!
//! Here is a service with a server, a worker, signals and an exit code.
//!
#![cfg_attr(
    all(feature = "axum", feature = "lifecycle", feature = "signal"),
    doc = "```no_run"
)]
#![cfg_attr(
    not(all(feature = "axum", feature = "lifecycle", feature = "signal")),
    doc = "```ignore"
)]
//! # use taskgroup::{BoxError, Exit};
//! # use taskgroup::lifecycle::{Component, Context, Lifecycle};
//! # async fn worker(ctx: Context) -> Result<(), BoxError> { ctx.ready(); Ok(ctx.token().cancelled().await) }
//! async fn http(ctx: Context) -> Result<(), BoxError> {
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//!     ctx.ready();
//!     Ok(taskgroup::server::axum::serve("http", listener, ctx.readiness().routes()).run(&ctx).await?)
//! }
//!
//! fn main() -> Exit {
//!     taskgroup::main(async |signals| { // SIGINT and SIGTERM stop it, a second one ends it at once
//!         Lifecycle::new("orders")
//!             .component(Component::new("worker", worker))
//!             .component(Component::new("http", http).after(["worker"])) // starts second, stops first
//!             .stop_on(signals).watchdog().run().await
//!     })
//! }
//! ```
//!
//! # Where to begin
//!
//! | to | see |
//! |---|---|
//! | spawn tasks that belong together, and wait for them | [`TaskGroup`], [`Spawner`] |
//! | limit how many run at once, or how long the stop takes | [`group::Builder`] |
//! | start a task again, or run it every minute | [`supervise`] |
//! | stop a server well | [`server`], [`Sidecar`] |
//! | replace a process while clients are served | `restart` |
//! | close resources in order, each within a deadline | [`cleanup`] |
//! | start and stop components in order | [`lifecycle`] |
//! | work through a queue, and lose nothing | `pipeline` |
//! | stop on a signal, and exit with a true status | [`process`], [`Exit`] |
//! | test a service | `testing` |
//!
//! The [`guide`] has the pages behind these rows. You write a library? [Its page](guide::library) has five rules. The
//! [words](guide::words) say what each one means. A [`Sidecar`] is a server in a group, and not a Kubernetes sidecar container.
//!
//! # Features
//!
//! No feature is on by default, and all are additive. `crates` counts what a feature adds to the 15 of the core,
//! and `seconds` the processor time to build them on a busy machine, where the core took 25.
//!
//! | feature | adds | crates | seconds |
//! |---|---|---|---|
//! | `supervise`, `cleanup` | restarts and periodic tasks; closing in order | 0 | 0 |
//! | `lifecycle` | components in order, a budget, readiness, cleanup, a report | 0 | 0 |
//! | `signal` | `main`, signals, the watchdog | 8 | 5 |
//! | `http`, `http2` | a server for any tower service that really stops, HTTP/2 | 14, 21 | 12, 21 |
//! | `axum`, `ws` | the same with the defaults of axum, websockets | 28, 48 | 30, 46 |
//! | `tonic` | a gRPC server that really stops | 48 | 52 |
//! | `pipeline` | workers that drain or hand back | 0 | 0 |
//! | `process` | a child process as a member | 7 | 8 |
//! | `restart` | a new process takes the sockets over in place (Unix) | 24 | – |
//! | `metrics`, `systemd`, `serde`, `svg` | the stop in metrics, for systemd, as data, as a picture | 3, 3, 3, 0 | 3, 5, 6, 0 |
//! | `deploy` | the checker of deployment files | 2 | 1 |
//! | `test-util` | the test kit | 5 | 4 |
//!
//! # Panics and `panic = "abort"`
//!
//! A group catches the panics of its tasks. A program that is built with `panic = "abort"` has nothing to catch. The first
//! panic ends the process with SIGABRT, which a shell shows as 134. No task is told, and no destructor runs. A program
//! that must not be built so can ask `cfg!(panic = "abort")`.
//!
//! # Events
//!
//! All `tracing` events have the target `taskgroup`.
//!
//! | level | events |
//! |---|---|
//! | ERROR | a panic, when it happens |
//! | WARN | failures that are handled internally, such as a restart |
//! | INFO | what triggered a stop, and what followed |
//! | DEBUG | errors that are returned to the caller |
//!
//! The audit of a stop is two events. `taskgroup.trigger` has the fields `group`, `cause` and `signal`, and
//! `taskgroup.stopped` has `group`, `cause` and `outcome`.
//!
//! The crate prints nothing. There is one exception. A program that `taskgroup::main` runs, with no subscriber installed,
//! prints the lines about its stop to stderr.
#![cfg_attr(docsrs, feature(doc_cfg))]
// A module offers what any module above it needs, and names none of their features. With all of them on,
// the compiler finds what nothing needs, and links that lead nowhere.
#![cfg_attr(
    not(all(
        feature = "axum",
        feature = "lifecycle",
        feature = "pipeline",
        feature = "process",
        feature = "restart",
        feature = "signal",
        feature = "test-util",
        feature = "tonic",
    )),
    allow(dead_code, unreachable_pub, rustdoc::broken_intra_doc_links)
)]
// A `println!` on the way out panics when the reader has closed the pipe, and the rest have no place
// in a library. Tests and examples may.
#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unwrap_used
    )
)]

pub mod group;
// What servers, supervision and the cleanup share: each waits longer after each failure in a row.
#[cfg(any(feature = "cleanup", feature = "http", feature = "supervise"))]
mod backoff;
#[cfg(feature = "supervise")]
pub mod supervise;
pub mod server;
#[cfg(feature = "cleanup")]
pub mod cleanup;
#[cfg(feature = "lifecycle")]
pub mod lifecycle;
#[cfg(feature = "pipeline")]
pub mod pipeline;
pub mod process;
#[cfg(all(feature = "restart", unix))]
pub mod restart;
#[cfg(feature = "deploy")]
pub mod deploy;
#[cfg(feature = "test-util")]
pub mod testing;
// The pages name all features.
#[cfg(all(
    any(doc, doctest),
    feature = "axum",
    feature = "deploy",
    feature = "lifecycle",
    feature = "metrics",
    feature = "pipeline",
    feature = "process",
    feature = "restart",
    feature = "serde",
    feature = "signal",
    feature = "svg",
    feature = "systemd",
    feature = "test-util",
    feature = "tonic",
    feature = "ws",
))]
pub mod guide;

pub use tokio_util::sync::CancellationToken;

pub use crate::group::build_error::BuildError;
pub use crate::group::cancelled::Cancelled;
pub use crate::group::cause::Cause;
pub use crate::group::end::End;
pub use crate::group::engine::handle::TaskHandle;
pub use crate::group::error::TaskError;
pub use crate::group::signal::Signal;
pub use crate::group::spawner::Spawner;
pub use crate::group::task_group::TaskGroup;
pub use crate::process::exit::Exit;
#[cfg(feature = "signal")]
pub use crate::process::program::{Program, main};
#[cfg(feature = "signal")]
pub use crate::process::signals::Signals;
#[cfg(feature = "http")]
pub use crate::server::serve::serve;
pub use crate::server::sidecar::Sidecar;
pub use crate::server::sidecar::error::SidecarError;

/// The error of a plain group: any error, so that `?` takes all of them.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The code in the README compiles.
#[cfg(all(
    doctest,
    feature = "axum",
    feature = "lifecycle",
    feature = "signal",
    feature = "tonic"
))]
#[doc = include_str!("../README.md")]
struct Readme;
