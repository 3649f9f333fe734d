//! What a group is made of: who is in it, who waits for it, and what it remembers.
//!
//! Nothing in here leaves the module of the group, except what [`group`](super) names again.

mod sync;
pub(crate) mod latch;
pub(crate) mod wakers;
pub(crate) mod record;
pub(crate) mod slots;
pub(crate) mod aborts;
pub(crate) mod value;
pub(crate) mod handle;
pub(crate) mod shared;
pub(crate) mod origin;
pub(crate) mod seat;
pub(crate) mod spawn_error;
pub(crate) mod member;
pub(crate) mod hub;
pub(crate) mod abort_on_drop;
pub(crate) mod clock;
#[cfg(test)]
mod kept;

pub(crate) use self::sync::Lock;
