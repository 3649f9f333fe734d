//! Decides what a cleanup does next, without a clock, a future or a name of its own.
//!
//! Invariants:
//! 1. A step that does not always run ends within the budget.
//! 2. An always-run step ends within what is left of the budget, or within its guaranteed time after the
//!    moment it began. So a run takes at most the budget and the guaranteed times.
//! 3. A pause before a retry ends within the time of its step.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use super::step_report::Priority;
use crate::backoff::Backoff;
use crate::group::end::End;

/// How many steps in a row have to fail on a target before the cleanup gives it up.
const TARGET_FAILURES: u32 = 2;

/// The options of a step.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) priority: Priority,
    /// The time of the step, including all its attempts and the pauses between them.
    pub(super) deadline: Duration,
    pub(super) retries: u32,
    /// The pause before the first retry. Each further pause is twice as long.
    pub(super) backoff: Duration,
    pub(super) best_effort: bool,
    pub(super) fatal: bool,
    /// The time that an always-run step gets when the budget is spent.
    pub(super) always: Option<Duration>,
    pub(super) target: Option<Cow<'static, str>>,
}

/// What to do with the step whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It runs for at most this long, which is never zero.
    Run(Duration),
    /// It is skipped, for this reason.
    Skip(String),
    /// It is skipped because the budget, of this much, was spent.
    OutOfTime(Duration),
}

/// The past events that the decisions depend on.
#[derive(Debug)]
pub(super) struct Plan {
    budget: Duration,
    /// The fatal step that was not done.
    fatal: Option<String>,
    /// How many steps in a row have failed, by target.
    failures: BTreeMap<Cow<'static, str>, u32>,
}

impl Plan {
    pub(super) fn new(budget: Duration) -> Self {
        Self {
            budget,
            fatal: None,
            failures: BTreeMap::new(),
        }
    }

    /// Decides about a step whose turn comes when the run has taken `elapsed`.
    pub(super) fn turn(&self, rules: &Rules, elapsed: Duration) -> Turn {
        let left = self.budget.saturating_sub(elapsed);
        if let Some(guaranteed) = rules.always {
            return Turn::Run(rules.deadline.min(left.max(guaranteed)));
        }
        if let Some(step) = &self.fatal {
            return Turn::Skip(format!("fatal step `{step}` was not done"));
        }
        if left.is_zero() {
            return Turn::OutOfTime(self.budget);
        }
        match &rules.target {
            Some(target) if self.is_given_up(target) => {
                Turn::Skip(format!("target `{target}` was given up"))
            }
            _ => Turn::Run(rules.deadline.min(left)),
        }
    }

    /// Notes how a step ended.
    pub(super) fn note(&mut self, name: &str, rules: &Rules, end: End) {
        let done = end == End::Done;
        if rules.fatal && !done && self.fatal.is_none() {
            self.fatal = Some(name.to_owned());
        }
        if let (Some(target), false) = (&rules.target, end == End::Skipped) {
            let failures = self.failures.entry(target.clone()).or_default();
            *failures = if done { 0 } else { *failures + 1 };
        }
    }

    fn is_given_up(&self, target: &str) -> bool {
        let failures = self.failures.get(target);
        failures.is_some_and(|count| *count >= TARGET_FAILURES)
    }
}

/// Returns the pause after `attempts` failed ones, with `left` of the step's time. `None` if the step has
/// failed for good.
///
/// A retry that could only begin after the step's time is not waited for, since other steps need the time.
pub(super) fn retry(rules: &Rules, attempts: u32, left: Duration) -> Option<Duration> {
    if attempts > rules.retries {
        return None;
    }
    let pause = Backoff::new(rules.backoff, Duration::MAX).bound(attempts);
    (pause < left).then_some(pause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules() -> Rules {
        Rules {
            priority: Priority::Normal,
            deadline: 5 * SECOND,
            retries: 0,
            backoff: Duration::ZERO,
            best_effort: false,
            fatal: false,
            always: None,
            target: None,
        }
    }

    #[test]
    fn a_step_gets_its_deadline_or_what_is_left() {
        let plan = Plan::new(8 * SECOND);
        assert_eq!(plan.turn(&rules(), Duration::ZERO), Turn::Run(5 * SECOND));
        assert_eq!(plan.turn(&rules(), 6 * SECOND), Turn::Run(2 * SECOND));
        let spent = Turn::OutOfTime(8 * SECOND);
        assert_eq!(plan.turn(&rules(), 8 * SECOND), spent);
    }

    #[test]
    fn the_guaranteed_time_counts_when_less_is_left() {
        let plan = Plan::new(8 * SECOND);
        let always = Rules {
            always: Some(2 * SECOND),
            ..rules()
        };
        assert_eq!(plan.turn(&always, 4 * SECOND), Turn::Run(4 * SECOND));
        assert_eq!(plan.turn(&always, 7 * SECOND), Turn::Run(2 * SECOND));
        assert_eq!(plan.turn(&always, 99 * SECOND), Turn::Run(2 * SECOND));
    }

    #[test]
    fn a_success_forgives_the_failures_of_its_target() {
        let mut plan = Plan::new(8 * SECOND);
        let consul = Rules {
            target: Some("consul".into()),
            ..rules()
        };
        plan.note("a", &consul, End::Failed);
        plan.note("b", &consul, End::Done);
        plan.note("c", &consul, End::Failed);
        assert_eq!(plan.turn(&consul, Duration::ZERO), Turn::Run(5 * SECOND));

        plan.note("d", &consul, End::TimedOut);
        let given_up = Turn::Skip("target `consul` was given up".to_owned());
        assert_eq!(plan.turn(&consul, Duration::ZERO), given_up);
    }

    fn duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::MAX),
            (1..100_u64).prop_map(Duration::from_millis),
        ]
    }

    prop_compose! {
        fn any_rules()(
            deadline in (1..100_u64).prop_map(Duration::from_millis),
            retries in 0..40_u32,
            backoff in duration(),
            fatal in any::<bool>(),
            always in proptest::option::of((1..20_u64).prop_map(Duration::from_millis)),
            target in proptest::option::of(0..3_u8),
        ) -> Rules {
            let target = target.map(|target| target.to_string().into());
            Rules { deadline, retries, backoff, fatal, always, target, ..rules() }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// However much of its time each step uses, and however it ends.
        #[test]
        fn the_whole_takes_the_budget_and_the_guaranteed_times_at_most(
            budget in duration(),
            steps in vec((any_rules(), 0.0..=1.0_f64, any::<bool>()), 0..30),
        ) {
            let mut plan = Plan::new(budget);
            let mut elapsed = Duration::ZERO;
            let mut guaranteed = Duration::ZERO;
            for (rules, used, done) in steps {
                guaranteed += rules.always.unwrap_or_default();
                let end = match plan.turn(&rules, elapsed) {
                    Turn::Run(time) => {
                        prop_assert!(!time.is_zero() && time <= rules.deadline);
                        elapsed += time.mul_f64(used);
                        if done { End::Done } else { End::Failed }
                    }
                    Turn::Skip(_) | Turn::OutOfTime(_) => {
                        prop_assert!(rules.always.is_none(), "an always-run step is never skipped");
                        End::Skipped
                    }
                };
                plan.note("step", &rules, end);
                prop_assert!(elapsed <= budget.saturating_add(guaranteed));
            }
        }

        #[test]
        fn retries_are_bounded_and_begin_in_time(rules in any_rules(), left in duration()) {
            let mut left = left;
            let mut pauses = 0;
            let mut last = Duration::ZERO;
            while let Some(pause) = retry(&rules, pauses + 1, left) {
                prop_assert!(pause < left && pause >= last);
                left -= pause;
                last = pause;
                pauses += 1;
            }
            prop_assert!(pauses <= rules.retries);
        }
    }
}
