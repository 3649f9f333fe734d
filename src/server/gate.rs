//! The gate around a server. It counts what is in flight, and cuts what is left at the end.
//!
//! An acceptor makes streams that can be cut, and [`engine`] answers the requests on them. Each request and its
//! body is under the gate. [`supervise`] runs the whole through its stop.

mod label;
mod crowd;
mod running;
mod sequence;
pub(crate) mod options;
mod conn;
mod request;
mod farewell;
mod body;
mod answer;
mod busy;
mod io;
mod incoming;
mod handshake;
mod keeper;
mod last_call;
mod acceptor;
pub(crate) mod engine;
mod end;

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::conn::{Cut, Look};
use self::sequence::{Next, Phase, Seen};
use crate::group::log;
use crate::group::time::Rounded;
use crate::group::turn::turn;
use crate::server::drain::Counts;
use crate::server::lame_duck::LameDuck;
use crate::server::stop_signal::{Limit, Parts};

pub use self::acceptor::Acceptor;
pub(crate) use self::answer::Protocol;
pub use self::busy::Busy;
pub(crate) use self::conn::Gate;
pub(crate) use self::end::{OnReport, Outcome, conclude, limited};
pub(crate) use self::handshake::Handshake;
pub use self::incoming::Incoming;
pub use self::io::Io;
pub(crate) use self::sequence::Plan;

/// How often connections are checked for idleness.
const LOOK: Duration = Duration::from_millis(100);

/// How many tasks are woken before the others on the thread have a turn.
const AT_ONCE: usize = 32;

/// How late a timer may be before the runtime counts as blocked.
const TIMER_IS_LATE: Duration = Duration::from_millis(100);

/// Waits until a server has to stop, that is, until its token has fired and its lame duck is over.
pub(crate) async fn serving(
    name: &str,
    gate: &Gate,
    stop: &Parts,
    lame_duck: &LameDuck,
    is_of_others: impl Fn() -> bool,
) {
    told(gate, stop).await;
    if is_of_others() {
        // Another process accepts on the sockets, so clients notice nothing.
        gate.leave();
        return;
    }
    let length = lame_duck.length();
    if !length.is_zero() && !lame_duck.is_skipped() {
        log::guarded(
            || tracing::info!(target: "taskgroup", "server `{name}` goes on serving for {}, as a lame duck", Rounded(length)),
        );
    }
    lame_duck.half().await;
    gate.leave();
    lame_duck.over().await;
}

/// Waits for the token. The lame duck of an enclosing lifecycle comes before that.
async fn told(gate: &Gate, stop: &Parts) {
    if let Some(leaving) = &stop.leaving {
        let leaving = stop.token.run_until_cancelled(leaving.cancelled());
        if leaving.await.is_some() {
            gate.leave();
        }
    }
    stop.token.cancelled().await;
}

/// Runs `server` until `serving` is over, and then through its stop.
///
/// `limit` has the deadline of the whole, which is known then and may come nearer later. `signal` tells the server
/// itself to stop. Whatever happens, and also when this future is dropped, only what
/// the counts call stuck is left of the server. The server's future is dropped first, then all else is cut.
pub(crate) async fn supervise<S: Future>(
    gate: Arc<Gate>,
    plan: &mut Plan,
    limit: &Limit,
    serving: impl Future<Output = ()>,
    signal: CancellationToken,
    server: S,
) -> Outcome<S::Output> {
    let force = Force { gate, signal };
    let mut server = pin!(server);
    tokio::select! {
        biased;
        () = serving => force.stop(plan, limit, server).await,
        end = &mut server => {
            force.now(plan).await;
            Outcome::Early(end)
        }
    }
}

/// Forces the server down when it is dropped.
#[derive(Debug)]
struct Force {
    gate: Arc<Gate>,
    signal: CancellationToken,
}

impl Drop for Force {
    fn drop(&mut self) {
        self.signal.cancel();
        self.gate.force();
    }
}

impl Force {
    /// Waits for what was cut to end, for the kill grace at most.
    async fn now(&self, plan: &Plan) {
        self.signal.cancel();
        self.gate.force();
        let gone = async {
            while self.gate.open() > 0 {
                self.gate.changed().await;
            }
        };
        // What is left then is stuck, which cannot be reported without a drain.
        let _ = timeout(plan.kill_grace, gone).await;
    }

    async fn stop<S: Future>(
        &self,
        plan: &mut Plan,
        limit: &Limit,
        mut server: Pin<&mut S>,
    ) -> Outcome<S::Output> {
        let mut stop = Stopping::begin(&self.gate, plan, limit.of_server());
        let mut end = None;
        loop {
            let nearer = limit.changed();
            stop.fit(limit.of_server());
            stop.work();
            match stop.next() {
                Next::Done => return Outcome::Stopped(stop.counts(), end),
                Next::Enter(phase) => stop.enter(phase, &self.signal),
                Next::Wait(wait) => tokio::select! {
                    biased;
                    output = &mut server, if end.is_none() => {
                        end = Some(output);
                        stop.ended_at = Some(Instant::now());
                    }
                    () = self.gate.changed(), if !stop.is_busy() => {}
                    () = nearer => {}
                    () = pause(stop.is_busy(), wait) => {}
                },
            }
        }
    }
}

/// Waits for the others on this thread, or so long.
async fn pause(is_busy: bool, wait: Duration) {
    if is_busy {
        turn().await;
    } else {
        sleep(wait).await;
    }
}

/// A stop that has begun.
#[derive(Debug)]
struct Stopping<'a> {
    gate: &'a Gate,
    plan: &'a mut Plan,
    stop: Instant,
    phase: Phase,
    entered: Instant,
    /// What has to be done for each connection, and the first place for which it has not been done.
    errands: VecDeque<(Errand, usize)>,
    /// The keys of connections that may have become idle.
    to_look_at: Vec<usize>,
    /// The keys of those that were idle, or did not read, and when to look at them again.
    idle: Vec<usize>,
    look_at: Option<Instant>,
    /// How much had ended at the last look, and when that number last changed.
    ended: (usize, Instant),
    connections_at_stop: usize,
    requests_at_stop: usize,
    idle_cut: usize,
    cut: Cut,
    cut_at: Option<Instant>,
    /// When the time was up, if nothing was in flight then.
    empty_at: Option<Instant>,
    /// When the server's future ended.
    ended_at: Option<Instant>,
}

/// What is done for a few connections at a time, so that everything else on the thread has its turn. Thousands
/// that are woken in one go would be polled before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    /// Wakes the handlers that wait for the stop.
    TellHandlers,
    /// Wakes the connections, which have been told.
    TellConnections,
    /// Looks at connections that may be idle.
    Look,
    CutWork,
    CutAll,
}

impl Errand {
    /// Whether the phase is not over before it is done.
    fn is_cut(self) -> bool {
        matches!(self, Self::CutWork | Self::CutAll)
    }
}

impl<'a> Stopping<'a> {
    fn begin(gate: &'a Gate, plan: &'a mut Plan, deadline: Option<Instant>) -> Self {
        let now = Instant::now();
        let mut stopping = Self {
            gate,
            plan,
            stop: now,
            phase: Phase::Lingering,
            entered: now,
            errands: VecDeque::from([(Errand::TellHandlers, 0)]),
            to_look_at: Vec::new(),
            idle: Vec::new(),
            look_at: None,
            ended: (0, now),
            connections_at_stop: gate.open(),
            requests_at_stop: gate.count_at_stop(),
            idle_cut: 0,
            cut: Cut::default(),
            cut_at: None,
            empty_at: None,
            ended_at: None,
        };
        stopping.fit(deadline);
        gate.begin_stop(stopping.plan.grace);
        stopping
    }

    /// Shortens what is left of the stop so that it is over at `deadline`.
    fn fit(&mut self, deadline: Option<Instant>) {
        if let (Some(deadline), Phase::Lingering | Phase::Draining) = (deadline, self.phase) {
            self.plan.fit(deadline.saturating_duration_since(self.stop));
        }
    }

    /// Does a part of what has to be done.
    fn work(&mut self) {
        let Some((errand, from)) = self.errands.pop_front() else {
            return;
        };
        let rest = match errand {
            Errand::TellHandlers => self.gate.tell_handlers(from, AT_ONCE),
            Errand::TellConnections => self.gate.told.wake(from, AT_ONCE),
            Errand::Look => self.look_at_some(),
            Errand::CutWork => self.cut_work(from),
            Errand::CutAll => self.gate.cut_all(from, AT_ONCE),
        };
        match rest {
            Some(from) => self.errands.push_front((errand, from)),
            None if errand == Errand::CutWork => {
                self.idle_cut += self.cut.idle;
                self.empty_at = self.cut_at.filter(|_| self.cut.is_empty());
            }
            None => {}
        }
        if errand.is_cut() {
            self.ended.1 = Instant::now();
        }
    }

    fn is_busy(&self) -> bool {
        !self.errands.is_empty()
    }

    /// Decides what comes next.
    fn next(&mut self) -> Next {
        let now = Instant::now();
        let ended = self.gate.ended();
        let is_cutting = self.errands.iter().any(|(errand, _)| errand.is_cut());
        if is_cutting {
            return Next::Wait(Duration::ZERO);
        }
        if ended != self.ended.0 {
            self.ended = (ended, now);
        }
        let look = match self.phase {
            Phase::Draining => self.look(now),
            Phase::Lingering | Phase::Flushing | Phase::Killing => Duration::MAX,
        };
        let seen = Seen {
            elapsed: now - self.stop,
            in_phase: now - self.entered,
            since_cut: self.cut_at.map_or(Duration::ZERO, |cut_at| now - cut_at),
            still: now - self.ended.1,
            swept: self.gate.swept().is_some(),
            open: self.gate.open(),
            ended: self.ended_at.is_some(),
            cut: self.empty_at.is_none(),
        };
        match self.plan.next(self.phase, seen) {
            Next::Wait(wait) => Next::Wait(wait.min(look)),
            next => next,
        }
    }

    fn enter(&mut self, phase: Phase, signal: &CancellationToken) {
        match phase {
            Phase::Lingering => {}
            Phase::Draining => {
                signal.cancel();
                self.gate.told.raise();
                self.errands.push_back((Errand::TellConnections, 0));
                self.to_look_at = self.gate.keys().collect();
            }
            Phase::Flushing => {
                self.cut_at = Some(Instant::now());
                // A handler that has never waited has left its name only there.
                self.cut.paths = self.gate.running();
                self.errands = VecDeque::from([(Errand::CutWork, 0)]);
            }
            Phase::Killing => {
                self.gate.shut();
                self.errands = VecDeque::from([(Errand::CutAll, 0)]);
            }
        }
        self.phase = phase;
        self.entered = Instant::now();
    }

    fn cut_work(&mut self, from: usize) -> Option<usize> {
        let (conns, rest) = self.gate.conns(from, AT_ONCE);
        conns.iter().for_each(|conn| self.cut.cut(conn));
        rest
    }

    /// Begins to look at connections that may be idle, if there is a reason, and returns when there will be one.
    fn look(&mut self, now: Instant) -> Duration {
        self.to_look_at.extend(self.gate.take_quiet());
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            self.idle.sort_unstable();
            self.idle.dedup();
            self.to_look_at.append(&mut self.idle);
        }
        let is_looking = self.errands.contains(&(Errand::Look, 0));
        if !self.to_look_at.is_empty() && !is_looking {
            self.errands.push_back((Errand::Look, 0));
        }
        let until = |at: Instant| at.saturating_duration_since(now);
        self.look_at.map_or(Duration::MAX, until)
    }

    /// Cuts connections whose idle grace is over. The busy ones are not looked at again until they are not.
    fn look_at_some(&mut self) -> Option<usize> {
        let now = Instant::now();
        let rest = self.to_look_at.len().saturating_sub(AT_ONCE);
        let keys = self.to_look_at.split_off(rest);
        for conn in self.gate.with_keys(&keys) {
            match conn.look(now, self.plan.idle_grace()) {
                Look::Busy => {}
                Look::Again(until) => {
                    let times = [self.look_at, until, Some(now + LOOK)];
                    self.look_at = times.into_iter().flatten().min();
                    self.idle.push(conn.key());
                }
                Look::Over if conn.stream.is_fired() => {}
                // A request that begins in this moment keeps it open.
                Look::Over if !conn.cut_if_idle() => {
                    self.look_at = [self.look_at, Some(now + LOOK)].into_iter().flatten().min();
                    self.idle.push(conn.key());
                }
                Look::Over => self.idle_cut += 1,
            }
        }
        (rest > 0).then_some(0)
    }

    fn counts(self) -> Counts {
        let (stuck, unended) = self.gate.left();
        let stuck_paths = if stuck > 0 {
            self.gate.running()
        } else {
            Vec::new()
        };
        Counts {
            connections_at_stop: self.connections_at_stop + self.gate.swept().unwrap_or(0),
            requests_at_stop: self.requests_at_stop,
            answered: self.gate.answered(),
            idle_cut: self.idle_cut,
            requests_cut: self.cut.requests,
            connections_cut: self.cut.connections,
            upgrades_cut: self.cut.upgrades,
            stuck,
            stuck_paths,
            unended,
            panicked: self.gate.panicked(),
            took: self.took(),
            paths: self.cut.paths,
            drain: self.plan.grace,
        }
    }

    /// If nothing was in flight at the deadline, and the server had ended, the drain was over by then, provided
    /// that this was checked in time.
    fn took(&self) -> Duration {
        let took = self.stop.elapsed();
        let in_time = self.plan.grace.saturating_add(TIMER_IS_LATE);
        let last = self.empty_at.zip(self.ended_at);
        match last.map(|(empty_at, ended_at)| empty_at.max(ended_at)) {
            Some(last) if last - self.stop <= in_time => took.min(self.plan.grace),
            _ => took,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use super::options::Options;
    use crate::server::switch::{Seat, Switch};

    const PLAN: Plan = Plan {
        grace: Duration::from_secs(5),
        linger: Duration::from_millis(200),
        idle_grace: Duration::from_secs(1),
        flush: Duration::from_millis(100),
        kill_grace: Duration::from_secs(1),
    };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn counted() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn firing_wakes_each_that_is_pending_once() {
        let switch = Switch::new();
        let (count, waker) = counted();
        let cx = Context::from_waker(&waker);
        let mut seats = [Seat::default(), Seat::default()];
        for seat in &mut seats {
            assert!(!switch.watch(seat, &cx, || ()));
            assert!(!switch.watch(seat, &cx, || ()));
        }

        switch.fire();
        switch.fire();

        assert_eq!(count.get(), 2);
        assert!(switch.watch(&mut seats[0], &cx, || ()));
    }

    #[test]
    fn a_late_waiter_sees_that_it_has_fired() {
        let switch = Switch::new();
        switch.fire();

        let cx = Context::from_waker(Waker::noop());
        assert!(switch.watch(&mut Seat::default(), &cx, || ()));
    }

    #[test]
    fn a_task_that_moved_is_woken_by_its_last_waker_only() {
        let switch = Switch::new();
        let (first, first_waker) = counted();
        let (last, last_waker) = counted();
        let mut seat = Seat::default();
        switch.watch(&mut seat, &Context::from_waker(&first_waker), || ());
        switch.watch(&mut seat, &Context::from_waker(&last_waker), || ());

        switch.fire();

        assert_eq!(first.get(), 0);
        assert_eq!(last.get(), 1);
    }

    #[test]
    fn a_departed_waiter_is_not_woken_and_its_place_is_used_again() {
        let switch = Switch::new();
        let (count, waker) = counted();
        let cx = Context::from_waker(&waker);
        let mut seat = Seat::default();
        switch.watch(&mut seat, &cx, || "first");
        switch.leave(&mut seat);
        assert!(switch.pending(|what| *what).is_empty());
        switch.watch(&mut seat, &cx, || "second");

        assert_eq!(switch.pending(|what| *what), ["second"]);
        switch.leave(&mut seat);
        switch.fire();
        assert_eq!(count.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn r19_a_server_that_returns_before_the_stop_is_early_and_its_gate_is_shut() {
        let gate = Gate::new(Options::default());
        let signal = CancellationToken::new();
        let conn = gate.register(None);

        let outcome = supervise(
            gate.clone(),
            &mut PLAN.clone(),
            &Limit::default(),
            pending(),
            signal.clone(),
            ready("end"),
        )
        .await;

        assert!(matches!(outcome, Outcome::Early("end")));
        assert!(signal.is_cancelled());
        assert!(conn.stream.is_fired() && conn.work.is_fired());
        assert!(gate.register(None).stream.is_fired());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_end_is_dropped_after_all_its_graces() {
        let gate = Gate::new(Options::default());
        let signal = CancellationToken::new();
        let begin = Instant::now();

        let outcome = supervise(
            gate,
            &mut PLAN.clone(),
            &Limit::default(),
            ready(()),
            signal,
            pending::<()>(),
        )
        .await;

        assert_eq!(begin.elapsed(), Duration::from_secs(6));
        let Outcome::Stopped(counts, None) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(counts.took, Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_comes_nearer_during_the_stop_shortens_what_is_left_of_it() {
        let gate = Gate::new(Options::default());
        let (limit, begin) = (Limit::to_be_set(), Instant::now());
        limit.set(Some(begin + Duration::from_secs(60)));
        let mut plan = PLAN.clone();
        let signal = CancellationToken::new();
        let server = pending::<()>();
        let supervised = supervise(gate, &mut plan, &limit, ready(()), signal, server);
        let hurry = async {
            sleep(Duration::from_secs(1)).await;
            limit.set(Some(Instant::now() + Duration::from_secs(1)));
        };

        let (outcome, ()) = tokio::join!(supervised, hurry);

        let Outcome::Stopped(counts, None) = outcome else {
            panic!("{outcome:?}");
        };
        let took = counts.took;
        assert_eq!(took, begin.elapsed());
        assert!(
            Duration::from_millis(1800) < took && took < Duration::from_secs(2),
            "{took:?}"
        );
        assert!(plan.grace < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn r04_a_server_that_ends_after_its_grace_has_taken_that_long() {
        let gate = Gate::new(Options::default());
        let signal = CancellationToken::new();
        let late = Duration::from_millis(5_900);

        let (plan, limit) = (&mut PLAN.clone(), &Limit::default());
        let outcome = supervise(gate, plan, limit, ready(()), signal, sleep(late)).await;

        let Outcome::Stopped(counts, Some(())) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(counts.took, late);
    }
}
