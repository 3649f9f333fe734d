//! [`TimelineStep`]: what was done and when.

use std::time::Duration;

use crate::cleanup::words;
use crate::group::end::End;
use crate::group::time::Rounded;
use crate::lifecycle::step_kind::StepKind;

/// A step of a lifecycle: what was done to which component and when. Plain data.
///
/// # Examples
///
/// See [`Report`](super::Report).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimelineStep {
    /// The component, the step of the cleanup, or the lifecycle itself.
    pub subject: String,
    /// What was done.
    pub kind: StepKind,
    /// When it began, since the start of the run.
    pub began: Duration,
    /// When it ended or was given up, since the start of the run. Never before `began`.
    pub ended: Duration,
    /// How it ended. [`Skipped`](End::Skipped) if it was not done, or was broken off.
    pub end: End,
    /// The time limit that was exceeded, if that is what went wrong.
    pub limit: Option<Duration>,
    /// The error or the panic, or why the step was skipped. Empty if the end says it all.
    pub message: String,
    /// Whether the step is on the critical chain. If such a step had been shorter, the stop would have been
    /// shorter too. Steps of the start are never on it.
    pub critical: bool,
}

impl TimelineStep {
    /// Makes a step that ended at `ended`, or at its begin if that is later.
    pub(in crate::lifecycle) fn new(
        kind: StepKind,
        subject: impl Into<String>,
        (began, ended): (Duration, Duration),
        end: End,
    ) -> Self {
        Self {
            subject: subject.into(),
            kind,
            began,
            ended: ended.max(began),
            end,
            limit: None,
            message: String::new(),
            critical: false,
        }
    }

    /// Adds the time limit that was exceeded, and a message.
    pub(in crate::lifecycle) fn saying(mut self, limit: Option<Duration>, message: &str) -> Self {
        self.limit = limit;
        message.clone_into(&mut self.message);
        self
    }

    /// How it ended, as its row says it.
    pub(super) fn how(&self) -> String {
        match (self.kind, self.limit) {
            (StepKind::Start, Some(limit)) => format!("not ready within {}", Rounded(limit)),
            (_, limit) => words::ended(self.end, limit, &self.message),
        }
    }

    /// Returns how long the step took.
    ///
    /// # Examples
    ///
    /// See [`Report`](crate::lifecycle::Report).
    #[must_use]
    pub fn took(&self) -> Duration {
        self.ended.saturating_sub(self.began)
    }
}
