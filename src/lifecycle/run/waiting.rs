//! Logs now and then what a long stop is waiting for.

use std::time::Duration;

use crate::group::time::{LONG, Rounded, THEN};

/// How many names a line has at most.
const NAMES: usize = 5;

/// When the next line is due, since the start of the run.
#[derive(Debug)]
pub(in crate::lifecycle) struct Waiting {
    next: Option<Duration>,
}

impl Waiting {
    /// Before the stop has begun, no line is due.
    pub(in crate::lifecycle) fn new() -> Self {
        Self { next: None }
    }

    pub(in crate::lifecycle) fn begin(&mut self, now: Duration) {
        self.next = now.checked_add(LONG);
    }

    pub(in crate::lifecycle) fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Returns whether a line is due. If so, schedules the next one.
    pub(in crate::lifecycle) fn is_due(&mut self, now: Duration) -> bool {
        let due = self.next.is_some_and(|next| next <= now);
        if due {
            self.next = now.checked_add(THEN);
        }
        due
    }
}

/// Lists what the stop is waiting for, and the time left: `` `http` (3s left), `worker` (500ms left) and 2
/// more``.
pub(in crate::lifecycle) fn list(waited: &[(&str, Option<Duration>)]) -> String {
    let one = |(name, left): &(&str, Option<Duration>)| match left {
        Some(left) => format!("`{name}` ({} left)", Rounded(*left)),
        None => format!("`{name}`"),
    };
    let names: Vec<_> = waited.iter().take(NAMES).map(one).collect();
    let names = names.join(", ");
    match waited.len().saturating_sub(NAMES) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_line_is_due_five_seconds_into_the_stop_and_then_every_ten() {
        let mut waiting = Waiting::new();
        assert!(!waiting.is_due(100 * SECOND));
        waiting.begin(100 * SECOND);
        assert_eq!(waiting.next(), Some(105 * SECOND));
        assert!(!waiting.is_due(104 * SECOND));
        assert!(waiting.is_due(105 * SECOND));
        assert!(!waiting.is_due(105 * SECOND));
        assert_eq!(waiting.next(), Some(115 * SECOND));
    }

    #[test]
    fn a_line_names_five_and_counts_the_rest() {
        let waited = [("a", Some(SECOND)), ("b", None)];
        assert_eq!(list(&waited), "`a` (1s left), `b`");
        let many = [("a", None); 7];
        assert_eq!(list(&many), "`a`, `a`, `a`, `a`, `a` and 2 more");
    }
}
