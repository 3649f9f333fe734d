//! [`IntoTask`]: what can be spawned into a group.

/// What a group with errors of type `E` can spawn: a future whose output is a `Result<T, E>`.
///
/// A group of boxed errors takes the [futures of this crate](crate::group::RunFuture) too, whose errors have types of
/// their own: a server, a supervisor, a periodic task. Any other future whose error is not the group's goes into
/// an `async` block: `async { Ok(future.await?) }`.
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
    /// The value that the handle of the task gives.
    type Value;

    /// The future that runs as the task.
    type Task: Future<Output = Result<Self::Value, E>>;

    /// Makes the future that runs as the task.
    fn into_task(self) -> Self::Task;
}

impl<F, T, E> IntoTask<E> for F
where
    F: Future<Output = Result<T, E>>,
{
    type Value = T;
    type Task = F;

    #[inline]
    fn into_task(self) -> F {
        self
    }
}
