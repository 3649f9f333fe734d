//! Checks that do not look at the components, and how an error names a budget.

use std::time::Duration;

use super::budget::Budget;
use super::error::Kind as Error;
use super::error::{Limit, Part, Parts, PlanError};

/// Rejects a name that cannot be part of a path.
pub(super) fn check_name(name: &str) -> Result<(), PlanError> {
    if name.is_empty() {
        return Err(Error::EmptyName.into());
    }
    if name.contains('/') {
        let name = name.to_owned();
        return Err(Error::Slash { name }.into());
    }
    Ok(())
}

/// Rejects a budget that is invalid by itself.
pub(super) fn check_budget(budget: &Budget) -> Result<(), PlanError> {
    let total = budget.total();
    if let Some(invalid) = budget.invalid_variable() {
        return Err(Error::InvalidVariable(invalid.clone()).into());
    }
    if let Some((platform, limit)) = budget.platform_limit() {
        let parts = [budget.pre_stop_time(), total, Budget::SLACK];
        let needed = parts
            .into_iter()
            .fold(Duration::ZERO, Duration::saturating_add);
        if needed > limit {
            return Err(Error::OverPlatform {
                pre_stop: budget.pre_stop_time(),
                total,
                platform: platform.to_owned(),
                limit,
            }
            .into());
        }
    }
    if total.is_zero() {
        return Err(Error::ZeroBudget.into());
    }
    if budget.start_time().is_zero() {
        return Err(Error::ZeroStart.into());
    }
    Ok(())
}

/// The budget of the whole stop, as an error names it.
pub(super) fn whole(budget: &Budget) -> Limit {
    Limit {
        time: budget.total(),
        phase: None,
    }
}

/// All parts of a budget, in the order of a stop.
pub(super) fn parts(budget: &Budget, chain: Vec<Part>) -> Parts {
    let before = [
        ("jitter", budget.jitter_time()),
        ("lame duck", budget.lame_duck_time()),
        ("drain", budget.drain_time()),
    ];
    let after = [
        ("cleanup", budget.cleanup_time()),
        ("margin", budget.margin()),
    ];
    let kept = |(name, time): (&'static str, Duration)| {
        (!time.is_zero()).then_some(Part::Kept(name, time))
    };
    let before = before.into_iter().filter_map(kept);
    let after = after.into_iter().filter_map(kept);
    Parts(before.chain(chain).chain(after).collect())
}
