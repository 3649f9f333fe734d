//! Many threads at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use taskgroup::TaskGroup;
use taskgroup::pipeline::{AtStop, Job, Workers};
use tokio::sync::Notify;

/// Everything that a pusher was told is taken in has one end, whenever the stop comes.
#[test]
fn on_many_threads_nothing_is_lost_whenever_the_stop_comes() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    for round in 0..200u64 {
        runtime.block_on(async move {
            let mut group = TaskGroup::new();
            let handled = Arc::new(AtomicUsize::new(0));
            let counts = Arc::clone(&handled);
            // The stop comes when so many of the 1500 are handled: each round at another place.
            let enough = usize::try_from(round).unwrap() * 7;
            let stop = Arc::new(Notify::new());
            let reached = Arc::clone(&stop);
            let at_stop = [AtStop::Drain, AtStop::HandBack][(round % 2) as usize];
            let (pusher, pool) = Workers::new("numbers", move |job: Job<u64>| {
                if counts.fetch_add(1, Ordering::Relaxed) == enough {
                    reached.notify_one();
                }
                async move {
                    if *job % 7 == 0 {
                        tokio::task::yield_now().await;
                    }
                    Ok(())
                }
            })
            .limit(3)
            .keys(|item: &u64| (item % 3 == 0).then_some(item % 5))
            .at_stop(at_stop)
            .queue(8)
            .unwrap();
            let leftovers = pool.leftovers();
            let report = pool.spawn(&group);
            let pushers: Vec<_> = (0..3)
                .map(|_| {
                    let pusher = pusher.clone();
                    tokio::spawn(async move {
                        let mut pushed = 0;
                        for item in 0..500 {
                            match pusher.push(item).await {
                                Ok(()) => pushed += 1,
                                Err(refused) => {
                                    assert_eq!(refused.into_item(), item);
                                    break;
                                }
                            }
                        }
                        pushed
                    })
                })
                .collect();
            drop(pusher);
            stop.notified().await;
            group.cancel();
            let mut pushed = 0;
            for pusher in pushers {
                pushed += pusher.await.unwrap();
            }
            let report = report.await.unwrap();
            assert_eq!(report.taken_in(), pushed);
            assert_eq!(report.done() + report.handed_back(), pushed);
            assert_eq!(report.done(), handled.load(Ordering::Relaxed));
            assert_eq!(leftovers.take().len(), report.handed_back());
            group.wait().await.unwrap();
        });
    }
}
