//! What the owner of a group, its spawners and its members share.

use std::collections::BTreeMap;
use std::fmt;
use std::iter;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::latch::Latch;
use super::record::{Record, Recorded};
use super::slots::Slots;
use super::sync::Lock;
use super::wakers::Wakers;
use crate::cause::{Cause, FailedTask, LostHeartbeat};
use crate::console;
use crate::error::{Failure, TaskError, View};
use crate::label::{self, Label};
use crate::log;
use crate::panic::Panic;
use crate::running::{Running, RunningTask};
use crate::time::Rounded;

/// Invariants:
///
/// 1. No code of a user runs under the locks, or outside of a guard against its panic: no destructor, no
///    waker, no `Display`, no `source`.
/// 2. `named` is locked alone; [`Record`] says in what order two records are.
/// 3. A member of a group is a member of every group above it: each has a share for it in its latch.
pub(super) struct Shared<E> {
    pub(super) latch: Latch,
    pub(super) wakers: Wakers,
    pub(super) slots: Slots,
    record: Record<E>,
    named: Lock<BTreeMap<u64, Named>>,
    next_id: AtomicU64,
    parent: Option<Arc<Shared<E>>>,
    /// Whether a failure ends here, and is no failure of the groups above, nor their end that of this one.
    contains: bool,
    path: Option<Arc<str>>,
    place: &'static Location<'static>,
    view: View<E>,
}

/// An entry in the list of named tasks.
struct Named {
    label: Label,
    since: Instant,
    blocking: bool,
}

/// What a group is made of.
pub(super) struct Plan<E> {
    pub(super) path: Option<Arc<str>>,
    pub(super) limit: Option<usize>,
    pub(super) token: Option<CancellationToken>,
    pub(super) view: View<E>,
    pub(super) place: &'static Location<'static>,
}

impl<E> Plan<E> {
    /// A group without options.
    pub(super) fn new(view: View<E>, place: &'static Location<'static>) -> Self {
        Self {
            path: None,
            limit: None,
            token: None,
            view,
            place,
        }
    }
}

impl<E> Shared<E> {
    // Inlined, like the others that make a group, so that it is built where it stays.
    #[inline]
    pub(super) fn new(plan: Plan<E>) -> Self {
        Self::below(None, plan)
    }

    /// The shared part of a child group; born closed and cancelled if the parent is closed.
    pub(super) fn child(self: &Arc<Self>, name: &str, place: &'static Location<'static>) -> Self {
        let child = Self::below(
            Some(Arc::clone(self)),
            Plan {
                path: Some(label::join(self.path.as_deref(), name)),
                limit: None,
                token: Some(self.token().child_token()),
                view: self.view,
                place,
            },
        );
        if self.is_closed() {
            child.latch.close();
            child.token().cancel();
        }
        child
    }

    #[inline]
    fn below(parent: Option<Arc<Shared<E>>>, plan: Plan<E>) -> Self {
        Self {
            latch: Latch::new(),
            wakers: Wakers::default(),
            slots: Slots::new(plan.limit),
            record: Record::new(plan.token),
            named: Lock::default(),
            next_id: AtomicU64::new(1),
            parent,
            contains: false,
            path: plan.path,
            place: plan.place,
            view: plan.view,
        }
    }

    /// Keeps failures from the groups above, and their cancellation from this one: whoever waits for it
    /// decides what the ones mean, and when it is to stop. It is aborted with them.
    pub(super) fn containing(mut self) -> Self {
        self.contains = true;
        if !self.latch.is_closed() {
            self.record.forget_token();
        }
        self
    }

    /// What is aborted had to be dropped, which is no failure of it.
    pub(super) fn cancel_contained(&self) {
        if self.contains {
            self.cancel(Cause::Dropped);
        }
    }

    pub(super) fn path(&self) -> Option<&Arc<str>> {
        self.path.as_ref()
    }

    /// The label by which the group as a whole is named.
    pub(super) fn label(&self) -> Label {
        Label::unnamed(self.path.clone(), self.place)
    }

    pub(super) fn token(&self) -> &CancellationToken {
        self.record.token()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.record.is_cancelled()
    }

    /// Whether nobody is let in: this group is closed, or one above it is.
    pub(super) fn is_closed(&self) -> bool {
        let above = self.parent.as_deref();
        self.latch.is_closed() || above.is_some_and(Self::is_closed)
    }

    pub(super) fn cause(&self) -> Option<Cause> {
        self.record.cause().or_else(|| {
            self.record.has_token_fired().then(|| {
                let parent = self.parent.as_ref();
                parent
                    .and_then(|parent| parent.cause())
                    .unwrap_or(Cause::Token)
            })
        })
    }

    /// Cancels for this cause, and returns whether it was the first.
    pub(super) fn cancel(&self, cause: Cause) -> bool {
        self.record.cancel(cause)
    }

    /// Records how a member failed, then cancels.
    #[cold]
    pub(super) fn fail(&self, label: &Label, failure: Failure<E>) {
        let Some(failure) = self.unless_cancelled(failure) else {
            return;
        };
        let panicked = matches!(failure, Failure::Panicked(_));
        let error = TaskError::new(label.clone(), failure, self.view);
        let message = message_of(&error, label);
        let cause = Cause::Failed(FailedTask::new(label, panicked, &message));
        self.stop_for(&cause, vec![Recorded::now(error)]);
        // Afterwards: a log may block on a pipe that nobody reads, and the others have to stop.
        log_failure(label, panicked, &message);
    }

    /// Makes an error of a failure that is not the group's, and logs it as if it were.
    #[cold]
    pub(super) fn error_of(&self, label: &Label, failure: Failure<E>) -> TaskError<E> {
        let panicked = matches!(failure, Failure::Panicked(_));
        let error = TaskError::new(label.clone(), failure, self.view);
        log_failure(label, panicked, &message_of(&error, label));
        error
    }

    /// Returns the failure, unless it is an error that says no more than that the task was cancelled.
    ///
    /// To look for that, and to drop the error then, is to run code of the user.
    fn unless_cancelled(&self, failure: Failure<E>) -> Option<Failure<E>> {
        if !self.is_cancelled() {
            return Some(failure);
        }
        match Panic::catch(|| failure.is_cancellation(self.view)) {
            Ok(true) => Panic::catch_drop(failure).err().map(Failure::Panicked),
            Ok(false) => Some(failure),
            Err(panic) => {
                panic.discard();
                Some(failure)
            }
        }
    }

    /// Records a failure of the group as a whole, with a cause of its own, and returns whether that was
    /// the first.
    ///
    /// The groups above are not cancelled: it is told to the one who shuts this group down, who may
    /// want the rest to go on.
    pub(super) fn fail_group(&self, cause: Cause, failure: Failure<E>) -> bool {
        let failure = self.failure_of_group(failure);
        self.record.keep(vec![failure]);
        self.cancel(cause)
    }

    /// Makes a failure of the group as a whole, for whoever is to be told.
    pub(super) fn failure_of_group(&self, failure: Failure<E>) -> Recorded<E> {
        let error = TaskError::new(self.label(), failure, self.view);
        log::guarded(|| tracing::debug!(target: "taskgroup", "{error}"));
        Recorded::now(error)
    }

    /// Cancels for a trigger, and says so if that was the first cause.
    pub(super) fn trigger(&self, cause: &Cause) {
        let first = match cause {
            Cause::Heartbeat(lost) => self.lose(lost),
            _ => self.cancel(cause.clone()),
        };
        // Afterwards, as in `fail`.
        if first {
            self.log_trigger(cause, "stopping");
        }
    }

    /// Records a lost heartbeat as the first failure here, then cancels this group and all those above
    /// it. In a group that is cancelled it is none: it was given up in the drain.
    fn lose(&self, lost: &LostHeartbeat) -> bool {
        let cause = Cause::Heartbeat(lost.clone());
        let failure = Failure::HeartbeatLost(lost.clone());
        let error = TaskError::new(self.label(), failure, self.view);
        // The owner is there to be told: one that goes leaves a cause.
        let first = self.record.keep_first(cause.clone(), Recorded::now(error));
        if first {
            self.stop_for(&cause, Vec::new());
        }
        first
    }

    /// Keeps the failures here, or in the first group above that has an owner, and cancels this group
    /// and all those above it, up to one that contains its failures.
    fn stop_for(&self, cause: &Cause, mut failures: Vec<Recorded<E>>) {
        let mut next = Some(self);
        while let Some(group) = next {
            failures = group.record.keep(failures);
            group.cancel(cause.clone());
            next = group.parent.as_deref().filter(|_| !group.contains);
        }
        self.forget(failures);
    }

    pub(super) fn take_failures(&self) -> Vec<Recorded<E>> {
        self.record.take()
    }

    /// Hands failures that nobody has taken to the group above, now and from now on.
    pub(super) fn orphan(&self) {
        let parent = self.parent.as_deref();
        let above = iter::successors(parent, |group| group.parent.as_deref());
        let failures = self.record.hand_up(above.map(|group| &group.record));
        self.forget(failures);
    }

    /// Drops failures that nobody will ask for, one by one: two panics at once would end the process.
    pub(super) fn forget<T>(&self, failures: Vec<T>) {
        for failure in failures {
            if let Err(panic) = Panic::catch_drop(failure) {
                let group = self.label();
                log::guarded(|| {
                    tracing::error!(
                        target: "taskgroup",
                        "an error of a {group} panicked as it was dropped: {}",
                        panic.message()
                    );
                });
                panic.discard();
            }
        }
    }

    /// Says what asked the group to stop, and what follows from it.
    pub(super) fn log_trigger(&self, cause: &Cause, then: &str) {
        let group = self.path.as_deref();
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

    /// Says who is waited for, and for how long still.
    pub(super) fn log_waiting(&self, running: &Running, left: Duration) {
        let group = self.path.as_deref();
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

    /// Says what followed the cancellation; loudly only if a trigger asked for it.
    pub(super) fn log_end(&self, cause: &Cause, ok: bool) {
        let group = self.path.as_deref();
        let outcome = if ok { "ok" } else { "failed" };
        // Whoever contains the failures of a group says how it ended.
        let loudly = cause.is_trigger() && !self.contains;
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

    /// Takes a share of the latch, here and in every group above. The caller must
    /// [`leave`](Self::leave) in either case.
    #[inline]
    #[must_use = "a refused entry must leave"]
    pub(super) fn enter(&self) -> bool {
        let entered = self.latch.enter();
        // All shares are taken, whatever the answers, so that all can be given back.
        self.parent.as_ref().is_none_or(|parent| parent.enter()) && entered
    }

    /// Gives the shares back, here first: whoever waits above waits longer.
    #[inline]
    pub(super) fn leave(&self) {
        self.latch.leave();
        if let Some(parent) = &self.parent {
            parent.leave();
        }
    }

    pub(super) fn register(&self, label: Label, blocking: bool) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let named = Named {
            label,
            since: Instant::now(),
            blocking,
        };
        self.named.lock().insert(id, named);
        id
    }

    #[inline(never)]
    pub(super) fn unregister(&self, id: u64) {
        let named = self.named.lock().remove(&id);
        drop(named);
    }

    pub(super) fn running_named(&self) -> Running {
        let now = Instant::now();
        let mut running = Running::default();
        for (&id, named) in &*self.named.lock() {
            let age = now.saturating_duration_since(named.since);
            running.push(RunningTask::named(
                named.label.clone(),
                id,
                age,
                named.blocking,
            ));
        }
        running
    }
}

/// `Display` is code of the user: it may panic, and it must not run under a lock.
fn message_of<E>(error: &TaskError<E>, label: &Label) -> String {
    Panic::catch(|| error.to_string()).unwrap_or_else(|panic| {
        panic.discard();
        format!("{label} failed with an error whose message panicked")
    })
}

fn log_failure(label: &Label, panicked: bool, message: &str) {
    let name = label.name();
    log::guarded(|| {
        if panicked {
            tracing::error!(target: "taskgroup", task = name, "{message}");
        } else {
            tracing::debug!(target: "taskgroup", task = name, "{message}");
        }
    });
}

impl<E> fmt::Debug for Shared<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("name", &self.path)
            .field("members", &self.latch.shares().saturating_sub(1))
            .field("closed", &self.is_closed())
            .field("cause", &self.cause())
            .finish_non_exhaustive()
    }
}
