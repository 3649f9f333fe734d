//! [`Dice`]: random numbers that follow from a seed.

use std::time::Duration;

use crate::group::random::Random;

/// Random numbers that are the same for the same seed, in each process and on each machine.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::testing::Dice;
///
/// let draw = |seed| {
///     let mut dice = Dice::new(seed);
///     (dice.below(6), dice.time(Duration::from_secs(10)))
/// };
/// assert_eq!(draw(7), draw(7));
/// ```
#[derive(Clone, Debug)]
pub struct Dice(Random);

impl Dice {
    /// Makes the dice for a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Random::new(Some(seed)))
    }

    /// Draws a number from 0 up to, but not including, `bound`.
    ///
    /// # Panics
    ///
    /// `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert_ne!(bound, 0, "no number is below 0");
        let product = u128::from(self.0.bits()) * u128::from(bound);
        u64::try_from(product >> 64).expect("it is below the bound")
    }

    /// Draws a time from 0 up to, but not including, `longest`, in whole milliseconds.
    pub fn time(&mut self, longest: Duration) -> Duration {
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.below(millis.max(1)))
    }

    /// Draws one of these values.
    ///
    /// # Panics
    ///
    /// `from` is empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.below(from.len() as u64);
        &from[usize::try_from(index).expect("it is below a length")]
    }
}
