//! What became of the requests of all clients.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;

#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counts>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Sent, and as yet neither answered nor lost.
    in_flight: u64,
    /// Answered with a status below 400.
    served: u64,
    /// Answered with any other.
    refused: u64,
    /// Sent and never answered.
    lost: u64,
    /// What was in flight when the signal was sent.
    in_flight_at_signal: u64,
    sent_at_signal: u64,
    /// The ids of the orders that were acknowledged.
    pub(crate) orders: Vec<i64>,
}

impl Tally {
    pub(crate) fn begin(&self) {
        self.lock().in_flight += 1;
    }

    pub(crate) fn never_sent(&self) {
        self.lock().in_flight -= 1;
    }

    pub(crate) fn lost(&self) {
        let mut counts = self.lock();
        counts.in_flight -= 1;
        counts.lost += 1;
    }

    pub(crate) fn answered(&self, status: StatusCode) {
        let mut counts = self.lock();
        counts.in_flight -= 1;
        if status.as_u16() < 400 {
            counts.served += 1;
        } else {
            counts.refused += 1;
        }
    }

    pub(crate) fn ordered(&self, id: i64) {
        self.lock().orders.push(id);
    }

    pub(crate) fn signal_is_sent(&self) {
        let mut counts = self.lock();
        counts.in_flight_at_signal = counts.in_flight;
        counts.sent_at_signal = counts.sent();
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    pub(crate) fn so_far(&self) -> String {
        format!(
            "{} requests sent, {} of them in flight",
            self.sent(),
            self.in_flight
        )
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    fn answered(&self) -> u64 {
        self.served + self.refused
    }

    fn sent(&self) -> u64 {
        self.answered() + self.lost + self.in_flight
    }

    /// What went wrong; empty when nothing did.
    fn complaints(&self) -> impl Iterator<Item = String> {
        [
            (self.refused, "were answered with an error"),
            (
                self.lost,
                "were sent, and their connection was closed without an answer",
            ),
            (self.in_flight, "are still waiting for an answer"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, answered, lost) = (self.sent(), self.answered(), self.lost);
        writeln!(f, "requests  {sent} sent, {answered} answered, {lost} lost")?;
        writeln!(
            f,
            "          {} were in flight at SIGTERM, {} came after it",
            self.in_flight_at_signal,
            self.sent().saturating_sub(self.sent_at_signal)
        )?;
        for complaint in self.complaints() {
            writeln!(f, "          {complaint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_answered_lost_or_in_flight() {
        let tally = Tally::default();
        for _ in 0..5 {
            tally.begin();
        }
        assert_eq!(
            tally.counts().so_far(),
            "5 requests sent, 5 of them in flight"
        );
        tally.signal_is_sent();
        tally.begin();
        tally.begin();
        tally.answered(StatusCode::CREATED);
        tally.answered(StatusCode::BAD_GATEWAY);
        tally.lost();
        tally.never_sent();
        let report = "\
requests  6 sent, 2 answered, 1 lost
          5 were in flight at SIGTERM, 1 came after it
          1 were answered with an error
          1 were sent, and their connection was closed without an answer
          3 are still waiting for an answer
";
        assert_eq!(tally.counts().to_string(), report);
    }
}
