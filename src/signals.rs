//! [`Signals`]: what the operating system asks of the process, as values to wait for.

mod watched;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use tokio::sync::Notify;

use crate::bounded;
use crate::cause::Cause;
use crate::group::Spawner;
use crate::group::TaskGroup;
use crate::lock::lock;
use crate::panic::Panic;
use crate::signal::Signal;
use crate::trigger::Trigger;
use crate::trigger::sealed::Listen;

#[cfg(unix)]
use self::unix as engine;
use self::watched::Watched;
#[cfg(windows)]
use self::windows as engine;

/// The signals of a set, from the moment of the call that made this value.
///
/// There are two kinds:
///
/// * [`Signals::terminate`] and [`Signals::terminate_on`] make a *terminating* set. Its first signal
///   is delivered, once; its second one (any of the set) ends the process with the exit status
///   128 + n at once.
/// * [`Signals::watch`] only listens: every signal is delivered and none ends the process.
///
/// Use [`TaskGroup::cancel_on`] to stop a group with it, [`TaskGroup::list_on`] to see what a
/// group is doing, or [`recv`](Self::recv) for anything else.
///
/// # Stopping a group
///
/// Given to [`TaskGroup::cancel_on`], a signal cancels the group with [`Cause::Signal`], which is no
/// failure. It does so from the thread of the signals, so this works while every thread of the runtime
/// is blocked. One line at INFO comes before that; it says which signal it was and, for a terminating
/// set, that a second one forces the exit. A log that blocks holds the stop back for 200 ms at most. A
/// signal that came before the call counts too.
///
/// The listener ends when the group is over (its `wait` has returned, or it was dropped), also when
/// another cause has cancelled it: a first signal that comes in the drain is told in the log, with what
/// a second one will do. Groups with equal sets all hear the same first signal.
///
/// # Registration
///
/// [`taskgroup::main`](crate::main) registers a terminating set before anything else, and hands it to
/// the program. The constructors do the same by hand: they are synchronous and can fail, and they work
/// before there is a runtime and outside of one. A signal that comes later is kept until somebody asks
/// for it, and no longer kills the process.
///
/// A thread named `taskgroup-signals` delivers. It lives until the value is dropped.
///
/// # The second signal
///
/// It ends the process from inside the signal handler, with `_exit`: no destructor runs, nothing is
/// flushed, nothing is printed. So it works when every thread of the runtime is blocked, when a lock
/// is held for ever, when stderr is a pipe that nobody reads.
///
/// This stays so after the value is dropped, for the life of the process. What `main` does when
/// the group is over (closing the database) can still be forced by a signal; when no signal came
/// before, the first one is noted and the second one forces. A signal that was noted while nobody
/// listened is delivered to the next `Signals` of the same set: the process was asked to stop.
///
/// Signals that come at the same instant may count as one, as with any signal.
///
/// Whoever sends a signal twice forces, also by mistake: GNU `timeout` signals its child and then the
/// child's whole group, unless it is called with `--foreground`.
///
/// A watched signal is not handed back to the system when the value is dropped: from then on it is
/// ignored.
///
/// # Containers
///
/// The first process of a container (PID 1) has no default reaction to signals: without a handler
/// SIGTERM does nothing, and the container is killed when its grace period is over. Making
/// a `Signals` is what makes `docker stop` and the stop of a pod work. When the program is started
/// by a shell script, the script is PID 1 and passes no signals on; start it with `exec`.
///
/// # Platforms
///
/// On Windows the signals are the events of the console: Ctrl-C, Ctrl-Break, close and system
/// shutdown. The second one exits from the thread, and only while the value lives: after it is
/// dropped the system's own reaction is back. The system grants about five seconds after
/// a close.
///
/// # Comparison to `tokio::signal`
///
/// `tokio::signal::ctrl_c()` registers when it is first polled, and never gives the signal back: the
/// second Ctrl-C does nothing. Its streams are delivered by the runtime, so nothing arrives while
/// that is blocked. It fits where a signal is no more than an event, a reload on SIGHUP, say.
///
/// # Examples
///
/// A service that stops on Ctrl-C and SIGTERM:
///
/// ```no_run
/// use taskgroup::{Exit, TaskGroup};
///
/// fn main() -> Exit {
///     taskgroup::main(async |signals| {
///         let mut group = TaskGroup::new();
///         group.cancel_on(signals);
///         // spawn servers and workers here
///         group.wait().await
///     })
/// }
/// ```
///
/// A signal that is no more than an event:
///
/// ```no_run
/// use taskgroup::{Signal, Signals};
///
/// # async fn reload() {}
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let mut hangups = Signals::watch([Signal::Hangup])?;
/// loop {
///     hangups.recv().await;
///     reload().await;
/// }
/// # }
/// ```
///
/// [`TaskGroup::cancel_on`]: crate::TaskGroup::cancel_on
/// [`TaskGroup::list_on`]: crate::TaskGroup::list_on
#[must_use = "the signals are not listened to any more when the value is dropped"]
pub struct Signals {
    set: Vec<Watched>,
    inbox: Arc<Inbox>,
    _listener: engine::Listener,
}

/// Between the thread and whoever wants the signals.
///
/// No wakeup can be lost: the signal is in the state before `arrived` is notified, there is one
/// receiver (`recv` takes `&mut self`), and `notify_one` keeps its permit until the next wait.
struct Inbox {
    /// A terminating set delivers once. The engine may see its signal twice, see unix.rs.
    once: bool,
    state: Mutex<State>,
    arrived: Notify,
}

struct State {
    delivered: bool,
    receiver: Receiver,
}

enum Receiver {
    /// They wait for `recv`, each signal at most once, in the order in which they came.
    Kept(VecDeque<Signal>),
    /// They are handed over on the thread. Never goes back to `Kept`.
    Called(Arc<dyn Fn(Signal) + Send + Sync>),
}

/// The set of [`Signals::terminate`].
#[cfg(unix)]
pub(crate) const TERMINATE: [Signal; 2] = [Signal::Interrupt, Signal::Terminate];
#[cfg(windows)]
pub(crate) const TERMINATE: [Signal; 4] = [
    Signal::Interrupt,
    Signal::Break,
    Signal::Close,
    Signal::Shutdown,
];

/// How long the line about a signal may hold the stop back.
const LOGGING: Duration = Duration::from_millis(200);

impl Signals {
    /// Listens to what asks a process to stop: SIGINT and SIGTERM; the four events of the console
    /// on Windows.
    ///
    /// Equivalent to [`Signals::terminate_on`] with that set.
    ///
    /// # Errors
    ///
    /// As [`Signals::terminate_on`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use taskgroup::{Signals, TaskGroup};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let mut group = TaskGroup::new();
    /// group.cancel_on(Signals::terminate()?);
    /// let token = group.token().clone();
    /// group.spawn(async move { Ok(token.cancelled().await) });
    /// group.wait().await?; // until Ctrl-C
    /// # Ok(())
    /// # }
    /// ```
    pub fn terminate() -> io::Result<Self> {
        Self::terminate_on(TERMINATE)
    }

    /// Listens to `set`: the first signal is delivered, the second ends the process with 128 + n.
    ///
    /// The sets of two values are independent, also when they overlap: each needs a first signal of
    /// its own. To choose the exit status see [`ExitPolicy::terminate_on`].
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the set is empty or contains a signal that
    /// cannot be caught on this platform, which is named; the system's error if it refuses a
    /// handler, a pair of sockets or a thread. Nothing is armed then.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::{Signal, Signals};
    ///
    /// # #[cfg(unix)] {
    /// let signals = Signals::terminate_on([Signal::Terminate, Signal::Hangup])?;
    /// # drop(signals);
    /// let error = Signals::terminate_on([Signal::Break]).unwrap_err();
    /// assert_eq!(error.to_string(), "cannot listen for Ctrl-Break: this platform does not have it");
    /// # }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// [`ExitPolicy::terminate_on`]: crate::ExitPolicy::terminate_on
    pub fn terminate_on(set: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        Self::terminate_with(set, |signal| 128 + signal.number())
    }

    /// Listens to `set` without ever ending the process.
    ///
    /// A signal that comes again before it was received counts once.
    ///
    /// # Errors
    ///
    /// As [`Signals::terminate_on`].
    pub fn watch(set: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        let watched = |signal| Watched {
            signal,
            status: None,
        };
        Self::listen(set.into_iter().map(watched).collect(), false)
    }

    /// Waits for the next signal.
    ///
    /// Signals that came before the call are returned first, in their order. A terminating set
    /// returns once; a second call waits for ever, as the second signal ends the process.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a signal is either returned or kept for the next call.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use taskgroup::Signals;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let mut signals = Signals::terminate()?;
    /// let signal = signals.recv().await;
    /// # let _ = signal;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn recv(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.inbox.take() {
                return signal;
            }
            self.inbox.arrived.notified().await;
        }
    }

    /// The exit statuses are a matter of [`ExitPolicy`](crate::ExitPolicy).
    pub(crate) fn terminate_with(
        set: impl IntoIterator<Item = Signal>,
        status: impl Fn(Signal) -> u8,
    ) -> io::Result<Self> {
        let watched = |signal| Watched {
            signal,
            status: Some(status(signal)),
        };
        Self::listen(set.into_iter().map(watched).collect(), true)
    }

    fn listen(mut set: Vec<Watched>, once: bool) -> io::Result<Self> {
        // Equal sets must look equal, whatever the order they were written in.
        set.sort_by_key(|watched| watched.signal as u8);
        set.dedup();
        if set.is_empty() {
            return Err(invalid(
                "cannot listen for signals: the set is empty".into(),
            ));
        }
        if let Some(other) = set
            .iter()
            .find(|watched| !engine::can_be_caught(watched.signal))
        {
            return Err(invalid(format!(
                "cannot listen for {}: this platform does not have it",
                other.signal
            )));
        }
        let inbox = Arc::new(Inbox::new(once));
        let listener = engine::listen(&set, {
            let inbox = Arc::clone(&inbox);
            move |signal| inbox.deliver(signal)
        })?;
        Ok(Self {
            set,
            inbox,
            _listener: listener,
        })
    }
}

impl<E: Send + 'static> TaskGroup<E> {
    /// Logs the running tasks when one of `signals` comes, and stops nothing.
    ///
    /// It is one line at INFO: name, place of spawn and age of each task, as
    /// [`running`](Self::running) prints them. It is written by the thread of the signals, so a
    /// service that hangs can be asked why while its runtime is blocked. The listener ends when the
    /// group is over.
    ///
    /// Give it signals to [`watch`](Signals::watch); of a terminating set the second signal ends
    /// the process here as everywhere.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use taskgroup::{Signal, Signals, TaskGroup};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let group = TaskGroup::new();
    /// group.list_on(Signals::watch([Signal::User1])?);
    /// // kill -USR1 PID
    /// # Ok(())
    /// # }
    /// ```
    pub fn list_on(&self, signals: Signals) {
        let group = self.spawner();
        let name = self.name().map(str::to_owned);
        signals.inbox.call_with(move |signal| {
            let running = group.running();
            tracing::info!(target: "taskgroup", group = name, %signal, "running: {running}");
        });
        self.attach(Box::new(signals));
    }
}

impl Listen for Signals {
    fn listen<E: Send + 'static>(self, group: &Spawner<E>) -> Box<dyn Send> {
        let group = group.clone();
        let forces = self.inbox.once;
        self.inbox.call_with(move |signal| {
            let cause = Cause::Signal(signal);
            let then = what_follows(signal, group.is_cancelled(), forces);
            // The line comes first, so that it is there whatever follows, and is written by a
            // thread of its own, so that a log that blocks does not hold the stop.
            bounded::within(LOGGING, {
                let (group, cause) = (group.clone(), cause.clone());
                move || group.log_trigger(&cause, &then)
            });
            group.cancel_for(cause);
        });
        Box::new(self)
    }
}

impl Trigger for Signals {}

/// What the line about a signal says after it, and how to insist.
fn what_follows(signal: Signal, already: bool, forces: bool) -> String {
    let stopping = if already {
        "stopping already"
    } else {
        "stopping"
    };
    let advice = match signal {
        _ if !forces => "",
        Signal::Interrupt => "; press Ctrl+C again to force the exit",
        _ => "; a second signal forces the exit",
    };
    format!("{stopping}{advice}")
}

impl Inbox {
    fn new(once: bool) -> Self {
        let state = State {
            delivered: false,
            receiver: Receiver::Kept(VecDeque::new()),
        };
        Self {
            once,
            state: Mutex::new(state),
            arrived: Notify::new(),
        }
    }

    fn deliver(&self, signal: Signal) {
        let mut state = self.lock();
        if self.once && state.delivered {
            return;
        }
        state.delivered = true;
        match &mut state.receiver {
            Receiver::Kept(kept) if kept.contains(&signal) => {}
            Receiver::Kept(kept) => {
                kept.push_back(signal);
                drop(state);
                self.arrived.notify_one();
            }
            Receiver::Called(receiver) => {
                let receiver = Arc::clone(receiver);
                drop(state);
                call(&*receiver, signal);
            }
        }
    }

    fn take(&self) -> Option<Signal> {
        match &mut self.lock().receiver {
            Receiver::Kept(kept) => kept.pop_front(),
            Receiver::Called(_) => None,
        }
    }

    /// Calls `receiver` for each signal from now on, and for those that were kept.
    fn call_with(&self, receiver: impl Fn(Signal) + Send + Sync + 'static) {
        let receiver = Arc::new(receiver);
        let called = Receiver::Called(receiver.clone());
        let before = std::mem::replace(&mut self.lock().receiver, called);
        if let Receiver::Kept(kept) = before {
            kept.into_iter().for_each(|signal| call(&*receiver, signal));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of a user runs under the lock: a poisoned state is a whole one.
        lock(&self.state)
    }
}

/// A receiver writes to the log, and a subscriber may panic there (a writer whose reader is gone):
/// the next signal must find the thread alive.
fn call(receiver: &(dyn Fn(Signal) + Send + Sync), signal: Signal) {
    drop(Panic::catch(|| receiver(signal)));
}

/// Ends the process by the system's own reaction to `signal`; returns where that is impossible.
pub(crate) fn die_of(signal: Signal) {
    engine::die_of(signal);
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: Vec<_> = self.set.iter().map(|watched| watched.signal).collect();
        f.debug_struct("Signals")
            .field("set", &set)
            .field("terminating", &self.inbox.once)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const ONCE: bool = true;

    #[test]
    fn a_terminating_set_is_delivered_once() {
        let inbox = Inbox::new(ONCE);
        inbox.deliver(Signal::Interrupt);
        assert_eq!(inbox.take(), Some(Signal::Interrupt));
        inbox.deliver(Signal::Interrupt);
        inbox.deliver(Signal::Terminate);
        assert_eq!(inbox.take(), None);
    }

    #[test]
    fn kept_signals_come_in_their_order_and_each_of_them_once() {
        let inbox = Inbox::new(!ONCE);
        for signal in [Signal::User2, Signal::User1, Signal::User2] {
            inbox.deliver(signal);
        }
        assert_eq!(inbox.take(), Some(Signal::User2));
        assert_eq!(inbox.take(), Some(Signal::User1));
        assert_eq!(inbox.take(), None);
        inbox.deliver(Signal::User2);
        assert_eq!(inbox.take(), Some(Signal::User2));
    }

    #[test]
    fn a_receiver_is_called_for_what_was_kept_and_for_what_comes() {
        let inbox = Inbox::new(!ONCE);
        let (called, calls) = mpsc::channel();
        inbox.deliver(Signal::User1);
        inbox.call_with(move |signal| assert_eq!(called.send(signal), Ok(())));
        inbox.deliver(Signal::User2);
        assert_eq!(
            calls.try_iter().collect::<Vec<_>>(),
            [Signal::User1, Signal::User2]
        );
    }
}
