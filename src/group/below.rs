//! Groups below that of a spawner.

use std::panic::Location;

use super::TaskGroup;
use super::spawner::Spawner;

impl<E> Spawner<E> {
    /// Makes a group below, as [`TaskGroup::child`].
    #[track_caller]
    pub(crate) fn child(&self, name: impl AsRef<str>) -> TaskGroup<E> {
        TaskGroup::from_hub(self.hub.child(name.as_ref(), Location::caller()))
    }

    /// The same, but what fails in it does not cancel this group, and it is not cancelled with this one:
    /// whoever waits for it decides.
    #[track_caller]
    pub(crate) fn contained(&self, name: &str) -> TaskGroup<E> {
        TaskGroup::from_hub(self.hub.contained(name, Location::caller()))
    }
}
