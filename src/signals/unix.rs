//! The Unix engine of [`Signals`](crate::Signals): handlers of signal-hook and one thread.
//!
//! Invariants:
//!
//! 1. Of a terminating set, each signal's actions run in the order: note which one it is, exit if
//!    armed, arm, wake the thread. Noting is registered first: from the first registration on, the
//!    system does not end the process any more, and a signal that comes before the others would be
//!    lost. Exiting comes before arming, so the first signal never exits; the thread is woken last,
//!    so that nothing it does can arm the signal that woke it.
//! 2. The first three are never taken back: the second signal works after the listener is gone.
//! 3. They are registered once for each set, so that listeners made in a loop leave nothing behind.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use nix::sys::signal;
use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;
use signal_hook::SigId;
use signal_hook::flag;
use signal_hook::iterator;
use signal_hook::low_level::emulate_default_handler;
use signal_hook::low_level::unregister;

use crate::lock::lock;
use crate::signal::Signal;

use super::watched::Watched;

const CATCHABLE: [Signal; 6] = [
    Signal::Interrupt,
    Signal::Terminate,
    Signal::Hangup,
    Signal::Quit,
    Signal::User1,
    Signal::User2,
];

/// The terminating sets this process has registered.
static FORCING: Mutex<Vec<Forcing>> = Mutex::new(Vec::new());

/// Owns the thread's life: dropping it ends the thread, without waiting for it.
#[derive(Debug)]
pub(super) struct Listener {
    handle: iterator::Handle,
}

/// A set whose second signal ends the process. Lives as long as the process.
struct Forcing {
    set: Vec<Watched>,
    /// The number of the signal that came, 0 before.
    came: Arc<AtomicUsize>,
}

/// Holds the signals of a set back from this thread while they are registered.
///
/// signal-hook sets its handler before it knows what to call from it: a signal in between would be
/// swallowed. Held back it comes when this is dropped. In a process with one thread, as at the
/// beginning of `main`, no other can take it.
struct Held {
    mask: SigSet,
}

impl Held {
    fn back(set: &[Watched]) -> io::Result<Self> {
        let numbers = set.iter().map(|watched| watched.signal.number());
        let signals = numbers.filter_map(|number| signal::Signal::try_from(i32::from(number)).ok());
        let mask = SigSet::from_iter(signals).thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { mask })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It has been this thread's mask before, so it is a good one.
        let _ = self.mask.thread_set_mask();
    }
}

pub(super) fn can_be_caught(signal: Signal) -> bool {
    CATCHABLE.contains(&signal)
}

/// Registers the set and starts the thread that calls `deliver`.
pub(super) fn listen(
    set: &[Watched],
    deliver: impl Fn(Signal) + Send + 'static,
) -> io::Result<Listener> {
    let held = Held::back(set)?;
    let came = force_on_the_second(set)?;
    let mut arrived = iterator::Signals::new(None::<i32>)?;
    for watched in set {
        let number = i32::from(watched.signal.number());
        arrived
            .add_signal(number)
            .map_err(|error| watched.refused(&error))?;
    }
    // Before the thread is made, which would inherit it.
    drop(held);
    let listener = Listener {
        handle: arrived.handle(),
    };
    thread::Builder::new()
        .name("taskgroup-signals".into())
        .spawn(move || {
            // One that came while nobody listened, or between the two registrations above: the process
            // has been asked to stop, and a listener that is not told would wait for ever.
            if let Some(signal) = came.and_then(|came| signal_of(came.load(Ordering::SeqCst))) {
                deliver(signal);
            }
            for number in arrived.forever() {
                if let Some(signal) = usize::try_from(number).ok().and_then(signal_of) {
                    deliver(signal);
                }
            }
        })?;
    Ok(listener)
}

pub(super) fn die_of(signal: Signal) {
    // The first process of a container has no reactions of the system's own: the signal would be
    // lost, and the abort that comes after it too.
    if process::id() != 1 {
        drop(emulate_default_handler(i32::from(signal.number())));
    }
}

/// Registers what makes the second signal end the process, unless no signal of the set does.
fn force_on_the_second(set: &[Watched]) -> io::Result<Option<Arc<AtomicUsize>>> {
    if set.iter().all(|watched| watched.status.is_none()) {
        return Ok(None);
    }
    let mut sets = lock(&FORCING);
    if let Some(forcing) = sets.iter().find(|forcing| forcing.set == set) {
        return Ok(Some(Arc::clone(&forcing.came)));
    }
    let came = register(set)?;
    sets.push(Forcing {
        set: set.to_vec(),
        came: Arc::clone(&came),
    });
    Ok(Some(came))
}

fn register(set: &[Watched]) -> io::Result<Arc<AtomicUsize>> {
    let armed = Arc::new(AtomicBool::new(false));
    let came = Arc::new(AtomicUsize::new(0));
    let mut registered = Vec::new();
    for watched in set {
        if let Err(error) = register_one(*watched, &armed, &came, &mut registered) {
            // Half a set must not stay armed: the caller was told that there is none.
            for id in registered {
                unregister(id);
            }
            return Err(watched.refused(&error));
        }
    }
    Ok(came)
}

/// Registers the three actions in the order of invariant 1.
fn register_one(
    watched: Watched,
    armed: &Arc<AtomicBool>,
    came: &Arc<AtomicUsize>,
    registered: &mut Vec<SigId>,
) -> io::Result<()> {
    let Some(status) = watched.status else {
        return Ok(());
    };
    let number = watched.signal.number();
    registered.push(flag::register_usize(
        i32::from(number),
        Arc::clone(came),
        usize::from(number),
    )?);
    registered.push(flag::register_conditional_shutdown(
        i32::from(number),
        i32::from(status),
        Arc::clone(armed),
    )?);
    registered.push(flag::register(i32::from(number), Arc::clone(armed))?);
    Ok(())
}

fn signal_of(number: usize) -> Option<Signal> {
    CATCHABLE
        .into_iter()
        .find(|signal| usize::from(signal.number()) == number)
}

impl Drop for Listener {
    /// The thread may still be inside the call it makes for the last signal; it makes no other one.
    fn drop(&mut self) {
        self.handle.close();
    }
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::signal;

    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_c_library() {
        let numbers = CATCHABLE.map(|signal| i32::from(signal.number()));
        let of_the_library = [
            signal::SIGINT,
            signal::SIGTERM,
            signal::SIGHUP,
            signal::SIGQUIT,
            signal::SIGUSR1,
            signal::SIGUSR2,
        ];
        assert_eq!(numbers, of_the_library);
    }
}
