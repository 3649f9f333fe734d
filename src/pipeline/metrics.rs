//! The numbers of a pool as metrics (feature `metrics`).

use std::sync::Arc;
use std::time::Duration;

use ::metrics::Unit;
use tokio::time::{Instant, sleep};

use super::queue::Waits;
use super::report::Numbers;
use super::shared::Shared;
use super::watermark::Watched;
use crate::group::deadline;
use crate::group::panic::Panic;

/// How often the metrics are written.
const EVERY: Duration = Duration::from_secs(1);

/// The label of all the metrics, with the name of the pool.
const PIPELINE: &str = "pipeline";

/// The label of the counter of ends.
const END: &str = "end";

const IN_FLIGHT: &str = "pipeline_in_flight";
const BUFFERED: &str = "pipeline_buffered";
const IN_BACKOFF: &str = "pipeline_in_backoff";
const CAPACITY: &str = "pipeline_capacity";
const PAUSED: &str = "pipeline_paused";
const LAG: &str = "pipeline_watermark_lag";
const OLDEST: &str = "pipeline_oldest_buffered_seconds";
const TAKEN_IN: &str = "pipeline_taken_in_total";
const BEGUN: &str = "pipeline_begun_total";
const ATTEMPTS: &str = "pipeline_attempts_total";
const ENDED: &str = "pipeline_ended_total";
const CUT: &str = "pipeline_cut_total";
const ACKS_FAILED: &str = "pipeline_acks_failed_total";
const DEAD_LETTERS: &str = "pipeline_dead_letters_total";

/// Writes the metrics at once, at intervals, and a last time when the pool is over.
pub(super) async fn meter<T, R>(shared: Arc<Shared<T, R>>, watermark: Option<Arc<dyn Watched>>) {
    Panic::catch(describe).unwrap_or_else(Panic::discard);
    loop {
        let is_over = shared.over.is_cancelled();
        write(&shared, watermark.as_deref());
        if is_over {
            return;
        }
        let _ = deadline::until(shared.over.cancelled(), sleep(EVERY)).await;
    }
}

/// A panic of the recorder has no effect.
fn write<T, R>(shared: &Shared<T, R>, watermark: Option<&dyn Watched>) {
    let (numbers, waits) = shared.waits();
    let paused = usize::from(shared.is_paused());
    let written = Panic::catch(|| {
        let name = &shared.name;
        set(name, PAUSED, paused);
        set(name, CAPACITY, shared.capacity);
        if let Some(watermark) = watermark {
            set(name, LAG, watermark.lag());
        }
        gauges(name, &numbers, &waits);
        counters(name, &numbers);
    });
    written.unwrap_or_else(Panic::discard);
}

fn set(name: &Arc<str>, gauge: &'static str, count: usize) {
    #[allow(clippy::cast_precision_loss)]
    ::metrics::gauge!(gauge, PIPELINE => Arc::clone(name)).set(count as f64);
}

fn gauges(name: &Arc<str>, numbers: &Numbers, waits: &Waits) {
    let oldest = waits.oldest.map(|oldest| Instant::now() - oldest);
    set(name, IN_FLIGHT, numbers.in_flight());
    set(name, BUFFERED, waits.buffered);
    set(name, IN_BACKOFF, waits.in_backoff);
    let oldest = oldest.unwrap_or_default().as_secs_f64();
    ::metrics::gauge!(OLDEST, PIPELINE => Arc::clone(name)).set(oldest);
}

fn counters(name: &Arc<str>, numbers: &Numbers) {
    let counts = [
        (TAKEN_IN, numbers.taken_in),
        (BEGUN, numbers.begun),
        (ATTEMPTS, numbers.attempts),
        (CUT, numbers.cut),
        (ACKS_FAILED, numbers.acks_failed),
        (DEAD_LETTERS, numbers.dead_letters),
    ];
    for (counter, count) in counts {
        ::metrics::counter!(counter, PIPELINE => Arc::clone(name)).absolute(count as u64);
    }
    let ends = [
        ("done", numbers.done),
        ("failed", numbers.failed),
        ("panicked", numbers.panicked),
        (
            "handed back",
            numbers.handed_back_begun + numbers.handed_back_unbegun,
        ),
    ];
    for (end, count) in ends {
        let counter = ::metrics::counter!(ENDED, PIPELINE => Arc::clone(name), END => end);
        counter.absolute(count as u64);
    }
}

fn describe() {
    let gauges = [
        (IN_FLIGHT, "Items that were begun and have no end yet"),
        (BUFFERED, "Items that nobody has begun"),
        (IN_BACKOFF, "Items that wait for their next attempt"),
        (CAPACITY, "How many items the buffer holds"),
        (PAUSED, "Whether a valve pauses the pool"),
        (
            LAG,
            "Items of the partition with the most that the watermark has not passed",
        ),
    ];
    for (gauge, what) in gauges {
        ::metrics::describe_gauge!(gauge, Unit::Count, what);
    }
    let what = "How long the oldest item that nobody has begun has waited";
    ::metrics::describe_gauge!(OLDEST, Unit::Seconds, what);
    let counters = [
        (TAKEN_IN, "Items that were taken in"),
        (BEGUN, "Items that a handler has begun"),
        (ATTEMPTS, "Attempts that were begun"),
        (ENDED, "Items that have ended, by the kind of their end"),
        (CUT, "Items that were cut under way and handed back"),
        (
            ACKS_FAILED,
            "Acknowledgements that failed and were repeated",
        ),
        (
            DEAD_LETTERS,
            "Items that the dead-letter function has taken",
        ),
    ];
    for (counter, what) in counters {
        ::metrics::describe_counter!(counter, Unit::Count, what);
    }
}
