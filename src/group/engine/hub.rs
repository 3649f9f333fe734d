//! Where members are seated and started: what the owner and the spawners of a group share.

use std::fmt;
use std::future::Future;
use std::mem::needs_drop;
use std::panic::Location;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::handle::{JoinError, TaskHandle};
use super::member::{Admission, BlockingMember, Member, Sending, Wrapped};
use super::origin::Origin;
use super::record::Recorded;
use super::seat::{Classes, Kind, Seat, SpawningLocally};
use super::shared::{Plan, Shared};
use super::slots::{NoSlot, Slot};
use super::spawn_error::SpawnError;
use super::sync::Lock;
use super::value;
use crate::group::cause::Cause;
use crate::group::error::{Failure, TimedOut};
use crate::group::label;
use crate::group::running::{Running, RunningTask};
use crate::group::stop_request::StopRequest;

/// Members point at [`Shared`] and never at the hub, whose classes they are: no cycle.
pub(crate) struct Hub<E> {
    pub(crate) shared: Arc<Shared<E>>,
    classes: Classes<E>,
    /// The groups below. They are held until they are over, with or without an owner: a thread of a
    /// dropped child can still be running, and must be named.
    children: Lock<Children<E>>,
}

struct Children<E> {
    present: Vec<Arc<Hub<E>>>,
    /// Whether anything was ever spawned into one that is gone.
    have_spawned: bool,
}

/// The future of a plain task is spawned as it was given.
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

    /// Makes the hub of a group below this one.
    pub(crate) fn child(&self, plan: Plan<E>) -> Arc<Self> {
        let child = Arc::new(Self::new(Shared::new(plan)));
        self.adopt(&child);
        child
    }

    /// The plan of a group below this one that has no options but its name.
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

    /// Takes the failures of this group, and those of the groups below that nobody has taken.
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
        // Last, as a child that is being dropped hands its failures up.
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

    /// Closes the group and aborts what is left, and returns the failure that this is.
    ///
    /// Whether anything is left is decided by the latch, in the moment in which it closes. The list is
    /// read at another moment and only describes it.
    pub(crate) fn force(&self, timed_out: impl FnOnce(Running) -> TimedOut) -> Option<Failure<E>> {
        let failure = self.close_for_good(timed_out);
        self.abort();
        failure
    }

    /// The same for a clock or a trigger, which has nobody to hand the failure to.
    ///
    /// The failure is recorded before anything is aborted: on another thread the last task ends at once, and
    /// the wait with it.
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

    /// Cancels because the deadline has passed, and makes it a failure if tasks are running.
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
        // The last member leaves the group a moment before it leaves its class.
        if self.is_over() {
            return running;
        }
        running.append(self.shared.running_named());
        self.classes.for_each(|class, count| {
            if count > 0 {
                let blocking = class.kind() == Kind::Blocking;
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

/// A value with a destructor takes a way of its own to its handle, see [`value`](super::value). Which way
/// is known when this is compiled: nobody pays for the other.
impl<E: Send + 'static> Hub<E> {
    #[track_caller]
    pub(crate) fn spawn<F, T>(&self, origin: Origin<'_>, future: F) -> TaskHandle<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        if const { needs_drop::<T>() } {
            let (sender, value) = value::place();
            let future = Sending::new(future, sender);
            self.start(origin, future).receiving(value)
        } else {
            self.start(origin, future)
        }
    }

    #[track_caller]
    pub(crate) fn spawn_local<F, T>(&self, origin: Origin<'_>, future: F) -> TaskHandle<T>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        if const { needs_drop::<T>() } {
            let (sender, value) = value::place();
            let future = Sending::new(future, sender);
            self.start_local(origin, future).receiving(value)
        } else {
            self.start_local(origin, future)
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
            let (sender, value) = value::place();
            let wrap = |future| Sending::new(wrap(future), sender);
            let started = self.try_start(origin, future, wrap);
            started.map(|handle| handle.receiving(value))
        } else {
            self.try_start(origin, future, wrap)
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
            let (sender, value) = value::place();
            let wrap = |future| Sending::new(wrap(future), sender);
            let started = self.start_when_ready(origin, future, wrap).await;
            started.map(|handle| handle.receiving(value))
        } else {
            self.start_when_ready(origin, future, wrap).await
        }
    }

    #[track_caller]
    pub(crate) fn spawn_blocking<F, T>(&self, origin: Origin<'_>, closure: F) -> TaskHandle<T>
    where
        F: FnOnce(&CancellationToken) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        if const { needs_drop::<T>() } {
            let (sender, value) = value::place();
            let closure = move |token: &CancellationToken| {
                let output = closure(token);
                output.map(|value| sender.send(value))
            };
            self.start_in_thread(origin, closure).receiving(value)
        } else {
            self.start_in_thread(origin, closure)
        }
    }
}

impl<E: Send + 'static> Hub<E> {
    #[track_caller]
    fn start<F, T>(&self, origin: Origin<'_>, future: F) -> TaskHandle<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        let Some(mut seat) = self.seat(origin, Kind::Task) else {
            return TaskHandle::refused();
        };
        let has_slot = self.try_take_slot(&mut seat);
        TaskHandle::new(if has_slot && !self.is_in_span(origin) {
            tokio::spawn(Member::new(future, seat))
        } else {
            self.spawn_wrapped(origin, future, seat, has_slot)
        })
    }

    #[inline(never)]
    #[track_caller]
    fn spawn_wrapped<F, T>(
        &self,
        origin: Origin<'_>,
        future: F,
        seat: Seat<E>,
        has_slot: bool,
    ) -> JoinHandle<Result<T, JoinError>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        tokio::spawn(self.wrapped(origin, future, seat, has_slot))
    }

    #[track_caller]
    fn start_local<F, T>(&self, origin: Origin<'_>, future: F) -> TaskHandle<T>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        let Some(mut seat) = self.seat(origin, Kind::Task) else {
            return TaskHandle::refused();
        };
        let _spawning = SpawningLocally::begin();
        let has_slot = self.try_take_slot(&mut seat);
        TaskHandle::new(if has_slot && !self.is_in_span(origin) {
            tokio::task::spawn_local(Member::new(future, seat))
        } else {
            tokio::task::spawn_local(self.wrapped(origin, future, seat, has_slot))
        })
    }

    #[track_caller]
    fn try_start<F, G, T>(
        &self,
        origin: Origin<'_>,
        future: F,
        wrap: impl FnOnce(F) -> G,
    ) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        G: Future<Output = Result<T, E>> + Send + 'static,
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
        Ok(TaskHandle::new(self.spawn_member(
            origin,
            wrap(future),
            seat,
        )))
    }

    async fn start_when_ready<F, G, T>(
        &self,
        origin: Origin<'_>,
        future: F,
        wrap: impl FnOnce(F) -> G,
    ) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        G: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        // In a future the place of the caller is not to be had otherwise.
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
        Ok(TaskHandle::new(self.spawn_member(
            origin,
            wrap(future),
            seat,
        )))
    }

    #[track_caller]
    fn start_in_thread<F, T>(&self, origin: Origin<'_>, closure: F) -> TaskHandle<T>
    where
        F: FnOnce(&CancellationToken) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        let Some(mut seat) = self.seat(origin, Kind::Blocking) else {
            return TaskHandle::refused();
        };
        if self.try_take_slot(&mut seat) {
            let member = BlockingMember::new(closure, seat, self.span(origin));
            return TaskHandle::new(start_blocking(member));
        }
        // The queue is a task; the closure gets its thread when it gets its slot.
        let admission = self.admission(&mut seat);
        let mut member = BlockingMember::new(closure, seat, self.span(origin));
        TaskHandle::new(tokio::spawn(async move {
            if let Some(admission) = admission {
                if !admission.await {
                    member.marks().set_ended();
                    return Err(JoinError::Refused);
                }
                member.marks().hold_kept_slot();
            }
            start_blocking(member)
                .await
                .unwrap_or(Err(JoinError::Aborted))
        }))
    }

    fn try_take_slot(&self, seat: &mut Seat<E>) -> bool {
        let slot = self.shared.slots.try_take();
        slot.map(|slot| seat.marks.hold(slot)).is_some()
    }

    /// Spawns a member that has its slot.
    #[track_caller]
    fn spawn_member<F, T>(
        &self,
        origin: Origin<'_>,
        future: F,
        seat: Seat<E>,
    ) -> JoinHandle<Result<T, JoinError>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        if self.is_in_span(origin) {
            return self.spawn_wrapped(origin, future, seat, true);
        }
        tokio::spawn(Member::new(future, seat))
    }

    fn wrapped<F>(
        &self,
        origin: Origin<'_>,
        future: F,
        mut seat: Seat<E>,
        has_slot: bool,
    ) -> Wrapped<F, E> {
        let admission = if has_slot {
            None
        } else {
            self.admission(&mut seat)
        };
        Wrapped::new(admission, self.span(origin), Member::new(future, seat))
    }

    #[inline]
    fn is_in_span(&self, origin: Origin<'_>) -> bool {
        origin.in_current_span || self.shared.runs_in_spans()
    }

    fn span(&self, origin: Origin<'_>) -> Option<Span> {
        self.is_in_span(origin).then(Span::current)
    }

    /// Takes a place in the queue for a slot, now and not when the task is first polled: the first
    /// to be spawned is the first to run. `None` if a slot has become free meanwhile.
    fn admission(&self, seat: &mut Seat<E>) -> Option<Admission> {
        let shared = Arc::clone(&self.shared);
        let mut admission: Admission = Box::pin(async move {
            let slot = shared.slots.take(shared.token()).await;
            slot.map(Slot::keep).is_ok()
        });
        // A wake-up that this waker swallows is not lost: the task is polled once in any case.
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
fn start_blocking<F, T, E>(member: BlockingMember<F, E>) -> JoinHandle<Result<T, JoinError>>
where
    F: FnOnce(&CancellationToken) -> Result<T, E> + Send + 'static,
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

    /// As when its owner is dropped.
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
