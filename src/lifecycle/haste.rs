//! [`Haste`]: how much of its order a stop skips.

/// How much of its order a stop skips. It only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Haste {
    /// Skips nothing.
    #[default]
    None,
    /// Skips the jitter and the lame duck, when no load balancer has to notice the stop.
    Now,
    /// Also skips the drain and the order, so all are told at once. Resources are still told when
    /// all that use them have ended.
    Urgent,
    /// Also skips the graces, and aborts everything that is left.
    Force,
}
