//! What waits: the items that nobody has begun, those between two attempts, and those whose key is busy.
//!
//! Pure state, without a clock or a lock of its own.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// What the queue has to know of an item.
pub(super) trait Entry {
    /// Its place in the order of the intake.
    fn seq(&self) -> u64;

    /// Items of one key are worked on one at a time, in the order of the intake.
    fn key(&self) -> Option<u64>;

    /// When it was taken in.
    fn taken_in(&self) -> Instant;
}

/// How many items one worker takes at once, and how long the first of them may wait for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) size: usize,
    pub(super) longest: Duration,
}

impl Batch {
    /// One item at a time, at once.
    pub(super) const ONE: Self = Self {
        size: 1,
        longest: Duration::ZERO,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nothing comes in any longer, and what is there is worked off.
    Draining,
    /// Nothing begins any longer.
    Cut,
}

/// What a worker finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// So many items were taken that were waiting for their first attempt.
    Taken { fresh: usize },
    /// One item was taken that a later stage has given back.
    Returned,
    /// There is nothing to do before this time, if a time is known.
    Wait(Option<Instant>),
    /// There is nothing to do, and there will not be.
    Over,
}

/// What waits in a queue.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waits {
    pub(super) buffered: usize,
    pub(super) in_backoff: usize,
    /// Since when the oldest item waits that nobody has begun.
    pub(super) oldest: Option<Instant>,
}

/// The items of one key that has an item under way.
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
    delayed: BinaryHeap<Reverse<Delayed<P>>>,
    /// No more than these are put aside between two attempts.
    most_delayed: usize,
    keys: HashMap<u64, Busy<P>>,
    /// How many wait for their key, without those whose key is parked.
    waiting: usize,
    /// How many are in later stages.
    passed: usize,
    /// What has come back from later stages.
    returned: VecDeque<P>,
    /// Nobody looks at what comes back any longer.
    is_over: bool,
}

impl<P: Entry> Queue<P> {
    pub(super) fn new(batch: Batch, most_delayed: usize) -> Self {
        Self {
            batch,
            phase: Phase::Open,
            ready: VecDeque::new(),
            delayed: BinaryHeap::new(),
            most_delayed,
            keys: HashMap::new(),
            waiting: 0,
            passed: 0,
            returned: VecDeque::new(),
            is_over: false,
        }
    }

    /// Takes an item in. Gives it back if nothing comes in any longer.
    pub(super) fn push(&mut self, item: P) -> Result<(), P> {
        if self.phase != Phase::Open {
            return Err(item);
        }
        let Some(key) = item.key() else {
            self.ready.push_back(item);
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
                self.ready.push_back(item);
            }
        }
        Ok(())
    }

    /// Moves to `out` what is to be done now. What is due again comes before what never began.
    pub(super) fn take(&mut self, now: impl Fn() -> Instant, out: &mut Vec<P>) -> Found {
        if let Some(item) = self.returned.pop_front() {
            out.push(item);
            return Found::Returned;
        }
        if self.phase == Phase::Cut {
            // What comes back is still brought to its end.
            return match self.passed {
                0 => Found::Over,
                _ if self.is_over => Found::Over,
                _ => Found::Wait(None),
            };
        }
        let due = self.delayed.peek().map(|Reverse(first)| first.due);
        if due.is_some_and(|due| due <= now()) {
            out.extend(self.delayed.pop().map(|Reverse(first)| first.item));
            return Found::Taken { fresh: 0 };
        }
        match self.full_at() {
            Some(at) if at.is_none_or(|at| at <= now()) => {
                let fresh = self.ready.len().min(self.batch.size);
                match fresh {
                    1 => out.extend(self.ready.pop_front()),
                    _ => out.extend(self.ready.drain(..fresh)),
                }
                Found::Taken { fresh }
            }
            Some(at) => Found::Wait(at.into_iter().chain(due).min()),
            None if self.is_drained() => Found::Over,
            None => Found::Wait(due),
        }
    }

    /// Whether nothing is left, and nothing will come.
    fn is_drained(&self) -> bool {
        let is_empty = self.ready.is_empty() && self.delayed.is_empty() && self.waiting == 0;
        self.phase == Phase::Draining && is_empty && self.passed == 0
    }

    /// An item has been passed on to a later stage.
    pub(super) fn pass(&mut self) {
        self.passed += 1;
    }

    /// An item comes back from a later stage. Nobody looks at it any longer once everything is cut.
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

    /// When there is a batch to be taken, if there is anything: now, if there is no time.
    fn full_at(&self) -> Option<Option<Instant>> {
        let first = self.ready.front()?;
        let is_full = self.ready.len() >= self.batch.size;
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

    /// Puts an item aside until it is tried again. Gives it back if too many are: its worker waits then.
    pub(super) fn delay(&mut self, item: P, due: Instant) -> Result<(), P> {
        if self.phase == Phase::Cut || self.delayed.len() >= self.most_delayed {
            return Err(item);
        }
        self.delayed.push(Reverse(Delayed { due, item }));
        Ok(())
    }

    /// As [`delay`](Self::delay), however many there are.
    pub(super) fn delay_anyway(&mut self, item: P, due: Instant) {
        self.delayed.push(Reverse(Delayed { due, item }));
    }

    /// What waits, and since when.
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

    /// Whether there is more to be begun.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether somebody has to keep the time for what is here.
    pub(super) fn has_timed(&self) -> bool {
        !self.delayed.is_empty() || (self.batch.size > 1 && !self.ready.is_empty())
    }

    /// An item of this key has had its end: the next one is ready.
    pub(super) fn ended(&mut self, key: u64) {
        let Some(busy) = self.keys.get_mut(&key) else {
            return;
        };
        if busy.is_parked {
            return;
        }
        match busy.waiting.pop_front() {
            Some(next) => {
                self.waiting -= 1;
                self.ready.push_back(next);
            }
            None => {
                self.keys.remove(&key);
            }
        }
    }

    /// Nothing of this key begins any longer.
    pub(super) fn park(&mut self, key: u64) {
        if let Some(busy) = self.keys.get_mut(&key) {
            if !busy.is_parked {
                busy.is_parked = true;
                self.waiting -= busy.waiting.len();
            }
        }
    }

    /// Lets nothing in any longer.
    pub(super) fn close(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining;
        }
    }

    /// Moves to `out` what is not due again before the deadline.
    pub(super) fn give_up_delayed(&mut self, deadline: Option<Instant>, out: &mut Vec<P>) {
        let is_in_time = |due| deadline.is_none_or(|deadline| due < deadline);
        let delayed = std::mem::take(&mut self.delayed).into_iter();
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

    /// Lets nothing begin any longer, and moves all that waits to `out`.
    pub(super) fn cut(&mut self, out: &mut Vec<P>) {
        self.phase = Phase::Cut;
        self.waiting = 0;
        out.extend(self.ready.drain(..));
        let delayed = self.delayed.drain();
        out.extend(delayed.map(|Reverse(delayed)| delayed.item));
        out.extend(self.keys.drain().flat_map(|(_, busy)| busy.waiting));
    }

    /// As [`cut`](Self::cut), and what comes back from later stages is too late from now on.
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

/// An item between two attempts. The order is that of the times, then that of the intake.
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

        fn key(&self) -> Option<u64> {
            self.1
        }

        fn taken_in(&self) -> Instant {
            self.2
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

    fn take(queue: &mut Queue<Item>, now: Instant) -> (Found, Vec<u64>) {
        let mut out = Vec::new();
        let found = queue.take(|| now, &mut out);
        (found, out.iter().map(Entry::seq).collect())
    }

    #[test]
    fn a_key_has_state_only_while_it_has_items() {
        let now = Instant::now();
        let mut queue = queue(Batch::ONE, &[Some(1), Some(1), Some(2)], now);
        assert_eq!((queue.keys.len(), queue.waiting), (2, 1));
        assert_eq!(take(&mut queue, now).1, [0]);
        assert_eq!(take(&mut queue, now).1, [2]);
        assert_eq!(take(&mut queue, now).0, Found::Wait(None));
        queue.ended(2);
        queue.ended(1);
        assert_eq!(take(&mut queue, now).1, [1]);
        queue.ended(1);
        assert_eq!((queue.keys.len(), queue.waiting), (0, 0));
    }

    #[test]
    fn a_batch_waits_for_its_number_or_its_time_and_not_at_the_stop() {
        let now = Instant::now();
        let longest = Duration::from_secs(5);
        let batch = Batch { size: 3, longest };
        let mut queue = queue(batch, &[None; 5], now);
        assert_eq!(take(&mut queue, now).1, [0, 1, 2]);
        assert_eq!(take(&mut queue, now).0, Found::Wait(Some(now + longest)));
        queue.close();
        assert_eq!(take(&mut queue, now).1, [3, 4]);
        assert_eq!(take(&mut queue, now).0, Found::Over);
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
