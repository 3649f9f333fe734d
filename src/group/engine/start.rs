//! Starts the members of a group in each of the ways to spawn.

use std::future::Future;
use std::mem::needs_drop;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::handle::{Joining, NoValue, TaskHandle};
use super::hub::Hub;
use super::member::{Admission, BlockingMember, Member, Returning, Sending, Wrapped};
use super::origin::Origin;
use super::seat::{Kind, Seat, SpawningLocally};
use super::slots::{NoSlot, Slot};
use super::spawn_error::SpawnError;
use super::value::Place;

/// A task of a limited group, or one that runs in a span.
///
/// It is boxed, so that the program has the code of Tokio's task once for all of them, and not once
/// more for each future that it spawns.
type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, NoValue>> + Send>>;

/// The same for a task that stays on its thread.
type LocalBoxed<T> = Pin<Box<dyn Future<Output = Result<T, NoValue>>>>;

/// The future of a plain task is spawned unchanged.
pub(crate) fn as_it_is<F>(future: F) -> F {
    future
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
            tokio::spawn(self.wrapped(origin.in_current_span, future, seat))
        })
    }

    // Out of line, so that a plain spawn keeps its seat in registers.
    #[inline(never)]
    fn wrapped<F, T>(&self, in_current_span: bool, future: F, mut seat: Seat<E>) -> Boxed<T>
    where
        F: Future<Output = Result<Option<T>, E>> + Send + 'static,
        T: Send + 'static,
    {
        let admission = self.slot_or_place(&mut seat);
        let span = self.span(in_current_span);
        Box::pin(Wrapped::new(admission, span, Member::new(future, seat)))
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
            let wrapped = Wrapped::new(admission, span, Member::new(future, seat));
            tokio::task::spawn_local(Box::pin(wrapped) as LocalBoxed<T>)
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
        let queue: Boxed<T> = Box::pin(async move {
            if !admission.await {
                member.marks().set_ended();
                return Err(NoValue::Refused);
            }
            member.marks().hold_kept_slot();
            start_blocking(member)
                .await
                .unwrap_or(Err(NoValue::Aborted))
        });
        Some(tokio::spawn(queue))
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
            tokio::spawn(Box::pin(Wrapped::new(None, span, member)) as Boxed<T>)
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
