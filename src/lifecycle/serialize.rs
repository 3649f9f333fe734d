//! `Serialize` for the report and all that it contains (feature `serde`).
//!
//! The format for log pipelines is described at [`Report`]. The private types in this file define
//! it, so renaming a field of the report does not change it. `tests/report.json` shows it.

use std::time::Duration;

use serde::Serialize;
use serde::Serializer;

use crate::cleanup::CleanupReport;
use crate::cleanup::Outcome;
use crate::cleanup::StepReport;
use crate::cleanup::step_report::Priority;
use crate::group::cause::Cause;
use crate::group::end::End;
use crate::lifecycle::ComponentError;
use crate::lifecycle::ComponentState;
use crate::lifecycle::ComponentStatus;
use crate::lifecycle::Report;
use crate::lifecycle::StepKind;
use crate::lifecycle::Straggler;
use crate::lifecycle::TimelineStep;

/// Serialises a type in its wire format.
macro_rules! on_the_wire {
    ($($type:ty => |$value:ident| $wire:expr;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $value = self;
                $wire.serialize(serializer)
            }
        }
    )*};
}

/// Serialises an enum by the snake-case names of its twin in this file.
macro_rules! by_name {
    ($($type:ty => $names:ident;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $names::serialize(self, serializer)
            }
        }
    )*};
}

/// A number of seconds. `None` if the time is unlimited.
fn seconds(time: Duration) -> Option<f64> {
    (time != Duration::MAX).then_some(time.as_secs_f64())
}

#[derive(Serialize)]
struct ReportOnWire<'a> {
    name: &'a str,
    clean: bool,
    forced: bool,
    cause: &'a Cause,
    stop_began_seconds: Option<f64>,
    ended_seconds: Option<f64>,
    took_seconds: Option<f64>,
    budget_seconds: Option<f64>,
    in_flight: usize,
    errors: &'a [ComponentError],
    components: &'a [ComponentStatus],
    stragglers: &'a [Straggler],
    timeline: &'a [TimelineStep],
    cleanup: &'a Option<CleanupReport>,
    nested: &'a [Report],
}

/// An enum with data, as its kind and its message.
#[derive(Serialize)]
struct Told {
    kind: &'static str,
    message: String,
}

#[derive(Serialize)]
#[serde(tag = "kind", content = "message", rename_all = "snake_case")]
enum OutcomeOnWire<'a> {
    Clean,
    Stopped(String),
    Failed(&'a str),
    Forced(&'a str),
}

#[derive(Serialize)]
struct ErrorOnWire<'a> {
    component: &'a str,
    during: Option<StepKind>,
    end: End,
    limit_seconds: Option<f64>,
    message: &'a str,
    text: String,
}

#[derive(Serialize)]
struct StatusOnWire<'a> {
    component: &'a str,
    state: &'a ComponentState,
    message: &'a str,
}

#[derive(Serialize)]
struct TimelineStepOnWire<'a> {
    kind: StepKind,
    subject: &'a str,
    began_seconds: Option<f64>,
    ended_seconds: Option<f64>,
    end: End,
    limit_seconds: Option<f64>,
    message: &'a str,
    critical: bool,
}

#[derive(Serialize)]
struct StragglerOnWire<'a> {
    component: &'a str,
    task: &'a Option<String>,
    count: usize,
    place: &'a str,
    age_seconds: Option<f64>,
    blocking: bool,
    still_running: bool,
}

#[derive(Serialize)]
struct CleanupOnWire<'a> {
    clean: bool,
    outcome: &'a Outcome,
    took_seconds: Option<f64>,
    budget_seconds: Option<f64>,
    steps: &'a [StepReport],
}

#[derive(Serialize)]
struct StepOnWire<'a> {
    name: &'a str,
    priority: Priority,
    best_effort: bool,
    started_seconds: Option<f64>,
    ended_seconds: Option<f64>,
    attempts: u32,
    end: End,
    limit_seconds: Option<f64>,
    message: &'a str,
}

#[derive(Serialize)]
#[serde(remote = "End", rename_all = "snake_case")]
enum EndNames {
    Done,
    Failed,
    Panicked,
    EndedEarly,
    Aborted,
    TimedOut,
    StillRunning,
    Skipped,
}

#[derive(Serialize)]
#[serde(remote = "ComponentState", rename_all = "snake_case")]
enum StateNames {
    Created,
    Starting,
    Running,
    Draining,
    #[serde(untagged)]
    Ended(End),
}

#[derive(Serialize)]
#[serde(remote = "StepKind", rename_all = "snake_case")]
enum StepKindNames {
    Start,
    Jitter,
    LameDuck,
    Drain,
    Stop,
    Cleanup,
}

#[derive(Serialize)]
#[serde(remote = "Priority", rename_all = "snake_case")]
enum PriorityNames {
    Critical,
    Normal,
    Low,
}

by_name! {
    End => EndNames;
    ComponentState => StateNames;
    StepKind => StepKindNames;
    Priority => PriorityNames;
}

on_the_wire! {
    Report => |report| ReportOnWire {
        name: &report.name,
        clean: report.is_clean(),
        forced: report.was_forced(),
        cause: &report.cause,
        stop_began_seconds: seconds(report.stop_began),
        ended_seconds: seconds(report.ended),
        took_seconds: seconds(report.took()),
        budget_seconds: seconds(report.budget),
        in_flight: report.in_flight,
        errors: &report.errors,
        components: &report.components,
        stragglers: &report.stragglers,
        timeline: &report.timeline,
        cleanup: &report.cleanup,
        nested: &report.nested,
    };
    Cause => |cause| Told {
        kind: match cause {
            Cause::Failed(_) => "failed",
            Cause::Requested(_) => "requested",
            Cause::Done => "done",
            Cause::Signal(_) => "signal",
            Cause::Deadline(_) => "deadline",
            Cause::File { .. } => "file",
            Cause::Heartbeat(_) => "heartbeat",
            Cause::Reload => "reload",
            Cause::HandedOver(_) => "handed_over",
            Cause::Dropped => "dropped",
            Cause::Token => "token",
        },
        message: cause.to_string(),
    };
    ComponentError => |error| ErrorOnWire {
        component: &error.component,
        during: error.during,
        end: error.end(),
        limit_seconds: error.limit.and_then(seconds),
        message: &error.message,
        text: format!("{error:#}"),
    };
    ComponentStatus => |status| StatusOnWire {
        component: &status.component,
        state: &status.state,
        message: &status.message,
    };
    TimelineStep => |step| TimelineStepOnWire {
        kind: step.kind,
        subject: &step.subject,
        began_seconds: seconds(step.began),
        ended_seconds: seconds(step.ended),
        end: step.end,
        limit_seconds: step.limit.and_then(seconds),
        message: &step.message,
        critical: step.critical,
    };
    Straggler => |straggler| StragglerOnWire {
        component: &straggler.component,
        task: &straggler.task,
        count: straggler.count,
        place: &straggler.place,
        age_seconds: straggler.age.and_then(seconds),
        blocking: straggler.blocking,
        still_running: straggler.still_running,
    };
    CleanupReport => |report| CleanupOnWire {
        clean: report.is_clean(),
        outcome: &report.outcome,
        took_seconds: seconds(report.took),
        budget_seconds: seconds(report.budget),
        steps: &report.steps,
    };
    Outcome => |outcome| match outcome {
        Outcome::Clean => OutcomeOnWire::Clean,
        Outcome::Stopped(cause) => OutcomeOnWire::Stopped(cause.to_string()),
        Outcome::Failed(message) => OutcomeOnWire::Failed(message),
        Outcome::Forced(message) => OutcomeOnWire::Forced(message),
    };
    StepReport => |step| StepOnWire {
        name: &step.name,
        priority: step.priority,
        best_effort: step.best_effort,
        started_seconds: step.started.and_then(seconds),
        ended_seconds: step.ended.and_then(seconds),
        attempts: step.attempts,
        end: step.end,
        limit_seconds: step.limit.and_then(seconds),
        message: &step.message,
    };
}
