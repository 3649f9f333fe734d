//! A [`Trigger`] stops a group from outside its tasks.

use std::future::Future;

use crate::group::cause::Cause;
use crate::group::panic::Panic;
use crate::group::{AbortOnDrop, Spawner, TaskGroup};

use sealed::{Hurry, Listen};

/// What [`TaskGroup::cancel_on`] listens to.
///
/// | to stop on | give it | the cause | `wait` returns |
/// |---|---|---|---|
/// | a signal | `Signals` (feature `signal`) | [`Cause::Signal`] | `Ok` |
/// | a file that appears | [`StopFile`](crate::process::StopFile) | [`Cause::File`] | `Ok` |
/// | a heartbeat that stops | [`HeartbeatMonitor`](crate::process::HeartbeatMonitor) | [`Cause::Heartbeat`] | an error |
/// | the end of another group | the [`Spawner`] of that group | that of the group | `Ok` |
/// | a token | `token.cancelled_owned()` | [`Cause::Requested`] | `Ok` |
/// | anything else | a future that yields a reason | what the future yields | `Ok` |
///
/// A trigger only asks the group to stop. The table shows `Ok` for tasks that end well. A failure
/// during the drain is still an error. A lost heartbeat is itself a failure, because the process is not
/// healthy.
///
/// A future yields a [`Cause`], or a value that converts into one, such as a reason in words or `()`.
/// It is polled as soon as the group begins to listen, and dropped when the group is cancelled. If it
/// panics, the group is stopped, because the trigger could no longer fire. Other code can stop a group
/// from any thread with [`Spawner::cancel_because`](crate::Spawner::cancel_because).
///
/// # Comparison to `Builder::deadline`
///
/// [`Builder::deadline`](crate::group::Builder::deadline) is for work that should be done by then, so
/// tasks that are still running are a failure. A trigger that sleeps is for endless work, such as a
/// worker that is replaced by a fresh one every night.
///
/// The trait cannot be implemented outside this crate.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::{Cause, TaskGroup};
/// use tokio::time::sleep;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let mut group = TaskGroup::new();
/// let token = group.token().clone();
/// group.spawn(async move { Ok(token.cancelled().await) });
/// group.cancel_on(async {
///     sleep(Duration::from_secs(60)).await;
///     "nobody has called for a minute"
/// });
/// let day = Duration::from_secs(86_400);
/// group.cancel_on(async move {
///     sleep(day).await;
///     Cause::Deadline(day)
/// });
///
/// group.wait().await?;
/// let cause = group.cause().unwrap().to_string();
/// assert_eq!(cause, "cancelled on request: nobody has called for a minute");
/// # Ok(())
/// # }
/// ```
pub trait Trigger: Listen {}

impl<F> Listen for F
where
    F: Future<Output: Into<Cause>> + Send + 'static,
{
    fn listen<E: Send + 'static>(self, group: &Spawner<E>) -> Box<dyn Send> {
        listen_for(group, reason_of(self))
    }

    fn listen_to_hurry<E: Send + 'static>(
        self,
        group: &Spawner<E>,
        _hurry: impl Fn(Hurry) + Send + Sync + 'static,
    ) -> Box<dyn Send> {
        listen_for_lifecycle(group, reason_of(self))
    }
}

async fn reason_of(future: impl Future<Output: Into<Cause>>) -> Cause {
    match Panic::catch_future(future).await {
        Ok(reason) => reason.into(),
        Err(panic) => format!("a trigger panicked: {}", panic.message()).into(),
    }
}

impl<F> Trigger for F where F: Future<Output: Into<Cause>> + Send + 'static {}

/// Stops a group or a lifecycle when another group is cancelled, with that group's cause.
impl<G: Send + 'static> Listen for Spawner<G> {
    fn listen<E: Send + 'static>(self, group: &Spawner<E>) -> Box<dyn Send> {
        listen_for(group, end_of(self))
    }

    fn listen_to_hurry<E: Send + 'static>(
        self,
        group: &Spawner<E>,
        _hurry: impl Fn(Hurry) + Send + Sync + 'static,
    ) -> Box<dyn Send> {
        listen_for_lifecycle(group, end_of(self))
    }
}

async fn end_of<G: Send + 'static>(group: Spawner<G>) -> Cause {
    group.token().cancelled().await;
    group.cause().unwrap_or(Cause::Token)
}

impl<G: Send + 'static> Trigger for Spawner<G> {}

pub(crate) mod sealed {
    use crate::group::Spawner;

    /// How a trigger wants a lifecycle to stop, if not in its normal order.
    #[derive(Clone, Copy, Debug)]
    pub enum Hurry {
        /// All components are told at once.
        Urgent,
        /// Everything that is left is aborted.
        #[cfg_attr(not(feature = "signal"), allow(dead_code))]
        Force,
    }

    pub trait Listen: Send + 'static {
        /// Stops `group` when the trigger fires, until the returned value is dropped.
        #[track_caller]
        fn listen<E: Send + 'static>(self, group: &Spawner<E>) -> Box<dyn Send>;

        /// The same for a lifecycle, which does more than stop in its order when `hurry` is called.
        #[track_caller]
        fn listen_to_hurry<E: Send + 'static>(
            self,
            group: &Spawner<E>,
            hurry: impl Fn(Hurry) + Send + Sync + 'static,
        ) -> Box<dyn Send>
        where
            Self: Sized,
        {
            drop(hurry);
            self.listen(group)
        }
    }
}

impl<E: Send + 'static> TaskGroup<E> {
    /// Cancels the group when `trigger` fires.
    ///
    /// - The [`Cause`] names the trigger, unless another cause came first. One line at INFO logs it,
    ///   and another logs how the group ended.
    /// - A trigger is not a task of the group. It is not listed in [`running`](Self::running), and the
    ///   group does not wait for it. It ends at the latest when the group's `wait` has returned or the
    ///   group was dropped. Signals are heard until then. All other triggers end when the group is
    ///   cancelled, whatever the cause.
    /// - A [`StopFile`](crate::process::StopFile) or a heartbeat starts counting at this call.
    /// - A group can have any number of triggers.
    ///
    /// Signals have their own thread. The other triggers live on the runtime, and cannot fire while all
    /// its threads are blocked.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime, unless the trigger is `Signals`. A file and a heartbeat also
    /// need the runtime's timers.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::TaskGroup;
    /// use taskgroup::process::StopFile;
    /// use tokio::time::sleep;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let mut group = TaskGroup::new();
    /// group.cancel_on(StopFile::new("/run/orders/stop"));
    /// group.cancel_on(async {
    ///     sleep(Duration::from_secs(3600)).await;
    ///     "the hour is over"
    /// });
    /// let token = group.token().clone();
    /// group.spawn(async move { Ok(token.cancelled().await) });
    ///
    /// group.wait().await?; // an hour later, or after `touch /run/orders/stop`
    /// let cause = group.cause().unwrap().to_string();
    /// assert_eq!(cause, "cancelled on request: the hour is over");
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn cancel_on(&self, trigger: impl Trigger) {
        self.attach(trigger.listen(&self.spawner()));
    }
}

/// Stops `group` for the cause that `comes` resolves to, unless the group is cancelled first.
///
/// The caller makes the timers of `comes` before this call. So without timers the caller panics, and
/// not a task that nobody watches.
#[track_caller]
pub(crate) fn listen_for<E: Send + 'static>(
    group: &Spawner<E>,
    comes: impl Future<Output = Cause> + Send + 'static,
) -> Box<dyn Send> {
    listen(group, comes, Spawner::trigger)
}

/// The same for a lifecycle, which logs a stop that no trigger of the crate has logged.
#[track_caller]
fn listen_for_lifecycle<E: Send + 'static>(
    group: &Spawner<E>,
    comes: impl Future<Output = Cause> + Send + 'static,
) -> Box<dyn Send> {
    listen(group, comes, |group, cause| match cause.is_trigger() {
        true => group.trigger(cause),
        false => group.cancel_for(cause.clone()),
    })
}

#[track_caller]
fn listen<E: Send + 'static>(
    group: &Spawner<E>,
    comes: impl Future<Output = Cause> + Send + 'static,
    stop: fn(&Spawner<E>, &Cause),
) -> Box<dyn Send> {
    let group = group.clone();
    let task = tokio::spawn(async move {
        if let Some(cause) = group.token().run_until_cancelled(comes).await {
            stop(&group, &cause);
        }
    });
    Box::new(AbortOnDrop::new(&task))
}
