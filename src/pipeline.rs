//! Pipelines of workers that drain, hand back, and lose no item.
//!
//! [`Workers`] work on items from a queue of their own or from a broker, with a limit on how many run at
//! once. Each item has exactly one end, which is done, failed, panicked, or handed back. The guide, with a
//! table for each broker, is `docs/pipelines.md`.

mod queue;
mod room;
mod report;
mod run;
mod at_stop;
mod valve;
mod error;
mod watermark;
mod receipt;
mod parcel;
mod state;
mod shared;
mod admission;
#[cfg(feature = "metrics")]
mod metrics;
mod home;
mod job;
mod pusher;
mod intake;
mod results;
mod stage;
mod policy;
mod handler;
mod worker;
mod ends;
mod leftovers;
mod deadlines;
mod pool;
mod workers;

pub use self::at_stop::AtStop;
pub use self::error::{JobError, PipelineError, PushError, Stopped};
pub use self::intake::{Received, Source, from_iter, from_stream};
pub use self::job::Job;
pub use self::leftovers::Leftovers;
pub use self::parcel::{HandedBack, Reason};
pub use self::policy::OnFailure;
pub use self::pool::Pool;
pub use self::pusher::{Permit, Pusher};
pub use self::receipt::Receipt;
pub use self::report::PipelineReport;
pub use self::results::Results;
pub use self::stage::{Origin, Stage};
pub use self::valve::Valve;
pub use self::watermark::{Mark, Revoked, Watermark};
pub use self::workers::Workers;
