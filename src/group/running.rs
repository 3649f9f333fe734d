//! [`Running`] lists the live tasks of a group.

use std::fmt;
use std::panic::Location;
use std::slice;
use std::time::Duration;

use crate::group::label::Label;
use crate::group::time::Rounded;

/// The tasks that were alive in a group, and in the groups below it, at one moment.
///
/// Its `Display` is one line for a log, such as ``3 tasks: `kafka` (src/main.rs:40) for 12.3s, 2 ×
/// src/worker.rs:12``. It shows ten entries and counts the tasks of the others. [`iter`](Self::iter)
/// returns all entries.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let group = TaskGroup::new();
/// for _ in 0..3 {
///     group.spawn(std::future::pending::<Result<(), _>>());
/// }
/// group.task("kafka").spawn(std::future::pending::<Result<(), _>>());
///
/// let running = group.running();
/// assert_eq!(running.count(), 4);
/// let names: Vec<_> = running.iter().filter_map(|task| task.name()).collect();
/// assert_eq!(names, ["kafka"]);
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct Running {
    tasks: Vec<RunningTask>,
}

/// One named task, or all unnamed ones that were spawned at one place.
#[derive(Clone, Debug)]
pub struct RunningTask {
    label: Label,
    count: usize,
    blocking: bool,
    named: Option<Identity>,
}

#[derive(Clone, Copy, Debug)]
struct Identity {
    id: u64,
    age: Duration,
}

/// How many entries a line shows.
const SHOWN: usize = 10;

impl Running {
    /// Returns the number of tasks, including each unnamed one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tasks.iter().map(RunningTask::count).sum()
    }

    /// Returns whether no task was running.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Returns one entry for each named task, and one for each place of spawn of the others.
    pub fn iter(&self) -> slice::Iter<'_, RunningTask> {
        self.tasks.iter()
    }

    pub(crate) fn push(&mut self, task: RunningTask) {
        self.tasks.push(task);
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.tasks.append(&mut other.tasks);
    }
}

impl RunningTask {
    pub(crate) fn at_place(label: Label, count: usize, blocking: bool) -> Self {
        Self {
            label,
            count,
            blocking,
            named: None,
        }
    }

    pub(crate) fn named(label: Label, id: u64, age: Duration, blocking: bool) -> Self {
        Self {
            label,
            count: 1,
            blocking,
            named: Some(Identity { id, age }),
        }
    }

    /// Returns the task's name as a path such as `orders/http`, or `None` for unnamed tasks.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.label.name()
    }

    /// Returns the path of the task's group, or `None` if the group has no name.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.label.group()
    }

    /// Returns the place where the task was spawned.
    #[must_use]
    pub fn place(&self) -> &'static Location<'static> {
        self.label.place()
    }

    /// Returns how many tasks the entry stands for, which is 1 for a named task.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the number that distinguishes named tasks with the same name, or `None` if unnamed.
    ///
    /// Numbers start at 1 in each group and are not used twice.
    #[must_use]
    pub fn id(&self) -> Option<u64> {
        self.named.map(|named| named.id)
    }

    /// Returns how long ago a named task was spawned, or `None` for unnamed tasks.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.named.map(|named| named.age)
    }

    /// Returns whether these are blocking closures, which cannot be aborted.
    #[must_use]
    pub fn is_blocking(&self) -> bool {
        self.blocking
    }
}

impl<'a> IntoIterator for &'a Running {
    type Item = &'a RunningTask;
    type IntoIter = slice::Iter<'a, RunningTask>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            0 => return f.write_str("no tasks"),
            1 => f.write_str("1 task: ")?,
            count => write!(f, "{count} tasks: ")?,
        }
        let (shown, others) = self.tasks.split_at(SHOWN.min(self.tasks.len()));
        for (index, task) in shown.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{task}")?;
        }
        match others.iter().map(RunningTask::count).sum() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for RunningTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line) = (self.place().file(), self.place().line());
        match self.name() {
            Some(name) => write!(f, "`{name}` ({file}:{line})")?,
            None => match self.group() {
                Some(group) => write!(f, "{} × `{group}` ({file}:{line})", self.count)?,
                None => write!(f, "{} × {file}:{line}", self.count)?,
            },
        }
        if self.blocking {
            f.write_str(", blocking")?;
        }
        if let Some(age) = self.age() {
            write!(f, " for {}", Rounded(age))?;
        }
        Ok(())
    }
}
