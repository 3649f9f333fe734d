//! [`Canary`]: the message of a test that fails when upstream has changed.

/// What a server does badly today, where that is discussed, and what follows here from a change.
pub(crate) struct Canary {
    pub(crate) today: &'static str,
    pub(crate) upstream: &'static str,
    pub(crate) then: &'static str,
}

impl Canary {
    #[track_caller]
    pub(crate) fn still(&self, as_bad_as_ever: bool) {
        let Self {
            today,
            upstream,
            then,
        } = self;
        assert!(
            as_bad_as_ever,
            "upstream has changed, see {upstream}. It was so until now: {today}. {then}"
        );
    }
}
