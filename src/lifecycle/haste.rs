//! [`Haste`]: how much of its order a stop leaves out.

/// How much of its order a stop leaves out. It only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Haste {
    /// Nothing.
    #[default]
    None,
    /// The jitter and the lame duck: nobody has to notice the stop.
    Now,
    /// The drain and the order too: all are told at once. Resources are told when all that use them
    /// have ended, as ever.
    Urgent,
    /// The graces too: what is left is aborted.
    Force,
}
