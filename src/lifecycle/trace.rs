//! The events of a lifecycle in the log, whose names and fields are stable.

use super::event::{Event, EventKind};
use crate::group::cause::Brief;
use crate::group::end::End;
use crate::group::log::console;
use crate::group::time::Rounded;

/// Prints the events of a stop for a program that has no log.
///
/// The outermost lifecycle prints for those nested in it.
pub(super) fn say(lifecycle: &str, event: &Event) {
    if *event.lifecycle != *lifecycle {
        return;
    }
    match &event.kind {
        EventKind::StopTriggered { cause, .. } if !cause.is_trigger() => {
            console::say(Some(lifecycle), format_args!("{cause}, stopping"));
        }
        EventKind::Waiting(waited) => {
            console::say(Some(lifecycle), format_args!("still waiting for {waited}"));
        }
        EventKind::Stopped { took, .. } => {
            console::say(
                Some(lifecycle),
                format_args!("stopped in {}", Rounded(*took)),
            );
        }
        _ => {}
    }
}

/// Writes one event. `docs/lifecycle.md` has the table.
///
/// Events that an operator has to know are INFO, the rest DEBUG. An error is returned in the
/// report, which comes later or never, so it is a WARN when it happens. No other line prints it. A
/// panic has already been printed when it was caught.
pub(super) fn event(lifecycle: &str, event: &Event) {
    let component = event.component.as_deref().unwrap_or(lifecycle);
    match &event.kind {
        EventKind::StartBegan => {
            tracing::debug!(name: "taskgroup.component.starting", target: "taskgroup", lifecycle, component, "component is starting");
        }
        EventKind::Skipped(reason) => {
            tracing::debug!(name: "taskgroup.component.skipped", target: "taskgroup", lifecycle, component, reason, "component is not started");
        }
        EventKind::Ready(after) => {
            tracing::debug!(name: "taskgroup.component.ready", target: "taskgroup", lifecycle, component, elapsed = %Rounded(*after), "component is ready");
        }
        EventKind::AllReady => {
            tracing::info!(name: "taskgroup.ready", target: "taskgroup", lifecycle, elapsed = %Rounded(event.at), "all components are ready");
        }
        EventKind::StopTriggered { cause, budget } => {
            // A trigger has already logged this, in the same words.
            if !cause.is_trigger() {
                let cause = Brief(cause);
                tracing::info!(name: "taskgroup.trigger", target: "taskgroup", group = lifecycle, %cause, "{cause}, stopping");
            }
            let cause = Brief(cause);
            tracing::debug!(name: "taskgroup.stopping", target: "taskgroup", lifecycle, %cause, budget = %Rounded(*budget), uptime = %Rounded(event.at), "shutdown begins");
        }
        EventKind::InFlight(in_flight) => {
            tracing::debug!(name: "taskgroup.component.in_flight", target: "taskgroup", lifecycle, component, in_flight, "in flight when the shutdown was triggered");
        }
        EventKind::JitterBegan(length) => {
            tracing::info!(name: "taskgroup.jitter", target: "taskgroup", lifecycle, within = %Rounded(*length), "waiting for a jitter, still ready");
        }
        EventKind::NotReady => {
            tracing::debug!(name: "taskgroup.not_ready", target: "taskgroup", lifecycle, "no longer ready");
        }
        EventKind::LameDuckBegan(length) => {
            tracing::info!(name: "taskgroup.lame_duck", target: "taskgroup", lifecycle, within = %Rounded(*length), "lame duck: not ready, still serving");
        }
        EventKind::DrainBegan(within) => {
            tracing::info!(name: "taskgroup.draining", target: "taskgroup", lifecycle, within = %Rounded(*within), "draining");
        }
        EventKind::DrainEnded => {
            tracing::debug!(name: "taskgroup.drained", target: "taskgroup", lifecycle, "drained");
        }
        EventKind::StopBegan(within) => {
            tracing::debug!(name: "taskgroup.component.stopping", target: "taskgroup", lifecycle, component, within = %Rounded(*within), "component is told to stop");
        }
        EventKind::Failed(error) if error.end() == End::Panicked => {
            tracing::warn!(name: "taskgroup.component.failed", target: "taskgroup", lifecycle, component, error = "panicked", "component failed");
        }
        EventKind::Failed(error) => {
            tracing::warn!(name: "taskgroup.component.failed", target: "taskgroup", lifecycle, component, error = %format_args!("{error:#}"), "component failed");
        }
        EventKind::Forced(after) => {
            tracing::warn!(name: "taskgroup.component.forced", target: "taskgroup", lifecycle, component, elapsed = %Rounded(*after), "component was forced to stop");
        }
        EventKind::Ended { end, took, .. } => {
            // The failure was logged before.
            let elapsed = Rounded(took.unwrap_or_default());
            tracing::debug!(name: "taskgroup.component.ended", target: "taskgroup", lifecycle, component, %end, %elapsed, "component ended");
        }
        EventKind::Waiting(waited) => {
            tracing::info!(name: "taskgroup.waiting", target: "taskgroup", lifecycle, "still waiting for {waited}");
        }
        EventKind::CleanupBegan => {
            tracing::debug!(name: "taskgroup.cleanup", target: "taskgroup", lifecycle, "cleanup began");
        }
        EventKind::Stopped { took, errors } => {
            tracing::info!(name: "taskgroup.stopped", target: "taskgroup", lifecycle, elapsed = %Rounded(*took), errors, "shutdown complete");
        }
    }
}
