//! How times are printed, when a task is late, and how long a forced end may take.

use std::fmt;
use std::time::Duration;

/// How long a task may take to end after it was forced, before it counts as still running.
///
/// Its runtime drops an aborted task as soon as it can, so this time is for scheduling, not for work.
pub(crate) const CONFIRMATION: Duration = Duration::from_secs(1);

/// How long a stop takes before it logs the tasks it waits for.
pub(crate) const LONG: Duration = Duration::from_secs(5);

/// How long it waits before it logs them again.
pub(crate) const THEN: Duration = Duration::from_secs(10);

/// The resolution of a timer.
const MILLI: Duration = Duration::from_millis(1);

/// A time as messages, plans and reports print it, such as `1.5s`, `120ms`, `0s` or `any time`.
///
/// It is cut to whole milliseconds, or to microseconds below one, so it never claims that a limit was
/// reached that was not. [`Duration::MAX`] means no limit.
#[derive(Clone, Copy)]
pub(crate) struct Rounded(pub(crate) Duration);

/// Returns whether a task that took this long has overrun its limit.
///
/// A timer fires up to a millisecond late, so an end within the next one is in time.
pub(crate) fn is_late(took: Duration, limit: Duration) -> bool {
    took > limit.saturating_add(MILLI)
}

/// Returns a time for a column of a table, such as `12.345s`, with the decimal points aligned.
pub(crate) fn column(time: Duration) -> String {
    format!("{}.{:03}s", time.as_secs(), time.subsec_millis())
}

impl fmt::Display for Rounded {
    // Not by `Debug` of the duration, whose code is 2 kB.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.subsec_nanos();
        match self.0 {
            Duration::MAX => f.write_str("any time"),
            Duration::ZERO => f.write_str("0s"),
            time if time.as_secs() > 0 => match time.subsec_millis() {
                0 => write!(f, "{}s", time.as_secs()),
                millis if millis % 100 == 0 => write!(f, "{}.{}s", time.as_secs(), millis / 100),
                millis if millis % 10 == 0 => write!(f, "{}.{:02}s", time.as_secs(), millis / 10),
                millis => write!(f, "{}.{millis:03}s", time.as_secs()),
            },
            _ if nanos >= 1_000_000 => write!(f, "{}ms", nanos / 1_000_000),
            _ if nanos >= 1_000 => write!(f, "{}µs", nanos / 1_000),
            _ => write!(f, "{nanos}ns"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(time: Duration) -> String {
        Rounded(time).to_string()
    }

    #[test]
    fn a_time_is_cut_to_milliseconds() {
        assert_eq!(rounded(Duration::from_nanos(1_999_999_999)), "1.999s");
        assert_eq!(rounded(Duration::from_nanos(9_999_999)), "9ms");
        assert_eq!(rounded(Duration::from_secs(90)), "90s");
        assert_eq!(rounded(Duration::from_millis(5_500)), "5.5s");
        assert_eq!(rounded(Duration::from_millis(5_050)), "5.05s");
        assert_eq!(rounded(Duration::from_millis(5_005)), "5.005s");
        assert_eq!(rounded(Duration::from_millis(120)), "120ms");
    }

    #[test]
    fn less_than_a_millisecond_is_still_something() {
        assert_eq!(rounded(Duration::from_nanos(999_999)), "999µs");
        assert_eq!(rounded(Duration::from_nanos(999)), "999ns");
    }

    #[test]
    fn zero_and_unlimited_times_have_words_of_their_own() {
        assert_eq!(rounded(Duration::ZERO), "0s");
        assert_eq!(rounded(Duration::MAX), "any time");
    }

    #[test]
    fn a_column_has_its_point_in_one_place() {
        assert_eq!(column(Duration::from_micros(12_345_678)), "12.345s");
        assert_eq!(column(Duration::from_millis(5)), "0.005s");
    }

    #[test]
    fn an_end_within_the_resolution_of_a_timer_is_in_time() {
        let limit = Duration::from_secs(1);
        assert!(!is_late(limit + MILLI, limit));
        assert!(is_late(limit + MILLI + Duration::from_nanos(1), limit));
        assert!(!is_late(Duration::MAX, Duration::MAX));
    }
}
