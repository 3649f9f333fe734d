//! The gate around a server. It counts what is in flight, and cuts what is left at the end.
//!
//! An acceptor makes streams that can be cut, and [`engine`] answers the requests on them. Each request and its
//! body is under the gate. [`supervise`] runs the whole through its stop.

mod label;
mod sync;
mod switch;
mod sequence;
pub(crate) mod options;
mod conn;
mod request;
mod farewell;
mod body;
mod answer;
mod io;
mod incoming;
mod handshake;
mod last_call;
mod acceptor;
pub(crate) mod engine;
mod end;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::conn::Cut;
use self::sequence::{Next, Phase, Seen};
use crate::group::log;
use crate::group::time::Rounded;
use crate::server::drain::Counts;
use crate::server::lame_duck::LameDuck;
use crate::server::stop_signal::Parts;

pub use self::acceptor::Acceptor;
pub(crate) use self::answer::Protocol;
pub(crate) use self::conn::Gate;
pub(crate) use self::end::{OnReport, Outcome, conclude, limited};
pub(crate) use self::handshake::Handshake;
pub use self::incoming::Incoming;
pub use self::io::Io;
pub(crate) use self::sequence::Plan;

/// How often connections are checked for idleness.
const LOOK: Duration = Duration::from_millis(100);

/// How late a timer may be before the runtime counts as blocked.
const TIMER_IS_LATE: Duration = Duration::from_millis(100);

/// Waits until a server has to stop, that is, until its token has fired and its lame duck is over. Returns the
/// time left for the stop, if that is limited.
pub(crate) async fn serving(
    name: &str,
    gate: &Gate,
    stop: &Parts,
    lame_duck: &LameDuck,
    is_anothers: impl Fn() -> bool,
) -> Option<Duration> {
    told(gate, stop).await;
    if is_anothers() {
        // Nobody has to notice, because another process accepts on the sockets.
        gate.leave();
        return stop.limit.left();
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
    stop.limit.left()
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
/// `signal` tells the server itself to stop. Whatever happens, and also when this future is dropped, only what
/// the counts call stuck is left of the server. The server's future is dropped first, then all else is cut.
pub(crate) async fn supervise<S: Future>(
    gate: Arc<Gate>,
    plan: &mut Plan,
    serving: impl Future<Output = Option<Duration>>,
    signal: CancellationToken,
    server: S,
) -> Outcome<S::Output> {
    let force = Force { gate, signal };
    let mut server = pin!(server);
    tokio::select! {
        biased;
        left = serving => {
            plan.fit(left.unwrap_or(Duration::MAX));
            force.stop(plan, server).await
        }
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
        self.gate.shut();
    }
}

impl Force {
    /// Waits for what was cut to end, for the kill grace at most.
    async fn now(&self, plan: &Plan) {
        self.signal.cancel();
        self.gate.shut();
        let gone = async {
            while self.gate.open() > 0 {
                self.gate.changed().await;
            }
        };
        // What is left then is stuck, which cannot be reported without a drain.
        let _ = timeout(plan.kill_grace, gone).await;
    }

    async fn stop<S: Future>(&self, plan: &Plan, mut server: Pin<&mut S>) -> Outcome<S::Output> {
        let mut stop = Stopping::begin(&self.gate, plan);
        let mut end = None;
        loop {
            match stop.next() {
                Next::Done => return Outcome::Stopped(stop.counts(), end),
                Next::Enter(phase) => stop.enter(phase, &self.signal),
                Next::Wait(wait) => tokio::select! {
                    biased;
                    output = &mut server, if end.is_none() => {
                        end = Some(output);
                        stop.ended_at = Some(Instant::now());
                    }
                    () = self.gate.changed() => {}
                    () = sleep(wait) => {}
                },
            }
        }
    }
}

/// A stop that has begun.
#[derive(Debug)]
struct Stopping<'a> {
    gate: &'a Gate,
    plan: &'a Plan,
    stop: Instant,
    phase: Phase,
    entered: Instant,
    connections_at_stop: usize,
    requests_at_stop: usize,
    idle_cut: usize,
    cut: Cut,
    /// When the time was up, if nothing was in flight then.
    empty_at: Option<Instant>,
    /// When the server's future ended.
    ended_at: Option<Instant>,
}

impl<'a> Stopping<'a> {
    fn begin(gate: &'a Gate, plan: &'a Plan) -> Self {
        let now = Instant::now();
        let stopping = Self {
            gate,
            plan,
            stop: now,
            phase: Phase::Lingering,
            entered: now,
            connections_at_stop: gate.open(),
            requests_at_stop: gate.count_at_stop(),
            idle_cut: 0,
            cut: Cut::default(),
            empty_at: None,
            ended_at: None,
        };
        gate.begin_stop(plan.grace);
        stopping
    }

    /// Decides what comes next. In the drain it also cuts idle connections.
    fn next(&mut self) -> Next {
        let now = Instant::now();
        let look = match self.phase {
            Phase::Draining => self.cut_idle(now),
            Phase::Lingering | Phase::Flushing | Phase::Killing => Duration::MAX,
        };
        let seen = Seen {
            elapsed: now - self.stop,
            in_phase: now - self.entered,
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
        let now = Instant::now();
        match phase {
            Phase::Lingering => {}
            Phase::Draining => {
                signal.cancel();
                self.gate.told.fire();
            }
            Phase::Flushing => {
                self.cut = self.gate.cut_work();
                self.idle_cut += self.cut.idle;
                self.empty_at = self.cut.is_empty().then_some(now);
            }
            Phase::Killing => self.gate.shut(),
        }
        self.phase = phase;
        self.entered = now;
    }

    fn cut_idle(&mut self, now: Instant) -> Duration {
        let (cut, again) = self.gate.cut_idle(now, self.plan.idle_grace());
        self.idle_cut += cut;
        again.map_or(LOOK, |again| LOOK.min(again - now))
    }

    fn counts(self) -> Counts {
        Counts {
            connections_at_stop: self.connections_at_stop + self.gate.swept().unwrap_or(0),
            requests_at_stop: self.requests_at_stop,
            answered: self.gate.answered(),
            idle_cut: self.idle_cut,
            requests_cut: self.cut.requests,
            connections_cut: self.cut.connections,
            upgrades_cut: self.cut.upgrades,
            stuck: self.gate.stuck(),
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
    use super::switch::{Seat, Switch};

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
            ready(None),
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
    async fn r04_a_server_that_ends_after_its_grace_has_taken_that_long() {
        let gate = Gate::new(Options::default());
        let signal = CancellationToken::new();
        let late = Duration::from_millis(5_900);

        let outcome = supervise(gate, &mut PLAN.clone(), ready(None), signal, sleep(late)).await;

        let Outcome::Stopped(counts, Some(())) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(counts.took, late);
    }
}
