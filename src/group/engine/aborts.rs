//! The tasks that were aborted through their handles.
//!
//! A handle does not point to its group, because a reference would cost each spawn an atomic addition.
//! A task that Tokio drops cannot ask for the reason. So an abort leaves a note here, which the task
//! finds when it is dropped.

use std::collections::HashMap;
use std::sync::LazyLock;

use tokio::task::{self, AbortHandle, Id};

use super::sync::Lock;

static NOTES: LazyLock<Lock<Notes>> = LazyLock::new(Lock::default);

/// Notes are swept when there are this many of them.
const FEW: usize = 16;

#[derive(Debug, Default)]
struct Notes {
    tasks: HashMap<Id, AbortHandle>,
    /// How many notes there were after the last sweep.
    swept: usize,
}

impl Notes {
    /// Takes out the notes of tasks that ended by themselves before the abort reached them.
    fn sweep(&mut self) -> Vec<AbortHandle> {
        if self.tasks.len() < FEW.max(2 * self.swept) {
            return Vec::new();
        }
        let (ended, left): (Vec<_>, Vec<_>) =
            self.tasks.drain().partition(|(_, task)| task.is_finished());
        self.swept = left.len();
        self.tasks.extend(left);
        ended.into_iter().map(|(_, task)| task).collect()
    }
}

/// Aborts a task of a group on purpose, which does not fail the group.
pub(crate) fn abort(task: &AbortHandle) {
    if task.is_finished() {
        return;
    }
    let ended = {
        let mut notes = NOTES.lock();
        let ended = notes.sweep();
        notes.tasks.insert(task.id(), task.clone());
        ended
    };
    // The last handle of a task frees its memory, so this happens outside the lock.
    drop(ended);
    task.abort();
}

/// Whether the task that Tokio is dropping on this thread was aborted on purpose.
pub(crate) fn was_asked_for() -> bool {
    let Some(id) = task::try_id() else {
        return false;
    };
    let note = NOTES.lock().tasks.remove(&id);
    note.is_some()
}
