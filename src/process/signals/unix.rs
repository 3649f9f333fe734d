//! The Unix engine of [`Signals`](crate::Signals), with the handlers of signal-hook.
//!
//! A handler wakes the thread of the hub, which decides. It ends the process by itself only when the hub has
//! armed its set. The hub does that in a forced exit, for one more signal.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::signal;
use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;
use signal_hook::SigId;
use signal_hook::flag;
use signal_hook::iterator;
use signal_hook::low_level::emulate_default_handler;
use signal_hook::low_level::unregister;

use crate::group::signal::Signal;

use super::watched::Watched;

const CATCHABLE: [Signal; 6] = [
    Signal::Interrupt,
    Signal::Terminate,
    Signal::Hangup,
    Signal::Quit,
    Signal::User1,
    Signal::User2,
];

/// Registers signals that the [`Source`] then hears.
#[derive(Debug)]
pub(super) struct Handle {
    arrived: iterator::Handle,
}

/// Where the signals arrive.
#[derive(Debug)]
pub(super) struct Source {
    arrived: iterator::Signals,
}

/// Blocks all signals in this thread, and in those that it starts, until it is dropped.
///
/// signal-hook sets its handler before it knows what to call from it, so a signal in between would be lost. A
/// blocked signal comes when this is dropped. In a process with one thread, as at the beginning of `main`, no
/// other thread can take it.
pub(super) struct Held {
    before: Mask,
}

/// Which signals a thread takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask(SigSet);

impl Held {
    pub(super) fn back() -> io::Result<Self> {
        let numbers = CATCHABLE.iter().map(|signal| signal.number());
        let signals = numbers.filter_map(|number| signal::Signal::try_from(i32::from(number)).ok());
        let before = SigSet::from_iter(signals).thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self {
            before: Mask(before),
        })
    }

    /// The mask for a thread that was started in the meantime. It has to take signals again, or its own
    /// threads and processes would get none.
    pub(super) fn before(&self) -> Mask {
        self.before
    }
}

impl Mask {
    pub(super) fn set(self) {
        // It was the mask of a thread before, so it is valid.
        let _ = self.0.thread_set_mask();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.before.set();
    }
}

pub(super) fn can_be_caught(signal: Signal) -> bool {
    CATCHABLE.contains(&signal)
}

/// Returns the signals that the process ignores, as far as the system tells that without `unsafe`.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn ignored() -> Vec<Signal> {
    // Without `/proc`, as on other systems, no signal counts as ignored.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn ignored() -> Vec<Signal> {
    Vec::new()
}

/// The mask of ignored signals is a hexadecimal number, whose lowest bit is signal 1.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn ignored_in(status: &str) -> Vec<Signal> {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    // Some architectures have 128 signals. The last 16 digits are the first 64 of them.
    let mask = mask.and_then(|mask| u128::from_str_radix(mask.trim(), 16).ok());
    let is_set = |signal: &Signal| mask.unwrap_or_default() >> (signal.number() - 1) & 1 == 1;
    CATCHABLE.into_iter().filter(is_set).collect()
}

pub(super) fn open() -> io::Result<(Handle, Source)> {
    let arrived = iterator::Signals::new(None::<i32>)?;
    let handle = Handle {
        arrived: arrived.handle(),
    };
    Ok((handle, Source { arrived }))
}

impl Handle {
    /// Makes the signals of `set`, which are held back, wake the source. Once `armed` is true, they end the
    /// process by themselves.
    pub(super) fn catch(
        &mut self,
        set: &[Watched],
        armed: Option<&Arc<AtomicBool>>,
    ) -> io::Result<()> {
        let mut registered = Vec::new();
        for watched in set {
            if let Err(error) = self.catch_one(*watched, armed, &mut registered) {
                // Half a set must not stay armed, because the caller is told that no signal is.
                for id in registered {
                    unregister(id);
                }
                return Err(watched.refused(&error));
            }
        }
        Ok(())
    }

    fn catch_one(
        &mut self,
        watched: Watched,
        armed: Option<&Arc<AtomicBool>>,
        registered: &mut Vec<SigId>,
    ) -> io::Result<()> {
        let number = i32::from(watched.signal.number());
        if let (Some(armed), Some(status)) = (armed, watched.status) {
            let armed = Arc::clone(armed);
            let id = flag::register_conditional_shutdown(number, i32::from(status), armed)?;
            registered.push(id);
        }
        self.arrived.add_signal(number)
    }
}

impl Source {
    /// Waits for signals. They come in the order of their numbers, each once, however often it was sent.
    pub(super) fn wait(&mut self) -> Vec<Signal> {
        self.arrived.wait().filter_map(signal_of).collect()
    }

    /// Returns whether another signal has come.
    pub(super) fn more(&mut self) -> bool {
        self.arrived.pending().next().is_some()
    }
}

pub(super) fn die_of(signal: Signal) {
    // The first process of a container has no default reactions, so the signal would be lost, and so would
    // the abort after it.
    if process::id() != 1 {
        drop(emulate_default_handler(i32::from(signal.number())));
    }
}

fn signal_of(number: i32) -> Option<Signal> {
    CATCHABLE
        .into_iter()
        .find(|signal| i32::from(signal.number()) == number)
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::signal;

    use super::*;

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = "Name:\tcat\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001003\n";
        assert_eq!(ignored_in(status), [Signal::Interrupt, Signal::Hangup]);
        for status in ["", "SigIgn:\tnone\n"] {
            assert_eq!(ignored_in(status), []);
        }
    }

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
