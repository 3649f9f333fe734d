//! [`AtStop`]: the end of buffered items at the stop.

/// Decides the end of buffered items when the stop begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AtStop {
    /// They are worked off, as far as the time allows.
    #[default]
    Drain,
    /// They are handed back at once. Only work under way is finished.
    HandBack,
    /// Items continue to come in until the last pusher or the source is gone, as far as the time allows. It
    /// is for a stage whose pushers are still draining.
    AfterPushers,
}
