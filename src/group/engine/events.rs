//! The events of a group.
//!
//! Each is a function without type parameters that is never inlined, because the code of one event is
//! as much as that of a small function.

use std::time::Duration;

use crate::group::cause::{Brief, Cause};
use crate::group::end::End;
use crate::group::label::Label;
use crate::group::log;
use crate::group::log::console;
use crate::group::panic::Panic;
use crate::group::running::Running;
use crate::group::time::Rounded;

/// How a task or the group as a whole failed. The caller gets the error, so only a panic is prominent.
///
/// If the `owner` of the group reports each error by itself, only a panic is logged here. It is logged
/// when it happens.
#[cold]
#[inline(never)]
pub(super) fn failure(task: Option<&str>, end: End, message: &str, by_owner: bool) {
    log::guarded(|| {
        if end == End::Panicked {
            tracing::error!(target: "taskgroup", task, "{message}");
        } else if !by_owner {
            tracing::debug!(target: "taskgroup", task, "{message}");
        }
    });
}

/// The destructor of an error that no caller asks for panicked.
#[cold]
#[inline(never)]
pub(super) fn error_panicked(group: &Label, panic: Panic) {
    log::guarded(|| {
        tracing::error!(
            target: "taskgroup",
            "an error of a {group} panicked as it was dropped: {}",
            panic.message()
        );
    });
    panic.discard();
}

/// What asked the group to stop, and what follows from it.
#[cold]
#[inline(never)]
pub(super) fn trigger(group: Option<&str>, cause: &Cause, then: &str) {
    let signal = match cause {
        Cause::Signal(signal) => Some(tracing::field::display(signal)),
        _ => None,
    };
    log::guarded(|| {
        tracing::info!(
            name: "taskgroup.trigger", target: "taskgroup", group, %cause, signal, "{cause}, {then}"
        );
    });
    console::say(group, format_args!("{cause}, {then}"));
}

/// Which tasks are left, and how much longer they may take.
#[cold]
#[inline(never)]
pub(super) fn waiting(group: Option<&str>, running: &Running, left: Duration) {
    let left = Rounded(left);
    log::guarded(|| {
        tracing::info!(
            name: "taskgroup.waiting", target: "taskgroup", group, "still waiting for {running} ({left} left)"
        );
    });
    console::say(
        group,
        format_args!("still waiting for {running} ({left} left)"),
    );
}

/// What followed the cancel. The line is only prominent if a trigger asked for it.
#[cold]
#[inline(never)]
pub(super) fn stopped(group: Option<&str>, cause: &Cause, ok: bool, loudly: bool) {
    let outcome = if ok { "ok" } else { "failed" };
    let cause = Brief(cause);
    log::guarded(|| {
        if loudly {
            tracing::info!(
                name: "taskgroup.stopped", target: "taskgroup", group, %cause, outcome, "group stopped"
            );
        } else {
            tracing::debug!(
                name: "taskgroup.stopped", target: "taskgroup", group, %cause, outcome, "group stopped"
            );
        }
    });
    if loudly {
        console::say(group, format_args!("stopped"));
    }
}
