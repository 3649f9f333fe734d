//! [`Keeper`]: drives one connection of the engine, and tells it to end when it is time.
//!
//! Four things end a connection before its peer does. The gate tells all of them at the stop. A connection that
//! is idle for too long, or gives way to a client that waits, is told because no client uses it. And one that is too
//! old is told so that its peer makes a new one.
//!
//! Whatever the reason, the connection is polled first. So data that have arrived are read before a clock counts,
//! even if the clock is late because the runtime was blocked. HTTP/1 runs in this task alone, and a request that
//! is read there is in flight before this decides.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::conn::Conn;
use super::options::FLUSH;
use crate::group::random::Random;
use crate::server::switch::Seat;

/// A part of the maximal age, in both directions.
const JITTER: f64 = 0.1;

pub(super) struct Keeper {
    seat: Seat,
    is_told: bool,
    phase: Phase,
    /// When the phase is over.
    timer: Option<Pin<Box<Sleep>>>,
    conn: Arc<Conn>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// It may become too old.
    Young,
    /// It is too old. `begun` is the number of requests that had begun when its grace began.
    Old { begun: u32 },
    /// It was told because no client uses it, and should be gone soon.
    Leaving,
    /// Its requests were cut, and their clients are told.
    Cut,
}

impl Keeper {
    pub(super) fn new(conn: &Arc<Conn>) -> Self {
        let age = conn.gate().options().max_age;
        Self {
            seat: Seat::default(),
            is_told: false,
            phase: Phase::Young,
            timer: age.map(|age| Box::pin(sleep(jittered(age)))),
            conn: Arc::clone(conn),
        }
    }

    /// Polls the connection to its end. `tell` makes it end after what is in flight.
    pub(super) async fn drive<C: Future>(
        &mut self,
        mut connection: Pin<&mut C>,
        tell: impl Fn(Pin<&mut C>),
    ) -> C::Output {
        poll_fn(|cx| {
            self.conn.set_polled(true);
            let mut end = connection.as_mut().poll(cx);
            if end.is_pending() && self.is_told_now(cx) {
                tell(connection.as_mut());
                end = connection.as_mut().poll(cx);
            }
            self.conn.set_polled(false);
            end
        })
        .await
    }

    /// Called when the connection waits.
    #[inline]
    fn is_told_now(&mut self, cx: &mut Context<'_>) -> bool {
        let by_the_gate = !self.is_told && self.conn.gate().told.watch(&mut self.seat, cx, || ());
        if !by_the_gate && self.timer.is_none() && !self.conn.has_news() {
            return false;
        }
        self.look(by_the_gate, cx)
    }

    #[cold]
    fn look(&mut self, by_the_gate: bool, cx: &mut Context<'_>) -> bool {
        let mut tell = by_the_gate;
        self.conn.rest();
        let expired = self.conn.take_expired();
        let gives_way = self.conn.take_asked();
        if expired || gives_way {
            tell = true;
            self.phase = Phase::Leaving;
            self.timer = self.leaving();
        }
        while self.rang(cx) {
            tell |= self.over();
        }
        if let Phase::Old { .. } = self.phase {
            if self.timer.is_none() && self.conn.requests() > 0 {
                self.grow_old();
                // For its waker.
                let _ = self.rang(cx);
            }
        }
        let is_new = tell && !self.is_told;
        self.is_told |= tell;
        is_new
    }

    /// Ends a phase, and returns whether the connection is to be told.
    fn over(&mut self) -> bool {
        let conn = &self.conn;
        match self.phase {
            Phase::Young => {
                conn.set_old();
                self.grow_old();
                // HTTP/1 says so in its next answer. Its peer may have sent a request, and must not be left
                // without an answer.
                return self.conn.is_http2();
            }
            Phase::Old { begun } => {
                let is_over = conn.is_http2() || begun == conn.begun();
                if conn.requests() > 0 && is_over {
                    conn.work.fire();
                    self.phase = Phase::Cut;
                    self.timer = Some(Box::pin(sleep(FLUSH)));
                } else if conn.is_http2() {
                    conn.cut_if_idle();
                }
            }
            Phase::Leaving => {
                if !conn.cut_if_idle() {
                    self.timer = self.leaving();
                }
            }
            Phase::Cut if conn.upgrades() == 0 => conn.stream.fire(),
            Phase::Cut => {}
        }
        false
    }

    fn grow_old(&mut self) {
        let begun = self.conn.begun();
        self.phase = Phase::Old { begun };
        // An idle connection over HTTP/1 stays, and has its grace when it has a request again.
        if self.conn.is_http2() || self.conn.requests() > 0 {
            let grace = self.conn.gate().options().age_grace;
            self.timer = grace.map(|grace| Box::pin(sleep(grace)));
        }
    }

    fn leaving(&self) -> Option<Pin<Box<Sleep>>> {
        const LEAST: Duration = Duration::from_millis(10);
        let grace = self.conn.gate().options().idle_grace.max(LEAST);
        Some(Box::pin(sleep(grace)))
    }

    /// Returns whether the timer has gone off, and removes it then.
    fn rang(&mut self, cx: &mut Context<'_>) -> bool {
        let timer = self.timer.as_mut();
        let rang = timer.is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
        if rang {
            self.timer = None;
        }
        rang
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.conn.gate().told.leave(&mut self.seat);
    }
}

fn jittered(age: Duration) -> Duration {
    let factor = 1.0 - JITTER + 2.0 * JITTER * Random::new(None).draw();
    Duration::try_from_secs_f64(age.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_a_tenth_more_or_less_at_most() {
        let age = Duration::from_secs(100);
        let ages: Vec<_> = (0..1000).map(|_| jittered(age)).collect();
        let (least, most) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(Duration::from_secs(90) <= *least && *least < Duration::from_secs(92));
        assert!(Duration::from_secs(108) < *most && *most <= Duration::from_secs(110));
        assert!(jittered(Duration::MAX) >= Duration::MAX / 2);
    }
}
