//! [`Act`]: tells repeats of a request to stop from the signals that insist on it.

use std::time::Duration;
use std::time::Instant;

use crate::group::signal::Signal;

/// How long after the first signal a second one starts to count.
const PAUSE: Duration = Duration::from_millis(300);

/// The state of a terminating set.
#[derive(Debug)]
pub(super) struct Act {
    /// For how long after a signal that counts all others belong to the same act.
    pub(super) pause: Duration,
    pub(super) insists: Vec<Signal>,
    /// Whether the second signal forces the stop, and only the third one ends the process.
    pub(super) escalates: bool,
    /// When the last signal that counts came.
    last: Option<Instant>,
    asked: Asked,
}

/// The requests that the process has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Stop,
    Force,
}

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The process is asked to stop.
    First,
    /// A repeat, by the same act or by a signal that cannot insist.
    Same,
    /// The process has to cut what is left, clean up and end.
    Forces,
    /// The process has to end at once.
    Insists,
}

impl Act {
    pub(super) fn new(insists: Vec<Signal>) -> Self {
        Self {
            pause: PAUSE,
            insists,
            escalates: false,
            last: None,
            asked: Asked::Nothing,
        }
    }

    pub(super) fn arrive(&mut self, signal: Signal, now: Instant) -> Meaning {
        let same = |last| now.saturating_duration_since(last) < self.pause;
        if self.last.is_some_and(same) {
            return Meaning::Same;
        }
        let (asked, meaning) = match self.asked {
            Asked::Nothing => (Asked::Stop, Meaning::First),
            _ if !self.insists.contains(&signal) => return Meaning::Same,
            Asked::Stop if self.escalates => (Asked::Force, Meaning::Forces),
            Asked::Stop | Asked::Force => return Meaning::Insists,
        };
        self.asked = asked;
        self.last = Some(now);
        meaning
    }

    /// Returns the signals that can ever insist.
    pub(super) fn insisting(&self) -> Vec<Signal> {
        match self.pause {
            Duration::MAX => Vec::new(),
            _ => self.insists.clone(),
        }
    }

    /// Makes the next signal a first one again, unless it still belongs to the act before.
    pub(super) fn start_over(&mut self) {
        self.asked = Asked::Nothing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Signal::Interrupt;
    use Signal::Terminate;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn act() -> Act {
        Act::new(vec![Interrupt, Terminate])
    }

    #[test]
    fn within_the_pause_all_signals_are_one_act() {
        let (mut act, now) = (act(), Instant::now());
        assert_eq!(act.arrive(Interrupt, now), Meaning::First);
        assert_eq!(act.arrive(Terminate, now + 40 * MILLISECOND), Meaning::Same);
        assert_eq!(
            act.arrive(Interrupt, now + 299 * MILLISECOND),
            Meaning::Same
        );
        assert_eq!(
            act.arrive(Terminate, now + 300 * MILLISECOND),
            Meaning::Insists
        );
    }

    #[test]
    fn a_pause_of_zero_makes_each_signal_an_act() {
        let (mut act, now) = (act(), Instant::now());
        act.pause = Duration::ZERO;
        assert_eq!(act.arrive(Interrupt, now), Meaning::First);
        assert_eq!(act.arrive(Interrupt, now), Meaning::Insists);
    }

    #[test]
    fn a_signal_that_cannot_insist_never_does() {
        let (mut act, now) = (act(), Instant::now());
        act.insists = vec![Interrupt];
        assert_eq!(act.arrive(Terminate, now), Meaning::First);
        assert_eq!(
            act.arrive(Terminate, now + 3600 * 1000 * MILLISECOND),
            Meaning::Same
        );
        assert_eq!(
            act.arrive(Interrupt, now + 3600 * 1000 * MILLISECOND),
            Meaning::Insists
        );
    }

    #[test]
    fn with_three_steps_the_second_act_forces_and_the_third_insists() {
        let (mut act, now) = (act(), Instant::now());
        act.escalates = true;
        act.insists = vec![Interrupt];
        assert_eq!(act.arrive(Interrupt, now), Meaning::First);
        let later = now + 400 * MILLISECOND;
        assert_eq!(
            act.arrive(Terminate, later),
            Meaning::Same,
            "it cannot insist"
        );
        assert_eq!(act.arrive(Interrupt, later), Meaning::Forces);
        // The second act may arrive twice, too.
        assert_eq!(
            act.arrive(Interrupt, later + 40 * MILLISECOND),
            Meaning::Same
        );
        assert_eq!(
            act.arrive(Interrupt, later + 400 * MILLISECOND),
            Meaning::Insists
        );
    }

    #[test]
    fn after_a_start_over_an_earlier_signal_does_not_count() {
        let (mut act, now) = (act(), Instant::now());
        assert_eq!(act.arrive(Terminate, now), Meaning::First);
        act.start_over();
        assert_eq!(act.arrive(Terminate, now + 15 * MILLISECOND), Meaning::Same);
        assert_eq!(
            act.arrive(Terminate, now + 400 * MILLISECOND),
            Meaning::First
        );
    }
}
