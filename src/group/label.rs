//! The name and the place that identify a task or a whole group.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

/// The label of one task, with its name if it has one, its group's name, and its place of spawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// The path of the group, such as `orders/http`.
    group: Option<Arc<str>>,
    /// The path of the task, such as `orders/http/accept`.
    task: Option<Arc<str>>,
    place: &'static Location<'static>,
}

impl Label {
    /// A task without its own name.
    pub(crate) fn unnamed(group: Option<Arc<str>>, place: &'static Location<'static>) -> Self {
        Self {
            group,
            task: None,
            place,
        }
    }

    pub(crate) fn named(
        group: Option<Arc<str>>,
        name: &str,
        place: &'static Location<'static>,
    ) -> Self {
        let task = join(group.as_deref(), name);
        Self {
            group,
            task: Some(task),
            place,
        }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.task.as_deref()
    }

    pub(crate) fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    pub(crate) fn place(&self) -> &'static Location<'static> {
        self.place
    }
}

/// Joins a group's path and a name below it.
pub(crate) fn join(group: Option<&str>, name: &str) -> Arc<str> {
    match group {
        // In one allocation. A component has three such paths, and `format!` takes four times as long.
        Some(group) => {
            let mut path = String::with_capacity(group.len() + 1 + name.len());
            path.push_str(group);
            path.push('/');
            path.push_str(name);
            path.into()
        }
        None => name.into(),
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The column of a place does not help a reader of a log.
        let (file, line) = (self.place.file(), self.place.line());
        match (&self.task, &self.group) {
            (Some(task), _) => write!(f, "task `{task}` ({file}:{line})"),
            (None, Some(group)) => write!(f, "task of `{group}` ({file}:{line})"),
            (None, None) => write!(f, "task ({file}:{line})"),
        }
    }
}
