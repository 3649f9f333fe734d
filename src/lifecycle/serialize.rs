//! `Serialize` for the report and all that it contains (feature `serde`).
//!
//! By hand and in one place: what a log pipeline reads is a format of its own, described at
//! [`Report`], and must not change because a field is renamed.

use std::time::Duration;

use serde::Serialize;
use serde::Serializer;
use serde::ser::SerializeStruct;

use crate::group::cause::Cause;
use crate::group::end::End;
use crate::lifecycle::ComponentError;
use crate::lifecycle::ComponentState;
use crate::lifecycle::ComponentStatus;
use crate::lifecycle::Report;
use crate::lifecycle::StepKind;
use crate::lifecycle::Straggler;
use crate::lifecycle::TimelineStep;
use crate::lifecycle::cleanup::CleanupReport;
use crate::lifecycle::cleanup::Outcome;
use crate::lifecycle::cleanup::Priority;
use crate::lifecycle::cleanup::StepReport;

/// A duration as a number of seconds; nothing for the one that is no limit.
struct Seconds(Duration);

/// An enum with data: what it is, and what it says.
struct Tagged<'a> {
    kind: &'static str,
    message: Option<&'a str>,
}

impl<'a> Tagged<'a> {
    fn alone(kind: &'static str) -> Self {
        Self {
            kind,
            message: None,
        }
    }

    fn with_message(kind: &'static str, message: &'a str) -> Self {
        Self {
            message: Some(message),
            ..Self::alone(kind)
        }
    }
}

/// Writes a struct whose fields are always the same.
macro_rules! fields {
    ($serializer:expr, $name:literal, { $($field:literal: $value:expr,)* }) => {{
        let count = [$($field),*].len();
        let mut fields = $serializer.serialize_struct($name, count)?;
        $(fields.serialize_field($field, &$value)?;)*
        fields.end()
    }};
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fields!(serializer, "Report", {
            "name": self.name,
            "clean": self.is_clean(),
            "forced": self.was_forced(),
            "cause": self.cause,
            "stop_began_seconds": Seconds(self.stop_began),
            "ended_seconds": Seconds(self.ended),
            "took_seconds": Seconds(self.took()),
            "budget_seconds": Seconds(self.budget),
            "in_flight": self.in_flight,
            "errors": self.errors,
            "components": self.components,
            "stragglers": self.stragglers,
            "timeline": self.timeline,
            "cleanup": self.cleanup,
            "nested": self.nested,
        })
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = match self {
            Self::Failed(_) => "failed",
            Self::Requested(_) => "requested",
            Self::Done => "done",
            Self::Signal(_) => "signal",
            Self::Deadline(_) => "deadline",
            Self::File { .. } => "file",
            Self::Heartbeat(_) => "heartbeat",
            Self::Reload => "reload",
            Self::Dropped => "dropped",
            Self::Token => "token",
        };
        Tagged::with_message(kind, &self.to_string()).serialize(serializer)
    }
}

impl Serialize for End {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::EndedEarly => "ended_early",
            Self::Aborted => "aborted",
            Self::TimedOut => "timed_out",
            Self::StillRunning => "still_running",
            Self::Skipped => "skipped",
        })
    }
}

impl Serialize for ComponentError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fields!(serializer, "ComponentError", {
            "component": self.component,
            "during": self.during,
            "end": self.end(),
            "limit_seconds": self.limit.map(Seconds),
            "message": self.message,
            "text": format!("{self:#}"),
        })
    }
}

impl Serialize for ComponentStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fields!(serializer, "ComponentStatus", {
            "component": self.component,
            "state": self.state,
            "message": self.message,
        })
    }
}

impl Serialize for ComponentState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let state = match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Ended(end) => return end.serialize(serializer),
        };
        serializer.serialize_str(state)
    }
}

impl Serialize for TimelineStep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fields!(serializer, "TimelineStep", {
            "kind": self.kind,
            "subject": self.subject,
            "began_seconds": Seconds(self.began),
            "ended_seconds": Seconds(self.ended),
            "end": self.end,
            "limit_seconds": self.limit.map(Seconds),
            "message": self.message,
        })
    }
}

impl Serialize for StepKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Start => "start",
            Self::Jitter => "jitter",
            Self::LameDuck => "lame_duck",
            Self::Drain => "drain",
            Self::Stop => "stop",
            Self::Cleanup => "cleanup",
        })
    }
}

impl Serialize for Straggler {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fields!(serializer, "Straggler", {
            "component": self.component,
            "task": self.task,
            "count": self.count,
            "place": self.place,
            "age_seconds": self.age.map(Seconds),
            "blocking": self.blocking,
            "still_running": self.still_running,
        })
    }
}

impl Serialize for CleanupReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fields!(serializer, "CleanupReport", {
            "clean": self.is_clean(),
            "outcome": self.outcome,
            "took_seconds": Seconds(self.took),
            "budget_seconds": Seconds(self.budget),
            "steps": self.steps,
        })
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stopped;
        let tagged = match self {
            Self::Clean => Tagged::alone("clean"),
            Self::Stopped(cause) => {
                stopped = cause.to_string();
                Tagged::with_message("stopped", &stopped)
            }
            Self::Failed(message) => Tagged::with_message("failed", message),
            Self::Forced(message) => Tagged::with_message("forced", message),
        };
        tagged.serialize(serializer)
    }
}

impl Serialize for StepReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fields!(serializer, "StepReport", {
            "name": self.name,
            "priority": self.priority,
            "best_effort": self.best_effort,
            "started_seconds": self.started.map(Seconds),
            "ended_seconds": self.ended.map(Seconds),
            "attempts": self.attempts,
            "end": self.end,
            "limit_seconds": self.limit.map(Seconds),
            "message": self.message,
        })
    }
}

impl Serialize for Priority {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Low => "low",
        })
    }
}

impl Serialize for Tagged<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let count = 1 + usize::from(self.message.is_some());
        let mut fields = serializer.serialize_struct("Tagged", count)?;
        fields.serialize_field("kind", self.kind)?;
        match self.message {
            Some(message) => fields.serialize_field("message", message)?,
            None => fields.skip_field("message")?,
        }
        fields.end()
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Duration::MAX => serializer.serialize_none(),
            time => serializer.serialize_f64(time.as_secs_f64()),
        }
    }
}
