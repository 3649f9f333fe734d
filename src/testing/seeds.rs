//! [`Seeds`]: many random scenarios, each of which can be run again.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::panic::resume_unwind;
use std::thread;

use super::say::say;
use crate::lifecycle::Lifecycle;
use crate::testing::simulation::Outcome;
use crate::testing::simulation::simulate_seed;
use crate::testing::stage::Stage;

/// The variable that makes all tests run this seed alone.
const SEED: &str = "TASKGROUP_SEED";

/// Runs many random scenarios, and checks each.
///
/// The [dice](Stage::dice) of a run follow from its seed, and so does each jitter that is drawn in it. A
/// failure names its seed with the line that runs it alone, `TASKGROUP_SEED=17 cargo test …`. That run has
/// the same journal.
///
/// In addition to the caller's checks, each run has to keep two rules. The stop takes no longer than its
/// budget, and no task of the runtime is left when the run has returned.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::Signal;
/// use taskgroup::lifecycle::Lifecycle;
/// use taskgroup::testing::Seeds;
///
/// let secs = Duration::from_secs;
/// Seeds::new(0..50).twice().check(
///     |stage| {
///         let at = stage.dice().time(secs(10));
///         stage.signal(at, Signal::Terminate);
///         let database = stage.random_fake("database", secs(5));
///         let http = stage.random_fake("http", secs(5));
///         Lifecycle::new("orders")
///             .budget(secs(8))
///             .component(database.component())
///             .component(http.component().after(["database"]))
///     },
///     |outcome| assert!(outcome.code() <= 1),
/// );
/// ```
#[derive(Clone, Debug)]
#[must_use = "seeds do nothing until they are checked"]
pub struct Seeds {
    seeds: Range<u64>,
    twice: bool,
}

impl Seeds {
    /// Makes the seeds of a range. Each seed is one run.
    ///
    /// With the variable `TASKGROUP_SEED` in the environment, only that seed runs.
    ///
    /// # Panics
    ///
    /// The variable is not a number.
    pub fn new(seeds: Range<u64>) -> Self {
        let seeds = match std::env::var(SEED) {
            Err(_) => seeds,
            Ok(seed) => {
                let seed: u64 = seed.parse().unwrap_or_else(|_| {
                    panic!("{SEED} has to be the number of a seed, and is {seed:?}")
                });
                seed..seed.saturating_add(1)
            }
        };
        Self {
            seeds,
            twice: false,
        }
    }

    /// Runs each seed twice, and fails if the journals differ.
    ///
    /// This finds randomness that does not come from the seed, such as the order of a `HashMap`, a
    /// `tokio::select!` without `biased`, or a real clock.
    pub fn twice(mut self) -> Self {
        self.twice = true;
        self
    }

    /// Runs the lifecycles that `setup` makes, and passes each outcome to `invariants`.
    ///
    /// # Panics
    ///
    /// A run fails. It first prints its seed, its journal and the line to run it again on stderr.
    pub fn check(self, setup: impl Fn(&mut Stage) -> Lifecycle, invariants: impl Fn(&Outcome)) {
        for seed in self.seeds {
            let mut journal = None;
            let run = AssertUnwindSafe(|| {
                let outcome = simulate_seed(seed, &setup);
                journal = Some(outcome.journal().clone());
                check(&outcome);
                invariants(&outcome);
                if self.twice {
                    let again = simulate_seed(seed, &setup);
                    assert_eq!(
                        outcome.journal().lines(),
                        again.journal().lines(),
                        "the same seed has two journals"
                    );
                }
            });
            if let Err(panic) = catch_unwind(run) {
                let journal = journal.map(|journal| journal.to_string());
                let test = thread::current().name().unwrap_or_default().to_owned();
                say(&format!(
                    "seed {seed} fails; to run it alone: {SEED}={seed} cargo test {test}\n{}",
                    journal.unwrap_or_default()
                ));
                resume_unwind(panic);
            }
        }
    }
}

fn check(outcome: &Outcome) {
    assert_eq!(outcome.left(), [""; 0], "tasks are left");
    if let Some(report) = outcome.report() {
        let (took, budget) = (report.took(), report.budget);
        assert!(took <= budget, "the stop took {took:?} of {budget:?}");
    }
}
