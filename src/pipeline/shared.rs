//! [`Shared`]: the state that the workers, the intake, the pushers and the jobs of one pool share.

use std::any::TypeId;
use std::mem::{replace, take};
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::at_stop::AtStop;
use super::error::Fault;
use super::parcel::{HandedBack, KeyOf, Parcel, Reason, WeightOf};
#[cfg(feature = "metrics")]
use super::queue::Waits;
use super::queue::{Batch, Found};
use super::receipt::Receipt;
use super::report::Numbers;
use super::state::{Retries, State, Work};
use super::valve::Valve;
use super::watermark::{Holds, Mark};
use crate::group::lock::Lock;
use crate::server::stop_signal::Limit;

pub(super) struct Shared<T, R> {
    pub(super) name: Arc<str>,
    pub(super) state: Lock<State<T, R>>,
    /// Where callers wait for room in the buffer. Closed when no items come in any longer.
    pub(super) lane: Semaphore,
    /// Tells the workers that there may be work.
    pub(super) wake: Notify,
    /// Tells the driver that a worker is gone, or that something failed.
    changed: Notify,
    /// Tells the code that hands back at once that items were withdrawn.
    pub(super) withdrawn: Notify,
    /// Tells jobs when they are cut.
    pub(super) limit: Limit,
    /// Fires when the pool has to stop.
    pub(super) stopping: CancellationToken,
    /// Fires when jobs are cut.
    pub(super) cut: CancellationToken,
    /// Fires when the pool is over, for the code that reports on it.
    pub(super) over: CancellationToken,
    /// How many items the buffer holds.
    #[cfg(feature = "metrics")]
    pub(super) capacity: usize,
    /// Fires when an earlier stage of a chain cuts the jobs that it has passed on to this one.
    pub(super) recalled: Arc<CancellationToken>,
    /// The [`recalled`](Self::recalled) of each later stage that has jobs of this one.
    later: Lock<Vec<Arc<CancellationToken>>>,
    /// The token that stops the pool, if no item may begin once it has fired. The driver may not have noticed
    /// yet.
    told: OnceLock<CancellationToken>,
    pub(super) key: Option<KeyOf<T>>,
    pub(super) weight: Option<WeightOf<T>>,
    /// Returns the mark of a receipt, if receipts can have one.
    pub(super) mark: fn(&R) -> Option<&Mark>,
    pub(super) valve: Option<Valve>,
    /// Copies the receipt of an item, if the leases are kept alive.
    pub(super) lease: Option<fn(&R) -> R>,
    /// When the pool was made. It serves as the intake time where the age of items does not matter.
    pub(super) made: Instant,
    pub(super) is_timed: bool,
}

/// The options of a pool.
pub(super) struct Options<T, R> {
    pub(super) name: Arc<str>,
    pub(super) capacity: usize,
    pub(super) limit: usize,
    pub(super) batch: Batch,
    pub(super) key: Option<KeyOf<T>>,
    pub(super) weight: Option<WeightOf<T>>,
    pub(super) valve: Option<Valve>,
    pub(super) lease: Option<fn(&R) -> R>,
    /// Whether the ages of items are measured.
    pub(super) is_metered: bool,
}

impl<T, R: Receipt> Shared<T, R> {
    pub(super) fn new(options: Options<T, R>) -> Self {
        Self {
            name: options.name,
            state: Lock::new(State::new(options.batch, options.limit, options.capacity)),
            lane: Semaphore::new(0),
            wake: Notify::new(),
            changed: Notify::new(),
            withdrawn: Notify::new(),
            limit: Limit::to_be_set(),
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
            over: CancellationToken::new(),
            #[cfg(feature = "metrics")]
            capacity: options.capacity,
            recalled: Arc::default(),
            later: Lock::default(),
            told: OnceLock::new(),
            key: options.key,
            weight: options.weight,
            mark: R::mark,
            valve: options.valve,
            lease: options.lease,
            made: Instant::now(),
            is_timed: options.batch.size > 1 || options.is_metered,
        }
    }
}

impl<T, R> Shared<T, R> {
    /// Takes no more items in, and works off the queued ones.
    pub(super) fn close(&self) {
        self.state.lock().queue.close();
        self.lane.close();
        self.wake.notify_waiters();
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.lock().queue.is_open()
    }

    pub(super) fn add_pusher(&self) {
        self.state.lock().pushers += 1;
    }

    /// Removes a pusher. Removing the last one ends the pool, once all items are worked off.
    pub(super) fn remove_pusher(&self) {
        let mut state = self.state.lock();
        state.pushers -= 1;
        let is_last = state.pushers == 0;
        drop(state);
        if is_last {
            self.close();
        }
    }

    /// Takes the next work, and counts what is done.
    pub(super) fn take(
        &self,
        done: &mut usize,
        batch: &mut Vec<Parcel<T, R>>,
        is_woken: bool,
    ) -> Found {
        let is_told = self.told.get().is_some_and(|told| told.is_cancelled());
        let is_paused = self.is_paused();
        let mut state = self.state.lock();
        state.numbers.done += take(done);
        state.is_waking = state.is_waking && !is_woken;
        let is_held = is_paused || (is_told && state.queue.is_open());
        let found = state.queue.take(Instant::now, is_held, batch);
        let Found::Taken { fresh } = found else {
            drop(state);
            if found == Found::Over {
                // The others may wait for a key or a time, and would not be woken for the end.
                self.wake.notify_waiters();
            }
            return found;
        };
        state.numbers.attempts += batch.len();
        for parcel in batch {
            state.numbers.begun += usize::from(!parcel.is_begun);
            parcel.was_begun = replace(&mut parcel.is_begun, true);
        }
        // A worker has to begin the remaining items, or to wait for their time.
        let has_more = state.queue.has_ready() && !replace(&mut state.is_waking, true);
        let wakes = has_more || state.queue.has_timed();
        let lent = state.room.give(fresh);
        drop(state);
        if lent > 0 {
            self.lane.add_permits(lent);
        }
        if wakes {
            self.wake.notify_one();
        }
        found
    }

    /// Returns whether a valve has paused the pool.
    pub(super) fn is_paused(&self) -> bool {
        self.valve.as_ref().is_some_and(Valve::is_paused)
    }

    /// Lets no item begin once this token has fired.
    pub(super) fn begin_nothing_after(&self, told: &CancellationToken) {
        let _ = self.told.set(told.clone());
    }

    pub(super) fn woken(&self) -> &Notify {
        &self.wake
    }

    /// Puts a parcel aside until its next attempt. Gives it back if too many wait. Hands it back if there
    /// will not be a further attempt.
    pub(super) fn put_aside(
        &self,
        parcel: Parcel<T, R>,
        due: Instant,
        is_forced: bool,
    ) -> Result<(), Parcel<T, R>> {
        let mut state = self.state.lock();
        if !state.retries.allow(due) || state.queue.is_cut() {
            if let Some(key) = parcel.key {
                state.queue.park(key);
            }
            state.leave(parcel, Reason::BetweenAttempts);
        } else if is_forced {
            state.queue.delay_anyway(parcel, due);
        } else {
            state.queue.delay(parcel, due)?;
        }
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Hands parcels back.
    pub(super) fn leave(&self, parcels: impl IntoIterator<Item = (Parcel<T, R>, Reason)>) {
        let mut state = self.state.lock();
        for (parcel, reason) in parcels {
            if let Some(key) = parcel.key {
                state.queue.park(key);
            }
            state.leave(parcel, reason);
        }
    }

    /// Returns whether a fault has stopped the pool, and how.
    pub(super) fn look_at_fault<V>(&self, look: impl FnOnce(&Fault) -> V) -> Option<V> {
        self.state.lock().fault.as_ref().map(look)
    }

    /// Notes that an item has ended.
    pub(super) fn ended(&self, parcel: &Parcel<T, R>, parks: bool) {
        if parcel.key.is_some() || self.has_leases() {
            self.forget(parcel, parks);
        }
    }

    /// Returns whether the leases of items are kept alive.
    pub(super) fn has_leases(&self) -> bool {
        self.lease.is_some()
    }

    /// Gives up the key and the lease of an item.
    fn forget(&self, parcel: &Parcel<T, R>, parks: bool) {
        let mut state = self.state.lock();
        let lease = state.leases.remove(&parcel.seq);
        match parcel.key {
            Some(key) if parks => state.queue.park(key),
            Some(key) => state.queue.ended(key),
            None => {}
        }
        drop(state);
        drop(lease);
        if parcel.key.is_some() {
            self.wake.notify_one();
        }
    }

    /// Notes that an item is handed back at once.
    pub(super) fn handed_back(&self, parcel: &Parcel<T, R>, reason: Reason) {
        self.state.lock().count_back(parcel, reason);
        // Items of a new assignment of its partition are read again from that item on.
        self.ended(parcel, reason != Reason::Revoked);
    }

    /// Records a fault that stops the pool. No item begins any longer.
    pub(super) fn fail(&self, fault: Fault) {
        let mut waiting = Vec::new();
        let mut state = self.state.lock();
        if !matches!(fault, Fault::Pause(_)) {
            state.retries = Retries::Never;
            state.queue.cut(&mut waiting);
            state.leave_all(waiting);
        }
        // Only the first is kept. The destructor of a later one runs after the lock.
        let later = match &state.fault {
            None => state.fault.replace(fault),
            Some(_) => Some(fault),
        };
        drop(state);
        self.lane.close();
        self.wake.notify_waiters();
        self.changed.notify_one();
        drop(later);
    }

    /// Notes whether a worker is there.
    pub(super) fn set_worker(&self, index: usize, work: Work, done: &mut usize) {
        let mut state = self.state.lock();
        state.numbers.done += take(done);
        state.workers[index] = match state.workers[index] {
            Work::Kept => Work::Kept,
            _ => work,
        };
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Numbers)) {
        change(&mut self.state.lock().numbers);
    }

    /// Returns the receipts of all items that the pool holds.
    pub(super) fn leases(&self) -> Vec<Arc<R>> {
        self.state.lock().leases.values().cloned().collect()
    }

    /// Notes that a job is passed on to a later stage. That stage is recalled if this one is cut before the
    /// job comes back.
    pub(super) fn pass_on(&self, recall: &Arc<CancellationToken>) {
        self.state.lock().queue.pass();
        let mut later = self.later.lock();
        if !later.iter().any(|known| Arc::ptr_eq(known, recall)) {
            later.push(Arc::clone(recall));
        }
    }

    /// Takes a parcel from a job that was passed on to a later stage.
    pub(super) fn return_passed(&self, parcel: Parcel<T, R>) {
        let mut state = self.state.lock();
        if let Err(parcel) = state.queue.come_back(parcel) {
            let reason = match parcel.is_told_done {
                true => Reason::NotAcknowledged,
                false => Reason::Downstream,
            };
            state.leave(parcel, reason);
        }
        drop(state);
        self.wake.notify_one();
        self.changed.notify_one();
    }

    /// Begins the stop. No items come in, and work under way has until `deadline`.
    pub(super) fn stop(&self, at_stop: AtStop, deadline: Option<Instant>) {
        let mut given_up = Vec::new();
        let mut state = self.state.lock();
        let in_flight = state.numbers.in_flight();
        state.in_flight_at_stop.get_or_insert(in_flight);
        match at_stop {
            AtStop::Drain => {
                state.queue.close();
                state.retries = deadline.map_or(Retries::Always, Retries::Before);
                state.queue.give_up_delayed(deadline, &mut given_up);
            }
            AtStop::HandBack => {
                state.retries = Retries::Never;
                state.queue.cut(&mut given_up);
            }
            AtStop::AfterPushers => {
                state.retries = deadline.map_or(Retries::Always, Retries::Before);
                state.queue.give_up_delayed(deadline, &mut given_up);
            }
        }
        let is_open = state.queue.is_open();
        state.leave_all(given_up);
        drop(state);
        if !is_open {
            self.lane.close();
        }
        self.limit.set(deadline);
        self.stopping.cancel();
        self.wake.notify_waiters();
    }

    /// Lets no item begin any longer, and hands back all that wait.
    pub(super) fn cut_all(&self) {
        let mut waiting = Vec::new();
        let mut state = self.state.lock();
        state.retries = Retries::Never;
        state.queue.end(&mut waiting);
        state.leave_all(waiting);
        let is_passed_on = state.queue.passed() > 0;
        drop(state);
        if is_passed_on {
            self.later.lock().iter().for_each(|recall| recall.cancel());
        }
        self.lane.close();
        self.stopping.cancel();
        self.cut.cancel();
        self.wake.notify_waiters();
    }

    /// Waits until all workers are gone or, with `or_failed`, until something failed.
    pub(super) async fn settled(&self, or_failed: bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let state = self.state.lock();
                let has_workers = state.workers.contains(&Work::Running);
                let is_running = has_workers || state.queue.passed() > 0;
                if !is_running || (or_failed && state.fault.is_some()) {
                    return;
                }
            }
            changed.await;
        }
    }

    pub(super) fn take_fault(&self) -> Option<Fault> {
        self.state.lock().fault.take()
    }

    pub(super) fn numbers(&self) -> Numbers {
        self.state.lock().numbers
    }

    /// Returns the numbers, and the waiting items.
    #[cfg(feature = "metrics")]
    pub(super) fn waits(&self) -> (Numbers, Waits) {
        let state = self.state.lock();
        (state.numbers, state.queue.waits())
    }

    /// Returns which workers are still there, or have left a job behind.
    pub(super) fn running(&self) -> Vec<usize> {
        let state = self.state.lock();
        let workers = state.workers.iter().enumerate();
        workers
            .filter(|(_, work)| **work != Work::Gone)
            .map(|(index, _)| index)
            .collect()
    }

    /// Returns the number of items in flight. Once the stop has begun, it is the number from then.
    pub(super) fn in_flight(&self) -> usize {
        let state = self.state.lock();
        let at_stop = state.in_flight_at_stop;
        at_stop.unwrap_or_else(|| state.numbers.in_flight())
    }

    /// Notes that the caller will look at the leftovers.
    pub(super) fn claim(&self) {
        self.state.lock().is_claimed = true;
    }

    pub(super) fn is_claimed(&self) -> bool {
        self.state.lock().is_claimed
    }

    /// Takes the items of revoked partitions.
    pub(super) fn take_withdrawn(&self) -> Vec<HandedBack<T, R>> {
        take(&mut self.state.lock().withdrawn)
    }

    /// Takes the items that were handed back, in the order of the intake.
    pub(super) fn take_left(&self) -> Vec<HandedBack<T, R>> {
        let mut state = self.state.lock();
        let mut left = take(&mut state.left);
        left.append(&mut state.withdrawn);
        drop(state);
        left.sort_by_key(|item| item.parcel.seq);
        left
    }

    pub(super) fn left(&self) -> usize {
        let state = self.state.lock();
        state.left.len() + state.withdrawn.len()
    }
}

impl<T: Send, R: Send + Sync> Holds for Shared<T, R> {
    fn withdraw(&self, assignment: u64) {
        let is_of = |parcel: &Parcel<T, R>| {
            let mark = parcel.mark.as_ref();
            mark.is_some_and(|mark| mark.assignment() == assignment)
        };
        let mut parcels = Vec::new();
        let mut state = self.state.lock();
        let places = state.queue.withdraw(is_of, &mut parcels);
        let lent = state.room.give(places);
        parcels.sort_by_key(|parcel| parcel.seq);
        let marks: Vec<_> = parcels
            .iter()
            .filter_map(|parcel| parcel.mark.clone())
            .collect();
        let leases = state.withdraw(parcels);
        drop(state);
        drop(leases);
        self.lane.add_permits(lent);
        marks.iter().for_each(Mark::ended);
        self.withdrawn.notify_one();
        self.wake.notify_waiters();
    }
}

/// Returns whether `R` is `()`, which needs no acknowledgement.
pub(super) fn is_nothing<R: 'static>() -> bool {
    TypeId::of::<R>() == TypeId::of::<()>()
}
