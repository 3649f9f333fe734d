//! [`Switch`]: fires once, and reaches every task that is pending on it.
//!
//! A connection has two. One is raced with its handlers and bodies, the other with its stream. A server has two,
//! which tell its handlers and its connections of the stop.
//!
//! Invariants:
//!
//! 1. Firing sets the flag, then takes the lock, once or many times. A pending task takes the lock to leave a waker, then reads the
//!    flag. So a task that was too late to be woken sees the flag, and no firing is lost.
//! 2. A seat that holds the waker it left does not take the lock again. That waker is either in its place, or
//!    was woken after the flag was set, and then the next poll sees the flag.
//! 3. A waker is cloned, woken and dropped outside the lock, because it may run any code.

use std::task::{Context, Waker};

use super::sync::{AtomicBool, Lock, Ordering};

/// Each waker comes with a `T` that describes it.
#[derive(Debug)]
pub(crate) struct Switch<T> {
    fired: AtomicBool,
    places: Lock<Places<T>>,
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

/// Where one future has left its waker, if it has.
#[derive(Debug, Default)]
pub(crate) struct Seat(Option<Taken>);

#[derive(Debug)]
struct Taken {
    index: usize,
    /// A clone of the waker that was left.
    waker: Waker,
}

impl<T> Switch<T> {
    pub(crate) fn new() -> Self {
        Self {
            fired: AtomicBool::new(false),
            places: Lock::new(Places {
                places: Vec::new(),
                free: Vec::new(),
            }),
        }
    }

    /// Relaxed is enough, by invariants 1 and 2.
    #[inline]
    pub(crate) fn is_fired(&self) -> bool {
        self.fired.load(Ordering::Relaxed)
    }

    /// Sets the flag, and wakes every task that is pending.
    pub(crate) fn fire(&self) {
        self.raise();
        let mut next = Some(0);
        while let Some(from) = next {
            next = self.wake(from, usize::MAX);
        }
    }

    /// Sets the flag. [`wake`](Self::wake) must follow, for all places.
    ///
    /// Release is for a task that reads with an acquire fence what was written before the firing.
    pub(crate) fn raise(&self) {
        self.fired.store(true, Ordering::Release);
    }

    /// Wakes the tasks in so many of the places, and returns the first of the rest.
    pub(crate) fn wake(&self, from: usize, places: usize) -> Option<usize> {
        let (wakers, rest) = self.places.lock().take_wakers(from, places);
        wakers.into_iter().for_each(Waker::wake);
        rest
    }

    /// Leaves the waker of the current task, if it is not there yet, and returns whether the switch
    /// has been fired.
    #[inline]
    pub(crate) fn watch(
        &self,
        seat: &mut Seat,
        cx: &Context<'_>,
        what: impl FnOnce() -> T,
    ) -> bool {
        let taken = seat.0.as_ref();
        if !taken.is_some_and(|taken| taken.waker.will_wake(cx.waker())) {
            self.sit_down(seat, cx.waker(), what);
        }
        self.is_fired()
    }

    #[cold]
    fn sit_down(&self, seat: &mut Seat, waker: &Waker, what: impl FnOnce() -> T) {
        let (left, waker) = (waker.clone(), waker.clone());
        let (index, before) = match &seat.0 {
            Some(taken) => (taken.index, self.places.lock().replace(taken.index, left)),
            None => (self.places.lock().insert(left, what()), None),
        };
        drop(before);
        seat.0 = Some(Taken { index, waker });
    }

    #[inline]
    pub(crate) fn leave(&self, seat: &mut Seat) {
        if let Some(taken) = seat.0.take() {
            self.stand_up(&taken);
        }
    }

    #[cold]
    fn stand_up(&self, taken: &Taken) {
        let place = self.places.lock().remove(taken.index);
        drop(place);
    }

    /// Returns what was left with each pending waker.
    pub(crate) fn pending<R>(&self, read: impl FnMut(&T) -> R) -> Vec<R> {
        let places = self.places.lock();
        let taken = places.places.iter().flatten();
        taken.map(|place| &place.what).map(read).collect()
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
        if self.places.is_empty() {
            // A connection rarely has more than one.
            self.places.reserve_exact(1);
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

    fn take_wakers(&mut self, from: usize, places: usize) -> (Vec<Waker>, Option<usize>) {
        let end = from.saturating_add(places).min(self.places.len());
        let places = self.places.get_mut(from..end).unwrap_or_default();
        let taken = places.iter_mut().flatten();
        let wakers = taken.filter_map(|place| place.waker.take()).collect();
        (wakers, (end < self.places.len()).then_some(end))
    }
}
