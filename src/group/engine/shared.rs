//! The state that the owner of a group, its spawners and its members share.

use std::fmt;
use std::iter;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::events;
use super::latch::Latch;
use super::record::{Record, Recorded};
use super::roll::Roll;
use super::slots::Slots;
use super::sync::Lock;
use super::wakers::Wakers;
use crate::group::cause::{Cause, FailedTask, LostHeartbeat};
use crate::group::error::{GroupFault, TaskError};
use crate::group::failure::{Failure, View};
use crate::group::label::Label;
use crate::group::panic::Panic;
use crate::group::running::Running;

/// Invariants:
///
/// 1. User code never runs under the locks, or without a guard against its panic. This includes
///    destructors, wakers, `Display` and `source`.
/// 2. Each lock of [`Seldom`] is locked alone. [`Record`] says in what order two records are locked.
/// 3. A member of a group is a member of every group above it. It has one share in each of their
///    latches.
pub(crate) struct Shared<E> {
    pub(crate) latch: Latch,
    pub(crate) wakers: Wakers,
    pub(crate) slots: Slots,
    record: Record<E>,
    parent: Option<Arc<Shared<E>>>,
    /// Made on first use, because making and dropping it costs nearly as much as a group of one task.
    seldom: OnceLock<Box<Seldom<E>>>,
    /// Whether failures stay here, so that they neither cancel the groups above nor are returned there.
    isolated: bool,
    /// Whether the owner logs each failure by itself, so that the group does not.
    by_owner: bool,
    /// Whether a trigger cancels the group, so that the cancel and the end are logged. Written before
    /// the cancel, which publishes it.
    audited: AtomicBool,
    in_current_span: bool,
    /// Whether tasks need neither a slot nor a span unless they ask for one. Precomputed, because each
    /// spawn reads it.
    has_plain_tasks: bool,
    /// Makes the allocation 256 bytes. With 240 the chunks of glibc 2.36 around the aligned memory of a task
    /// are split and joined again for each group, and a group of one task takes 4003 instructions and not
    /// 3417.
    _room: [usize; 2],
    path: Option<Arc<str>>,
    place: &'static Location<'static>,
    view: View<E>,
}

/// The part of a group that many groups do not need.
struct Seldom<E> {
    named: Lock<Roll>,
    owners: Lock<Owners>,
    /// The listeners of the owner, such as clocks and triggers.
    attached: Lock<Vec<Box<dyn Send>>>,
    /// A forced end that this owner's calls caused, and that it has not been told of. It does not belong
    /// to the record, because the owner of a group above must not take it.
    forced: Lock<Option<Recorded<E>>>,
    /// Fires when the wait of a group with a grace must end, although some tasks could not be ended.
    given_up: Option<CancellationToken>,
    /// The deadline, if it passed before anything was spawned.
    overdue: Lock<Option<Duration>>,
}

/// The owners of the groups below this one, see [`Shared::stay_as_path`].
#[derive(Default)]
struct Owners {
    below: usize,
    /// Whether this group's own owner has left the group to those owners.
    left: bool,
}

/// The options from which a group is made.
pub(crate) struct Plan<E> {
    pub(crate) path: Option<Arc<str>>,
    pub(crate) limit: Option<usize>,
    pub(crate) token: Option<CancellationToken>,
    pub(crate) parent: Option<Arc<Shared<E>>>,
    pub(crate) isolated: bool,
    /// Whether its owner logs each failure by itself.
    pub(crate) by_owner: bool,
    /// Whether its wait is bounded by a grace.
    pub(crate) bounded: bool,
    /// Whether each task runs in the span that was current at its spawn.
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
            by_owner: false,
            bounded: false,
            in_current_span: false,
            view,
            place,
        }
    }

    /// A child group without options and without its own name.
    pub(crate) fn below(above: &Arc<Shared<E>>, place: &'static Location<'static>) -> Self {
        Self {
            path: above.path.clone(),
            token: Some(above.token().child_token()),
            parent: Some(Arc::clone(above)),
            by_owner: above.by_owner,
            in_current_span: above.in_current_span,
            ..Self::new(above.view, place)
        }
    }

    /// The plan of a component. It keeps its failures, and it is not cancelled with the group above,
    /// because the component that waits for it decides when it stops. It is aborted with that group. The
    /// lifecycle logs the failures of its components.
    pub(crate) fn told_apart(self) -> Self {
        Self {
            token: None,
            isolated: true,
            by_owner: true,
            ..self
        }
    }
}

impl<E> Shared<E> {
    /// Makes the shared part of a group. Below a closed group it starts out closed and cancelled.
    // Inlined, like the other constructors of a group, so that it is built where it stays.
    #[inline(always)]
    pub(crate) fn new(plan: Plan<E>) -> Self {
        let group = Self {
            latch: Latch::new(),
            wakers: Wakers::default(),
            slots: Slots::new(plan.limit),
            record: Record::new(plan.token),
            parent: plan.parent,
            seldom: match plan.bounded {
                true => OnceLock::from(Seldom::new(true)),
                false => OnceLock::new(),
            },
            isolated: plan.isolated,
            by_owner: plan.by_owner,
            audited: AtomicBool::new(false),
            in_current_span: plan.in_current_span,
            has_plain_tasks: plan.limit.is_none() && !plan.in_current_span,
            path: plan.path,
            place: plan.place,
            view: plan.view,
            _room: [0; 2],
        };
        if group.parent.as_ref().is_some_and(|above| above.is_closed()) {
            group.latch.close();
            group.slots.close();
            group.token().cancel();
        }
        group
    }

    fn seldom(&self) -> &Seldom<E> {
        self.seldom.get_or_init(|| Seldom::new(false))
    }

    /// An aborted group had to be dropped, which is not its own failure.
    pub(crate) fn cancel_told_apart(&self) {
        if self.isolated {
            self.cancel(Cause::Dropped);
        }
    }

    /// The group above that receives the failures of this one.
    fn above_for_failures(&self) -> Option<&Self> {
        self.parent.as_deref().filter(|_| !self.isolated)
    }

    pub(crate) fn is_isolated(&self) -> bool {
        self.isolated
    }

    #[inline]
    pub(crate) fn has_plain_tasks(&self) -> bool {
        self.has_plain_tasks
    }

    #[inline]
    pub(crate) fn runs_in_spans(&self) -> bool {
        self.in_current_span
    }

    pub(crate) fn path(&self) -> Option<&Arc<str>> {
        self.path.as_ref()
    }

    /// The label of the group as a whole.
    pub(crate) fn label(&self) -> Label {
        Label::unnamed(self.path.clone(), self.place)
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        self.record.token()
    }

    /// Whether a token exists that somebody may watch.
    pub(crate) fn has_token(&self) -> bool {
        self.record.has_token()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.record.is_cancelled()
    }

    /// Whether this group or one above it is closed.
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
        let cause = Cause::Failed(FailedTask::new(label, end, message.clone()));
        self.stop_for(&cause, vec![Recorded::now(error)]);
        // Logged last, because a log may block on a pipe without a reader, and the other tasks have to
        // stop.
        events::failure(label.name(), end, &message, self.by_owner);
    }

    /// Records an error of [`error_of`](Self::error_of), then cancels. Returns the error instead if it
    /// only says that its task was cancelled.
    #[cold]
    pub(crate) fn blame(&self, label: &Label, error: TaskError<E>) -> Option<TaskError<E>> {
        if self.is_cancelled() && error.is_cancellation() {
            return Some(error);
        }
        let cause = FailedTask::new(label, error.end(), message_of(&error, label));
        self.stop_for(&Cause::Failed(cause), vec![Recorded::now(error)]);
        None
    }

    /// Makes an error of a failure that stays out of the group, and logs it like one of the group.
    #[cold]
    pub(crate) fn error_of(&self, label: &Label, failure: Failure<E>) -> TaskError<E> {
        let end = failure.end();
        let error = TaskError::new(label.clone(), failure, self.view);
        events::failure(label.name(), end, &message_of(&error, label), false);
        error
    }

    /// Returns the failure, unless it is an error that only says that the task was cancelled.
    ///
    /// Checking that, and dropping the error then, runs user code.
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

    /// Records a failure of the group as a whole, with its own cause, and returns whether that was the
    /// first.
    ///
    /// The groups above are not cancelled. Only the caller that shuts this group down gets the failure,
    /// and it may want the other groups to go on.
    pub(crate) fn fail_group(&self, cause: Cause, fault: GroupFault) -> bool {
        let failure = self.failure_of_group(fault);
        self.record.keep(vec![failure]);
        self.cancel(cause)
    }

    /// Makes a failure of the group as a whole, for the caller to return.
    pub(crate) fn failure_of_group(&self, fault: GroupFault) -> Recorded<E> {
        let error = TaskError::of_group(self.label(), fault, self.view);
        events::failure(None, error.end(), &error.to_string(), self.by_owner);
        Recorded::now(error)
    }

    /// The token that fires when waiters of this group must leave, if its wait is bounded.
    pub(crate) fn given_up(&self) -> Option<&CancellationToken> {
        self.seldom.get()?.given_up.as_ref()
    }

    pub(crate) fn give_up(&self) {
        if let Some(given_up) = self.given_up() {
            given_up.cancel();
        }
    }

    /// Keeps a forced end for the owner, unless it has not been told of another one yet.
    pub(crate) fn set_forced(&self, failure: Recorded<E>) {
        let mut forced = self.seldom().forced.lock();
        if forced.is_none() {
            *forced = Some(failure);
        }
    }

    pub(crate) fn take_forced(&self) -> Option<Recorded<E>> {
        self.seldom.get()?.forced.lock().take()
    }

    /// Keeps a listener until [`detach`](Self::detach).
    pub(crate) fn attach(&self, listener: Box<dyn Send>) {
        self.seldom().attached.lock().push(listener);
    }

    /// Ends the listeners.
    pub(crate) fn detach(&self) {
        if let Some(seldom) = self.seldom.get() {
            let attached = std::mem::take(&mut *seldom.attached.lock());
            drop(attached);
        }
    }

    /// Notes a deadline that passed before anything was spawned, so that every later task is late.
    pub(crate) fn set_overdue(&self, deadline: Duration) {
        *self.seldom().overdue.lock() = Some(deadline);
    }

    pub(crate) fn take_overdue_if(&self, late: impl FnOnce() -> bool) -> Option<Duration> {
        let seldom = self.seldom.get()?;
        seldom.overdue.lock().take_if(|_| late())
    }

    /// Whether a task with a name was ever spawned.
    pub(crate) fn has_named(&self) -> bool {
        let seldom = self.seldom.get();
        seldom.is_some_and(|seldom| seldom.named.lock().was_ever_used())
    }

    /// Cancels for a trigger, and logs it if it was the first cause.
    pub(crate) fn trigger(&self, cause: &Cause) {
        if !self.is_cancelled() {
            self.audited.store(true, Ordering::Relaxed);
        }
        let first = match cause {
            Cause::Heartbeat(lost) => self.lose(lost),
            _ => self.cancel(cause.clone()),
        };
        // Logged last, as in `fail`.
        if first {
            self.log_trigger(cause, "stopping");
        }
    }

    /// Records a lost heartbeat as the first failure here, then cancels this group and all those above
    /// it. Ignored once the group is cancelled, because a drain may stop the heartbeat.
    fn lose(&self, lost: &LostHeartbeat) -> bool {
        let cause = Cause::Heartbeat(lost.clone());
        let fault = GroupFault::HeartbeatLost(lost.clone());
        let error = TaskError::of_group(self.label(), fault, self.view);
        // The owner still exists and will get the failure, because an owner that leaves records a cause.
        let first = self.record.keep_first(cause.clone(), Recorded::now(error));
        if first {
            self.stop_for(&cause, Vec::new());
        }
        first
    }

    /// Keeps the failures here, or in the first group above that has an owner, and cancels this group
    /// and all those above it, up to one that keeps its failures.
    pub(crate) fn stop_for(&self, cause: &Cause, mut failures: Vec<Recorded<E>>) {
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

    /// Notes that a child group has an owner.
    #[inline]
    pub(crate) fn own_above(&self) {
        if let Some(above) = &self.parent {
            above.seldom().owners.lock().below += 1;
        }
    }

    /// Leaves this group to the owners below it, if there are any, and returns whether it did.
    ///
    /// Its listeners stay too. For a group that never had a task of its own, and so is only a path to its child groups. The
    /// group above waits for their tasks and aborts them. So in `group.child("a").child("b")` the owner
    /// of `a` is dropped at once, and `b` goes on.
    pub(crate) fn stay_as_path(&self) -> bool {
        {
            let Some(seldom) = self.seldom.get() else {
                return false;
            };
            let mut owners = seldom.owners.lock();
            if self.parent.is_none() || owners.below == 0 {
                return false;
            }
            owners.left = true;
        }
        self.orphan();
        true
    }

    /// Notes that an owner of this group is gone. If the group above was left to the owners below it,
    /// the last of them ends that group too.
    pub(crate) fn disown_above(&self) {
        let mut next = self.parent.as_deref();
        while let Some(group) = next {
            {
                let mut owners = group.seldom().owners.lock();
                owners.below -= 1;
                if owners.below > 0 || !owners.left {
                    return;
                }
            }
            group.detach();
            group.cancel(Cause::Dropped);
            group.latch.close();
            group.slots.close();
            group.latch.leave();
            next = group.parent.as_deref();
        }
    }

    /// Drops failures that no owner will ask for, one by one, because two panics at once would end the
    /// process.
    pub(crate) fn forget(&self, failures: Vec<Recorded<E>>) {
        for failure in failures {
            if let Err(panic) = Panic::catch_drop(failure) {
                events::error_panicked(&self.label(), panic);
            }
        }
    }

    /// Logs what asked the group to stop, and what follows from it.
    pub(crate) fn log_trigger(&self, cause: &Cause, then: &str) {
        events::trigger(self.path.as_deref(), cause, then);
    }

    /// Logs which tasks are left, and how much longer they may take.
    pub(crate) fn log_waiting(&self, running: &Running, left: Duration) {
        events::waiting(self.path.as_deref(), running, left);
    }

    /// Logs what followed the cancel.
    pub(crate) fn log_end(&self, cause: &Cause, ok: bool) {
        // The component that contains the failures of a group logs how it ended.
        let audited = cause.is_trigger() || self.audited.load(Ordering::Relaxed);
        events::stopped(self.path.as_deref(), cause, ok, audited && !self.isolated);
    }

    /// Takes a share of the latch, here and in every group above. The caller must
    /// [`leave`](Self::leave) in either case.
    #[inline]
    #[must_use = "a refused entry must leave"]
    pub(crate) fn enter(&self) -> bool {
        let entered = self.latch.enter();
        // Takes all shares, even after a refusal, so that all can be given back.
        self.parent.as_ref().is_none_or(|parent| parent.enter()) && entered
    }

    /// Gives the shares back, here first, because waiters above wait longer.
    #[inline]
    pub(crate) fn leave(&self) {
        self.latch.leave();
        if let Some(parent) = &self.parent {
            parent.leave();
        }
    }

    /// Enters a named task, and returns its place in the list.
    pub(crate) fn register(&self, label: Label, blocking: bool) -> usize {
        let now = Instant::now();
        self.seldom().named.lock().enter(label, now, blocking)
    }

    #[inline(never)]
    pub(crate) fn unregister(&self, place: usize) {
        let named = self.seldom().named.lock().leave(place);
        drop(named);
    }

    pub(crate) fn running_named(&self) -> Running {
        let Some(seldom) = self.seldom.get() else {
            return Running::default();
        };
        let now = Instant::now();
        seldom.named.lock().running(now)
    }
}

impl<E> Seldom<E> {
    #[cold]
    #[inline(never)]
    fn new(bounded: bool) -> Box<Self> {
        Box::new(Self {
            named: Lock::default(),
            owners: Lock::default(),
            attached: Lock::default(),
            forced: Lock::default(),
            given_up: bounded.then(CancellationToken::new),
            overdue: Lock::default(),
        })
    }
}

/// `Display` is user code. It may panic, and it must not run under a lock.
fn message_of(error: &dyn fmt::Display, label: &Label) -> String {
    Panic::catch(|| format!("{error:#}")).unwrap_or_else(|panic| {
        panic.discard();
        format!("{label} failed with an error whose message panicked")
    })
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
