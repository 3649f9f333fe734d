//! [`Room`]: the free places in the buffer.

/// The free places in the buffer of a pool. Pure state.
///
/// A caller that finds no free place waits at a semaphore, and gets its place there. So callers that wait are
/// served first come, first served, and those that need not wait never touch the semaphore.
#[derive(Debug)]
pub(super) struct Room {
    free: usize,
    /// How many callers wait.
    waiting: usize,
    /// How many places are at the semaphore. A caller that has left may have left its place there.
    lent: usize,
}

impl Room {
    pub(super) fn new(places: usize) -> Self {
        Self {
            free: places,
            waiting: 0,
            lent: 0,
        }
    }

    /// Takes a free place, or one that a caller has left behind, which `lent` takes from the semaphore.
    #[inline]
    pub(super) fn take(&mut self, lent: impl FnOnce() -> bool) -> bool {
        if self.free > 0 {
            self.free -= 1;
            return true;
        }
        let has_lent = self.lent > self.waiting && lent();
        self.lent -= usize::from(has_lent);
        has_lent
    }

    /// Returns how many places are free at once.
    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// Notes that a caller waits, since no place was free.
    pub(super) fn wait(&mut self) {
        self.waiting += 1;
    }

    /// Notes that a caller no longer waits, and whether it has taken its place.
    pub(super) fn waited(&mut self, has_place: bool) {
        self.waiting -= 1;
        self.lent -= usize::from(has_place);
    }

    /// Frees places. Returns how many of them the semaphore has to lend to callers that wait.
    #[must_use]
    #[inline]
    pub(super) fn give(&mut self, places: usize) -> usize {
        let owed = self.waiting.saturating_sub(self.lent).min(places);
        self.lent += owed;
        self.free += places - owed;
        owed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_goes_to_the_callers_that_wait_and_is_not_lost_if_one_leaves() {
        let mut room = Room::new(1);
        assert!(room.take(|| false));
        assert!(!room.take(|| true), "nothing is lent");
        room.wait();
        room.wait();
        assert_eq!(room.give(3), 2);
        assert_eq!(room.free(), 1);
        // One caller leaves without its place.
        room.waited(true);
        room.waited(false);
        assert!(room.take(|| false), "the free one");
        assert!(room.take(|| true), "the one that was left");
        assert!(!room.take(|| true));
        assert_eq!(room.give(1), 0);
        assert_eq!(room.free(), 1);
    }
}
