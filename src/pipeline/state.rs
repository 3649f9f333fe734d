//! [`State`]: what a pool has under its lock.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::error::Fault;
use super::parcel::{HandedBack, Parcel, Reason};
use super::queue::{Batch, Queue};
use super::report::Numbers;
use super::room::Room;

/// What a pool has under its lock. Pure state.
pub(super) struct State<T, R> {
    pub(super) queue: Queue<Parcel<T, R>>,
    pub(super) room: Room,
    /// The items to be handed back at the end of the stop.
    pub(super) left: Vec<HandedBack<T, R>>,
    /// The items of revoked partitions, to be handed back at once.
    pub(super) withdrawn: Vec<HandedBack<T, R>>,
    pub(super) is_claimed: bool,
    pub(super) numbers: Numbers,
    pub(super) next_seq: u64,
    pub(super) pushers: usize,
    pub(super) workers: Vec<Work>,
    pub(super) fault: Option<Fault>,
    /// The number of items in flight when the stop began.
    pub(super) in_flight_at_stop: Option<usize>,
    pub(super) retries: Retries,
    pub(super) leases: BTreeMap<u64, Arc<R>>,
    /// A worker is being woken and has not looked yet. It wakes the next one if there is more work than it
    /// takes. A burst of items that are done at once therefore does not wake all workers in vain.
    pub(super) is_waking: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Running,
    /// The worker is gone, but its job is kept elsewhere.
    Kept,
    Gone,
}

/// The latest time at which a further attempt may be due.
#[derive(Clone, Copy, Debug)]
pub(super) enum Retries {
    Always,
    Before(Instant),
    Never,
}

impl Retries {
    /// Returns whether a further attempt may be due then.
    pub(super) fn allow(self, due: Instant) -> bool {
        match self {
            Self::Always => true,
            Self::Before(deadline) => due < deadline,
            Self::Never => false,
        }
    }
}

impl<T, R> State<T, R> {
    pub(super) fn new(batch: Batch, workers: usize, places: usize) -> Self {
        Self {
            queue: Queue::new(batch, workers),
            room: Room::new(places),
            left: Vec::new(),
            withdrawn: Vec::new(),
            is_claimed: false,
            numbers: Numbers::default(),
            next_seq: 0,
            pushers: 0,
            workers: vec![Work::Gone; workers],
            fault: None,
            in_flight_at_stop: None,
            retries: Retries::Always,
            leases: BTreeMap::new(),
            is_waking: false,
        }
    }

    /// Hands a parcel back at the end of the stop.
    pub(super) fn leave(&mut self, parcel: Parcel<T, R>, reason: Reason) {
        self.count_back(&parcel, reason);
        self.left.push(HandedBack { parcel, reason });
    }

    pub(super) fn leave_all(&mut self, parcels: Vec<Parcel<T, R>>) {
        for parcel in parcels {
            let reason = match parcel.is_begun {
                true => Reason::BetweenAttempts,
                false => Reason::NeverBegun,
            };
            self.leave(parcel, reason);
        }
    }

    /// Hands parcels back that were withdrawn.
    ///
    /// Returns their leases, whose destructors run after the lock.
    pub(super) fn withdraw(&mut self, parcels: Vec<Parcel<T, R>>) -> Vec<Arc<R>> {
        let mut leases = Vec::new();
        for parcel in parcels {
            let reason = Reason::Revoked;
            self.count_back(&parcel, reason);
            leases.extend(self.leases.remove(&parcel.seq));
            self.withdrawn.push(HandedBack { parcel, reason });
        }
        leases
    }

    pub(super) fn count_back(&mut self, parcel: &Parcel<T, R>, reason: Reason) {
        let numbers = &mut self.numbers;
        match parcel.is_begun {
            true => numbers.handed_back_begun += 1,
            false => numbers.handed_back_unbegun += 1,
        }
        match reason {
            Reason::Cut => numbers.cut += 1,
            Reason::NotAcknowledged => numbers.not_acknowledged += 1,
            _ => {}
        }
    }
}
