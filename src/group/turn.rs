//! Work in slices, so that everything else on the thread has its turn.

use tokio::task::yield_now;

/// Gives a turn to all tasks that wait for one on this thread.
///
/// A plain yield is not enough. The future of a `block_on` has its next turn after a few tasks have had
/// one. It would wake more and more of them, and a later task would wait for all of those. The spawned task
/// yields because a worker may run first what was spawned last.
pub(crate) async fn turn() {
    let _ = tokio::spawn(yield_now()).await;
}
