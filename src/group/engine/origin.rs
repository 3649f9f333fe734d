//! The identity of a task that is being spawned.

use std::panic::Location;

use super::shared::Shared;
use crate::group::label::Label;

/// The place of spawn, and the name if there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) place: &'static Location<'static>,
    pub(crate) name: Option<&'a str>,
    pub(crate) essential: bool,
    /// Whether a failure stays out of the group.
    pub(crate) isolated: bool,
    /// Whether the task runs in the span that was current at its spawn.
    pub(crate) in_current_span: bool,
}

impl Origin<'_> {
    pub(crate) fn unnamed(place: &'static Location<'static>) -> Self {
        Self {
            place,
            name: None,
            essential: false,
            isolated: false,
            in_current_span: false,
        }
    }

    pub(crate) fn label<E>(self, shared: &Shared<E>) -> Label {
        let group = shared.path().cloned();
        match self.name {
            Some(name) => Label::named(group, name, self.place),
            None => Label::unnamed(group, self.place),
        }
    }
}
