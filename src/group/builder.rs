//! [`Builder`]: the options of a group.

use std::borrow::Cow;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::group::build_error::BuildError;
use crate::group::engine::shared::{Plan, Shared};
use crate::group::error::View;
use crate::group::label;

/// The options of a [`TaskGroup`](crate::TaskGroup); plain data that can be printed and used more
/// than once.
///
/// Without options a group has no name, no limit, no deadline, no grace and a token of its own. The same
/// options make a group [below another one](crate::TaskGroup::child_with).
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
    /// Names the group; the names of its tasks and children become paths below it.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Lets at most `limit` tasks run at once, from 1 upwards; the others wait for a slot.
    ///
    /// Zero is an error of [`build`](Self::build); [`usize::MAX`] is as good as no limit.
    ///
    /// See [`TaskGroup::spawn`](crate::TaskGroup::spawn) for what waits where. Child groups take no
    /// slot of their parent.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Cancels the group this long after it is built; tasks that are running then are a failure.
    ///
    /// The clock starts when the group is built, and may be anything from zero to [`Duration::MAX`]. The
    /// tasks are told by the token, and the wait goes on until they have ended; a [grace](Self::grace)
    /// bounds it.
    ///
    /// - Tasks that have ended by then are in time. A task that the same tick of the clock wakes and that
    ///   ends in that poll is in time too: of the two the task wins.
    /// - If nothing was spawned by then, as with a deadline of zero, the group is cancelled, and whatever
    ///   is spawned into it afterwards is too late: `wait` fails with
    ///   [`End::TimedOut`](crate::End::TimedOut).
    /// - If all tasks have ended by then, the group is cancelled, and that is no failure.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Bounds the wait: this long after the cancel, whatever the cause, what is left is aborted.
    ///
    /// So [`wait`](crate::TaskGroup::wait) returns within `grace` and a second of the cancel, as
    /// [`shutdown`](crate::TaskGroup::shutdown) does, and it names what it had to force: it is never `Ok`
    /// then. A task that ends in the moment in which the grace is over is in time. The clock starts when
    /// the token fires, and it runs whether anybody waits or not. Zero aborts at the cancel;
    /// [`Duration::MAX`] is as good as none.
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
    /// For a token that belongs to no group: the cause is [`Cause::Token`](crate::Cause::Token), and
    /// nobody waits for the group but its owner. Below another group there is
    /// [`TaskGroup::child_with`](crate::TaskGroup::child_with).
    pub fn parent(mut self, parent: &CancellationToken) -> Self {
        self.parent = Some(parent.clone());
        self
    }

    /// Keeps the failures of a group below another one from that one.
    ///
    /// They go to whoever waits for this group, and to nobody else; if its owner is dropped before, they
    /// are only logged. All else is as with any [child](crate::TaskGroup::child): cancelling and aborting
    /// flow down, and the group above waits for the tasks.
    pub fn isolated(mut self) -> Self {
        self.isolated = true;
        self
    }

    /// Runs each task in the [`tracing`] span that is current when the task is spawned.
    ///
    /// Groups below inherit this. For one task there is
    /// [`Task::in_current_span`](crate::group::Task::in_current_span).
    pub fn in_current_span(mut self) -> Self {
        self.in_current_span = true;
        self
    }

    /// Returns the deadline and the grace, which need a runtime.
    pub(super) fn clocks(&self) -> (Option<Duration>, Option<Duration>) {
        (self.deadline, self.grace)
    }

    /// Checks the options and makes them the plan of a group below no other one.
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

    /// Checks the options and makes them the plan of a group below another one.
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
