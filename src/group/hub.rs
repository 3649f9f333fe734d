//! Where members are seated and started: what the owner and the spawners of a group share.

use std::fmt;
use std::future::Future;
use std::mem::needs_drop;
use std::panic::Location;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::handle::{JoinError, TaskHandle};
use super::member::{Admission, BlockingMember, Member, Queued, Sending};
use super::origin::Origin;
use super::record::Recorded;
use super::seat::{Classes, Kind, Seat, SpawningLocally};
use super::shared::Shared;
use super::slots::{NoSlot, Slot};
use super::spawn_error::SpawnError;
use super::sync::Lock;
use super::value;
use crate::running::{Running, RunningTask};

/// Members point at [`Shared`] and never at the hub, whose classes they are: no cycle.
pub(super) struct Hub<E> {
    pub(super) shared: Arc<Shared<E>>,
    classes: Classes<E>,
    /// The groups below. They are held until they are over, with or without an owner: a thread of a
    /// dropped child can still be running, and must be named.
    children: Lock<Vec<Arc<Hub<E>>>>,
}

/// The future of a plain task is spawned as it was given.
pub(super) fn as_it_is<F>(future: F) -> F {
    future
}

impl<E> Hub<E> {
    #[inline]
    pub(super) fn new(shared: Shared<E>) -> Self {
        let shared = Arc::new(shared);
        Self {
            shared,
            classes: Classes::new(),
            children: Lock::default(),
        }
    }

    /// Makes the hub of a child group; in a closed group it is born closed and cancelled.
    pub(super) fn child(&self, name: &str, place: &'static Location<'static>) -> Arc<Self> {
        self.adopted(self.shared.child(name, place))
    }

    /// The same, but its failures do not cancel this group, and it is not cancelled with it.
    pub(super) fn contained(&self, name: &str, place: &'static Location<'static>) -> Arc<Self> {
        self.adopted(self.shared.child(name, place).containing())
    }

    fn adopted(&self, shared: Shared<E>) -> Arc<Self> {
        let child = Arc::new(Self::new(shared));
        self.adopt(&child);
        child
    }

    fn adopt(&self, child: &Arc<Self>) {
        let gone = {
            let mut children = self.children.lock();
            let gone = if children.len() == children.capacity() {
                let (gone, present) = children.drain(..).partition(|child| child.is_over());
                *children = present;
                gone
            } else {
                Vec::new()
            };
            children.push(Arc::clone(child));
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
        self.children.lock().clone()
    }

    /// Takes the failures of this group, and those of the groups below that nobody has taken.
    pub(super) fn take_failures(&self) -> Vec<Recorded<E>> {
        let mut failures = Vec::new();
        for child in self.children() {
            failures.append(&mut child.take_failures());
        }
        // Last, as a child that is being dropped hands its failures up.
        failures.append(&mut self.shared.take_failures());
        failures
    }

    /// Closes the group and the groups below it, and refuses the callers that wait for a slot.
    pub(super) fn close(&self) {
        self.shared.latch.close();
        self.shared.slots.close();
        for child in self.children() {
            child.close();
        }
    }

    /// Aborts every task of the group and of the groups below it, without waiting.
    pub(super) fn abort(&self) {
        self.shared.cancel_contained();
        self.shared.wakers.abort();
        for child in self.children() {
            child.abort();
        }
    }

    pub(super) fn running(&self) -> Running {
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
    fn seat(&self, origin: Origin<'_>, kind: Kind) -> Option<Seat<E>> {
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
    pub(super) fn spawn<F, T>(&self, origin: Origin<'_>, future: F) -> TaskHandle<T>
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
    pub(super) fn spawn_local<F, T>(&self, origin: Origin<'_>, future: F) -> TaskHandle<T>
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
    pub(super) fn try_spawn<F, G, T>(
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

    pub(super) async fn spawn_when_ready<F, G, T>(
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
    pub(super) fn spawn_blocking<F, T>(&self, origin: Origin<'_>, closure: F) -> TaskHandle<T>
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
        TaskHandle::new(if self.try_take_slot(&mut seat) {
            tokio::spawn(Member::new(future, seat))
        } else {
            self.spawn_queued(future, seat)
        })
    }

    #[inline(never)]
    #[track_caller]
    fn spawn_queued<F, T>(&self, future: F, seat: Seat<E>) -> JoinHandle<Result<T, JoinError>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        tokio::spawn(self.queued(future, seat))
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
        TaskHandle::new(if self.try_take_slot(&mut seat) {
            tokio::task::spawn_local(Member::new(future, seat))
        } else {
            tokio::task::spawn_local(self.queued(future, seat))
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
        let member = Member::new(wrap(future), seat);
        Ok(TaskHandle::new(tokio::spawn(member)))
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
        let member = Member::new(wrap(future), seat);
        Ok(TaskHandle::new(tokio::spawn(member)))
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
            return TaskHandle::new(start_blocking(BlockingMember::new(closure, seat)));
        }
        // The queue is a task; the closure gets its thread when it gets its slot.
        let admission = self.admission(&mut seat);
        let mut member = BlockingMember::new(closure, seat);
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

    fn queued<F>(&self, future: F, mut seat: Seat<E>) -> Queued<F, E> {
        let admission = self.admission(&mut seat);
        Queued::new(admission, Member::new(future, seat))
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
