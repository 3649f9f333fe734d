//! [`Straggler`]: a task that had to be cut.

use std::fmt;
use std::time::Duration;

use crate::group::running::RunningTask;
use crate::group::time::Rounded;

/// A task that had not ended when the time of its component was up. Plain data.
///
/// Like a [`RunningTask`], it stands for one named task, or for all unnamed tasks that were spawned at one
/// place.
///
/// # Examples
///
/// See [`Report`](super::Report).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Straggler {
    /// The name of the component it belongs to.
    pub component: String,
    /// Its name as a path, or `None` for unnamed tasks.
    pub task: Option<String>,
    /// How many tasks this stands for, which is 1 for a named one.
    pub count: usize,
    /// Where it was spawned: `src/main.rs:42`.
    pub place: String,
    /// The age of a named task when the time of its component was up.
    pub age: Option<Duration>,
    /// Whether it is a blocking closure, which cannot be ended.
    pub blocking: bool,
    /// Whether it may still be running, since its end could not be confirmed.
    pub still_running: bool,
}

impl Straggler {
    pub(in crate::lifecycle) fn new(
        component: impl Into<String>,
        task: &RunningTask,
        still_running: bool,
    ) -> Self {
        let place = task.place();
        Self {
            component: component.into(),
            task: task.name().map(str::to_owned),
            count: task.count(),
            place: format!("{}:{}", place.file(), place.line()),
            age: task.age(),
            blocking: task.is_blocking(),
            still_running,
        }
    }
}

impl fmt::Display for Straggler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "component `{}`: ", self.component)?;
        match (&self.task, self.count) {
            (Some(task), _) => write!(f, "task `{task}`")?,
            (None, 1) => f.write_str("1 task")?,
            (None, count) => write!(f, "{count} tasks")?,
        }
        write!(f, " ({})", self.place)?;
        if let Some(age) = self.age {
            write!(f, " for {}", Rounded(age))?;
        }
        if self.blocking {
            f.write_str(", blocking")?;
        }
        if self.still_running {
            f.write_str(", still running")?;
        }
        Ok(())
    }
}
