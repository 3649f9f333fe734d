//! [`Outcome`]: how the active phase of a service ended.

use std::fmt;
use std::sync::Arc;

use crate::group::cause::Cause;
use crate::group::error::TaskError;
use crate::group::verdict;

/// How the active phase of a service ended. Each step of a [`Cleanup`](crate::cleanup::Cleanup)
/// gets it.
///
/// A step branches on it, for example to commit or roll back. It is made from the result of
/// [`TaskGroup::wait`](crate::TaskGroup::wait) or [`shutdown`](crate::TaskGroup::shutdown). It is `Forced`
/// if anything had to be cut, even after another failure. The caller keeps the whole error. A result alone
/// does not say whether the group was cancelled, so pass the cause with it: `(&result, group.cause())`.
///
/// # Examples
///
/// ```
/// use taskgroup::cleanup::Outcome;
/// use taskgroup::TaskGroup;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::new();
/// group.task("disk").spawn(async { Err::<(), _>("disk full".into()) });
/// let outcome = Outcome::from(&group.wait().await);
/// assert!(matches!(&outcome, Outcome::Failed(message) if message.ends_with("failed: disk full")));
/// assert!(!outcome.is_clean());
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All work was done and ended well by itself, as far as known. Nothing was asked to stop.
    Clean,
    /// Everything ended well after it was asked to stop for this cause, such as a signal. Work under way
    /// may not have been finished.
    Stopped(Cause),
    /// Something failed or panicked, with this message. The rest has ended by itself.
    Failed(Arc<str>),
    /// Something had to be cut or is still running, so its work may be half done.
    Forced(Arc<str>),
}

impl Outcome {
    /// Returns whether everything ended well, either by itself or after it was asked to stop.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::cleanup::Outcome;
    /// use taskgroup::Cause;
    ///
    /// assert!(Outcome::Clean.is_clean());
    /// assert!(Outcome::Stopped(Cause::Token).is_clean());
    /// assert!(!Outcome::Failed("disk full".into()).is_clean());
    /// ```
    #[must_use]
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Clean | Self::Stopped(_))
    }

    /// Returns whether all work was done: everything ended well, and nothing was asked to stop.
    ///
    /// # Examples
    ///
    /// A step that commits on success only:
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::TaskGroup;
    /// use taskgroup::cleanup::{Cleanup, Step};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let mut cleanup = Cleanup::new();
    /// cleanup.push(Step::new("transaction", |outcome| async move {
    ///     let last = if outcome.is_done() { "commit" } else { "roll back" };
    ///     Ok(assert_eq!(last, "roll back"))
    /// }))?;
    ///
    /// let mut group = TaskGroup::new();
    /// let token = group.token().clone();
    /// group.spawn(async move { Ok(token.cancelled().await) });
    /// group.cancel_because("a deployment");
    /// let result = group.wait().await;
    /// let report = cleanup.run((&result, group.cause()), Duration::from_secs(1)).await;
    /// assert!(report.is_clean());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Clean)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => f.write_str("clean"),
            Self::Stopped(cause) => write!(f, "clean: {cause}"),
            Self::Failed(message) => write!(f, "failed: {message}"),
            Self::Forced(message) => write!(f, "forced: {message}"),
        }
    }
}

impl<E: 'static> From<&Result<(), TaskError<E>>> for Outcome {
    fn from(result: &Result<(), TaskError<E>>) -> Self {
        match result {
            Ok(()) => Self::Clean,
            Err(error) => error.into(),
        }
    }
}

/// Takes the cause of the group as well: [`TaskGroup::cause`](crate::TaskGroup::cause).
impl<E: 'static> From<(&Result<(), TaskError<E>>, Option<Cause>)> for Outcome {
    fn from((result, cause): (&Result<(), TaskError<E>>, Option<Cause>)) -> Self {
        match (result, cause) {
            (Ok(()), Some(cause)) => Self::Stopped(cause),
            (result, _) => result.into(),
        }
    }
}

impl<E: 'static> From<&TaskError<E>> for Outcome {
    fn from(error: &TaskError<E>) -> Self {
        let message = format!("{error:#}").into();
        if verdict::was_forced(error) {
            Self::Forced(message)
        } else {
            Self::Failed(message)
        }
    }
}
