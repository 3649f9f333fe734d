//! What the owner of a group, its spawners and its members share.

use std::collections::BTreeMap;
use std::fmt;
use std::iter;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::latch::Latch;
use super::record::{Record, Recorded};
use super::slots::Slots;
use super::sync::Lock;
use super::wakers::Wakers;
use crate::group::cause::{Cause, FailedTask, LostHeartbeat};
use crate::group::end::End;
use crate::group::error::{Failure, TaskError, View};
use crate::group::label::Label;
use crate::group::log;
use crate::group::log::console;
use crate::group::panic::Panic;
use crate::group::running::{Running, RunningTask};
use crate::group::time::Rounded;

/// Invariants:
///
/// 1. No code of a user runs under the locks, or outside of a guard against its panic: no destructor, no
///    waker, no `Display`, no `source`.
/// 2. `named` is locked alone; [`Record`] says in what order two records are.
/// 3. A member of a group is a member of every group above it: each has a share for it in its latch.
pub(crate) struct Shared<E> {
    pub(crate) latch: Latch,
    pub(crate) wakers: Wakers,
    pub(crate) slots: Slots,
    record: Record<E>,
    named: Lock<BTreeMap<u64, Named>>,
    next_id: AtomicU64,
    parent: Option<Arc<Shared<E>>>,
    owners: Lock<Owners>,
    /// Fires when a group with a grace is left, though something in it could not be ended.
    given_up: Option<CancellationToken>,
    /// The deadline that had passed before anything was spawned.
    overdue: Lock<Option<Duration>>,
    /// Whether failures stay here: they do not cancel the groups above, and are not told there.
    isolated: bool,
    /// Whether a trigger cancels the group, which is said, and so is the end. Written before the cancel, which
    /// publishes it.
    audited: AtomicBool,
    in_current_span: bool,
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

/// Who owns the groups below this one, see [`Shared::stay_as_path`].
#[derive(Default)]
struct Owners {
    below: usize,
    /// Whether this group's own owner has left it to those below.
    left: bool,
    /// What listened for the owner that has left.
    attached: Vec<Box<dyn Send>>,
}

/// What a group is made of.
pub(crate) struct Plan<E> {
    pub(crate) path: Option<Arc<str>>,
    pub(crate) limit: Option<usize>,
    pub(crate) token: Option<CancellationToken>,
    pub(crate) parent: Option<Arc<Shared<E>>>,
    pub(crate) isolated: bool,
    /// Whether its wait is bounded by a grace.
    pub(crate) bounded: bool,
    /// Whether each task runs in the span of its spawn.
    pub(crate) in_current_span: bool,
    pub(crate) view: View<E>,
    pub(crate) place: &'static Location<'static>,
}

impl<E> Plan<E> {
    /// A group without options.
    pub(crate) fn new(view: View<E>, place: &'static Location<'static>) -> Self {
        Self {
            path: None,
            limit: None,
            token: None,
            parent: None,
            isolated: false,
            bounded: false,
            in_current_span: false,
            view,
            place,
        }
    }

    /// A group without options below another one, and without a name of its own.
    pub(crate) fn below(above: &Arc<Shared<E>>, place: &'static Location<'static>) -> Self {
        Self {
            path: above.path.clone(),
            token: Some(above.token().child_token()),
            parent: Some(Arc::clone(above)),
            in_current_span: above.in_current_span,
            ..Self::new(above.view, place)
        }
    }

    /// The plan of a component: its failures stay, and it is not cancelled with the group above, as
    /// whoever waits for it says when it is to stop. It is aborted with that group.
    pub(crate) fn told_apart(self) -> Self {
        Self {
            token: None,
            isolated: true,
            ..self
        }
    }
}

impl<E> Shared<E> {
    /// Makes the shared part of a group; below a closed group it is born closed and cancelled.
    // Inlined, like the others that make a group, so that it is built where it stays.
    #[inline]
    pub(crate) fn new(plan: Plan<E>) -> Self {
        let group = Self {
            latch: Latch::new(),
            wakers: Wakers::default(),
            slots: Slots::new(plan.limit),
            record: Record::new(plan.token),
            named: Lock::default(),
            next_id: AtomicU64::new(1),
            parent: plan.parent,
            owners: Lock::default(),
            given_up: plan.bounded.then(CancellationToken::new),
            overdue: Lock::default(),
            isolated: plan.isolated,
            audited: AtomicBool::new(false),
            in_current_span: plan.in_current_span,
            path: plan.path,
            place: plan.place,
            view: plan.view,
        };
        if group.parent.as_ref().is_some_and(|above| above.is_closed()) {
            group.latch.close();
            group.slots.close();
            group.token().cancel();
        }
        group
    }

    /// What is aborted had to be dropped, which is no failure of it.
    pub(crate) fn cancel_told_apart(&self) {
        if self.isolated {
            self.cancel(Cause::Dropped);
        }
    }

    /// The group that the failures of this one go up to.
    fn above_for_failures(&self) -> Option<&Self> {
        self.parent.as_deref().filter(|_| !self.isolated)
    }

    pub(crate) fn is_isolated(&self) -> bool {
        self.isolated
    }

    #[inline]
    pub(crate) fn runs_in_spans(&self) -> bool {
        self.in_current_span
    }

    pub(crate) fn path(&self) -> Option<&Arc<str>> {
        self.path.as_ref()
    }

    /// The label by which the group as a whole is named.
    pub(crate) fn label(&self) -> Label {
        Label::unnamed(self.path.clone(), self.place)
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        self.record.token()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.record.is_cancelled()
    }

    /// Whether nobody is let in: this group is closed, or one above it is.
    pub(crate) fn is_closed(&self) -> bool {
        let above = self.parent.as_deref();
        self.latch.is_closed() || above.is_some_and(Self::is_closed)
    }

    pub(crate) fn cause(&self) -> Option<Cause> {
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
    pub(crate) fn cancel(&self, cause: Cause) -> bool {
        self.record.cancel(cause)
    }

    /// Records how a member failed, then cancels.
    #[cold]
    pub(crate) fn fail(&self, label: &Label, failure: Failure<E>) {
        let Some(failure) = self.unless_cancelled(failure) else {
            return;
        };
        let end = failure.end();
        let error = TaskError::new(label.clone(), failure, self.view);
        let message = message_of(&error, label);
        let cause = Cause::Failed(FailedTask::new(label, end, &message));
        self.stop_for(&cause, vec![Recorded::now(error)]);
        // Afterwards: a log may block on a pipe that nobody reads, and the others have to stop.
        log_failure(label, end, &message);
    }

    /// Records an error of [`error_of`](Self::error_of), then cancels; one that says no more than that its
    /// task was cancelled is given back.
    #[cold]
    pub(crate) fn blame(&self, label: &Label, error: TaskError<E>) -> Option<TaskError<E>> {
        if self.is_cancelled() && error.failure().is_cancellation(self.view) {
            return Some(error);
        }
        let cause = FailedTask::new(label, error.end(), &message_of(&error, label));
        self.stop_for(&Cause::Failed(cause), vec![Recorded::now(error)]);
        None
    }

    /// Makes an error of a failure that is not the group's, and logs it as if it were.
    #[cold]
    pub(crate) fn error_of(&self, label: &Label, failure: Failure<E>) -> TaskError<E> {
        let end = failure.end();
        let error = TaskError::new(label.clone(), failure, self.view);
        log_failure(label, end, &message_of(&error, label));
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
    pub(crate) fn fail_group(&self, cause: Cause, failure: Failure<E>) -> bool {
        let failure = self.failure_of_group(failure);
        self.record.keep(vec![failure]);
        self.cancel(cause)
    }

    /// Makes a failure of the group as a whole, for whoever is to be told.
    pub(crate) fn failure_of_group(&self, failure: Failure<E>) -> Recorded<E> {
        let error = TaskError::new(self.label(), failure, self.view);
        log::guarded(|| tracing::debug!(target: "taskgroup", "{error:#}"));
        Recorded::now(error)
    }

    /// What fires when whoever waits for this group is to leave, if its wait is bounded.
    pub(crate) fn given_up(&self) -> Option<&CancellationToken> {
        self.given_up.as_ref()
    }

    pub(crate) fn give_up(&self) {
        if let Some(given_up) = &self.given_up {
            given_up.cancel();
        }
    }

    /// Notes a deadline that has passed before anything was spawned: whatever comes is late.
    pub(crate) fn set_overdue(&self, deadline: Duration) {
        *self.overdue.lock() = Some(deadline);
    }

    pub(crate) fn take_overdue_if(&self, late: impl FnOnce() -> bool) -> Option<Duration> {
        self.overdue.lock().take_if(|_| late())
    }

    /// Whether a task with a name was ever spawned.
    pub(crate) fn has_named(&self) -> bool {
        self.next_id.load(Ordering::Relaxed) > 1
    }

    /// Cancels for a trigger, and says so if that was the first cause.
    pub(crate) fn trigger(&self, cause: &Cause) {
        if !self.is_cancelled() {
            self.audited.store(true, Ordering::Relaxed);
        }
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
    /// and all those above it, up to one that keeps its failures.
    fn stop_for(&self, cause: &Cause, mut failures: Vec<Recorded<E>>) {
        let mut next = Some(self);
        while let Some(group) = next {
            failures = group.record.keep(failures);
            group.cancel(cause.clone());
            next = group.above_for_failures();
        }
        self.forget(failures);
    }

    pub(crate) fn take_failures(&self) -> Vec<Recorded<E>> {
        self.record.take()
    }

    /// Hands failures that nobody has taken to the group above, now and from now on.
    pub(crate) fn orphan(&self) {
        let above = iter::successors(self.above_for_failures(), |group| {
            group.above_for_failures()
        });
        let failures = self.record.hand_up(above.map(|group| &group.record));
        self.forget(failures);
    }

    /// Notes that a group below this one has an owner.
    pub(crate) fn own_above(&self) {
        if let Some(above) = &self.parent {
            above.owners.lock().below += 1;
        }
    }

    /// Leaves this group to the owners below it, if there are any, and returns whether it did.
    ///
    /// For a group that has had no task of its own: it is no more than a path to those below it, whose
    /// tasks the group above waits for and aborts. So in `group.child("a").child("b")` the owner of `a`
    /// is dropped at once, and `b` goes on.
    pub(crate) fn stay_as_path(
        &self,
        attached: Vec<Box<dyn Send>>,
    ) -> Result<(), Vec<Box<dyn Send>>> {
        {
            let mut owners = self.owners.lock();
            if self.parent.is_none() || owners.below == 0 {
                return Err(attached);
            }
            owners.left = true;
            owners.attached = attached;
        }
        self.orphan();
        Ok(())
    }

    /// Notes that an owner of this group is gone; the last one below a group that was left to them takes
    /// that group along.
    pub(crate) fn disown_above(&self) {
        let mut next = self.parent.as_deref();
        while let Some(group) = next {
            let attached = {
                let mut owners = group.owners.lock();
                owners.below -= 1;
                if owners.below > 0 || !owners.left {
                    return;
                }
                std::mem::take(&mut owners.attached)
            };
            drop(attached);
            group.cancel(Cause::Dropped);
            group.latch.close();
            group.slots.close();
            group.latch.leave();
            next = group.parent.as_deref();
        }
    }

    /// Drops failures that nobody will ask for, one by one: two panics at once would end the process.
    pub(crate) fn forget<T>(&self, failures: Vec<T>) {
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
    pub(crate) fn log_trigger(&self, cause: &Cause, then: &str) {
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
    pub(crate) fn log_waiting(&self, running: &Running, left: Duration) {
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
    pub(crate) fn log_end(&self, cause: &Cause, ok: bool) {
        let group = self.path.as_deref();
        let outcome = if ok { "ok" } else { "failed" };
        // Whoever contains the failures of a group says how it ended.
        let audited = cause.is_trigger() || self.audited.load(Ordering::Relaxed);
        let loudly = audited && !self.isolated;
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
    pub(crate) fn enter(&self) -> bool {
        let entered = self.latch.enter();
        // All shares are taken, whatever the answers, so that all can be given back.
        self.parent.as_ref().is_none_or(|parent| parent.enter()) && entered
    }

    /// Gives the shares back, here first: whoever waits above waits longer.
    #[inline]
    pub(crate) fn leave(&self) {
        self.latch.leave();
        if let Some(parent) = &self.parent {
            parent.leave();
        }
    }

    pub(crate) fn register(&self, label: Label, blocking: bool) -> u64 {
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
    pub(crate) fn unregister(&self, id: u64) {
        let named = self.named.lock().remove(&id);
        drop(named);
    }

    pub(crate) fn running_named(&self) -> Running {
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
    Panic::catch(|| format!("{error:#}")).unwrap_or_else(|panic| {
        panic.discard();
        format!("{label} failed with an error whose message panicked")
    })
}

fn log_failure(label: &Label, end: End, message: &str) {
    let name = label.name();
    log::guarded(|| {
        if end == End::Panicked {
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
