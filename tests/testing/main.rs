//! The kit, through its public API.

mod fake;
mod leaks;
mod link;
mod page;
#[cfg(unix)]
mod process;
mod simulate;

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
