//! [`Cause`]: why a group was cancelled.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::label::Label;
use crate::signal::Signal;

/// Why a group was cancelled; the first cause wins.
///
/// It is recorded before the token fires, so code that sees the token cancelled can branch on it:
/// flush after a signal, throw away after a failure. A child group that is cancelled through its
/// parent shows the parent's cause. The idea is Go's `context.Cause`.
///
/// # Examples
///
/// ```
/// use taskgroup::{Cause, TaskGroup};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::new();
/// let spawner = group.spawner();
/// let token = group.token().clone();
/// group.spawn(async move {
///     token.cancelled().await;
///     assert!(matches!(spawner.cause(), Some(Cause::Requested(_))));
///     Ok(())
/// });
/// group.cancel_because("the lease was lost");
/// assert!(group.wait().await.is_ok());
/// assert_eq!(group.cause().unwrap().to_string(), "cancelled on request: the lease was lost");
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A task failed: it returned an error, panicked, ended early or was lost.
    Failed(FailedTask),
    /// Code asked for it, with a reason or without.
    Requested(Option<Cow<'static, str>>),
    /// The process received this signal.
    Signal(Signal),
    /// The group's deadline passed, this long after the group was made.
    Deadline(Duration),
    /// The group was dropped.
    Dropped,
    /// The token was cancelled directly, or a token above it that belongs to no group.
    Token,
}

/// The task whose failure cancelled a group, as a [`Cause`] keeps it.
///
/// The error itself belongs to the one who waits for the group; here is what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedTask {
    name: Option<Arc<str>>,
    place: &'static Location<'static>,
    panicked: bool,
    message: Arc<str>,
}

impl FailedTask {
    pub(crate) fn new(label: &Label, panicked: bool, message: &str) -> Self {
        Self {
            name: label.name().map(Arc::from),
            place: label.place(),
            panicked,
            message: message.into(),
        }
    }

    /// Returns the task's name as a path, such as `orders/http`; `None` for a task without a name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the place where the task was spawned.
    #[must_use]
    pub fn place(&self) -> &'static Location<'static> {
        self.place
    }

    /// Returns whether the task panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.panicked
    }

    /// Returns the whole message: ``task `http` (src/main.rs:42) failed: address in use``.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(task) => f.write_str(task.message()),
            Self::Requested(None) => f.write_str("cancelled on request"),
            Self::Requested(Some(reason)) => write!(f, "cancelled on request: {reason}"),
            Self::Signal(signal) => write!(f, "received {signal}"),
            Self::Deadline(after) => write!(f, "the deadline of {after:?} passed"),
            Self::Dropped => f.write_str("the group was dropped"),
            Self::Token => f.write_str("the token was cancelled"),
        }
    }
}
