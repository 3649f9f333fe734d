//! [`Heartbeat`]: stops a group when a part of the program no longer reports that it is alive.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};

use crate::group::cause::{Cause, LostHeartbeat};
use crate::group::lock::lock;
use crate::group::log;
use crate::group::trigger::sealed::{Hurry, Listen};
use crate::group::trigger::{Trigger, listen_for};
use crate::group::{AbortOnDrop, Spawner};

/// Reports that something is alive, and stops a group if the report does not come in time.
///
/// It is for what a process must not run without, such as a lease that has to be renewed, the leadership, or
/// a device that has to answer. [`new`](Self::new) makes two values. This one can [`beat`](Self::beat) and is
/// cheap to clone, and the [`HeartbeatMonitor`] is for [`TaskGroup::cancel_on`](crate::TaskGroup::cancel_on).
///
/// # What counts
///
/// - The heartbeat is lost when no beat comes for the timeout, counted from the last beat or from the call of
///   `cancel_on`. Beats before that call do not count.
/// - **It is lost at once when the last handle is dropped,** because the task that held it has ended or
///   panicked. In a group that ends by itself, keep a handle until its `wait` has returned. If a panicking
///   task drops the handle, the panic may come second, as [suppressed](crate::TaskError::suppressed).
/// - A lost heartbeat stays lost. A late beat does not bring it back, even when the runtime was too busy to
///   notice the loss. The lease has expired by then, and another process may hold it.
///
/// # It is a failure
///
/// The stop is as orderly as any, but [`wait`](crate::TaskGroup::wait) returns an error whose source is the
/// [`LostHeartbeat`](crate::group::LostHeartbeat), and the exit status is 1. The process was not asked to
/// stop, so `Restart=on-failure` has to start it again. In a child group, the loss cancels the groups above
/// as any failure does. Once the group is cancelled for another reason, the heartbeat no longer counts, since
/// a drain may give up the lease.
///
/// # In a lifecycle
///
/// In [`Lifecycle::stop_on`](crate::lifecycle::Lifecycle::stop_on), a lost heartbeat is urgent, because the
/// new holder of the lease must not meet an old one that works on for the length of a lame duck. The
/// lifecycle tells all its components to stop at once, without a jitter, a lame duck or a drain, and so do
/// the lifecycles inside. Only resources stay open until all their users have ended. Each component keeps its
/// grace. The heartbeat also counts when the stop has another reason. If no beat comes for the timeout during
/// an ordinary stop, the rest of that stop is hurried, which is not an error. Dropping the handle during a
/// stop gives the lease up, and hurries nothing. [`in_order`](HeartbeatMonitor::in_order) opts out.
///
/// # Comparison to a liveness probe
///
/// A probe checks from outside, and kills. The heartbeat stops the group from inside, and in order. A timer
/// of the runtime watches it, so it does not work while every thread of the runtime is blocked. Use a probe
/// for that case.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::TaskGroup;
/// use taskgroup::process::Heartbeat;
///
/// # async fn renew() -> bool { false }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (heartbeat, monitor) = Heartbeat::new("lease", Duration::from_secs(10));
/// let mut group = TaskGroup::new();
/// group.cancel_on(monitor);
/// let token = group.token().clone();
/// group.task("lease").spawn(async move {
///     let period = Duration::from_secs(3);
///     while token.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
///         if renew().await {
///             heartbeat.beat();
///         }
///     }
///     Ok(())
/// });
///
/// let error = group.wait().await.unwrap_err();
/// assert!(format!("{error:#}").ends_with(" failed: heartbeat `lease` lost: no beat within 10s"));
/// # }
/// ```
#[derive(Clone)]
#[must_use = "the heartbeat is lost when its last handle is dropped"]
pub struct Heartbeat {
    pulse: Arc<Pulse>,
    /// Nothing is ever sent. The monitor sees when the last sender is dropped.
    _alive: mpsc::Sender<Infallible>,
}

/// Watches a [`Heartbeat`], as the trigger for [`TaskGroup::cancel_on`](crate::TaskGroup::cancel_on).
///
/// If it is dropped without a group, beats have no effect.
#[must_use = "a trigger does nothing until it is given to `TaskGroup::cancel_on`"]
pub struct HeartbeatMonitor {
    pulse: Arc<Pulse>,
    handles: mpsc::Receiver<Infallible>,
    in_order: bool,
}

struct Pulse {
    name: Arc<str>,
    timeout: Duration,
    /// The last beat that came in time. `None` until the monitor listens.
    last: Mutex<Option<Instant>>,
}

impl Heartbeat {
    /// Makes a heartbeat called `name`, and its monitor.
    ///
    /// With a timeout of [`Duration::ZERO`] it is lost as soon as a group listens. With [`Duration::MAX`] it
    /// is lost only when the last handle is dropped.
    pub fn new(name: impl AsRef<str>, timeout: Duration) -> (Self, HeartbeatMonitor) {
        let (alive, handles) = mpsc::channel(1);
        let pulse = Arc::new(Pulse {
            name: name.as_ref().into(),
            timeout,
            last: Mutex::new(None),
        });
        let heartbeat = Self {
            pulse: Arc::clone(&pulse),
            _alive: alive,
        };
        let monitor = HeartbeatMonitor {
            pulse,
            handles,
            in_order: false,
        };
        (heartbeat, monitor)
    }

    /// Reports that all is well, which restarts the timeout.
    ///
    /// Any thread may call it, at any rate. It holds a lock for a moment and wakes no task. After the timeout
    /// it does nothing.
    pub fn beat(&self) {
        self.pulse.beat();
    }
}

impl Pulse {
    fn begin(&self) {
        *self.lock() = Some(Instant::now());
    }

    /// A late beat leaves the last one unchanged, so the heartbeat is late at every later look.
    fn beat(&self) {
        let now = Instant::now();
        if let Some(last) = &mut *self.lock() {
            if now.duration_since(*last) < self.timeout {
                *last = now;
            }
        }
    }

    /// Returns the rest of the timeout, or `None` if it is over.
    fn left(&self) -> Option<Duration> {
        let silent = self.lock().map_or(Duration::ZERO, |last| last.elapsed());
        let left = self.timeout.checked_sub(silent);
        left.filter(|left| !left.is_zero())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        lock(&self.last)
    }

    /// Waits until the timeout has passed without a beat. `timer` is for the first look.
    async fn silence(&self, timer: Sleep) {
        let mut timer = pin!(timer);
        loop {
            timer.as_mut().await;
            match self.left() {
                Some(left) => timer.set(sleep(left)),
                None => return,
            }
        }
    }
}

impl HeartbeatMonitor {
    /// Lets the lifecycle stop in its usual order and time when the heartbeat is lost.
    ///
    /// It is for a stop that is not urgent. In a group it has no effect.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// # #[cfg(feature = "lifecycle")]
    /// use taskgroup::lifecycle::Lifecycle;
    /// use taskgroup::process::Heartbeat;
    ///
    /// let (device, lost) = Heartbeat::new("device", Duration::from_secs(10));
    /// # #[cfg(feature = "lifecycle")]
    /// let lifecycle = Lifecycle::new("orders").stop_on(lost.in_order());
    /// # drop(device);
    /// ```
    pub fn in_order(mut self) -> Self {
        self.in_order = true;
        self
    }

    async fn lost(mut self, timer: Sleep) -> Cause {
        let name = Arc::clone(&self.pulse.name);
        let timeout = self.pulse.timeout;
        let silence = async {
            self.pulse.silence(timer).await;
            Some(timeout)
        };
        let abandoned = async {
            self.handles.recv().await;
            None
        };
        Cause::Heartbeat(LostHeartbeat::new(name, first(silence, abandoned).await))
    }
}

/// Resolves to the output of the first future that is ready, and prefers `one` if both are.
async fn first<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| match one.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(output),
        Poll::Pending => other.as_mut().poll(cx),
    })
    .await
}

impl Listen for HeartbeatMonitor {
    fn listen<E: Send + 'static>(self, group: &Spawner<E>) -> Box<dyn Send> {
        let timer = sleep(self.pulse.timeout);
        self.pulse.begin();
        listen_for(group, self.lost(timer))
    }

    fn listen_to_hurry<E: Send + 'static>(
        self,
        group: &Spawner<E>,
        hurry: impl Fn(Hurry) + Send + Sync + 'static,
    ) -> Box<dyn Send> {
        if self.in_order {
            return self.listen(group);
        }
        // Made here for the same reason as in `listen_for`.
        let timer = sleep(self.pulse.timeout);
        self.pulse.begin();
        let group = group.clone();
        let task = tokio::spawn(async move {
            let cause = self.lost(timer).await;
            let is_stopping = group.token().is_cancelled();
            let is_silent = matches!(&cause, Cause::Heartbeat(lost) if lost.timeout().is_some());
            if is_stopping && !is_silent {
                // The lease was given up.
                return;
            }
            hurry(Hurry::Urgent);
            group.trigger(&cause);
            if is_stopping {
                log::guarded(|| {
                    tracing::warn!(target: "taskgroup", "{cause}: the stop is hurried");
                });
            }
        });
        Box::new(AbortOnDrop::new(&task))
    }
}

impl Trigger for HeartbeatMonitor {}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat")
            .field("name", &self.pulse.name)
            .field("timeout", &self.pulse.timeout)
            .field("left", &self.pulse.left())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HeartbeatMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeartbeatMonitor")
            .field("name", &self.pulse.name)
            .field("timeout", &self.pulse.timeout)
            .finish_non_exhaustive()
    }
}
