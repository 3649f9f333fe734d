//! [`Deadlines`]: when each step of a stop is over.

use std::time::Duration;

use tokio::time::Instant;

use super::run::after;
use crate::group::time::CONFIRMATION;
use crate::server::stop_signal::Parts;

/// When each step of a stop is over, at the latest. `None` means that there is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadlines {
    /// Work under way is cut.
    pub(super) cut: Option<Instant>,
    /// Work that was cut has ended, and the leases are no longer extended.
    joined: Option<Instant>,
    /// The hand-back is over.
    over: Option<Instant>,
}

/// How long work under way may take, unless the user or a lifecycle sets a time.
const GRACE: Duration = Duration::from_secs(10);

/// How long a worker on another thread may take at least to drop its work, if there is so much time.
const JOIN: Duration = Duration::from_millis(20);

impl Deadlines {
    /// Returns the deadlines of a stop that begins now.
    ///
    /// If a pool ends by itself, only its grace bounds the end.
    pub(super) fn of(
        stop: &Parts,
        is_told: bool,
        grace: Option<Duration>,
        hand_back: Duration,
    ) -> Self {
        let limit = stop.limit.left().filter(|_| is_told);
        let grace = match is_told {
            true => stop.limit.grace(grace, GRACE),
            false => grace.unwrap_or(GRACE),
        };
        let Some(left) = limit else {
            return Self::after(grace, CONFIRMATION, hand_back);
        };
        // All steps have to be over in the time that is left. A worker that cannot be cut must not use up the
        // time for the hand-back.
        let hand_back = hand_back.min(left / 2);
        let join = CONFIRMATION.min(hand_back / 4).max(JOIN.min(left / 10));
        let last = hand_back.max(join);
        Self::after(grace.min(left - last), join, last - join)
    }

    /// Returns the deadlines of a stop whose work under way is cut now.
    pub(super) fn now(hand_back: Duration) -> Self {
        Self::after(Duration::ZERO, CONFIRMATION, hand_back)
    }

    fn after(grace: Duration, join: Duration, hand_back: Duration) -> Self {
        let cut = after(grace);
        let joined = cut.and_then(|cut| cut.checked_add(join));
        let over = joined.and_then(|joined| joined.checked_add(hand_back));
        Self { cut, joined, over }
    }

    /// Returns until when to wait for work that is cut now, which may be early.
    pub(super) fn join_by(self) -> Option<Instant> {
        earlier(self.joined, after(CONFIRMATION))
    }

    /// Returns until when to wait for a hand-back that begins now.
    pub(super) fn hand_back_by(self, within: Duration) -> Option<Instant> {
        earlier(self.over, after(within))
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
