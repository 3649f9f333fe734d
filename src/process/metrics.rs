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
//! | [`shutdown_forced_total`](FORCED) | counter | those of the errors that say that something was forced |
//! | [`shutdown_in_flight`](IN_FLIGHT) | gauge | requests or jobs in flight when the stop was triggered |
//! | [`shutdown_pending`](PENDING) | gauge | 1 from the start of a component until it has ended, then 0 |
//! | [`shutdown_started_timestamp_seconds`](STARTED) | gauge | when the stop was triggered, in Unix time, or 0 |
//! | [`shutdown_budget_seconds`](BUDGET) | gauge | the time that the stop was given, once it was triggered, or 0 if it has no limit |
//!
//! # The label
//!
//! Each metric has one label, `component`. It is the path of the component, such as `orders/http`, as in the
//! log and in the errors of tasks. The name alone is not unique where a lifecycle is a component of another.
//! Metrics of the whole lifecycle have its path, `orders`, which differs from that of every component. The last
//! two are only of the whole lifecycle, and `shutdown_in_flight` and `shutdown_pending` only of components.
//!
//! - **All begin at 0.** The series of a lifecycle exist when its first component is started, and those of a
//!   component when it is started, the histogram included. A process stops once, so a series that appears with
//!   its only value would give `increase` nothing.
//! - **Durations.** The duration of a component runs from the moment it was told to stop until it was gone or
//!   given up. A component that was never told has no duration. The duration of the lifecycle runs from the
//!   trigger until all is over, with the lame duck and the cleanup, so it is not the sum of the others.
//! - **Errors.** A failure that caused the stop counts too, and so does each failure of a component that has
//!   several. An error that belongs to no component, such as a lost heartbeat, counts for the lifecycle. The
//!   sum of all counters is the number of errors in the report.
//! - **In flight.** Servers that run with the [`Context`](crate::lifecycle::Context) count their requests.
//!   Other components call [`set_in_flight`](crate::lifecycle::Context::set_in_flight). The gauge is set when
//!   the stop is triggered and does not change afterwards. If a component first reports a number after it was
//!   told to stop, its gauge is set when it has ended.
//!
//! Set the buckets of the histogram in the exporter. Buckets up to the budget make sense.
//!
//! A process that stops is scraped only a few times more, and what it counts after the last scrape is lost.
//! The gauges are set at once, so a lame duck longer than the scrape interval is enough to see them. For the
//! rest, keep the server of `/metrics` to the end, below all others, and let it wait for one more scrape, as
//! `orders --last-scrape` does. You can also push in a step of the
//! [cleanup](crate::lifecycle::Lifecycle::cleanup), which sees the durations and errors of the components.
//! Those of the lifecycle come last, after the cleanup.
//!
//! The files in `deploy/prometheus` and `deploy/grafana` have alerts and a dashboard for these names. A process
//! that is killed leaves a `shutdown_pending` of 1 behind, which is how an alert tells it from one that has
//! stopped.
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
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::metrics::Unit;

use crate::lifecycle::{Event, EventKind};

/// The histogram of stop durations.
pub const DURATION: &str = "shutdown_duration_seconds";

/// The counter of errors.
pub const ERRORS: &str = "shutdown_errors_total";

/// The counter of errors that say that something was forced.
pub const FORCED: &str = "shutdown_forced_total";

/// The gauge of requests or jobs in flight when the stop was triggered.
pub const IN_FLIGHT: &str = "shutdown_in_flight";

/// The gauge that is 1 until a component has ended.
pub const PENDING: &str = "shutdown_pending";

/// The gauge of the moment at which the stop was triggered.
pub const STARTED: &str = "shutdown_started_timestamp_seconds";

/// The gauge of the time that the stop was given.
pub const BUDGET: &str = "shutdown_budget_seconds";

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
    /// The lifecycles whose metrics exist: the observed one, and those that are components.
    lifecycles: HashSet<Arc<str>>,
    /// How many errors have been counted for components.
    counted: usize,
    /// The components whose number in flight is right.
    known: HashSet<Arc<str>>,
}

impl Observer {
    fn on(&mut self, event: &Event) {
        // Not earlier, because the recorder may not have been installed.
        if self.lifecycles.is_empty() {
            describe();
        }
        if self.lifecycles.insert(Arc::clone(&event.lifecycle)) {
            begin(&event.lifecycle);
            set(STARTED, &event.lifecycle, 0.0);
            set(BUDGET, &event.lifecycle, 0.0);
        }
        let label = event.component.as_ref().unwrap_or(&event.lifecycle);
        match &event.kind {
            EventKind::StartBegan => {
                begin(label);
                set(IN_FLIGHT, label, 0.0);
                set(PENDING, label, 1.0);
            }
            EventKind::StopTriggered { budget, .. } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                set(STARTED, label, now.unwrap_or_default().as_secs_f64());
                if *budget != Duration::MAX {
                    set(BUDGET, label, budget.as_secs_f64());
                }
            }
            EventKind::Failed(error) => {
                self.counted += 1;
                count(ERRORS, label, 1);
                count(FORCED, label, usize::from(error.is_forced()));
            }
            EventKind::InFlight(in_flight) => {
                self.known.insert(Arc::clone(label));
                set_in_flight(label, *in_flight);
            }
            EventKind::Ended {
                took, in_flight, ..
            } => {
                set(PENDING, label, 0.0);
                if let Some(took) = took {
                    durations(label).record(*took);
                }
                if *in_flight > 0 && !self.known.contains(label) {
                    set_in_flight(label, *in_flight);
                }
            }
            EventKind::Stopped { took, errors } => {
                durations(label).record(*took);
                count(ERRORS, label, errors.saturating_sub(self.counted));
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
    let what = "Errors that say that something was forced";
    ::metrics::describe_counter!(FORCED, Unit::Count, what);
    let what = "Requests or jobs in flight when the stop was triggered";
    ::metrics::describe_gauge!(IN_FLIGHT, Unit::Count, what);
    let what = "1 from the start of the component until it has ended";
    ::metrics::describe_gauge!(PENDING, Unit::Count, what);
    let what = "When the stop was triggered, in Unix time, or 0";
    ::metrics::describe_gauge!(STARTED, Unit::Seconds, what);
    let what = "The time that the stop was given, once it was triggered";
    ::metrics::describe_gauge!(BUDGET, Unit::Seconds, what);
}

/// Makes the series that components and lifecycles have, at 0.
fn begin(label: &Arc<str>) {
    let _ = durations(label);
    count(ERRORS, label, 0);
    count(FORCED, label, 0);
}

fn durations(label: &Arc<str>) -> ::metrics::Histogram {
    ::metrics::histogram!(DURATION, COMPONENT => Arc::clone(label))
}

fn count(name: &'static str, label: &Arc<str>, errors: usize) {
    let errors = u64::try_from(errors).unwrap_or(u64::MAX);
    ::metrics::counter!(name, COMPONENT => Arc::clone(label)).increment(errors);
}

fn set(name: &'static str, label: &Arc<str>, value: f64) {
    ::metrics::gauge!(name, COMPONENT => Arc::clone(label)).set(value);
}

fn set_in_flight(label: &Arc<str>, count: usize) {
    // No real count exceeds the 53 bits that are exact.
    #[allow(clippy::cast_precision_loss)]
    set(IN_FLIGHT, label, count as f64);
}
