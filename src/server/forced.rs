//! A forced exit, and what it does first because no destructor will run.
//!
//! Invariants:
//!
//! 1. Whatever outlives the process takes its [`Seat`] before it exists and fills it right after. A forced exit
//!    waits for a seat that is not filled yet, so nothing slips between the two.
//! 2. Once a forced exit has begun, no more seats are given.
//! 3. The lock is held only to look at the list. No method of an [`Undo`] is called under it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::group::lock;

/// How long a forced exit waits for what it has told.
pub(crate) const TELLING: Duration = Duration::from_millis(500);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(5);

/// Something that outlives the process, and that a destructor ends or gives back.
///
/// The methods are called on a thread of the forced exit and must not block.
pub(crate) trait Undo: Send + Sync {
    /// Asks it to end by itself. Called once.
    fn tell(&self) {}

    /// Returns whether there is nothing to wait for.
    fn is_over(&self) -> bool {
        true
    }

    /// Ends it, or gives it back.
    fn undo(&self);
}

/// A place in the list of what a forced exit undoes. Dropping it gives the place up.
#[derive(Debug)]
pub(crate) struct Seat {
    id: u64,
}

struct List {
    next: u64,
    /// A forced exit has begun.
    closed: bool,
    seats: Vec<(u64, Option<Left>)>,
}

/// Something that is left behind unless it is undone.
#[derive(Clone)]
struct Left {
    name: Option<Arc<str>>,
    undo: Arc<dyn Undo>,
}

static LIST: Mutex<List> = Mutex::new(List {
    next: 0,
    closed: false,
    seats: Vec::new(),
});

impl Seat {
    /// Takes a place, or returns `None` if a forced exit has begun.
    pub(crate) fn take() -> Option<Self> {
        let mut list = lock();
        if list.closed {
            return None;
        }
        let id = list.next;
        list.next += 1;
        list.seats.push((id, None));
        Some(Self { id })
    }

    /// Sets what is to be undone, and its name in a report if it ends with the process.
    pub(crate) fn fill(&self, name: Option<&str>, undo: Arc<dyn Undo>) {
        let mut list = lock();
        if let Some(seat) = list.seats.iter_mut().find(|(id, _)| *id == self.id) {
            let name = name.map(Arc::from);
            seat.1 = Some(Left { name, undo });
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut list = lock();
        if let Some(at) = list.seats.iter().position(|(id, _)| *id == self.id) {
            let seat = list.seats.swap_remove(at);
            drop(list);
            drop(seat);
        }
    }
}

/// Begins a forced exit. From here on no seat is given.
#[cfg(feature = "signal")]
pub(crate) fn begin() {
    lock().closed = true;
}

/// Returns whether a forced exit has begun.
pub(crate) fn has_begun() -> bool {
    lock().closed
}

/// Waits for the end of the process if a forced exit has begun. A server that ends because the exit has told or
/// killed it must not change the exit status.
pub(crate) fn give_way() {
    if has_begun() {
        thread::sleep(2 * TELLING);
    }
}

/// Tells whatever outlives the process, waits until that is over, and undoes what is left. The wait ends after
/// `limit` or with `hurry`. Without anything to undo it returns at once.
pub(crate) fn undo_all(limit: Duration, mut hurry: impl FnMut() -> bool) {
    // A moment that the clock cannot express never comes.
    let deadline = Instant::now().checked_add(limit);
    let mut told = Vec::new();
    while !look(&mut told) && !hurry() && deadline.is_none_or(|deadline| Instant::now() < deadline)
    {
        thread::sleep(LOOK);
    }
    left().iter().for_each(|left| left.undo.undo());
}

/// Returns the names of all that a forced exit will end with the process.
#[cfg(feature = "signal")]
pub(crate) fn names() -> Vec<Arc<str>> {
    left().into_iter().filter_map(|left| left.name).collect()
}

fn left() -> Vec<Left> {
    let list = lock();
    let left = list.seats.iter().filter_map(|(_, left)| left.clone());
    left.collect()
}

/// Tells those that were not told yet, and returns whether all are over.
fn look(told: &mut Vec<u64>) -> bool {
    let seats = lock().seats.clone();
    let mut over = true;
    for (id, left) in seats {
        let Some(Left { undo, .. }) = left else {
            over = false;
            continue;
        };
        if !undo.is_over() && !told.contains(&id) {
            undo.tell();
            told.push(id);
        }
        over &= undo.is_over();
    }
    over
}

fn lock() -> MutexGuard<'static, List> {
    lock::lock(&LIST)
}

/// Ends the process for good, without destructors and without the functions registered with `atexit`.
#[cfg(all(feature = "signal", unix))]
pub(crate) fn end(status: u8) {
    signal_hook::low_level::exit(i32::from(status));
}

/// How long an orderly exit may take without a forced one.
#[cfg(all(feature = "signal", not(unix)))]
const EXITING: Duration = Duration::from_millis(200);

/// Ends the process for good.
#[cfg(all(feature = "signal", not(unix)))]
pub(crate) fn end(status: u8) {
    // If no thread can be started for it, it aborts.
    let _ = crate::group::log::bounded::within(EXITING, status, |status| {
        std::process::exit(i32::from(status))
    });
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;

    #[derive(Default)]
    struct Deaf {
        told: AtomicUsize,
        undone: AtomicUsize,
    }

    impl Undo for Deaf {
        fn tell(&self) {
            self.told.fetch_add(1, SeqCst);
        }

        fn is_over(&self) -> bool {
            false
        }

        fn undo(&self) {
            self.undone.fetch_add(1, SeqCst);
        }
    }

    /// One test, because the list is global.
    #[test]
    fn what_is_left_is_told_once_and_undone_when_there_is_a_hurry() {
        let deaf = Arc::new(Deaf::default());
        let seat = Seat::take().unwrap();
        let mut looks = 0;
        undo_all(Duration::MAX, || {
            looks += 1;
            match looks {
                // It has a seat and does not exist yet, so the exit waits for it.
                1 => assert_eq!(deaf.told.load(SeqCst), 0),
                2 => seat.fill(Some("deaf"), Arc::clone(&deaf) as Arc<dyn Undo>),
                _ => {}
            }
            looks == 5
        });
        assert_eq!(deaf.told.load(SeqCst), 1);
        assert_eq!(deaf.undone.load(SeqCst), 1);

        drop(seat);
        undo_all(Duration::MAX, || {
            unreachable!("there is nothing to wait for")
        });
        assert_eq!(deaf.undone.load(SeqCst), 1);
    }
}
