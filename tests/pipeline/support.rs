//! What the tests have in common.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use taskgroup::pipeline::{HandedBack, PipelineError, PipelineReport};
use taskgroup::{BoxError, TaskGroup};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// What happened, in order.
#[derive(Clone, Debug)]
pub(crate) struct Seen<T>(Arc<Mutex<Vec<T>>>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> Seen<T> {
    pub(crate) fn push(&self, item: T) {
        self.0.lock().unwrap().push(item);
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Waits for a group whose pool has failed, and returns what became of its items.
pub(crate) async fn failed(group: &mut TaskGroup) -> (PipelineReport, String) {
    let error = group.wait().await.unwrap_err().into_error().unwrap();
    let error: &PipelineError = error.downcast_ref().unwrap();
    (error.report().clone(), format!("{error:#}"))
}

/// Keeps the items that are handed back.
pub(crate) fn keep<T: Clone + Send + 'static>(
    seen: &Seen<(T, bool)>,
) -> impl Fn(Vec<HandedBack<T>>) -> std::future::Ready<Result<(), BoxError>> + Send + Sync + use<T>
{
    let seen = seen.clone();
    move |items| {
        for item in items {
            seen.push((item.item().unwrap().clone(), item.is_begun()));
        }
        std::future::ready(Ok(()))
    }
}

/// Lets everything go as far as it goes without time, on a paused clock: with nothing else to do, that goes on by a
/// millisecond.
pub(crate) async fn settle() {
    // On any other clock this panics.
    tokio::time::advance(Duration::ZERO).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
}
