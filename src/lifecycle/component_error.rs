//! [`ComponentError`]: what went wrong with a component.

use std::error::Error;
use std::fmt;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use crate::cleanup::was_forced;
use crate::error::Failure;
use crate::error::TaskError;
use crate::panic::Panic;
use crate::time::Rounded;

/// What went wrong with a component: which one, in what way, and what it said.
///
/// The message names the component: ``component `http` did not start: address in use``. It contains
/// those of the errors behind it. [`source`](Error::source) is the [`TaskError`] of the component's
/// task, if there was one, so that its own error can be found by type; a reporter that prints the
/// whole chain prints the message twice.
///
/// # Examples
///
/// See [`Report`](super::Report).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ComponentError {
    /// The name of the component.
    pub component: String,
    /// In what way it went wrong.
    pub kind: ComponentErrorKind,
    /// What the component said, with the sources of its error; empty if the kind tells all.
    pub message: String,
    source: Option<Arc<TaskError>>,
}

/// In what way a component went wrong.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::lifecycle::ComponentErrorKind;
///
/// let kind = ComponentErrorKind::Overran(Duration::from_secs(10));
/// assert!(kind.is_forced());
/// assert!(!ComponentErrorKind::Failed.is_forced());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ComponentErrorKind {
    /// It returned an error before it was ready.
    StartFailed,
    /// It was not ready within this time.
    StartTimedOut(Duration),
    /// It ended, without an error, before it was ready.
    EndedBeforeReady,
    /// It returned an error while it ran.
    Failed,
    /// It panicked, at whatever time.
    Panicked,
    /// It ended, without an error, before it was told to.
    EndedEarly,
    /// It returned an error after it was told to stop.
    StopFailed,
    /// Its drain, the first part of a stop in two parts, had not ended after this time.
    DrainTimedOut(Duration),
    /// It had not ended this long after it was told to stop, and was forced.
    Overran(Duration),
    /// The same, and it could not be confirmed that it is gone.
    StillRunning(Duration),
    /// Not a component but the lifecycle itself: what stopped it is a failure, such as a lost
    /// heartbeat.
    Trigger,
}

/// The name of the task of a component, in the component's group.
pub(super) const OWN_TASK: &str = "run";

impl ComponentError {
    /// Makes the error of a component whose task failed.
    pub(crate) fn from_task(
        component: impl Into<String>,
        kind: ComponentErrorKind,
        error: TaskError,
    ) -> Self {
        let component = component.into();
        Self {
            kind,
            message: guarded_message_of(&component, &error),
            source: Some(Arc::new(error)),
            component,
        }
    }

    /// The same, with those of its tasks that failed after it.
    pub(super) fn all_from_task(
        component: &str,
        kind: ComponentErrorKind,
        error: TaskError,
    ) -> (Self, Vec<Self>) {
        let later = error.suppressed().iter().map(|later| {
            let kind = if later.is_panicked() {
                ComponentErrorKind::Panicked
            } else {
                ComponentErrorKind::Failed
            };
            Self::new(component, kind).with_message(guarded_message_of(component, later))
        });
        let later = later.collect();
        (Self::from_task(component, kind, error), later)
    }

    /// Makes an error that has no task's error behind it.
    pub(crate) fn new(component: impl Into<String>, kind: ComponentErrorKind) -> Self {
        Self {
            component: component.into(),
            kind,
            message: String::new(),
            source: None,
        }
    }

    /// The same with something to say.
    pub(crate) fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Returns the error of the component's task, if there was one.
    ///
    /// # Examples
    ///
    /// See [`Report`](crate::Report).
    #[must_use]
    pub fn task_error(&self) -> Option<&TaskError> {
        self.source.as_deref()
    }

    /// Returns whether something of the component was cut, or is still running.
    ///
    /// That is so for the [kinds](ComponentErrorKind::is_forced) that say it, and when the error of
    /// the task tells of a server or a group that was forced.
    ///
    /// # Examples
    ///
    /// See [`Report`](crate::Report).
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.kind.is_forced() || self.task_error().is_some_and(was_forced)
    }
}

impl ComponentErrorKind {
    /// Returns whether the component was cut, or is still running.
    #[must_use]
    pub fn is_forced(self) -> bool {
        matches!(
            self,
            Self::DrainTimedOut(_) | Self::Overran(_) | Self::StillRunning(_)
        )
    }

    /// Returns whether the component never became ready.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::ComponentErrorKind;
    ///
    /// assert!(ComponentErrorKind::EndedBeforeReady.is_start());
    /// assert!(!ComponentErrorKind::EndedEarly.is_start());
    /// ```
    #[must_use]
    pub fn is_start(self) -> bool {
        matches!(
            self,
            Self::StartFailed | Self::StartTimedOut(_) | Self::EndedBeforeReady
        )
    }

    /// Returns the time that was not enough, if that is what went wrong.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::lifecycle::ComponentErrorKind;
    ///
    /// let limit = Duration::from_secs(10);
    /// assert_eq!(ComponentErrorKind::Overran(limit).limit(), Some(limit));
    /// assert_eq!(ComponentErrorKind::Failed.limit(), None);
    /// ```
    #[must_use]
    pub fn limit(self) -> Option<Duration> {
        match self {
            Self::StartTimedOut(limit)
            | Self::DrainTimedOut(limit)
            | Self::Overran(limit)
            | Self::StillRunning(limit) => Some(limit),
            _ => None,
        }
    }
}

/// An error's `Display` is code of the user.
fn guarded_message_of(component: &str, error: &TaskError) -> String {
    let message = Panic::catch(|| message_of(component, error));
    message.unwrap_or_else(|panic| format!("(its error panicked: {})", panic.message()))
}

/// What the task of `component` said. Its own name would only repeat the component's; a task of
/// another name is one that the component has spawned, and is named.
fn message_of(component: &str, error: &TaskError) -> String {
    let own = error.name().is_none_or(|task| is_own(component, task));
    match error.failure() {
        Failure::HeartbeatLost(lost) => lost.to_string(),
        Failure::Failed(_) if own => error.source().map_or_else(String::new, line_of),
        Failure::Panicked(panic) if own => panic.message().to_owned(),
        Failure::Aborted if own => "its task was dropped before it ended".to_owned(),
        Failure::EndedEarly if own => String::new(),
        Failure::TimedOut(timed_out) => timed_out.to_string(),
        _ => line_of(error),
    }
}

/// Whether it is the task that the component itself is, by whatever groups it is named.
fn is_own(component: &str, task: &str) -> bool {
    let task = task.strip_suffix(OWN_TASK).unwrap_or(task);
    let task = task.strip_suffix('/').unwrap_or(task);
    let ends = |long: &str, short: &str| {
        let before = long.strip_suffix(short);
        before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
    };
    ends(component, task) || ends(task, component)
}

/// The message with its sources, each one that the line does not contain yet.
pub(crate) fn line_of(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    for error in iter::successors(Some(error), |error| (*error).source()) {
        let message = error.to_string();
        if line.is_empty() {
            line = message;
        } else if !line.contains(&message) {
            line = format!("{line}: {message}");
        }
        // Its message has those of its sources, but not the name of its task.
        if error.is::<ComponentError>() {
            break;
        }
    }
    line
}

impl Error for ComponentError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.task_error().map(|error| error as _)
    }
}

impl fmt::Display for ComponentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = match self.kind {
            ComponentErrorKind::Trigger => "lifecycle",
            _ => "component",
        };
        write!(f, "{subject} `{}` {}", self.component, self.kind)?;
        if !self.message.is_empty() {
            return write!(f, ": {}", self.message);
        }
        match self.kind {
            ComponentErrorKind::StartTimedOut(_) => f.write_str(": has it called `ready`?"),
            _ => Ok(()),
        }
    }
}

/// What the component did, as a message says it after its name.
impl fmt::Display for ComponentErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartFailed => f.write_str("did not start"),
            Self::StartTimedOut(limit) => write!(f, "was not ready within {}", Rounded(*limit)),
            Self::EndedBeforeReady => f.write_str("ended before it was ready"),
            Self::Failed => f.write_str("failed"),
            Self::Panicked => f.write_str("panicked"),
            Self::EndedEarly => f.write_str("ended before it was told to"),
            Self::StopFailed => f.write_str("failed while it stopped"),
            Self::DrainTimedOut(limit) => write!(f, "did not drain within {}", Rounded(*limit)),
            Self::Overran(limit) => {
                write!(f, "did not stop within {} and was forced", Rounded(*limit))
            }
            Self::StillRunning(limit) => write!(
                f,
                "did not stop within {}, was forced, and is still running",
                Rounded(*limit)
            ),
            Self::Trigger => f.write_str("had to stop"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BoxError;
    use crate::group::TaskGroup;
    use crate::sidecar::Sidecar;
    use std::future::pending;
    use tokio_util::sync::CancellationToken;

    const LIMIT: Duration = Duration::from_secs(10);

    fn alone(kind: ComponentErrorKind) -> String {
        ComponentError::new("http", kind).to_string()
    }

    async fn failed(task: &str, error: impl Into<BoxError>) -> TaskError {
        let mut group = TaskGroup::builder().name("orders").build().unwrap();
        let error = error.into();
        group
            .task(task.to_owned())
            .spawn(async { Err::<(), _>(error) });
        group.wait().await.unwrap_err()
    }

    #[test]
    fn each_kind_alone_has_its_message() {
        use ComponentErrorKind as Kind;

        assert_eq!(alone(Kind::StartFailed), "component `http` did not start");
        assert_eq!(
            alone(Kind::StartTimedOut(LIMIT)),
            "component `http` was not ready within 10s: has it called `ready`?"
        );
        assert_eq!(
            alone(Kind::EndedBeforeReady),
            "component `http` ended before it was ready"
        );
        assert_eq!(alone(Kind::Failed), "component `http` failed");
        assert_eq!(alone(Kind::Panicked), "component `http` panicked");
        assert_eq!(
            alone(Kind::EndedEarly),
            "component `http` ended before it was told to"
        );
        assert_eq!(
            alone(Kind::StopFailed),
            "component `http` failed while it stopped"
        );
        assert_eq!(
            alone(Kind::DrainTimedOut(LIMIT)),
            "component `http` did not drain within 10s"
        );
        assert_eq!(
            alone(Kind::Overran(LIMIT)),
            "component `http` did not stop within 10s and was forced"
        );
        assert_eq!(
            alone(Kind::StillRunning(LIMIT)),
            "component `http` did not stop within 10s, was forced, and is still running"
        );
        assert_eq!(alone(Kind::Trigger), "lifecycle `http` had to stop");
    }

    #[test]
    fn what_is_said_follows_the_kind() {
        let error = ComponentError::new("db", ComponentErrorKind::StartTimedOut(LIMIT))
            .with_message("no route to host");

        assert_eq!(
            error.to_string(),
            "component `db` was not ready within 10s: no route to host"
        );
    }

    #[tokio::test]
    async fn the_own_task_is_not_named_again() {
        for component in ["http", "orders/http", "shop/orders/http"] {
            let task = failed("http", "address in use").await;
            let error = ComponentError::from_task(component, ComponentErrorKind::StartFailed, task);

            assert_eq!(
                error.to_string(),
                format!("component `{component}` did not start: address in use")
            );
        }
    }

    #[tokio::test]
    async fn a_task_of_another_name_is_named() {
        let task = failed("xhttp", "address in use").await;
        let error = ComponentError::from_task("http", ComponentErrorKind::Failed, task);

        assert!(error.message.starts_with("task `orders/xhttp` ("));
        assert!(error.message.ends_with(") failed: address in use"));
    }

    #[tokio::test]
    async fn the_sources_are_part_of_the_message_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("no quorum")]
        struct NoQuorum(#[source] fmt::Error);

        let task = failed("db", NoQuorum(fmt::Error)).await;
        let error = ComponentError::from_task("db", ComponentErrorKind::Failed, task);

        assert_eq!(error.message, format!("no quorum: {}", fmt::Error));
        let below = error.source().and_then(Error::source).unwrap();
        assert!(below.is::<NoQuorum>());

        let above = failed("inner", error.clone()).await;
        let above = ComponentError::from_task("inner", ComponentErrorKind::Failed, above);
        assert_eq!(above.message, error.to_string());
    }

    #[tokio::test]
    async fn a_panic_says_what_it_said() {
        let mut group: TaskGroup = TaskGroup::new();
        group.task("worker").spawn(async {
            if true {
                std::panic::resume_unwind(Box::new("boom"));
            }
            Ok(())
        });
        let task = group.wait().await.unwrap_err();
        let error = ComponentError::from_task("worker", ComponentErrorKind::Panicked, task);

        assert_eq!(error.to_string(), "component `worker` panicked: boom");
        assert!(!error.is_forced());
    }

    #[tokio::test]
    async fn a_message_that_panics_is_no_panic() {
        #[derive(Debug)]
        struct Loud;
        impl fmt::Display for Loud {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                std::panic::resume_unwind(Box::new("loud"))
            }
        }
        impl Error for Loud {}

        let task = failed("db", Loud).await;
        let error = ComponentError::from_task("db", ComponentErrorKind::Failed, task);

        assert_eq!(error.message, "(its error panicked: loud)");
        assert!(!error.is_forced(), "nor is the question");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_forced_makes_the_error_forced() {
        let token = CancellationToken::new();
        token.cancel();
        let server = Sidecar::new("http")
            .serve::<BoxError, _, _, _, _>(&token, |_stop| pending::<Result<(), std::io::Error>>());
        let task = failed("http", server.await.unwrap_err()).await;
        let error = ComponentError::from_task("http", ComponentErrorKind::StopFailed, task);

        assert!(!error.kind.is_forced());
        assert!(error.is_forced());
    }
}
