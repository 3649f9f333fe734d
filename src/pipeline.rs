//! Pipelines of workers that drain, hand back, and lose no item.
//!
//! [`Workers`] work on items from a queue of their own or from a broker, with a limit on how many run at
//! once. Each item has exactly one end, which is done, failed, panicked, or handed back. The guide, with a
//! table for each broker, is `docs/pipelines.md`.

mod queue;
mod report;
mod error;
mod parcel;
mod shared;
#[cfg(feature = "metrics")]
mod metrics;
mod home;
mod job;
mod pusher;
mod intake;
mod results;
mod stage;
mod watermark;
mod worker;
mod pool;
mod workers;

pub use self::error::{JobError, PipelineError, PushError, Stopped};
pub use self::intake::{Receipt, Received, Source, from_iter, from_stream};
pub use self::job::Job;
pub use self::parcel::{HandedBack, Reason};
pub use self::pool::{Leftovers, Pool};
pub use self::pusher::{Permit, Pusher};
pub use self::report::PipelineReport;
pub use self::results::Results;
pub use self::shared::AtStop;
pub use self::stage::{Origin, Stage};
pub use self::watermark::{Mark, Revoked, Watermark};
pub use self::worker::OnFailure;
pub use self::workers::Workers;
