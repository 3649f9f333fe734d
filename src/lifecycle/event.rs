//! [`Event`]: what a lifecycle tells those who watch it.

use std::sync::Arc;
use std::time::Duration;

use super::component_error::ComponentError;
use crate::group::cause::Cause;
use crate::group::end::End;

/// Something that has happened in a lifecycle, as its [observers](super::Lifecycle::observe) hear
/// of it.
///
/// The events come in the order in which things happened. A component has, in this order,
/// [`StartBegan`](EventKind::StartBegan), [`Ready`](EventKind::Ready) if it became so,
/// [`StopBegan`](EventKind::StopBegan) if it was told to stop, [`Forced`](EventKind::Forced) if
/// that was not enough, and [`Ended`](EventKind::Ended), which is the last. What went wrong is
/// [`Failed`](EventKind::Failed) as soon as it is known, so before that. Of a component that was forced
/// it is known when it is gone, or given up. What makes the whole stop comes before [`StopTriggered`](EventKind::StopTriggered).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// How long after the start of the run it happened.
    pub at: Duration,
    /// The lifecycle it is about, by its path: its name, or `orders/billing` for one that is a
    /// component.
    pub lifecycle: Arc<str>,
    /// The component it is about, by its path such as `orders/http`; nothing if it is about the whole.
    pub component: Option<Arc<str>>,
    /// What happened.
    pub kind: EventKind,
}

/// What has happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// The component is being started.
    StartBegan,
    /// The component was not started, and never will be: why. Its state is
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
        /// What all of it may take.
        budget: Duration,
    },
    /// So many requests or jobs were in flight in the component when the stop was triggered.
    ///
    /// It follows [`StopTriggered`](Self::StopTriggered), for each component that can say.
    InFlight(usize),
    /// Nothing changes for this long, so that replicas do not stop all at once.
    JitterBegan(Duration),
    /// The service is not ready any more.
    NotReady,
    /// Everything is served for this long, until the load balancer has noticed.
    LameDuckBegan(Duration),
    /// Everything that can has this long to drain.
    DrainBegan(Duration),
    /// The drain is over.
    DrainEnded,
    /// The component has been told to stop within this time, or is leaving because a task of it failed.
    StopBegan(Duration),
    /// Something went wrong with the component: one event for each of its errors in the report.
    Failed(ComponentError),
    /// The component was forced, this long after it was told to stop.
    Forced(Duration),
    /// The component is gone, or given up.
    Ended {
        /// How it ended, as [`ComponentState::Ended`](super::ComponentState::Ended) has it.
        end: End,
        /// How long its stop took; `None` if it ended without one.
        took: Option<Duration>,
        /// How many requests or jobs were in flight in it when it was told to stop, as far as it said.
        in_flight: usize,
    },
    /// The stop takes long: what it waits for, and for how long still, such as `` `http` (3s left)``.
    ///
    /// It comes 5 s after the stop began, and then every 10 s.
    Waiting(String),
    /// The cleanup has begun.
    CleanupBegan,
    /// All is over.
    Stopped {
        /// How long after the stop began.
        took: Duration,
        /// How many things went wrong.
        errors: usize,
    },
}

/// Who hears of what happens.
pub(super) type Observer = Box<dyn FnMut(&Event) + Send>;
