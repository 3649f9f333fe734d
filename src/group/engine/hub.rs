//! Seats and starts members, for the owner and the spawners of a group.

use std::fmt;
use std::future::Future;
use std::mem::needs_drop;
use std::panic::Location;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::handle::{JoinError, Joining, NoValue, TaskHandle};
use super::member::{Admission, BlockingMember, Member, Returning, Sending, Wrapped};
use super::origin::Origin;
use super::record::Recorded;
use super::seat::{Classes, Kind, Seat, SpawningLocally};
use super::shared::{Plan, Shared};
use super::slots::{NoSlot, Slot};
use super::spawn_error::SpawnError;
use super::sync::Lock;
use super::value::Place;
use crate::group::cause::Cause;
use crate::group::error::{Failure, TimedOut};
use crate::group::label;
use crate::group::running::{Running, RunningTask};
use crate::group::stop_request::StopRequest;

/// Members point at [`Shared`] and never at the hub that owns their classes, which avoids a cycle.
pub(crate) struct Hub<E> {
    pub(crate) shared: Arc<Shared<E>>,
    classes: Classes<E>,
    /// The child groups. They are kept until they are over, with or without an owner, because a thread
    /// of a dropped child can still be running and must be named.
    children: Lock<Children<E>>,
}

struct Children<E> {
    present: Vec<Arc<Hub<E>>>,
    /// Whether anything was ever spawned into a child that is gone.
    have_spawned: bool,
}

/// The future of a plain task is spawned unchanged.
pub(crate) fn as_it_is<F>(future: F) -> F {
    future
}

impl<E> Hub<E> {
    #[inline]
    pub(crate) fn new(shared: Shared<E>) -> Self {
        let shared = Arc::new(shared);
        Self {
            shared,
            classes: Classes::new(),
            children: Lock::new(Children {
                present: Vec::new(),
                have_spawned: false,
            }),
        }
    }

    /// Makes the hub of a child group.
    pub(crate) fn child(&self, plan: Plan<E>) -> Arc<Self> {
        let child = Arc::new(Self::new(Shared::new(plan)));
        self.adopt(&child);
        child
    }

    /// The plan of a child group that has only a name.
    pub(crate) fn plan_below(&self, name: &str, place: &'static Location<'static>) -> Plan<E> {
        let plan = Plan::below(&self.shared, place);
        Plan {
            path: Some(label::join(plan.path.as_deref(), name)),
            ..plan
        }
    }

    fn adopt(&self, child: &Arc<Self>) {
        let gone = {
            let mut children = self.children.lock();
            let Children {
                present,
                have_spawned,
            } = &mut *children;
            let mut gone = Vec::new();
            if present.len() == present.capacity() {
                (gone, *present) = present.drain(..).partition(|child| child.is_over());
                *have_spawned |= gone.iter().any(|child| child.has_spawned());
            }
            present.push(Arc::clone(child));
            gone
        };
        drop(gone);
        // A close or an abort that ran before the push did not see the child.
        if self.shared.latch.is_closed() {
            child.close();
        }
        if self.shared.wakers.is_aborted() {
            child.abort();
        }
    }

    /// Whether the owner and all members are gone.
    fn is_over(&self) -> bool {
        self.shared.latch.shares() == 0
    }

    fn children(&self) -> Vec<Arc<Self>> {
        self.children.lock().present.clone()
    }

    /// Takes the failures of this group, and those of the child groups that nobody has taken.
    pub(crate) fn take_failures(&self) -> Vec<Recorded<E>> {
        if let Some(deadline) = self.shared.take_overdue_if(|| self.has_spawned()) {
            let failure = Failure::TimedOut(TimedOut::deadline(deadline, Running::default()));
            self.shared.fail_group(Cause::Deadline(deadline), failure);
        }
        let mut failures = Vec::new();
        for child in self.children() {
            if !child.shared.is_isolated() {
                failures.append(&mut child.take_failures());
            }
        }
        // Last, because a child that is being dropped hands its failures up.
        failures.append(&mut self.shared.take_failures());
        failures
    }

    /// Closes the group and the groups below it, and refuses the callers that wait for a slot.
    pub(crate) fn close(&self) {
        self.shared.latch.close();
        self.shared.slots.close();
        for child in self.children() {
            child.close();
        }
    }

    /// Aborts every task of the group and of the groups below it, without waiting.
    pub(crate) fn abort(&self) {
        self.shared.cancel_told_apart();
        self.shared.wakers.abort();
        for child in self.children() {
            child.abort();
        }
    }

    /// Closes the group and aborts the remaining tasks, and returns that as a failure.
    ///
    /// The latch decides whether any tasks remain, at the moment it closes. The list is read at another
    /// moment and only describes them.
    pub(crate) fn force(&self, timed_out: impl FnOnce(Running) -> TimedOut) -> Option<Failure<E>> {
        let failure = self.close_for_good(timed_out);
        self.abort();
        failure
    }

    /// The same for a clock or a trigger, which has no caller to return the failure to.
    ///
    /// The failure is recorded before the abort, because on another thread the last task may end at
    /// once, and the wait with it.
    pub(crate) fn force_and_fail(&self, timed_out: impl FnOnce(Running) -> TimedOut) {
        if let Some(failure) = self.close_for_good(timed_out) {
            let cause = Cause::Requested(StopRequest::default());
            self.shared.fail_group(cause, failure);
        }
        self.abort();
    }

    fn close_for_good(&self, timed_out: impl FnOnce(Running) -> TimedOut) -> Option<Failure<E>> {
        let is_alone = self.shared.latch.close() <= 1;
        self.close();
        let stragglers = self.running();
        (!is_alone).then(|| Failure::TimedOut(timed_out(stragglers)))
    }

    /// Cancels because the deadline has passed, which is a failure if tasks are running.
    pub(crate) fn pass_deadline(&self, deadline: Duration) {
        let cause = Cause::Deadline(deadline);
        let running = self.running();
        // As in a forced stop, the latch decides and the list describes.
        if self.shared.latch.shares() <= 1 {
            if !self.has_spawned() {
                self.shared.set_overdue(deadline);
            }
            self.shared.trigger(&cause);
            return;
        }
        let failure = Failure::TimedOut(TimedOut::deadline(deadline, running));
        if self.shared.fail_group(cause.clone(), failure) {
            self.shared.log_trigger(&cause, "stopping");
        }
    }

    /// Whether anything was ever spawned into this group, or into one below it.
    fn has_spawned(&self) -> bool {
        if self.has_spawned_itself() {
            return true;
        }
        let children = self.children.lock();
        children.have_spawned || children.present.iter().any(|child| child.has_spawned())
    }

    /// Whether anything was ever spawned into this group itself.
    pub(crate) fn has_spawned_itself(&self) -> bool {
        !self.classes.is_empty() || self.shared.has_named()
    }

    pub(crate) fn running(&self) -> Running {
        let mut running = Running::default();
        // The last member leaves the group just before it leaves its class.
        if self.is_over() {
            return running;
        }
        running.append(self.shared.running_named());
        self.classes.for_each(|class, kind, count| {
            if count > 0 {
                let blocking = kind == Kind::Blocking;
                running.push(RunningTask::at_place(class.label(), count, blocking));
            }
        });
        for child in self.children() {
            running.append(child.running());
        }
        running
    }

    // Always, so that an unnamed spawn does not carry an origin and a seat around in memory.
    #[inline(always)]
    pub(crate) fn seat(&self, origin: Origin<'_>, kind: Kind) -> Option<Seat<E>> {
        match origin.name {
            None => Seat::take(self.classes.get(&self.shared, origin.place, kind)),
            Some(_) => Seat::take_named(&self.shared, origin, kind),
        }
    }
}

/// A value with a destructor takes its own path to the handle, see [`value`](super::value). The choice
/// is made at compile time, so a value without one pays nothing.
impl<E: Send + 'static> Hub<E> {
    #[track_caller]
    pub(crate) fn spawn<F, T>(&self, origin: Origin<'_>, future: F) -> TaskHandle<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        if const { needs_drop::<T>() } {
            let (place, value) = Place::for_both();
            let task = self.start(origin, Sending::new(future, place));
            TaskHandle::new(task, Some(value))
        } else {
            TaskHandle::new(self.start(origin, Returning::new(future)), None)
        }
    }

    #[track_caller]
    pub(crate) fn spawn_local<F, T>(&self, origin: Origin<'_>, future: F) -> TaskHandle<T>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        if const { needs_drop::<T>() } {
            let (place, value) = Place::for_both();
            let task = self.start_local(origin, Sending::new(future, place));
            TaskHandle::new(task, Some(value))
        } else {
            TaskHandle::new(self.start_local(origin, Returning::new(future)), None)
        }
    }

    #[track_caller]
    pub(crate) fn try_spawn<F, G, T>(
        &self,
        origin: Origin<'_>,
        future: F,
        wrap: impl FnOnce(F) -> G,
    ) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        G: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        if const { needs_drop::<T>() } {
            let (place, value) = Place::for_both();
            let wrap = |future| Sending::new(wrap(future), place);
            let task = self.try_start(origin, future, wrap)?;
            Ok(TaskHandle::new(Some(task), Some(value)))
        } else {
            let wrap = |future| Returning::new(wrap(future));
            let task = self.try_start(origin, future, wrap)?;
            Ok(TaskHandle::new(Some(task), None))
        }
    }

    pub(crate) async fn spawn_when_ready<F, G, T>(
        &self,
        origin: Origin<'_>,
        future: F,
        wrap: impl FnOnce(F) -> G,
    ) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        G: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        if const { needs_drop::<T>() } {
            let (place, value) = Place::for_both();
            let wrap = |future| Sending::new(wrap(future), place);
            let task = self.start_when_ready(origin, future, wrap).await?;
            Ok(TaskHandle::new(Some(task), Some(value)))
        } else {
            let wrap = |future| Returning::new(wrap(future));
            let task = self.start_when_ready(origin, future, wrap).await?;
            Ok(TaskHandle::new(Some(task), None))
        }
    }

    #[track_caller]
    pub(crate) fn spawn_blocking<F, T>(&self, origin: Origin<'_>, closure: F) -> TaskHandle<T>
    where
        F: FnOnce(&CancellationToken) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        if const { needs_drop::<T>() } {
            let (place, value) = Place::for_both();
            let closure = move |token: &CancellationToken| {
                let output = closure(token);
                output.map(|value| {
                    place.put(value);
                    None
                })
            };
            TaskHandle::new(self.start_in_thread(origin, closure), Some(value))
        } else {
            let closure = |token: &CancellationToken| closure(token).map(Some);
            TaskHandle::new(self.start_in_thread(origin, closure), None)
        }
    }
}

impl<E: Send + 'static> Hub<E> {
    /// Starts a task. Returns `None` if it is refused.
    #[track_caller]
    fn start<F, T>(&self, origin: Origin<'_>, future: F) -> Option<Joining<T>>
    where
        F: Future<Output = Result<Option<T>, E>> + Send + 'static,
        T: Send + 'static,
    {
        let seat = self.seat(origin, Kind::Task)?;
        Some(if self.is_plain(origin) {
            tokio::spawn(Member::new(future, seat))
        } else {
            self.spawn_wrapped(origin.in_current_span, future, seat)
        })
    }

    // Out of line, so that a plain spawn keeps its seat in registers.
    #[inline(never)]
    #[track_caller]
    fn spawn_wrapped<F, T>(&self, in_current_span: bool, future: F, mut seat: Seat<E>) -> Joining<T>
    where
        F: Future<Output = Result<Option<T>, E>> + Send + 'static,
        T: Send + 'static,
    {
        let admission = self.slot_or_place(&mut seat);
        let span = self.span(in_current_span);
        tokio::spawn(Wrapped::new(admission, span, Member::new(future, seat)))
    }

    #[track_caller]
    fn start_local<F, T>(&self, origin: Origin<'_>, future: F) -> Option<Joining<T>>
    where
        F: Future<Output = Result<Option<T>, E>> + 'static,
        T: 'static,
    {
        let mut seat = self.seat(origin, Kind::Task)?;
        let _spawning = SpawningLocally::begin();
        Some(if self.is_plain(origin) {
            tokio::task::spawn_local(Member::new(future, seat))
        } else {
            let admission = self.slot_or_place(&mut seat);
            let span = self.span(origin.in_current_span);
            tokio::task::spawn_local(Wrapped::new(admission, span, Member::new(future, seat)))
        })
    }

    #[track_caller]
    fn try_start<F, G, T>(
        &self,
        origin: Origin<'_>,
        future: F,
        wrap: impl FnOnce(F) -> G,
    ) -> Result<Joining<T>, SpawnError<F>>
    where
        G: Future<Output = Result<Option<T>, E>> + Send + 'static,
        T: Send + 'static,
    {
        let Some(mut seat) = self.seat(origin, Kind::Task) else {
            return Err(SpawnError::closed(future));
        };
        if !self.try_take_slot(&mut seat) {
            seat.marks.set_ended();
            seat.class.leave(seat.marks);
            return Err(SpawnError::full(future));
        }
        Ok(self.spawn_admitted(origin, wrap(future), seat))
    }

    async fn start_when_ready<F, G, T>(
        &self,
        origin: Origin<'_>,
        future: F,
        wrap: impl FnOnce(F) -> G,
    ) -> Result<Joining<T>, SpawnError<F>>
    where
        G: Future<Output = Result<Option<T>, E>> + Send + 'static,
        T: Send + 'static,
    {
        // Inside a future the caller's place is not available.
        if Handle::try_current().is_err() {
            panic!(
                "spawn_when_ready of {} is polled outside of a Tokio runtime",
                origin.place
            );
        }
        let slots = &self.shared.slots;
        let slot = match slots.try_take() {
            Some(slot) => Ok(slot),
            None => slots.take_as_caller(self.shared.token()).await,
        };
        let slot = match slot {
            Ok(slot) => slot,
            Err(NoSlot::Cancelled) => return Err(SpawnError::cancelled(future)),
            Err(NoSlot::Closed) => return Err(SpawnError::closed(future)),
            Err(NoSlot::Deadlock) => return Err(SpawnError::deadlock(future)),
        };
        let Some(mut seat) = self.seat(origin, Kind::Task) else {
            return Err(SpawnError::closed(future));
        };
        seat.marks.hold(slot);
        Ok(self.spawn_admitted(origin, wrap(future), seat))
    }

    #[track_caller]
    fn start_in_thread<F, T>(&self, origin: Origin<'_>, closure: F) -> Option<Joining<T>>
    where
        F: FnOnce(&CancellationToken) -> Result<Option<T>, E> + Send + 'static,
        T: Send + 'static,
    {
        let mut seat = self.seat(origin, Kind::Blocking)?;
        let admission = self.slot_or_place(&mut seat);
        let mut member = BlockingMember::new(closure, seat, self.span(origin.in_current_span));
        let Some(admission) = admission else {
            return Some(start_blocking(member));
        };
        // The queue is a task. The closure gets its thread when it gets its slot.
        Some(tokio::spawn(async move {
            if !admission.await {
                member.marks().set_ended();
                return Err(NoValue::Lost(JoinError::Refused));
            }
            member.marks().hold_kept_slot();
            start_blocking(member)
                .await
                .unwrap_or(Err(NoValue::Lost(JoinError::Aborted)))
        }))
    }

    /// Spawns a task that has its slot.
    #[track_caller]
    fn spawn_admitted<F, T>(&self, origin: Origin<'_>, future: F, seat: Seat<E>) -> Joining<T>
    where
        F: Future<Output = Result<Option<T>, E>> + Send + 'static,
        T: Send + 'static,
    {
        let member = Member::new(future, seat);
        if self.is_plain(origin) {
            tokio::spawn(member)
        } else {
            let span = self.span(origin.in_current_span);
            tokio::spawn(Wrapped::new(None, span, member))
        }
    }

    /// Whether a task needs neither a slot nor a span.
    #[inline]
    fn is_plain(&self, origin: Origin<'_>) -> bool {
        self.shared.has_plain_tasks() && !origin.in_current_span
    }

    fn span(&self, in_current_span: bool) -> Option<Span> {
        (in_current_span || self.shared.runs_in_spans()).then(Span::current)
    }

    /// Takes a slot, or a place in the queue.
    fn slot_or_place(&self, seat: &mut Seat<E>) -> Option<Admission> {
        if self.try_take_slot(seat) {
            None
        } else {
            self.admission(seat)
        }
    }

    fn try_take_slot(&self, seat: &mut Seat<E>) -> bool {
        let slot = self.shared.slots.try_take();
        slot.map(|slot| seat.marks.hold(slot)).is_some()
    }

    /// Takes a place in the queue now, and not when the task is first polled, so that tasks run in the
    /// order in which they were spawned. Returns `None` if a slot has become free in the meantime.
    fn admission(&self, seat: &mut Seat<E>) -> Option<Admission> {
        let shared = Arc::clone(&self.shared);
        let mut admission: Admission = Box::pin(async move {
            let slot = shared.slots.take(shared.token()).await;
            slot.map(Slot::keep).is_ok()
        });
        // Although this waker ignores wake-ups, none is lost, because the task is always polled once.
        match admission
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Pending => {
                seat.marks.set_queued();
                Some(admission)
            }
            Poll::Ready(true) => {
                seat.marks.hold_kept_slot();
                None
            }
            Poll::Ready(false) => {
                seat.marks.set_queued();
                Some(Box::pin(std::future::ready(false)))
            }
        }
    }
}

#[track_caller]
fn start_blocking<F, T, E>(member: BlockingMember<F, E>) -> Joining<T>
where
    F: FnOnce(&CancellationToken) -> Result<Option<T>, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    tokio::task::spawn_blocking(move || member.run())
}

impl<E> fmt::Debug for Hub<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::Plan;
    use super::*;

    fn hub() -> Hub<crate::BoxError> {
        Hub::new(Shared::new(Plan::new(|error| &**error, Location::caller())))
    }

    fn below(hub: &Hub<crate::BoxError>, name: &str) -> Arc<Hub<crate::BoxError>> {
        hub.child(hub.plan_below(name, Location::caller()))
    }

    /// Does the same as dropping the child's owner.
    fn end(child: &Hub<crate::BoxError>) {
        child.shared.latch.close();
        child.shared.orphan();
        child.shared.latch.leave();
    }

    #[test]
    fn children_that_are_over_are_forgotten_and_others_are_not() {
        let hub = hub();
        let stays = below(&hub, "stays");
        for _ in 0..1000 {
            end(&below(&hub, "goes"));
        }
        let children = hub.children();
        assert!(children.len() < 10, "{} children", children.len());
        assert!(Arc::ptr_eq(&children[0], &stays));
    }
}
