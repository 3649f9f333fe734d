//! Reports the stop of a lifecycle as metrics (feature `metrics`).
//!
//! [`observer`] writes them through the facade of the crate [`metrics`](https://docs.rs/metrics), so they go
//! where all metrics of the service go, such as Prometheus, StatsD or OTLP. Without an installed recorder it
//! has no effect.
//!
//! | name | kind | what it is |
//! |---|---|---|
//! | [`shutdown_duration_seconds`](DURATION) | histogram | how long the stop took, in seconds |
//! | [`shutdown_errors_total`](ERRORS) | counter | what went wrong: the errors of the [`Report`](crate::lifecycle::Report) |
//! | [`shutdown_in_flight`](IN_FLIGHT) | gauge | requests or jobs in flight when the stop was triggered |
//!
//! # The label
//!
//! Each metric has one label, `component`. It is the path of the component, such as `orders/http`, as in the
//! log and in the errors of tasks. The name alone is not unique where a lifecycle is a component of another.
//! Metrics of the whole lifecycle have its path, `orders`, which differs from that of every component.
//!
//! - **Durations.** The duration of a component runs from the moment it was told to stop until it was gone or
//!   given up. A component that was never told has no duration. The duration of the lifecycle runs from the
//!   trigger until all is over, with the lame duck and the cleanup, so it is not the sum of the others.
//! - **Errors.** The counter of a component begins at 0 when the component is started, and that of the
//!   lifecycle when it is over, so that you can take a rate. A failure that caused the stop counts too, and
//!   so does each failure of a component that has several. An error that belongs to no component, such as a
//!   lost heartbeat, counts for the lifecycle. The sum of all counters is the number of errors in the report.
//! - **In flight.** Servers that run with the [`Context`](crate::lifecycle::Context) count their requests.
//!   Other components call [`set_in_flight`](crate::lifecycle::Context::set_in_flight). The gauge is set when
//!   the stop is triggered and does not change afterwards. If a component first reports a number after it was
//!   told to stop, its gauge is set when it has ended. A component that never reports one has no gauge.
//!
//! Set the buckets of the histogram in the exporter. Buckets up to the budget make sense.
//!
//! A process that stops is scraped only a few times more, and what it counts after the last scrape is lost.
//! The gauge is set at once, so a lame duck longer than the scrape interval is enough to see it. For the
//! rest, keep the server of `/metrics` to the end, below all others, or push in a step of the
//! [cleanup](crate::lifecycle::Lifecycle::cleanup), which sees the durations and errors of the components.
//! Those of the lifecycle come last, after the cleanup.
//!
//! # Examples
//!
//! `examples/metrics.rs` prints them as Prometheus sees them.
//!
//! ```
//! use taskgroup::lifecycle::{Component, Lifecycle};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), taskgroup::BoxError> {
//! let report = Lifecycle::new("orders")
//!     .component(Component::job("migrate", |_| async { Ok(()) }))
//!     .observe(taskgroup::process::metrics::observer())
//!     .run()
//!     .await?;
//! assert!(report.is_clean());
//! # Ok(())
//! # }
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use ::metrics::Unit;

use crate::lifecycle::{Event, EventKind};

/// The histogram of stop durations.
pub const DURATION: &str = "shutdown_duration_seconds";

/// The counter of errors.
pub const ERRORS: &str = "shutdown_errors_total";

/// The gauge of requests or jobs in flight when the stop was triggered.
pub const IN_FLIGHT: &str = "shutdown_in_flight";

/// The label that all of them have.
const COMPONENT: &str = "component";

/// Returns an observer that writes the [metrics](self) of a lifecycle, for [`Lifecycle::observe`].
///
/// They go to the thread's recorder, or the global one, at the time of each event, so the recorder may be
/// installed after this call. Use one observer for each lifecycle. The names of two lifecycles in a process
/// tell their metrics apart.
///
/// # Panics
///
/// Never. A panic of the recorder has no effect.
///
/// [`Lifecycle::observe`]: crate::lifecycle::Lifecycle::observe
pub fn observer() -> impl FnMut(&Event) + Send + 'static {
    let mut observer = Observer::default();
    move |event| observer.on(event)
}

#[derive(Debug, Default)]
struct Observer {
    is_described: bool,
    /// How many errors have been counted for components.
    counted: usize,
    /// The components whose gauge is right.
    known: HashSet<Arc<str>>,
}

impl Observer {
    fn on(&mut self, event: &Event) {
        // Not earlier, because the recorder may not have been installed.
        if !std::mem::replace(&mut self.is_described, true) {
            describe();
        }
        let label = event.component.as_ref().unwrap_or(&event.lifecycle);
        match &event.kind {
            EventKind::StartBegan => count(label, 0),
            EventKind::Failed(_) => {
                self.counted += 1;
                count(label, 1);
            }
            EventKind::InFlight(in_flight) => {
                self.known.insert(Arc::clone(label));
                set_in_flight(label, *in_flight);
            }
            EventKind::Ended {
                took, in_flight, ..
            } => {
                if let Some(took) = took {
                    ::metrics::histogram!(DURATION, COMPONENT => Arc::clone(label)).record(*took);
                }
                if *in_flight > 0 && !self.known.contains(label) {
                    set_in_flight(label, *in_flight);
                }
            }
            EventKind::Stopped { took, errors } => {
                ::metrics::histogram!(DURATION, COMPONENT => Arc::clone(label)).record(*took);
                count(label, errors.saturating_sub(self.counted));
            }
            _ => {}
        }
    }
}

fn describe() {
    let what = "How long the stop took, from the moment it was told to stop until it was gone";
    ::metrics::describe_histogram!(DURATION, Unit::Seconds, what);
    let what = "What went wrong, the failures that caused the stop included";
    ::metrics::describe_counter!(ERRORS, Unit::Count, what);
    let what = "Requests or jobs in flight when the stop was triggered";
    ::metrics::describe_gauge!(IN_FLIGHT, Unit::Count, what);
}

fn count(label: &Arc<str>, errors: usize) {
    let errors = u64::try_from(errors).unwrap_or(u64::MAX);
    ::metrics::counter!(ERRORS, COMPONENT => Arc::clone(label)).increment(errors);
}

fn set_in_flight(label: &Arc<str>, count: usize) {
    // No real count exceeds the 53 bits that are exact.
    #[allow(clippy::cast_precision_loss)]
    ::metrics::gauge!(IN_FLIGHT, COMPONENT => Arc::clone(label)).set(count as f64);
}
