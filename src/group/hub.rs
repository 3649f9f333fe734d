//! Where members are seated and started: what the owner and the spawners of a group share.

use std::fmt;
use std::future::Future;
use std::mem::needs_drop;
use std::panic::Location;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::handle::{JoinError, TaskHandle};
use super::member::{BlockingMember, Member, Queued, Sending};
use super::record::Recorded;
use super::seat::{Classes, Kind, Seat};
use super::shared::Shared;
use super::slots::Slot;
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

/// Who is being spawned: the place, and the name if there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) place: &'static Location<'static>,
    pub(super) name: Option<&'a str>,
    pub(super) essential: bool,
}

impl Origin<'_> {
    pub(super) fn unnamed(place: &'static Location<'static>) -> Self {
        Self {
            place,
            name: None,
            essential: false,
        }
    }
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
        // An abort that ran before the push did not see the child.
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
            Some(name) => {
                Seat::take_named(&self.shared, name, origin.place, kind, origin.essential)
            }
        }
    }
}

/// A value with a destructor takes a way of its own to its handle, see [`value`](super::value). Which way
/// is known when this is compiled: nobody pays for the other.
impl<E: Send + 'static> Hub<E> {
    pub(super) fn spawn<F, T>(&self, origin: Origin<'_>, future: F) -> TaskHandle<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        if const { needs_drop::<T>() } {
            let (future, value) = Sending::new(future);
            self.start(origin, future).receiving(value)
        } else {
            self.start(origin, future)
        }
    }

    pub(super) fn spawn_local<F, T>(&self, origin: Origin<'_>, future: F) -> TaskHandle<T>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        if const { needs_drop::<T>() } {
            let (future, value) = Sending::new(future);
            self.start_local(origin, future).receiving(value)
        } else {
            self.start_local(origin, future)
        }
    }

    pub(super) fn try_spawn<F, T>(
        &self,
        origin: Origin<'_>,
        future: F,
    ) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        if const { needs_drop::<T>() } {
            let (future, value) = Sending::new(future);
            let started = self.try_start(origin, future);
            started
                .map(|handle| handle.receiving(value))
                .map_err(|refused| refused.map(Sending::into_future))
        } else {
            self.try_start(origin, future)
        }
    }

    pub(super) async fn spawn_when_ready<F, T>(
        &self,
        origin: Origin<'_>,
        future: F,
    ) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        if const { needs_drop::<T>() } {
            let (future, value) = Sending::new(future);
            let started = self.start_when_ready(origin, future).await;
            started
                .map(|handle| handle.receiving(value))
                .map_err(|refused| refused.map(Sending::into_future))
        } else {
            self.start_when_ready(origin, future).await
        }
    }

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
    fn spawn_queued<F, T>(&self, future: F, seat: Seat<E>) -> JoinHandle<Result<T, JoinError>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        tokio::spawn(self.queued(Member::new(future, seat)))
    }

    fn start_local<F, T>(&self, origin: Origin<'_>, future: F) -> TaskHandle<T>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        let Some(mut seat) = self.seat(origin, Kind::Task) else {
            return TaskHandle::refused();
        };
        TaskHandle::new(if self.try_take_slot(&mut seat) {
            tokio::task::spawn_local(Member::new(future, seat))
        } else {
            tokio::task::spawn_local(self.queued(Member::new(future, seat)))
        })
    }

    fn try_start<F, T>(&self, origin: Origin<'_>, future: F) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
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
        Ok(TaskHandle::new(tokio::spawn(Member::new(future, seat))))
    }

    async fn start_when_ready<F, T>(
        &self,
        origin: Origin<'_>,
        future: F,
    ) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        let slot = match self.shared.slots.try_take() {
            Some(slot) => slot,
            None => match self.shared.slots.take(self.shared.token()).await {
                Some(slot) => slot,
                None => return Err(SpawnError::cancelled(future)),
            },
        };
        let Some(mut seat) = self.seat(origin, Kind::Task) else {
            return Err(SpawnError::closed(future));
        };
        seat.marks.hold(slot);
        Ok(TaskHandle::new(tokio::spawn(Member::new(future, seat))))
    }

    fn start_in_thread<F, T>(&self, origin: Origin<'_>, closure: F) -> TaskHandle<T>
    where
        F: FnOnce(&CancellationToken) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        let Some(mut seat) = self.seat(origin, Kind::Blocking) else {
            return TaskHandle::refused();
        };
        let started = self.try_take_slot(&mut seat);
        let mut member = BlockingMember::new(closure, seat);
        TaskHandle::new(if started {
            start_blocking(member)
        } else {
            // The queue is a task; the closure gets its thread when it gets its slot.
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                let Some(slot) = shared.slots.take(shared.token()).await else {
                    member.marks().set_ended();
                    return Err(JoinError::Refused);
                };
                member.marks().hold(slot);
                start_blocking(member)
                    .await
                    .unwrap_or(Err(JoinError::Aborted))
            })
        })
    }

    fn try_take_slot(&self, seat: &mut Seat<E>) -> bool {
        match self.shared.slots.try_take() {
            Some(slot) => {
                seat.marks.hold(slot);
                true
            }
            None => {
                seat.marks.set_queued();
                false
            }
        }
    }

    fn queued<F>(&self, member: Member<F, E>) -> Queued<F, E> {
        let shared = Arc::clone(&self.shared);
        let admission = async move {
            let slot = shared.slots.take(shared.token()).await;
            slot.map(Slot::keep).is_some()
        };
        Queued::new(Box::pin(admission), member)
    }
}

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
