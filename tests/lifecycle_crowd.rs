//! Many components at once, and the others on their thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use taskgroup::BoxError;
use taskgroup::lifecycle::{Component, Lifecycle};
use tokio::task::yield_now;

const COMPONENTS: usize = 2_000;

/// How many may be started, or told, while another task waits for its turn.
const BOUND: usize = 256;

/// Counts what happens between two turns of somebody else.
#[derive(Clone, Default)]
struct Turns {
    turns: Arc<AtomicUsize>,
    happened: Arc<Mutex<BTreeMap<usize, usize>>>,
}

impl Turns {
    async fn take(self) {
        loop {
            self.turns.fetch_add(1, Ordering::Relaxed);
            yield_now().await;
        }
    }

    fn happens(&self) {
        let turn = self.turns.load(Ordering::Relaxed);
        *self.happened.lock().unwrap().entry(turn).or_default() += 1;
    }

    fn most(&self) -> usize {
        *self.happened.lock().unwrap().values().max().unwrap()
    }
}

/// The future of `block_on` has more turns than a task, so this is where it could take them away.
#[tokio::test(start_paused = true)]
async fn two_thousand_that_start_and_stop_at_once_leave_the_others_their_turn() {
    let (starts, stops) = (Turns::default(), Turns::default());
    let others = [starts.clone(), stops.clone()].map(|turns| tokio::spawn(turns.take()));
    let mut lifecycle = Lifecycle::new("crowd");
    for index in 0..COMPONENTS {
        let (starts, stops) = (starts.clone(), stops.clone());
        let run = |ctx: taskgroup::lifecycle::Context| async move {
            starts.happens();
            ctx.ready();
            ctx.stopping().await;
            stops.happens();
            Ok::<(), BoxError>(())
        };
        lifecycle = lifecycle.component(Component::new(format!("c{index}"), run));
    }
    let handle = lifecycle.handle();
    let stop = tokio::spawn(async move {
        assert_eq!(handle.ready().await, Ok(()));
        handle.stop("the test is over");
    });
    let report = lifecycle.run().await.unwrap();
    stop.await.unwrap();
    for other in others {
        other.abort();
    }

    assert!(report.is_clean());
    assert!(starts.most() <= BOUND, "{} started at once", starts.most());
    assert!(stops.most() <= BOUND, "{} were told at once", stops.most());
}
