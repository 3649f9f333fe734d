//! The times of a stop: what the options ask for, made one budget.

use std::time::Duration;

use taskgroup::lifecycle::Budget;

use crate::options::Options;

const GRACE: Duration = Duration::from_secs(5);
/// In a pod, the manifest can repeat its `terminationGracePeriodSeconds` here.
const PLATFORM_LIMIT: &str = "TERMINATION_GRACE_PERIOD_SECONDS";

/// What a server needs when its grace is over: to tell its clients, and to see that what it has cut is gone.
pub(crate) const AFTER_THE_GRACE: Duration = Duration::from_millis(500);
/// How long what a server has cut may take to be gone.
pub(crate) const KILL_GRACE: Duration = Duration::from_millis(300);
/// What the database should have to close, and the metrics to stop.
pub(crate) const CLOSING: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Times {
    pub(crate) budget: Budget,
    /// How long each server may drain.
    pub(crate) grace: Duration,
}

impl Times {
    /// A budget that was given, by `--budget` or by the platform, is kept: times that were asked for and do
    /// not fit are refused by the plan, and a grace that was not asked for is made to fit. Otherwise the
    /// times that were asked for decide, and the budget is what they need, if that is more than usual.
    pub(crate) fn of(options: &Options) -> Self {
        let found = Budget::detect();
        // Without a platform it runs by hand, and no balancer has to notice its stop.
        let found = found.platform_limit().is_some().then_some(found);
        let usual = found
            .as_ref()
            .map_or(Duration::ZERO, Budget::lame_duck_time);
        let lame_duck = options.lame_duck.unwrap_or(usual);
        let of = |total| {
            Budget::new(total)
                .lame_duck(lame_duck)
                .platform_from_env(PLATFORM_LIMIT)
        };
        // What a pod has, wherever it runs.
        let pod = Budget::kubernetes().total();
        let budget = match (options.budget, found) {
            (Some(total), _) => of(total),
            (None, Some(found)) => found.lame_duck(lame_duck),
            (None, None) => of(pod),
        };
        if options.budget.is_some() || budget.platform_limit().is_some() {
            let kept = lame_duck.saturating_add(2 * AFTER_THE_GRACE);
            let kept = kept.saturating_add(options.last_scrape);
            let left = budget.total().saturating_sub(kept);
            let grace = options.grace.unwrap_or(GRACE.min(left / 4));
            return Self { budget, grace };
        }
        let grace = options.grace.unwrap_or(GRACE);
        let server = grace.saturating_add(AFTER_THE_GRACE);
        // One server after the other, the database, as long for the metrics, and the margin.
        let needed = [
            lame_duck,
            server,
            server,
            CLOSING,
            CLOSING,
            options.last_scrape,
            Duration::from_secs(1),
        ];
        let needed = needed
            .into_iter()
            .fold(Duration::ZERO, Duration::saturating_add);
        Self {
            budget: of(pod.max(needed)),
            grace,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::CommandLine;

    #[track_caller]
    fn times(arguments: &[&str]) -> (f64, f64) {
        let line = ["orders"].iter().chain(arguments);
        let options = CommandLine::try_parse_from(line)
            .expect("arguments that can be parsed")
            .options;
        let times = Times::of(&options);
        let lame_duck = options.lame_duck.unwrap_or_default();
        assert_eq!(times.budget.lame_duck_time(), lame_duck);
        (
            times.budget.total().as_secs_f64(),
            times.grace.as_secs_f64(),
        )
    }

    #[test]
    fn without_arguments_it_is_twenty_eight_seconds_and_five_for_each_server() {
        assert_eq!(times(&[]), (28.0, 5.0));
    }

    #[test]
    fn without_a_budget_it_is_as_much_as_the_other_times_need() {
        assert_eq!(times(&["--lame-duck", "10"]), (28.0, 5.0));
        assert_eq!(times(&["--lame-duck", "20"]), (36.0, 5.0));
        assert_eq!(times(&["--grace", "60"]), (126.0, 60.0));
    }

    #[test]
    fn a_budget_that_was_given_is_kept() {
        assert_eq!(times(&["--budget", "60"]), (60.0, 5.0));
        assert_eq!(times(&["--budget", "10", "--grace", "60"]), (10.0, 60.0));
        assert_eq!(times(&["--budget", "10", "--lame-duck", "20"]).0, 10.0);
    }

    #[test]
    fn a_grace_that_was_not_asked_for_fits_into_the_budget() {
        assert_eq!(times(&["--budget", "4"]), (4.0, 0.75));
        assert_eq!(times(&["--budget", "24", "--lame-duck", "11"]), (24.0, 3.0));
    }
}
