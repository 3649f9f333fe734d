//! [`ComponentError`]: what went wrong with a component.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::step_kind::StepKind;
use crate::group::chain;
use crate::group::end::End;
use crate::group::error::TaskError;
use crate::group::time::Rounded;
use crate::group::verdict;
use crate::group::verdict::Ended;

/// A failure of a component, with the step, the end and the reason.
///
/// The message names the component, as in ``component `http` did not start``.
/// [`source`](Error::source) is the error that the component returned, or its panic. For a task
/// that the component has spawned it is the [`TaskError`], which names that task.
/// `{:#}` prints the chain on one line, as in ``component `http` did not start: address in use``.
///
/// # Examples
///
/// See [`Report`](super::Report).
#[derive(Clone)]
#[non_exhaustive]
pub struct ComponentError {
    /// The name of the component, or of the lifecycle if the failure is its trigger's, such as a
    /// lost heartbeat.
    pub component: String,
    /// The step that went wrong, which is its start, its drain or its stop. `None` while it ran.
    pub during: Option<StepKind>,
    /// The time limit that was exceeded, if any.
    pub limit: Option<Duration>,
    /// What the component said, with the sources of its error on one line. Empty if the other
    /// fields tell all.
    pub message: String,
    end: End,
    why: Why,
}

/// The reason behind the error of a component.
#[derive(Clone, Debug)]
enum Why {
    Nothing,
    Task(Arc<TaskError>),
    /// The error of the trigger that stopped the lifecycle.
    Trigger(Arc<TaskError>),
    /// The text of an error that is itself gone.
    Said(Said),
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

/// The name of the task of a component, in the component's group.
pub(super) const OWN_TASK: &str = "run";

impl ComponentError {
    /// Makes an error without a task's error behind it.
    pub(crate) fn new(component: impl Into<String>, during: Option<StepKind>, end: End) -> Self {
        Self {
            component: component.into(),
            during,
            limit: None,
            message: String::new(),
            end,
            why: Why::Nothing,
        }
    }

    /// Adds the time limit that was exceeded.
    pub(crate) fn within(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }

    /// Adds a message.
    pub(crate) fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self.why = Why::Said(Said(self.message.clone()));
        self
    }

    /// Adds the error of its task, and returns those of its tasks that failed after it.
    pub(crate) fn with_task(self, mut error: TaskError) -> (Self, Vec<Self>) {
        let later = error.take_suppressed().into_iter().map(|later| {
            let this = Self::new(&*self.component, self.during, later.end());
            this.because(Why::Task(Arc::new(later)))
        });
        let later = later.collect();
        (self.because(Why::Task(Arc::new(error))), later)
    }

    /// Makes the error of a lifecycle that stops because of a failure.
    pub(super) fn of_trigger(lifecycle: &str, error: TaskError) -> Self {
        let this = Self::new(lifecycle, None, error.end());
        this.because(Why::Trigger(Arc::new(error)))
    }

    fn because(mut self, why: Why) -> Self {
        self.why = why;
        self.message = self.why().map(chain::line_of).unwrap_or_default();
        self
    }

    /// Returns how the component ended.
    ///
    /// A component that was not ready in time has [`Failed`](End::Failed) to start.
    ///
    /// # Examples
    ///
    /// See [`Report`](crate::lifecycle::Report).
    #[must_use]
    pub fn end(&self) -> End {
        self.end
    }

    /// Returns the error of the component's task, if there was one.
    ///
    /// # Examples
    ///
    /// See [`Report`](crate::lifecycle::Report).
    #[must_use]
    pub fn task_error(&self) -> Option<&TaskError> {
        match &self.why {
            Why::Task(error) | Why::Trigger(error) => Some(error),
            Why::Nothing | Why::Said(_) => None,
        }
    }

    /// Returns whether a part of the component was cut, or is still running.
    ///
    /// That is so if its [end](Self::end) says so, or if the error of the task reports a server or
    /// a group that was forced.
    ///
    /// # Examples
    ///
    /// See [`Report`](crate::lifecycle::Report).
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.end.is_forced()
            || self
                .task_error()
                .is_some_and(|error| verdict::was_forced(error))
    }

    /// Describes the failure without the reason.
    pub(super) fn what(&self) -> String {
        let subject = match self.why {
            Why::Trigger(_) => "lifecycle",
            _ => "component",
        };
        format!("{subject} `{}` {}", self.component, self.verb())
    }

    fn verb(&self) -> String {
        let limit = self.limit.map(Rounded);
        let verb = match (self.during, self.end, limit) {
            _ if matches!(self.why, Why::Trigger(_)) => "had to stop",
            (_, End::Panicked, _) => "panicked",
            (_, End::Aborted, _) => "was dropped before it ended",
            (Some(StepKind::Start), _, Some(limit)) => {
                let hint = match &*self.message {
                    "" => ": has it called `ready`?",
                    _ => "",
                };
                return format!("was not ready within {limit}{hint}");
            }
            (Some(StepKind::Start), End::EndedEarly, None) => "ended before it was ready",
            (Some(StepKind::Start), _, None) => "did not start",
            (Some(StepKind::Drain), _, Some(limit)) => {
                return format!("did not drain within {limit}");
            }
            (_, End::StillRunning, Some(limit)) => {
                return format!("did not stop within {limit}, was forced, and is still running");
            }
            (_, _, Some(limit)) => return format!("did not stop within {limit} and was forced"),
            (None, End::EndedEarly, None) => "ended before it was told to",
            (None, _, None) => "failed",
            (Some(_), _, None) => "failed while it stopped",
        };
        verb.to_owned()
    }

    /// Its own task would only repeat the name, so that task's error comes next. A task of another
    /// name was spawned by the component, and is named.
    pub(super) fn why(&self) -> Option<&(dyn Error + 'static)> {
        let error = match &self.why {
            Why::Nothing => return None,
            Why::Said(said) => return Some(said),
            Why::Task(error) | Why::Trigger(error) => error,
        };
        if error
            .name()
            .is_some_and(|task| !is_own(&self.component, task))
        {
            return Some(&**error);
        }
        match error.end() {
            End::Failed | End::Panicked => chain::below(&**error),
            End::EndedEarly | End::Aborted => None,
            _ => Some(&**error),
        }
    }
}

/// Whether `task` is the component's own task, whatever groups are in its name.
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

/// Lets [`Exit`](crate::Exit) take the error.
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
                .field("during", &self.during)
                .field("end", &self.end)
                .field("limit", &self.limit)
                .field("why", &self.why)
                .finish_non_exhaustive();
        }
        chain::explain(f, &self.what(), self.why(), None)
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

    const START: Option<StepKind> = Some(StepKind::Start);
    const STOP: Option<StepKind> = Some(StepKind::Stop);

    fn of_task(
        component: &str,
        during: Option<StepKind>,
        end: End,
        task: TaskError,
    ) -> ComponentError {
        let error = ComponentError::new(component, during, end);
        error.with_task(task).0
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
    fn each_end_alone_has_its_message() {
        for (during, end, limit, message) in [
            (START, End::Failed, None, "did not start"),
            (
                START,
                End::Failed,
                Some(LIMIT),
                "was not ready within 10s: has it called `ready`?",
            ),
            (START, End::EndedEarly, None, "ended before it was ready"),
            (START, End::Panicked, None, "panicked"),
            (None, End::Failed, None, "failed"),
            (None, End::Panicked, None, "panicked"),
            (None, End::EndedEarly, None, "ended before it was told to"),
            (None, End::Aborted, None, "was dropped before it ended"),
            (STOP, End::Failed, None, "failed while it stopped"),
            (
                Some(StepKind::Drain),
                End::TimedOut,
                Some(LIMIT),
                "did not drain within 10s",
            ),
            (
                STOP,
                End::TimedOut,
                Some(LIMIT),
                "did not stop within 10s and was forced",
            ),
            (
                STOP,
                End::StillRunning,
                Some(LIMIT),
                "did not stop within 10s, was forced, and is still running",
            ),
        ] {
            let error = ComponentError::new("http", during, end).within(limit);
            assert_eq!(error.to_string(), format!("component `http` {message}"));
            assert_eq!(error.end(), end);
        }
    }

    #[tokio::test]
    async fn what_stopped_a_lifecycle_is_its_own_error() {
        let lost = failed("lease", "the lease was lost").await;
        let error = ComponentError::of_trigger("orders", lost);

        assert_eq!(error.to_string(), "lifecycle `orders` had to stop");
        assert!(format!("{error:#}").ends_with(": the lease was lost"));
    }

    #[test]
    fn the_message_follows_the_end() {
        let error = ComponentError::new("db", START, End::Failed)
            .within(Some(LIMIT))
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
            let error = of_task(component, START, End::Failed, task);

            assert_eq!(
                format!("{error:#}"),
                format!("component `{component}` did not start: address in use")
            );
        }
    }

    #[tokio::test]
    async fn a_task_of_another_name_is_named() {
        let task = failed("xhttp", "address in use").await;
        let error = of_task("http", None, End::Failed, task);

        assert!(error.message.starts_with("task `orders/xhttp` ("));
        assert!(error.message.ends_with(") failed: address in use"));
    }

    #[tokio::test]
    async fn the_sources_are_part_of_the_message_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("no quorum")]
        struct NoQuorum(#[source] fmt::Error);

        let task = failed("db", NoQuorum(fmt::Error)).await;
        let error = of_task("db", None, End::Failed, task);

        assert_eq!(error.message, format!("no quorum: {}", fmt::Error));
        assert!(error.source().unwrap().is::<NoQuorum>());

        let above = failed("inner", error.clone()).await;
        let above = of_task("inner", None, End::Failed, above);
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
        let error = of_task("worker", None, End::Panicked, task);

        assert_eq!(format!("{error:#}"), "component `worker` panicked: boom");
        assert!(!error.is_forced());
    }

    #[tokio::test]
    async fn a_message_that_panics_is_not_a_panic() {
        #[derive(Debug)]
        struct Loud;
        impl fmt::Display for Loud {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                std::panic::resume_unwind(Box::new("loud"))
            }
        }
        impl Error for Loud {}

        let task = failed("db", Loud).await;
        let error = of_task("db", None, End::Failed, task);

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
        let error = of_task("http", STOP, End::Failed, task);

        assert!(!error.end().is_forced());
        assert!(error.is_forced());
    }
}
