//! The gate around a server: it counts what is in flight, and at the end cuts what is left.
//!
//! A server is wrapped and not replaced. Three parts go into it (an acceptor that makes streams that
//! can be cut, and a service that puts each request and its body under the gate), and [`supervise`]
//! runs the whole through its stop.

mod label;
mod switch;
mod sequence;
mod conn;
mod io;
mod request;
mod acceptor;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::conn::Cut;
use self::sequence::{Next, Phase, Seen};
use crate::drain::Counts;

pub(crate) use self::acceptor::Acceptor;
pub(crate) use self::conn::{Conn, Gate, Limits};
pub(crate) use self::io::Io;
pub(crate) use self::request::{Request, Tracked};
pub(crate) use self::sequence::Plan;

/// How a server came to its end.
#[derive(Debug)]
pub(crate) enum Outcome<R> {
    /// It returned before it was asked to stop.
    Early(R),
    /// It was stopped; `Some` if it returned, and did not have to be dropped.
    Stopped(Counts, Option<R>),
}

/// Connections are looked at this often for one that has become idle.
const LOOK: Duration = Duration::from_millis(100);

/// How late a timer may be before that is called a runtime that was blocked.
const TIMER_IS_LATE: Duration = Duration::from_millis(100);

/// Runs `server` until `token` fires, and then through its stop.
///
/// `signal` is what the server itself is told to stop by. Whatever happens, and also when this future
/// is dropped, nothing of the server is left but what the counts call stuck: the server's future
/// is dropped first, then all else is cut.
pub(crate) async fn supervise<S: Future>(
    gate: Arc<Gate>,
    plan: &Plan,
    token: &CancellationToken,
    signal: CancellationToken,
    server: S,
) -> Outcome<S::Output> {
    let force = Force { gate, signal };
    let mut server = pin!(server);
    match token.run_until_cancelled(server.as_mut()).await {
        Some(end) => Outcome::Early(end),
        None => force.stop(plan, server).await,
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
    async fn stop<S: Future>(&self, plan: &Plan, mut server: Pin<&mut S>) -> Outcome<S::Output> {
        let mut stop = Stopping::begin(&self.gate, plan);
        let mut end = None;
        loop {
            match stop.next(end.is_some()) {
                Next::Done => return Outcome::Stopped(stop.counts(), end),
                Next::Enter(phase) => stop.enter(phase, &self.signal),
                Next::Wait(wait) => tokio::select! {
                    biased;
                    output = &mut server, if end.is_none() => end = Some(output),
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
    /// When the time was up and nothing was in flight.
    empty_at: Option<Instant>,
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
            requests_at_stop: gate.requests(),
            idle_cut: 0,
            cut: Cut::default(),
            empty_at: None,
        };
        gate.begin_stop(plan.grace);
        stopping
    }

    /// Decides what comes next. While it drains, idle connections are cut on the way.
    fn next(&mut self, ended: bool) -> Next {
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
            ended,
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
            Phase::Draining => signal.cancel(),
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
            took: self.took(),
            paths: self.cut.paths,
            drain: self.plan.grace,
        }
    }

    /// A drain at whose deadline nothing was in flight was over by then, if somebody looked in time.
    fn took(&self) -> Duration {
        let took = self.stop.elapsed();
        let in_time = self.plan.grace.saturating_add(TIMER_IS_LATE);
        match self.empty_at {
            Some(empty_at) if empty_at - self.stop <= in_time => took.min(self.plan.grace),
            _ => took,
        }
    }
}
