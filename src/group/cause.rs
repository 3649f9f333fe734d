//! A [`Cause`] says why a group was cancelled.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::group::end::End;
use crate::group::label::Label;
use crate::group::signal::Signal;
use crate::group::stop_request::StopRequest;
use crate::group::time::Rounded;

/// Why a group was cancelled. The first cause wins.
///
/// It is recorded before the token fires, so code that sees the token cancelled can branch on it. For
/// example, it can flush after a signal and discard after a failure. A child group that is cancelled
/// through its parent shows the parent's cause. The idea is Go's `context.Cause`.
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
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A task returned an error, panicked, ended early or was lost.
    Failed(FailedTask),
    /// Code asked for it, with or without a reason.
    Requested(StopRequest),
    /// All components of a lifecycle have ended by themselves, not counting resources.
    Done,
    /// The process received this signal.
    Signal(Signal),
    /// A deadline passed. It is the group's own [`Builder::deadline`](crate::group::Builder::deadline),
    /// this long after the group was made, or that of a [trigger](crate::group::Trigger), which says
    /// how long it has counted.
    Deadline(Duration),
    /// A [`StopFile`](crate::process::StopFile) existed.
    File {
        /// The path, as it was given.
        path: PathBuf,
        /// Whether it already existed at the first check, right after the group began to listen.
        at_start: bool,
    },
    /// A [`Heartbeat`](crate::process::Heartbeat) was lost. That is a failure of the group too, with the
    /// [`LostHeartbeat`] as its source.
    Heartbeat(LostHeartbeat),
    /// It is stopped to be started again in this process, for example with other settings.
    ///
    /// `systemd::observer` reports this to the service manager.
    Reload,
    /// The process with this id has taken over the listening sockets of this one.
    HandedOver(u32),
    /// The group was dropped.
    Dropped,
    /// The token was cancelled directly, or through a parent token that does not belong to a group.
    Token,
}

/// The task whose failure cancelled a group, as a [`Cause`] keeps it.
///
/// It holds the error's text, because the error itself is moved to the caller of `wait`. So sibling
/// tasks cannot ask whether the error is a `T`. If they must know, the failing task leaves a note for
/// them before it returns the error. Every task that sees the token fired can read the note.
///
/// # Examples
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use std::sync::{Arc, OnceLock};
/// use taskgroup::TaskGroup;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::new();
/// let kind = Arc::new(OnceLock::new());
/// let (note, token) = (Arc::clone(&kind), group.token().clone());
/// group.spawn(async move {
///     token.cancelled().await;
///     assert_eq!(note.get(), Some(&ErrorKind::AddrInUse));
///     Ok(())
/// });
/// group.task("http").spawn(async move {
///     let bound = Err::<(), _>(Error::from(ErrorKind::AddrInUse));
///     Ok(bound.inspect_err(|error| drop(kind.set(error.kind())))?)
/// });
/// assert_eq!(group.wait().await.unwrap_err().name(), Some("http"));
/// # });
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct FailedTask(Arc<Facts>);

#[derive(PartialEq, Eq)]
struct Facts {
    label: Label,
    end: End,
    message: String,
}

/// A [`Heartbeat`](crate::process::Heartbeat) that no longer came.
///
/// It is part of the [`Cause`]. It is also the [source](Error::source) of the
/// [`TaskError`](crate::TaskError), where
/// [`ExitPolicy::code_from`](crate::process::ExitPolicy::code_from) finds it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::{Exit, TaskGroup};
/// use taskgroup::group::LostHeartbeat;
/// use taskgroup::process::{ExitPolicy, Heartbeat};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (heartbeat, monitor) = Heartbeat::new("lease", Duration::from_secs(10));
/// let mut group = TaskGroup::new();
/// group.cancel_on(monitor);
/// let token = group.token().clone();
/// group.spawn(async move { Ok(token.cancelled().await) });
///
/// let lost = group.wait().await;
/// let policy = ExitPolicy::strict().code_from(|error| error.is::<LostHeartbeat>().then_some(75));
/// assert_eq!(policy.exit(lost).code(), 75);
/// # drop(heartbeat);
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct LostHeartbeat {
    name: Arc<str>,
    timeout: Option<Duration>,
}

impl LostHeartbeat {
    pub(crate) fn new(name: Arc<str>, timeout: Option<Duration>) -> Self {
        Self { name, timeout }
    }

    /// Returns the name of the heartbeat.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the time in which no beat came, or `None` if the last handle was dropped.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }
}

impl FailedTask {
    pub(crate) fn new(label: &Label, end: End, message: String) -> Self {
        Self(Arc::new(Facts {
            label: label.clone(),
            end,
            message,
        }))
    }

    /// Returns the task's name as a path such as `orders/http`, or `None` for a task without a name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.label.name()
    }

    /// Returns the place where the task was spawned.
    #[must_use]
    pub fn place(&self) -> &'static Location<'static> {
        self.0.label.place()
    }

    /// Returns how the task ended.
    #[must_use]
    pub fn end(&self) -> End {
        self.0.end
    }

    /// Returns the whole message, with the sources of the error: ``task `http` (src/main.rs:42) failed: address in use``.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl Cause {
    /// Whether it came from outside the program's own code, so that no other code logs it.
    pub(crate) fn is_trigger(&self) -> bool {
        match self {
            Self::Signal(_) | Self::Deadline(_) | Self::File { .. } | Self::Heartbeat(_) => true,
            Self::Failed(_)
            | Self::Requested(_)
            | Self::Done
            | Self::Reload
            | Self::HandedOver(_)
            | Self::Dropped
            | Self::Token => false,
        }
    }
}

/// A request with this reason.
impl From<Cow<'static, str>> for Cause {
    fn from(reason: Cow<'static, str>) -> Self {
        Self::Requested(reason.into())
    }
}

/// A request with this reason.
impl From<&'static str> for Cause {
    fn from(reason: &'static str) -> Self {
        Self::Requested(reason.into())
    }
}

/// A request with this reason.
impl From<String> for Cause {
    fn from(reason: String) -> Self {
        Self::Requested(reason.into())
    }
}

/// A request without a reason.
impl From<()> for Cause {
    fn from((): ()) -> Self {
        Self::Requested(StopRequest::default())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(task) => f.write_str(task.message()),
            Self::Requested(request) => request.fmt(f),
            Self::Done => f.write_str("all is done"),
            Self::Signal(signal) => write!(f, "received {signal}"),
            Self::Deadline(after) => write!(f, "the deadline of {} passed", Rounded(*after)),
            Self::File { path, at_start } => {
                let when = if *at_start {
                    "was there at the start"
                } else {
                    "appeared"
                };
                write!(f, "stop file `{}` {when}", path.display())
            }
            Self::Heartbeat(lost) => lost.fmt(f),
            Self::Reload => f.write_str("it is to be reloaded"),
            Self::HandedOver(pid) => write!(f, "handed over to process {pid}"),
            Self::Dropped => f.write_str("the group was dropped"),
            Self::Token => f.write_str("the token was cancelled"),
        }
    }
}

/// The variant and the message, as in ``Failed(task `http` (src/main.rs:42) failed: address in use)``.
impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variant = match self {
            Self::Failed(_) => "Failed",
            Self::Requested(_) => "Requested",
            Self::Done => return f.write_str("Done"),
            Self::Signal(_) => "Signal",
            Self::Deadline(_) => "Deadline",
            Self::File { .. } => "File",
            Self::Heartbeat(_) => "Heartbeat",
            Self::Reload => return f.write_str("Reload"),
            Self::HandedOver(_) => "HandedOver",
            Self::Dropped => return f.write_str("Dropped"),
            Self::Token => return f.write_str("Token"),
        };
        write!(f, "{variant}({self})")
    }
}

/// The message.
impl fmt::Debug for FailedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FailedTask({})", self.message())
    }
}

/// A cause without its error, for a log that has another line for the error.
pub(crate) struct Brief<'a>(pub(crate) &'a Cause);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Cause::Failed(task) => match task.name() {
                Some(name) => write!(f, "`{name}` failed"),
                None => f.write_str("a task failed"),
            },
            cause => cause.fmt(f),
        }
    }
}

impl fmt::Display for LostHeartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "heartbeat `{}` lost: ", self.name)?;
        match self.timeout {
            Some(timeout) => write!(f, "no beat within {}", Rounded(timeout)),
            None => f.write_str("its last handle was dropped"),
        }
    }
}

/// The message, because `main` prints a returned error with `Debug`.
impl fmt::Debug for LostHeartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Cause {}

impl Error for LostHeartbeat {}
