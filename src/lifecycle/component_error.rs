//! [`ComponentError`]: what went wrong with a component.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::group::chain;
use crate::group::end::End;
use crate::group::error::TaskError;
use crate::group::time::Rounded;
use crate::group::verdict;
use crate::group::verdict::Ended;

/// What went wrong with a component: which one, in what way, and why.
///
/// The message names the component: ``component `http` did not start``. [`source`](Error::source) is
/// the error that the component returned, or its panic; for a task that the component has spawned it is
/// the [`TaskError`], which names that task. `{:#}` prints the chain on one line:
/// ``component `http` did not start: address in use``.
///
/// # Examples
///
/// See [`Report`](super::Report).
#[derive(Clone)]
#[non_exhaustive]
pub struct ComponentError {
    /// The name of the component.
    pub component: String,
    /// In what way it went wrong.
    pub kind: ComponentErrorKind,
    /// What the component said, with the sources of its error on one line; empty if the kind tells
    /// all.
    pub message: String,
    why: Why,
}

/// What is behind the error of a component.
#[derive(Clone, Debug)]
enum Why {
    Nothing,
    Task(Arc<TaskError>),
    /// What is left of an error that nobody has any more.
    Said(Said),
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

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
        let mut this = Self::new(component, kind);
        this.why = Why::Task(Arc::new(error));
        this.message = this.why().map(chain::line_of).unwrap_or_default();
        this
    }

    /// The same, with those of its tasks that failed after it.
    pub(super) fn all_from_task(
        component: &str,
        kind: ComponentErrorKind,
        mut error: TaskError,
    ) -> (Self, Vec<Self>) {
        let later = error.take_suppressed().into_iter().map(|later| {
            let kind = match later.end() {
                End::Panicked => ComponentErrorKind::Panicked,
                _ => ComponentErrorKind::Failed,
            };
            Self::from_task(component, kind, later)
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
            why: Why::Nothing,
        }
    }

    /// The same with something to say.
    pub(crate) fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self.why = Why::Said(Said(self.message.clone()));
        self
    }

    /// Returns how the component ended.
    ///
    /// A component that was not ready in time, or ended before it was ready, has
    /// [`Failed`](End::Failed) to start.
    ///
    /// # Examples
    ///
    /// See [`Report`](crate::lifecycle::Report).
    #[must_use]
    pub fn end(&self) -> End {
        match self.kind {
            ComponentErrorKind::Panicked => End::Panicked,
            ComponentErrorKind::EndedEarly => End::EndedEarly,
            ComponentErrorKind::DrainTimedOut(_) | ComponentErrorKind::Overran(_) => End::TimedOut,
            ComponentErrorKind::StillRunning(_) => End::StillRunning,
            _ => End::Failed,
        }
    }

    /// Returns the error of the component's task, if there was one.
    ///
    /// # Examples
    ///
    /// See [`Report`](crate::lifecycle::Report).
    #[must_use]
    pub fn task_error(&self) -> Option<&TaskError> {
        match &self.why {
            Why::Task(error) => Some(error),
            Why::Nothing | Why::Said(_) => None,
        }
    }

    /// Returns whether something of the component was cut, or is still running.
    ///
    /// That is so for the [kinds](ComponentErrorKind::is_forced) that say it, and when the error of
    /// the task tells of a server or a group that was forced.
    ///
    /// # Examples
    ///
    /// See [`Report`](crate::lifecycle::Report).
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.end().is_forced()
            || self
                .task_error()
                .is_some_and(|error| verdict::was_forced(error))
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

impl ComponentError {
    fn what(&self) -> String {
        let subject = match self.kind {
            ComponentErrorKind::Trigger => "lifecycle",
            _ => "component",
        };
        let hint = match self.kind {
            ComponentErrorKind::StartTimedOut(_) if self.message.is_empty() => {
                ": has it called `ready`?"
            }
            _ => "",
        };
        format!("{subject} `{}` {}{hint}", self.component, self.kind)
    }

    /// Its own task would only repeat its name, so what that said comes next; a task of another name
    /// is one that it has spawned, and is named.
    fn why(&self) -> Option<&(dyn Error + 'static)> {
        let error = match &self.why {
            Why::Nothing => return None,
            Why::Said(said) => return Some(said),
            Why::Task(error) => error,
        };
        if error
            .name()
            .is_some_and(|task| !is_own(&self.component, task))
        {
            return Some(&**error);
        }
        match error.end() {
            End::Failed | End::Panicked => chain::below(&**error),
            End::EndedEarly => None,
            _ => Some(&**error),
        }
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

impl Error for ComponentError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        verdict::tell(self);
        self.why()
    }
}

impl Ended for ComponentError {
    fn end(&self) -> End {
        self.end()
    }

    fn as_error(&self) -> &(dyn Error + 'static) {
        self
    }
}

/// What [`Exit`](crate::Exit) takes.
impl AsRef<dyn Error + Send + Sync> for ComponentError {
    fn as_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }
}

impl fmt::Display for ComponentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        chain::show(f, &self.what(), self.why())
    }
}

impl fmt::Debug for ComponentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f
                .debug_struct("ComponentError")
                .field("component", &self.component)
                .field("kind", &self.kind)
                .field("why", &self.why)
                .finish_non_exhaustive();
        }
        chain::explain(f, &self.what(), self.why(), None)
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
    use crate::server::sidecar::Sidecar;
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

        assert_eq!(error.to_string(), "component `db` was not ready within 10s");
        assert_eq!(
            format!("{error:#}"),
            "component `db` was not ready within 10s: no route to host"
        );
    }

    #[tokio::test]
    async fn the_own_task_is_not_named_again() {
        for component in ["http", "orders/http", "shop/orders/http"] {
            let task = failed("http", "address in use").await;
            let error = ComponentError::from_task(component, ComponentErrorKind::StartFailed, task);

            assert_eq!(
                format!("{error:#}"),
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
        assert!(error.source().unwrap().is::<NoQuorum>());

        let above = failed("inner", error.clone()).await;
        let above = ComponentError::from_task("inner", ComponentErrorKind::Failed, above);
        assert_eq!(above.message, format!("{error:#}"));
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

        assert_eq!(format!("{error:#}"), "component `worker` panicked: boom");
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

        assert_eq!(error.message, "(its message panicked: loud)");
        assert!(!error.is_forced(), "nor is the question");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_forced_makes_the_error_forced() {
        let token = CancellationToken::new();
        token.cancel();
        let server =
            Sidecar::new("http").serve(&token, |_stop| pending::<Result<(), std::io::Error>>());
        let task = failed("http", server.await.unwrap_err()).await;
        let error = ComponentError::from_task("http", ComponentErrorKind::StopFailed, task);

        assert!(!error.kind.is_forced());
        assert!(error.is_forced());
    }
}
