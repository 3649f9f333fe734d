//! The worker: moves orders from `pending` to `fulfilled`, in small batches.

use std::time::Duration;

use taskgroup::{BoxError, CancellationToken};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::info;

use crate::faults::WorkerFault;
use crate::metrics;
use crate::store::Store;

const BATCH: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// Works until `stop` fires. It looks at the token between two batches only, so that a batch that
/// has begun is committed.
pub(crate) async fn run(
    store: Store,
    mut faults: mpsc::Receiver<WorkerFault>,
    stop: &CancellationToken,
) -> Result<(), BoxError> {
    loop {
        metrics::orders_fulfilled(store.fulfil(BATCH).await?);
        tokio::select! {
            () = stop.cancelled() => break,
            Some(fault) = faults.recv() => return fault.happen(),
            () = sleep(PAUSE) => {}
        }
    }
    info!("worker: stopped between two batches");
    Ok(())
}
