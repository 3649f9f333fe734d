//! Child groups of a spawner's group.

use std::panic::Location;

use crate::group::TaskGroup;
use crate::group::build_error::BuildError;
use crate::group::builder::Builder;
use crate::group::spawner::Spawner;

impl<E> Spawner<E> {
    /// Makes a child group, as [`TaskGroup::child`].
    #[track_caller]
    #[must_use = "a dropped group aborts its tasks"]
    pub fn child(&self, name: impl AsRef<str>) -> TaskGroup<E> {
        let plan = self.hub.plan_below(name.as_ref(), Location::caller());
        TaskGroup::from_hub(self.hub.child(plan))
    }

    /// Makes an isolated child group that is not cancelled with this one. The component that waits for
    /// it decides when it stops.
    #[track_caller]
    pub(crate) fn child_told_apart(&self, name: &str) -> TaskGroup<E> {
        let plan = self.hub.plan_below(name, Location::caller());
        TaskGroup::from_hub(self.hub.child(plan.told_apart()))
    }
}

impl<E: Send + 'static> Spawner<E> {
    /// Makes a child group with options, as [`TaskGroup::child_with`].
    ///
    /// # Errors
    ///
    /// As [`TaskGroup::child_with`].
    ///
    /// # Panics
    ///
    /// As [`TaskGroup::child_with`].
    #[track_caller]
    pub fn child_with(&self, options: &Builder) -> Result<TaskGroup<E>, BuildError> {
        options.build_below(&self.hub, Location::caller())
    }
}
