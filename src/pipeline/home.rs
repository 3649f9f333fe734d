//! [`Home`]: where the jobs of one worker return to.

use std::mem::{swap, take};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::parcel::{Parcel, Reason};
use super::shared::Shared;
use crate::group::lock::Lock;

pub(super) struct Home<T, R> {
    shared: Arc<Shared<T, R>>,
    back: Lock<Back<T, R>>,
    /// Tells the worker that a job has come back.
    pub(super) changed: Notify,
}

struct Back<T, R> {
    parcels: Vec<Parcel<T, R>>,
    /// How many jobs were passed on to a later stage since the last look.
    passed: usize,
    /// Whether the worker waits, and has to be woken.
    is_awaited: bool,
    /// Whether the worker no longer waits for any of them.
    is_gone: bool,
}

impl<T, R> Home<T, R> {
    pub(super) fn new(shared: Arc<Shared<T, R>>) -> Self {
        Self {
            shared,
            back: Lock::new(Back {
                // Room for one, so that no item pays for being the first of its worker.
                parcels: Vec::with_capacity(1),
                passed: 0,
                is_awaited: false,
                is_gone: false,
            }),
            changed: Notify::new(),
        }
    }

    pub(super) fn shared(&self) -> &Shared<T, R> {
        &self.shared
    }

    /// Takes a parcel from its job. A parcel that is too late for its worker goes to the leftovers.
    #[inline]
    pub(super) fn take_back(&self, parcel: Parcel<T, R>) {
        let mut back = self.back.lock();
        if back.is_gone {
            drop(back);
            self.shared.leave([(parcel, Reason::Cut)]);
            return;
        }
        back.parcels.push(parcel);
        let is_awaited = back.is_awaited;
        drop(back);
        if is_awaited {
            self.changed.notify_one();
        }
    }

    /// Notes that a job is passed on to a later stage, so that the worker does not wait for it.
    pub(super) fn pass_on(&self, recall: &Arc<CancellationToken>) {
        self.shared.pass_on(recall);
        self.back.lock().passed += 1;
        self.changed.notify_one();
    }

    /// Moves the parcels that have come back to `out`, and returns how many jobs were passed on. The worker
    /// waits for more if it expects more than that.
    #[inline]
    pub(super) fn collect(
        home: &mut Arc<Self>,
        expected: usize,
        out: &mut Vec<Parcel<T, R>>,
    ) -> usize {
        // Most often all jobs are gone, so that there is no other owner. That is cheaper than the lock.
        match Arc::get_mut(home) {
            Some(home) => home.back.get_mut().collect(expected, out),
            None => home.back.lock().collect(expected, out),
        }
    }

    /// As [`collect`](Self::collect), for the last time.
    pub(super) fn leave(&self, out: &mut Vec<Parcel<T, R>>) -> usize {
        let mut back = self.back.lock();
        back.is_gone = true;
        out.append(&mut back.parcels);
        take(&mut back.passed)
    }
}

impl<T, R> Back<T, R> {
    #[inline]
    fn collect(&mut self, expected: usize, out: &mut Vec<Parcel<T, R>>) -> usize {
        if out.is_empty() {
            // The usual case, in which the two change places.
            swap(out, &mut self.parcels);
        } else {
            out.append(&mut self.parcels);
        }
        let passed = take(&mut self.passed);
        self.is_awaited = out.len() + passed < expected;
        passed
    }
}
