//! The stop of a server as a sequence of phases. It decides the next step from what is seen.
//!
//! All times are measured from the stop, by a clock that is read when the decision is made. A runtime that was
//! blocked asks late, and then gets the decision for that later time.

use std::time::Duration;

/// The current phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The listening socket is closed, and the server does not know of the stop. Requests that were on their
    /// way are read and answered. Nothing is cut.
    Lingering,
    /// The server knows of the stop. Connections without a request in flight are cut after their grace.
    /// Requests are not cut.
    Draining,
    /// The time is up. Handlers and bodies have been cut, and the connections stay open to tell the clients.
    Flushing,
    /// The connections have been cut. Nothing new can begin.
    Killing,
}

/// How long each phase may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// From the stop to the cut, lingering and draining together.
    pub(crate) grace: Duration,
    pub(crate) linger: Duration,
    pub(crate) idle_grace: Duration,
    pub(crate) flush: Duration,
    pub(crate) kill_grace: Duration,
}

/// What the sequence sees of the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Since the stop.
    pub(super) elapsed: Duration,
    /// Since the phase began.
    pub(super) in_phase: Duration,
    /// Since the cut, once there was one.
    pub(super) since_cut: Duration,
    /// Since a request or a connection has ended, or was cut.
    pub(super) still: Duration,
    /// Whether the accept queue has been emptied and the listening socket is closed.
    pub(super) swept: bool,
    /// Connections with a stream, a handler or a body left.
    pub(super) open: usize,
    /// Whether the server's future has ended.
    pub(super) ended: bool,
    /// Whether something was in flight at the cut, so that clients must be told.
    pub(super) cut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for a change, or at most this long.
    Wait(Duration),
    Enter(Phase),
    Done,
}

impl Plan {
    /// Returns how long the whole stop may take.
    pub(crate) fn bound(&self) -> Duration {
        self.grace.saturating_add(self.after_cut())
    }

    fn after_cut(&self) -> Duration {
        self.flush.saturating_add(self.kill_grace)
    }

    /// Shortens the plan to `left` in all. The phases after the cut keep their time, but at most a quarter of
    /// `left`.
    pub(crate) fn fit(&mut self, left: Duration) {
        if left == Duration::MAX || self.bound() <= left {
            return;
        }
        let kept = self.after_cut().min(left / 4);
        self.flush = self.flush.min(kept / 2);
        self.kill_grace = self.kill_grace.min(kept - self.flush);
        self.grace = self.grace.min(left - kept);
    }

    pub(super) fn next(&self, phase: Phase, seen: Seen) -> Next {
        match phase {
            Phase::Lingering => self.after_linger(seen),
            _ if seen.open == 0 && seen.ended => Next::Done,
            Phase::Draining => enter_after(self.grace, seen.elapsed, Phase::Flushing),
            Phase::Flushing if seen.open == 0 || !seen.cut => Next::Enter(Phase::Killing),
            Phase::Flushing => self.after_flush(seen),
            Phase::Killing => {
                let own = left(self.kill_grace, seen.in_phase);
                match own.zip(left(self.after_cut(), seen.since_cut)) {
                    Some((own, all)) => Next::Wait(own.min(all)),
                    None => Next::Done,
                }
            }
        }
    }

    /// As long as ever more of what was cut ends, the rest has its time too. The last half of the kill grace is
    /// for what has to be killed.
    fn after_flush(&self, seen: Seen) -> Next {
        let most = self.flush.saturating_add(self.kill_grace / 2);
        match (left(self.flush, seen.still), left(most, seen.since_cut)) {
            (Some(still), Some(most)) => Next::Wait(still.min(most)),
            _ => Next::Enter(Phase::Killing),
        }
    }

    /// Until the socket has been swept more connections may come, and a server that was told takes no more.
    fn after_linger(&self, seen: Seen) -> Next {
        if seen.ended || (seen.swept && seen.open == 0) {
            return Next::Enter(Phase::Draining);
        }
        let until = if seen.swept {
            self.linger.min(self.grace)
        } else {
            self.grace
        };
        enter_after(until, seen.elapsed, Phase::Draining)
    }

    /// The grace of an idle connection once the server knows of the stop, always short enough to end before the
    /// grace does.
    pub(super) fn idle_grace(&self) -> Duration {
        let drain = self.grace.saturating_sub(self.linger);
        self.idle_grace.min(drain / 2)
    }
}

fn enter_after(limit: Duration, elapsed: Duration, phase: Phase) -> Next {
    match left(limit, elapsed) {
        Some(left) => Next::Wait(left),
        None => Next::Enter(phase),
    }
}

fn left(limit: Duration, elapsed: Duration) -> Option<Duration> {
    limit.checked_sub(elapsed).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        grace: ms(5_000),
        linger: ms(200),
        idle_grace: ms(1_000),
        flush: ms(100),
        kill_grace: ms(1_000),
    };

    const BUSY: Seen = Seen {
        elapsed: ms(0),
        in_phase: ms(0),
        since_cut: ms(0),
        still: ms(0),
        swept: true,
        open: 1,
        ended: false,
        cut: true,
    };

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(elapsed: u64) -> Seen {
        Seen {
            elapsed: ms(elapsed),
            ..BUSY
        }
    }

    fn cut(since: u64) -> Seen {
        Seen {
            elapsed: ms(5_000 + since),
            in_phase: ms(since),
            since_cut: ms(since),
            still: ms(since),
            ..BUSY
        }
    }

    #[test]
    fn it_lingers_before_the_server_is_told() {
        let next = |seen| PLAN.next(Phase::Lingering, seen);

        assert_eq!(next(at(0)), Next::Wait(ms(200)));
        assert_eq!(next(at(150)), Next::Wait(ms(50)));
        assert_eq!(next(at(200)), Next::Enter(Phase::Draining));
    }

    #[test]
    fn without_a_connection_there_is_nothing_to_linger_for() {
        let empty = Seen { open: 0, ..BUSY };

        let next = PLAN.next(Phase::Lingering, empty);
        assert_eq!(next, Next::Enter(Phase::Draining));
    }

    #[test]
    fn a_socket_that_is_not_swept_is_waited_for_until_the_grace_is_over() {
        let unswept = |elapsed, open| Seen {
            swept: false,
            open,
            ..at(elapsed)
        };
        let next = |seen| PLAN.next(Phase::Lingering, seen);

        assert_eq!(next(unswept(300, 0)), Next::Wait(ms(4_700)));
        assert_eq!(next(unswept(300, 1)), Next::Wait(ms(4_700)));
        assert_eq!(next(unswept(5_000, 1)), Next::Enter(Phase::Draining));
    }

    #[test]
    fn a_plan_that_fits_is_left_as_it_is_and_another_fits_afterwards() {
        // What comes after the cut is more than a quarter of it.
        let plan = Plan {
            grace: ms(1_000),
            ..PLAN
        };
        let fitted = |left| {
            let mut plan = plan.clone();
            plan.fit(left);
            (plan.grace, plan.flush, plan.kill_grace, plan.bound())
        };
        let bound = plan.bound();
        let as_it_is = (plan.grace, plan.flush, plan.kill_grace, bound);
        for left in [bound, bound + ms(1), Duration::MAX] {
            assert_eq!(fitted(left), as_it_is, "{left:?}");
        }
        for left in [bound - ms(1), ms(500), ms(1), Duration::ZERO] {
            assert!(fitted(left).3 <= left, "{left:?}");
        }
    }

    #[test]
    fn the_linger_is_a_part_of_the_grace() {
        let plan = Plan {
            grace: ms(100),
            ..PLAN
        };

        assert_eq!(
            plan.next(Phase::Lingering, at(100)),
            Next::Enter(Phase::Draining)
        );
        assert_eq!(
            plan.next(Phase::Draining, at(100)),
            Next::Enter(Phase::Flushing)
        );
    }

    #[test]
    fn the_drain_ends_with_the_last_connection_and_the_server() {
        let left = |open, ended| Seen {
            open,
            ended,
            ..at(300)
        };
        let next = |seen| PLAN.next(Phase::Draining, seen);

        assert_eq!(next(left(0, true)), Next::Done);
        // Upgraded connections, which the server does not know of.
        assert_eq!(next(left(1, true)), Next::Wait(ms(4_700)));
        assert_eq!(next(left(0, false)), Next::Wait(ms(4_700)));
    }

    #[test]
    fn the_cut_comes_with_the_end_of_the_grace() {
        let next = |seen| PLAN.next(Phase::Draining, seen);

        assert_eq!(next(at(4_999)), Next::Wait(ms(1)));
        assert_eq!(next(at(5_000)), Next::Enter(Phase::Flushing));
        // A runtime that was blocked.
        assert_eq!(next(at(9_000)), Next::Enter(Phase::Flushing));
    }

    #[test]
    fn clients_of_cut_requests_have_time_to_be_told() {
        let next = |seen| PLAN.next(Phase::Flushing, seen);
        let empty = Seen { open: 0, ..cut(10) };

        assert_eq!(next(cut(0)), Next::Wait(ms(100)));
        assert_eq!(next(cut(100)), Next::Enter(Phase::Killing));
        assert_eq!(next(empty), Next::Enter(Phase::Killing));
    }

    #[test]
    fn as_long_as_clients_are_told_one_after_the_other_the_rest_is_not_killed() {
        let next = |since| {
            let seen = Seen {
                still: ms(20),
                ..cut(since)
            };
            PLAN.next(Phase::Flushing, seen)
        };

        assert_eq!(next(100), Next::Wait(ms(80)));
        assert_eq!(next(590), Next::Wait(ms(10)));
        assert_eq!(next(600), Next::Enter(Phase::Killing));
    }

    #[test]
    fn where_nothing_was_cut_no_client_has_to_be_told() {
        let idle = Seen {
            cut: false,
            ..cut(0)
        };

        let next = PLAN.next(Phase::Flushing, idle);
        assert_eq!(next, Next::Enter(Phase::Killing));
    }

    #[test]
    fn stuck_handlers_are_given_up() {
        let next = |seen| PLAN.next(Phase::Killing, seen);
        let killed = |in_phase| Seen {
            in_phase: ms(in_phase),
            ..cut(100 + in_phase)
        };
        let gone = Seen {
            open: 0,
            ended: true,
            ..cut(10)
        };

        assert_eq!(next(killed(0)), Next::Wait(ms(1_000)));
        assert_eq!(next(gone), Next::Done);
        assert_eq!(next(killed(1_000)), Next::Done);
    }

    #[test]
    fn a_stop_that_has_less_time_keeps_a_part_for_what_comes_after_the_cut() {
        let fit = |grace, left| {
            let mut plan = Plan { grace, ..PLAN };
            plan.fit(left);
            plan
        };

        assert_eq!(fit(ms(5_000), ms(60_000)), PLAN);
        assert_eq!(fit(ms(5_000), Duration::MAX), PLAN);
        assert_eq!(fit(Duration::MAX, Duration::MAX).grace, Duration::MAX);
        assert_eq!(fit(Duration::MAX, ms(60_000)).bound(), ms(60_000));
        for left in [0, 1, 100, 1_000, 4_000] {
            let plan = fit(ms(5_000), ms(left));
            assert_eq!(plan.bound(), ms(left));
            assert!(plan.grace >= ms(left) * 3 / 4);
        }
    }

    #[test]
    fn an_endless_grace_never_cuts() {
        let plan = Plan {
            grace: Duration::MAX,
            ..PLAN
        };

        assert!(matches!(
            plan.next(Phase::Draining, at(1 << 40)),
            Next::Wait(_)
        ));
        assert_eq!(plan.idle_grace(), PLAN.idle_grace);
    }

    #[test]
    fn idle_connections_are_gone_before_the_grace_is_over() {
        let plan = Plan {
            grace: ms(1_000),
            ..PLAN
        };

        assert_eq!(plan.idle_grace(), ms(400));
    }
}
