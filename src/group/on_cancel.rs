//! An [`OnCancel`] is a callback that runs once a token has fired.

use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::{fmt, mem};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::group::end::End;
use crate::group::lock::lock;
use crate::group::log;
use crate::group::panic::Panic;

/// A callback that runs in its own task after a token has fired.
///
/// The callback runs at most once. It runs when the token fires, or at once if the token has already
/// fired. Callbacks on the same token are independent. Each has its own task and its own end, and they
/// run in no particular order.
///
/// Dropping the `OnCancel` changes nothing. The callback **stays armed**, as with Go's
/// [`context.AfterFunc`]. Keep the value if you want to [`withdraw`](Self::withdraw) the callback or
/// wait until it has [`finished`](Self::finished).
///
/// # Comparison to a member of a group
///
/// The task of a callback does not belong to a group. Nobody waits for it, and it is dropped when the
/// runtime shuts down. If the shutdown must wait for the work, spawn a task into the group that awaits
/// [`CancellationToken::cancelled`]. A group accepts tasks until it is closed, even during the
/// shutdown. Use `OnCancel` for a reaction to a token that can be withdrawn, such as unblocking a
/// thread, waking a foreign library, or interrupting one query.
///
/// # Examples
///
/// ```
/// use taskgroup::group::OnCancel;
/// use taskgroup::{CancellationToken, End};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let token = CancellationToken::new();
/// let interrupted = OnCancel::new(&token, || async { /* interrupt the query */ });
/// let withdrawn = OnCancel::new(&token, || async { unreachable!() });
///
/// assert!(withdrawn.withdraw(), "the token has not fired, so this comes in time");
/// token.cancel();
///
/// assert_eq!(interrupted.finished().await, End::Done);
/// assert!(!interrupted.withdraw(), "too late");
/// assert_eq!(withdrawn.finished().await, End::Skipped);
/// # }
/// ```
///
/// [`context.AfterFunc`]: https://pkg.go.dev/context#AfterFunc
pub struct OnCancel {
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl OnCancel {
    /// Runs `callback` in its own task once `token` has fired.
    ///
    /// If the token has already fired, the callback runs at once, but still in its own task and never
    /// inside `new`. A panic in the closure or in its future is caught and logged once at ERROR with
    /// its message. Then [`finished`](Self::finished) returns [`End::Panicked`].
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::CancellationToken;
    /// use taskgroup::group::OnCancel;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let token = CancellationToken::new();
    /// let (sender, receiver) = tokio::sync::oneshot::channel();
    ///
    /// OnCancel::new(&token, move || async move { sender.send("cancelled").unwrap() });
    /// token.cancel();
    ///
    /// assert_eq!(receiver.await, Ok("cancelled"));
    /// # }
    /// ```
    #[track_caller]
    pub fn new<F, Fut>(token: &CancellationToken, callback: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                state: State::Armed(Box::new(move || Box::pin(callback()))),
                outcome: None,
            }),
            over: Notify::new(),
            place: Location::caller(),
        });
        // Made here and not in the task, because a task that is never polled must also report its end.
        let task = CallbackTask {
            shared: Arc::clone(&shared),
            outcome: End::Aborted,
        };
        let task = tokio::spawn(task.run(token.clone())).abort_handle();
        Self { shared, task }
    }

    /// Withdraws the callback, and returns whether this came in time.
    ///
    /// `true` means that the callback has not begun and never will, even if the token has fired in the
    /// meantime. `false` means that the callback is running or has ended. Every call returns the same
    /// answer as the first. (Go's `stop` returns `false` the second time.)
    ///
    /// A callback that is withdrawn in time is dropped with its captures before this method returns.
    /// Its task ends and leaves nothing on the token.
    ///
    /// # Panics
    ///
    /// Panics if the destructor of a captured value panics. The callback still counts as withdrawn.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::CancellationToken;
    /// use taskgroup::group::OnCancel;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let token = CancellationToken::new();
    /// let callback = OnCancel::new(&token, || async { unreachable!() });
    ///
    /// assert!(callback.withdraw());
    /// assert!(callback.withdraw());
    /// # }
    /// ```
    pub fn withdraw(&self) -> bool {
        let Some(callback) = self.shared.leave_armed(State::Withdrawn) else {
            return self.shared.never_begins();
        };
        self.task.abort();
        let over = Over(&self.shared, End::Skipped);
        drop(callback);
        drop(over);
        true
    }

    /// Waits until the callback has ended, and returns how.
    ///
    /// It returns [`Done`](End::Done) when the callback ran to its end, [`Panicked`](End::Panicked)
    /// when it panicked, [`Skipped`](End::Skipped) when it was withdrawn in time, and
    /// [`Aborted`](End::Aborted) when its runtime shut down first. If the token has not fired, this
    /// waits for the token too. Any number of callers can wait, and a call after the end returns at
    /// once.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe. Dropping the future loses nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::group::OnCancel;
    /// use taskgroup::{CancellationToken, End};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let token = CancellationToken::new();
    /// let callback = OnCancel::new(&token, || async {});
    /// token.cancel();
    ///
    /// assert_eq!(callback.finished().await, End::Done);
    /// assert_eq!(callback.finished().await, End::Done);
    /// # }
    /// ```
    pub async fn finished(&self) -> End {
        loop {
            // No wakeup is lost. A `Notified` sees every `notify_waiters` since it was made. The
            // outcome is stored before the notification and read after the `Notified` is made.
            let over = self.shared.over.notified();
            if let Some(outcome) = self.shared.outcome() {
                return outcome;
            }
            over.await;
        }
    }
}

impl fmt::Debug for OnCancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.shared.lock();
        f.debug_struct("OnCancel")
            .field("place", &format_args!("{}", self.shared.place))
            .field("state", &inner.state)
            .field("outcome", &inner.outcome)
            .finish()
    }
}

type Callback = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The state that the handle and the task share.
///
/// Invariants:
/// 1. The state leaves `Armed` once, and the party that takes it out gets the callback. That party
///    alone runs or drops it, outside the lock.
/// 2. That party alone stores the outcome, after the callback has been dropped.
struct Shared {
    inner: Mutex<Inner>,
    over: Notify,
    place: &'static Location<'static>,
}

struct Inner {
    state: State,
    outcome: Option<End>,
}

enum State {
    /// Waits for the token, or for the task to see that the token has fired.
    Armed(Callback),
    /// The task has the callback and runs it, or has run it. It can no longer be withdrawn.
    Begun,
    /// `withdraw` came in time. The callback never runs.
    Withdrawn,
    /// The task was dropped with its runtime before the callback had begun. It never runs.
    Lost,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Armed(_) => "Armed",
            Self::Begun => "Begun",
            Self::Withdrawn => "Withdrawn",
            Self::Lost => "Lost",
        })
    }
}

impl Shared {
    /// Moves from `Armed` to `next` and returns the callback. Does nothing in any other state.
    fn leave_armed(&self, next: State) -> Option<Callback> {
        let mut inner = self.lock();
        if !matches!(inner.state, State::Armed(_)) {
            return None;
        }
        match mem::replace(&mut inner.state, next) {
            State::Armed(callback) => Some(callback),
            _ => None,
        }
    }

    fn never_begins(&self) -> bool {
        matches!(self.lock().state, State::Withdrawn | State::Lost)
    }

    fn begun(&self) -> bool {
        matches!(self.lock().state, State::Begun)
    }

    fn outcome(&self) -> Option<End> {
        self.lock().outcome
    }

    /// Locks the state. User code never runs under this lock, so a poisoned state is still consistent.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

/// Stores the outcome when it is dropped, even if the callback's destructor panics.
struct Over<'a>(&'a Shared, End);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.lock().outcome = Some(self.1);
        self.0.over.notify_waiters();
    }
}

/// The task's side. Its drop reports the end, however the task ended.
struct CallbackTask {
    shared: Arc<Shared>,
    outcome: End,
}

impl CallbackTask {
    async fn run(mut self, token: CancellationToken) {
        token.cancelled().await;
        let Some(callback) = self.shared.leave_armed(State::Begun) else {
            return;
        };
        match Panic::catch_future(async move { callback().await }).await {
            Ok(()) => self.outcome = End::Done,
            Err(panic) => {
                let message = panic.message().to_owned();
                let (file, line) = (self.shared.place.file(), self.shared.place.line());
                log::guarded(|| {
                    tracing::error!(
                        target: "taskgroup",
                        "callback after cancellation ({file}:{line}) panicked: {message}"
                    );
                });
                self.outcome = End::Panicked;
            }
        }
    }
}

impl Drop for CallbackTask {
    fn drop(&mut self) {
        let lost = self.shared.leave_armed(State::Lost);
        // After a withdrawal, `withdraw` stores the outcome (invariant 2).
        if lost.is_some() || self.shared.begun() {
            let over = Over(&self.shared, self.outcome);
            drop(lost);
            drop(over);
        }
    }
}
