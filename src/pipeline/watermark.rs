//! [`Watermark`]: the offset up to which a partition may be committed.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::group::build_error::BuildError;
use crate::group::deadline;
use crate::group::lock::Lock;
use crate::group::log;

/// Tracks up to where each partition of a log may be committed, while its items are worked on in any order.
///
/// Each item is [taken in](Self::take_in) with its offset, in the order of its partition, and gets a
/// [`Mark`], which is its [`Receipt`](super::Receipt) or a part of it. The [next offset](Self::next) of a partition moves
/// past the items that were acknowledged, and stops at the first one that was not. It never goes back.
/// Offsets may have gaps, because only those that were taken in count.
///
/// A clone is another handle on the same watermark.
///
/// # Examples
///
/// ```
/// use taskgroup::pipeline::{Receipt, Watermark};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let watermark = Watermark::new("orders", 1000)?;
/// let first = watermark.take_in("p0", 7).await;
/// let second = watermark.take_in("p0", 9).await; // there is no 8
///
/// second.ack().await?;
/// assert_eq!(watermark.next(&"p0"), None, "held by 7");
/// first.ack().await?;
/// assert_eq!(watermark.next(&"p0"), Some(10));
/// # Ok(())
/// # }
/// ```
pub struct Watermark<P> {
    shared: Arc<Shared<P>>,
}

struct Shared<P> {
    name: String,
    most: usize,
    partitions: Lock<HashMap<P, Arc<Partition>>>,
    late: Arc<AtomicUsize>,
    /// The pools that hold items of it.
    pools: Lock<Vec<Weak<dyn Holds>>>,
}

/// A pool that holds items with marks.
pub(super) trait Holds: Send + Sync {
    /// Hands back the items of this assignment of a partition that no worker has.
    fn withdraw(&self, assignment: u64);
}

/// A watermark of partitions of any type.
pub(super) trait Watched: Send + Sync {
    /// Tells the pool when a partition is revoked.
    fn attach(&self, pool: Weak<dyn Holds>);

    /// Returns the most items that a partition has open.
    #[cfg(feature = "metrics")]
    fn lag(&self) -> usize;
}

/// One partition, from its assignment to its revocation.
struct Partition {
    /// Its number among all assignments of the process.
    assignment: u64,
    state: Lock<Offsets>,
    changed: Notify,
    late: Arc<AtomicUsize>,
}

/// The offsets of one partition in the order of the intake. Pure state.
#[derive(Debug, Default)]
struct Offsets {
    /// The first entry is not done.
    open: VecDeque<Entry>,
    /// How many entries were removed.
    gone: u64,
    next: Option<u64>,
    /// How many items are under way.
    running: usize,
    /// Whether no item may begin any longer.
    is_revoked: bool,
    /// Whether acknowledgements no longer count.
    is_over: bool,
}

#[derive(Debug)]
struct Entry {
    offset: u64,
    is_done: bool,
}

impl Offsets {
    /// Returns the place of the offset, which is what [`done`](Self::done) takes.
    fn take_in(&mut self, offset: u64) -> u64 {
        let place = self.gone + self.open.len() as u64;
        self.open.push_back(Entry {
            offset,
            is_done: false,
        });
        place
    }

    /// Moves the watermark if it can. Returns whether it has moved.
    fn done(&mut self, place: u64) -> bool {
        let index = place.checked_sub(self.gone);
        let index = index.and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.open.get_mut(index)) {
            entry.is_done = true;
        }
        let mut next = None;
        while self.open.front().is_some_and(|first| first.is_done) {
            let first = self.open.pop_front();
            self.gone += 1;
            next = first.map(|first| first.offset.saturating_add(1));
        }
        if next.is_some() {
            // No item will come between two offsets.
            let held = self.open.front().map(|first| first.offset);
            self.next = self.next.max(held.or(next));
        }
        next.is_some()
    }
}

/// Stands for one item of a [`Watermark`]. It is the item's [`Receipt`](super::Receipt), or a part of it.
///
/// A receipt that contains a mark returns it from [`mark`](super::Receipt::mark), and calls the `ack` of the
/// mark in its own. A mark that is dropped without an acknowledgement holds the watermark. A clone is another handle on
/// the same mark.
#[derive(Clone)]
pub struct Mark {
    inner: Arc<Inner>,
}

struct Inner {
    partition: Arc<Partition>,
    place: u64,
    offset: u64,
    is_running: AtomicBool,
}

/// The state of a partition when it was [revoked](Watermark::revoke).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    next: Option<u64>,
    still_running: usize,
}

impl Revoked {
    /// Returns the offset to commit, which is the next one to read. Returns `None` if the watermark has not
    /// moved.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// Returns how many items were still under way at the deadline. Their later ends are ignored.
    #[must_use]
    pub fn still_running(&self) -> usize {
        self.still_running
    }
}

impl<P: Eq + Hash + Clone> Watermark<P> {
    /// Makes a watermark that lets at most `most` items of a partition be open. An item is open from its
    /// intake until the watermark passes it.
    ///
    /// # Errors
    ///
    /// `most` is 0, or the name is empty.
    pub fn new(name: impl Into<String>, most: usize) -> Result<Self, BuildError> {
        let name = name.into();
        if name.is_empty() {
            return Err(BuildError::empty_name("a watermark"));
        }
        if most == 0 {
            let what = format!("watermark `{name}`");
            return Err(BuildError::new(
                what,
                "most",
                "0",
                "no item could be taken in",
            ));
        }
        Ok(Self {
            shared: Arc::new(Shared {
                name,
                most,
                partitions: Lock::default(),
                late: Arc::default(),
                pools: Lock::default(),
            }),
        })
    }

    /// Takes an item in, in the order of its partition. Waits while too many items of the partition are open.
    ///
    /// A wait is logged as a warning that names the offset that holds the watermark. A source that must not
    /// wait for one partition checks [`is_full`](Self::is_full) first, and pauses that partition.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes no item in.
    pub async fn take_in(&self, partition: P, offset: u64) -> Mark {
        let mut is_told = false;
        loop {
            let assigned = self.partition(partition.clone());
            let mut changed = pin!(assigned.changed.notified());
            changed.as_mut().enable();
            let held = {
                let mut state = assigned.state.lock();
                if state.open.len() < self.shared.most && !state.is_revoked {
                    let place = state.take_in(offset);
                    drop(state);
                    return Mark::new(&assigned, place, offset);
                }
                state.open.front().map(|first| first.offset)
            };
            if !is_told {
                is_told = true;
                log::guarded(|| {
                    let watermark = &*self.shared.name;
                    tracing::warn!(target: "taskgroup", watermark, offset, held, "the watermark is held, and its partition waits");
                });
            }
            changed.await;
        }
    }

    /// Returns whether [`take_in`](Self::take_in) would wait.
    #[must_use]
    pub fn is_full(&self, partition: &P) -> bool {
        let assigned = self.find(partition);
        assigned.is_some_and(|assigned| assigned.state.lock().open.len() >= self.shared.most)
    }

    /// Returns the next offset to read, which is the one to commit. Returns `None` until the watermark has
    /// moved.
    #[must_use]
    pub fn next(&self, partition: &P) -> Option<u64> {
        self.find(partition)?.state.lock().next
    }

    /// Returns how many items of the partition are open.
    #[must_use]
    pub fn open(&self, partition: &P) -> usize {
        let assigned = self.find(partition);
        assigned.map_or(0, |assigned| assigned.state.lock().open.len())
    }

    /// Returns the next offset of each partition whose watermark has moved, to commit them all.
    #[must_use]
    pub fn all(&self) -> Vec<(P, u64)> {
        let partitions = self.shared.partitions.lock();
        let next = |(partition, assigned): (&P, &Arc<Partition>)| {
            Some((partition.clone(), assigned.state.lock().next?))
        };
        partitions.iter().filter_map(next).collect()
    }

    /// Stops one partition. None of its items begins any longer, and those under way have until the deadline.
    ///
    /// Commit the offset that it returns, and give the partition up. A pool that
    /// [has the watermark](super::Workers::watermark) hands the buffered items and those in backoff back at once,
    /// in the order of the intake. Another pool hands them back when its workers get to them. A later acknowledgement counts as [late](Self::late), and does not
    /// move the watermark, even in a new assignment of the partition, which begins with the next item that is
    /// taken in.
    ///
    /// # Cancel safety
    ///
    /// The first poll revokes the partition. Dropping the future then only ends the wait.
    pub async fn revoke(&self, partition: &P, deadline: Instant) -> Revoked {
        let assigned = self.shared.partitions.lock().remove(partition);
        let Some(assigned) = assigned else {
            return Revoked {
                next: None,
                still_running: 0,
            };
        };
        assigned.state.lock().is_revoked = true;
        assigned.changed.notify_waiters();
        let pools = self.shared.pools.lock().clone();
        let pools = pools.iter().filter_map(Weak::upgrade);
        pools.for_each(|pool| pool.withdraw(assigned.assignment));
        let drained = async {
            loop {
                let mut changed = pin!(assigned.changed.notified());
                changed.as_mut().enable();
                if assigned.state.lock().running == 0 {
                    return;
                }
                changed.await;
            }
        };
        let _ = deadline::until(drained, sleep_until(deadline)).await;
        let mut state = assigned.state.lock();
        state.is_over = true;
        let next = state.next;
        Revoked {
            next,
            still_running: state.running,
        }
    }

    /// Returns how many items were acknowledged after their partition had been given up.
    #[must_use]
    pub fn late(&self) -> usize {
        self.shared.late.load(Ordering::Relaxed)
    }

    fn find(&self, partition: &P) -> Option<Arc<Partition>> {
        self.shared.partitions.lock().get(partition).cloned()
    }

    fn partition(&self, partition: P) -> Arc<Partition> {
        let mut partitions = self.shared.partitions.lock();
        let assigned = partitions.entry(partition);
        static ASSIGNMENTS: AtomicU64 = AtomicU64::new(0);
        let new = || {
            Arc::new(Partition {
                assignment: ASSIGNMENTS.fetch_add(1, Ordering::Relaxed),
                state: Lock::default(),
                changed: Notify::new(),
                late: Arc::clone(&self.shared.late),
            })
        };
        Arc::clone(assigned.or_insert_with(new))
    }
}

impl Mark {
    fn new(partition: &Arc<Partition>, place: u64, offset: u64) -> Self {
        Self {
            inner: Arc::new(Inner {
                partition: Arc::clone(partition),
                place,
                offset,
                is_running: AtomicBool::new(false),
            }),
        }
    }

    /// Returns the offset of the item.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.inner.offset
    }

    /// Returns the number of the assignment of its partition.
    pub(super) fn assignment(&self) -> u64 {
        self.inner.partition.assignment
    }

    /// Notes that an attempt begins, unless the partition was revoked, and returns whether it may.
    ///
    /// A pool calls this before each attempt. The item is under way until it is acknowledged, or until the
    /// last handle on the mark is dropped.
    #[must_use]
    pub fn begin(&self) -> bool {
        let mut state = self.inner.partition.state.lock();
        if state.is_revoked {
            return false;
        }
        if !self.inner.is_running.swap(true, Ordering::Relaxed) {
            state.running += 1;
        }
        true
    }

    /// Notes that the item is not under way any longer.
    pub(super) fn ended(&self) {
        self.inner.ended();
    }

    /// Moves the watermark if it can.
    pub(super) fn acknowledge(&self) {
        let partition = &self.inner.partition;
        let mut state = partition.state.lock();
        if state.is_over {
            partition.late.fetch_add(1, Ordering::Relaxed);
        } else {
            state.done(self.inner.place);
        }
        drop(state);
        self.inner.ended();
    }
}

impl<P: Eq + Hash + Clone + Send + 'static> Watched for Watermark<P> {
    fn attach(&self, pool: Weak<dyn Holds>) {
        let mut pools = self.shared.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(pool);
    }

    #[cfg(feature = "metrics")]
    fn lag(&self) -> usize {
        let partitions = self.shared.partitions.lock();
        let open = partitions
            .values()
            .map(|assigned| assigned.state.lock().open.len());
        open.max().unwrap_or_default()
    }
}

impl Inner {
    fn ended(&self) {
        let mut state = self.partition.state.lock();
        if self.is_running.swap(false, Ordering::Relaxed) {
            state.running -= 1;
        }
        drop(state);
        self.partition.changed.notify_waiters();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ended();
    }
}

impl<P> Clone for Watermark<P> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<P> fmt::Debug for Watermark<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watermark")
            .field("name", &self.shared.name)
            .field("most", &self.shared.most)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mark")
            .field("offset", &self.inner.offset)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The next offset is the first that is not done, or the one after the last. It never goes back.
        #[test]
        fn the_watermark_is_the_first_offset_that_is_not_done(
            gaps in prop::collection::vec(1..5u64, 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 1..60),
        ) {
            let mut offsets = Offsets::default();
            let taken: Vec<_> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let places: Vec<_> = taken.iter().map(|offset| offsets.take_in(*offset)).collect();
            let mut done = vec![false; taken.len()];
            let mut before = None;
            for index in order {
                let index = index.index(taken.len());
                done[index] = true;
                offsets.done(places[index]);
                let first_open = done.iter().position(|done| !done);
                let expected = match first_open {
                    Some(0) => None,
                    Some(open) => Some(taken[open]),
                    None => taken.last().map(|last| last + 1),
                };
                prop_assert_eq!(offsets.next, expected);
                prop_assert!(offsets.next >= before);
                before = offsets.next;
            }
        }
    }
}
