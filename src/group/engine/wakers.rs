//! The wakers of all tasks that have been pending, so that an abort can reach them.
//!
//! A group aborts its tasks with a flag that each task checks when it is polled, and by waking the
//! tasks that wait. Tokio's `AbortHandle` would work too, but each one keeps the memory of its task
//! alive until the handle is dropped, and costs an entry even for tasks that end in their first poll.
//! Such tasks cost nothing here.
//!
//! Invariants:
//!
//! 1. An abort sets the flag, then takes the locks. A task takes a lock, then checks the flag. So a
//!    task that registers too late to be woken sees the flag, and no abort is lost.
//! 2. A key belongs to its task until the task removes it, woken or not.
//! 3. A waker is woken and dropped outside the locks, because it may run any code.

use std::cell::Cell;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use super::sync::{AtomicBool, Lock, Ordering};

/// Tasks on different threads rarely share a lock. Four shards serve two cores as well as sixteen.
const SHARDS: u32 = 4;

/// A shard keeps this many places when it gives others back, so that a busy group does not allocate all
/// the time.
const KEPT: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Wakers {
    aborted: AtomicBool,
    /// Made by the first task that waits. Groups without such tasks need none. It is not shared. The
    /// drop of an `Arc` is a call, and that of a `Box` is written out at each place.
    shards: OnceLock<Arc<[Shard; SHARDS as usize]>>,
}

/// Padded, so that neighbours do not slow each other down, because no cache line has parts of two.
/// Aligning them would work too, but takes the allocator several times as long.
#[derive(Debug)]
struct Shard {
    places: Lock<Places>,
    _distance: [u8; 80],
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            places: Lock::default(),
            _distance: [0; 80],
        }
    }
}

/// A slab with 16 bytes per task.
#[derive(Debug)]
struct Places {
    places: Vec<Place>,
    /// The first of the free places.
    free: u32,
    taken: u32,
    /// With at most this many places taken, it is worth trying to give memory back, if there are more
    /// than [`KEPT`].
    shrink_at: u32,
}

/// As large as a waker, because the tag uses the null that the waker's function table never has.
#[derive(Debug)]
enum Place {
    Taken(Waker),
    /// Names the next free place, or is [`WOKEN`].
    Empty(u32),
}

/// The end of the list of free places.
const NOWHERE: u32 = u32::MAX;

/// The remains of a waker that was woken. The place still belongs to its task.
const WOKEN: u32 = u32::MAX - 1;

/// The place of one waker, with its shard in the lowest bits and its index above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(u32);

impl Key {
    /// The key of a task without a place.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

impl Wakers {
    /// Registers a waker. The caller must check [`is_aborted`](Self::is_aborted) afterwards.
    pub(crate) fn insert(&self, waker: Waker) -> Key {
        let shard = number_of_this_thread() % SHARDS;
        let index = self.shard(shard).lock().insert(waker);
        Key(index * SHARDS + shard)
    }

    pub(crate) fn remove(&self, Key(key): Key) {
        let place = self.shard(key % SHARDS).lock().remove(key / SHARDS);
        drop(place);
    }

    /// Returns whether the place holds a waker of the same task, or one that was woken.
    #[cfg(test)]
    pub(crate) fn holds(&self, Key(key): Key, waker: &Waker) -> bool {
        let places = self.shard(key % SHARDS).lock();
        match places.places.get((key / SHARDS) as usize) {
            Some(Place::Taken(own)) => own.will_wake(waker),
            Some(Place::Empty(WOKEN)) => true,
            _ => false,
        }
    }

    /// Returns the number of wakers that memory is reserved for.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        let shards = self.shards().iter();
        shards
            .map(|shard| shard.places.lock().places.capacity())
            .sum()
    }

    /// Relaxed is enough, because a task that reads too early has not registered yet, or is woken.
    #[inline]
    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    pub(crate) fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        // Makes the shards if they do not exist. Without their locks, this abort and a task that is
        // making them right now could miss each other (invariant 1).
        self.shards().iter().for_each(Shard::wake_all);
    }

    fn shards(&self) -> &[Shard; SHARDS as usize] {
        self.shards.get_or_init(Arc::default)
    }

    fn shard(&self, shard: u32) -> &Lock<Places> {
        &self.shards()[shard as usize].places
    }
}

impl Shard {
    #[cold]
    #[inline(never)]
    fn wake_all(&self) {
        let wakers = self.places.lock().take_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Places {
    fn insert(&mut self, waker: Waker) -> u32 {
        self.taken += 1;
        let taken = Place::Taken(waker);
        let index = self.free;
        let Some(place) = self.places.get_mut(index as usize) else {
            if self.places.len() == self.places.capacity() {
                self.grow();
            }
            self.places.push(taken);
            return count(self.places.len()) - 1;
        };
        if let Place::Empty(next) = std::mem::replace(place, taken) {
            self.free = next;
        }
        index
    }

    fn remove(&mut self, index: u32) -> Place {
        let empty = Place::Empty(self.free);
        let place = std::mem::replace(&mut self.places[index as usize], empty);
        self.free = index;
        self.taken -= 1;
        if self.taken <= self.shrink_at && self.places.len() > KEPT {
            self.shrink();
        }
        place
    }

    /// Doubles the number of places.
    #[cold]
    fn grow(&mut self) {
        self.places.reserve(1);
        self.shrink_at = count(self.places.capacity() / 8);
    }

    /// Cuts off the free places at the end, if they are at least half of all. So one task that waits
    /// for long does not keep the places of all that once waited beside it, unless its own is among the
    /// last.
    ///
    /// The next attempt comes when half as many places are taken, or after the next growth. A failed
    /// attempt stops at the last taken place. If tasks end in the order in which they began, that is
    /// the first place it checks.
    #[cold]
    fn shrink(&mut self) {
        self.shrink_at = self.taken / 2;
        let is_free = |place: &Place| matches!(place, Place::Empty(next) if *next != WOKEN);
        let used = match self.taken {
            0 => 0,
            _ => {
                let last = self.places.iter().rposition(|place| !is_free(place));
                last.map_or(0, |last| last + 1)
            }
        };
        if used > self.places.len() / 2 {
            return;
        }
        self.places.truncate(used);
        self.places.shrink_to(KEPT);
        self.free = NOWHERE;
        for (index, place) in (0..).zip(&mut self.places) {
            if is_free(place) {
                *place = Place::Empty(self.free);
                self.free = index;
            }
        }
    }

    fn take_all(&mut self) -> Vec<Waker> {
        let wakers = self.places.iter_mut().filter_map(|place| match place {
            Place::Taken(_) => match std::mem::replace(place, Place::Empty(WOKEN)) {
                Place::Taken(waker) => Some(waker),
                Place::Empty(_) => None,
            },
            Place::Empty(_) => None,
        });
        wakers.collect()
    }
}

impl Default for Places {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: NOWHERE,
            taken: 0,
            shrink_at: 0,
        }
    }
}

/// The number of places fits, because memory runs out long before 2^30 tasks.
#[expect(clippy::cast_possible_truncation, reason = "see above")]
fn count(places: usize) -> u32 {
    places as u32
}

/// Numbers threads in the order in which they first come here, from 1 upwards.
fn number_of_this_thread() -> u32 {
    thread_local! {
        // It has no destructor, so it still exists while the thread's other locals are destroyed.
        static NUMBER: Cell<u32> = const { Cell::new(0) };
    }
    match NUMBER.get() {
        0 => {
            static THREADS: AtomicU32 = AtomicU32::new(1);
            NUMBER.set(THREADS.fetch_add(1, Ordering::Relaxed));
            NUMBER.get()
        }
        number => number,
    }
}
