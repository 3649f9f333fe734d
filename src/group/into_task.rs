//! [`IntoTask`] is implemented by everything that can be spawned into a group.

/// What a group with errors of type `E` can spawn. Usually it is a future that returns a `Result<T,
/// E>`.
///
/// A group of boxed errors also takes the [futures of this crate](crate::group::RunFuture), which have
/// their own error types. They come from servers, supervisors and periodic tasks. Put any other future
/// with a different error into an `async` block, as in `async { Ok(future.await?) }`.
///
/// The trait cannot be implemented or called outside this crate. A type of yours that is to be spawned
/// implements [`Future`].
///
/// # Examples
///
/// ```
/// use taskgroup::{Sidecar, TaskGroup};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let mut group = TaskGroup::new();
/// group.spawn(async { Ok("8080".parse::<u16>()?) });
/// group.spawn(Sidecar::new("http").serve(group.token(), |stop| async {
///     Ok::<_, std::io::Error>(stop.await)
/// }));
/// group.cancel();
/// assert!(group.wait().await.is_ok());
/// # });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no task of a group whose error type is `{E}`",
    note = "a task is a future whose output is a `Result` with the error of its group"
)]
pub trait IntoTask<E> {
    /// The value that the task's handle returns.
    type Value;

    /// The future that runs as the task.
    type Task: Future<Output = Result<Self::Value, E>>;

    /// Makes the future that runs as the task.
    #[doc(hidden)]
    fn into_task(self, _: Inside) -> Self::Task;
}

/// Only this crate has one, which seals the trait.
///
/// ```compile_fail
/// struct Mine;
///
/// impl taskgroup::group::IntoTask<taskgroup::BoxError> for Mine {
///     type Value = ();
///     type Task = std::future::Ready<Result<(), taskgroup::BoxError>>;
///
///     fn into_task(self) -> Self::Task {
///         std::future::ready(Ok(()))
///     }
/// }
/// ```
mod sealed {
    #[derive(Clone, Copy, Debug)]
    pub struct Inside;
}

pub(crate) use self::sealed::Inside;

impl<F, T, E> IntoTask<E> for F
where
    F: Future<Output = Result<T, E>>,
{
    type Value = T;
    type Task = F;

    #[inline]
    fn into_task(self, _: Inside) -> F {
        self
    }
}
