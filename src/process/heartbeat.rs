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

use crate::group::Spawner;
use crate::group::cause::{Cause, LostHeartbeat};
use crate::group::lock::lock;
use crate::group::trigger::sealed::Listen;
use crate::group::trigger::{Trigger, listen_for};

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
        (heartbeat, HeartbeatMonitor { pulse, handles })
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
