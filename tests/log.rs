//! What the crate logs, line by line.
//!
//! `tracing` caches which events nobody wants, so a subscriber for one thread only may come too late
//! while other tests run. Here one subscriber serves the whole process, and sorts by thread.

use std::cell::RefCell;
use std::future::{pending, poll_fn, ready};
use std::io;
use std::pin::pin;
use std::sync::Once;
use std::task::Poll;
use std::time::Duration;

use taskgroup::cleanup::{Cleanup, Outcome, Step};
use taskgroup::group::{OnCancel, Trigger};
use taskgroup::lifecycle::{Budget, Component, Lifecycle};
use taskgroup::process::{Heartbeat, StopFile};
use taskgroup::supervise::{Backoff, Periodic, PeriodicError, Strategy, Supervisor};
use taskgroup::{CancellationToken, Cause, Sidecar, SidecarError, TaskGroup};
use tracing::Level;

thread_local! {
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A trigger that comes after this time.
async fn after(time: Duration) -> Cause {
    tokio::time::sleep(time).await;
    Cause::Deadline(time)
}

struct ThisThread;

impl io::Write for ThisThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An event is one write. The mio of Tokio logs too, if anything in the workspace turns that on.
        if !String::from_utf8_lossy(bytes).contains(" mio::") {
            LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn capture() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_max_level(Level::TRACE)
            .with_writer(|| ThisThread)
            .init();
    });
}

/// Returns this thread's lines of a level, since the last call.
fn lines(level: Level) -> Vec<String> {
    let log = LOG.with_borrow_mut(std::mem::take);
    let log = String::from_utf8(log).unwrap();
    let of_level = |line: &&str| line.trim_start().starts_with(level.as_str());
    log.lines()
        .filter(of_level)
        .map(|line| line.trim().to_owned())
        .collect()
}

#[tokio::test]
async fn a_panic_is_logged_once_at_error_when_it_happens() {
    capture();
    let mut group = TaskGroup::new();
    let task = group
        .task("parser")
        .spawn(async { if true { panic!("bad byte") } else { Ok(()) } });
    task.await.unwrap_err();
    let at_panic_time = lines(Level::ERROR);
    let error = group.wait().await.unwrap_err();
    assert_eq!(
        at_panic_time,
        [format!("ERROR taskgroup: {error:#} task=\"parser\"")]
    );
    assert_eq!(lines(Level::ERROR), [""; 0]);
}

#[tokio::test]
async fn an_error_is_the_callers_to_report_and_logged_at_debug_only() {
    capture();
    let mut group = TaskGroup::new();
    group
        .task("http")
        .spawn(async { Err::<(), _>("address in use".into()) });
    let error = group.wait().await.unwrap_err();
    let lines = lines(Level::DEBUG);
    assert_eq!(
        lines[0],
        format!("DEBUG taskgroup: {error:#} task=\"http\"")
    );
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[1].starts_with("DEBUG taskgroup: group stopped"),
        "{lines:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_group_that_ends_well_by_itself_logs_nothing() {
    capture();
    let mut group = TaskGroup::new();
    group.task("quiet").spawn(async { Ok(()) });
    group.wait().await.unwrap();
    drop(group);
    for level in [
        Level::TRACE,
        Level::DEBUG,
        Level::INFO,
        Level::WARN,
        Level::ERROR,
    ] {
        assert_eq!(lines(level), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_cancelled_group_is_logged_with_its_cause_and_outcome() {
    capture();
    let mut group = TaskGroup::builder().name("orders").build().unwrap();
    group.spawn(pending::<Result<(), _>>());
    group.cancel_because("the lease was lost");
    group.shutdown(Duration::ZERO).await.unwrap_err();
    let last = lines(Level::DEBUG).pop().unwrap();
    assert_eq!(
        last,
        "DEBUG taskgroup: group stopped group=\"orders\" \
         cause=cancelled on request: the lease was lost outcome=\"failed\""
    );
}

/// Stops a group by a trigger, and returns the audit of it.
async fn audit(name: &'static str, trigger: impl Trigger) -> Vec<String> {
    let mut group = TaskGroup::builder().name(name).build().unwrap();
    let token = group.token().clone();
    group.spawn(async move { Ok(token.cancelled().await) });
    group.cancel_on(trigger);
    drop(group.wait().await);
    lines(Level::INFO)
}

#[tokio::test(start_paused = true)]
async fn what_triggered_a_stop_and_what_followed_is_one_line_each_at_info() {
    capture();
    let second = Duration::from_secs(1);
    assert_eq!(
        audit("orders", after(second)).await,
        [
            "INFO taskgroup: the deadline of 1s passed, stopping group=\"orders\" \
             cause=the deadline of 1s passed",
            "INFO taskgroup: group stopped group=\"orders\" \
             cause=the deadline of 1s passed outcome=\"ok\"",
        ]
    );
    assert_eq!(
        audit("orders", async { "nobody calls" }).await,
        [
            "INFO taskgroup: cancelled on request: nobody calls, stopping group=\"orders\" \
             cause=cancelled on request: nobody calls",
            "INFO taskgroup: group stopped group=\"orders\" \
             cause=cancelled on request: nobody calls outcome=\"ok\"",
        ]
    );
    let (_heartbeat, monitor) = Heartbeat::new("lease", second);
    assert_eq!(
        audit("orders", monitor).await,
        [
            "INFO taskgroup: heartbeat `lease` lost: no beat within 1s, stopping group=\"orders\" \
             cause=heartbeat `lease` lost: no beat within 1s",
            "INFO taskgroup: group stopped group=\"orders\" \
             cause=heartbeat `lease` lost: no beat within 1s outcome=\"failed\"",
        ]
    );
    assert_eq!(
        audit("orders", StopFile::new(env!("CARGO_MANIFEST_DIR"))).await,
        [
            concat!(
                "INFO taskgroup: stop file `",
                env!("CARGO_MANIFEST_DIR"),
                "` was there at the start, stopping group=\"orders\" cause=stop file `",
                env!("CARGO_MANIFEST_DIR"),
                "` was there at the start"
            ),
            concat!(
                "INFO taskgroup: group stopped group=\"orders\" cause=stop file `",
                env!("CARGO_MANIFEST_DIR"),
                "` was there at the start outcome=\"ok\""
            ),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_group_is_audited_like_a_trigger_with_tasks_and_without() {
    capture();
    let second = Duration::from_secs(1);
    for (busy, outcome) in [(true, "failed"), (false, "ok")] {
        let mut group = TaskGroup::builder().deadline(second).build().unwrap();
        let token = group.token().clone();
        if busy {
            group.spawn(async move { Ok(token.cancelled().await) });
        } else {
            tokio::time::sleep(2 * second).await;
        }
        drop(group.wait().await);
        let cause = "cause=the deadline of 1s passed";
        let trigger = format!("INFO taskgroup: the deadline of 1s passed, stopping {cause}");
        let stopped = format!("INFO taskgroup: group stopped {cause} outcome=\"{outcome}\"");
        assert_eq!(lines(Level::INFO), [trigger, stopped]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_trigger_that_comes_too_late_says_nothing() {
    capture();
    let second = Duration::from_secs(1);
    let mut group = TaskGroup::builder().deadline(second).build().unwrap();
    group.spawn(async move { Ok(tokio::time::sleep(3 * second).await) });
    group.cancel();
    group.wait().await.unwrap_err();
    assert_eq!(lines(Level::INFO), [""; 0]);

    let (heartbeat, monitor) = Heartbeat::new("lease", second);
    let mut group = TaskGroup::new();
    group.cancel_on(monitor);
    let token = group.token().clone();
    group.spawn(async move { Ok(token.cancelled().await) });
    tokio::task::yield_now().await;
    drop(heartbeat);
    group.cancel(); // in the same moment, but first
    group.wait().await.unwrap();
    assert_eq!(lines(Level::INFO), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_keeps_a_stop_file_from_being_looked_for_is_one_warning() {
    capture();
    let mut group = TaskGroup::new();
    let token = group.token().clone();
    group.spawn(async move { Ok(token.cancelled().await) });
    group.cancel_on(StopFile::new(""));
    tokio::time::sleep(Duration::from_secs(10)).await;
    group.cancel();
    group.wait().await.unwrap();
    assert_eq!(
        lines(Level::WARN),
        ["WARN taskgroup: cannot look for stop file ``: the path is empty"]
    );
}

#[tokio::test]
async fn a_panic_of_a_callback_is_logged_once_at_error_with_its_place() {
    capture();
    let token = CancellationToken::new();
    let place = line!() + 1;
    let callback = OnCancel::new(&token, || async { panic!("boom") });
    token.cancel();
    callback.finished().await;
    drop(callback);
    let file = file!();
    let expected =
        format!("ERROR taskgroup: callback after cancellation ({file}:{place}) panicked: boom");
    assert_eq!(lines(Level::ERROR), [expected]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_function_that_is_cut_off_after_the_server_drained_is_a_warning() {
    capture();
    let token = CancellationToken::new();
    token.cancel();
    let drained = ready(io::Result::Ok(()));
    let outcome: Result<(), SidecarError> = Sidecar::new("http")
        .serve_with_stop(&token, drained, |_grace| pending())
        .await;
    outcome.unwrap();
    assert_eq!(
        lines(Level::WARN),
        ["WARN taskgroup: server `http` has drained, but its stop function did not end within 10s"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_that_is_dropped_before_its_end_warns_of_every_step_that_is_forgotten() {
    capture();
    let fill = |cleanup: &Cleanup| {
        for name in ["database", "cache"] {
            let hangs = Step::new(name, |_| pending()).always(Duration::from_secs(1));
            cleanup.push(hangs).unwrap();
        }
    };
    let cleanup = Cleanup::new();
    fill(&cleanup);
    drop(cleanup);
    let forgotten =
        "WARN taskgroup: cleanup was dropped with 2 of its steps not run: `cache`, `database`";
    assert_eq!(lines(Level::WARN), [forgotten]);

    let mut cleanup = Cleanup::new();
    fill(&cleanup);
    let run = cleanup.run(Outcome::Clean, Duration::from_secs(8));
    let second = Duration::from_secs(1);
    tokio::time::timeout(second, run).await.unwrap_err();
    drop(cleanup);
    assert_eq!(lines(Level::WARN), [forgotten], "in the middle of a step");
}

#[tokio::test]
async fn a_lifecycle_that_is_dropped_after_its_plan_warns_of_nothing() {
    capture();
    let lifecycle = Lifecycle::new("orders").component(Component::job("migrate", |_| pending()));
    let step = Step::new("flush", |_| pending());
    let _step = lifecycle.cleanup().push(step).unwrap();
    assert!(lifecycle.plan().is_ok());
    drop(lifecycle);
    assert_eq!(lines(Level::WARN), [""; 0]);
}

#[tokio::test]
async fn a_cleanup_without_steps_or_after_its_run_is_dropped_silently() {
    capture();
    drop(Cleanup::new());
    let mut cleanup = Cleanup::new();
    cleanup
        .push(Step::new("cache", |_| async { Ok(()) }))
        .unwrap();
    cleanup.run(Outcome::Clean, Duration::from_secs(8)).await;
    drop(cleanup);
    assert_eq!(lines(Level::WARN), [""; 0]);
}

#[tokio::test]
async fn a_step_is_logged_by_how_it_ended_and_whether_that_matters() {
    capture();
    let mut cleanup = Cleanup::new();
    let failing = |name| Step::new(name, |_| async { Err("no".into()) });
    cleanup.push(failing("database")).unwrap();
    cleanup.push(failing("registry").best_effort()).unwrap();
    let panics = Step::new("cache", |_| async {
        if true { panic!("boom") } else { Ok(()) }
    });
    cleanup.push(panics.best_effort()).unwrap();
    cleanup.run(Outcome::Clean, Duration::from_secs(8)).await;

    let log = LOG.with_borrow(|log| String::from_utf8(log.clone()).unwrap());
    let log: Vec<_> = log.lines().map(str::trim).collect();
    assert_eq!(
        log,
        [
            "ERROR taskgroup: cleanup step `cache` panicked: boom",
            "WARN taskgroup: cleanup step `registry` failed: no",
            "DEBUG taskgroup: cleanup step `database` failed: no",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_done_after_its_time_is_a_warning() {
    capture();
    let mut cleanup = Cleanup::new();
    let blocks = Step::new("cache", |_| {
        poll_fn(|cx| {
            let _yields = pin!(tokio::time::advance(Duration::from_secs(7))).poll(cx);
            Poll::Ready(Ok(()))
        })
    });
    cleanup.push(blocks).unwrap();
    let report = cleanup.run(Outcome::Clean, Duration::from_secs(8)).await;
    assert!(report.is_clean());
    assert_eq!(
        lines(Level::WARN),
        ["WARN taskgroup: cleanup step `cache` was done after 7s, its time was 5s"]
    );
}

#[tokio::test]
async fn a_panic_in_the_destructor_of_a_forgotten_step_is_logged() {
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("boom");
        }
    }

    capture();
    let cleanup = Cleanup::new();
    let guard = PanicsInDrop;
    let step = Step::new("cache", move |_| async move { Ok(drop(guard)) });
    cleanup.push(step).unwrap();
    drop(cleanup);
    assert_eq!(
        lines(Level::ERROR),
        ["ERROR taskgroup: cleanup step `cache` panicked while being dropped: boom"]
    );
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn a_panic_of_a_handler_that_is_caught_is_logged_once_with_its_request() {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    capture();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let request = b"GET /orders?key=7 HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let panics = get(async || if true { panic!("bad byte") } else { "hello" });
    let app = axum::Router::new().route("/orders", panics);
    let token = CancellationToken::new();
    let server = taskgroup::server::axum::serve("http", listener, app)
        .catch_panics()
        .run(&token);
    let server = tokio::spawn(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    token.cancel();
    server.await.unwrap().unwrap();

    assert_eq!(
        lines(Level::ERROR),
        ["ERROR taskgroup: handler of GET /orders panicked: bad byte"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_restart_or_an_abort_by_a_supervisor_is_a_warning_and_a_panic_an_error() {
    capture();
    let second = Duration::from_secs(1);
    let mut group = TaskGroup::builder().name("orders").build().unwrap();
    Supervisor::new("kafka")
        .strategy(Strategy::OneForAll)
        .intensity(2, 60 * second)
        .backoff(Backoff::new(second, second).no_jitter())
        .child("consumer", |_token| ready(Err("the broker is gone".into())))
        .child("deaf", |_token| pending())
        .permanent("parser", |token| async move {
            token.cancelled().await;
            std::panic::resume_unwind(Box::new("bad byte"))
        })
        .spawn(&group)
        .unwrap();
    tokio::time::sleep(second / 2).await;
    let log = LOG.with_borrow_mut(std::mem::take);
    let log = String::from_utf8(log).unwrap();
    let log: Vec<_> = log.lines().map(str::trim).collect();
    assert_eq!(
        log,
        [
            "WARN taskgroup: child `orders/kafka/consumer` failed: the broker is gone; restart in 1s",
            "ERROR taskgroup: child `orders/kafka/parser` panicked: bad byte; it was to stop",
        ]
    );
    group.wait().await.unwrap_err();
    let warnings = lines(Level::WARN);
    let deaf = "WARN taskgroup: child `orders/kafka/deaf` did not stop within 5s and is aborted";
    let last = "WARN taskgroup: child `orders/kafka/consumer` failed: the broker is gone; \
                too many restarts";
    assert_eq!(warnings.iter().filter(|line| *line == deaf).count(), 3);
    assert_eq!(warnings.iter().filter(|line| *line == last).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_one_run_of_many_is_a_warning() {
    capture();
    let token = CancellationToken::new();
    let run = Periodic::new("refresh", Duration::from_secs(1)).backoff(Backoff::default());
    let run = run.run(&token, |_tick| {
        token.cancel();
        ready(Err("no route to host".into()))
    });
    let ended: Result<(), PeriodicError> = run.unwrap().await;
    ended.unwrap();
    assert_eq!(
        lines(Level::WARN),
        ["WARN taskgroup: periodic task `refresh` failed: no route to host"]
    );
}

fn obedient(name: &'static str) -> Component {
    Component::new(name, |ctx| async move {
        ctx.ready();
        Ok(ctx.stopping().await)
    })
}

#[tokio::test(start_paused = true)]
async fn a_lifecycle_that_is_dropped_in_its_run_warns_with_the_names() {
    capture();
    let ended = Component::job("migrate", |_| ready(Ok(())));
    let lifecycle = Lifecycle::new("orders")
        .component(obedient("db"))
        .component(ended)
        .component(obedient("http").after(["db", "migrate"]));
    let handle = lifecycle.handle();
    {
        let mut run = pin!(lifecycle.run());
        let ready = async {
            tokio::select! {
                _ = &mut run => unreachable!(),
                ready = handle.ready() => ready,
            }
        };
        assert_eq!(ready.await, Ok(()));
        assert_eq!(lines(Level::WARN), [""; 0]);
    }
    assert_eq!(
        lines(Level::WARN),
        [
            "WARN taskgroup: lifecycle was dropped before its end: `db`, `http` aborted \
             lifecycle=\"orders\""
        ]
    );
    while !handle.running().is_empty() {
        tokio::task::yield_now().await;
    }
    let debug = lines(Level::DEBUG);
    let dropped = debug.iter().filter(|line| line.contains("before it ended"));
    assert_eq!(
        dropped.count(),
        0,
        "what was aborted had to be dropped: {debug:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lifecycle_that_never_ran_or_has_ended_is_dropped_without_a_word() {
    capture();
    drop(Lifecycle::new("orders").component(obedient("db")));
    drop(obedient("http"));
    let refused = Lifecycle::new("orders").component(obedient("db").after(["nobody"]));
    refused.run().await.unwrap_err();
    let lifecycle = Lifecycle::new("orders").component(obedient("db"));
    let handle = lifecycle.handle();
    handle.stop("never mind");
    drop(lifecycle.run().await.unwrap());
    assert_eq!(lines(Level::WARN), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn whatever_triggers_the_stop_of_a_lifecycle_is_one_line() {
    capture();
    let mut failed = TaskGroup::new();
    failed
        .task("fails")
        .spawn(async { Err::<(), _>("no table".into()) });
    failed.wait().await.unwrap_err();
    lines(Level::INFO);
    let orders = || Lifecycle::new("orders").component(obedient("db"));
    let second = Duration::from_secs(1);
    let stopped = [
        (orders().stop_on(async { "nobody calls" }), "nobody calls"),
        (orders().stop_on(ready(Cause::Reload)), "reloaded"),
        (orders().stop_on(failed.spawner()), "`fails` failed"),
        (orders().stop_on(after(second)), "the deadline of 1s passed"),
    ];
    for (lifecycle, cause) in stopped {
        lifecycle.run().await.unwrap();
        let info = lines(Level::INFO);
        let stopping = info.iter().filter(|line| line.contains(", stopping"));
        let stopping: Vec<_> = stopping.collect();
        assert!(
            matches!(&stopping[..], [line] if line.contains(cause)),
            "{info:#?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_one_line_for_the_trigger_and_one_for_the_end_at_info() {
    capture();
    let lifecycle = Lifecycle::new("orders").component(obedient("db"));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop("the lease was lost");
    run.await.unwrap().unwrap();
    assert_eq!(
        lines(Level::INFO),
        [
            "INFO taskgroup: all components are ready lifecycle=\"orders\" elapsed=0s",
            "INFO taskgroup: cancelled on request: the lease was lost, stopping group=\"orders\" \
             cause=cancelled on request: the lease was lost",
            "INFO taskgroup: shutdown complete lifecycle=\"orders\" elapsed=0s errors=0",
        ]
    );

    let second = Duration::from_secs(1);
    let lifecycle = Lifecycle::new("orders").stop_on(after(second));
    lifecycle.component(obedient("db")).run().await.unwrap();
    let info = lines(Level::INFO);
    let triggers: Vec<_> = info
        .iter()
        .filter(|line| line.contains("deadline"))
        .collect();
    assert_eq!(triggers.len(), 1, "{info:?}");
    assert!(
        info.last().unwrap().contains("shutdown complete"),
        "{info:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn each_failure_of_a_component_is_a_warning_and_each_panic_one_error() {
    capture();
    let second = Duration::from_secs(1);
    let crash = Component::new("worker", |ctx| async move {
        ctx.ready();
        ctx.stopping().await;
        std::panic::resume_unwind(Box::new("bad byte"))
    });
    let deaf = Component::new("deaf", |ctx| async move {
        ctx.ready();
        pending().await
    });
    let lifecycle = Lifecycle::new("orders")
        .component(crash)
        .component(deaf.after(["worker"]).grace(second));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop("enough");
    run.await.unwrap().unwrap();
    let log = LOG.with_borrow_mut(std::mem::take);
    let log = String::from_utf8(log).unwrap();
    let is_loud = |line: &&str| line.starts_with("WARN") || line.starts_with("ERROR");
    let loud: Vec<_> = log.lines().map(str::trim).filter(is_loud).collect();
    let about = |what: &str| loud.iter().filter(|line| line.contains(what)).count();
    assert_eq!(
        about("did not stop within 1s and was forced"),
        1,
        "{loud:#?}"
    );
    assert_eq!(about("component was forced to stop"), 1, "{loud:#?}");
    assert_eq!(about("component failed"), 2, "{loud:#?}");
    let errors = loud.iter().filter(|line| line.starts_with("ERROR"));
    assert_eq!(errors.count(), 1, "{loud:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_stop_logs_the_tasks_that_it_waits_for() {
    capture();
    let grace = Duration::from_secs(20);
    let builder = || TaskGroup::builder().name("orders");
    let mut group = builder().build().unwrap();
    group.task("deaf").spawn(pending::<Result<(), _>>());
    group.shutdown(grace).await.unwrap_err();
    expect_waiting();

    let mut group = builder().grace(grace).build().unwrap();
    group.task("deaf").spawn(pending::<Result<(), _>>());
    group.cancel();
    group.wait().await.unwrap_err();
    expect_waiting();
}

#[track_caller]
fn expect_waiting() {
    let lines = lines(Level::INFO);
    assert_eq!(lines.len(), 2, "{lines:?}");
    let start = "INFO taskgroup: still waiting for 1 task: `orders/deaf` (tests/log.rs:";
    for (line, left) in lines.iter().zip(["(15s left)", "(5s left)"]) {
        assert!(line.starts_with(start), "{line}");
        assert!(line.contains(left), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lifecycle_whose_stop_takes_long_says_now_and_then_what_is_waited_for() {
    capture();
    let deaf = Component::new("deaf", |ctx| async move {
        ctx.ready();
        pending().await
    });
    let second = Duration::from_secs(1);
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::new(60 * second).cleanup(20 * second))
        .component(deaf.grace(20 * second));
    let hangs = Step::new("hangs", |_| pending()).deadline(10 * second);
    lifecycle.cleanup().push(hangs).unwrap();
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop("enough");
    assert!(!run.await.unwrap().unwrap().is_clean());
    let waiting: Vec<_> = lines(Level::INFO)
        .into_iter()
        .filter(|line| line.contains("still waiting"))
        .collect();
    let line =
        |waited: &str| format!("INFO taskgroup: still waiting for {waited} lifecycle=\"orders\"");
    assert_eq!(
        waiting,
        [
            line("`deaf` (15s left)"),
            line("`deaf` (5s left)"),
            line("cleanup step `hangs` (5s left)"),
        ]
    );
}
