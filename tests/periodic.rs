//! Periodic tasks: ticks, errors, and the end.

use std::error::Error as _;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, any, prop_oneof, proptest};
use taskgroup::supervise::{Backoff, Periodic, PeriodicError, Tick};
use taskgroup::{BoxError, CancellationToken, Cancelled, End, TaskGroup};
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_secs(10);

fn failing() -> Result<(), BoxError> {
    Err("no route to host".into())
}

/// When runs began, in seconds, and whether they were the last one.
#[derive(Clone)]
struct Starts {
    began: Instant,
    starts: Arc<Mutex<Vec<u64>>>,
}

impl Starts {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            starts: Arc::default(),
        }
    }

    fn now(&self) -> u64 {
        // The timers of Tokio are late by up to a millisecond.
        (self.began.elapsed() + Duration::from_millis(500)).as_secs()
    }

    /// Notes a run, and returns its number from 0.
    fn note(&self) -> usize {
        let mut starts = self.starts.lock().unwrap();
        starts.push(self.now());
        starts.len() - 1
    }

    fn seconds(&self) -> Vec<u64> {
        self.starts.lock().unwrap().clone()
    }
}

/// When runs that take so many seconds each begin, within 60 s.
async fn starts(periodic: Periodic, takes: &'static [u64]) -> Vec<u64> {
    let starts = Starts::new();
    let notes = starts.clone();
    let token = CancellationToken::new();
    let run = periodic.run(&token, |_tick| {
        let takes = takes.get(notes.note()).copied().unwrap_or(0);
        async move { Ok(sleep(Duration::from_secs(takes)).await) }
    });
    let ended = timeout(Duration::from_millis(59_999), run.unwrap()).await;
    assert!(ended.is_err());
    starts.seconds()
}

#[tokio::test(start_paused = true)]
async fn it_runs_at_once_and_then_every_period() {
    let at_once = starts(Periodic::new("refresh", PERIOD), &[3, 9]).await;
    assert_eq!(at_once, [0, 10, 20, 30, 40, 50]);
    let later = Periodic::new("refresh", PERIOD).first_after_a_period();
    assert_eq!(starts(later, &[3, 9]).await, [10, 20, 30, 40, 50]);
}

#[tokio::test(start_paused = true)]
async fn ticks_that_were_missed_are_skipped_or_caught_up_with_or_delayed() {
    let missed = |missed| starts(Periodic::new("refresh", PERIOD).missed(missed), &[24]);
    let skipped = starts(Periodic::new("refresh", PERIOD), &[24]).await;
    assert_eq!(skipped, [0, 24, 30, 40, 50]);
    assert_eq!(missed(MissedTickBehavior::Skip).await, skipped);
    assert_eq!(
        missed(MissedTickBehavior::Burst).await,
        [0, 24, 24, 30, 40, 50]
    );
    assert_eq!(missed(MissedTickBehavior::Delay).await, [0, 24, 34, 44, 54]);
}

/// When runs begin of which these fail, within 60 s.
async fn starts_with_errors(periodic: Periodic, failures: &'static [usize]) -> Vec<u64> {
    let starts = Starts::new();
    let notes = starts.clone();
    let token = CancellationToken::new();
    let run = periodic.run(&token, |_tick| {
        let run = notes.note();
        async move {
            if failures.contains(&run) {
                failing()
            } else {
                Ok(())
            }
        }
    });
    let ended = timeout(Duration::from_millis(59_999), run.unwrap()).await;
    assert!(ended.is_err());
    starts.seconds()
}

#[tokio::test(start_paused = true)]
async fn an_error_keeps_the_period_unless_there_is_a_backoff_that_a_success_resets() {
    let periodic = Periodic::new("refresh", PERIOD);
    let plain = starts_with_errors(periodic.clone(), &[0, 1, 2]).await;
    assert_eq!(plain, [0, 10, 20, 30, 40, 50]);

    let soon = Backoff::new(SECOND, 4 * SECOND).no_jitter();
    let periodic = periodic.backoff(soon);
    let soon = starts_with_errors(periodic.clone(), &[0, 1, 2, 3, 5]).await;
    assert_eq!(soon, [0, 1, 3, 7, 11, 21, 22, 32, 42, 52]);

    let late = Backoff::new(15 * SECOND, 20 * SECOND).no_jitter();
    let late = starts_with_errors(periodic.backoff(late), &[0, 1]).await;
    assert_eq!(late, [0, 15, 35, 45, 55]);
}

#[tokio::test(start_paused = true)]
async fn it_fails_after_so_many_errors_in_a_row() {
    let starts = Starts::new();
    let notes = starts.clone();
    let mut group = TaskGroup::new();
    let run = Periodic::new("refresh", PERIOD)
        .fail_after(3)
        .last_run(SECOND)
        .run(group.token(), move |tick| {
            assert!(!tick.is_last());
            let run = notes.note();
            async move { if run == 1 { Ok(()) } else { failing() } }
        });
    group.task("refresh").spawn(run.unwrap());

    let error = group.wait().await.unwrap_err().into_error().unwrap();
    let error = error.downcast_ref::<PeriodicError>().unwrap();
    assert_eq!(starts.seconds(), [0, 10, 20, 30, 40]);
    assert_eq!(
        format!("{error:#}"),
        "periodic task `refresh` failed 3 times in a row: no route to host"
    );
    assert_eq!(error.source().unwrap().to_string(), "no route to host");
    assert_eq!(error.end(), End::Failed);
    assert!(!error.is_of_the_last_run());
    assert_eq!(error.name(), "refresh");
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_it_as_a_failure_of_the_task() {
    let mut group = TaskGroup::new();
    let run = Periodic::new("refresh", PERIOD)
        .last_run(SECOND)
        .run(group.token(), |_tick| async {
            std::panic::resume_unwind(Box::new("boom"))
        });
    group.task("refresh").spawn(run.unwrap());
    let error = group.wait().await.unwrap_err();
    assert_eq!(error.end(), End::Panicked);
    assert_eq!(error.name(), Some("refresh"));
}

/// Runs it until the token fires after this time; says how it ended and how long that took.
async fn stop<F, W>(periodic: Periodic, after: Duration, run: F) -> (Option<String>, Duration)
where
    F: FnMut(Tick) -> W,
    W: Future<Output = Result<(), BoxError>>,
{
    let token = CancellationToken::new();
    let run = periodic.run(&token, run).unwrap();
    let mut run = std::pin::pin!(run);
    assert!(timeout(after, run.as_mut()).await.is_err());
    let fired = Instant::now();
    token.cancel();
    let ended = run.await.err().map(|error| format!("{error:#}"));
    (ended, fired.elapsed())
}

#[tokio::test(start_paused = true)]
async fn it_stops_at_once_between_runs_in_a_backoff_and_before_the_first_run() {
    let periodic = Periodic::new("refresh", 10 * PERIOD);
    let at_once = (None, Duration::ZERO);
    assert_eq!(
        stop(periodic.clone(), SECOND, |_tick| async { Ok(()) }).await,
        at_once
    );
    let waiting = periodic.clone().first_after_a_period();
    assert_eq!(
        stop(waiting, SECOND, |_tick| async { unreachable!() }).await,
        at_once
    );
    let backing_off = periodic.backoff(Backoff::new(Duration::MAX, Duration::MAX));
    assert_eq!(
        stop(backing_off, SECOND, |_tick| async { failing() }).await,
        at_once
    );
}

#[tokio::test(start_paused = true)]
async fn with_a_token_that_has_fired_nothing_runs_but_the_last_run() {
    let token = CancellationToken::new();
    token.cancel();
    let never = Periodic::new("refresh", PERIOD).run(&token, |_tick| async { unreachable!() });
    never.unwrap().await.unwrap();

    let starts = Starts::new();
    let once = Periodic::new("flush", PERIOD).last_run(SECOND);
    let once = once.run(&token, |tick| {
        assert!(tick.is_last());
        starts.note();
        async { Ok(()) }
    });
    once.unwrap().await.unwrap();
    assert_eq!(starts.seconds(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_run_under_way_sees_the_token_and_has_the_grace_to_end() {
    let periodic = Periodic::new("refresh", PERIOD).grace(3 * SECOND);
    let told = stop(periodic.clone(), SECOND, |tick| async move {
        tick.token().cancelled().await;
        Ok(sleep(2 * SECOND).await)
    });
    assert_eq!(told.await, (None, 2 * SECOND));

    let cancelled = stop(periodic.clone().fail_after(1), SECOND, |tick| async move {
        tick.token().cancelled().await;
        Err(Cancelled.into())
    });
    assert_eq!(cancelled.await, (None, Duration::ZERO));

    let deaf = stop(periodic, SECOND, |_tick| pending()).await;
    let message = "periodic task `refresh` did not end its run within 3s and was dropped";
    assert_eq!(deaf, (Some(message.to_owned()), 3 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn the_last_run_has_a_fresh_token_and_a_deadline_of_its_own() {
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let periodic = Periodic::new("flush", PERIOD).last_run(5 * SECOND);
    let well = stop(periodic.clone(), SECOND, |tick| {
        if tick.is_last() {
            assert!(!tick.token().is_cancelled());
            tokens.lock().unwrap().push(tick.token().clone());
        }
        async move {
            if tick.is_last() {
                sleep(4 * SECOND).await;
            }
            Ok(())
        }
    });
    assert_eq!(well.await, (None, 4 * SECOND));
    // It is over, and the holder of the token hears of it.
    assert!(tokens.lock().unwrap()[0].is_cancelled());

    let late = stop(periodic.clone(), SECOND, |tick| async move {
        if tick.is_last() {
            pending().await
        } else {
            Ok(())
        }
    });
    let message = "periodic task `flush` did not end its last run within 5s and was dropped";
    assert_eq!(late.await, (Some(message.to_owned()), 5 * SECOND));

    let failed = stop(periodic.clone(), SECOND, |tick| async move {
        if tick.is_last() { failing() } else { Ok(()) }
    });
    let message = "periodic task `flush` failed in its last run: no route to host";
    assert_eq!(failed.await, (Some(message.to_owned()), Duration::ZERO));

    // After a run that had to be dropped, too.
    let starts = Starts::new();
    let dropped = stop(periodic.grace(3 * SECOND), SECOND, |tick| {
        starts.note();
        async move {
            if tick.is_last() {
                Ok(())
            } else {
                pending().await
            }
        }
    });
    let message = "periodic task `flush` did not end its run within 3s and was dropped";
    assert_eq!(dropped.await, (Some(message.to_owned()), 3 * SECOND));
    assert_eq!(starts.seconds(), [0, 4]);
}

#[tokio::test]
async fn options_that_make_no_periodic_task_are_refused_by_name() {
    let token = CancellationToken::new();
    let refused = |periodic: Periodic| {
        let run = periodic.run(&token, |_tick| async { Ok(()) });
        run.err().unwrap()
    };
    let flush = || Periodic::new("flush", PERIOD);
    for (periodic, option, message) in [
        (
            Periodic::new("", PERIOD),
            "name",
            "a periodic task: `name` cannot be empty: no message could name it",
        ),
        (
            Periodic::new("flush", Duration::ZERO),
            "period",
            "periodic task `flush`: `period` cannot be 0s: it would never rest",
        ),
        (
            flush().fail_after(0),
            "fail_after",
            "periodic task `flush`: `fail_after` cannot be 0: it would fail before it starts",
        ),
        (
            flush().last_run(Duration::ZERO),
            "last_run",
            "periodic task `flush`: `last_run` cannot be 0s: it could do nothing",
        ),
        (
            flush().backoff(Backoff::default().factor(0)),
            "factor",
            "periodic task `flush`: `factor` cannot be 0: all waits but the first would be 0s",
        ),
    ] {
        let error = refused(periodic);
        assert_eq!(error.option(), option);
        assert_eq!(format!("{error:#}"), message);
    }
}

#[test]
fn everything_can_be_sent_and_shared() {
    fn is<T: Send + Sync>() {}
    is::<(Periodic, Tick, PeriodicError)>();
    fn send(_: impl Send) {}
    let token = CancellationToken::new();
    let run = Periodic::new("flush", PERIOD);
    send(run.run(&token, |_tick| async { Ok(()) }));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2048,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn runs_never_overlap_and_none_begins_after_the_token_but_the_last(
        runs in vec((0u64..3000, any::<bool>()), 0..20),
        missed in prop_oneof![
            Just(MissedTickBehavior::Skip),
            Just(MissedTickBehavior::Burst),
            Just(MissedTickBehavior::Delay),
        ],
        backs_off in any::<bool>(),
        has_last_run in any::<bool>(),
        cancel in 0u64..20_000,
    ) {
        let mut periodic = Periodic::new("random", SECOND).missed(missed).grace(SECOND);
        if backs_off {
            periodic = periodic.backoff(Backoff::new(SECOND / 10, 2 * SECOND));
        }
        if has_last_run {
            periodic = periodic.last_run(SECOND);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(random_runs(periodic, runs, Duration::from_millis(cancel), has_last_run));
    }
}

async fn random_runs(
    periodic: Periodic,
    runs: Vec<(u64, bool)>,
    cancel: Duration,
    has_last_run: bool,
) {
    struct Alive<'a>(&'a Mutex<bool>);

    impl Drop for Alive<'_> {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = false;
        }
    }

    let token = CancellationToken::new();
    let (alive, lasts) = (Mutex::new(false), Mutex::new(0));
    let mut runs = runs.into_iter();
    let run = periodic.run(&token, |tick| {
        assert!(
            !std::mem::replace(&mut *alive.lock().unwrap(), true),
            "two at once"
        );
        assert_eq!(tick.is_last(), token.is_cancelled());
        *lasts.lock().unwrap() += u32::from(tick.is_last());
        let alive = Alive(&alive);
        let (ms, ends_well) = runs.next().unwrap_or((0, true));
        async move {
            let _alive = alive;
            sleep(Duration::from_millis(ms)).await;
            if ends_well { Ok(()) } else { failing() }
        }
    });
    let mut run = std::pin::pin!(run.unwrap());
    assert!(timeout(cancel, run.as_mut()).await.is_err());
    let fired = Instant::now();
    token.cancel();
    let ended = run.await;
    let most = if has_last_run { 2 * SECOND } else { SECOND };
    assert!(fired.elapsed() <= most + Duration::from_millis(10));
    assert!(!*alive.lock().unwrap());
    assert_eq!(*lasts.lock().unwrap(), u32::from(has_last_run));
    assert!(ended.is_ok() || fired.elapsed() >= SECOND || has_last_run);
}

#[tokio::test(start_paused = true)]
async fn it_runs_in_a_closure_that_is_given_a_group_and_a_token() {
    /// As a part of something larger is run.
    async fn hand_out<F, W>(group: TaskGroup, start: F) -> Result<(), BoxError>
    where
        F: FnOnce(TaskGroup, CancellationToken) -> W + Send + 'static,
        W: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let token = group.token().clone();
        tokio::spawn(start(group, token)).await?
    }

    let starts = Starts::new();
    let mut parent = TaskGroup::new();
    let token = parent.token().clone();
    tokio::spawn(async move {
        sleep(2 * PERIOD + SECOND).await;
        token.cancel();
    });
    let noted = starts.clone();
    let refresh = Periodic::new("refresh", PERIOD);
    hand_out(parent.child("orders"), async move |_group, token| {
        let run = refresh.run(&token, |_tick| {
            noted.note();
            async { Ok(()) }
        });
        Ok(run?.await?)
    })
    .await
    .unwrap();
    parent.wait().await.unwrap();
    assert_eq!(starts.seconds(), [0, 10, 20]);
}
