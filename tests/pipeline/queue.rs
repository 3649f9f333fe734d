//! The queue of a pool, and its pushers.

use std::sync::Arc;

use taskgroup::TaskGroup;
use taskgroup::pipeline::{Job, Workers};
use tokio::sync::Semaphore;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};

use crate::support::{Seen, settle};

/// A pool of one worker that waits at the gate, and its pusher.
macro_rules! gated {
    ($gate:ident, $capacity:expr) => {{
        let gate = Arc::clone(&$gate);
        Workers::new("mail", move |_: Job<u32>| {
            let gate = Arc::clone(&gate);
            async move { Ok(gate.acquire().await?.forget()) }
        })
        .queue($capacity)
        .unwrap()
    }};
}

#[tokio::test(start_paused = true)]
async fn a_push_waits_while_the_queue_is_full_first_come_first_served() {
    let mut group = TaskGroup::new();
    let gate = Arc::new(Semaphore::new(0));
    let (pusher, pool) = gated!(gate, 1);
    let report = pool.spawn(&group);
    pusher.push(0).await.unwrap();
    settle().await;
    pusher.push(1).await.unwrap();
    let (other, mut first) = (pusher.clone(), spawn(pusher.push(2)));
    let mut second = spawn(other.push(3));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    assert!(pusher.try_push(4).unwrap_err().is_full());

    gate.add_permits(1);
    settle().await;
    assert_pending!(second.poll());
    assert_ready!(first.poll()).unwrap();
    gate.add_permits(10);
    settle().await;
    assert_ready!(second.poll()).unwrap();
    drop((first, second));
    drop((pusher, other));
    assert_eq!(report.await.unwrap().done(), 4);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn after_the_stop_every_push_gives_its_item_back_and_none_hangs() {
    let mut group = TaskGroup::new();
    let gate = Arc::new(Semaphore::new(0));
    let (pusher, pool) = gated!(gate, 2);
    let leftovers = pool.leftovers();
    pool.spawn(&group);
    pusher.push(0).await.unwrap();
    settle().await;
    pusher.push(1).await.unwrap();
    let permit = pusher.reserve().await.unwrap();
    let mut waiting = spawn(pusher.push(3));
    let mut reserving = spawn(pusher.reserve());
    assert_pending!(waiting.poll());
    assert_pending!(reserving.poll());

    group.cancel();
    settle().await;
    assert_eq!(assert_ready!(waiting.poll()).unwrap_err().into_item(), 3);
    assert_eq!(
        assert_ready!(reserving.poll()).unwrap_err().to_string(),
        "the pool has stopped"
    );
    let refused = permit.send(2).unwrap_err();
    assert_eq!(refused.to_string(), "the pool has stopped");
    assert!(!refused.is_full());
    assert_eq!(refused.into_item(), 2);
    assert!(pusher.try_push(4).is_err());
    assert!(pusher.is_stopped());
    gate.add_permits(10);
    assert!(group.wait().await.is_ok());
    assert!(pusher.push(5).await.is_err());
    assert!(leftovers.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn with_many_pushers_the_pool_ends_when_the_last_is_gone() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let handled = seen.clone();
    let (pusher, pool) = Workers::new("mail", move |job: Job<u32>| {
        handled.push(*job);
        async { Ok(()) }
    })
    .limit(3)
    .queue(4)
    .unwrap();
    let report = pool.spawn(&group);
    for writer in 0..5 {
        let pusher = pusher.clone();
        group.spawn(async move {
            for item in 0..20 {
                pusher.push(writer * 100 + item).await?;
            }
            Ok(())
        });
    }
    drop(pusher);
    assert_eq!(report.await.unwrap().done(), 100);
    assert_eq!(seen.len(), 100);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_kept_and_not_used_is_given_to_the_next() {
    let (pusher, pool) = Workers::new("mail", |_: Job<u32>| async { Ok(()) })
        .queue(1)
        .unwrap();
    let permit = pusher.reserve().await.unwrap();
    let mut waiting = spawn(pusher.push(1));
    assert_pending!(waiting.poll());
    drop(permit);
    assert_ready!(waiting.poll()).unwrap();
    drop(pool);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_the_line_takes_no_place_along() {
    let (pusher, pool) = Workers::new("mail", |_: Job<u32>| async { Ok(()) })
        .queue(1)
        .unwrap();
    let permit = pusher.reserve().await.unwrap();
    let mut leaving = spawn(pusher.push(1));
    let mut waiting = spawn(pusher.push(2));
    assert_pending!(leaving.poll());
    assert_pending!(waiting.poll());
    // The place is for the first, which leaves without it.
    drop(permit);
    drop(leaving);
    assert!(waiting.is_woken());
    drop(waiting);
    // No caller waits, and the place is not lost.
    pusher.try_push(3).unwrap();
    assert!(pusher.try_push(4).unwrap_err().is_full());
    drop(pool);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_dropped_leaves_what_was_pushed() {
    let (pusher, pool) = Workers::new("mail", |_: Job<u32>| async { Ok(()) })
        .queue(10)
        .unwrap();
    let leftovers = pool.leftovers();
    pusher.push(1).await.unwrap();
    drop(pool);
    assert_eq!(leftovers.take()[0].item(), Some(&1));
    assert_eq!(pusher.push(2).await.unwrap_err().into_item(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_handler_pushes_into_its_own_queue() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let handled = seen.clone();
    let pushes: Arc<std::sync::OnceLock<_>> = Arc::default();
    let own: Arc<std::sync::OnceLock<taskgroup::pipeline::Pusher<u32>>> = Arc::clone(&pushes);
    let spawner = group.spawner();
    let (pusher, pool) = Workers::new("steps", move |job: Job<u32>| {
        handled.push(*job);
        match *job {
            // A stop that is asked for inside of a handler.
            3 => spawner.cancel(),
            step => own.get().unwrap().try_push(step + 1).unwrap(),
        }
        async { Ok(()) }
    })
    .queue(1)
    .unwrap();
    pushes.set(pusher).unwrap();
    pool.spawn(&group);
    pushes.get().unwrap().push(0).await.unwrap();
    assert!(group.wait().await.is_ok());
    assert_eq!(seen.all(), [0, 1, 2, 3]);
}
