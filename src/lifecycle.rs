//! The lifecycle of a service: what is started in order, stopped in order, and reported.
#![cfg_attr(not(test), allow(dead_code))]

mod words;
mod component_state;
mod component_error;
mod report;

pub use self::component_error::{ComponentError, ComponentErrorKind};
pub use self::component_state::{ComponentState, ComponentStatus};
pub use self::report::{Report, StepEnd, StepKind, Straggler, TimelineStep};
