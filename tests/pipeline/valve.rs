//! Pools that are paused and resumed by hand.

use taskgroup::TaskGroup;
use taskgroup::pipeline::{AtStop, Job, JobError, Valve, Workers, from_iter};
use taskgroup::supervise::Backoff;
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, Seen, keep, settle};

#[tokio::test(start_paused = true)]
async fn a_paused_pool_begins_nothing_and_goes_on_when_it_is_resumed() {
    let mut group = TaskGroup::new();
    let (seen, valve) = (Seen::default(), Valve::new());
    let handled = seen.clone();
    let (pusher, pool) = Workers::new("mail", move |job: Job<u32>| {
        let handled = handled.clone();
        async move {
            sleep(SECOND).await;
            Ok(handled.push(*job))
        }
    })
    .limit(2)
    .valve(&valve)
    .queue(3)
    .unwrap();
    let report = pool.spawn(&group);
    pusher.push(1).await.unwrap();
    settle().await;
    valve.pause();
    assert!(valve.is_paused());
    // The one that has begun goes on, and the queue fills.
    for item in 2..=4 {
        pusher.push(item).await.unwrap();
    }
    sleep(10 * SECOND).await;
    assert_eq!(seen.all(), [1]);
    assert!(pusher.try_push(5).unwrap_err().is_full());

    valve.resume();
    valve.resume();
    sleep(10 * SECOND).await;
    assert_eq!(seen.all(), [1, 2, 3, 4]);
    drop(pusher);
    assert_eq!(report.await.unwrap().to_string(), "4 done");
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_paused_pool_fetches_nothing_and_one_that_stops_hands_back() {
    let (fetched, valve) = (Seen::default(), Valve::new());
    let counted = fetched.clone();
    let items = (0..100).inspect(move |item| counted.push(*item));
    let back = Seen::default();
    let mut group = TaskGroup::new();
    let pool = Workers::new("mail", |_: Job<u32>| async { Ok(sleep(SECOND).await) })
        .buffer(2)
        .valve(&valve)
        .at_stop(AtStop::Drain)
        .hand_back(keep(&back))
        .source(from_iter(items))
        .unwrap();
    let report = pool.spawn(&group);
    settle().await;
    valve.pause();
    let before = fetched.len();
    sleep(10 * SECOND).await;
    // A fetch that was under way counts.
    assert!(fetched.len() <= before + 1, "{before}, {}", fetched.len());
    let began = Instant::now();
    group.cancel();
    let report = report.await.unwrap();
    assert_eq!(report.done(), 1);
    assert_eq!(report.never_begun(), report.taken_in() - 1);
    assert_eq!(back.len(), report.never_begun());
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_due_waits_too_and_uses_no_attempt() {
    let (seen, valve) = (Seen::default(), Valve::new());
    let handled = seen.clone();
    let mut group = TaskGroup::new();
    let began = Instant::now();
    let (pusher, pool) = Workers::new("mail", move |job: Job<u32>| {
        handled.push((job.attempt(), began.elapsed().as_secs()));
        async move {
            match job.attempt() {
                1 => Err(JobError::failed("not yet")),
                _ => Ok(()),
            }
        }
    })
    .retry(Backoff::new(SECOND, SECOND).no_jitter(), 2)
    .valve(&valve)
    .queue(3)
    .unwrap();
    let report = pool.spawn(&group);
    pusher.push(1).await.unwrap();
    settle().await;
    valve.pause();
    sleep(10 * SECOND).await;
    valve.resume();
    settle().await;
    assert_eq!(seen.all(), [(1, 0), (2, 10)]);
    drop(pusher);
    assert_eq!(report.await.unwrap().to_string(), "1 done");
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn two_pools_share_a_valve_and_one_that_is_paused_from_the_start_waits() {
    let (valve, mut group) = (Valve::new(), TaskGroup::new());
    valve.pause();
    let pools: Vec<_> = ["one", "two"]
        .into_iter()
        .map(|name| {
            let workers = Workers::new(name, |_: Job<u32>| async { Ok(()) });
            let (pusher, pool) = workers.valve(&valve).queue(3).unwrap();
            pusher.try_push(1).unwrap();
            (pool.spawn(&group), pusher)
        })
        .collect();
    sleep(10 * SECOND).await;
    for (report, pusher) in pools {
        assert!(!report.is_finished());
        // The last pusher is gone, but what is queued has to be worked off.
        drop(pusher);
        valve.resume();
        assert_eq!(report.await.unwrap().to_string(), "1 done");
        valve.pause();
    }
    assert!(group.wait().await.is_ok());
}
