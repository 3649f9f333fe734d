//! The one thread that gets all signals of the process, and decides the meaning of each.
//!
//! Invariants:
//!
//! 1. All that the system can refuse (a pipe, a thread) is there before the first handler is registered. A
//!    value therefore has all of its set, or the signals keep their earlier effect.
//! 2. The thread lives as long as the process, and calls no receiver, because each value has its own thread
//!    for that. Whatever a receiver blocks, the hub gets the next signal.
//! 3. A terminating set lives as long as the process, once for all values that name it. Values that are made
//!    in a loop therefore leave nothing behind, and a second signal forces the exit even when the value is
//!    gone.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Instant;

use crate::group::lock;
use crate::group::signal::Signal;
use crate::server::forced;

use super::act::Act;
use super::act::Meaning;
use super::engine;
use super::watched::Watched;

/// Owns a place among the listeners. Dropping it ends its thread, without waiting for it.
#[derive(Debug)]
pub(super) struct Listener {
    id: u64,
    set: Option<SetId>,
}

/// The place of a terminating set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetId(usize);

/// A signal on its way to a receiver.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) signal: Signal,
    /// Either the first one of its set, or one that forces.
    pub(super) meaning: Meaning,
    unheard: Option<Unheard>,
}

/// The first signal of a terminating set, until a value receives it.
type Unheard = Arc<Mutex<Option<Signal>>>;

struct Hub {
    next: u64,
    engine: Option<engine::Handle>,
    /// The signals that are registered for any value.
    caught: Vec<Signal>,
    /// Never shrinks.
    sets: Vec<Set>,
    values: Vec<Value>,
}

/// A set whose second signal ends the process.
struct Set {
    signals: Vec<Watched>,
    act: Act,
    unheard: Unheard,
    /// Makes the handlers of the set end the process.
    armed: Arc<AtomicBool>,
}

struct Value {
    id: u64,
    signals: Vec<Watched>,
    set: Option<SetId>,
    /// Whether it was given the one signal that a terminating set delivers.
    told: bool,
    sender: Sender<Letter>,
}

/// The request of a signal that insists.
struct End {
    status: u8,
    armed: Arc<AtomicBool>,
}

static HUB: Mutex<Hub> = Mutex::new(Hub {
    next: 0,
    engine: None,
    caught: Vec::new(),
    sets: Vec::new(),
    values: Vec::new(),
});

/// Listens to `signals`. A new thread calls `deliver` for each of them.
pub(super) fn listen(
    signals: &[Watched],
    terminating: bool,
    deliver: impl Fn(Letter) + Send + 'static,
) -> io::Result<Listener> {
    let held = engine::Held::back()?;
    let mask = held.before();
    let (sender, letters) = mpsc::channel();
    thread::Builder::new()
        .name("taskgroup-signals".into())
        .spawn(move || {
            // When the sender is gone, the thread may still be inside the call for the last letter.
            for letter in letters {
                mask.set();
                deliver(letter);
            }
        })?;
    let mut hub = lock();
    let set = hub.catch(signals, terminating)?;
    let id = hub.next;
    hub.next += 1;
    let mut value = Value {
        id,
        signals: signals.to_vec(),
        set,
        told: false,
        sender,
    };
    if let Some(SetId(set)) = set {
        hub.sets[set].welcome(&mut value);
    }
    hub.values.push(value);
    Ok(Listener { id, set })
}

impl Listener {
    pub(super) fn set(&self) -> Option<SetId> {
        self.set
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut hub = lock();
        if let Some(at) = hub.values.iter().position(|value| value.id == self.id) {
            hub.values.swap_remove(at);
        }
    }
}

impl Letter {
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        (self.signal, self.meaning) == (other.signal, other.meaning)
    }

    /// Takes the signal out, so that no later value is told of it.
    pub(super) fn open(self) -> Signal {
        if let Some(unheard) = self.unheard {
            *lock::lock(&unheard) = None;
        }
        self.signal
    }
}

impl From<Signal> for Letter {
    fn from(signal: Signal) -> Self {
        Self {
            signal,
            meaning: Meaning::First,
            unheard: None,
        }
    }
}

impl Hub {
    /// Directs the signals here, and returns the place of their set if it is a terminating one.
    fn catch(&mut self, signals: &[Watched], terminating: bool) -> io::Result<Option<SetId>> {
        let engine = match &mut self.engine {
            Some(engine) => engine,
            none => none.insert(start()?),
        };
        let known = self.sets.iter().position(|set| set.signals == signals);
        let known = known.filter(|_| terminating);
        let armed = Arc::new(AtomicBool::new(false));
        engine.catch(signals, (terminating && known.is_none()).then_some(&armed))?;
        let caught = signals.iter().map(|watched| watched.signal);
        let new = caught.filter(|signal| !self.caught.contains(signal));
        let new: Vec<_> = new.collect();
        self.caught.extend(new);
        if known.is_none() && terminating {
            self.sets.push(Set::new(signals, armed));
            return Ok(Some(SetId(self.sets.len() - 1)));
        }
        Ok(known.map(SetId))
    }

    fn arrive(&mut self, signal: Signal) -> Option<End> {
        let has = |signals: &[Watched]| signals.iter().any(|watched| watched.signal == signal);
        let watching = self.values.iter().filter(|value| value.set.is_none());
        for value in watching.filter(|value| has(&value.signals)) {
            value.send(Letter::from(signal));
        }
        let now = Instant::now();
        let mut end = None;
        for (place, set) in self.sets.iter_mut().enumerate() {
            let values = self.values.iter_mut();
            let values = values.filter(|value| value.set == Some(SetId(place)));
            if has(&set.signals) {
                end = end.or(set.arrive(signal, now, &mut values.collect::<Vec<_>>()));
            }
        }
        end
    }
}

impl Set {
    fn new(signals: &[Watched], armed: Arc<AtomicBool>) -> Self {
        Self {
            signals: signals.to_vec(),
            act: Act::new(signals.iter().map(|watched| watched.signal).collect()),
            unheard: Unheard::default(),
            armed,
        }
    }

    /// Tells a new value of the signal that no value has received, because the process was asked to stop.
    fn welcome(&self, value: &mut Value) {
        if let Some(signal) = self.unheard() {
            value.told = true;
            value.send(self.letter(signal));
        }
    }

    fn arrive(&mut self, signal: Signal, now: Instant, values: &mut [&mut Value]) -> Option<End> {
        // All values that were told are gone and another one waits, so the process goes on.
        if self.unheard().is_none() && !values.is_empty() && values.iter().all(|value| !value.told)
        {
            self.act.start_over();
        }
        match self.act.arrive(signal, now) {
            Meaning::First => {
                *lock::lock(&self.unheard) = Some(signal);
                for value in values.iter_mut().filter(|value| !value.told) {
                    value.told = true;
                    value.send(self.letter(signal));
                }
                None
            }
            Meaning::Same => None,
            // Without a listener, the stop would not be forced.
            Meaning::Forces if values.iter().any(|value| value.told) => {
                for value in values.iter().filter(|value| value.told) {
                    value.send(Letter {
                        signal,
                        meaning: Meaning::Forces,
                        unheard: None,
                    });
                }
                None
            }
            Meaning::Forces | Meaning::Insists => {
                let mut watched = self.signals.iter();
                let watched = watched.find(|watched| watched.signal == signal)?;
                Some(End {
                    status: watched.status?,
                    armed: Arc::clone(&self.armed),
                })
            }
        }
    }

    fn letter(&self, signal: Signal) -> Letter {
        Letter {
            signal,
            meaning: Meaning::First,
            unheard: Some(Arc::clone(&self.unheard)),
        }
    }

    fn unheard(&self) -> Option<Signal> {
        *lock::lock(&self.unheard)
    }
}

impl Value {
    fn send(&self, letter: Letter) {
        // The thread waits for letters as long as there is a sender.
        let _ = self.sender.send(letter);
    }
}

impl End {
    /// Undoes what outlives the process, and ends it. One more signal ends the wait, and the next one ends
    /// the process from its handler.
    fn force(self, source: &mut engine::Source) {
        forced::begin();
        forced::undo_all(forced::TELLING, || {
            let more = source.more();
            self.armed.fetch_or(more, Ordering::SeqCst);
            more
        });
        forced::end(self.status);
    }
}

/// Changes which signals insist in a terminating set, for all of its values.
pub(super) fn configure(set: SetId, change: impl FnOnce(&mut Act)) {
    change(&mut lock().sets[set.0].act);
}

/// How to make a set do more than stop.
#[derive(Clone, Debug)]
pub(super) struct Insisting {
    /// The signals that do it.
    pub(super) signals: Vec<Signal>,
    /// Whether these are all signals of the set.
    pub(super) all: bool,
    /// Whether the next one forces the stop instead of ending the process.
    pub(super) escalates: bool,
}

/// Returns which signals of a set insist when they come after the first one, and their effect.
pub(super) fn insisting(set: SetId) -> Insisting {
    let hub = lock();
    let set = &hub.sets[set.0];
    let signals = set.act.insisting();
    let mut all = set.signals.iter();
    Insisting {
        all: all.all(|watched| signals.contains(&watched.signal)),
        signals,
        escalates: set.act.escalates,
    }
}

/// Starts the thread, which ends with the process.
fn start() -> io::Result<engine::Handle> {
    let (handle, mut source) = engine::open()?;
    thread::Builder::new()
        .name("taskgroup-hub".into())
        .spawn(move || {
            loop {
                for signal in source.wait() {
                    if let Some(end) = arrive(signal) {
                        end.force(&mut source);
                    }
                }
            }
        })?;
    Ok(handle)
}

fn arrive(signal: Signal) -> Option<End> {
    let mut hub = lock();
    if hub.caught.contains(&signal) {
        return hub.arrive(signal);
    }
    // The system has refused a handler for another signal of the set, and the caller was told that no signal
    // is registered.
    drop(hub);
    engine::die_of(signal);
    None
}

fn lock() -> MutexGuard<'static, Hub> {
    lock::lock(&HUB)
}
