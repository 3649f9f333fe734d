//! Structured concurrency and graceful shutdown for [Tokio](https://tokio.rs).
//!
//! - A **`TaskGroup`** owns tasks that share one cancellation token. The first failure, an error or a
//!   panic, cancels them all; `wait()` joins all of them and returns that failure, with the task's name.
//! - A **`Sidecar`** makes a server a member of the group: when the token fires, the server is asked to
//!   stop and gets a grace of its own, and a stop that had to be forced is never reported as `Ok`.
//! - **`serve`**, **`server::axum::serve`** and **`server::tonic::serve`** are one server for any tower service: no request is lost
//!   at the stop, no client can hold it up, nothing is left behind, and what had to be cut is counted.
//! - **`taskgroup::main`** runs a program. SIGINT and SIGTERM are registered first and stop it; a second signal
//!   ends the process at once, even when every thread of the runtime is blocked. The result becomes an
//!   **`Exit`**, an exit status that is true; no thread that hangs holds it up.
//! - A **`Lifecycle`** starts components in order and stops them in reverse, all within one budget: who
//!   overruns is forced and named, the next goes on, and the report says what happened, as a timeline.
//! - Nothing outlives its owner, the way out takes a bounded time, and it says what it did.
//!
//! # Where to begin
//!
//! | to | see |
//! |---|---|
//! | spawn tasks that belong together | [`TaskGroup`] |
//! | spawn from elsewhere, from a task too | [`Spawner`] |
//! | name a task, or make it essential | [`TaskGroup::task`] |
//! | run no more than so many at once | [`Builder::limit`] |
//! | stop everything within a time | [`Builder::grace`], [`TaskGroup::shutdown`] |
//! | leave with `?`, and join the tasks | [`TaskGroup::scope`] |
//! | keep a task's failure from the others | [`Task::isolated`] |
//! | know why, in the code that cleans up | [`Cause`] |
//! | know who is still running | [`Running`] |
//! | run code once a token has fired | [`OnCancel`] |
//! | close what was opened, in reverse | [`Cleanup`] (feature `lifecycle`) |
//! | start a task again when it fails | [`Supervisor`] (feature `supervise`) |
//! | work on items, and lose none at the stop | `pipeline::Workers` (feature `pipeline`) |
//! | run something again and again | [`Periodic`] (feature `supervise`) |
//! | make a server a member | [`Sidecar`] |
//! | make an axum server really stop | `server::axum::serve` (feature `axum`) |
//! | the same for a tonic server | `server::tonic::serve` (feature `tonic`) |
//! | the same for any tower service | `serve` (feature `http`) |
//! | tell the load balancer, and wait for it | [`Readiness`] (feature `lifecycle`), `server::LameDuck` (feature `http`) |
//! | let handlers know | `server::Stop` (feature `http`) |
//! | close websockets when their server stops | `server::axum::ws::WebSocket` (feature `ws`) |
//! | start and stop parts that need each other | [`Lifecycle`], [`Component`] (feature `lifecycle`) |
//! | see what it does | [`lifecycle::Event`] (feature `lifecycle`), `process::metrics::observer` (feature `metrics`), `process::systemd::observer` (feature `systemd`) |
//! | stop on a signal | `Signals` (feature `signal`) |
//! | stop on a file, or when a time is up | [`StopFile`], [any future](Trigger) |
//! | stop when a lease is lost | [`Heartbeat`] |
//! | see the stop in the metrics | `process::metrics::observer` (feature `metrics`) |
//! | tell systemd, and feed its watchdog | `process::systemd::observer` (feature `systemd`) |
//! | run a whole program | `main`, `Program` (feature `signal`) |
//! | end with a true exit code | [`Exit`] |
//! | test a service: leaks, scripted stops, real processes | `testing` (feature `test-util`) |
//! | end in time, even when the runtime is blocked | `process::Watchdog` (feature `signal`) |
//!
//! A whole service on one screen is in the README; `docs/lifecycle.md` is the guide from two servers to
//! fifty components; one shutdown is drawn on a time line in `docs/shutdown.md`, and `docs/design.md` gives the reason for each choice.
//!
//! # The shape of it
//!
//! Data flows one way: signal → cause → token → tasks → outcome → group → exit code. The token is
//! [`tokio_util::sync::CancellationToken`], re-exported and never wrapped: it is what every library
//! takes.
//!
//! # Panics and `panic = "abort"`
//!
//! A group catches the panics of its tasks. In a program that is built with `panic = "abort"` there is
//! nothing to catch: the first panic ends the process, no task is told and no destructor runs. The
//! process dies of SIGABRT then, which a shell shows as 134, whatever an [`ExitPolicy`] says. A program
//! that must not be built so can ask `cfg!(panic = "abort")`.
//!
//! # Events
//!
//! All `tracing` events have the target `taskgroup`. A panic is logged at ERROR when it happens; what
//! triggered a stop ([`Trigger`]), and what followed, at INFO; errors are returned, so they are logged at
//! DEBUG only. The audit of a stop is two events, by the names `taskgroup.trigger` (fields `group`,
//! `cause` and `signal`) and `taskgroup.stopped` (fields `group`, `cause` and `outcome`). What
//! is mended and not returned, the failure before a restart or of one run of many, is a WARN.
//!
//! The crate itself prints nothing. A program that `taskgroup::main` runs (feature `signal`) and that has
//! installed no subscriber is the exception: the lines about its stop go to stderr.
//!
//! [`Builder::grace`]: group::Builder::grace
//! [`Builder::limit`]: group::Builder::limit
//! [`Cleanup`]: lifecycle::cleanup::Cleanup
//! [`Component`]: lifecycle::Component
//! [`ExitPolicy`]: process::ExitPolicy
//! [`Heartbeat`]: process::Heartbeat
//! [`Lifecycle`]: lifecycle::Lifecycle
//! [`OnCancel`]: group::OnCancel
//! [`Periodic`]: supervise::Periodic
//! [`Readiness`]: lifecycle::Readiness
//! [`Running`]: group::Running
//! [`StopFile`]: process::StopFile
//! [`Supervisor`]: supervise::Supervisor
//! [`Task::isolated`]: group::Task::isolated
//! [`Trigger`]: group::Trigger
#![cfg_attr(docsrs, feature(doc_cfg))]
// A module offers what any module above it needs, and names none of their features. With all of them on,
// the compiler finds what nothing needs, and links that lead nowhere.
#![cfg_attr(
    not(all(
        feature = "axum",
        feature = "lifecycle",
        feature = "pipeline",
        feature = "process",
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
// What servers share with supervision: each waits longer after each failure in a row.
#[cfg(any(feature = "http", feature = "supervise"))]
mod backoff;
#[cfg(feature = "supervise")]
pub mod supervise;
pub mod server;
#[cfg(feature = "lifecycle")]
pub mod lifecycle;
#[cfg(feature = "pipeline")]
pub mod pipeline;
pub mod process;
#[cfg(feature = "test-util")]
pub mod testing;

pub use tokio_util::sync::CancellationToken;

pub use crate::group::builder::BuildError;
pub use crate::group::cause::Cause;
pub use crate::group::end::End;
pub use crate::group::engine::handle::TaskHandle;
pub use crate::group::error::{Cancelled, TaskError};
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
pub use crate::server::sidecar::{Sidecar, SidecarError};

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

/// And so does that of the guide.
#[cfg(all(
    doctest,
    feature = "axum",
    feature = "lifecycle",
    feature = "signal",
    feature = "tonic"
))]
#[doc = include_str!("../docs/lifecycle.md")]
struct Guide;

/// And that of the guide to pipelines.
#[cfg(all(doctest, feature = "lifecycle", feature = "pipeline"))]
#[doc = include_str!("../docs/pipelines.md")]
struct Pipelines;
