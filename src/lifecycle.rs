//! The pure parts of the lifecycle: its [`Budget`], its [`Phase`]s and its [`Plan`].

mod budget;
mod phase;
mod plan_error;
// Until the engine uses them.
#[cfg_attr(not(test), allow(dead_code))]
mod graph;
#[cfg_attr(not(test), allow(dead_code))]
mod plan;

pub use self::budget::Budget;
pub use self::phase::Phase;
pub use self::plan::{Plan, PlannedComponent};
pub use self::plan_error::PlanError;
