//! Routes that make things go wrong, for tests and for the curious. Only with `--faults`.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::any;
use serde::Deserialize;
use taskgroup::BoxError;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::warn;

/// How the worker is to end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WorkerFault {
    Error,
    Panic,
    End,
    /// Holds its thread forever, so that it cannot even be forced.
    Block,
}

impl WorkerFault {
    pub(crate) fn happen(self) -> Result<(), BoxError> {
        match self {
            Self::Error => Err("a fault was asked for: error".into()),
            Self::Panic => panic!("a fault was asked for: panic"),
            Self::End => Ok(()),
            Self::Block => loop {
                warn!("the worker sleeps with its thread");
                std::thread::sleep(Duration::MAX);
            },
        }
    }
}

/// Builds the routes; `worker` is how the worker hears of its fault.
pub(crate) fn routes(worker: mpsc::Sender<WorkerFault>) -> Router {
    let fault = |fault: WorkerFault| {
        any(
            async move |State(worker): State<mpsc::Sender<WorkerFault>>| {
                match worker.send(fault).await {
                    Ok(()) => StatusCode::ACCEPTED,
                    // The worker has ended already.
                    Err(_) => StatusCode::CONFLICT,
                }
            },
        )
    };
    Router::new()
        .route("/faults/worker-error", fault(WorkerFault::Error))
        .route("/faults/worker-panic", fault(WorkerFault::Panic))
        .route("/faults/worker-end", fault(WorkerFault::End))
        .route("/faults/worker-block", fault(WorkerFault::Block))
        .route("/faults/handler-panic", any(panic))
        .route("/faults/block-runtime", any(block_runtime))
        .with_state(worker)
}

async fn panic() -> StatusCode {
    panic!("a fault was asked for: panic in a handler")
}

#[derive(Deserialize)]
struct Block {
    ms: u64,
}

/// Puts every thread of the runtime to sleep. One task for each; they begin to sleep when all
/// have met, as otherwise a thread could take two of them, one after the other.
async fn block_runtime(Query(Block { ms }): Query<Block>) -> StatusCode {
    let threads = Handle::current().metrics().num_workers();
    let all_have_a_thread = Arc::new(Barrier::new(threads));
    for _ in 0..threads {
        let all_have_a_thread = Arc::clone(&all_have_a_thread);
        tokio::spawn(async move {
            if all_have_a_thread.wait().is_leader() {
                warn!(threads, ms, "every thread of the runtime sleeps");
            }
            std::thread::sleep(Duration::from_millis(ms));
        });
    }
    StatusCode::ACCEPTED
}
