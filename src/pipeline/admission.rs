//! How items come into a pool: their places in the buffer, their keys and their order.

use std::mem::replace;
use std::sync::Arc;

use tokio::time::Instant;

use super::error::{Fault, Stopped};
use super::parcel::{Parcel, Reason};
use super::shared::{Shared, is_nothing};
use super::state::State;
use crate::group::panic::Panic;

/// Where a new item goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a place of its own, which was reserved.
    Reserved,
    /// As [`Reserved`](Self::Reserved). The next place is reserved too, if one is free and the
    /// stop has not begun.
    AndNext,
    /// In any free place.
    Free,
}

/// An item that was not taken in.
pub(super) struct Rejected<T, R> {
    pub(super) parcel: Parcel<T, R>,
    pub(super) is_full: bool,
}

/// The number of free places for the caller, with the one that is reserved for it, if there is one.
pub(super) type Reserved = usize;

impl<T, R: 'static> Shared<T, R> {
    /// Takes an item in. Gives it back if the pool takes no more items, or has no place for it.
    pub(super) fn take_in(
        &self,
        item: T,
        receipt: R,
        failed: u32,
        place: Place,
    ) -> Result<Reserved, Rejected<T, R>> {
        let mut parcel = Parcel {
            seq: 0,
            key: None,
            taken_in: if self.is_timed {
                Instant::now()
            } else {
                self.made
            },
            item: Some(item),
            receipt,
            mark: None,
            weight: 0,
            failed,
            is_begun: false,
            was_begun: false,
            is_told_done: false,
            trouble: None,
        };
        if self.has_questions() {
            if let Err(panic) = Panic::catch(|| self.ask(&mut parcel)) {
                self.accept_late(parcel);
                self.fail(Fault::Key(panic));
                return Ok(0);
            }
        }
        self.accept(parcel, place)
    }

    /// Returns whether code of the user is asked about each item.
    pub(super) fn has_questions(&self) -> bool {
        self.key.is_some() || self.weight.is_some() || !is_nothing::<R>()
    }

    fn ask(&self, parcel: &mut Parcel<T, R>) {
        if let Some(item) = &parcel.item {
            parcel.key = self.key.as_ref().and_then(|key| key(item));
            parcel.weight = self.weight.as_ref().map_or(0, |weight| weight(item));
        }
        parcel.mark = (self.mark)(&parcel.receipt).cloned();
    }

    fn accept(&self, mut parcel: Parcel<T, R>, place: Place) -> Result<Reserved, Rejected<T, R>> {
        let lease = self.lease.map(|copy| Arc::new(copy(&parcel.receipt)));
        let mut state = self.state.lock();
        if place == Place::Free && state.queue.is_open() && !self.find_place(&mut state) {
            drop(state);
            let is_full = true;
            return Err(Rejected { parcel, is_full });
        }
        parcel.seq = state.next_seq;
        let seq = parcel.seq;
        if let Err(parcel) = state.queue.push(parcel) {
            drop(state);
            let is_full = false;
            return Err(Rejected { parcel, is_full });
        }
        state.next_seq += 1;
        state.numbers.taken_in += 1;
        if let Some(lease) = lease {
            state.leases.insert(seq, lease);
        }
        let reserved = match place {
            Place::AndNext if state.in_flight_at_stop.is_some() => 0,
            Place::AndNext if self.find_place(&mut state) => 1 + state.room.free(),
            _ => 0,
        };
        let wakes = !replace(&mut state.is_waking, true);
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
        Ok(reserved)
    }

    /// Takes in a parcel that comes after the stop and is handed back at once.
    pub(super) fn accept_late(&self, mut parcel: Parcel<T, R>) {
        let lease = self.lease.map(|copy| Arc::new(copy(&parcel.receipt)));
        let mut state = self.state.lock();
        parcel.seq = state.next_seq;
        state.next_seq += 1;
        state.numbers.taken_in += 1;
        if let Some(lease) = lease {
            state.leases.insert(parcel.seq, lease);
        }
        state.leave(parcel, Reason::NeverBegun);
    }
}

impl<T, R> Shared<T, R> {
    /// Takes a place in the buffer, if there is one now.
    fn find_place(&self, state: &mut State<T, R>) -> bool {
        let lent = || {
            self.lane
                .try_acquire()
                .map(|permit| permit.forget())
                .is_ok()
        };
        state.room.take(lent)
    }

    /// Waits for a place in the buffer, and takes it. Callers are served first come, first served.
    pub(super) async fn reserve(&self) -> Result<Reserved, Stopped> {
        {
            let mut state = self.state.lock();
            if !state.queue.is_open() {
                return Err(Stopped(()));
            }
            if self.find_place(&mut state) {
                return Ok(1 + state.room.free());
            }
            state.room.wait();
        }
        let mut waiting = Waiting {
            shared: self,
            has_place: false,
        };
        match self.lane.acquire().await {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(Stopped(())),
        }
        waiting.has_place = true;
        drop(waiting);
        Ok(1 + self.state.lock().room.free())
    }

    /// Gives back places in the buffer.
    pub(super) fn give_back(&self, places: usize) {
        let lent = self.state.lock().room.give(places);
        self.lane.add_permits(lent);
    }
}

/// A caller that waits for a place in the buffer.
struct Waiting<'a, T, R> {
    shared: &'a Shared<T, R>,
    has_place: bool,
}

impl<T, R> Drop for Waiting<'_, T, R> {
    fn drop(&mut self) {
        self.shared.state.lock().room.waited(self.has_place);
    }
}
