//! The groups of this process without a parent group, for the leak guard of the test kit.
//!
//! Only the feature `test-util` keeps this list. It does not keep a group alive.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::Weak;
use std::thread;
use std::thread::ThreadId;

use super::engine::hub::Hub;
use super::engine::shared::Shared;
use crate::group::lock::lock;
use crate::group::running::Running;

static CENSUS: Mutex<Census> = Mutex::new(Census {
    next: 0,
    groups: Vec::new(),
});

struct Census {
    next: u64,
    groups: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    number: u64,
    made_on: ThreadId,
    group: Arc<dyn Counted>,
}

trait Counted: Send + Sync {
    /// Returns the tasks of the group, or `None` once the group is gone.
    fn running(&self) -> Option<Running>;

    fn is_gone(&self) -> bool;
}

/// A group without an owner may still have tasks, which keep the shared state but not the hub.
struct Group<E> {
    hub: Weak<Hub<E>>,
    shared: Weak<Shared<E>>,
}

impl<E: Send + 'static> Counted for Group<E> {
    fn running(&self) -> Option<Running> {
        match self.hub.upgrade() {
            Some(hub) => Some(hub.running()),
            None => Some(self.shared.upgrade()?.running_named()),
        }
    }

    fn is_gone(&self) -> bool {
        self.shared.strong_count() == 0
    }
}

/// Registers a group that was made on this thread.
pub(super) fn enter<E: Send + 'static>(hub: &Arc<Hub<E>>) {
    let group = Group {
        hub: Arc::downgrade(hub),
        shared: Arc::downgrade(&hub.shared),
    };
    let mut census = lock(&CENSUS);
    let number = census.next;
    census.next += 1;
    let gone = match census.groups.len() == census.groups.capacity() {
        true => census.take_gone(),
        false => Vec::new(),
    };
    census.groups.push(Entry {
        number,
        made_on: thread::current().id(),
        group: Arc::new(group),
    });
    drop(census);
    drop(gone);
}

/// Returns the number of the next group.
pub(crate) fn next() -> u64 {
    lock(&CENSUS).next
}

/// Returns the tasks of the groups from this number on, or only of those made on the given thread.
pub(crate) fn running(from: u64, made_on: Option<ThreadId>) -> Running {
    let entries: Vec<_> = {
        let census = lock(&CENSUS);
        let entries = census.groups.iter().filter(|entry| entry.number >= from);
        entries.cloned().collect()
    };
    let mut running = Running::default();
    for entry in entries {
        if made_on.is_none_or(|thread| entry.made_on == thread) {
            running.append(entry.group.running().unwrap_or_default());
        }
    }
    running
}

impl Census {
    /// Takes out the entries of groups that are gone.
    fn take_gone(&mut self) -> Vec<Entry> {
        let (gone, kept) = self
            .groups
            .drain(..)
            .partition(|entry| entry.group.is_gone());
        self.groups = kept;
        gone
    }
}
