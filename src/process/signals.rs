//! [`Signals`]: what the operating system asks of the process, as values to wait for.

mod watched;
mod act;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;
mod hub;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use tokio::sync::Notify;

use crate::group::Spawner;
use crate::group::TaskGroup;
use crate::group::build_error::BuildError;
use crate::group::cause::Cause;
use crate::group::lock::lock;
use crate::group::log::bounded;
use crate::group::panic::Panic;
use crate::group::signal::Signal;
use crate::group::trigger::Trigger;
use crate::group::trigger::sealed::{Hurry, Listen};
#[cfg(feature = "lifecycle")]
use crate::lifecycle::Lifecycle;

use self::act::Meaning;
use self::hub::Insisting;
use self::hub::Letter;
use self::hub::SetId;
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
///   is delivered, once; a second one (any of the set) ends the process with the exit status
///   128 + n. With [`escalate`](Self::escalate) the second one forces the stop, and the third one ends the
///   process.
/// * [`Signals::watch`] only listens: every signal is delivered and none ends the process.
///
/// Use [`TaskGroup::cancel_on`] to stop a group with it, [`TaskGroup::list_on`] to see what a
/// group is doing, or [`recv`](Self::recv) for anything else.
///
/// # Stopping a group
///
/// Given to [`TaskGroup::cancel_on`], a signal cancels the group with [`Cause::Signal`], which is not a
/// failure. It does so from a thread of its own, so this works while every thread of the runtime
/// is blocked. One line at INFO comes before that; it names the signal and says how to force the exit, if a
/// second signal does that. A log that blocks holds the stop back for 200 ms at most. A
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
/// for it, and no longer kills the process. If a constructor fails,
/// nothing is registered, and the signals do what they did before.
///
/// **A signal that the process ignores stays ignored** (Linux): `nohup` starts a program with SIGHUP ignored, and a
/// shell script starts its background jobs with SIGINT and SIGQUIT ignored, because the signals of the terminal
/// are not meant for them. The value then waits for the rest of its set. On other systems the
/// crate cannot see this, and listens to the whole set.
///
/// Two threads deliver: `taskgroup-hub`, one for the process and as long as it lives, and
/// `taskgroup-signals`, one for each value until that is dropped.
///
/// # The second signal
///
/// **The same request may arrive twice.** A terminal sends SIGINT to a parent and its child, and the parent passes
/// it on as SIGTERM; GNU `timeout`, Heroku and others signal a process and then its whole group. So a second signal counts only
/// from 300 ms after the first one on: see [`insist_after`](Self::insist_after).
/// [`insist_on`](Self::insist_on) chooses which signals count as a second one.
///
/// It ends the process from the thread of the hub, which waits for nobody, with `_exit`: no destructor runs, nothing is
/// flushed, nothing is printed. So it works when every thread of the runtime is blocked, when a lock
/// is held for ever, when stderr is a pipe that nobody reads.
///
/// Before that it does what only destructors would have done. The child processes of `Sidecar::serve_process`
/// (feature `process`) get SIGTERM and half a second to end; then their process groups are killed. A listening
/// socket whose server was about to close it is given back as it was, as another process may hold it too. Without
/// child processes nothing is waited for. A third signal ends the waiting, a fourth one the process, from the
/// signal handler.
///
/// This stays so after the value is dropped, for the life of the process. What `main` does when
/// the group is over (closing the database) can still be forced by a signal; when no signal came
/// before, the first one is noted and the second one forces.
///
/// A signal that was noted while nobody received it is delivered to the next `Signals` of the same set: the
/// process was asked to stop. One that was received is not delivered again. When all values that were
/// told of it are gone and a new one waits, the next signal is a first one again.
///
/// Signals that come at the same instant may count as one, as with any signal.
///
/// A watched signal is not handed back to the system when the value is dropped: from then on it is
/// ignored.
///
/// # Three steps
///
/// | signal | by default | with [`escalate`](Self::escalate) |
/// |---|---|---|
/// | first | stops the group or the lifecycle | the same |
/// | second | ends the process at once | forces the stop: what is left is aborted, the cleanup runs, there is a report |
/// | third | | ends the process at once |
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
/// shutdown. The system grants about five seconds after a close. A forced exit leaves child processes alone.
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
    /// Those of the set that the process ignored before, and still does.
    ignored: Vec<Signal>,
    inbox: Arc<Inbox>,
    listener: hub::Listener,
}

/// Between the thread and whoever wants the signals.
///
/// No wakeup can be lost: the signal is in the state before `arrived` is notified, there is one
/// receiver (`recv` takes `&mut self`), and `notify_one` keeps its permit until the next wait.
struct Inbox {
    receiver: Mutex<Receiver>,
    arrived: Notify,
}

enum Receiver {
    /// They wait for `recv`, each signal at most once, in the order in which they came.
    Kept(VecDeque<Letter>),
    /// They are handed over on the thread. Never goes back to `Kept`.
    Called(Arc<dyn Fn(Signal, Meaning) + Send + Sync>),
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

    /// Listens to `set`: the first signal is delivered, a second one ends the process with 128 + n.
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
    /// assert_eq!(error.to_string(), "signals: `set` cannot be Ctrl-Break: this platform does not have it");
    /// # }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// [`ExitPolicy::terminate_on`]: crate::process::ExitPolicy::terminate_on
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
    /// returns once; a second call waits for ever, as the second signal ends the process. With
    /// [`escalate`](Self::escalate) it returns twice.
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

    /// Has a second signal force the stop, and only a third one end the process.
    ///
    /// A group that [listens](TaskGroup::cancel_on) is [aborted](TaskGroup::abort) by the second signal, and a
    /// lifecycle is forced, as by `lifecycle::Handle::force` (feature `lifecycle`): what is left is aborted and joined, the cleanup
    /// runs, and the report names all that was cut. A task that blocks its thread cannot be aborted. The
    /// third signal is for that case: it is what a second one is by default. If nothing listens any longer, because the run is over, the
    /// second signal ends the process.
    ///
    /// A third signal counts from the same pause on after the second one, see
    /// [`insist_after`](Self::insist_after). [`insist_on`](Self::insist_on) chooses the signals for both.
    ///
    /// It holds for all values of the same set, and changes nothing for a set that only
    /// [watches](Self::watch).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use taskgroup::{Exit, TaskGroup};
    ///
    /// fn main() -> Exit {
    ///     taskgroup::main(async |signals| {
    ///         let mut group = TaskGroup::new();
    ///         group.cancel_on(signals.escalate());
    ///         // spawn servers and workers here
    ///         group.wait().await
    ///     })
    /// }
    /// ```
    pub fn escalate(self) -> Self {
        if let Some(set) = self.listener.set() {
            hub::configure(set, |act| act.escalates = true);
        }
        self
    }

    /// Has a second signal count from `pause` on after the first one; 300 ms by default.
    ///
    /// Signals that come earlier are the same request: a parent that passes on a Ctrl-C which the terminal has
    /// sent to both, or a supervisor that signals a process and then its whole group. [`Duration::ZERO`]
    /// lets each signal count, and after [`Duration::MAX`] none ever does.
    ///
    /// It holds for all values of the same set, and changes nothing for a set that only
    /// [watches](Self::watch).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use taskgroup::Signals;
    ///
    /// let signals = Signals::terminate()?.insist_after(Duration::from_secs(1));
    /// # drop(signals);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn insist_after(self, pause: Duration) -> Self {
        if let Some(set) = self.listener.set() {
            hub::configure(set, |act| act.pause = pause);
        }
        self
    }

    /// Has only `signals` count when they come second, or third; all signals of the set by default.
    ///
    /// The others are one request however often they come: SIGTERM for example, on a platform that repeats it
    /// until the process is gone. With no signal at all nothing forces the exit.
    ///
    /// It holds for all values of the same set.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a signal that is not in the set, which is named, and
    /// for a set that only [watches](Self::watch).
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::{Signal, Signals};
    ///
    /// # #[cfg(unix)] {
    /// let signals = Signals::terminate()?.insist_on([Signal::Interrupt])?;
    /// let error = signals.insist_on([Signal::Hangup]).unwrap_err();
    /// assert_eq!(error.to_string(), "signals: `insist_on` cannot be SIGHUP: it is not in the set");
    /// # }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn insist_on(self, signals: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        let signals: Vec<_> = signals.into_iter().collect();
        let Some(set) = self.listener.set() else {
            let why = "signals that are only watched cannot insist";
            return Err(BuildError::new("signals", "insist_on", "set", why).into());
        };
        let is_in_set = |signal: &Signal| self.names().any(|name| name == *signal);
        if let Some(other) = signals.iter().find(|signal| !is_in_set(signal)) {
            let (value, why) = (other.to_string(), "it is not in the set");
            return Err(BuildError::new("signals", "insist_on", value, why).into());
        }
        hub::configure(set, |act| act.insists = signals);
        Ok(self)
    }

    /// All signals that the value was made for.
    fn names(&self) -> impl Iterator<Item = Signal> {
        let heard = self.set.iter().map(|watched| watched.signal);
        heard.chain(self.ignored.iter().copied())
    }

    /// The exit statuses are a matter of [`ExitPolicy`](crate::process::ExitPolicy).
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

    fn listen(mut set: Vec<Watched>, terminating: bool) -> io::Result<Self> {
        // Equal sets must look equal, whatever the order they were written in.
        set.sort_by_key(|watched| watched.signal as u8);
        set.dedup();
        if set.is_empty() {
            let why = "there would be nothing to listen for";
            return Err(BuildError::new("signals", "set", "empty", why).into());
        }
        if let Some(other) = set
            .iter()
            .find(|watched| !engine::can_be_caught(watched.signal))
        {
            let (value, why) = (other.signal.to_string(), "this platform does not have it");
            return Err(BuildError::new("signals", "set", value, why).into());
        }
        let mut ignored = engine::ignored();
        ignored.retain(|signal| set.iter().any(|watched| watched.signal == *signal));
        set.retain(|watched| !ignored.contains(&watched.signal));
        let inbox = Arc::new(Inbox::new());
        let listener = hub::listen(&set, terminating, {
            let inbox = Arc::clone(&inbox);
            move |letter| inbox.deliver(letter)
        })?;
        Ok(Self {
            set,
            ignored,
            inbox,
            listener,
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
    /// Give it signals to [`watch`](Signals::watch). Of a terminating set the second signal ends
    /// the process here as everywhere, and the line says so.
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
        let set = signals.listener.set();
        signals.inbox.call_with(move |signal, _| {
            let (running, advice) = (group.running(), advice(signal, Meaning::First, set));
            tracing::info!(target: "taskgroup", group = name, %signal, "running: {running}{advice}");
        });
        self.attach(Box::new(signals));
    }
}

#[cfg(feature = "lifecycle")]
impl Lifecycle {
    /// Lists the running tasks in the log on these signals; see [`TaskGroup::list_on`].
    pub fn list_on(self, signals: Signals) -> Self {
        self.work().list_on(signals);
        self
    }
}

impl Listen for Signals {
    fn listen<E: Send + 'static>(self, group: &Spawner<E>) -> Box<dyn Send> {
        let forced = group.clone();
        self.stop(group, move || forced.force())
    }

    fn listen_to_hurry<E: Send + 'static>(
        self,
        group: &Spawner<E>,
        hurry: impl Fn(Hurry) + Send + Sync + 'static,
    ) -> Box<dyn Send> {
        self.stop(group, move || hurry(Hurry::Force))
    }
}

impl Signals {
    /// Stops `group` on the first signal, and calls `force` on one that forces.
    fn stop<E: Send + 'static>(
        self,
        group: &Spawner<E>,
        force: impl Fn() + Send + Sync + 'static,
    ) -> Box<dyn Send> {
        let group = group.clone();
        let set = self.listener.set();
        self.inbox.call_with(move |signal, meaning| {
            let cause = Cause::Signal(signal);
            let forces = meaning == Meaning::Forces;
            let then = match group.is_cancelled() {
                _ if forces => "forcing the stop",
                true => "stopping already",
                false => "stopping",
            };
            let advice = advice(signal, meaning, set);
            let line = (group.clone(), cause.clone(), then, advice);
            // The line comes first, so that it is there whatever follows, and is written by a
            // thread of its own, so that a log that blocks does not hold the stop.
            let unwritten = bounded::within(LOGGING, line, write).err();
            group.cancel_for(cause);
            if forces {
                force();
            }
            if let Some(line) = unwritten {
                write(line);
            }
        });
        Box::new(self)
    }
}

impl Trigger for Signals {}

type Line<E> = (Spawner<E>, Cause, &'static str, String);

fn write<E: Send + 'static>((group, cause, then, advice): Line<E>) {
    group.log_trigger(&cause, &format!("{then}{advice}"));
}

/// Says how to insist after `signal`; nothing if no signal can.
fn advice(signal: Signal, meaning: Meaning, set: Option<SetId>) -> String {
    set.map_or_else(String::new, |set| {
        advise(signal, meaning, &hub::insisting(set))
    })
}

fn advise(signal: Signal, meaning: Meaning, insisting: &Insisting) -> String {
    let (which, what) = match meaning {
        Meaning::Forces => ("third", "exit"),
        _ if insisting.escalates => ("second", "stop"),
        _ => ("second", "exit"),
    };
    match &insisting.signals[..] {
        [] => String::new(),
        some if signal == Signal::Interrupt && some.contains(&signal) => {
            format!("; press Ctrl+C again to force the {what}")
        }
        _ if insisting.all => format!("; a {which} signal forces the {what}"),
        some => {
            let names: Vec<_> = some.iter().map(Signal::to_string).collect();
            format!("; {} forces the {what}", names.join(" or "))
        }
    }
}

impl Inbox {
    fn new() -> Self {
        Self {
            receiver: Mutex::new(Receiver::Kept(VecDeque::new())),
            arrived: Notify::new(),
        }
    }

    fn deliver(&self, letter: Letter) {
        let mut receiver = self.lock();
        match &mut *receiver {
            Receiver::Kept(kept) if kept.iter().any(|other| other.says_the_same(&letter)) => {}
            Receiver::Kept(kept) => {
                kept.push_back(letter);
                drop(receiver);
                self.arrived.notify_one();
            }
            Receiver::Called(called) => {
                let called = Arc::clone(called);
                drop(receiver);
                call(&*called, letter);
            }
        }
    }

    fn take(&self) -> Option<Signal> {
        let letter = match &mut *self.lock() {
            Receiver::Kept(kept) => kept.pop_front(),
            Receiver::Called(_) => None,
        };
        letter.map(Letter::open)
    }

    /// Calls `receiver` for each signal from now on, and for those that were kept.
    fn call_with(&self, receiver: impl Fn(Signal, Meaning) + Send + Sync + 'static) {
        let receiver = Arc::new(receiver);
        let called = Receiver::Called(receiver.clone());
        let before = std::mem::replace(&mut *self.lock(), called);
        if let Receiver::Kept(kept) = before {
            kept.into_iter().for_each(|letter| call(&*receiver, letter));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Receiver> {
        // No code of a user runs under the lock: a poisoned state is a whole one.
        lock(&self.receiver)
    }
}

/// A receiver writes to the log, and a subscriber may panic there (a writer whose reader is gone):
/// the next signal must find the thread alive.
fn call(receiver: &(dyn Fn(Signal, Meaning) + Send + Sync), letter: Letter) {
    let meaning = letter.meaning;
    let signal = letter.open();
    drop(Panic::catch(|| receiver(signal, meaning)));
}

/// Ends the process by the system's own reaction to `signal`; returns where that is impossible.
pub(crate) fn die_of(signal: Signal) {
    engine::die_of(signal);
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: Vec<_> = self.set.iter().map(|watched| watched.signal).collect();
        f.debug_struct("Signals")
            .field("set", &set)
            .field("terminating", &self.listener.set().is_some())
            .field("ignored", &self.ignored)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn deliver(inbox: &Inbox, signal: Signal) {
        inbox.deliver(Letter::from(signal));
    }

    #[test]
    fn only_what_insists_is_advised() {
        use Signal::{Hangup, Interrupt, Terminate};
        let advice = |signal, insists: &[Signal], all| {
            let insisting = Insisting {
                signals: insists.to_vec(),
                all,
                escalates: false,
            };
            advise(signal, Meaning::First, &insisting)
        };
        let both = [Interrupt, Terminate];
        assert_eq!(
            advice(Interrupt, &both, true),
            "; press Ctrl+C again to force the exit"
        );
        assert_eq!(
            advice(Terminate, &both, true),
            "; a second signal forces the exit"
        );
        assert_eq!(
            advice(Interrupt, &[Terminate], false),
            "; SIGTERM forces the exit"
        );
        assert_eq!(
            advice(Hangup, &both, false),
            "; SIGINT or SIGTERM forces the exit"
        );
        assert_eq!(advice(Interrupt, &[], false), "");
    }

    #[test]
    fn with_three_steps_the_next_one_is_advised() {
        let insisting = Insisting {
            signals: vec![Signal::Interrupt, Signal::Terminate],
            all: true,
            escalates: true,
        };
        let advice = |signal, meaning| advise(signal, meaning, &insisting);
        assert_eq!(
            advice(Signal::Interrupt, Meaning::First),
            "; press Ctrl+C again to force the stop"
        );
        assert_eq!(
            advice(Signal::Interrupt, Meaning::Forces),
            "; press Ctrl+C again to force the exit"
        );
        assert_eq!(
            advice(Signal::Terminate, Meaning::First),
            "; a second signal forces the stop"
        );
        assert_eq!(
            advice(Signal::Terminate, Meaning::Forces),
            "; a third signal forces the exit"
        );
    }

    #[test]
    fn kept_signals_come_in_their_order_and_each_of_them_once() {
        let inbox = Inbox::new();
        for signal in [Signal::User2, Signal::User1, Signal::User2] {
            deliver(&inbox, signal);
        }
        assert_eq!(inbox.take(), Some(Signal::User2));
        assert_eq!(inbox.take(), Some(Signal::User1));
        assert_eq!(inbox.take(), None);
        deliver(&inbox, Signal::User2);
        assert_eq!(inbox.take(), Some(Signal::User2));
    }

    #[test]
    fn a_receiver_is_called_for_what_was_kept_and_for_what_comes() {
        let inbox = Inbox::new();
        let (called, calls) = mpsc::channel();
        deliver(&inbox, Signal::User1);
        inbox.call_with(move |signal, _| assert_eq!(called.send(signal), Ok(())));
        deliver(&inbox, Signal::User2);
        assert_eq!(
            calls.try_iter().collect::<Vec<_>>(),
            [Signal::User1, Signal::User2]
        );
    }
}
