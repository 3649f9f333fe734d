//! [`Cancelled`] is the error of a task that only did what its group asked for.

use std::error::Error;
use std::sync::Arc;

use crate::group::chain;

/// The error of a task that ended because it was cancelled.
///
/// Once its token has fired, a group does not count this as a failure, wherever it stands in the chain
/// of [`source`](Error::source)s. Before that it is an error like any other.
///
/// A group also finds it inside an [`io::Error`](std::io::Error), and behind a `Box` or an `Arc`,
/// although their `source` skips it. Two things hide it. One is thiserror's `#[error(transparent)]`, so
/// mark the field with `#[from]` or `#[source]` and give the variant its own message. The other is an
/// `anyhow::Error` without context that is turned into a boxed error, so spawn such tasks into a group
/// made by [`reports`](crate::TaskGroup::reports).
///
/// # Examples
///
/// ```
/// use taskgroup::{Cancelled, TaskGroup};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::new();
/// let token = group.token().clone();
/// group.spawn(async move {
///     let line = token.run_until_cancelled(std::future::pending::<String>());
///     println!("{}", line.await.ok_or(Cancelled)?);
///     Ok(())
/// });
/// group.cancel();
/// assert!(group.wait().await.is_ok());
/// # });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

impl Cancelled {
    /// Returns whether a `Cancelled` stands anywhere in the chain of `error`.
    pub(crate) fn is_behind(error: &(dyn Error + 'static)) -> bool {
        let mut next = Some(error);
        while let Some(error) = next {
            if error.is::<Self>() {
                return true;
            }
            next = below(error);
        }
        false
    }
}

/// Returns the error below this one, even if `source` skips a `Cancelled`.
fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    chain::behind::<Box<Cancelled>, _>(error)
        .or_else(|| chain::behind::<Arc<Cancelled>, _>(error))
        .or_else(|| chain::next(error))
}
