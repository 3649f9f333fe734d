//! The internals of a group, which track its members, its waiters and its failures.
//!
//! Nothing here leaves the module of the group, except the types that [`group`](super) re-exports.

mod sync;
pub(crate) mod latch;
pub(crate) mod wakers;
pub(crate) mod record;
pub(crate) mod slots;
pub(crate) mod aborts;
pub(crate) mod value;
pub(crate) mod handle;
mod roll;
mod events;
pub(crate) mod shared;
pub(crate) mod origin;
pub(crate) mod seat;
pub(crate) mod spawn_error;
pub(crate) mod member;
pub(crate) mod hub;
pub(crate) mod start;
pub(crate) mod abort_on_drop;
pub(crate) mod clock;
#[cfg(test)]
mod kept;
