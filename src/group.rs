//! Tasks that share one token and one fate, and the types that describe them.
//!
//! [`TaskGroup`] and the types that a short program needs are at the root of the crate. This module has
//! the rest. It has the [options](Builder) of a group, [named tasks](Task), the list of
//! [running](Running) tasks, [triggers](Trigger) that stop a group, and a [callback](OnCancel) that
//! runs after a stop.

pub(crate) mod time;
pub(crate) mod random;
pub(crate) mod lock;
pub(crate) mod in_order;
pub(crate) mod boxed;
pub(crate) mod panic;
pub(crate) mod log;
pub(crate) mod label;
pub(crate) mod signal;
pub(crate) mod stop_request;
pub(crate) mod end;
pub(crate) mod build_error;
pub(crate) mod chain;
pub(crate) mod cause;
pub(crate) mod verdict;
pub(crate) mod into_task;
pub(crate) mod run_future;
pub(crate) mod running;
pub(crate) mod cancelled;
pub(crate) mod failure;
pub(crate) mod error;
pub(crate) mod engine;
#[cfg(feature = "test-util")]
pub(crate) mod census;
mod task;
mod isolated;
pub(crate) mod spawner;
pub(crate) mod builder;
pub(crate) mod task_group;
mod scope;
mod below;
pub(crate) mod trigger;
mod on_cancel;
pub(crate) mod deadline;
#[allow(
    dead_code,
    reason = "only some features have work that is done in slices"
)]
pub(crate) mod turn;

pub use self::builder::Builder;
pub use self::cause::{FailedTask, LostHeartbeat};
pub use self::deadline::DeadlinePassed;
pub use self::engine::handle::JoinError;
pub use self::engine::spawn_error::SpawnError;
pub use self::into_task::IntoTask;
pub use self::isolated::IsolatedTask;
pub use self::on_cancel::OnCancel;
pub use self::panic::Panic;
pub use self::run_future::RunFuture;
pub use self::running::{Running, RunningTask};
pub use self::stop_request::StopRequest;
pub use self::task::Task;
pub use self::trigger::Trigger;

pub(crate) use self::engine::abort_on_drop::AbortOnDrop;
pub(crate) use self::spawner::Spawner;
pub(crate) use self::task_group::TaskGroup;
