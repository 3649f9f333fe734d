//! [`Signals`]: the requests of the operating system to the process, as values to wait for.

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

/// The signals of a set, from the moment this value is made.
///
/// A set is of one of two kinds:
///
/// * [`Signals::terminate`] and [`Signals::terminate_on`] make a *terminating* set. Its first signal is
///   delivered, once. A second one (any of the set) ends the process with the exit status 128 + n. With
///   [`escalate`](Self::escalate) the second one forces the stop, and the third one ends the process.
/// * [`Signals::watch`] only listens. Every signal is delivered and none ends the process.
///
/// Use [`TaskGroup::cancel_on`] to stop a group with it, [`TaskGroup::list_on`] to see what a
/// group is doing, or [`recv`](Self::recv) for anything else.
///
/// # Stopping a group
///
/// Given to [`TaskGroup::cancel_on`], a signal cancels the group with [`Cause::Signal`], which is not a
/// failure. It does so from a thread of its own, so this works while every thread of the runtime is blocked.
/// Before that, one line at INFO names the signal, and says how to force the exit if a second signal does
/// that. A log that blocks delays the stop for 200 ms at most. A signal that came before the call counts too.
///
/// The listener ends when the group is over (its `wait` has returned, or it was dropped), even if another
/// cause has cancelled the group. A first signal that comes in the drain is logged, with the effect of a
/// second one. Groups with equal sets all get the same first signal.
///
/// # Registration
///
/// [`taskgroup::main`](crate::main) registers a terminating set before anything else, and passes it to the
/// program. The constructors do the same by hand. They are synchronous and can fail, and they work before
/// there is a runtime and outside of one. A later signal is kept until the program asks for it, and no longer
/// kills the process. If a constructor fails, no signal is registered, and the signals keep their earlier
/// effect.
///
/// **A signal that the process ignores stays ignored** (Linux). `nohup` starts a program with SIGHUP ignored,
/// and a shell script starts its background jobs with SIGINT and SIGQUIT ignored, because the signals of the
/// terminal are not meant for them. The value then waits for the rest of its set. On other systems the crate
/// cannot see this, and listens to the whole set.
///
/// Two threads deliver signals. The process has one `taskgroup-hub`, which lives as long as the process, and
/// each value has a `taskgroup-signals` until it is dropped.
///
/// # The second signal
///
/// **The same request may arrive twice.** A terminal sends SIGINT to a parent and its child, and the parent
/// passes it on as SIGTERM. GNU `timeout`, Heroku and others signal a process and then its whole group. A
/// second signal therefore counts only from 300 ms after the first one on, see
/// [`insist_after`](Self::insist_after). [`insist_on`](Self::insist_on) chooses which signals count as a
/// second one.
///
/// The thread of the hub ends the process with `_exit`, and waits for no other thread. No destructor runs,
/// and no output is flushed or printed. It therefore works when every thread of the runtime is blocked, when
/// a lock is held forever, or when stderr is a pipe without a reader.
///
/// Before that it does what only destructors would have done. The child processes of `Sidecar::serve_process`
/// (feature `process`) get SIGTERM and half a second to end, and then it kills their process groups. If a
/// server was about to close its listening socket, the hub restores the socket, as another process may hold
/// it too. Without child processes it does not wait. A third signal ends the wait, and a fourth one ends the
/// process, from the signal handler.
///
/// This stays so after the value is dropped, for the life of the process. A signal can still force what
/// `main` does after the group is over, such as closing the database. When no signal came before, the first
/// one is noted and the second one forces.
///
/// If no value received a noted signal, the next `Signals` of the same set gets it, because the process was
/// asked to stop. A received signal is not delivered again. When all values that got it are gone and a new
/// one waits, the next signal is a first one again.
///
/// Signals that come at the same instant may count as one, as with any signal.
///
/// Dropping the value does not restore the default reaction to a watched signal. The process ignores it from
/// then on.
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
/// The first process of a container (PID 1) has no default reaction to signals. Without a handler SIGTERM has
/// no effect, and the container is killed when its grace period is over. Making a `Signals` is what makes
/// `docker stop` and the stop of a pod work. When a shell script starts the program, the script is PID 1 and
/// passes no signals on. Start the program with `exec`.
///
/// # Platforms
///
/// On Windows the signals are the events of the console, which are Ctrl-C, Ctrl-Break, close and system
/// shutdown. The system grants about five seconds after a close. A forced exit does not touch child
/// processes.
///
/// # Comparison to `tokio::signal`
///
/// `tokio::signal::ctrl_c()` registers when it is first polled, and never gives the signal back, so the
/// second Ctrl-C has no effect. The runtime delivers the streams of `tokio::signal`, so no signal arrives
/// while the runtime is blocked. It fits where a signal is only an event, such as a reload on SIGHUP.
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
/// A signal that is only an event:
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
#[must_use = "the signals are no longer listened to when the value is dropped"]
pub struct Signals {
    set: Vec<Watched>,
    /// The signals of the set that the process ignored before, and still does.
    ignored: Vec<Signal>,
    inbox: Arc<Inbox>,
    listener: hub::Listener,
}

/// Connects the thread and the receiver of the signals.
///
/// No wakeup can be lost. The signal is in the state before `arrived` is notified, there is one receiver
/// (`recv` takes `&mut self`), and `notify_one` keeps its permit until the next wait.
struct Inbox {
    receiver: Mutex<Receiver>,
    arrived: Notify,
}

enum Receiver {
    /// Signals wait for `recv`, each at most once, in the order in which they came.
    Kept(VecDeque<Letter>),
    /// The thread passes signals to this function. The inbox never goes back to `Kept`.
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

/// How long the line about a signal may delay the stop.
const LOGGING: Duration = Duration::from_millis(200);

impl Signals {
    /// Listens to the signals that ask a process to stop. These are SIGINT and SIGTERM, or the four events of
    /// the console on Windows.
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

    /// Listens to `set`. The first signal is delivered, a second one ends the process with 128 + n.
    ///
    /// The sets of two values are independent, even if they overlap. Each needs a first signal of its own.
    /// [`ExitPolicy::terminate_on`] chooses the exit status.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the set is empty or contains a signal that cannot be
    /// caught on this platform, which the error names. Otherwise the system's error if it refuses a handler,
    /// a pair of sockets or a thread. No signal is armed then.
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
    /// Signals that came before the call are returned first, in their order. A terminating set returns once.
    /// A second call waits forever, as the second signal ends the process. With [`escalate`](Self::escalate)
    /// it returns twice.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. A signal is either returned or kept for the next call.
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

    /// Makes a second signal force the stop, and only a third one end the process.
    ///
    /// A group that [listens](TaskGroup::cancel_on) is [aborted](TaskGroup::abort) by the second signal. A
    /// lifecycle is forced, as by `lifecycle::Handle::force` (feature `lifecycle`). It aborts and joins what
    /// is left, runs the cleanup, and names all that was cut in the report. A task that blocks its thread
    /// cannot be aborted. For that case there is the third signal, which has the default effect of a second
    /// one. If no group or lifecycle listens any longer because the run is over, the second signal ends the
    /// process.
    ///
    /// A third signal counts only after the same pause, measured from the second one, see
    /// [`insist_after`](Self::insist_after). [`insist_on`](Self::insist_on) chooses the signals for both.
    ///
    /// It applies to all values of the same set, and has no effect on a set that only [watches](Self::watch).
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

    /// Makes a second signal count only from `pause` after the first one on. The default is 300 ms.
    ///
    /// Earlier signals are the same request. A parent may pass on a Ctrl-C that the terminal has sent to
    /// both, or a supervisor may signal a process and then its whole group. With [`Duration::ZERO`] each
    /// signal counts, and with [`Duration::MAX`] only the first one does.
    ///
    /// It applies to all values of the same set, and has no effect on a set that only [watches](Self::watch).
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

    /// Makes only `signals` count as a second or third signal. The default is all signals of the set.
    ///
    /// The others are one request however often they come. An example is SIGTERM on a platform that repeats
    /// it until the process is gone. If `signals` is empty, no signal forces the exit.
    ///
    /// It applies to all values of the same set.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a signal that is not in the set, which the error
    /// names, and for a set that only [watches](Self::watch).
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

    /// [`ExitPolicy`](crate::process::ExitPolicy) decides the exit statuses.
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
        // Equal sets must compare equal, regardless of their order.
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
    /// Logs the running tasks when one of `signals` comes, and does not stop the group.
    ///
    /// It is one line at INFO with the name, place of spawn and age of each task, as
    /// [`running`](Self::running) prints them. The thread of the signals writes it, so you can ask a service
    /// that hangs for the reason while its runtime is blocked. The listener ends when the group is over.
    ///
    /// Give it signals to [`watch`](Signals::watch). The second signal of a terminating set ends the process
    /// here as everywhere, and the line says so.
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
    /// Logs the running tasks on these signals, see [`TaskGroup::list_on`].
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
            // The line comes first, so that it always appears. A separate thread writes it, so that a log
            // that blocks does not hold up the stop.
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

/// Says how to force the exit after `signal`, or returns an empty text if no signal can.
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

    /// Calls `receiver` for each later signal, and for those that were kept.
    fn call_with(&self, receiver: impl Fn(Signal, Meaning) + Send + Sync + 'static) {
        let receiver = Arc::new(receiver);
        let called = Receiver::Called(receiver.clone());
        let before = std::mem::replace(&mut *self.lock(), called);
        if let Receiver::Kept(kept) = before {
            kept.into_iter().for_each(|letter| call(&*receiver, letter));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Receiver> {
        // No code of a user runs under the lock, so a poisoned state is still complete.
        lock(&self.receiver)
    }
}

/// A receiver writes to the log, and a subscriber may panic there, for example if its pipe has no reader. The
/// thread must survive for the next signal.
fn call(receiver: &(dyn Fn(Signal, Meaning) + Send + Sync), letter: Letter) {
    let meaning = letter.meaning;
    let signal = letter.open();
    drop(Panic::catch(|| receiver(signal, meaning)));
}

/// Ends the process by the system's default reaction to `signal`. Returns where that is impossible.
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
