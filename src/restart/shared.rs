//! [`Shared`]: what the parts of a restart share.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::error::RestartError;
use super::offer::Offer;
use super::program::Program;
use super::wire::Speaker;
use crate::group::lock::Lock;
use crate::server::hatch::Hatch;

/// Hears how an attempt went.
pub(super) type Outcome = oneshot::Sender<Result<u32, RestartError>>;

/// What the parts of a restart share.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) timeout: Duration,
    pub(super) program: Program,
    pub(super) notify_reload: bool,
    pub(super) hatch: Arc<Hatch>,
    /// What the process from which this one takes over has offered, and this one has not asked for yet.
    pub(super) offers: Lock<Vec<Offer>>,
    pub(super) sockets: Lock<Vec<Named>>,
    pub(super) stage: Lock<Stage>,
    /// The process that this one takes over from.
    pub(super) old: Option<u32>,
    /// Fires when this process could accept.
    pub(super) ready: CancellationToken,
    /// Fires when the sockets are ours.
    pub(super) ours: CancellationToken,
    /// Fires when no old process is left.
    pub(super) alone: CancellationToken,
    /// The leases that the old process has not given up yet. `None` until it has said which they are.
    pub(super) of_old: watch::Sender<Option<HashSet<String>>>,
    pub(super) leases: Lock<HashMap<Arc<str>, CancellationToken>>,
    /// To the old process.
    pub(super) to_old: Option<Speaker>,
    /// Why the old process keeps its sockets.
    pub(super) refused: watch::Sender<Option<String>>,
    pub(super) handed_over: watch::Sender<Option<u32>>,
    /// The process that has taken over from this one.
    pub(super) successor: Lock<Option<Speaker>>,
    /// Fires when this process begins to stop for any other reason.
    pub(super) stops: CancellationToken,
}

/// A socket by the name that the next process asks for.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) key: usize,
    pub(super) name: String,
    pub(super) is_shared: bool,
}

/// What this process is doing.
#[derive(Debug)]
pub(super) enum Stage {
    Starting,
    Serving,
    /// Another process is about to be started, or was started by this one.
    StartsAnother(Option<Outcome>),
    /// Another process is at the door.
    Busy(u32, Option<Outcome>),
    HandedOver(u32),
}

impl Shared {
    /// Takes a lease, unless another process has taken over.
    pub(super) fn take(&self, name: &Arc<str>, wanted: &CancellationToken) -> bool {
        let mut leases = self.leases.lock();
        let is_ours = !matches!(*self.stage.lock(), Stage::HandedOver(_));
        if is_ours {
            leases.insert(Arc::clone(name), wanted.clone());
        }
        is_ours
    }

    /// Gives a lease up.
    pub(super) fn give(&self, name: &str) {
        self.leases.lock().remove(name);
        if let Some(new) = &*self.successor.lock() {
            new.say(&format!("GIVEN {name}"));
        }
    }

    /// Takes in that this process stops, for another reason than a handover. A process from which it would have taken
    /// over is told why.
    pub(super) fn stop(&self, why: &str) {
        self.stops.cancel();
        if let (Some(old), false) = (&self.to_old, self.ours.is_cancelled()) {
            old.say(&format!("FAILED {why}"));
        }
    }
}
