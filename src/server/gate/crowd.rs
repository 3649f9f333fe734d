//! [`Crowd`]: the places for connections, and which of them gives way when all are taken.
//!
//! A client that waits gets the place of the connection that has been idle for longest. That connection is only
//! asked. Its own task decides, after it has read what has arrived, so that a request in the socket wins.
//!
//! Invariants:
//!
//! 1. Candidates are in the order in which they became idle. All that are not among them became idle later. A
//!    candidate whose connection had a request since then is no longer one, which its stamp tells.
//! 2. There is one acceptor, and so one client at a time that waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::server::sync::Lock;

/// A connection that was asked and is not gone by then is left to itself, and another is asked.
const PATIENCE: Duration = Duration::from_secs(1);

/// Of a large crowd so many candidates are found at once.
const MOST: usize = 32;

#[derive(Debug)]
pub(super) struct Crowd {
    slots: Arc<Semaphore>,
    candidates: Lock<VecDeque<Candidate>>,
    /// Whether a client waits and no connection was idle. The next one that becomes idle says so.
    wants: AtomicBool,
    /// For the acceptor. It keeps a permit, so no change is lost.
    changed: Notify,
    stamps: AtomicU64,
}

/// A connection that was idle at its stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) stamp: u64,
    pub(super) key: usize,
}

impl Crowd {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))),
            candidates: Lock::default(),
            wants: AtomicBool::new(false),
            changed: Notify::new(),
            stamps: AtomicU64::new(0),
        }
    }

    pub(super) fn try_slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    /// Returns the stamp of a connection that becomes idle now.
    pub(super) fn stamp(&self) -> u64 {
        self.stamps.fetch_add(1, Ordering::Relaxed)
    }

    /// Called when a connection has become idle.
    pub(super) fn is_idle(&self, candidate: Candidate) {
        if self.wants.load(Ordering::Relaxed) && self.wants.swap(false, Ordering::Relaxed) {
            self.candidates.lock().push_back(candidate);
            self.changed.notify_one();
        }
    }

    /// Called when a connection that was asked has something to do.
    pub(super) fn declined(&self) {
        self.changed.notify_one();
    }

    /// Waits for a place. `all` finds the connections that are idle, and `ask` asks one of them, unless it is no
    /// longer idle.
    pub(super) async fn slot(
        &self,
        all: impl Fn() -> Vec<Candidate>,
        ask: impl Fn(Candidate) -> bool,
    ) -> Option<OwnedSemaphorePermit> {
        let mut free = std::pin::pin!(Arc::clone(&self.slots).acquire_owned());
        loop {
            self.wants.store(true, Ordering::Relaxed);
            let is_asked = self.ask_one(&all, &ask);
            if is_asked {
                self.wants.store(false, Ordering::Relaxed);
            }
            tokio::select! {
                biased;
                slot = free.as_mut() => {
                    self.wants.store(false, Ordering::Relaxed);
                    // The semaphore is never closed.
                    return slot.ok();
                }
                () = self.changed.notified() => {}
                () = sleep(PATIENCE), if is_asked => {}
            }
        }
    }

    fn ask_one(&self, all: impl Fn() -> Vec<Candidate>, ask: impl Fn(Candidate) -> bool) -> bool {
        let next = || self.candidates.lock().pop_front();
        while let Some(candidate) = next() {
            if ask(candidate) {
                return true;
            }
        }
        let mut found = all();
        if found.len() > MOST {
            found.select_nth_unstable(MOST);
            found.truncate(MOST);
        }
        found.sort_unstable();
        *self.candidates.lock() = found.into();
        while let Some(candidate) = next() {
            if ask(candidate) {
                return true;
            }
        }
        false
    }
}
