//! [`Hatch`]: who accepts on the sockets that a restart in place hands over.
//!
//! Invariants:
//!
//! 1. A socket is asked for a connection only while the hatch is open, and under its lock. So no accept is
//!    under way once it is shut.
//! 2. Both the stop of a server and the handover end what this process does with its sockets, and both are
//!    decided under the same lock. Only one of them comes first.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use crate::group::lock::Lock;

/// Says whether this process accepts on its sockets.
pub(crate) struct Hatch {
    inner: Lock<Inner>,
    /// Something has changed, for the task that hands over or takes over.
    changed: Notify,
}

struct Inner {
    state: State,
    /// By the keys of the doors.
    doors: Vec<Waiting>,
}

struct Waiting {
    waker: Option<Waker>,
    /// A copy for the next process, as long as a server of this one may accept.
    descriptor: Option<Arc<OwnedFd>>,
    /// Whether a server has asked for a connection.
    is_served: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The sockets are those of another process, which may hand them over.
    NotYet,
    Open,
    /// Another process is about to accept.
    Shut,
    /// A server of this process has stopped.
    Stopped,
    /// The same, before the sockets were ours.
    GaveUp,
    /// Another process accepts now.
    HandedOver,
}

/// One of the sockets.
pub(crate) struct Door {
    hatch: Arc<Hatch>,
    key: usize,
}

/// Whose socket it is when its server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Ours,
    /// It may be that of another process at the door as well.
    OursAndShown,
    Other,
}

impl Hatch {
    pub(crate) fn new(is_ours: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: Lock::new(Inner {
                state: if is_ours { State::Open } else { State::NotYet },
                doors: Vec::new(),
            }),
            changed: Notify::new(),
        })
    }

    /// Makes the door of one more socket. `descriptor` is a copy of it.
    pub(crate) fn door(self: &Arc<Self>, descriptor: OwnedFd) -> Door {
        let mut inner = self.inner.lock();
        inner.doors.push(Waiting {
            waker: None,
            descriptor: Some(Arc::new(descriptor)),
            is_served: false,
        });
        Door {
            hatch: Arc::clone(self),
            key: inner.doors.len() - 1,
        }
    }

    /// Returns the copies of the sockets, with the keys of their doors, and without those whose server has
    /// stopped.
    pub(crate) fn descriptors(&self) -> Vec<(usize, Arc<OwnedFd>)> {
        let inner = self.inner.lock();
        let doors = inner.doors.iter().enumerate();
        let copies = doors.filter_map(|(key, door)| Some((key, door.descriptor.clone()?)));
        copies.collect()
    }

    /// Lets the servers of this process accept. `false` if it has stopped.
    pub(crate) fn open(&self) -> bool {
        self.turn(&[State::NotYet, State::Shut], State::Open)
    }

    /// Stops accepting for the time being. `false` if this process has stopped.
    pub(crate) fn shut(&self) -> bool {
        self.turn(&[State::Open], State::Shut)
    }

    /// Leaves the sockets to another process for good. `false` if this one has stopped.
    pub(crate) fn hand_over(&self) -> bool {
        self.turn(&[State::Shut], State::HandedOver)
    }

    /// Returns whether a server of this process has stopped, which ends all handovers.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.inner.lock().state, State::Stopped | State::GaveUp)
    }

    /// Returns whether the sockets are those of this process.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(
            self.inner.lock().state,
            State::Open | State::Shut | State::Stopped
        )
    }

    /// Returns whether there is a server at each socket.
    pub(crate) fn is_served(&self) -> bool {
        self.inner.lock().doors.iter().all(|door| door.is_served)
    }

    /// Waits for a server that begins, or for the stop. For one task at a time.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn turn(&self, from: &[State], to: State) -> bool {
        let mut inner = self.inner.lock();
        if !from.contains(&inner.state) {
            return false;
        }
        inner.state = to;
        let wakers = inner.doors.iter_mut().filter_map(|door| door.waker.take());
        let wakers: Vec<_> = wakers.collect();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        true
    }
}

impl Door {
    pub(crate) fn hatch(&self) -> &Arc<Hatch> {
        &self.hatch
    }

    pub(crate) fn key(&self) -> usize {
        self.key
    }

    /// Asks the socket for a connection with `accept`, if this process is to accept.
    pub(crate) fn pass<T>(
        &self,
        cx: &mut Context<'_>,
        accept: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let waker = cx.waker().clone();
        let mut inner = self.hatch.inner.lock();
        let is_open = inner.state == State::Open;
        let polled = if is_open { accept(cx) } else { Poll::Pending };
        let door = &mut inner.doors[self.key];
        let is_new = !std::mem::replace(&mut door.is_served, true);
        let before = door.waker.replace(waker);
        drop(inner);
        drop(before);
        if is_new {
            self.hatch.changed.notify_one();
        }
        polled
    }

    /// Takes in that the server stops, and returns whose socket it is then.
    pub(crate) fn close(&self) -> Whose {
        let mut inner = self.hatch.inner.lock();
        let (state, whose) = match inner.state {
            State::Open | State::Stopped => (State::Stopped, Whose::Ours),
            State::Shut => (State::Stopped, Whose::OursAndShown),
            State::NotYet | State::GaveUp => (State::GaveUp, Whose::Other),
            State::HandedOver => (State::HandedOver, Whose::Other),
        };
        inner.state = state;
        let descriptor = inner.doors[self.key].descriptor.take();
        drop(inner);
        drop(descriptor);
        self.hatch.changed.notify_one();
        whose
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let mut inner = self.hatch.inner.lock();
        let door = &mut inner.doors[self.key];
        let left = (door.waker.take(), door.descriptor.take());
        drop(inner);
        drop(left);
    }
}

impl fmt::Debug for Hatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.lock().state;
        f.debug_struct("Hatch")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("hatch", &self.hatch)
            .finish_non_exhaustive()
    }
}
