//! A duration, often one at an end of the range.

use std::time::Duration;

use arbitrary::Arbitrary;

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Time {
    Zero,
    Nanos(u16),
    Millis(u16),
    Seconds(u32),
    Any(u64, u32),
    Endless,
}

impl From<Time> for Duration {
    fn from(time: Time) -> Self {
        match time {
            Time::Zero => Self::ZERO,
            Time::Nanos(nanos) => Self::from_nanos(nanos.into()),
            Time::Millis(millis) => Self::from_millis(millis.into()),
            Time::Seconds(seconds) => Self::from_secs(seconds.into()),
            Time::Any(seconds, nanos) => Self::new(seconds, nanos % 1_000_000_000),
            Time::Endless => Self::MAX,
        }
    }
}
