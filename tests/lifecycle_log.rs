//! L19: a log that blocks holds up no component. Alone in its process, as the log is for all of that.

use std::sync::Mutex;
use std::sync::mpsc as blocking;
use std::time::Duration;

use taskgroup::lifecycle::{Component, Context, Lifecycle};
use taskgroup::{BoxError, End};
use tokio::runtime::Builder;
use tracing::span;
use tracing::{Metadata, Subscriber};

const LONG: Duration = Duration::from_secs(60);

/// A log that blocks when it is told that a component stops.
struct FullPipe(Mutex<blocking::Receiver<()>>);

impl Subscriber for FullPipe {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "taskgroup"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        if event.metadata().name() == "taskgroup.component.stopping" {
            let _ = self.0.lock().unwrap().recv();
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

async fn obedient(ctx: Context) -> Result<(), BoxError> {
    ctx.ready();
    Ok(ctx.stopping().await)
}

#[test]
fn a_log_that_blocks_holds_up_no_component() {
    let (release, released) = blocking::channel();
    tracing::subscriber::set_global_default(FullPipe(Mutex::new(released))).unwrap();
    let lifecycle = Lifecycle::new("orders")
        .budget(LONG)
        .component(Component::new("db", obedient))
        .component(Component::new("worker", obedient).after(["db"]));
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_time().build().unwrap();
    runtime.block_on(async {
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        assert_eq!(handle.ready().await, Ok(()));
        handle.stop("enough");
        let ended = handle.ended("db");
        let ended = tokio::time::timeout(LONG, ended).await;
        assert_eq!(ended.expect("held up"), Some(End::Done));
        drop(release);
        assert!(run.await.unwrap().unwrap().is_clean());
    });
}
