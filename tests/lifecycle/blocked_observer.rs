//! L19: an observer that blocks holds up nobody.

use std::sync::mpsc as blocking;
use std::time::Duration;

use taskgroup::End;
use taskgroup::lifecycle::{Component, EventKind, Lifecycle};
use tokio::runtime::Builder;

use crate::support::obedient;

/// The clock is the real one: a paused one needs a runtime of one thread.
const LONG: Duration = Duration::from_secs(60);

/// `db` ← `worker`, which asks for the stop once it is ready.
fn lifecycle() -> Lifecycle {
    let worker = Component::new("worker", |ctx| async move {
        ctx.ready();
        ctx.stop("enough");
        Ok(ctx.stopping().await)
    });
    Lifecycle::new("orders")
        .budget(LONG)
        .component(obedient("db"))
        .component(worker.after(["db"]))
}

/// Runs it, and releases the one that blocks only when all components have ended.
fn all_end_before(lifecycle: Lifecycle, release: blocking::Sender<()>) {
    let mut builder = Builder::new_multi_thread();
    // Not one of its threads is left, if that is who is blocked.
    let runtime = builder.worker_threads(1).enable_time().build().unwrap();
    runtime.block_on(async {
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        let ended = handle.ended("db");
        let ended = tokio::time::timeout(LONG, ended).await;
        assert_eq!(ended.expect("held up"), Some(End::Done));
        drop(release);
        assert!(run.await.unwrap().unwrap().is_clean());
    });
}

#[test]
fn an_observer_that_blocks_holds_up_no_component_and_hears_of_all() {
    let (release, released) = blocking::channel();
    let (sender, heard) = blocking::channel();
    let lifecycle = lifecycle().observe(move |event| {
        if let EventKind::StopTriggered { .. } = event.kind {
            let _ = released.recv();
        }
        sender.send(event.kind.clone()).unwrap();
    });
    all_end_before(lifecycle, release);
    let heard: Vec<_> = heard.iter().collect();
    assert!(matches!(heard.first(), Some(EventKind::StartBegan)));
    assert!(matches!(heard.last(), Some(EventKind::Stopped { .. })));
}
