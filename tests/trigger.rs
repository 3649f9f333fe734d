//! What stops a group from outside: a file, a heartbeat, a time. Signals are in tests/process.

mod support;

use std::error::Error;
use std::fmt::Debug;
use std::fs;
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use taskgroup::group::{LostHeartbeat, StopRequest, Trigger};
use taskgroup::process::{ExitPolicy, Heartbeat, HeartbeatMonitor, StopFile};
use taskgroup::{Cause, End, Exit, TaskError, TaskGroup};
use tokio::runtime::Handle;
use tokio::time::{Instant, advance, sleep};

use crate::support::wait::turns;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A directory of its own for a test, which goes with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static DIRS: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "trigger-{}-{}",
            std::process::id(),
            DIRS.fetch_add(1, Ordering::Relaxed)
        );
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A trigger that comes after this time, and counts from this call.
fn after(time: Duration) -> impl Future<Output = Cause> + Send {
    let up = sleep(time);
    async move {
        up.await;
        Cause::Deadline(time)
    }
}

/// A group with one task, which ends when it is told to.
#[track_caller]
fn service() -> TaskGroup {
    let group = TaskGroup::new();
    wait_for_the_stop(&group);
    group
}

fn wait_for_the_stop(group: &TaskGroup) {
    let token = group.token().clone();
    group.spawn(async move { Ok(token.cancelled().await) });
}

fn lost(group: &TaskGroup) -> LostHeartbeat {
    match group.cause() {
        Some(Cause::Heartbeat(lost)) => lost,
        cause => panic!("no heartbeat was lost: {cause:?}"),
    }
}

/// Moves the clock without letting any other task run: to them the runtime was busy.
async fn be_busy_for(time: Duration) {
    poll_fn(|cx| {
        let _yields = pin!(advance(time)).poll(cx);
        Poll::Ready(())
    })
    .await;
}

mod files {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_that_appears_stops_the_group_at_the_next_look() {
        let dir = Dir::new();
        let start = Instant::now();
        let mut group = service();
        group.cancel_on(StopFile::new(dir.path("stop")));
        sleep(600 * MILLISECOND).await;
        assert!(!group.is_cancelled());

        fs::write(dir.path("stop"), "").unwrap();
        group.wait().await.unwrap();

        assert_eq!(start.elapsed(), SECOND);
        let cause = Cause::File {
            path: dir.path("stop"),
            at_start: false,
        };
        assert_eq!(group.cause(), Some(cause));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_there_already_stops_the_group_at_once_and_the_cause_says_so() {
        let dir = Dir::new();
        fs::write(dir.path("stop"), "").unwrap();
        let start = Instant::now();
        let mut group = service();
        group.cancel_on(StopFile::new(dir.path("stop")));

        group.wait().await.unwrap();

        assert_eq!(start.elapsed(), Duration::ZERO);
        let cause = Cause::File {
            path: dir.path("stop"),
            at_start: true,
        };
        assert_eq!(group.cause(), Some(cause));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_looked_for_as_often_as_every_says() {
        for (every, found) in [(2 * SECOND, 2 * SECOND), (2 * MILLISECOND, 6 * MILLISECOND)] {
            let dir = Dir::new();
            let start = Instant::now();
            let mut group = service();
            group.cancel_on(StopFile::new(dir.path("stop")).every(every));
            sleep(5 * MILLISECOND).await;
            fs::write(dir.path("stop"), "").unwrap();
            group.wait().await.unwrap();
            assert_eq!(start.elapsed(), found, "every {every:?}");
        }
    }

    #[test]
    fn with_every_of_zero_it_is_looked_for_again_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            // The file is written by the thread that looks for it, and so after the first look.
            .max_blocking_threads(1)
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let dir = Dir::new();
            let stop = dir.path("stop");
            let start = Instant::now();
            let mut group = service();
            group.cancel_on(StopFile::new(&stop).every(Duration::ZERO));
            tokio::spawn(async { tokio::task::spawn_blocking(|| fs::write(stop, "")).await });
            group.wait().await.unwrap();
            let Some(Cause::File { at_start, .. }) = group.cause() else {
                panic!("{:?}", group.cause());
            };
            assert!(!at_start, "the file came after the first look");
            assert_eq!(start.elapsed(), Duration::ZERO);
        });
    }

    #[tokio::test(start_paused = true)]
    async fn with_the_longest_time_it_is_looked_for_once() {
        let dir = Dir::new();
        let group = service();
        group.cancel_on(StopFile::new(dir.path("stop")).every(Duration::MAX));
        sleep(MILLISECOND).await;
        fs::write(dir.path("stop"), "").unwrap();
        sleep(365 * 24 * 3600 * SECOND).await;
        assert_eq!(group.cause(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_gone_at_the_next_look_is_not_seen() {
        let dir = Dir::new();
        let group = service();
        group.cancel_on(StopFile::new(dir.path("stop")));
        sleep(100 * MILLISECOND).await;
        fs::write(dir.path("stop"), "").unwrap();
        fs::remove_file(dir.path("stop")).unwrap();
        sleep(10 * SECOND).await;
        assert_eq!(group.cause(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_counts_and_is_left_alone_and_its_removal_takes_nothing_back() {
        let dir = Dir::new();
        fs::create_dir(dir.path("stop")).unwrap();
        let group = service();
        group.cancel_on(StopFile::new(dir.path("stop")));
        group.token().cancelled().await;
        fs::remove_dir(dir.path("stop")).unwrap();
        sleep(10 * SECOND).await;
        assert!(matches!(group.cause(), Some(Cause::File { .. })));
    }

    /// On Windows a file in a place that can have none is just not there.
    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn an_error_is_not_a_stop_and_it_is_looked_for_again() {
        let dir = Dir::new();
        fs::write(dir.path("run"), "no directory").unwrap();
        let stop = dir.path("run").join("stop");
        assert!(fs::exists(&stop).is_err());
        let mut group = service();
        group.cancel_on(StopFile::new(&stop));
        sleep(10 * SECOND).await;
        assert_eq!(group.cause(), None);

        fs::remove_file(dir.path("run")).unwrap();
        fs::create_dir(dir.path("run")).unwrap();
        sleep(10 * SECOND).await;
        assert_eq!(group.cause(), None);
        fs::write(&stop, "").unwrap();
        group.wait().await.unwrap();
        assert!(matches!(
            group.cause(),
            Some(Cause::File {
                at_start: false,
                ..
            })
        ));
    }
}

mod heartbeats {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_that_stops_fails_the_group_and_is_named() {
        let start = Instant::now();
        let (heartbeat, monitor) = Heartbeat::new("lease", 10 * SECOND);
        let mut group = TaskGroup::builder().name("orders").build().unwrap();
        let place = line!() - 1;
        wait_for_the_stop(&group);
        group.cancel_on(monitor);
        for _ in 0..3 {
            sleep(9 * SECOND).await;
            heartbeat.clone().beat();
        }

        let error = group.wait().await.unwrap_err();

        assert_eq!(start.elapsed(), 37 * SECOND);
        assert_eq!(lost(&group).name(), "lease");
        assert_eq!(lost(&group).timeout(), Some(10 * SECOND));
        assert!(error.source().unwrap().is::<LostHeartbeat>());
        assert_eq!(error.name(), Some("orders"));
        assert_eq!(
            format!("{error:#}"),
            format!(
                "group `orders` ({}:{place}) failed: heartbeat `lease` lost: no beat within 10s",
                file!()
            )
        );
        let source = error.source().unwrap().downcast_ref::<LostHeartbeat>();
        assert_eq!(source, Some(&lost(&group)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_starts_when_the_group_listens() {
        let (heartbeat, monitor) = Heartbeat::new("lease", 10 * SECOND);
        heartbeat.beat();
        sleep(60 * SECOND).await;
        let start = Instant::now();
        let mut group = service();
        group.cancel_on(monitor);
        group.wait().await.unwrap_err();
        assert_eq!(start.elapsed(), 10 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_counts_within_the_timeout_and_not_in_the_moment_of_its_end() {
        for (beat, end) in [
            (10 * SECOND - MILLISECOND, 20 * SECOND - MILLISECOND),
            (10 * SECOND, 10 * SECOND),
        ] {
            let start = Instant::now();
            let (heartbeat, monitor) = Heartbeat::new("lease", 10 * SECOND);
            let group = service();
            group.cancel_on(monitor);
            turns().await;
            be_busy_for(beat).await;
            heartbeat.beat();
            group.token().cancelled().await;
            assert_eq!(start.elapsed(), end);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_beat_does_not_help_even_if_the_loss_is_not_noticed_yet() {
        let (heartbeat, monitor) = Heartbeat::new("lease", 10 * SECOND);
        let group = service();
        group.cancel_on(monitor);
        turns().await;
        be_busy_for(11 * SECOND).await;
        assert!(!group.is_cancelled());

        heartbeat.beat();
        turns().await;

        assert_eq!(lost(&group).timeout(), Some(10 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_lost_at_once_when_the_last_handle_is_dropped() {
        let start = Instant::now();
        let (heartbeat, monitor) = Heartbeat::new("lease", 10 * SECOND);
        let mut group = service();
        group.cancel_on(monitor);
        let other = heartbeat.clone();
        drop(heartbeat);
        turns().await;
        assert!(!group.is_cancelled());

        drop(other);
        let error = group.wait().await.unwrap_err();

        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(lost(&group).timeout(), None);
        let message = "failed: heartbeat `lease` lost: its last handle was dropped";
        assert!(format!("{error:#}").ends_with(message), "{error:#}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_lost_as_soon_as_the_group_listens_if_no_handle_is_left() {
        let (heartbeat, monitor) = Heartbeat::new("lease", 10 * SECOND);
        drop(heartbeat);
        let mut group = service();
        group.cancel_on(monitor);
        group.wait().await.unwrap_err();
        assert_eq!(lost(&group).timeout(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_on_the_only_thread_comes_before_the_heartbeat_that_it_drops() {
        let (heartbeat, monitor) = Heartbeat::new("lease", 10 * SECOND);
        let mut group = service();
        group.cancel_on(monitor);
        group.task("renewal").spawn(async move {
            heartbeat.beat();
            if true { panic!("no quorum") } else { Ok(()) }
        });
        let error = group.wait().await.unwrap_err();
        assert_eq!(error.end(), End::Panicked, "{error:#}");
        assert!(error.suppressed().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_timeout_it_is_lost_at_once_and_with_the_longest_one_never() {
        let (_none, none) = Heartbeat::new("none", Duration::ZERO);
        let mut group = service();
        group.cancel_on(none);
        group.wait().await.unwrap_err();
        assert_eq!(lost(&group).timeout(), Some(Duration::ZERO));

        let (longest, monitor) = Heartbeat::new("longest", Duration::MAX);
        let group = service();
        group.cancel_on(monitor);
        for _ in 0..3 {
            sleep(365 * 24 * 3600 * SECOND).await;
            longest.beat();
        }
        assert_eq!(group.cause(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_lost_during_the_stop_is_not_a_failure() {
        let (heartbeat, monitor) = Heartbeat::new("lease", SECOND);
        let mut group = TaskGroup::new();
        group.cancel_on(monitor);
        let token = group.token().clone();
        group.spawn(async move {
            token.cancelled().await;
            drop(heartbeat);
            Ok(sleep(60 * SECOND).await)
        });
        group.cancel_because("enough");
        group.wait().await.unwrap();
        assert_eq!(group.cause(), Some(Cause::Requested("enough".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancel_in_the_same_moment_is_first_if_it_was_called_first() {
        let (heartbeat, monitor) = Heartbeat::new("lease", SECOND);
        let mut group = service();
        group.cancel_on(monitor);
        turns().await;
        drop(heartbeat);
        group.cancel();
        group.wait().await.unwrap();
        assert_eq!(
            group.cause(),
            Some(Cause::Requested(StopRequest::default()))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_child_it_cancels_the_groups_above_and_goes_to_the_first_waiter() {
        let (_heartbeat, monitor) = Heartbeat::new("lease", SECOND);
        let mut group = TaskGroup::builder().name("orders").build().unwrap();
        wait_for_the_stop(&group);
        let mut child = group.child("kafka");
        wait_for_the_stop(&child);
        child.cancel_on(monitor);

        let error = group.wait().await.unwrap_err();

        assert_eq!(lost(&group), lost(&child));
        assert!(error.source().unwrap().is::<LostHeartbeat>());
        assert_eq!(error.name(), Some("orders/kafka"));
        child.wait().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn above_it_leaves_the_failure_with_the_group_that_listened() {
        let (_heartbeat, monitor) = Heartbeat::new("lease", SECOND);
        let mut group = TaskGroup::new();
        let mut child = group.child("kafka");
        wait_for_the_stop(&child);
        group.cancel_on(monitor);
        child.wait().await.unwrap();
        assert_eq!(child.cause(), group.cause());
        let error = group.wait().await.unwrap_err();
        assert!(error.source().unwrap().is::<LostHeartbeat>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_monitor_that_is_dropped_watches_nothing() {
        let (heartbeat, monitor) = Heartbeat::new("lease", SECOND);
        drop(monitor);
        heartbeat.beat();
        assert!(format!("{heartbeat:?}").contains("lease"));
    }
}

mod times {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_time_that_is_up_is_a_request_and_no_failure() {
        let start = Instant::now();
        let mut group = service();
        group.cancel_on(after(30 * SECOND));
        group.wait().await.unwrap();
        assert_eq!(start.elapsed(), 30 * SECOND);
        assert_eq!(group.cause(), Some(Cause::Deadline(30 * SECOND)));
    }

    #[tokio::test(start_paused = true)]
    async fn it_counts_from_the_call_though_the_runtime_is_busy_then() {
        let start = Instant::now();
        let group = service();
        group.cancel_on(after(30 * SECOND));
        be_busy_for(20 * SECOND).await;
        group.token().cancelled().await;
        assert_eq!(start.elapsed(), 30 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn no_time_comes_at_once_and_the_longest_one_never() {
        let mut group = service();
        group.cancel_on(after(Duration::ZERO));
        group.wait().await.unwrap();
        assert_eq!(group.cause(), Some(Cause::Deadline(Duration::ZERO)));

        let group = service();
        group.cancel_on(after(Duration::MAX));
        sleep(365 * 24 * 3600 * SECOND).await;
        assert_eq!(group.cause(), None);
    }
}

/// One of each, all of which would come after an hour or a touch.
fn all_on(group: &TaskGroup, dir: &Dir) -> Heartbeat {
    let (heartbeat, monitor) = Heartbeat::new("lease", 3600 * SECOND);
    group.cancel_on(StopFile::new(dir.path("stop")));
    group.cancel_on(monitor);
    group.cancel_on(after(3600 * SECOND));
    heartbeat
}

#[tokio::test(start_paused = true)]
async fn the_first_of_several_triggers_is_the_cause() {
    let dir = Dir::new();
    let mut group = service();
    let heartbeat = all_on(&group, &dir);
    sleep(SECOND).await;
    fs::write(dir.path("stop"), "").unwrap();
    group.token().cancelled().await;
    drop(heartbeat);
    group.wait().await.unwrap();
    assert!(matches!(group.cause(), Some(Cause::File { .. })));

    let mut group = service();
    group.cancel_on(after(2 * SECOND));
    group.cancel_on(after(SECOND));
    group.wait().await.unwrap();
    assert_eq!(group.cause(), Some(Cause::Deadline(SECOND)));
}

#[tokio::test(start_paused = true)]
async fn triggers_end_when_the_group_is_cancelled_for_another_reason() {
    let dir = Dir::new();
    let group = TaskGroup::new();
    let deaf = group.spawn(pending::<Result<(), _>>());
    let _heartbeat = all_on(&group, &dir);
    sleep(SECOND).await;
    let metrics = Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 4);

    group.cancel();
    turns().await;

    assert_eq!(metrics.num_alive_tasks(), 1, "the task that drains");
    drop((group, deaf));
}

#[tokio::test(start_paused = true)]
async fn triggers_are_no_members_and_hold_nothing() {
    let dir = Dir::new();
    let start = Instant::now();
    let mut group = TaskGroup::new();
    let _heartbeat = all_on(&group, &dir);
    sleep(SECOND).await;
    assert!(group.running().is_empty());
    group.spawn(async { Ok(sleep(SECOND).await) });

    group.wait().await.unwrap();

    assert_eq!(start.elapsed(), 2 * SECOND);
    assert_eq!(group.cause(), None);
    turns().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn triggers_end_with_a_group_that_is_shut_down_or_dropped() {
    let dir = Dir::new();
    let metrics = Handle::current().metrics();

    let mut group = TaskGroup::new();
    group.spawn(pending::<Result<(), _>>());
    let _heartbeat = all_on(&group, &dir);
    turns().await;
    group.shutdown(SECOND).await.unwrap_err();
    turns().await;
    assert_eq!(metrics.num_alive_tasks(), 0);

    let group = service();
    let spawner = group.spawner();
    let _heartbeat = all_on(&group, &dir);
    turns().await;
    drop(group);
    turns().await;
    assert_eq!(metrics.num_alive_tasks(), 0);
    assert_eq!(spawner.cause(), Some(Cause::Dropped));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_over_listens_to_nothing() {
    let dir = Dir::new();
    let mut group = TaskGroup::new();
    group.wait().await.unwrap();
    drop(all_on(&group, &dir));
    sleep(2 * 3600 * SECOND).await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    assert_eq!(group.cause(), None);
}

#[tokio::test(start_paused = true)]
async fn a_trigger_may_come_before_any_task_is_spawned() {
    let mut group = TaskGroup::new();
    group.cancel_on(after(Duration::ZERO));
    group.token().cancelled().await;
    let token = group.token().clone();
    let born = group.spawn(async move { Ok(token.is_cancelled()) });
    assert_eq!(born.await, Ok(true));
    group.wait().await.unwrap();
    assert_eq!(group.cause(), Some(Cause::Deadline(Duration::ZERO)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_the_drain_after_a_trigger_is_an_error() {
    let mut group = TaskGroup::new();
    group.cancel_on(after(SECOND));
    let token = group.token().clone();
    group.spawn(async move {
        token.cancelled().await;
        Err::<(), _>("disk full".into())
    });
    let error = group.wait().await.unwrap_err();
    assert_eq!(error.end(), End::Failed);
    assert_eq!(error.cause(), Some(&Cause::Deadline(SECOND)));
}

#[tokio::test(start_paused = true)]
async fn a_requested_stop_exits_with_0_and_a_lost_heartbeat_with_1_or_a_code_of_its_own() {
    async fn stopped_by(trigger: impl Trigger) -> (Result<(), TaskError>, Option<Cause>) {
        let mut group = service();
        group.cancel_on(trigger);
        (group.wait().await, group.cause())
    }

    let dir = Dir::new();
    fs::write(dir.path("stop"), "").unwrap();
    let file = StopFile::new(dir.path("stop"));
    let (file, cause) = stopped_by(file).await;
    let exit = ExitPolicy::strict().exit_caused_by(file, cause);
    assert_eq!((exit.code(), exit.to_string()), (0, String::new()));

    let (time, cause) = stopped_by(after(SECOND)).await;
    let exit = ExitPolicy::strict().exit_caused_by(time, cause);
    assert_eq!(exit.code(), 0);

    let (_heartbeat, monitor) = Heartbeat::new("lease", SECOND);
    let (heartbeat, _) = stopped_by(monitor).await;
    let exit = Exit::from(heartbeat);
    assert_eq!(exit.code(), 1);
    let line = exit.to_string();
    assert!(line.starts_with("error: group ("), "{line}");
    assert!(
        line.ends_with(") failed: heartbeat `lease` lost: no beat within 1s"),
        "{line}"
    );

    let own = ExitPolicy::strict().code_from(|error| error.is::<LostHeartbeat>().then_some(75));
    let (_heartbeat, monitor) = Heartbeat::new("lease", SECOND);
    let (heartbeat, _) = stopped_by(monitor).await;
    assert_eq!(own.exit(heartbeat).code(), 75);
}

#[test]
fn without_timers_the_caller_panics_and_not_a_task_that_nobody_looks_at() {
    let triggers: [fn(&TaskGroup); 2] = [
        |group| group.cancel_on(StopFile::new("stop")),
        |group| group.cancel_on(Heartbeat::new("lease", SECOND).1),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for trigger in triggers {
        let group = TaskGroup::new();
        let panics = || catch_unwind(AssertUnwindSafe(|| trigger(&group))).is_err();
        assert!(panics(), "no runtime");
        let _entered = runtime.enter();
        assert!(panics(), "no timers");
    }
}

#[test]
fn triggers_can_be_printed_and_sent() {
    fn trigger<T: Trigger + Debug + Send + Sync>() {}
    fn value<T: Clone + Debug + Send + Sync>() {}
    trigger::<StopFile>();
    trigger::<HeartbeatMonitor>();
    #[cfg(feature = "signal")]
    trigger::<taskgroup::Signals>();
    value::<Heartbeat>();
    value::<LostHeartbeat>();
}

#[tokio::test(start_paused = true)]
async fn any_future_that_yields_a_reason_is_a_trigger() {
    async fn cause_of(trigger: impl Trigger) -> Cause {
        let mut group = service();
        group.cancel_on(trigger);
        assert!(group.wait().await.is_ok());
        group.cause().unwrap()
    }
    let asked = |reason: &'static str| Cause::Requested(reason.into());
    assert_eq!(
        cause_of(async { "the queue is empty" }).await,
        asked("the queue is empty")
    );
    assert_eq!(cause_of(async { "owned".to_owned() }).await, asked("owned"));
    assert_eq!(cause_of(async { Cause::Reload }).await, Cause::Reload);
    let token = taskgroup::CancellationToken::new();
    token.cancel();
    assert_eq!(
        cause_of(token.cancelled_owned()).await,
        Cause::Requested(StopRequest::default())
    );
    let up = async {
        sleep(SECOND).await;
        Cause::Deadline(SECOND)
    };
    let began = Instant::now();
    assert_eq!(cause_of(up).await, Cause::Deadline(SECOND));
    assert_eq!(began.elapsed(), SECOND);
    let panics = cause_of(async { panic!("no route") as () }).await;
    assert_eq!(panics, asked("a trigger panicked: no route"));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_another_group_is_a_trigger_with_its_cause() {
    let (mut group, other) = (service(), service());
    group.cancel_on(other.spawner());
    other.cancel_because("the other one first");
    assert!(group.wait().await.is_ok());
    assert_eq!(group.cause(), other.cause());
}
