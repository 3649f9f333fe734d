//! The wakers of all tasks that have been pending, so that an abort can reach them.
//!
//! A group aborts its tasks by a flag that each task looks at when it is polled, and by waking the
//! tasks that wait. Tokio's `AbortHandle` would do too, but each one keeps the memory of its task
//! alive until the handle is dropped, and costs an entry for tasks that end in their first poll.
//! Such tasks cost nothing here.
//!
//! Invariants:
//!
//! 1. An abort sets the flag, then takes the locks. A task takes a lock, then looks at the flag. So
//!    a task that came too late to be woken sees the flag: no abort is lost.
//! 2. A key stays its task's own until the task removes it, woken or not.
//! 3. A waker is woken and dropped outside the locks; it may run anything.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::task::Waker;

use super::sync::{AtomicBool, Lock, Ordering};

/// Tasks on different threads rarely meet on one lock. Four serve two cores as well as sixteen.
const SHARDS: u32 = 4;

/// A shard keeps this many places when others are given back, so that a group at work does not allocate all the time.
const KEPT: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Wakers {
    aborted: AtomicBool,
    /// Made by the first task that waits: a group of tasks that never do needs none.
    shards: OnceLock<Box<[Shard; SHARDS as usize]>>,
}

/// On a cache line of its own, so that neighbours do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Lock<Places>);

/// A slab of 16 bytes a task.
#[derive(Debug)]
struct Places {
    places: Vec<Place>,
    /// The first of the free places.
    free: u32,
    taken: usize,
    /// With no more places taken than this, it is worth looking for memory to give back.
    shrink_at: usize,
}

/// As large as a waker: the tag is a null where the waker's table of functions is never null.
#[derive(Debug)]
enum Place {
    Taken(Waker),
    /// Names the next free place, or is [`WOKEN`].
    Empty(u32),
}

/// The end of the list of free places.
const NOWHERE: u32 = u32::MAX;

/// What is left of a waker that was woken; the place is still its task's.
const WOKEN: u32 = u32::MAX - 1;

/// The place of one waker: its shard in the lowest bits, its index above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(u32);

impl Key {
    /// The key of a task that has none.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

impl Wakers {
    /// Registers a waker. The caller looks at [`is_aborted`](Self::is_aborted) afterwards.
    pub(crate) fn insert(&self, waker: Waker) -> Key {
        let shard = shard_of_this_thread();
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

    /// Returns for how many wakers there is memory.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        let shards = self.shards().iter();
        shards.map(|shard| shard.0.lock().places.capacity()).sum()
    }

    /// Relaxed is enough: a task that reads too early has not registered yet, or is woken.
    #[inline]
    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    pub(crate) fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        // The shards are made if there are none: without their locks, a task that is making them
        // right now could miss the flag while it is missed here (invariant 1).
        for shard in self.shards() {
            let wakers = shard.0.lock().take_all();
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    fn shards(&self) -> &[Shard; SHARDS as usize] {
        self.shards.get_or_init(Box::default)
    }

    fn shard(&self, shard: u32) -> &Lock<Places> {
        &self.shards()[shard as usize].0
    }
}

impl Places {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "memory ends long before 2^30 tasks"
    )]
    fn insert(&mut self, waker: Waker) -> u32 {
        self.taken += 1;
        let taken = Place::Taken(waker);
        let index = self.free;
        let Some(place) = self.places.get_mut(index as usize) else {
            self.places.push(taken);
            if self.places.len() > KEPT {
                self.shrink_at = self.places.len() / 4;
            }
            return (self.places.len() - 1) as u32;
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
        if self.taken <= self.shrink_at {
            self.shrink();
        }
        place
    }

    /// Cuts off the free places at the end. So one task that waits for long does not keep the places of
    /// all that once waited beside it, unless its own is among the last.
    ///
    /// The next attempt comes when half as many are taken, or after the next growth: all attempts
    /// together cost no more than the insertions did.
    #[cold]
    fn shrink(&mut self) {
        let is_free = |place: &Place| matches!(place, Place::Empty(next) if *next != WOKEN);
        let used = self.places.iter().rposition(|place| !is_free(place));
        self.places.truncate(used.map_or(0, |last| last + 1));
        self.places.shrink_to(KEPT);
        self.free = NOWHERE;
        for (index, place) in (0..).zip(&mut self.places) {
            if is_free(place) {
                *place = Place::Empty(self.free);
                self.free = index;
            }
        }
        self.shrink_at = self.taken / 2;
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

fn shard_of_this_thread() -> u32 {
    static THREADS: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        static SHARD: u32 = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    // A future may be polled while its thread's locals are being destroyed.
    SHARD.try_with(|shard| *shard).unwrap_or(0)
}
