//! Structured concurrency and graceful shutdown for [Tokio](https://tokio.rs).
//!
//! - A **`TaskGroup`** owns tasks that share one cancellation token. The first failure, an error or a
//!   panic, cancels them all; `wait()` joins all of them and returns that failure, with the task's name.
//! - A **`Sidecar`** makes a server a member of the group: when the token fires, the server is asked to
//!   stop and gets a grace of its own, and a stop that had to be forced is never reported as `Ok`.
//! - **`axum::serve`** and **`tonic::serve`** put a gate around the unmodified servers: no request is lost
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
//! | close what was opened, in reverse | [`Cleanup`] |
//! | start a task again when it fails | [`Supervisor`] |
//! | run something again and again | [`Periodic`] |
//! | make a server a member | [`Sidecar`] |
//! | make an axum server really stop | `axum::serve` (feature `axum`) |
//! | the same for a tonic server | `tonic::serve` (feature `tonic`) |
//! | the same for a loop around hyper | `serve` (feature `axum` or `tonic`) |
//! | tell the load balancer, and wait for it | [`Readiness`], `LameDuck` |
//! | let handlers know | `Stop` |
//! | close websockets when their server stops | `axum::ws::WebSocket` (feature `ws`) |
//! | start and stop parts that need each other | [`Lifecycle`], [`Component`] |
//! | see what it does | [`lifecycle::Event`], `metrics::observer` (feature `metrics`), `systemd::observer` (feature `systemd`) |
//! | stop on a signal | `Signals` (feature `signal`) |
//! | stop on a file, or when a time is up | [`StopFile`], [`StopAfter`] |
//! | stop when a lease is lost | [`Heartbeat`] |
//! | see the stop in the metrics | `metrics::observer` (feature `metrics`) |
//! | tell systemd, and feed its watchdog | `systemd::observer` (feature `systemd`) |
//! | run a whole program | `main`, `Program` (feature `signal`) |
//! | end with a true exit code | [`Exit`] |
//! | end in time, even when the runtime is blocked | `Watchdog` (feature `signal`) |
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
#![cfg_attr(docsrs, feature(doc_cfg))]
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

mod time;
mod lock;
mod panic;
mod log;
mod bounded;
mod stderr;
// What outlives the process is there with one feature, and forced exits with the other.
#[cfg(any(feature = "process", feature = "signal"))]
#[cfg_attr(not(all(feature = "process", feature = "signal")), allow(dead_code))]
mod forced;
mod console;
mod label;
mod signal;
mod end;
mod chain;
mod cause;
mod verdict;
mod running;
mod error;
mod group;
mod trigger;
mod stop_after;
mod stop_file;
mod heartbeat;
mod on_cancel;
mod backoff;
mod supervise;
mod periodic;
mod readiness;
mod deadline;
#[cfg(any(feature = "axum", feature = "tonic"))]
mod stop;
#[cfg(any(feature = "axum", feature = "tonic"))]
mod drain;
mod in_flight;
mod stop_signal;
mod sidecar;
pub mod cleanup;
#[cfg(any(feature = "axum", feature = "tonic"))]
mod lame_duck;
// Each server needs something that the other does not.
#[cfg(any(feature = "axum", feature = "tonic"))]
#[cfg_attr(
    not(all(feature = "axum", feature = "tonic")),
    allow(dead_code, unreachable_pub)
)]
mod gate;
#[cfg(any(feature = "axum", feature = "tonic"))]
pub mod serve;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "tonic")]
pub mod tonic;
#[cfg(feature = "signal")]
mod signals;
#[cfg(feature = "signal")]
mod watchdog;
pub mod lifecycle;
#[cfg(feature = "pipeline")]
pub mod pipeline;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(all(feature = "systemd", unix))]
pub mod systemd;
#[cfg(feature = "serde")]
mod serialize;
mod exit;
#[cfg(feature = "signal")]
mod program;

pub use crate::backoff::{Backoff, Jitter};
pub use crate::cause::{Cause, FailedTask, LostHeartbeat};
pub use crate::cleanup::Cleanup;
pub use crate::deadline::DeadlinePassed;
#[cfg(any(feature = "axum", feature = "tonic"))]
pub use crate::drain::DrainReport;
pub use crate::end::End;
pub use crate::error::{Cancelled, TaskError};
pub use crate::exit::{Exit, ExitPolicy, SignalStatus};
pub use crate::group::{
    BuildError, Builder, IsolatedTask, JoinError, SpawnError, Spawner, Task, TaskGroup, TaskHandle,
};
pub use crate::heartbeat::{Heartbeat, HeartbeatMonitor};
#[cfg(any(feature = "axum", feature = "tonic"))]
pub use crate::lame_duck::LameDuck;
pub use crate::lifecycle::{Component, Lifecycle, Report};
pub use crate::on_cancel::{CallbackOutcome, OnCancel};
pub use crate::panic::Panic;
pub use crate::periodic::{Periodic, PeriodicBuildError, PeriodicError, Tick};
#[cfg(feature = "signal")]
pub use crate::program::{Program, main};
pub use crate::readiness::{Check, Readiness, ReadinessState};
pub use crate::running::{Running, RunningTask};
#[cfg(any(feature = "axum", feature = "tonic"))]
pub use crate::serve::serve;
pub use crate::sidecar::{Sidecar, SidecarError};
pub use crate::signal::Signal;
#[cfg(feature = "signal")]
pub use crate::signals::Signals;
#[cfg(any(feature = "axum", feature = "tonic"))]
pub use crate::stop::Stop;
pub use crate::stop_after::StopAfter;
pub use crate::stop_file::StopFile;
pub use crate::stop_signal::StopSignal;
pub use crate::supervise::{Strategy, Supervisor, SupervisorBuildError, SupervisorError};
pub use crate::trigger::Trigger;
#[cfg(feature = "signal")]
pub use crate::watchdog::{ArmedWatchdog, Watchdog};

pub use tokio_util::sync::CancellationToken;

/// The error of a plain group: any error, so that `?` takes all of them.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The code in the README compiles.
#[cfg(all(doctest, feature = "axum", feature = "signal", feature = "tonic"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// And so does that of the guide.
#[cfg(all(doctest, feature = "axum", feature = "signal", feature = "tonic"))]
#[doc = include_str!("../docs/lifecycle.md")]
struct Guide;
