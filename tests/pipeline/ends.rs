//! The ends of an item: done, failed, panicked, handed back.

use std::time::Duration;

use taskgroup::pipeline::{Job, JobError, OnFailure, Reason, Workers};
use taskgroup::supervise::Backoff;
use taskgroup::{End, TaskGroup};
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, Seen, failed};

#[tokio::test(start_paused = true)]
async fn an_item_is_done_when_its_handler_returned_ok() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let handled = seen.clone();
    let (pusher, pool) = Workers::new("mail", move |job: Job<u32>| {
        let handled = handled.clone();
        async move { Ok(handled.push(*job)) }
    })
    .queue(10)
    .unwrap();
    let report = pool.spawn(&group);
    for item in 1..=5 {
        pusher.push(item).await.unwrap();
    }
    drop(pusher);
    let report = report.await.unwrap();
    assert_eq!(report.to_string(), "5 done");
    assert_eq!(
        (report.taken_in(), report.begun(), report.attempts()),
        (5, 5, 5)
    );
    assert_eq!(seen.all(), [1, 2, 3, 4, 5]);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_one_of_the_group_and_the_rest_is_handed_back() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::new("ports", |job: Job<&str>| async move {
        job.parse::<u16>()?;
        Ok(())
    })
    .queue(10)
    .unwrap();
    let leftovers = pool.leftovers();
    pusher.push("80").await.unwrap();
    pusher.push("http").await.unwrap();
    pusher.push("443").await.unwrap();
    pool.spawn(&group);
    let (report, message) = failed(&mut group).await;
    assert_eq!(
        message,
        "pipeline `ports`: 1 done, 1 failed, 1 handed back (1 never begun): an item failed: invalid digit found in string"
    );
    assert_eq!(report.never_begun(), 1);
    assert_eq!(leftovers.take()[0].item(), Some(&"443"));
    assert!(pusher.push("22").await.is_err());
}

/// The pool finishes what is under way, which takes a minute, but the others of the group hear of the failure at once.
#[tokio::test(start_paused = true)]
async fn a_failure_cancels_the_groups_above_when_it_happens() {
    let mut group = TaskGroup::new();
    let mut below = group.child("below");
    let (pusher, pool) = Workers::new("mail", |job: Job<u32>| async move {
        sleep(*job * SECOND).await;
        Err(JobError::failed("bad"))
    })
    .limit(2)
    .grace(100 * SECOND)
    .queue(10)
    .unwrap();
    let began = Instant::now();
    pool.spawn(&below);
    pusher.push(1).await.unwrap();
    pusher.push(60).await.unwrap();
    let token = group.token().clone();
    let told = group.spawn(async move {
        token.cancelled().await;
        Ok(began.elapsed().as_secs())
    });
    assert_eq!(told.await.unwrap(), 1);
    let cause = group.cause().unwrap().to_string();
    assert!(cause.contains("an item failed: bad"), "{cause}");
    let (report, _) = failed(&mut below).await;
    assert_eq!((report.failed(), began.elapsed().as_secs()), (2, 60));
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn poison_is_counted_and_the_others_go_on() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::new("mail", |job: Job<u32>| async move {
        match *job % 3 {
            0 => panic!("poison"),
            1 => Err(JobError::failed("bad")),
            _ => Ok(()),
        }
    })
    .limit(2)
    .on_failure(OnFailure::Count)
    .queue(100)
    .unwrap();
    let report = pool.spawn(&group);
    for item in 0..30 {
        pusher.push(item).await.unwrap();
    }
    drop(pusher);
    assert_eq!(
        report.await.unwrap().to_string(),
        "10 done, 10 failed, 10 panicked"
    );
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_panic_when_the_handler_is_called_and_one_when_its_future_is_dropped_count_too() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::new("mail", |job: Job<u32>| {
        if *job == 1 {
            panic!("before there is a future");
        }
        let bomb = Bomb;
        async move {
            let _bomb = &bomb;
            std::future::ready(()).await;
            drop(job);
            Ok(())
        }
    })
    .on_failure(OnFailure::Count)
    .queue(10)
    .unwrap();
    let report = pool.spawn(&group);
    pusher.push(1).await.unwrap();
    pusher.push(2).await.unwrap();
    drop(pusher);
    assert_eq!(report.await.unwrap().to_string(), "2 panicked");
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_item_is_tried_so_often_and_then_goes_to_the_dead_letters() {
    let mut group = TaskGroup::new();
    let tried = Seen::default();
    let dead = Seen::default();
    let (attempts, letters) = (tried.clone(), dead.clone());
    let began = Instant::now();
    let (pusher, pool) = Workers::new("mail", move |job: Job<&str>| {
        attempts.push((*job, job.attempt(), began.elapsed()));
        async move { Err(JobError::failed("no route")) }
    })
    .retry(Backoff::new(SECOND, 10 * SECOND).no_jitter(), 3)
    .dead_letter(move |job: Job<&str>| {
        letters.push((*job, job.last_error().unwrap().to_string(), job.attempt()));
        async { Ok(()) }
    })
    .queue(10)
    .unwrap();
    let report = pool.spawn(&group);
    pusher.push("ann").await.unwrap();
    drop(pusher);
    let report = report.await.unwrap();
    assert_eq!(report.to_string(), "1 failed");
    assert_eq!((report.attempts(), report.dead_letters()), (3, 1));
    assert!(report.is_clean());
    assert_eq!(
        tried.all(),
        [
            ("ann", 1, Duration::ZERO),
            ("ann", 2, SECOND),
            ("ann", 3, 3 * SECOND)
        ]
    );
    assert_eq!(dead.all(), [("ann", "no route".to_owned(), 4)]);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_skips_the_attempts_that_are_left() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::new("mail", |_: Job<u32>| async {
        Err(JobError::permanent("no address"))
    })
    .retry(Backoff::default(), 100)
    .on_failure(OnFailure::Count)
    .queue(10)
    .unwrap();
    let report = pool.spawn(&group);
    pusher.push(1).await.unwrap();
    drop(pusher);
    let report = report.await.unwrap();
    assert_eq!((report.attempts(), report.failed()), (1, 1));
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn items_in_backoff_take_no_worker_until_too_many_wait() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let handled = seen.clone();
    let (pusher, pool) = Workers::new("mail", move |job: Job<u32>| {
        let first = job.attempt() == 1;
        handled.push((*job, job.attempt()));
        async move {
            match first && *job == 0 {
                true => Err(JobError::failed("later")),
                false => Ok(()),
            }
        }
    })
    .retry(Backoff::new(SECOND, SECOND), 2)
    .queue(10)
    .unwrap();
    let report = pool.spawn(&group);
    for item in 0..3 {
        pusher.push(item).await.unwrap();
    }
    drop(pusher);
    assert_eq!(report.await.unwrap().done(), 3);
    assert_eq!(seen.all(), [(0, 1), (1, 1), (2, 1), (0, 2)]);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_of_failures_does_not_lock_itself_out() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::new("mail", |job: Job<u32>| async move {
        match job.attempt() {
            3 => Ok(()),
            _ => Err(JobError::failed("later")),
        }
    })
    .limit(2)
    .retry(Backoff::new(SECOND, SECOND), 3)
    .queue(1)
    .unwrap();
    let report = pool.spawn(&group);
    for item in 0..50 {
        pusher.push(item).await.unwrap();
    }
    drop(pusher);
    let report = report.await.unwrap();
    assert_eq!((report.done(), report.attempts()), (50, 150));
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_item_whose_dead_letter_fails_panics_or_is_late_is_handed_back() {
    for how in ["fails", "panics", "is late"] {
        let mut group = TaskGroup::new();
        let (pusher, pool) = Workers::new("mail", |_: Job<&str>| async {
            Err(JobError::failed("no route"))
        })
        .dead_letter(move |job: Job<&str>| async move {
            let _job = job;
            match how {
                "fails" => Err("the dead letters are full".into()),
                "panics" => panic!("the dead letters are gone"),
                _ => Ok(std::future::pending().await),
            }
        })
        .queue(10)
        .unwrap();
        let leftovers = pool.leftovers();
        pool.spawn(&group);
        pusher.push(how).await.unwrap();
        crate::support::settle().await;
        group.cancel();
        let (report, message) = failed(&mut group).await;
        assert_eq!(report.dead_letters_failed(), 1, "{how}");
        assert_eq!(report.failed(), 0);
        let left = leftovers.take();
        assert_eq!(left[0].item(), Some(&how), "{message}");
        assert_eq!(left[0].reason(), Reason::NoDeadLetter);
        assert_eq!(left[0].failed_attempts(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_hands_back_at_once_and_it_costs_no_attempt() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let back = seen.clone();
    let (pusher, pool) = Workers::new("mail", |job: Job<u32>| async move {
        match *job {
            1 => Err(JobError::hand_back("not mine")),
            2 => Ok(job.hand_back("nor this")),
            _ => Ok(()),
        }
    })
    .retry(Backoff::default(), 3)
    .hand_back(move |items| {
        for item in items {
            let error = item.last_error().unwrap().to_string();
            back.push((item.reason(), item.failed_attempts(), error));
        }
        async { Ok(()) }
    })
    .queue(10)
    .unwrap();
    let report = pool.spawn(&group);
    for item in 0..3 {
        pusher.push(item).await.unwrap();
    }
    crate::support::settle().await;
    let asked = |why: &str| (Reason::Asked, 0, why.to_owned());
    assert_eq!(seen.all(), [asked("not mine"), asked("nor this")]);
    drop(pusher);
    let report = report.await.unwrap();
    assert_eq!((report.done(), report.handed_back()), (1, 2));
    assert!(report.is_clean());
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_has_no_dead_letter_or_no_item_is_handed_back_at_once() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let back = seen.clone();
    let (pusher, pool) = Workers::new("mail", |mut job: Job<u32>| async move {
        if *job == 1 {
            job.take();
        }
        Err(JobError::permanent("no"))
    })
    .dead_letter(|_| async { Err("the dead letters are full".into()) })
    .hand_back(move |items| {
        for item in items {
            back.push(item.reason());
        }
        async { Ok(()) }
    })
    .queue(10)
    .unwrap();
    let _report = pool.spawn(&group);
    pusher.push(0).await.unwrap();
    pusher.push(1).await.unwrap();
    crate::support::settle().await;
    assert_eq!(seen.all(), [Reason::NoDeadLetter, Reason::Taken]);
    group.cancel();
    let (report, _) = failed(&mut group).await;
    assert_eq!((report.dead_letters_failed(), report.handed_back()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_told_its_end_has_that_one() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::new("mail", |job: Job<u32>| async move {
        match *job {
            0 => job.done(),
            _ => job.fail(std::io::Error::other("no")),
        }
        Err(JobError::failed("too late to matter"))
    })
    .on_failure(OnFailure::Count)
    .queue(10)
    .unwrap();
    let report = pool.spawn(&group);
    pusher.push(0).await.unwrap();
    pusher.push(1).await.unwrap();
    drop(pusher);
    assert_eq!(report.await.unwrap().to_string(), "1 done, 1 failed");
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_item_that_was_taken_cannot_be_tried_again() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::new("mail", |mut job: Job<u32>| async move {
        let item = job.take();
        assert_eq!(job.take(), None);
        match item {
            Some(0) => Ok(()),
            _ => Err(JobError::failed("it is gone")),
        }
    })
    .retry(Backoff::default(), 5)
    .queue(10)
    .unwrap();
    let leftovers = pool.leftovers();
    let report = pool.spawn(&group);
    pusher.push(0).await.unwrap();
    pusher.push(1).await.unwrap();
    drop(pusher);
    let report = report.await.unwrap();
    assert_eq!(
        (report.done(), report.handed_back(), report.attempts()),
        (1, 1, 2)
    );
    let left = leftovers.take();
    assert_eq!((left[0].item(), left[0].reason()), (None, Reason::Taken));
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_error_says_how_the_pool_ended() {
    let mut group = TaskGroup::new();
    let (pusher, pool) = Workers::new("mail", |_: Job<u32>| async { panic!("no table") })
        .queue(1)
        .unwrap();
    pool.spawn(&group);
    pusher.push(1).await.unwrap();
    let error = group.wait().await.unwrap_err().into_error().unwrap();
    let error: &taskgroup::pipeline::PipelineError = error.downcast_ref().unwrap();
    assert_eq!(error.end(), End::Panicked);
    assert_eq!(error.pipeline(), "mail");
    assert_eq!(
        format!("{error:#}"),
        "pipeline `mail`: 1 panicked: an item panicked: no table"
    );
}
