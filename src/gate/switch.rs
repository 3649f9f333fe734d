//! [`Switch`]: is fired once, and reaches all that is pending on it.
//!
//! A connection has two. Its handlers and bodies are raced with the one, its stream with the other.
//!
//! Invariants:
//!
//! 1. Firing sets the flag, then takes the lock. Who is pending takes the lock to leave a waker, then
//!    looks at the flag. So who came too late to be woken sees the flag: no firing is lost.
//! 2. A seat that holds the waker it left does not take the lock again. That waker is in its place,
//!    or has been woken after the flag was set, and then the next poll sees the flag.
//! 3. A waker is cloned, woken and dropped outside the lock; it may run anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// Each waker is left with a `T` that says what it is.
#[derive(Debug)]
pub(super) struct Switch<T> {
    fired: AtomicBool,
    places: Mutex<Places<T>>,
}

#[derive(Debug)]
struct Places<T> {
    places: Vec<Option<Place<T>>>,
    free: Vec<usize>,
}

/// It outlives its waker, which is taken when the switch is fired.
#[derive(Debug)]
struct Place<T> {
    waker: Option<Waker>,
    what: T,
}

/// Where one future has left its waker.
#[derive(Debug, Default)]
pub(super) struct Seat {
    index: Option<usize>,
    waker: Option<Waker>,
}

impl<T> Switch<T> {
    pub(super) fn new() -> Self {
        Self {
            fired: AtomicBool::new(false),
            places: Mutex::new(Places {
                places: Vec::new(),
                free: Vec::new(),
            }),
        }
    }

    /// Relaxed is enough, by invariants 1 and 2.
    pub(super) fn is_fired(&self) -> bool {
        self.fired.load(Ordering::Relaxed)
    }

    pub(super) fn fire(&self) {
        self.fired.store(true, Ordering::Relaxed);
        let wakers = self.lock().take_wakers();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Leaves the waker of the current task, if it is not there yet, and returns whether the switch
    /// has been fired.
    pub(super) fn watch(
        &self,
        seat: &mut Seat,
        cx: &Context<'_>,
        what: impl FnOnce() -> T,
    ) -> bool {
        let waker = cx.waker();
        if !seat
            .waker
            .as_ref()
            .is_some_and(|left| left.will_wake(waker))
        {
            let (left, kept) = (waker.clone(), waker.clone());
            let before = match seat.index {
                Some(index) => self.lock().replace(index, left),
                None => {
                    seat.index = Some(self.lock().insert(left, what()));
                    None
                }
            };
            drop(before);
            seat.waker = Some(kept);
        }
        self.is_fired()
    }

    pub(super) fn leave(&self, seat: &mut Seat) {
        if let Some(index) = seat.index.take() {
            let place = self.lock().remove(index);
            drop(place);
        }
        seat.waker = None;
    }

    /// Returns what was told of each that is pending.
    pub(super) fn pending<R>(&self, read: impl FnMut(&T) -> R) -> Vec<R> {
        let places = self.lock();
        let taken = places.places.iter().flatten();
        taken.map(|place| &place.what).map(read).collect()
    }

    /// Nothing that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, Places<T>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Places<T> {
    fn insert(&mut self, waker: Waker, what: T) -> usize {
        let place = Place {
            waker: Some(waker),
            what,
        };
        if let Some(index) = self.free.pop() {
            self.places[index] = Some(place);
            return index;
        }
        self.places.push(Some(place));
        self.places.len() - 1
    }

    fn replace(&mut self, index: usize, waker: Waker) -> Option<Waker> {
        let place = self.places[index].as_mut()?;
        place.waker.replace(waker)
    }

    fn remove(&mut self, index: usize) -> Option<Place<T>> {
        self.free.push(index);
        self.places[index].take()
    }

    fn take_wakers(&mut self) -> Vec<Waker> {
        let taken = self.places.iter_mut().flatten();
        taken.filter_map(|place| place.waker.take()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counted() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn firing_wakes_each_that_is_pending_once() {
        let switch = Switch::new();
        let (count, waker) = counted();
        let cx = Context::from_waker(&waker);
        let mut seats = [Seat::default(), Seat::default()];
        for seat in &mut seats {
            assert!(!switch.watch(seat, &cx, || ()));
            assert!(!switch.watch(seat, &cx, || ()));
        }

        switch.fire();
        switch.fire();

        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(switch.watch(&mut seats[0], &cx, || ()));
    }

    #[test]
    fn who_comes_after_the_firing_sees_it() {
        let switch = Switch::new();
        switch.fire();

        let cx = Context::from_waker(Waker::noop());
        assert!(switch.watch(&mut Seat::default(), &cx, || ()));
    }

    #[test]
    fn a_task_that_moved_is_woken_by_its_last_waker_only() {
        let switch = Switch::new();
        let (first, first_waker) = counted();
        let (last, last_waker) = counted();
        let mut seat = Seat::default();
        switch.watch(&mut seat, &Context::from_waker(&first_waker), || ());
        switch.watch(&mut seat, &Context::from_waker(&last_waker), || ());

        switch.fire();

        assert_eq!(first.0.load(Ordering::Relaxed), 0);
        assert_eq!(last.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn who_has_left_is_not_woken_and_its_place_is_taken_again() {
        let switch = Switch::new();
        let (count, waker) = counted();
        let cx = Context::from_waker(&waker);
        let mut seat = Seat::default();
        switch.watch(&mut seat, &cx, || "first");
        switch.leave(&mut seat);
        assert!(switch.pending(|what| *what).is_empty());
        switch.watch(&mut seat, &cx, || "second");

        assert_eq!(switch.pending(|what| *what), ["second"]);
        assert_eq!(seat.index, Some(0));
        switch.leave(&mut seat);
        switch.fire();
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }
}
