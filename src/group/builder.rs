//! The [`Builder`] holds the options of a group.

use std::borrow::Cow;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::group::build_error::BuildError;
use crate::group::engine::shared::{Plan, Shared};
use crate::group::failure::View;
use crate::group::label;

/// The options of a [`TaskGroup`](crate::TaskGroup), as plain data that can be printed and reused.
///
/// By default a group has no name, no limit, no deadline, no grace and its own token. The same options
/// can make a [child group](crate::TaskGroup::child_with).
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
///
/// let group = TaskGroup::builder().name("thumbnails").limit(64).build()?;
/// assert_eq!(group.name(), Some("thumbnails"));
///
/// let error = TaskGroup::builder().name("thumbnails").limit(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "group `thumbnails`: `limit` cannot be 0: no task could ever start");
/// # Ok::<_, taskgroup::BuildError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until a group is built of them"]
pub struct Builder {
    name: Option<Cow<'static, str>>,
    limit: Option<usize>,
    deadline: Option<Duration>,
    grace: Option<Duration>,
    parent: Option<CancellationToken>,
    isolated: bool,
    in_current_span: bool,
}

impl Builder {
    /// Names the group. The names of its tasks and children become paths below this name.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Lets at most `limit` tasks run at once. The other tasks wait for a slot.
    ///
    /// With zero, [`build`](Self::build) returns an error. [`usize::MAX`] means no limit.
    ///
    /// [`TaskGroup::spawn`](crate::TaskGroup::spawn) describes how tasks wait for a slot. Child groups
    /// take no slot of their parent.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Cancels the group this long after it is built. If tasks are still running then, the group fails.
    ///
    /// The clock starts when the group is built. The deadline may be anything from zero to
    /// [`Duration::MAX`]. When it passes, the token fires, and the wait goes on until the tasks have
    /// ended. A [grace](Self::grace) bounds that wait.
    ///
    /// - Tasks that have ended before the deadline are in time. If the clock tick of the deadline also
    ///   wakes a task, and the task ends in that poll, the task is in time too.
    /// - If nothing was spawned before the deadline, as with a deadline of zero, the group is
    ///   cancelled. A task that is spawned later is too late, and `wait` fails with
    ///   [`End::TimedOut`](crate::End::TimedOut).
    /// - If all tasks have ended before the deadline, the group is cancelled without a failure.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Aborts the remaining tasks this long after the cancel, whatever its cause.
    ///
    /// So [`wait`](crate::TaskGroup::wait) returns within `grace` and a second of the cancel, as
    /// [`shutdown`](crate::TaskGroup::shutdown) does. If it had to force tasks, it names them and never
    /// returns `Ok`. A task that ends at the moment the grace is over is in time. The clock starts when
    /// the token fires, even if nobody waits. Zero aborts at the cancel. [`Duration::MAX`] means no
    /// grace.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::TaskGroup;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let mut group = TaskGroup::builder().grace(Duration::from_secs(10)).build()?;
    /// group.task("deaf").spawn(std::future::pending::<Result<(), _>>());
    /// group.cancel();
    /// let error = group.wait().await.unwrap_err(); // ten seconds later
    /// assert_eq!(error.stragglers().iter().next().unwrap().name(), Some("deaf"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Makes the group's token a child of `parent`.
    ///
    /// Use it for a token that does not belong to a group. When that token fires, the cause is
    /// [`Cause::Token`](crate::Cause::Token). Only the group's owner waits for the group. To make a
    /// child of another group, use [`TaskGroup::child_with`](crate::TaskGroup::child_with).
    pub fn parent(mut self, parent: &CancellationToken) -> Self {
        self.parent = Some(parent.clone());
        self
    }

    /// Keeps the failures of a child group from its parent.
    ///
    /// Only a wait for this group returns its failures. If its owner is dropped first, they are only
    /// logged. Otherwise it behaves as any [child](crate::TaskGroup::child). Cancelling and aborting
    /// flow down, and the group above waits for the tasks.
    pub fn isolated(mut self) -> Self {
        self.isolated = true;
        self
    }

    /// Runs each task in the [`tracing`] span that is current when the task is spawned.
    ///
    /// Child groups inherit this. For a single task, use
    /// [`Task::in_current_span`](crate::group::Task::in_current_span).
    pub fn in_current_span(mut self) -> Self {
        self.in_current_span = true;
        self
    }

    /// Returns the deadline and the grace, which need a runtime.
    pub(super) fn clocks(&self) -> (Option<Duration>, Option<Duration>) {
        (self.deadline, self.grace)
    }

    /// Checks the options and turns them into the plan of a group without a parent.
    pub(super) fn plan<E>(
        &self,
        view: View<E>,
        place: &'static Location<'static>,
    ) -> Result<Plan<E>, BuildError> {
        self.check()?;
        if self.isolated {
            let why = "it is below no other group, and its failures are its own anyhow";
            return Err(BuildError::new(self.label(), "isolated", "set", why));
        }
        Ok(Plan {
            path: self.name.as_deref().map(Into::into),
            limit: self.limit,
            bounded: self.grace.is_some(),
            in_current_span: self.in_current_span,
            token: self.parent.as_ref().map(CancellationToken::child_token),
            ..Plan::new(view, place)
        })
    }

    /// Checks the options and turns them into the plan of a child group.
    pub(super) fn plan_below<E>(
        &self,
        above: &Arc<Shared<E>>,
        place: &'static Location<'static>,
    ) -> Result<Plan<E>, BuildError> {
        self.check()?;
        if self.parent.is_some() {
            let why = "it is made below another group, and can have one parent";
            return Err(BuildError::new(self.label(), "parent", "set", why));
        }
        let plan = Plan::below(above, place);
        Ok(Plan {
            path: match &self.name {
                Some(name) => Some(label::join(plan.path.as_deref(), name)),
                None => plan.path,
            },
            limit: self.limit,
            isolated: self.isolated,
            bounded: self.grace.is_some(),
            in_current_span: self.in_current_span || plan.in_current_span,
            ..plan
        })
    }

    fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("group `{name}`"),
            None => "a group without a name".to_owned(),
        }
    }

    fn check(&self) -> Result<(), BuildError> {
        if self.name.as_deref() == Some("") {
            return Err(BuildError::empty_name("a group"));
        }
        if self.limit == Some(0) {
            let why = "no task could ever start";
            return Err(BuildError::new(self.label(), "limit", "0", why));
        }
        Ok(())
    }
}
