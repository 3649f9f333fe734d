//! [`Shared`]: the state that the workers, the intake, the pushers and the jobs of one pool share.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::mem::{replace, take};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::Fault;
use super::parcel::{HandedBack, KeyOf, Parcel, Reason};
#[cfg(feature = "metrics")]
use super::queue::Waits;
use super::queue::{Batch, Found, Queue};
use super::report::Numbers;
use crate::group::lock::Lock;
use crate::group::panic::Panic;
use crate::server::stop_signal::Limit;

pub(super) struct Shared<T, R> {
    pub(super) name: Arc<str>,
    state: Lock<State<T, R>>,
    /// The room in the buffer. Closed when no items come in any longer.
    pub(super) room: Semaphore,
    /// Tells the workers that there may be work.
    wake: Notify,
    /// Tells the driver that a worker is gone, or that something failed.
    changed: Notify,
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
    key: Option<KeyOf<T>>,
    /// Copies the receipt of an item, if the leases are kept alive.
    lease: Option<fn(&R) -> R>,
    /// When the pool was made. It serves as the intake time where the age of items does not matter.
    made: Instant,
    is_timed: bool,
}

struct State<T, R> {
    queue: Queue<Parcel<T, R>>,
    left: Vec<HandedBack<T, R>>,
    is_claimed: bool,
    numbers: Numbers,
    next_seq: u64,
    pushers: usize,
    workers: Vec<Work>,
    fault: Option<Fault>,
    /// The number of items in flight when the stop began.
    in_flight_at_stop: Option<usize>,
    retries: Retries,
    leases: BTreeMap<u64, Arc<R>>,
    /// A worker is being woken and has not looked yet. It wakes the next one if there is more work than it
    /// takes. A burst of items that are done at once therefore does not wake all workers in vain.
    is_waking: bool,
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
enum Retries {
    Always,
    Before(Instant),
    Never,
}

/// Decides the end of buffered items when the stop begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AtStop {
    /// They are worked off, as far as the time allows.
    #[default]
    Drain,
    /// They are handed back at once. Only work under way is finished.
    HandBack,
    /// Items continue to come in until the last pusher or the source is gone, as far as the time allows. It
    /// is for a stage whose pushers are still draining.
    AfterPushers,
}

/// The options of a pool.
pub(super) struct Options<T, R> {
    pub(super) name: Arc<str>,
    pub(super) capacity: usize,
    pub(super) limit: usize,
    pub(super) batch: Batch,
    pub(super) key: Option<KeyOf<T>>,
    pub(super) lease: Option<fn(&R) -> R>,
    /// Whether the ages of items are measured.
    pub(super) is_metered: bool,
}

impl<T, R> Shared<T, R> {
    pub(super) fn new(options: Options<T, R>) -> Self {
        Self {
            name: options.name,
            state: Lock::new(State {
                queue: Queue::new(options.batch, options.limit),
                left: Vec::new(),
                is_claimed: false,
                numbers: Numbers::default(),
                next_seq: 0,
                pushers: 0,
                workers: vec![Work::Gone; options.limit],
                fault: None,
                in_flight_at_stop: None,
                retries: Retries::Always,
                leases: BTreeMap::new(),
                is_waking: false,
            }),
            room: Semaphore::new(options.capacity),
            wake: Notify::new(),
            changed: Notify::new(),
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
            lease: options.lease,
            made: Instant::now(),
            is_timed: options.batch.size > 1 || options.is_metered,
        }
    }

    /// Takes an item in, for which there is room. Gives it back if the pool takes no more items.
    pub(super) fn take_in(&self, item: T, receipt: R, failed: u32) -> Result<(), Parcel<T, R>> {
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
            failed,
            is_begun: false,
            is_tried: false,
            is_told_done: false,
            trouble: None,
        };
        if let (Some(key), Some(item)) = (&self.key, &parcel.item) {
            match Panic::catch(|| key(item)) {
                Ok(key) => parcel.key = key,
                Err(panic) => {
                    self.accept_late(parcel);
                    self.fail(Fault::Key(panic));
                    return Ok(());
                }
            }
        }
        self.accept(parcel)
    }

    fn accept(&self, mut parcel: Parcel<T, R>) -> Result<(), Parcel<T, R>> {
        let lease = self.lease.map(|copy| Arc::new(copy(&parcel.receipt)));
        let mut state = self.state.lock();
        parcel.seq = state.next_seq;
        let seq = parcel.seq;
        state.queue.push(parcel)?;
        state.next_seq += 1;
        state.numbers.taken_in += 1;
        if let Some(lease) = lease {
            state.leases.insert(seq, lease);
        }
        let wakes = !replace(&mut state.is_waking, true);
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
        Ok(())
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

    /// Takes no more items in, and works off the queued ones.
    pub(super) fn close(&self) {
        self.state.lock().queue.close();
        self.room.close();
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
        let mut state = self.state.lock();
        state.numbers.done += take(done);
        state.is_waking = state.is_waking && !is_woken;
        if is_told && state.queue.is_open() {
            return Found::Wait(None);
        }
        let found = state.queue.take(Instant::now, batch);
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
            parcel.is_begun = true;
        }
        // A worker has to begin the remaining items, or to wait for their time.
        let has_more = state.queue.has_ready() && !replace(&mut state.is_waking, true);
        let wakes = has_more || state.queue.has_timed();
        drop(state);
        if fresh > 0 && !self.room.is_closed() {
            self.room.add_permits(fresh);
        }
        if wakes {
            self.wake.notify_one();
        }
        found
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
        let is_in_time = match state.retries {
            Retries::Always => true,
            Retries::Before(deadline) => due < deadline,
            Retries::Never => false,
        };
        if !is_in_time || state.queue.is_cut() {
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

    /// Notes that an item has ended.
    pub(super) fn ended(&self, parcel: &Parcel<T, R>, parks: bool) {
        if parcel.key.is_none() && self.lease.is_none() {
            return;
        }
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
        self.room.close();
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
            self.room.close();
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
        self.room.close();
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

    /// Takes the items that were handed back, in the order of the intake.
    pub(super) fn take_left(&self) -> Vec<HandedBack<T, R>> {
        let mut left = take(&mut self.state.lock().left);
        left.sort_by_key(|item| item.parcel.seq);
        left
    }

    pub(super) fn left(&self) -> usize {
        self.state.lock().left.len()
    }
}

impl<T, R> State<T, R> {
    fn leave(&mut self, parcel: Parcel<T, R>, reason: Reason) {
        let numbers = &mut self.numbers;
        if parcel.is_begun {
            numbers.handed_back_begun += 1;
        } else {
            numbers.handed_back_unbegun += 1;
        }
        match reason {
            Reason::Cut => numbers.cut += 1,
            Reason::NotAcknowledged => numbers.not_acknowledged += 1,
            _ => {}
        }
        self.left.push(HandedBack { parcel, reason });
    }

    fn leave_all(&mut self, parcels: Vec<Parcel<T, R>>) {
        for parcel in parcels {
            let reason = if parcel.is_begun {
                Reason::BetweenAttempts
            } else {
                Reason::NeverBegun
            };
            self.leave(parcel, reason);
        }
    }
}

/// Runs a future of the user until it or `cut` ends, and drops it. Catches a panic of either step.
///
/// The future runs in place, without a box.
pub(super) async fn run_until<F: Future>(
    future: F,
    mut cut: Pin<&mut (impl Future<Output = ()> + ?Sized)>,
) -> Option<Result<F::Output, Panic>> {
    let mut slot = pin!(Some(future));
    let ended = poll_fn(|cx| {
        let Some(future) = slot.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        match Panic::catch(|| future.poll(cx)) {
            Ok(Poll::Pending) => cut.as_mut().poll(cx).map(|()| None),
            Ok(Poll::Ready(output)) => Poll::Ready(Some(Ok(output))),
            Err(panic) => Poll::Ready(Some(Err(panic))),
        }
    })
    .await;
    let dropped = Panic::catch(|| slot.set(None));
    match (ended, dropped) {
        (Some(Ok(_)), Err(panic)) => Some(Err(panic)),
        (ended, Err(panic)) => {
            panic.discard();
            ended
        }
        (ended, Ok(())) => ended,
    }
}

/// Returns the time after `time`, or `None` if it is too far away ever to come.
pub(super) fn after(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

/// Yields to the other tasks of the thread at intervals.
pub(super) async fn consume_budget() {
    // Later versions of tokio have moved it from its place in the oldest supported one.
    #[allow(deprecated)]
    tokio::task::consume_budget().await;
}
