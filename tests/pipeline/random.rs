//! Random items, limits, failures, panics, hangs and stops: every item has exactly one end.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use taskgroup::pipeline::{
    AtStop, Job, JobError, OnFailure, PipelineError, PipelineReport, Valve, Workers,
};
use taskgroup::supervise::Backoff;
use taskgroup::{BoxError, TaskGroup};
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, Seen};

/// What a handler does with an item.
#[derive(Clone, Copy, Debug)]
enum Act {
    Done(u64),
    Fail(u64),
    /// It fails so often, then it is done.
    Later(u32),
    Permanent,
    Panic(u64),
    HandBack,
    Hang,
}

#[derive(Clone, Debug)]
struct Plan {
    items: Vec<(Act, Option<u8>, u64)>,
    limit: usize,
    capacity: usize,
    attempts: Option<u32>,
    batch: usize,
    has_dead_letters: bool,
    dead_letters_fail: bool,
    parks: bool,
    hands_back: bool,
    at_stop: AtStop,
    grace: u64,
    stop: u64,
    is_aborted: bool,
    /// When a valve pauses the pool, and for how long.
    pause: Option<(u64, u64)>,
    /// The most that a batch weighs. Items weigh 1 to 3.
    weight: u64,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..4000u64).prop_map(Act::Done),
        2 => (0..2000u64).prop_map(Act::Fail),
        2 => (0..5u32).prop_map(Act::Later),
        1 => Just(Act::Permanent),
        1 => (0..2000u64).prop_map(Act::Panic),
        1 => Just(Act::HandBack),
        1 => Just(Act::Hang),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let item = (act(), prop::option::of(0..3u8), 0..500u64);
    let sizes = (1..5usize, 3..8usize, prop::option::of(1..5u32), 1..4usize);
    let flags = any::<[bool; 6]>();
    let times = (0..8000u64, 0..10_000u64);
    let more = (prop::option::of((0..8000u64, 0..8000u64)), 1..8u64);
    let items = prop::collection::vec(item, 0..30);
    let plans = (items, sizes, flags, times, more);
    plans.prop_map(|(items, sizes, flags, (grace, stop), more)| Plan {
        items,
        limit: sizes.0,
        capacity: sizes.1,
        attempts: sizes.2,
        batch: sizes.3,
        has_dead_letters: flags[0],
        dead_letters_fail: flags[1],
        parks: flags[2],
        hands_back: flags[3],
        at_stop: if flags[4] {
            AtStop::Drain
        } else {
            AtStop::HandBack
        },
        grace,
        stop,
        is_aborted: flags[5] && stop % 3 == 0,
        pause: more.0,
        weight: more.1,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Begun(usize),
    Left(usize),
    HandedBack(usize),
    Dead(usize),
}

type Item = (usize, Act, Option<u8>);

fn weight(item: &Item) -> u64 {
    1 + item.0 as u64 % 3
}

async fn act_out(job: &Job<Item>) -> Result<(), JobError> {
    match job.1 {
        Act::Done(millis) => Ok(sleep(Duration::from_millis(millis)).await),
        Act::Fail(millis) => {
            sleep(Duration::from_millis(millis)).await;
            Err(JobError::failed("failed"))
        }
        Act::Later(failures) if job.attempt() > failures => Ok(()),
        Act::Later(_) => Err(JobError::failed("later")),
        Act::Permanent => Err(JobError::permanent("permanent")),
        Act::Panic(millis) => {
            sleep(Duration::from_millis(millis)).await;
            panic!("poison")
        }
        Act::HandBack => Err(JobError::hand_back("handed back")),
        Act::Hang => Ok(std::future::pending().await),
    }
}

/// Notes when an attempt is over, however it ends.
struct Left(Seen<Event>, usize);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.push(Event::Left(self.1));
    }
}

async fn run(plan: &Plan) {
    let events: Seen<Event> = Seen::default();
    let (seen, dead, back) = (events.clone(), events.clone(), events.clone());
    let fails = plan.dead_letters_fail;
    let handler = move |job: Job<Item>| {
        seen.push(Event::Begun(job.0));
        let left = Left(seen.clone(), job.0);
        async move {
            let _left = left;
            act_out(&job).await
        }
    };
    let workers = if plan.batch == 1 {
        Workers::new("random", handler)
    } else {
        let most = plan.weight;
        let batches =
            Workers::batches("random", plan.batch, SECOND, move |jobs: Vec<Job<Item>>| {
                let weight: u64 = jobs.iter().map(|job| weight(job)).sum();
                assert!(jobs.len() == 1 || weight <= most, "{weight}");
                let runs: Vec<_> = jobs.into_iter().map(&handler).collect();
                async move {
                    for run in runs {
                        run.await?;
                    }
                    Ok(())
                }
            });
        batches.batch_weight(plan.weight, weight)
    };
    let valve = Valve::new();
    let mut workers = workers
        .limit(plan.limit)
        .valve(&valve)
        .on_failure(OnFailure::Count)
        .keys(|item: &Item| item.2)
        .at_stop(plan.at_stop)
        .grace(Duration::from_millis(plan.grace));
    if let Some(attempts) = plan.attempts {
        workers = workers.retry(Backoff::new(SECOND / 2, 3 * SECOND).seed(1), attempts);
    }
    if plan.parks {
        workers = workers.park_failed_keys();
    }
    if plan.has_dead_letters {
        workers = workers.dead_letter(move |job| {
            let dead = dead.clone();
            async move {
                match fails {
                    true => Err("no dead letters".into()),
                    false => Ok(dead.push(Event::Dead(job.0))),
                }
            }
        });
    }
    if plan.hands_back {
        workers = workers.hand_back(move |items| {
            for item in items {
                back.push(Event::HandedBack(item.item().unwrap().0));
            }
            async { Ok(()) }
        });
    }
    let (pusher, pool) = workers.queue(plan.capacity).unwrap();
    let leftovers = pool.leftovers();
    let mut group = TaskGroup::new();
    let handle = pool.spawn(&group);
    let items = plan.items.clone();
    let pushed = tokio::spawn(async move {
        let mut pushed = 0;
        for (index, (act, key, pause)) in items.into_iter().enumerate() {
            sleep(Duration::from_millis(pause)).await;
            match pusher.push((index, act, key)).await {
                Ok(()) => pushed += 1,
                Err(error) => assert_eq!(error.into_item().0, index),
            }
        }
        pushed
    });
    let (pause, begins) = (plan.pause, events.clone());
    let paused = tokio::spawn(async move {
        let Some((at, time)) = pause else { return };
        sleep(Duration::from_millis(at)).await;
        valve.pause();
        let begun = |log: &[Event]| count_of(log, |event| matches!(event, Event::Begun(_)));
        let before = begun(&begins.all());
        sleep(Duration::from_millis(time)).await;
        assert_eq!(begun(&begins.all()), before, "it has begun in a pause");
        valve.resume();
    });
    sleep(Duration::from_millis(plan.stop)).await;
    let began = Instant::now();
    let begun_before = events.all();
    if plan.is_aborted {
        group.abort();
    } else {
        group.cancel();
    }
    let ended = group.wait().await;
    let took = began.elapsed();
    let pushed = pushed.await.unwrap();
    paused.await.unwrap();

    // Nothing is alive afterwards.
    let log = events.all();
    sleep(1000 * SECOND).await;
    assert_eq!(events.len(), log.len());
    let count = |event: fn(&Event) -> bool| log.iter().filter(|seen| event(seen)).count();
    if plan.batch == 1 {
        let begun = count(|event| matches!(event, Event::Begun(_)));
        assert_eq!(begun, count(|event| matches!(event, Event::Left(_))));
    }
    // The stop is bounded.
    let bound = Duration::from_millis(plan.grace) + 3 * SECOND;
    assert!(took <= bound, "{took:?}");

    for item in leftovers.take() {
        events.push(Event::HandedBack(item.item().unwrap().0));
    }
    let log = events.all();
    // Each is handed back once at most, and a dead letter is not handed back.
    let mut ends: HashMap<usize, usize> = HashMap::new();
    for event in &log {
        if let Event::HandedBack(item) | Event::Dead(item) = event {
            *ends.entry(*item).or_default() += 1;
        }
    }
    assert!(ends.values().all(|count| *count == 1), "{ends:?}");
    check_keys(plan, &log);
    if plan.at_stop == AtStop::HandBack && plan.batch == 1 {
        // None begins after the stop.
        let begins = |log: &[Event]| {
            let begins = log.iter().filter(|event| matches!(event, Event::Begun(_)));
            begins.count()
        };
        assert_eq!(begins(&log), begins(&begun_before));
    }
    if plan.is_aborted {
        return;
    }
    let report = report(handle.await.ok(), ended);
    assert_eq!(report.taken_in(), pushed);
    let all = report.done() + report.failed() + report.panicked() + report.handed_back();
    assert_eq!(all, pushed, "{report}");
    let handed_back = count_of(&log, |event| matches!(event, Event::HandedBack(_)));
    assert_eq!(report.handed_back(), handed_back);
    assert_eq!(
        report.dead_letters(),
        count_of(&log, |event| matches!(event, Event::Dead(_)))
    );
    assert_eq!(
        report.is_clean(),
        report.cut() == 0 && report.dead_letters_failed() == 0
    );
}

fn count_of(log: &[Event], event: fn(&Event) -> bool) -> usize {
    log.iter().filter(|seen| event(seen)).count()
}

/// The report of a pool, clean or not.
fn report(
    handle: Option<PipelineReport>,
    ended: Result<(), taskgroup::TaskError<BoxError>>,
) -> PipelineReport {
    if let Some(report) = handle {
        return report;
    }
    let error = ended.unwrap_err().into_error().unwrap();
    let error: &PipelineError = error.downcast_ref().unwrap();
    error.report().clone()
}

/// The items of a key are begun in order, and one at a time.
fn check_keys(plan: &Plan, log: &[Event]) {
    let key = |item: usize| plan.items[item].1;
    let mut last: HashMap<u8, usize> = HashMap::new();
    let mut running: HashMap<u8, usize> = HashMap::new();
    for event in log {
        match event {
            Event::Begun(item) => {
                let Some(key) = key(*item) else { continue };
                let before = last.insert(key, *item).unwrap_or_default();
                assert!(before <= *item, "{before} before {item}");
                if plan.batch == 1 {
                    assert_eq!(running.insert(key, *item), None);
                }
            }
            Event::Left(item) => {
                if let Some(key) = key(*item) {
                    running.remove(&key);
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_item_has_exactly_one_end(plan in plan()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(&plan));
    }
}
