//! The list of the named tasks of a group.

use std::fmt;

use tokio::time::Instant;

use crate::group::in_order::in_order;
use crate::group::label::Label;
use crate::group::running::{Running, RunningTask};

/// The named tasks that are alive. A task keeps the number of its place, and frees it when it ends.
///
/// A map by id would be in order, but the code of one is 13 kB.
#[derive(Default)]
pub(crate) struct Roll {
    places: Vec<Place>,
    /// The first of the free places, which name each other.
    free: Option<usize>,
    /// How many named tasks there have been in total.
    ids: u64,
}

enum Place {
    Taken(Named),
    /// Names the next free place.
    Free(Option<usize>),
}

struct Named {
    id: u64,
    label: Label,
    since: Instant,
    blocking: bool,
}

impl Roll {
    /// Enters a task, and returns its place.
    pub(crate) fn enter(&mut self, label: Label, since: Instant, blocking: bool) -> usize {
        self.ids += 1;
        let taken = Place::Taken(Named {
            id: self.ids,
            label,
            since,
            blocking,
        });
        let Some(index) = self.free else {
            self.places.push(taken);
            return self.places.len() - 1;
        };
        if let Place::Free(next) = std::mem::replace(&mut self.places[index], taken) {
            self.free = next;
        }
        index
    }

    /// Frees the place of a task. The caller drops what is returned.
    #[must_use]
    pub(crate) fn leave(&mut self, index: usize) -> impl Sized + use<> {
        let place = std::mem::replace(&mut self.places[index], Place::Free(self.free));
        self.free = Some(index);
        place
    }

    pub(crate) fn was_ever_used(&self) -> bool {
        self.ids > 0
    }

    /// The tasks in the order in which they were entered.
    pub(crate) fn running(&self, now: Instant) -> Running {
        let taken = self.places.iter().filter_map(|place| match place {
            Place::Taken(named) => Some(named),
            Place::Free(_) => None,
        });
        let mut running = Running::default();
        for named in in_order(taken.collect(), |named: &&Named| named.id) {
            let age = now.saturating_duration_since(named.since);
            let label = named.label.clone();
            running.push(RunningTask::named(label, named.id, age, named.blocking));
        }
        running
    }
}

impl fmt::Debug for Roll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roll").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::*;

    fn label(name: &str) -> Label {
        Label::named(None, name, Location::caller())
    }

    #[test]
    fn a_freed_place_is_used_again_and_the_list_is_in_the_order_of_the_spawns() {
        let (mut roll, now) = (Roll::default(), Instant::now());
        assert!(!roll.was_ever_used());
        let [a, b, c] = ["a", "b", "c"].map(|name| roll.enter(label(name), now, false));
        drop(roll.leave(a));
        drop(roll.leave(b));
        let [d, e, f] = ["d", "e", "f"].map(|name| roll.enter(label(name), now, false));
        assert_eq!((d, e), (b, a));
        assert_eq!(roll.places.len(), 4);

        let running = roll.running(now);
        let names = running.iter().map(|task| task.name().unwrap());
        assert_eq!(names.collect::<Vec<_>>(), ["c", "d", "e", "f"]);
        let ids = running.iter().map(|task| task.id().unwrap());
        assert_eq!(ids.collect::<Vec<_>>(), [3, 4, 5, 6]);

        for place in [c, d, e, f] {
            drop(roll.leave(place));
        }
        assert!(roll.running(now).is_empty());
        assert!(roll.was_ever_used());
    }
}
