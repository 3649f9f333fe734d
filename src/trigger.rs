//! [`Trigger`]: what stops a group from outside of its tasks.

use std::future::Future;

use crate::cause::Cause;
use crate::group::{AbortOnDrop, Spawner, TaskGroup};

use sealed::Listen;

/// What [`TaskGroup::cancel_on`] listens to.
///
/// | to stop on | give it | the cause | `wait` returns |
/// |---|---|---|---|
/// | a signal | `Signals` (feature `signal`) | [`Cause::Signal`] | `Ok` |
/// | a file that appears | [`StopFile`](crate::StopFile) | [`Cause::File`] | `Ok` |
/// | a time that is up | [`StopAfter`](crate::StopAfter) | [`Cause::Deadline`] | `Ok` |
/// | a heartbeat that stops | [`HeartbeatMonitor`](crate::HeartbeatMonitor) | [`Cause::Heartbeat`] | an error |
///
/// A trigger only asks the group to stop. `Ok` stands for tasks that end well then; what fails in the
/// drain is an error as ever. A lost heartbeat is itself a failure, as the process is not healthy.
///
/// Whatever else is to stop a group is a call, from any thread:
/// [`Spawner::cancel_because`](crate::Spawner::cancel_because). So the trait cannot be implemented
/// elsewhere.
pub trait Trigger: Listen {}

pub(crate) mod sealed {
    use crate::group::Spawner;

    pub trait Listen: Send + 'static {
        /// Stops `group` when this has come, until the returned value is dropped.
        #[track_caller]
        fn listen<E: Send + 'static>(self, group: &Spawner<E>) -> Box<dyn Send>;
    }
}

impl<E: Send + 'static> TaskGroup<E> {
    /// Cancels the group when `trigger` comes.
    ///
    /// - The [`Cause`] names what it was; the first cause wins, as ever. One line at INFO says it, and
    ///   one more says how the group ended.
    /// - A trigger is no task of the group: it is not in [`running`](Self::running), and nothing waits
    ///   for it. It ends when the group is over (its `wait` has returned, or it was dropped). All but
    ///   signals end already when the group is cancelled, whatever the cause; a signal is heard until
    ///   the end.
    /// - What the trigger counts, a timeout say, it counts from this call.
    /// - A group can have any number of triggers.
    ///
    /// Signals have a thread of their own. The other triggers live on the runtime: while every thread
    /// of that is blocked, they are not heard.
    ///
    /// # Panics
    ///
    /// With another trigger than `Signals`, outside of a Tokio runtime whose timers are enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::{Cause, StopAfter, StopFile, TaskGroup};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let mut group = TaskGroup::new();
    /// group.cancel_on(StopFile::new("/tmp/stop-of-an-example"));
    /// group.cancel_on(StopAfter::new(Duration::from_secs(3600)));
    /// let token = group.token().clone();
    /// group.spawn(async move { Ok(token.cancelled().await) });
    ///
    /// group.wait().await?; // an hour later, or after `touch /tmp/stop-of-an-example`
    /// assert_eq!(group.cause(), Some(Cause::Deadline(Duration::from_secs(3600))));
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn cancel_on(&self, trigger: impl Trigger) {
        self.attach(trigger.listen(&self.spawner()));
    }
}

/// Stops `group` for the cause that `comes` resolves to, unless it is cancelled before.
///
/// The timers of `comes` are made before this call: where there are none, the caller panics and not a
/// task that nobody looks at.
#[track_caller]
pub(crate) fn listen_for<E: Send + 'static>(
    group: &Spawner<E>,
    comes: impl Future<Output = Cause> + Send + 'static,
) -> Box<dyn Send> {
    let group = group.clone();
    let task = tokio::spawn(async move {
        if let Some(cause) = group.token().run_until_cancelled(comes).await {
            group.trigger(&cause);
        }
    });
    Box::new(AbortOnDrop::new(&task))
}
