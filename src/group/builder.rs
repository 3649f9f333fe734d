//! [`Builder`]: the options of a group.

use std::borrow::Cow;
use std::panic::Location;
use std::time::Duration;

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::shared::Plan;
use crate::error::View;

/// The options of a [`TaskGroup`](crate::TaskGroup); plain data that can be printed and used more
/// than once.
///
/// Without options a group has no name, no limit, no deadline and a token of its own.
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
/// assert_eq!(error.to_string(), "group `thumbnails` has a limit of 0: no task could ever start");
/// # Ok::<_, taskgroup::BuildError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until a group is built of them"]
pub struct Builder {
    name: Option<Cow<'static, str>>,
    limit: Option<usize>,
    deadline: Option<Duration>,
    parent: Option<CancellationToken>,
}

/// Options that make no group.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The limit is 0.
    #[error("{group} has a limit of 0: no task could ever start")]
    ZeroLimit {
        /// The group, as the message names it.
        group: String,
    },
    /// The deadline is 0.
    #[error("{group} has a deadline of 0s: it would be over before it starts")]
    ZeroDeadline {
        /// The group, as the message names it.
        group: String,
    },
    /// The name is empty.
    #[error("a group has an empty name")]
    EmptyName,
}

impl Builder {
    /// Names the group; the names of its tasks and children become paths below it.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Lets at most `limit` tasks run at once, from 1 upwards; the others wait for a slot.
    ///
    /// See [`TaskGroup::spawn`](crate::TaskGroup::spawn) for what waits where. Child groups take no
    /// slot of their parent.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Cancels the group this long after it is built; tasks that are running then are a failure.
    ///
    /// The clock starts when the group is built. Its tasks are told by the token, and the wait goes
    /// on until they have ended; give [`TaskGroup::shutdown`](crate::TaskGroup::shutdown) a grace to
    /// force them.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Makes the group's token a child of `parent`.
    ///
    /// For a group below another group, [`TaskGroup::child`](crate::TaskGroup::child) does more: the
    /// parent waits for it.
    pub fn parent(mut self, parent: &CancellationToken) -> Self {
        self.parent = Some(parent.clone());
        self
    }

    /// Checks the options and makes them a plan; the deadline is apart, it needs a runtime.
    pub(super) fn plan<E>(
        &self,
        view: View<E>,
        place: &'static Location<'static>,
    ) -> Result<(Plan<E>, Option<Duration>), BuildError> {
        self.check()?;
        let plan = Plan {
            path: self.name.as_deref().map(Into::into),
            limit: self.limit,
            token: self.parent.as_ref().map(CancellationToken::child_token),
            view,
            place,
        };
        Ok((plan, self.deadline))
    }

    fn check(&self) -> Result<(), BuildError> {
        let group = || match &self.name {
            Some(name) => format!("group `{name}`"),
            None => "a group without a name".to_owned(),
        };
        if self.name.as_deref() == Some("") {
            return Err(BuildError::EmptyName);
        }
        if self.limit == Some(0) {
            return Err(BuildError::ZeroLimit { group: group() });
        }
        if self.deadline == Some(Duration::ZERO) {
            return Err(BuildError::ZeroDeadline { group: group() });
        }
        Ok(())
    }
}
