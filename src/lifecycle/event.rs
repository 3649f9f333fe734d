//! [`Event`]: what a lifecycle reports to its observers.

use std::sync::Arc;
use std::time::Duration;

use super::component_error::ComponentError;
use crate::group::cause::Cause;
use crate::group::end::End;

/// An event of a lifecycle, as its [observers](super::Lifecycle::observe) receive it.
///
/// Events come in the order in which things happened. A component has, in this order,
/// [`StartBegan`](EventKind::StartBegan), [`Ready`](EventKind::Ready) if it became so,
/// [`StopBegan`](EventKind::StopBegan) if it was told to stop, [`Forced`](EventKind::Forced) if it
/// overran, and finally [`Ended`](EventKind::Ended). [`Failed`](EventKind::Failed) comes as soon as
/// the failure is known, so before `Ended`. For a forced component that is when it is gone, or
/// given up. The failure that stops the whole comes before
/// [`StopTriggered`](EventKind::StopTriggered).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// How long after the start of the run it happened.
    pub at: Duration,
    /// The path of the lifecycle. This is its name, or `orders/billing` for one that is a
    /// component.
    pub lifecycle: Arc<str>,
    /// The path of the component, such as `orders/http`. `None` if the event is about the whole.
    pub component: Option<Arc<str>>,
    /// What happened.
    pub kind: EventKind,
}

/// The kind of an event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// The component is being started.
    StartBegan,
    /// The component was not started, for this reason, and never will be. Its state is
    /// [`Ended(Skipped)`](crate::End::Skipped), and it has no other event.
    Skipped(String),
    /// The component is ready, this long after its start began.
    Ready(Duration),
    /// All components are ready.
    AllReady,
    /// The stop has begun.
    StopTriggered {
        /// Why.
        cause: Cause,
        /// The time that the whole stop may take.
        budget: Duration,
    },
    /// The number of requests or jobs in flight in the component when the stop was triggered.
    ///
    /// It follows [`StopTriggered`](Self::StopTriggered), for each component that knows its number.
    InFlight(usize),
    /// The service goes on unchanged for this long, so that replicas do not stop all at once.
    JitterBegan(Duration),
    /// The service is no longer ready.
    NotReady,
    /// The service still serves for this long, until the load balancer has noticed.
    LameDuckBegan(Duration),
    /// The components that drain have this long to do so.
    DrainBegan(Duration),
    /// The drain is over.
    DrainEnded,
    /// The component has been told to stop within this time, or is leaving because a task of it failed.
    StopBegan(Duration),
    /// Something went wrong with the component. There is one event for each of its errors in the
    /// report.
    Failed(ComponentError),
    /// The component was forced, this long after it was told to stop.
    Forced(Duration),
    /// The component is gone, or given up.
    Ended {
        /// How it ended, as [`ComponentState::Ended`](super::ComponentState::Ended) has it.
        end: End,
        /// How long its stop took. `None` if it ended without one.
        took: Option<Duration>,
        /// The number of requests or jobs in flight in it when it was told to stop, if it is known.
        in_flight: usize,
    },
    /// The stop is slow. The text names the components that it waits for and the time that each has
    /// left, such as `` `http` (3s left)``.
    ///
    /// It comes 5 s after the stop began, and then every 10 s.
    Waiting(String),
    /// The cleanup has begun.
    CleanupBegan,
    /// The run is over.
    Stopped {
        /// How long after the stop began.
        took: Duration,
        /// How many things went wrong.
        errors: usize,
    },
}

/// A callback that receives the events.
pub(super) type Observer = Box<dyn FnMut(&Event) + Send>;
