//! [`Readiness`]: whether a service wants traffic.

mod check;
#[cfg(feature = "axum")]
mod http;
#[cfg(feature = "tonic")]
mod grpc;

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::check::Check;

use self::check::Statuses;

/// Tells whether a service wants traffic. It is starting, ready, draining and stopped, in this
/// order, and never goes back.
///
/// A load balancer asks for it, so it has to change **before** anything stops. A server that closes
/// its socket while it is still called ready loses the requests that are on their way. When bound
/// to a token by [`drain_on`](Self::drain_on), it is draining from the moment the token fires. No
/// call can be forgotten, and no task has to run for it.
///
/// | from | to | by |
/// |---|---|---|
/// | starting | ready | [`set_ready`](Self::set_ready) |
/// | starting, ready | draining | [`set_draining`](Self::set_draining), or the token |
/// | any other | stopped | [`set_stopped`](Self::set_stopped) |
///
/// [Checks](Self::check) may fail and recover between ready and draining. While one of them fails,
/// [`is_ready`](Self::is_ready) is false and the state stays as it was.
///
/// Any other change is ignored, and the setter returns `false`. A slow start therefore cannot call
/// a service ready that is already draining.
///
/// The feature `axum` has ready-made routes, `/livez` and `/readyz` (`routes`). The feature `tonic`
/// has the gRPC health service (`health_service`).
///
/// # Clones
///
/// A clone is another handle on the same state, and each can set it.
///
/// # Drop
///
/// Dropping a handle changes nothing, the last one either.
///
/// # Comparison to `CancellationToken`
///
/// A token says that work is to end. Readiness is for clients outside. It also covers the time
/// before the start is complete. To readiness, the same token means "no new traffic, please", while
/// work goes on.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
/// use taskgroup::lifecycle::Readiness;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut group: TaskGroup = TaskGroup::new();
/// let readiness = Readiness::drain_on(group.token());
/// assert_eq!(readiness.to_string(), "starting");
///
/// readiness.set_ready(); // once the database is there
/// assert!(readiness.is_ready());
///
/// group.cancel();
/// assert_eq!(readiness.to_string(), "draining");
///
/// group.wait().await.unwrap();
/// readiness.set_stopped();
/// assert_eq!(readiness.to_string(), "stopped");
/// # }
/// ```
#[derive(Clone)]
pub struct Readiness {
    shared: Arc<Shared>,
}

/// The states of a service, in order. No more will be added.
///
/// # Examples
///
/// ```
/// use taskgroup::lifecycle::ReadinessState;
///
/// assert!(ReadinessState::Ready < ReadinessState::Draining);
/// assert_eq!(ReadinessState::Draining.to_string(), "draining");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReadinessState {
    /// Not ready yet.
    Starting,
    /// Wants traffic.
    Ready,
    /// Wants no new traffic, but still serves any that comes.
    Draining,
    /// No longer serves anything.
    Stopped,
}

/// Invariant: the state is the later one of the two, and neither goes back. So the state cannot go
/// back, whichever of them is read first.
struct Shared {
    /// The state that was set, without regard to the token.
    set: watch::Sender<ReadinessState>,
    /// The service is draining once this has fired.
    token: CancellationToken,
    /// Whether the token counts. Decided when a reader first finds it fired, or before.
    drains_by_token: OnceLock<bool>,
    checks: Statuses,
}

impl Readiness {
    /// Makes the readiness of a service that is starting, to be set by hand.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Readiness, ReadinessState};
    ///
    /// assert_eq!(Readiness::new().state(), ReadinessState::Starting);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::drain_on(&CancellationToken::new())
    }

    /// Makes the readiness of a service that is starting, and that is draining from the moment
    /// `token` fires.
    ///
    /// A reader that sees the token cancelled sees the service draining. The token is read on
    /// demand, so no task has to run first, and none is left over.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::CancellationToken;
    /// use taskgroup::lifecycle::{Readiness, ReadinessState};
    ///
    /// let token = CancellationToken::new();
    /// let readiness = Readiness::drain_on(&token);
    /// readiness.set_ready();
    ///
    /// token.cancel();
    /// assert_eq!(readiness.state(), ReadinessState::Draining);
    /// ```
    #[must_use]
    pub fn drain_on(token: &CancellationToken) -> Self {
        Self {
            shared: Arc::new(Shared {
                set: watch::Sender::new(ReadinessState::Starting),
                token: token.clone(),
                drains_by_token: OnceLock::new(),
                checks: Statuses::default(),
            }),
        }
    }

    /// Returns the current state.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Readiness, ReadinessState};
    ///
    /// let readiness = Readiness::new();
    /// readiness.set_stopped();
    /// assert_eq!(readiness.state(), ReadinessState::Stopped);
    /// ```
    #[must_use]
    pub fn state(&self) -> ReadinessState {
        let set = *self.shared.set.borrow();
        set.max(self.shared.by_token())
    }

    /// Returns whether the service wants traffic. Its state is ready, and no [check](Self::check)
    /// that counts for the whole service fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::Readiness;
    ///
    /// let readiness = Readiness::new();
    /// assert!(!readiness.is_ready());
    /// readiness.set_ready();
    /// assert!(readiness.is_ready());
    /// ```
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state() == ReadinessState::Ready && !self.any_failing(|status| status.counts_for_all())
    }

    /// Makes `check` count from now on, and returns the future that runs it. Spawn the future.
    ///
    /// The check fails until it has passed once. The future ends when the service is draining or
    /// stopped. [`Lifecycle::check`](crate::lifecycle::Lifecycle::check) does all of that for you.
    ///
    /// # Drop
    ///
    /// Dropping the future, polled or not, removes the check, which then no longer counts.
    ///
    /// # Panics
    ///
    /// The future panics outside of a Tokio runtime whose timers are enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    /// use taskgroup::lifecycle::{Check, Readiness};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let mut group = TaskGroup::new();
    /// let readiness = Readiness::drain_on(group.token());
    /// let disk = readiness.check(Check::new("disk", async || Err("it is full".into())));
    /// group.spawn(async { Ok(disk.await) });
    /// readiness.set_ready();
    ///
    /// tokio::task::yield_now().await;
    /// assert!(!readiness.is_ready());
    /// assert_eq!(readiness.failing(), [("disk".to_owned(), "it is full".to_owned())]);
    ///
    /// group.cancel();
    /// group.wait().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn check(&self, check: Check) -> impl Future<Output = ()> + Send + use<> {
        let checking = check.run(&self.shared.checks);
        let readiness = self.clone();
        async move {
            let mut over = pin!(readiness.wait_for(ReadinessState::Draining));
            let mut checking = pin!(checking);
            poll_fn(|cx| {
                if over.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                checking.as_mut().poll(cx)
            })
            .await;
        }
    }

    /// Returns the failing checks, in the order in which they were added, each with its last
    /// message.
    #[must_use]
    pub fn failing(&self) -> Vec<(String, String)> {
        let checks = self.shared.checks.borrow();
        let failing = checks.iter().filter_map(|status| {
            let failure = status.failure.as_ref()?;
            Some((status.name.clone(), failure.clone()))
        });
        failing.collect()
    }

    /// Returns whether a gRPC service wants traffic. The state is ready, and no check that counts
    /// for this service fails.
    #[must_use]
    pub fn is_serving(&self, service: &str) -> bool {
        self.state() == ReadinessState::Ready
            && !self.any_failing(|status| status.counts_for(service))
    }

    /// Returns the names of the checks that keep the service as a whole from being ready.
    #[cfg(feature = "axum")]
    fn failing_for_all(&self) -> Vec<String> {
        let checks = self.shared.checks.borrow();
        let failing = checks
            .iter()
            .filter(|status| status.counts_for_all() && status.failure.is_some());
        failing.map(|status| status.name.clone()).collect()
    }

    fn any_failing(&self, counts: impl Fn(&check::Status) -> bool) -> bool {
        let checks = self.shared.checks.borrow();
        let mut failing = checks.iter().filter(|status| status.failure.is_some());
        failing.any(counts)
    }

    /// Marks the service as ready, if it is starting.
    ///
    /// Returns whether this call has changed the state. It is `false` if the service has been ready
    /// before, or is draining or stopped.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::Readiness;
    ///
    /// let readiness = Readiness::new();
    /// assert!(readiness.set_ready());
    /// assert!(!readiness.set_ready());
    /// ```
    pub fn set_ready(&self) -> bool {
        self.set(ReadinessState::Ready)
    }

    /// Marks the service as draining, if it is starting or ready.
    ///
    /// Returns whether this call has changed the state. It does not fire the token.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::Readiness;
    ///
    /// let readiness = Readiness::new();
    /// assert!(readiness.set_draining());
    /// assert!(!readiness.set_ready(), "there is no way back");
    /// ```
    pub fn set_draining(&self) -> bool {
        self.set(ReadinessState::Draining)
    }

    /// Marks the service as stopped. This is the last state.
    ///
    /// Returns whether this call has changed the state.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::Readiness;
    ///
    /// let readiness = Readiness::new();
    /// assert!(readiness.set_stopped());
    /// assert!(!readiness.set_draining());
    /// ```
    pub fn set_stopped(&self) -> bool {
        self.set(ReadinessState::Stopped)
    }

    /// Waits until the state is later than `seen`, and returns it.
    ///
    /// If `seen` is the state that was read last, no change is missed, but several at once are seen
    /// as one. If the state is already later, this returns at once.
    /// [`Stopped`](ReadinessState::Stopped) is the last state, so after it this waits forever.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Readiness, ReadinessState};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let readiness = Readiness::new();
    /// let seen = readiness.state();
    /// readiness.set_ready();
    /// assert_eq!(readiness.changed(seen).await, ReadinessState::Ready);
    /// # }
    /// ```
    pub async fn changed(&self, seen: ReadinessState) -> ReadinessState {
        let mut set = self.shared.set.subscribe();
        let mut later = pin!(set.wait_for(|state| *state > seen));
        let mut fired = pin!(self.shared.token.cancelled());
        // Both are polled before the state is read, so a change after the reading wakes the task.
        // One that is ready has made the state later than `seen`, so it is not polled again.
        poll_fn(|cx| {
            let _ = later.as_mut().poll(cx);
            if seen < ReadinessState::Draining {
                let _ = fired.as_mut().poll(cx);
            }
            match self.state() {
                state if state > seen => Poll::Ready(state),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Waits until the state is `state` or a later one, and returns it.
    ///
    /// A service may be stopped while it starts, so check the returned state before you call it
    /// ready.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Readiness, ReadinessState};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let readiness = Readiness::new();
    /// readiness.set_draining();
    /// let reached = readiness.wait_for(ReadinessState::Ready).await;
    /// assert_eq!(reached, ReadinessState::Draining);
    /// # }
    /// ```
    pub async fn wait_for(&self, state: ReadinessState) -> ReadinessState {
        let mut seen = self.state();
        while seen < state {
            seen = self.changed(seen).await;
        }
        seen
    }

    /// Leaves it to [`set_draining`](Self::set_draining) to say when the service drains after the
    /// token has fired. A service that was already seen draining stays so.
    pub(crate) fn stay_after_token(&self) {
        let _ = self.shared.drains_by_token.set(false);
    }

    fn set(&self, state: ReadinessState) -> bool {
        // Read before the channel is locked, so that no lock is taken under another.
        let by_token = self.shared.by_token();
        self.shared.set.send_if_modified(|set| {
            let is_later = state > by_token.max(*set);
            if is_later {
                *set = state;
            }
            is_later
        })
    }
}

impl Shared {
    /// The state that the token alone stands for.
    fn by_token(&self) -> ReadinessState {
        if self.token.is_cancelled() && *self.drains_by_token.get_or_init(|| true) {
            ReadinessState::Draining
        } else {
            ReadinessState::Starting
        }
    }
}

impl ReadinessState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

/// The [state](Readiness::state), which checks do not change.
impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state().fmt(f)
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failing = self.failing();
        let failing = failing.iter().map(|(name, _)| name);
        f.debug_struct("Readiness")
            .field("state", &self.state())
            .field("failing", &failing.collect::<Vec<_>>())
            .finish()
    }
}

impl fmt::Display for ReadinessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
