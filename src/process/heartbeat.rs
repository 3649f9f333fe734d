//! [`Heartbeat`]: stops a group when something does not say any more that it is alive.

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

/// Says that something is alive; if it does not say so in time, a group is stopped.
///
/// It is for what a process must not run without: a lease that has to be renewed, the leadership, a
/// device that has to answer. [`new`](Self::new) makes two values: this one for whoever can
/// [`beat`](Self::beat), cheap to clone, and a [`HeartbeatMonitor`] for
/// [`TaskGroup::cancel_on`](crate::TaskGroup::cancel_on).
///
/// # What counts
///
/// - The heartbeat is lost when no beat has come for the timeout, counted from the last one, or from
///   the call of `cancel_on`. Beats before that call do not count.
/// - **It is lost at once when the last handle is dropped,** as nobody is left to beat: the task
///   with it has ended or panicked. In a group that ends by itself, keep a handle until its `wait`
///   has returned. If it goes with a task that panics, the panic may come second, as
///   [suppressed](crate::TaskError::suppressed).
/// - A lost heartbeat stays lost. A beat that comes too late mends nothing, also when the runtime was
///   busy and nobody has noticed yet: for a lease the time between is over, and somebody else has it.
///
/// # It is a failure
///
/// The stop is as orderly as any, but [`wait`](crate::TaskGroup::wait) returns an error
/// whose source is the [`LostHeartbeat`](crate::group::LostHeartbeat), and the exit status is 1: nobody has
/// asked the process to stop, and `Restart=on-failure` has to start it again. In a child group it
/// cancels the groups above as any failure does. Once the group is cancelled for another reason,
/// nothing is counted any more: the lease may be given up in the drain.
///
/// # In a lifecycle
///
/// Given to [`Lifecycle::stop_on`](crate::lifecycle::Lifecycle::stop_on), a lost heartbeat is urgent: whoever has the
/// lease now must not meet an old holder that goes on for the length of a lame duck. All components are
/// told to stop at once, without a jitter, a lame duck or a drain, and not one after another; so are those
/// of the lifecycles inside. Only resources stay open until all that use them have ended. Each component has its
/// grace as ever. It counts when the stop has another reason too: if no beat comes for the timeout while an ordinary
/// stop is under way, the rest of that is hurried, which is no error. A handle that is dropped then
/// gives the lease up, and hurries nothing. [`in_order`](HeartbeatMonitor::in_order) opts out.
///
/// # Comparison to a liveness probe
///
/// A probe asks from outside, and kills. This stops from inside, and in order. It is watched by a
/// timer of the runtime, so it does not work while every thread of that is blocked: that is what
/// the probe is for.
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
    /// Nothing is ever sent: the monitor sees the last one go.
    _alive: mpsc::Sender<Infallible>,
}

/// Watches a [`Heartbeat`]: the trigger for [`TaskGroup::cancel_on`](crate::TaskGroup::cancel_on).
///
/// Dropped without a group, it watches nothing, and beats do nothing.
#[must_use = "a trigger does nothing until it is given to `TaskGroup::cancel_on`"]
pub struct HeartbeatMonitor {
    pulse: Arc<Pulse>,
    handles: mpsc::Receiver<Infallible>,
    in_order: bool,
}

struct Pulse {
    name: Arc<str>,
    timeout: Duration,
    /// The last beat that came in time. `None` until somebody listens.
    last: Mutex<Option<Instant>>,
}

impl Heartbeat {
    /// Makes a heartbeat that calls itself `name`, and what watches it.
    ///
    /// With a timeout of [`Duration::ZERO`] it is lost as soon as a group listens; with
    /// [`Duration::MAX`] only when the last handle is dropped.
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

    /// Says that all is well: the timeout begins anew.
    ///
    /// It may be called from any thread, as often as one likes: it takes a lock for a moment and wakes
    /// nobody. After the timeout it does nothing.
    pub fn beat(&self) {
        self.pulse.beat();
    }
}

impl Pulse {
    fn begin(&self) {
        *self.lock() = Some(Instant::now());
    }

    /// A beat that is late leaves the last one as it is, and so it is late whenever it is looked at.
    fn beat(&self) {
        let now = Instant::now();
        if let Some(last) = &mut *self.lock() {
            if now.duration_since(*last) < self.timeout {
                *last = now;
            }
        }
    }

    /// Returns what is left of the timeout; `None` if nothing is.
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
    /// Lets a lifecycle stop in its order, with all the time that it takes, when the heartbeat is lost.
    ///
    /// For what does not have to be over at once. In a group it changes nothing.
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

/// Resolves to what is there first; if both are, to that of `one`.
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
        // Made here, as in `listen_for`.
        let timer = sleep(self.pulse.timeout);
        self.pulse.begin();
        let group = group.clone();
        let task = tokio::spawn(async move {
            let cause = self.lost(timer).await;
            let is_stopping = group.token().is_cancelled();
            let is_silent = matches!(&cause, Cause::Heartbeat(lost) if lost.timeout().is_some());
            if is_stopping && !is_silent {
                // It was given up.
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
