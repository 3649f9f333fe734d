//! Many lifecycles on many threads, where things happen at once.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicUsize};

use taskgroup::End;
use taskgroup::lifecycle::{Component, ComponentError, ComponentState, Context, Lifecycle};
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::support::SECOND;

/// A component that counts whether it is alive, and is at the end when its dependents are.
fn counted(
    index: usize,
    alive: Arc<AtomicUsize>,
    begun: Arc<AtomicU32>,
    fails: Option<usize>,
) -> Component {
    struct Alive(Arc<AtomicUsize>);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Relaxed);
        }
    }
    let run = move |ctx: Context| async move {
        alive.fetch_add(1, Relaxed);
        begun.fetch_or(1 << index, Relaxed);
        let _alive = Alive(alive);
        let token = ctx.token().clone();
        ctx.group().task("helper").spawn(async move {
            token.cancelled().await;
            for _ in 0..index % 3 {
                yield_now().await;
            }
            Ok(())
        });
        ctx.ready();
        if let Some(turns) = fails {
            for _ in 0..turns {
                yield_now().await;
            }
            return Err(format!("c{index} is lost").into());
        }
        ctx.stopping().await;
        assert!(ctx.cause().is_some());
        for _ in 0..index % 4 {
            yield_now().await;
        }
        Ok(())
    };
    let after = [index.checked_sub(1), index.checked_sub(3)];
    let after = after.into_iter().flatten().filter(|it| it % 2 == 0);
    Component::new(format!("c{index}"), run).after(after.map(|it| format!("c{it}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_ends_and_each_failure_is_reported_once_whatever_happens_together() {
    for round in 0..300 {
        let alive = Arc::new(AtomicUsize::new(0));
        let begun = Arc::new(AtomicU32::new(0));
        let failing = [round % 12, (round * 7 + 3) % 12, (round * 5 + 1) % 24];
        let mut lifecycle = Lifecycle::new("orders").budget(60 * SECOND);
        for index in 0..12 {
            let fails = failing.contains(&index).then_some(round % 5);
            let (alive, begun) = (Arc::clone(&alive), Arc::clone(&begun));
            lifecycle = lifecycle.component(counted(index, alive, begun, fails));
        }
        let handle = lifecycle.handle();
        let stop = tokio::spawn({
            let handle = handle.clone();
            async move {
                for _ in 0..round % 40 {
                    yield_now().await;
                }
                handle.stop("enough");
            }
        });
        let report = timeout(60 * SECOND, lifecycle.run())
            .await
            .expect("it hangs")
            .unwrap();
        stop.await.unwrap();

        assert_eq!(alive.load(Relaxed), 0);
        assert!(handle.running().is_empty(), "{}", handle.running());
        assert!(!report.was_forced(), "{report}");
        for status in &report.components {
            let errors = report
                .errors
                .iter()
                .filter(|it| it.component == status.component);
            let count = errors.clone().count();
            assert!(count <= 1, "{report}");
            let end = errors.clone().map(ComponentError::end).next();
            match status.state {
                ComponentState::Ended(End::Skipped) => assert_eq!(count, 0),
                state => {
                    let end = end.unwrap_or(End::Done);
                    assert_eq!(state, ComponentState::Ended(end), "{report}");
                }
            }
        }
        // Those that have begun have failed, sooner or later, in one way or the other.
        for index in failing.into_iter().filter(|index| *index < 12) {
            let name = format!("c{index}");
            let found = report.errors.iter().any(|error| error.component == name);
            let begun = begun.load(Relaxed) & 1 << index != 0;
            assert_eq!(found, begun, "{name}: {report}");
            let skipped = ComponentState::Ended(End::Skipped);
            assert!(!begun || handle.state(&name) != Some(skipped));
        }
        if let Some(first) = report.first_error() {
            let cause = report.cause.to_string();
            assert!(
                cause.contains("enough") || cause.contains(&first.message),
                "{report}"
            );
        }
    }
}
