//! Supervisors: restarts, strategies, intensity, and the end.

use std::error::Error as _;
use std::future::pending;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, ProptestConfig, prop_oneof, proptest};
use proptest::strategy::Strategy as Any;
use taskgroup::group::Panic;
use taskgroup::supervise::{Backoff, Periodic, Strategy, Supervisor, SupervisorError};
use taskgroup::{
    BoxError, CancellationToken, Cancelled, Cause, End, Sidecar, TaskError, TaskGroup,
};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// What happened, and when: `1.5 start a`.
#[derive(Clone)]
struct Diary {
    began: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Diary {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            lines: Arc::default(),
        }
    }

    fn note(&self, what: impl std::fmt::Display) {
        // The timers of Tokio are late by up to a millisecond.
        let tenths = (self.began.elapsed().as_millis() + 50) / 100;
        let line = format!("{}.{} {what}", tenths / 10, tenths % 10);
        self.lines.lock().unwrap().push(line);
    }

    /// Notes the beginning now, and the end when it is dropped.
    fn run(&self, name: &'static str) -> Entry {
        self.note(format_args!("start {name}"));
        Entry(self.clone(), name)
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

struct Entry(Diary, &'static str);

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.note(format_args!("end {}", self.1));
    }
}

/// Waits of 1 s, 2 s, 4 s, 8 s, 8 s, …
fn exact() -> Backoff {
    Backoff::new(SECOND, 8 * SECOND).no_jitter()
}

fn failing(text: &'static str) -> Result<(), BoxError> {
    Err(text.into())
}

/// Adds a child that is noted, and runs until it is told to stop.
fn steady(supervisor: Supervisor, name: &'static str, diary: &Diary) -> Supervisor {
    let diary = diary.clone();
    supervisor.child(name, move |token| {
        let diary = diary.clone();
        async move {
            let _run = diary.run(name);
            Ok(token.cancelled().await)
        }
    })
}

/// Adds a child that is noted, and fails after a time.
fn failing_after(
    supervisor: Supervisor,
    name: &'static str,
    after: Duration,
    diary: &Diary,
) -> Supervisor {
    let diary = diary.clone();
    supervisor.child(name, move |token| {
        let diary = diary.clone();
        async move {
            let _run = diary.run(name);
            match timeout(after, token.cancelled()).await {
                Ok(()) => Ok(()),
                Err(_) => failing("disk full"),
            }
        }
    })
}

#[track_caller]
fn supervisor_error(error: TaskError) -> SupervisorError {
    *error.into_error().unwrap().downcast().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_child_is_restarted_after_an_error_and_after_a_panic_until_it_is_done() {
    let diary = Diary::new();
    let mut group = TaskGroup::new();
    let runs = Arc::new(Mutex::new(0));
    let notes = diary.clone();
    Supervisor::new("kafka")
        .backoff(exact())
        .child("consumer", move |_token| {
            let run = {
                let mut runs = runs.lock().unwrap();
                *runs += 1;
                *runs
            };
            let entry = notes.run("consumer");
            async move {
                let _entry = entry;
                match run {
                    1 => failing("the broker is gone"),
                    2 => resume_unwind(Box::new("boom")),
                    _ => Ok(()),
                }
            }
        })
        .spawn(&group)
        .unwrap();

    group.wait().await.unwrap();
    assert_eq!(
        diary.lines(),
        [
            "0.0 start consumer",
            "0.0 end consumer",
            "1.0 start consumer",
            "1.0 end consumer",
            "3.0 start consumer",
            "3.0 end consumer"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_the_first_await_is_a_failure_like_others() {
    let mut group = TaskGroup::new();
    Supervisor::new("kafka")
        .intensity(1, SECOND)
        .child("consumer", |_token| -> std::future::Ready<_> {
            resume_unwind(Box::new("boom"))
        })
        .spawn(&group)
        .unwrap();

    let error = supervisor_error(group.wait().await.unwrap_err());
    assert_eq!(
        format!("{error:#}"),
        "supervisor `kafka`: child `consumer` panicked after 1 restart within 1s: boom"
    );
    assert!(error.source().unwrap().is::<Panic>());
}

#[tokio::test(start_paused = true)]
async fn a_permanent_child_is_restarted_when_it_returns() {
    let mut group = TaskGroup::new();
    Supervisor::new("kafka")
        .intensity(2, 60 * SECOND)
        .permanent("consumer", |_token| async { Ok(()) })
        .spawn(&group)
        .unwrap();

    let error = supervisor_error(group.wait().await.unwrap_err());
    assert_eq!(error.end(), End::EndedEarly);
    assert_eq!(
        format!("{error:#}"),
        "supervisor `kafka`: child `consumer` is permanent and returned after 2 restarts within 60s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_permanent_child_may_return_when_it_is_told_to_stop() {
    let mut group = TaskGroup::new();
    Supervisor::new("kafka")
        .permanent(
            "consumer",
            |token| async move { Ok(token.cancelled().await) },
        )
        .spawn(&group)
        .unwrap();
    sleep(SECOND).await;
    group.cancel();
    group.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_backoff_grows_to_its_bound_and_starts_over_after_a_long_run() {
    let diary = Diary::new();
    let group = TaskGroup::new();
    let runs = Mutex::new(0);
    let notes = diary.clone();
    Supervisor::new("kafka")
        .backoff(exact())
        .intensity(usize::MAX, SECOND)
        .reset_after(30 * SECOND)
        .child("consumer", move |_token| {
            notes.note("start");
            let mut runs = runs.lock().unwrap();
            *runs += 1;
            let takes = if *runs == 6 { 30 } else { 0 };
            async move {
                sleep(takes * SECOND).await;
                failing("the broker is gone")
            }
        })
        .spawn(&group)
        .unwrap();

    sleep(57 * SECOND).await;
    assert_eq!(
        diary.lines(),
        [
            "0.0 start",
            "1.0 start",
            "3.0 start",
            "7.0 start",
            "15.0 start",
            "23.0 start",
            "54.0 start",
            "56.0 start"
        ]
    );
}

/// The times between the starts of a child that fails at once.
async fn waits(backoff: Backoff, count: usize) -> Vec<Duration> {
    let starts = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&starts);
    let mut group = TaskGroup::new();
    Supervisor::new("kafka")
        .backoff(backoff)
        .intensity(count, Duration::MAX)
        .child("consumer", move |_token| {
            seen.lock().unwrap().push(Instant::now());
            async { failing("the broker is gone") }
        })
        .spawn(&group)
        .unwrap();
    group.wait().await.unwrap_err();
    let starts = starts.lock().unwrap();
    starts.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn the_jitter_stays_within_its_bounds_and_a_seed_makes_it_exact() {
    let late = Duration::from_millis(2);
    let bounds = [1, 3, 9, 10, 10, 10].map(Duration::from_secs);
    let backoff = Backoff::new(SECOND, 10 * SECOND).factor(3);

    let equal = waits(backoff.clone().seed(7), bounds.len()).await;
    for (wait, bound) in equal.iter().zip(bounds) {
        assert!(
            (bound / 2..bound + late).contains(wait),
            "{wait:?} of {bound:?}"
        );
    }
    assert_eq!(equal, waits(backoff.clone().seed(7), bounds.len()).await);
    assert_ne!(equal, waits(backoff.clone().seed(8), bounds.len()).await);

    let full = waits(backoff.clone().full_jitter(), bounds.len()).await;
    for (wait, bound) in full.iter().zip(bounds) {
        assert!(*wait < bound + late, "{wait:?} of {bound:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backoff_of_zero_and_one_without_end_are_what_they_say() {
    let late = Duration::from_millis(2);
    let none = waits(Backoff::new(Duration::ZERO, SECOND), 40).await;
    assert!(none.iter().all(|wait| *wait < late), "{none:?}");
    let flat = waits(exact().factor(1), 40).await;
    assert!(
        flat.iter()
            .all(|wait| (SECOND..SECOND + late).contains(wait)),
        "{flat:?}"
    );
    let capped = waits(Backoff::new(9 * SECOND, SECOND).no_jitter(), 3).await;
    assert!(
        capped
            .iter()
            .all(|wait| (SECOND..SECOND + late).contains(wait)),
        "{capped:?}"
    );

    let mut group = TaskGroup::new();
    Supervisor::new("kafka")
        .backoff(Backoff::new(Duration::MAX, Duration::MAX))
        .child("consumer", |_token| async { failing("the broker is gone") })
        .spawn(&group)
        .unwrap();
    sleep(SECOND).await;
    group.cancel();
    group.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cancel_in_the_middle_of_a_backoff_ends_it_at_once() {
    let diary = Diary::new();
    let mut group = TaskGroup::new();
    failing_after(Supervisor::new("kafka"), "consumer", SECOND, &diary)
        .backoff(Backoff::new(3600 * SECOND, 3600 * SECOND))
        .spawn(&group)
        .unwrap();
    sleep(10 * SECOND).await;
    group.cancel();
    group.wait().await.unwrap();
    diary.note("over");
    assert_eq!(
        diary.lines(),
        ["0.0 start consumer", "1.0 end consumer", "10.0 over"]
    );
}

#[tokio::test(start_paused = true)]
async fn in_a_cancelled_group_nothing_is_started() {
    let diary = Diary::new();
    let mut group = TaskGroup::new();
    group.cancel();
    steady(Supervisor::new("kafka"), "consumer", &diary)
        .spawn(&group)
        .unwrap();
    group.wait().await.unwrap();
    assert_eq!(diary.lines(), [""; 0]);
}

/// Three children of which the middle one fails after a second, stopped after 2.5 s.
async fn one_failure(strategy: Strategy) -> Vec<String> {
    let diary = Diary::new();
    let mut group = TaskGroup::new();
    let supervisor = Supervisor::new("kafka").strategy(strategy).backoff(exact());
    let supervisor = steady(supervisor, "a", &diary);
    let supervisor = failing_after(supervisor, "b", SECOND, &diary);
    steady(supervisor, "c", &diary).spawn(&group).unwrap();
    sleep(SECOND * 5 / 2).await;
    diary.note("cancel");
    group.cancel();
    group.wait().await.unwrap();
    diary.lines()
}

#[tokio::test(start_paused = true)]
async fn one_for_one_restarts_the_one_that_failed() {
    assert_eq!(
        one_failure(Strategy::OneForOne).await,
        [
            "0.0 start a",
            "0.0 start b",
            "0.0 start c",
            "1.0 end b",
            "2.0 start b",
            "2.5 cancel",
            "2.5 end c",
            "2.5 end b",
            "2.5 end a"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn one_for_all_restarts_all_of_them() {
    assert_eq!(
        one_failure(Strategy::OneForAll).await,
        [
            "0.0 start a",
            "0.0 start b",
            "0.0 start c",
            "1.0 end b",
            "1.0 end c",
            "1.0 end a",
            "2.0 start a",
            "2.0 start b",
            "2.0 start c",
            "2.5 cancel",
            "2.5 end c",
            "2.5 end b",
            "2.5 end a"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn rest_for_one_restarts_those_after_it_too() {
    assert_eq!(
        one_failure(Strategy::RestForOne).await,
        [
            "0.0 start a",
            "0.0 start b",
            "0.0 start c",
            "1.0 end b",
            "1.0 end c",
            "2.0 start b",
            "2.0 start c",
            "2.5 cancel",
            "2.5 end c",
            "2.5 end b",
            "2.5 end a"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_done_is_not_started_for_a_sibling() {
    let diary = Diary::new();
    let mut group = TaskGroup::new();
    let notes = diary.clone();
    let supervisor = Supervisor::new("kafka")
        .strategy(Strategy::OneForAll)
        .backoff(exact())
        .child("migration", move |_token| {
            let run = notes.run("migration");
            async move { Ok(drop(run)) }
        });
    failing_after(supervisor, "b", SECOND, &diary)
        .spawn(&group)
        .unwrap();
    sleep(SECOND * 5 / 2).await;
    group.cancel();
    group.wait().await.unwrap();
    assert_eq!(
        diary.lines(),
        [
            "0.0 start migration",
            "0.0 end migration",
            "0.0 start b",
            "1.0 end b",
            "2.0 start b",
            "2.5 end b"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn too_many_restarts_stop_the_siblings_in_reverse_and_cancel_the_group() {
    let diary = Diary::new();
    let mut group = TaskGroup::builder().name("orders").build().unwrap();
    let supervisor = Supervisor::new("kafka")
        .intensity(1, 60 * SECOND)
        .backoff(exact());
    let supervisor = steady(supervisor, "a", &diary);
    let supervisor = steady(supervisor, "b", &diary);
    failing_after(supervisor, "c", SECOND, &diary)
        .spawn(&group)
        .unwrap();
    let (token, notes) = (group.token().clone(), diary.clone());
    group.spawn(async move {
        token.cancelled().await;
        notes.note("cancelled");
        Ok(())
    });

    let error = group.wait().await.unwrap_err();
    assert_eq!(error.name(), Some("orders/kafka"));
    assert!(matches!(error.cause(), Some(Cause::Failed(_))));
    assert_eq!(
        diary.lines(),
        [
            "0.0 start a",
            "0.0 start b",
            "0.0 start c",
            "1.0 end c",
            "2.0 start c",
            "3.0 end c",
            "3.0 end b",
            "3.0 end a",
            "3.0 cancelled"
        ]
    );
    let error = supervisor_error(error);
    assert!(error.is_escalated());
    assert_eq!((error.supervisor(), error.child()), ("kafka", "c"));
    assert_eq!(
        format!("{error:#}"),
        "supervisor `kafka`: child `c` failed after 1 restart within 60s: disk full"
    );
    assert_eq!(error.source().unwrap().to_string(), "disk full");
    assert_eq!(error.end(), End::Failed);
}

#[tokio::test(start_paused = true)]
async fn an_intensity_of_zero_escalates_the_first_failure() {
    let diary = Diary::new();
    let mut group = TaskGroup::new();
    failing_after(Supervisor::new("kafka"), "consumer", SECOND, &diary)
        .intensity(0, SECOND)
        .spawn(&group)
        .unwrap();
    let error = supervisor_error(group.wait().await.unwrap_err());
    assert!(error.is_escalated());
    assert_eq!(diary.lines(), ["0.0 start consumer", "1.0 end consumer"]);
}

#[tokio::test(start_paused = true)]
async fn restarts_that_have_left_the_window_do_not_count() {
    let diary = Diary::new();
    let mut group = TaskGroup::new();
    failing_after(Supervisor::new("kafka"), "consumer", 9 * SECOND, &diary)
        .intensity(1, 10 * SECOND)
        .backoff(exact().factor(1))
        .spawn(&group)
        .unwrap();
    sleep(1000 * SECOND).await;
    assert_eq!(group.cause(), None);
    group.cancel();
    group.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deaf_sibling_is_aborted_and_gone_before_anything_is_started() {
    let diary = Diary::new();
    let mut group = TaskGroup::new();
    let supervisor = Supervisor::new("kafka")
        .strategy(Strategy::OneForAll)
        .grace(3 * SECOND)
        .backoff(exact());
    let supervisor = failing_after(supervisor, "a", SECOND, &diary);
    let notes = diary.clone();
    supervisor
        .child("deaf", move |_token| {
            let run = notes.run("deaf");
            async move {
                let _run = run;
                pending().await
            }
        })
        .spawn(&group)
        .unwrap();
    sleep(SECOND * 9 / 2).await;
    group.cancel();
    let error = supervisor_error(group.wait().await.unwrap_err());
    assert_eq!(
        diary.lines(),
        [
            "0.0 start a",
            "0.0 start deaf",
            "1.0 end a",
            "4.0 end deaf",
            "4.0 start a",
            "4.0 start deaf",
            "5.0 end a",
            "7.5 end deaf"
        ]
    );
    assert_eq!(error.forced().collect::<Vec<_>>(), ["deaf"]);
    assert_eq!((error.child(), error.is_escalated()), ("a", false));
    assert_eq!(
        format!("{error:#}"),
        "supervisor `kafka`: child `deaf` did not stop within 3s and was aborted; \
         child `a` failed while stopping: disk full"
    );
}

/// What the group says when a child that was told to stop ends like this.
async fn stopping<W>(work: fn(CancellationToken) -> W) -> Result<(), String>
where
    W: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let mut group = TaskGroup::new();
    Supervisor::new("kafka")
        .child("consumer", work)
        .spawn(&group)
        .unwrap();
    sleep(SECOND).await;
    group.cancel();
    let waited = group.wait().await;
    waited.map_err(|error| format!("{:#}", supervisor_error(error)))
}

#[tokio::test(start_paused = true)]
async fn what_a_child_returns_at_the_end_is_not_lost() {
    let cancelled = stopping(|token| async move {
        token.cancelled().await;
        Err(Cancelled.into())
    });
    assert_eq!(cancelled.await, Ok(()));

    let failed = stopping(|token| async move {
        token.cancelled().await;
        failing("disk full")
    });
    let message = "supervisor `kafka`: child `consumer` failed while stopping: disk full";
    assert_eq!(failed.await, Err(message.to_owned()));

    let panicked = stopping(|token| async move {
        token.cancelled().await;
        resume_unwind(Box::new("boom"))
    });
    let message = "supervisor `kafka`: child `consumer` panicked while stopping: boom";
    assert_eq!(panicked.await, Err(message.to_owned()));

    let deaf = stopping(|_token| pending());
    let message = "supervisor `kafka`: child `consumer` did not stop within 5s and was aborted";
    assert_eq!(deaf.await, Err(message.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_the_moment_of_the_cancel_asks_for_no_restart() {
    let mut group = TaskGroup::new();
    let spawner = group.spawner();
    Supervisor::new("kafka")
        .intensity(0, SECOND)
        .child("consumer", move |_token| {
            let spawner = spawner.clone();
            async move {
                sleep(SECOND).await;
                spawner.cancel();
                failing("disk full")
            }
        })
        .spawn(&group)
        .unwrap();
    let error = supervisor_error(group.wait().await.unwrap_err());
    assert!(!error.is_escalated());
    assert_eq!(
        format!("{error:#}"),
        "supervisor `kafka`: child `consumer` failed while stopping: disk full"
    );
}

/// What the group says of a child that blocks its thread, after a cancel or for its sibling.
async fn blocked(sibling_fails: bool) -> SupervisorError {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
    let released = Mutex::new(released);
    let fail = Arc::new(Notify::new());
    let failure = Arc::clone(&fail);
    let mut group = TaskGroup::new();
    let supervisor = Supervisor::new("kafka")
        .strategy(Strategy::OneForAll)
        .grace(Duration::ZERO)
        .child("sibling", move |token| {
            let failure = Arc::clone(&failure);
            async move {
                match token.run_until_cancelled(failure.notified()).await {
                    Some(()) => failing("disk full"),
                    None => Ok(()),
                }
            }
        })
        .child("blocked", move |_token| {
            started.send(()).unwrap();
            let _ = released.lock().unwrap().recv();
            async { Ok(()) }
        })
        .spawn(&group)
        .unwrap();
    starts.recv().await.unwrap();
    if sibling_fails {
        fail.notify_one();
    } else {
        group.cancel();
    }
    supervisor.await.unwrap_err();
    let running = group.running();
    let names: Vec<_> = running.iter().map(|task| task.name()).collect();
    assert_eq!(names, [Some("kafka/blocked")]);

    release.send(()).unwrap();
    let error = supervisor_error(group.wait().await.unwrap_err());
    assert_eq!(error.still_running().collect::<Vec<_>>(), ["blocked"]);
    assert_eq!(error.child(), "blocked");
    error
}

/// The one test here that takes a second: a thread that is blocked cannot wait for a paused clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_started_beside_a_child_that_blocks_its_thread_and_it_is_named() {
    let (failed, cancelled) = tokio::join!(blocked(true), blocked(false));
    assert_eq!(
        format!("{failed:#}"),
        "supervisor `kafka`: child `blocked` did not stop within 0s \
         and is still running 1s after its abort"
    );
    // A grace of zero is for nobody.
    assert_eq!(
        cancelled.to_string(),
        "supervisor `kafka`: child `sibling` did not stop within 0s and was aborted; \
         child `blocked` did not stop within 0s and is still running 1s after its abort"
    );
}

#[tokio::test(start_paused = true)]
async fn running_names_the_supervisor_and_its_children_with_their_places() {
    let diary = Diary::new();
    let group = TaskGroup::builder().name("orders").build().unwrap();
    let line = line!() + 2;
    steady(Supervisor::new("kafka"), "a", &diary)
        .child("b", |token| async move { Ok(token.cancelled().await) })
        .spawn(&group)
        .unwrap();
    sleep(SECOND).await;

    let running = group.running();
    let names: Vec<_> = running.iter().filter_map(|task| task.name()).collect();
    assert_eq!(names, ["orders/kafka", "orders/kafka/a", "orders/kafka/b"]);
    for task in &running {
        assert!(task.place().file().ends_with("tests/supervise.rs"));
    }
    assert_eq!(running.iter().last().unwrap().place().line(), line);
}

#[tokio::test(start_paused = true)]
async fn the_token_of_a_run_fires_when_the_run_is_over() {
    let (tokens, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let mut group = TaskGroup::new();
    Supervisor::new("kafka")
        .child("consumer", move |token| {
            tokens.send(token).unwrap();
            async { Ok(()) }
        })
        .spawn(&group)
        .unwrap();
    group.wait().await.unwrap();
    assert!(seen.recv().await.unwrap().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_supervisor_aborts_and_tells_its_children() {
    let diary = Diary::new();
    let mut group = TaskGroup::new();
    let notes = diary.clone();
    let supervisor = Supervisor::new("kafka").child("deaf", move |token| {
        let run = notes.run("deaf");
        async move {
            let _run = run;
            let _told = token.drop_guard();
            pending().await
        }
    });
    let run = supervisor.run(&group).unwrap();
    timeout(SECOND, run).await.unwrap_err();
    group.wait().await.unwrap();
    assert_eq!(diary.lines(), ["0.0 start deaf", "1.0 end deaf"]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_out_of_time_leaves_nothing_alive() {
    let diary = Diary::new();
    let mut group = TaskGroup::new();
    let notes = diary.clone();
    Supervisor::new("kafka")
        .grace(Duration::MAX)
        .child("deaf", move |_token| {
            let run = notes.run("deaf");
            async move {
                let _run = run;
                pending().await
            }
        })
        .spawn(&group)
        .unwrap();
    sleep(SECOND).await;
    let error = group.shutdown(SECOND).await.unwrap_err();
    assert_eq!(error.stragglers().count(), 2);
    assert!(error.still_running().is_empty());
    assert_eq!(diary.lines(), ["0.0 start deaf", "2.0 end deaf"]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_group_ends_the_supervisor_at_the_next_start_and_is_not_a_failure() {
    let mut group = TaskGroup::new();
    let diary = Diary::new();
    let supervisor = Supervisor::new("kafka")
        .backoff(Backoff::new(Duration::ZERO, Duration::ZERO))
        .intensity(usize::MAX, Duration::MAX);
    let supervisor = steady(supervisor, "steady", &diary);
    let runs = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&runs);
    supervisor
        .child("consumer", move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            async {
                sleep(Duration::from_secs(10)).await;
                Err("the broker is gone".into())
            }
        })
        .spawn(&group)
        .unwrap();
    sleep(Duration::from_secs(5)).await;
    group.close();
    // What runs is not touched. The failure asks for a start, which the group refuses.
    sleep(Duration::from_secs(4)).await;
    assert_eq!(group.running().count(), 3);
    group.wait().await.unwrap();
    assert!(!group.is_cancelled());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_finds_its_group_closed_ends_at_once() {
    let mut group = TaskGroup::new();
    let supervisor = Supervisor::new("kafka")
        .intensity(usize::MAX, Duration::MAX)
        .child("consumer", |_| async {
            unreachable!("it is never started")
        })
        .run(&group)
        .unwrap();
    group.wait().await.unwrap();
    supervisor.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_long_grace_does_not_carry_restarts_out_of_the_window() {
    let mut group = TaskGroup::new();
    Supervisor::new("kafka")
        .strategy(Strategy::OneForAll)
        .backoff(Backoff::new(Duration::ZERO, Duration::ZERO))
        .intensity(2, Duration::from_secs(10))
        .grace(Duration::from_secs(20))
        .child("consumer", |_| async { Err("the broker is gone".into()) })
        .child("deaf", |_| pending())
        .spawn(&group)
        .unwrap();
    let error = supervisor_error(group.wait().await.unwrap_err());
    assert!(error.is_escalated());
    assert_eq!(error.child(), "consumer");
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_below_another_is_restarted_by_it() {
    let diary = Diary::new();
    let mut group = TaskGroup::new();
    let notes = diary.clone();
    Supervisor::new("outer")
        .intensity(1, 60 * SECOND)
        .backoff(exact())
        .child("inner", move |token| {
            let notes = notes.clone();
            async move {
                let group: TaskGroup = TaskGroup::builder().parent(&token).build()?;
                let inner = Supervisor::new("inner").intensity(0, SECOND);
                let inner = failing_after(inner, "leaf", SECOND, &notes);
                Ok(inner.run(&group)?.await?)
            }
        })
        .spawn(&group)
        .unwrap();
    let error = supervisor_error(group.wait().await.unwrap_err());
    assert_eq!(
        diary.lines(),
        [
            "0.0 start leaf",
            "1.0 end leaf",
            "2.0 start leaf",
            "3.0 end leaf"
        ]
    );
    assert_eq!(
        format!("{error:#}"),
        "supervisor `outer`: child `inner` failed after 1 restart within 60s: \
         supervisor `inner`: child `leaf` failed after 0 restarts within 1s: disk full"
    );
}

#[tokio::test]
async fn options_that_make_no_supervisor_are_refused_by_name() {
    let group = TaskGroup::new();
    let refused = |supervisor: Supervisor| supervisor.spawn(&group).unwrap_err();
    let child = |name| Supervisor::new("kafka").child(name, |_token| pending());

    for (supervisor, option, message) in [
        (
            Supervisor::new("kafka"),
            "child",
            "supervisor `kafka`: `child` cannot be missing: there is nothing to supervise",
        ),
        (
            Supervisor::new("").child("a", |_token| pending()),
            "name",
            "a supervisor: `name` cannot be empty: no message could name it",
        ),
        (
            child(""),
            "child",
            "supervisor `kafka`: `child` cannot be without a name: no message could name it",
        ),
        (
            child("a").permanent("a", |_token| pending()),
            "child",
            "supervisor `kafka`: `child` cannot be `a` twice: no message could tell them apart",
        ),
        (
            child("a").intensity(3, Duration::ZERO),
            "intensity",
            "supervisor `kafka`: `intensity` cannot be 3 within 0s: no restart could ever be counted",
        ),
        (
            child("a").backoff(Backoff::default().factor(0)),
            "factor",
            "supervisor `kafka`: `factor` cannot be 0: all waits but the first would be 0s",
        ),
    ] {
        let error = refused(supervisor);
        assert_eq!(error.option(), option);
        assert_eq!(format!("{error:#}"), message);
    }
    assert!(group.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_server_is_a_child_as_it_is() {
    let mut group = TaskGroup::new();
    let serve = |token: CancellationToken| {
        Sidecar::new("http").serve(&token, |stop| async { std::io::Result::Ok(stop.await) })
    };
    let servers = Supervisor::new("servers").child("http", serve);
    let supervisor = servers.spawn(&group).unwrap();
    sleep(SECOND).await;
    group.cancel();
    group.wait().await.unwrap();
    supervisor.await.unwrap();
}

/// A chain of two.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve")]
struct CannotServe(#[source] std::io::Error);

/// Everything that may print an error, and how often each of the messages stands in it.
#[track_caller]
fn each_message_is_printed_once(
    error: impl std::error::Error + Send + Sync + 'static,
    messages: &[&str],
) {
    let once = |how: &str, text: String| {
        for message in messages {
            let count = text.matches(message).count();
            assert_eq!(count, 1, "`{message}` with {how}: {text}");
        }
    };
    once("Debug, as `main` prints it", format!("{error:?}"));
    once("`{:#}`", format!("{error:#}"));
    // A reporter that walks the chain, as tracing's field for an error does.
    let mut chain = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        chain += &format!(": {source}");
        next = source.source();
    }
    once("a walk along the chain", chain);
    let report = anyhow::Error::from(error);
    once("anyhow's `{:#}`", format!("{report:#}"));
    let debug = format!("{report:?}");
    let debug = debug.split("Stack backtrace").next().unwrap_or_default();
    once("anyhow's Debug", debug.to_owned());
}

#[tokio::test(start_paused = true)]
async fn no_error_of_the_crate_prints_a_message_twice() {
    let token = CancellationToken::new();
    let failing = || async { Err::<(), _>(CannotServe(std::io::Error::other("address in use"))) };
    let messages = ["failed", "cannot serve", "address in use"];

    let sidecar = Sidecar::new("http").serve(&token, |_stop| failing());
    each_message_is_printed_once(sidecar.await.unwrap_err(), &messages);

    let mut group = TaskGroup::<SupervisorError>::typed();
    let child = move |_token| async move { Ok(failing().await?) };
    let kafka = Supervisor::new("kafka").intensity(0, Duration::MAX);
    kafka.child("consumer", child).spawn(&group).unwrap();
    let supervisor = group.wait().await.unwrap_err().into_error().unwrap();
    each_message_is_printed_once(supervisor, &messages);

    let flush = Periodic::new("flush", Duration::from_secs(1)).fail_after(1);
    let periodic = flush.run(&token, |_tick| async { Ok(failing().await?) });
    each_message_is_printed_once(periodic.unwrap().await.unwrap_err(), &messages);

    let build = TaskGroup::builder().limit(0).build().unwrap_err();
    each_message_is_printed_once(build, &["`limit` cannot be 0"]);

    let mut group = TaskGroup::new();
    let failed = group.spawn(async { Err::<(), _>("no".into()) });
    each_message_is_printed_once(failed.await.unwrap_err(), &["the task failed"]);
    group.wait().await.unwrap_err();
    let closed = group.try_spawn(async { Ok(()) }).unwrap_err();
    each_message_is_printed_once(closed, &["the group is closed"]);
}

#[test]
fn everything_can_be_sent_and_shared() {
    fn is<T: Send + Sync>() {}
    is::<(Supervisor, Strategy, Backoff)>();
    is::<SupervisorError>();
}

/// One run of a child: how long it takes, how it ends, and what it does when it is told to stop.
#[derive(Clone, Debug)]
struct Script {
    ms: u64,
    end: Way,
    stop: Way,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Return,
    Fail,
    Panic,
    Hang,
}

fn ways() -> impl Any<Value = Way> {
    prop_oneof![
        2 => Just(Way::Return),
        4 => Just(Way::Fail),
        2 => Just(Way::Panic),
        1 => Just(Way::Hang),
    ]
}

fn scripts() -> impl Any<Value = Vec<Vec<Script>>> {
    let script = (0u64..3000, ways(), ways()).prop_map(|(ms, end, stop)| Script { ms, end, stop });
    vec(vec(script, 0..8), 1..5)
}

/// What was seen of a child, with the milliseconds since the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Start(usize),
    /// It was told to stop.
    Told(usize),
    /// It ended in its own way.
    Failed(usize),
    /// Its future was dropped.
    Gone(usize),
}

type Log = Arc<Mutex<Vec<(u128, Seen)>>>;

struct Probe {
    child: usize,
    began: Instant,
    log: Log,
}

impl Probe {
    fn see(&self, seen: Seen) {
        let ms = self.began.elapsed().as_millis();
        self.log.lock().unwrap().push((ms, seen));
    }

    async fn end(&self, way: Way) -> Result<(), BoxError> {
        match way {
            Way::Return => Ok(()),
            Way::Fail => failing("as it was to"),
            Way::Panic => resume_unwind(Box::new("as it was to")),
            Way::Hang => pending().await,
        }
    }

    async fn run(self, script: Option<Script>, token: CancellationToken) -> Result<(), BoxError> {
        let Some(Script { ms, end, stop }) = script else {
            return Ok(token.cancelled().await);
        };
        let work = async {
            sleep(Duration::from_millis(ms)).await;
            if matches!(end, Way::Fail | Way::Panic) {
                self.see(Seen::Failed(self.child));
            }
            self.end(end).await
        };
        if let Some(ended) = token.run_until_cancelled(work).await {
            return ended;
        }
        self.see(Seen::Told(self.child));
        self.end(stop).await
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.see(Seen::Gone(self.child));
    }
}

const GRACE: u64 = 700;
const FIRST: u64 = 100;
const LONGEST: u64 = 1000;
const RESET_AFTER: u64 = 2000;

/// Plays the scripts and returns what was seen, when the cancel came, and when it was over.
async fn play(
    strategy: Strategy,
    intensity: usize,
    scripts: Vec<Vec<Script>>,
    cancel: Option<u64>,
) -> (Vec<(u128, Seen)>, Option<u128>, u128) {
    let began = Instant::now();
    let log = Log::default();
    let backoff = Backoff::new(Duration::from_millis(FIRST), Duration::from_millis(LONGEST));
    let mut supervisor = Supervisor::new("random")
        .strategy(strategy)
        .intensity(intensity, 5 * SECOND)
        .backoff(backoff)
        .reset_after(Duration::from_millis(RESET_AFTER))
        .grace(Duration::from_millis(GRACE));
    for (child, script) in scripts.into_iter().enumerate() {
        let (log, script) = (Arc::clone(&log), Mutex::new(script.into_iter()));
        supervisor = supervisor.child(format!("{child}"), move |token| {
            let log = Arc::clone(&log);
            let probe = Probe { child, began, log };
            probe.see(Seen::Start(child));
            probe.run(script.lock().unwrap().next(), token)
        });
    }
    let mut group = TaskGroup::new();
    supervisor.spawn(&group).unwrap();
    let cancel = cancel.unwrap_or(100_000);
    let ended = timeout(Duration::from_millis(cancel), group.wait()).await;
    let cancelled = ended.is_err().then(|| began.elapsed().as_millis());
    group.cancel();
    let _ = group.wait().await;
    assert!(group.running().is_empty());
    let over = began.elapsed().as_millis();
    (
        Arc::try_unwrap(log).unwrap().into_inner().unwrap(),
        cancelled,
        over,
    )
}

fn check(strategy: Strategy, intensity: usize, seen: &[(u128, Seen)]) {
    let mut alive = [false; 4];
    let mut began = [0; 4];
    // The failure that asks for the next run of a child, and the bound of its wait.
    let mut failed: [Option<u128>; 4] = [None; 4];
    let mut bound = [u128::from(FIRST); 4];
    let mut restarts = Vec::new();
    for &(at, seen) in seen {
        match seen {
            Seen::Start(child) => {
                assert!(!alive[child], "two runs of {child} at {at}");
                if strategy != Strategy::OneForOne {
                    assert_eq!(
                        alive[child..],
                        vec![false; 4 - child],
                        "out of order at {at}"
                    );
                }
                if let (Some(failed), Strategy::OneForOne) = (failed[child].take(), strategy) {
                    let wait = at - failed;
                    let (least, most) = (bound[child] / 2, bound[child] + 2);
                    assert!((least..=most).contains(&wait), "{wait} of {}", bound[child]);
                    bound[child] = (bound[child] * 2).min(u128::from(LONGEST));
                    restarts.push(failed);
                }
                (alive[child], began[child]) = (true, at);
            }
            Seen::Told(child) => {
                let later = &alive[child + 1..];
                assert!(!later.contains(&true), "{child} told too early at {at}");
            }
            Seen::Failed(child) => {
                failed[child] = Some(at);
                if at - began[child] >= u128::from(RESET_AFTER) {
                    bound[child] = u128::from(FIRST);
                }
            }
            Seen::Gone(child) => alive[child] = false,
        }
    }
    assert_eq!(alive, [false; 4], "alive at the end");
    restarts.sort_unstable();
    for &first in &restarts {
        let within = |at: &&u128| (first..first + 5000).contains(*at);
        let count = restarts.iter().filter(within).count();
        assert!(
            count <= intensity,
            "{count} restarts within 5s from {first}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2048,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_failures_panics_hangs_and_cancels_keep_the_promises(
        strategy in prop_oneof![
            Just(Strategy::OneForOne),
            Just(Strategy::OneForAll),
            Just(Strategy::RestForOne),
        ],
        intensity in 0usize..8,
        scripts in scripts(),
        cancel in option::of(0u64..20_000),
    ) {
        let children = scripts.len() as u128;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let played = play(strategy, intensity, scripts, cancel);
        let (seen, cancelled, over) = runtime.block_on(played);
        check(strategy, intensity, &seen);
        if let Some(cancelled) = cancelled {
            let late = |(at, seen): &(_, Seen)| matches!(seen, Seen::Start(_)) && *at > cancelled;
            assert!(!seen.iter().any(late), "started after the cancel");
            assert!(over - cancelled <= children * u128::from(GRACE + 10), "{} ms", over - cancelled);
        }
    }
}

/// Runs `start` as a part of something larger does: it hands out a group, and a token to go by.
fn hand_out<F, W>(group: TaskGroup, start: F) -> tokio::task::JoinHandle<Result<(), BoxError>>
where
    F: FnOnce(TaskGroup, CancellationToken) -> W + Send + 'static,
    W: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let token = group.token().clone();
    tokio::spawn(async move { start(group, token).await })
}

fn consumer(name: &'static str, diary: &Diary) -> Supervisor {
    let diary = diary.clone();
    Supervisor::new("kafka").child(name, move |token| {
        let entry = diary.run(name);
        async move {
            token.cancelled().await;
            drop(entry);
            Ok(())
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_runs_in_a_group_that_was_handed_out_and_ends_with_it() {
    let diary = Diary::new();
    let owner = CancellationToken::new();
    let mut parent = TaskGroup::new();
    let below_the_group = parent.child("orders");
    let below_the_token = TaskGroup::builder().name("audit").parent(&owner);

    let (awaits, spawns) = (consumer("a", &diary), consumer("b", &diary));
    let awaits = hand_out(below_the_group, async move |group, _token| {
        Ok(awaits.run(&group)?.await?)
    });
    let spawns = hand_out(
        below_the_token.build().unwrap(),
        async move |mut group, _| {
            spawns.spawn(&group)?;
            Ok(group.wait().await?)
        },
    );
    sleep(SECOND).await;
    assert_eq!(
        parent.running().iter().next().and_then(|task| task.name()),
        Some("orders/kafka/a")
    );

    parent.cancel();
    awaits.await.unwrap().unwrap();
    sleep(SECOND).await;
    owner.cancel();
    spawns.await.unwrap().unwrap();

    parent.wait().await.unwrap();
    let lines = ["0.0 start a", "0.0 start b", "1.0 end a", "2.0 end b"];
    assert_eq!(diary.lines(), lines);
}

#[tokio::test(start_paused = true)]
async fn an_escalated_failure_is_returned_to_the_awaiting_task_and_cancels_no_other() {
    let mut parent = TaskGroup::new();
    let escalates = Supervisor::new("kafka")
        .intensity(0, SECOND)
        .child("consumer", |_token| async {
            Err("the broker is gone".into())
        });
    let part = hand_out(parent.child("orders"), async move |group, _token| {
        Ok(escalates.run(&group)?.await?)
    });
    let error = part.await.unwrap().unwrap_err();
    assert!(
        error
            .downcast_ref::<SupervisorError>()
            .unwrap()
            .is_escalated()
    );
    assert_eq!(parent.cause(), None);
    parent.wait().await.unwrap();
}
