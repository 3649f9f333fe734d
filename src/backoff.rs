//! [`Backoff`]: how long to wait before trying again.

use std::time::Duration;

use crate::group::build_error::BuildError;
use crate::group::random::Random;

/// The wait before a retry. It grows with each failure in a row, up to a bound, and has jitter.
///
/// After the first failure the wait is at most `first`. Each further failure in a row multiplies
/// that bound by the [`factor`](Self::factor), up to `longest`. A wait is drawn at random between
/// half of its bound and the bound, so that callers that fail together do not come back together.
/// That is its jitter, which can be [full](Self::full_jitter) or [none](Self::no_jitter).
///
/// Any durations are allowed. With a `first` of zero there is never a wait. A `longest` of
/// [`Duration::MAX`] sets no bound. With a `longest` below `first` every wait is bounded by
/// `longest`.
///
/// The names are from ["Exponential Backoff And Jitter"][aws] in the AWS Architecture Blog.
///
/// [aws]: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// # #[cfg(feature = "supervise")] {
/// use taskgroup::supervise::Backoff;
///
/// // At most 1 s, 3 s, 9 s, 10 s, 10 s, … and at least half of that.
/// let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10)).factor(3);
/// assert_ne!(backoff, backoff.clone().no_jitter());
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a backoff does nothing until it is given to something that tries again"]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    factor: u32,
    jitter: Jitter,
    seed: Option<u64>,
}

/// How a wait is drawn at random below its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Jitter {
    /// The bound itself.
    None,
    /// From half of the bound up to it. A task that failed often is never retried at once.
    Equal,
    /// From zero up to the bound. This spreads many callers of one server best.
    Full,
}

impl Backoff {
    /// Makes a backoff that waits at most `first` after one failure, and never more than `longest`.
    ///
    /// The factor is 2, and each wait is at least half of its bound.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            factor: 2,
            jitter: Jitter::Equal,
            seed: None,
        }
    }

    /// Sets the growth of the bound with each failure in a row, by default 2.
    ///
    /// With 1 the bound does not grow. Everything that takes a backoff rejects a factor of 0 when
    /// it is built.
    pub const fn factor(mut self, factor: u32) -> Self {
        self.factor = factor;
        self
    }

    /// Draws each wait between zero and its bound. This spreads many callers of one server best.
    ///
    /// By default a wait is at least half of its bound, so that a task that failed often is never
    /// retried at once.
    pub const fn full_jitter(mut self) -> Self {
        self.jitter = Jitter::Full;
        self
    }

    /// Makes each wait its bound. Callers that fail together come back together.
    pub const fn no_jitter(mut self) -> Self {
        self.jitter = Jitter::None;
        self
    }

    /// Draws the same waits each time, for tests that must be exact.
    ///
    /// Without a seed each use of the backoff draws its own.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Refuses an invalid backoff of `what`.
    pub(crate) fn check(&self, what: &str) -> Result<(), BuildError> {
        if self.factor == 0 {
            let why = "all waits but the first would be 0s";
            return Err(BuildError::new(what.to_owned(), "factor", "0", why));
        }
        Ok(())
    }

    /// The waits between the retries of one task.
    pub(crate) fn delays(&self) -> Delays {
        Delays {
            failures: 0,
            random: Random::new(self.seed),
            backoff: self.clone(),
        }
    }

    /// The longest wait after this many failures in a row, from 1 upwards.
    pub(crate) fn bound(&self, failures: u32) -> Duration {
        let growth = self.factor.saturating_pow(failures.saturating_sub(1));
        self.first.saturating_mul(growth).min(self.longest)
    }
}

/// At most 100 ms after the first failure, twice as long after each further one, up to 30 s.
impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(30))
    }
}

/// The waits between the retries of one task.
#[derive(Clone, Debug)]
pub(crate) struct Delays {
    backoff: Backoff,
    /// The number of failures in a row.
    failures: u32,
    random: Random,
}

impl Delays {
    /// Draws the wait after one more failure in a row.
    pub(crate) fn draw(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let bound = self.backoff.bound(self.failures);
        match self.backoff.jitter {
            Jitter::None => bound,
            Jitter::Equal => bound / 2 + (bound / 2).mul_f64(self.random.draw()),
            Jitter::Full => bound.mul_f64(self.random.draw()),
        }
    }

    /// Resets the count, so that the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}
