//! The waiting items, which are new, between two attempts, or of a busy key.
//!
//! Pure state, without a clock or a lock of its own.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::mem::take;
use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

/// Stands for the key of an item. It is never 0, so that an item without a key takes no more room.
pub(super) type Key = NonZeroU64;

/// What the queue has to know about an item.
pub(super) trait Entry {
    /// Its place in the order of the intake.
    fn seq(&self) -> u64;

    /// Items of one key run one at a time, in the order of the intake.
    fn key(&self) -> Option<Key>;

    /// When it was taken in.
    fn taken_in(&self) -> Instant;

    /// How much it weighs, for the batch that it will be in.
    fn weight(&self) -> u64;
}

/// What one worker takes at once, and how long the first of the items may wait for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) size: usize,
    pub(super) longest: Duration,
    /// The most that the items may weigh together. An item that weighs more is taken alone.
    pub(super) weight: u64,
}

impl Batch {
    /// One item at a time, without a wait.
    pub(super) const ONE: Self = Self {
        size: 1,
        longest: Duration::ZERO,
        weight: u64::MAX,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// No item comes in any longer, and the queued ones are worked off.
    Draining,
    /// No item begins any longer.
    Cut,
}

/// The result of a worker's look at the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The worker took `fresh` items that were waiting for their first attempt.
    Taken { fresh: usize },
    /// The worker took one item that a later stage has given back.
    Returned,
    /// The worker has to wait, until this time if one is known.
    Wait(Option<Instant>),
    /// The queue is empty and will stay empty.
    Over,
}

/// The numbers of waiting items.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waits {
    pub(super) buffered: usize,
    pub(super) in_backoff: usize,
    /// Since when the oldest item that has not begun waits.
    pub(super) oldest: Option<Instant>,
}

/// The waiting items of a key that has an item under way.
#[derive(Debug)]
struct Busy<P> {
    waiting: VecDeque<P>,
    is_parked: bool,
}

#[derive(Debug)]
pub(super) struct Queue<P> {
    batch: Batch,
    phase: Phase,
    ready: VecDeque<P>,
    /// How much the ready items weigh together.
    weight: u128,
    delayed: BinaryHeap<Reverse<Delayed<P>>>,
    /// The maximum number of items put aside between two attempts.
    most_delayed: usize,
    keys: HashMap<Key, Busy<P>>,
    /// How many items wait for their key, without those whose key is parked.
    waiting: usize,
    /// How many items are in later stages.
    passed: usize,
    /// The items that have come back from later stages.
    returned: VecDeque<P>,
    /// Whether workers no longer take items that come back.
    is_over: bool,
}

impl<P: Entry> Queue<P> {
    pub(super) fn new(batch: Batch, most_delayed: usize) -> Self {
        Self {
            batch,
            phase: Phase::Open,
            ready: VecDeque::new(),
            weight: 0,
            delayed: BinaryHeap::new(),
            most_delayed,
            keys: HashMap::new(),
            waiting: 0,
            passed: 0,
            returned: VecDeque::new(),
            is_over: false,
        }
    }

    /// Takes an item in. Gives it back if the queue takes no more items.
    #[inline]
    pub(super) fn push(&mut self, item: P) -> Result<(), P> {
        if self.phase != Phase::Open {
            return Err(item);
        }
        let Some(key) = item.key() else {
            self.make_ready(item);
            return Ok(());
        };
        match self.keys.get_mut(&key) {
            Some(busy) => {
                self.waiting += usize::from(!busy.is_parked);
                busy.waiting.push_back(item);
            }
            None => {
                let busy = Busy {
                    waiting: VecDeque::new(),
                    is_parked: false,
                };
                self.keys.insert(key, busy);
                self.make_ready(item);
            }
        }
        Ok(())
    }

    #[inline]
    fn make_ready(&mut self, item: P) {
        self.weight += u128::from(item.weight());
        self.ready.push_back(item);
    }

    /// Moves the next work to `out`. Due retries come before new items. While it `is_held`, no item begins.
    #[inline]
    pub(super) fn take(
        &mut self,
        now: impl Fn() -> Instant,
        is_held: bool,
        out: &mut Vec<P>,
    ) -> Found {
        if let Some(item) = self.returned.pop_front() {
            out.push(item);
            return Found::Returned;
        }
        if self.phase == Phase::Cut {
            // Items that come back are still brought to their end.
            return match self.passed {
                0 => Found::Over,
                _ if self.is_over => Found::Over,
                _ => Found::Wait(None),
            };
        }
        if is_held {
            return match self.is_drained() {
                true => Found::Over,
                false => Found::Wait(None),
            };
        }
        let due = self.delayed.peek().map(|Reverse(first)| first.due);
        if due.is_some_and(|due| due <= now()) {
            out.extend(self.delayed.pop().map(|Reverse(first)| first.item));
            return Found::Taken { fresh: 0 };
        }
        match self.full_at() {
            Some(at) if at.is_none_or(|at| at <= now()) => {
                let fresh = self.fresh();
                for _ in 0..fresh {
                    let Some(item) = self.ready.pop_front() else {
                        break;
                    };
                    self.weight -= u128::from(item.weight());
                    out.push(item);
                }
                Found::Taken { fresh }
            }
            Some(at) => Found::Wait(at.into_iter().chain(due).min()),
            None if self.is_drained() => Found::Over,
            None => Found::Wait(due),
        }
    }

    /// Returns how many of the ready items make the next batch.
    #[inline]
    fn fresh(&self) -> usize {
        let most = self.ready.len().min(self.batch.size);
        let limit = u128::from(self.batch.weight);
        if most <= 1 || self.weight <= limit {
            return most;
        }
        let mut weight = 0;
        let fits = |item: &&P| {
            weight += u128::from(item.weight());
            weight <= limit
        };
        let fresh = self.ready.iter().take(most).take_while(fits).count();
        fresh.max(1)
    }

    /// Returns whether the queue is empty and no item will come.
    #[inline]
    fn is_drained(&self) -> bool {
        let is_empty = self.ready.is_empty() && self.delayed.is_empty() && self.waiting == 0;
        self.phase == Phase::Draining && is_empty && self.passed == 0
    }

    /// Notes that an item was passed on to a later stage.
    pub(super) fn pass(&mut self) {
        self.passed += 1;
    }

    /// Takes an item back from a later stage. Gives it back once everything is cut, because no worker takes
    /// it then.
    pub(super) fn come_back(&mut self, item: P) -> Result<(), P> {
        self.passed -= 1;
        if self.is_over {
            return Err(item);
        }
        self.returned.push_back(item);
        Ok(())
    }

    /// How many are in later stages.
    pub(super) fn passed(&self) -> usize {
        self.passed
    }

    /// Returns when a batch can be taken, or `None` if there are no items. An inner `None` means now.
    #[inline]
    fn full_at(&self) -> Option<Option<Instant>> {
        let first = self.ready.front()?;
        let is_full =
            self.ready.len() >= self.batch.size || self.weight >= u128::from(self.batch.weight);
        if is_full || self.phase == Phase::Draining {
            return Some(None);
        }
        // The order in `ready` is not that of the intake for keys that take turns.
        let oldest = self.ready.iter().map(Entry::taken_in).min();
        let oldest = oldest.unwrap_or_else(|| first.taken_in());
        // A time too far away never comes.
        let far = Duration::from_secs(365 * 24 * 3600);
        Some(Some(oldest + self.batch.longest.min(far)))
    }

    /// Puts an item aside until its retry. Gives it back if too many wait, so that its worker waits instead.
    pub(super) fn delay(&mut self, item: P, due: Instant) -> Result<(), P> {
        if self.phase == Phase::Cut || self.delayed.len() >= self.most_delayed {
            return Err(item);
        }
        self.delayed.push(Reverse(Delayed { due, item }));
        Ok(())
    }

    /// As [`delay`](Self::delay), without a maximum.
    pub(super) fn delay_anyway(&mut self, item: P, due: Instant) {
        self.delayed.push(Reverse(Delayed { due, item }));
    }

    /// Returns what waits, and since when.
    #[cfg(feature = "metrics")]
    pub(super) fn waits(&self) -> Waits {
        let waiting = self.keys.values().flat_map(|busy| &busy.waiting);
        let buffered = self.ready.iter().chain(waiting);
        let mut waits = Waits {
            buffered: 0,
            in_backoff: self.delayed.len(),
            oldest: None,
        };
        for item in buffered {
            waits.buffered += 1;
            let since = item.taken_in();
            waits.oldest = Some(waits.oldest.map_or(since, |oldest| oldest.min(since)));
        }
        waits
    }

    /// Returns whether more items can begin.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Returns whether a worker has to wait for a time on behalf of this queue.
    pub(super) fn has_timed(&self) -> bool {
        !self.delayed.is_empty() || (self.batch.size > 1 && !self.ready.is_empty())
    }

    /// Notes that an item of this key has ended, which makes the next one ready.
    pub(super) fn ended(&mut self, key: Key) {
        let Some(busy) = self.keys.get_mut(&key) else {
            return;
        };
        if busy.is_parked {
            return;
        }
        match busy.waiting.pop_front() {
            Some(next) => {
                self.waiting -= 1;
                self.make_ready(next);
            }
            None => {
                self.keys.remove(&key);
            }
        }
    }

    /// Lets no item of this key begin any longer.
    pub(super) fn park(&mut self, key: Key) {
        if let Some(busy) = self.keys.get_mut(&key) {
            if !busy.is_parked {
                busy.is_parked = true;
                self.waiting -= busy.waiting.len();
            }
        }
    }

    /// Moves the waiting items that match to `out`. A later item of a key takes the place of one that has
    /// left. Returns how many places in the buffer are free for it.
    pub(super) fn withdraw(&mut self, matches: impl Fn(&P) -> bool, out: &mut Vec<P>) -> usize {
        let first = out.len();
        for busy in self.keys.values_mut() {
            let before = out.len();
            let waiting = take(&mut busy.waiting).into_iter();
            let (left, kept) = waiting.partition::<Vec<_>, _>(&matches);
            out.extend(left);
            busy.waiting = kept.into();
            if !busy.is_parked {
                self.waiting -= out.len() - before;
            }
        }
        let buffered = out.len();
        let ready = take(&mut self.ready).into_iter();
        let (left, kept) = ready.partition::<Vec<_>, _>(&matches);
        out.extend(left);
        self.ready = kept.into();
        self.weight = self
            .ready
            .iter()
            .map(|item| u128::from(item.weight()))
            .sum();
        let places = out.len() - first;
        let delayed = take(&mut self.delayed).into_iter();
        let (left, kept): (Vec<_>, Vec<_>) =
            delayed.partition(|Reverse(delayed)| matches(&delayed.item));
        self.delayed = kept.into();
        out.extend(left.into_iter().map(|Reverse(delayed)| delayed.item));
        let keys: Vec<_> = out[buffered..].iter().filter_map(P::key).collect();
        keys.into_iter().for_each(|key| self.ended(key));
        places
    }

    /// Takes no more items in.
    pub(super) fn close(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining;
        }
    }

    /// Moves to `out` the items whose retry is not due before the deadline.
    pub(super) fn give_up_delayed(&mut self, deadline: Option<Instant>, out: &mut Vec<P>) {
        let is_in_time = |due| deadline.is_none_or(|deadline| due < deadline);
        let delayed = take(&mut self.delayed).into_iter();
        let (kept, given_up): (Vec<_>, Vec<_>) =
            delayed.partition(|Reverse(delayed)| is_in_time(delayed.due));
        self.delayed = kept.into();
        let given_up = given_up.into_iter().map(|Reverse(delayed)| delayed.item);
        for item in given_up {
            // The order of its key would be lost.
            if let Some(key) = item.key() {
                self.park(key);
            }
            out.push(item);
        }
    }

    /// Lets no item begin any longer, and moves all that wait to `out`.
    pub(super) fn cut(&mut self, out: &mut Vec<P>) {
        self.phase = Phase::Cut;
        self.waiting = 0;
        self.weight = 0;
        out.extend(self.ready.drain(..));
        let delayed = self.delayed.drain();
        out.extend(delayed.map(|Reverse(delayed)| delayed.item));
        out.extend(self.keys.drain().flat_map(|(_, busy)| busy.waiting));
    }

    /// As [`cut`](Self::cut). From now on, items that come back from later stages are too late.
    pub(super) fn end(&mut self, out: &mut Vec<P>) {
        self.cut(out);
        self.is_over = true;
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn is_cut(&self) -> bool {
        self.phase == Phase::Cut
    }
}

/// An item between two attempts, ordered by its time and then by the order of the intake.
#[derive(Debug)]
struct Delayed<P> {
    due: Instant,
    item: P,
}

impl<P: Entry> Ord for Delayed<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.item.seq()).cmp(&(other.due, other.item.seq()))
    }
}

impl<P: Entry> PartialOrd for Delayed<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P: Entry> PartialEq for Delayed<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P: Entry> Eq for Delayed<P> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Item(u64, Option<u64>, Instant);

    impl Entry for Item {
        fn seq(&self) -> u64 {
            self.0
        }

        fn key(&self) -> Option<Key> {
            self.1.and_then(Key::new)
        }

        fn taken_in(&self) -> Instant {
            self.2
        }

        fn weight(&self) -> u64 {
            self.0
        }
    }

    fn queue(batch: Batch, keys: &[Option<u64>], at: Instant) -> Queue<Item> {
        let mut queue = Queue::new(batch, 1);
        for (seq, key) in (0..).zip(keys) {
            let pushed = queue.push(Item(seq, *key, at));
            assert_eq!(pushed, Ok(()));
        }
        queue
    }

    fn key(key: u64) -> Key {
        Key::MIN | key
    }

    fn take(queue: &mut Queue<Item>, now: Instant) -> (Found, Vec<u64>) {
        let mut out = Vec::new();
        let found = queue.take(|| now, false, &mut out);
        (found, out.iter().map(Entry::seq).collect())
    }

    #[test]
    fn a_key_has_state_only_while_it_has_items() {
        let now = Instant::now();
        let mut queue = queue(Batch::ONE, &[Some(1), Some(1), Some(3)], now);
        assert_eq!((queue.keys.len(), queue.waiting), (2, 1));
        assert_eq!(take(&mut queue, now).1, [0]);
        assert_eq!(take(&mut queue, now).1, [2]);
        assert_eq!(take(&mut queue, now).0, Found::Wait(None));
        queue.ended(key(3));
        queue.ended(key(1));
        assert_eq!(take(&mut queue, now).1, [1]);
        queue.ended(key(1));
        assert_eq!((queue.keys.len(), queue.waiting), (0, 0));
    }

    #[test]
    fn a_batch_waits_for_its_number_or_its_time_and_not_at_the_stop() {
        let now = Instant::now();
        let longest = Duration::from_secs(5);
        let batch = Batch {
            size: 3,
            longest,
            weight: u64::MAX,
        };
        let mut queue = queue(batch, &[None; 5], now);
        assert_eq!(take(&mut queue, now).1, [0, 1, 2]);
        assert_eq!(take(&mut queue, now).0, Found::Wait(Some(now + longest)));
        queue.close();
        assert_eq!(take(&mut queue, now).1, [3, 4]);
        assert_eq!(take(&mut queue, now).0, Found::Over);
    }

    #[test]
    fn a_batch_is_full_by_weight_and_one_that_weighs_too_much_is_alone() {
        let now = Instant::now();
        let batch = Batch {
            size: 10,
            longest: Duration::from_secs(5),
            weight: 6,
        };
        // Each weighs as much as its number.
        let mut queue = queue(batch, &[None; 9], now);
        for expected in [&[0, 1, 2, 3][..], &[4], &[5], &[6], &[7], &[8]] {
            assert_eq!(take(&mut queue, now).1, expected);
        }
        assert_eq!(
            (take(&mut queue, now).0, queue.weight),
            (Found::Wait(None), 0)
        );
    }

    #[test]
    fn what_is_withdrawn_leaves_its_places_and_its_keys() {
        let now = Instant::now();
        let mut queue = queue(Batch::ONE, &[Some(1), Some(1), Some(1), None, Some(3)], now);
        let mut out = Vec::new();
        assert_eq!(queue.withdraw(|item| item.0 < 2, &mut out), 2);
        assert_eq!(out.len(), 2);
        assert_eq!((queue.keys.len(), queue.waiting), (2, 0));
        for expected in [3, 4, 2] {
            assert_eq!(take(&mut queue, now).1, [expected]);
        }
        queue.ended(key(1));
        queue.ended(key(3));
        assert_eq!(queue.keys.len(), 0);
    }

    #[test]
    fn what_is_due_again_comes_first_and_no_more_waits_than_there_is_room_for() {
        let now = Instant::now();
        let due = now + Duration::from_secs(1);
        let mut queue = queue(Batch::ONE, &[None], now);
        assert_eq!(queue.delay(Item(7, None, now), due), Ok(()));
        assert!(queue.delay(Item(8, None, now), due).is_err());
        queue.close();
        assert_eq!(take(&mut queue, due).1, [7]);
        assert_eq!(take(&mut queue, due).1, [0]);
        assert_eq!(take(&mut queue, due).0, Found::Over);
        assert!(queue.push(Item(9, None, now)).is_err());
    }

    #[test]
    fn what_is_in_a_later_stage_keeps_the_queue_from_being_over() {
        let now = Instant::now();
        let mut queue = queue(Batch::ONE, &[], now);
        queue.pass();
        queue.close();
        assert_eq!(take(&mut queue, now).0, Found::Wait(None));
        assert_eq!(queue.come_back(Item(0, None, now)), Ok(()));
        assert_eq!(take(&mut queue, now), (Found::Returned, vec![0]));
        assert_eq!(take(&mut queue, now).0, Found::Over);
    }
}
