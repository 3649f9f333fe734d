//! [`PipelineReport`]: how the items of a pipeline ended, in numbers.

use std::fmt;

/// How the items of a pipeline ended, in numbers.
///
/// Each item that was taken in has one end, or is still running, so [`taken_in`](Self::taken_in) =
/// [`done`](Self::done) + [`failed`](Self::failed) + [`panicked`](Self::panicked) +
/// [`handed_back`](Self::handed_back) + [`still_running`](Self::still_running).
///
/// It prints as one line, without the numbers that are 0, such as
/// `7 done, 2 handed back (1 cut, 1 never begun)`.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
/// use taskgroup::pipeline::{Job, Workers};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let mut group = TaskGroup::new();
/// let (pusher, pool) = Workers::new("mail", |_: Job<&str>| async { Ok(()) }).queue(10)?;
/// let report = pool.spawn(&group);
/// for to in ["ann", "bob", "cid"] {
///     pusher.push(to).await?;
/// }
/// drop(pusher);
///
/// assert_eq!(report.await?.to_string(), "3 done");
/// # group.wait().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineReport {
    pub(super) numbers: Numbers,
    pub(super) still_running: usize,
    pub(super) workers: Vec<String>,
    pub(super) unclaimed: usize,
    pub(super) is_faulty: bool,
}

/// The counters of a running pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) taken_in: usize,
    pub(super) begun: usize,
    pub(super) attempts: usize,
    pub(super) done: usize,
    pub(super) failed: usize,
    pub(super) panicked: usize,
    pub(super) handed_back_begun: usize,
    pub(super) handed_back_unbegun: usize,
    pub(super) cut: usize,
    pub(super) acks_failed: usize,
    pub(super) not_acknowledged: usize,
    pub(super) dead_letters: usize,
    pub(super) dead_letters_failed: usize,
    pub(super) hand_backs_failed: usize,
    pub(super) keep_alives_failed: usize,
}

impl Numbers {
    /// Returns how many items were begun and have not ended yet.
    pub(super) fn in_flight(&self) -> usize {
        let ended = self.done + self.failed + self.panicked + self.handed_back_begun;
        self.begun.saturating_sub(ended)
    }
}

impl PipelineReport {
    /// Returns how many items were taken in.
    #[must_use]
    pub fn taken_in(&self) -> usize {
        self.numbers.taken_in
    }

    /// Returns how many items a handler has begun.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.numbers.begun
    }

    /// Returns how many attempts were begun.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.numbers.attempts
    }

    /// Returns how many items are done, which means that their handler returned `Ok` and the acknowledgement
    /// was confirmed.
    #[must_use]
    pub fn done(&self) -> usize {
        self.numbers.done
    }

    /// Returns how many items have failed for the last time, with an error.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.numbers.failed
    }

    /// Returns how many items have failed for the last time, with a panic.
    #[must_use]
    pub fn panicked(&self) -> usize {
        self.numbers.panicked
    }

    /// Returns how many items were handed back, begun or not.
    #[must_use]
    pub fn handed_back(&self) -> usize {
        self.numbers.handed_back_begun + self.numbers.handed_back_unbegun
    }

    /// Returns how many handed-back items no handler had begun.
    #[must_use]
    pub fn never_begun(&self) -> usize {
        self.numbers.handed_back_unbegun
    }

    /// Returns how many items were under way at the deadline, and were cut and handed back.
    #[must_use]
    pub fn cut(&self) -> usize {
        self.numbers.cut
    }

    /// Returns how often an acknowledgement failed. Each was repeated.
    #[must_use]
    pub fn acks_failed(&self) -> usize {
        self.numbers.acks_failed
    }

    /// Returns how many items are done but were handed back, because their acknowledgement was not confirmed.
    #[must_use]
    pub fn not_acknowledged(&self) -> usize {
        self.numbers.not_acknowledged
    }

    /// Returns how many of the failed and panicked items the dead-letter function has taken.
    #[must_use]
    pub fn dead_letters(&self) -> usize {
        self.numbers.dead_letters
    }

    /// Returns how many items the dead-letter function did not take. They were handed back.
    #[must_use]
    pub fn dead_letters_failed(&self) -> usize {
        self.numbers.dead_letters_failed
    }

    /// Returns how many items could not be handed back, because the function for it failed, panicked or was
    /// late.
    #[must_use]
    pub fn hand_backs_failed(&self) -> usize {
        self.numbers.hand_backs_failed
    }

    /// Returns how often the leases could not be extended.
    #[must_use]
    pub fn keep_alives_failed(&self) -> usize {
        self.numbers.keep_alives_failed
    }

    /// Returns how many items were handed back without a receiver, because there is no function for it and no
    /// caller holds the [leftovers](super::Pool::leftovers).
    #[must_use]
    pub fn unclaimed(&self) -> usize {
        self.unclaimed
    }

    /// Returns how many items are still running because they could not be cut.
    #[must_use]
    pub fn still_running(&self) -> usize {
        self.still_running
    }

    /// Returns the names of the workers that could not be cut, or whose job was kept.
    pub fn running_workers(&self) -> impl Iterator<Item = &str> {
        self.workers.iter().map(String::as_str)
    }

    /// Returns whether the run was clean. In a clean run no item was cut under way, none is still running,
    /// and no acknowledgement, dead letter or hand-back failed. Handed-back items are clean.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let Numbers {
            cut,
            not_acknowledged,
            dead_letters_failed,
            hand_backs_failed,
            ..
        } = self.numbers;
        let wrong = [
            cut,
            not_acknowledged,
            dead_letters_failed,
            hand_backs_failed,
            self.unclaimed,
            self.still_running,
        ];
        !self.is_faulty && wrong.iter().all(|count| *count == 0)
    }
}

impl fmt::Display for PipelineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = &self.numbers;
        let handed_back = self.handed_back();
        let ends = [
            (numbers.done, "done"),
            (numbers.failed, "failed"),
            (numbers.panicked, "panicked"),
            (handed_back, "handed back"),
            (self.still_running, "still running"),
        ];
        let handed_back = [
            (numbers.cut, "cut"),
            (numbers.handed_back_unbegun, "never begun"),
            (numbers.not_acknowledged, "not acknowledged"),
            (numbers.dead_letters_failed, "not taken by the dead letters"),
            (numbers.hand_backs_failed, "not handed back for an error"),
            (self.unclaimed, "not claimed"),
        ];
        let mut is_first = true;
        for (count, what) in ends.into_iter().filter(|(count, _)| *count > 0) {
            let comma = if is_first { "" } else { ", " };
            write!(f, "{comma}{count} {what}")?;
            is_first = false;
            if what == "handed back" {
                list(f, &handed_back)?;
            }
        }
        if is_first {
            f.write_str("no items")?;
        }
        if !self.workers.is_empty() {
            write!(f, " (in `{}`)", self.workers.join("`, `"))?;
        }
        Ok(())
    }
}

/// Writes `(1 cut, 2 never begun)`.
fn list(f: &mut fmt::Formatter<'_>, counts: &[(usize, &str)]) -> fmt::Result {
    let mut open = " (";
    for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
        write!(f, "{open}{count} {what}")?;
        open = ", ";
    }
    f.write_str(if open == ", " { ")" } else { "" })
}
