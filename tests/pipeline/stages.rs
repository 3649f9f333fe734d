//! Chains: the job travels with what is made of its item, and the last stage makes the end.

use std::collections::HashSet;
use std::future::pending;
use std::time::Duration;

use proptest::prelude::*;
use taskgroup::TaskGroup;
use taskgroup::lifecycle::Lifecycle;
use taskgroup::pipeline::{AtStop, Job, JobError, OnFailure, Origin, Pool, Reason, Stage, Workers};
use taskgroup::supervise::Backoff;
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, Seen, failed, settle};

/// A last stage that takes a second for each row, fails at 13 and hangs at 99.
fn store(seen: &Seen<u32>) -> (Stage<u32>, Pool<u32, Origin>) {
    let seen = seen.clone();
    Workers::new("store", move |row: Job<u32, Origin>| {
        let seen = seen.clone();
        async move {
            match *row {
                13 => return Err(JobError::failed("a row of ill omen")),
                99 => pending().await,
                _ => sleep(SECOND).await,
            }
            Ok(seen.push(*row))
        }
    })
    .limit(2)
    .on_failure(OnFailure::Count)
    .stage(2)
    .unwrap()
}

/// A first stage: `1 2 3` becomes three rows, and an empty line none.
fn parse(rows: Stage<u32>) -> Workers<&'static str> {
    Workers::new("parse", move |line: Job<&str>| {
        let rows = rows.clone();
        async move {
            let all: Result<Vec<u32>, _> = line.split_whitespace().map(str::parse).collect();
            Ok(rows.pass_all(line, all?).await?)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn an_item_is_done_when_all_that_was_made_of_it_is() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let (rows, store) = store(&seen);
    let (lines, parse) = parse(rows).queue(10).unwrap();
    let (parsed, stored) = (parse.spawn(&group), store.spawn(&group));
    for line in ["1 2 3", "", "4", "5 6 7 8"] {
        lines.push(line).await.unwrap();
    }
    drop(lines);
    settle().await;
    // The one worker of the first stage does not wait for its jobs, and the next stage holds it back.
    assert!(!parsed.is_finished());
    assert_eq!(parsed.await.unwrap().to_string(), "4 done");
    assert_eq!(stored.await.unwrap().to_string(), "8 done");
    assert_eq!(seen.len(), 8);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_chain_drains_from_the_front_at_the_stop() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let (rows, store) = store(&seen);
    let (lines, parse) = parse(rows).queue(10).unwrap();
    let (parsed, stored) = (parse.spawn(&group), store.spawn(&group));
    for line in ["1 2", "3", "4", "5"] {
        lines.push(line).await.unwrap();
    }
    settle().await;
    group.cancel();
    assert_eq!(parsed.await.unwrap().to_string(), "4 done");
    assert_eq!(stored.await.unwrap().to_string(), "5 done");
    assert!(lines.push("6").await.is_err());
    assert!(group.wait().await.is_ok());
}

/// Both stages have a queue of one place, and all items fail at first in each of them.
#[tokio::test(start_paused = true)]
async fn retries_in_both_stages_with_full_queues_do_not_lock_the_chain() {
    let mut group = TaskGroup::new();
    let fails_first = |attempt| match attempt {
        1 => Err(JobError::failed("not yet")),
        _ => Ok(()),
    };
    let backoff = || Backoff::new(SECOND, SECOND);
    let (rows, store) = Workers::new("store", move |row: Job<u32, Origin>| async move {
        fails_first(row.attempt())
    })
    .retry(backoff(), 2)
    .stage(1)
    .unwrap();
    let (lines, parse) = Workers::new("parse", move |line: Job<u32>| {
        let rows = rows.clone();
        async move {
            fails_first(line.attempt())?;
            let row = *line;
            Ok(rows.pass(line, row).await?)
        }
    })
    .retry(backoff(), 2)
    .queue(1)
    .unwrap();
    let (parsed, stored) = (parse.spawn(&group), store.spawn(&group));
    for line in 0..50 {
        lines.push(line).await.unwrap();
    }
    drop(lines);
    let (parsed, stored) = (parsed.await.unwrap(), stored.await.unwrap());
    assert_eq!((parsed.done(), parsed.attempts()), (50, 100));
    assert_eq!((stored.done(), stored.attempts()), (50, 100));
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_failed_output_fails_the_item_with_its_error() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let (rows, store) = store(&seen);
    let dead = Seen::default();
    let letters = dead.clone();
    let (lines, parse) = parse(rows)
        .dead_letter(move |line| {
            letters.push((*line, line.last_error().unwrap().to_string()));
            async { Ok(()) }
        })
        .queue(10)
        .unwrap();
    let (parsed, stored) = (parse.spawn(&group), store.spawn(&group));
    for line in ["1 13 2", "3"] {
        lines.push(line).await.unwrap();
    }
    drop(lines);
    assert_eq!(parsed.await.unwrap().to_string(), "1 done, 1 failed");
    assert_eq!(stored.await.unwrap().to_string(), "3 done, 1 failed");
    assert_eq!(dead.all(), [("1 13 2", "a row of ill omen".to_owned())]);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_unfinished_is_handed_back_once_as_the_original_at_one_deadline() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let (rows, store) = store(&seen);
    let (lines, parse) = parse(rows).queue(10).unwrap();
    let leftovers = parse.leftovers();
    let (parsed, stored) = (parse.spawn(&group), store.spawn(&group));
    for line in ["1", "2 99 3 99 5", "7"] {
        lines.push(line).await.unwrap();
    }
    settle().await;
    let began = Instant::now();
    group.cancel();
    let _ = (parsed.await, stored.await);
    assert_eq!(began.elapsed().as_secs(), 10);
    let left = leftovers.take();
    let left: Vec<_> = left
        .iter()
        .map(|item| (*item.item().unwrap(), item.is_begun()))
        .collect();
    assert_eq!(left, [("2 99 3 99 5", true), ("7", true)]);
    assert!(group.wait().await.is_err());
    assert_eq!(seen.all(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_fails_refuses_and_the_items_before_it_are_handed_back() {
    let mut group = TaskGroup::new();
    let (rows, store) = Workers::new("store", |_: Job<u32, Origin>| async {
        Err(JobError::failed("the disk is full"))
    })
    .stage(1)
    .unwrap();
    let (lines, parse) = parse(rows).on_failure(OnFailure::Count).queue(10).unwrap();
    let leftovers = parse.leftovers();
    for line in ["1", "2", "3"] {
        lines.push(line).await.unwrap();
    }
    let parsed = parse.spawn(&group);
    store.spawn(&group);
    let (report, message) = failed(&mut group).await;
    assert_eq!(report.failed(), 1);
    assert!(
        message.ends_with("an item failed: the disk is full"),
        "{message}"
    );
    let parsed = parsed.await.unwrap();
    assert_eq!((parsed.failed(), parsed.handed_back()), (1, 2));
    assert_eq!(leftovers.take().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_hands_back_at_once_still_ends_what_it_has_passed_on() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let (rows, store) = store(&seen);
    let (lines, parse) = parse(rows).at_stop(AtStop::HandBack).queue(10).unwrap();
    let leftovers = parse.leftovers();
    let (parsed, _stored) = (parse.spawn(&group), store.spawn(&group));
    for line in ["1", "2"] {
        lines.push(line).await.unwrap();
    }
    settle().await;
    group.cancel();
    assert_eq!(parsed.await.unwrap().to_string(), "2 done");
    assert!(leftovers.take().is_empty());
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_abort_hands_every_item_back_that_a_later_stage_had() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let (rows, store) = store(&seen);
    let (lines, parse) = parse(rows).queue(10).unwrap();
    let leftovers = parse.leftovers();
    let _ = (parse.spawn(&group), store.spawn(&group));
    for line in ["99", "99 1", "1", "1", "1", "1"] {
        lines.push(line).await.unwrap();
    }
    settle().await;
    group.abort();
    let _ = group.wait().await;
    let left = leftovers.take();
    assert_eq!(left.len(), 6);
    assert_eq!(left[0].reason(), Reason::Downstream);
}

#[tokio::test(start_paused = true)]
async fn an_output_that_is_handed_back_gives_its_item_back_at_once() {
    let mut group = TaskGroup::new();
    let (rows, store) = Workers::new("store", |_: Job<u32, Origin>| async {
        Err(JobError::hand_back("the table is locked"))
    })
    .stage(10)
    .unwrap();
    let seen = Seen::default();
    let back = seen.clone();
    let (lines, parse) = parse(rows)
        .hand_back(move |items| {
            for item in items {
                back.push((item.reason(), *item.item().unwrap()));
            }
            async { Ok(()) }
        })
        .queue(10)
        .unwrap();
    let (parsed, _stored) = (parse.spawn(&group), store.spawn(&group));
    lines.push("1").await.unwrap();
    settle().await;
    assert_eq!(seen.all(), [(Reason::Downstream, "1")]);
    group.cancel();
    assert_eq!(parsed.await.unwrap().to_string(), "1 handed back");
    assert!(group.wait().await.is_ok());
}

/// In a lifecycle the later stage stops after the earlier one, and so would be cut after it.
#[tokio::test(start_paused = true)]
async fn a_later_stage_is_cut_with_the_one_before_it_which_hands_its_items_back() {
    let seen = Seen::default();
    let back = seen.clone();
    let attempts = |row: Job<u32, Origin>| async move {
        match *row {
            1 => Ok(pending().await),
            _ => Err(JobError::failed("the broker does not answer")),
        }
    };
    let (rows, store) = Workers::new("store", attempts)
        .limit(2)
        .retry(Backoff::new(60 * SECOND, 60 * SECOND), 9)
        .stage(10)
        .unwrap();
    let (lines, parse) = parse(rows)
        .grace(2 * SECOND)
        .hand_back(move |items| {
            for item in items {
                back.push((item.reason(), *item.item().unwrap()));
            }
            async { Ok(()) }
        })
        .queue(10)
        .unwrap();
    let lifecycle = Lifecycle::new("rows")
        .component(store.component())
        .component(parse.component().after(["store"]));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    handle.ready().await.unwrap();
    // One hangs, one is between two attempts, one is not begun.
    for line in ["1", "2", "1", "1"] {
        lines.push(line).await.unwrap();
    }
    settle().await;
    let began = Instant::now();
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();
    assert_eq!(
        seen.all(),
        [
            (Reason::Downstream, "1"),
            (Reason::Downstream, "2"),
            (Reason::Downstream, "1"),
            (Reason::Downstream, "1")
        ]
    );
    assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());
    let message = format!("{report}");
    assert!(!message.contains("still running"), "{message}");
}

/// What each row does in the last stage, by its number.
async fn act(row: u32) -> Result<(), JobError> {
    match row % 8 {
        0 => Err(JobError::permanent("bad row")),
        1 => panic!("poison"),
        2 => Err(JobError::hand_back("not now")),
        3 => Ok(pending().await),
        more => Ok(sleep(more * SECOND / 4).await),
    }
}

async fn run(lines: Vec<Vec<u32>>, limits: [usize; 2], sizes: [usize; 2], stop: u64) {
    let mut group = TaskGroup::new();
    let (rows, store) = Workers::new(
        "store",
        |row: Job<u32, Origin>| async move { act(*row).await },
    )
    .limit(limits[1])
    .on_failure(OnFailure::Count)
    .grace(2 * SECOND)
    .stage(sizes[1])
    .unwrap();
    let (pusher, parse) = Workers::new("parse", move |line: Job<(usize, Vec<u32>)>| {
        let rows = rows.clone();
        async move {
            let all = line.1.clone();
            Ok(rows.pass_all(line, all).await?)
        }
    })
    .limit(limits[0])
    .on_failure(OnFailure::Count)
    .grace(2 * SECOND)
    .queue(sizes[0])
    .unwrap();
    let leftovers = parse.leftovers();
    let (parsed, stored) = (parse.spawn(&group), store.spawn(&group));
    let pushing = tokio::spawn(async move {
        let mut pushed = 0;
        for line in lines.into_iter().enumerate() {
            pushed += usize::from(pusher.push(line).await.is_ok());
        }
        pushed
    });
    sleep(Duration::from_millis(stop)).await;
    let began = Instant::now();
    group.cancel();
    let error = group.wait().await.err();
    assert!(began.elapsed() <= 4 * SECOND, "{:?}", began.elapsed());
    let pushed = pushing.await.unwrap();
    let left = leftovers.take();
    let ids: HashSet<_> = left.iter().map(|item| item.item().unwrap().0).collect();
    assert_eq!(ids.len(), left.len(), "handed back once");
    drop(stored);
    if let Ok(report) = parsed.await {
        assert_eq!(report.taken_in(), pushed);
        let ended = report.done() + report.failed() + report.panicked();
        assert_eq!(ended + report.handed_back(), pushed, "{report}");
        assert_eq!(report.handed_back(), left.len());
    } else {
        assert!(error.is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_item_of_a_chain_has_exactly_one_end(
        lines in prop::collection::vec(prop::collection::vec(0..64u32, 0..4), 0..12),
        limits in [1..4usize, 1..4usize],
        sizes in [1..4usize, 1..4usize],
        stop in 0..4000u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(lines, limits, sizes, stop));
    }
}
