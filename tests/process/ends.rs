//! The ways in which a `main` ends.

use std::future::pending;
use std::io;
use std::thread;
use std::time::Duration;

use taskgroup::group::Trigger;
use taskgroup::process::{ExitPolicy, Heartbeat, StopFile};
use taskgroup::{BoxError, Cause, Exit, Sidecar, Signals, TaskError, TaskGroup};

use crate::roles::say;

pub(crate) async fn play(role: &str) -> Exit {
    match role {
        "done" => Exit::from(TaskGroup::new().wait().await),
        "failed" => Exit::from(failed().await),
        "stderr_is_locked" => {
            thread::spawn(|| {
                let _held = io::stderr().lock();
                say("locked");
                loop {
                    thread::sleep(Duration::MAX);
                }
            });
            told().await;
            Exit::from(boxed().await)
        }
        "panicked" => Exit::from(panicked().await),
        "ended_early" => Exit::from(ended_early().await),
        "timed_out" => Exit::from(timed_out().await),
        "boxed" => Exit::from(boxed().await),
        "own_code" => ExitPolicy::strict()
            .code_from(own_code)
            .exit(failed().await),
        "lenient" => ExitPolicy::lenient().exit(timed_out().await),
        "now" => stuck().await,
        "logged_failure" => {
            log_everything();
            Exit::from(failed().await)
        }
        "logged_panic" => {
            log_everything();
            say("ready");
            told().await;
            Exit::from(panicked().await)
        }
        "logged_signal" => {
            log_everything();
            signalled(ExitPolicy::strict(), Duration::MAX).await
        }
        "logged_drain" => {
            log_everything();
            let http = Sidecar::new("http");
            let mut group = TaskGroup::new();
            let token = group.token().clone();
            group.spawn(http.serve(&token, |stop| async move {
                stop.await;
                Ok::<_, BoxError>(())
            }));
            say("ready");
            told().await;
            group.cancel();
            Exit::from(group.wait().await)
        }
        "stop_file" => {
            let path = std::env::temp_dir().join(format!("taskgroup-stop-{}", std::process::id()));
            // Of a run that was killed, in a process with the same number.
            drop(std::fs::remove_file(&path));
            let file = StopFile::new(&path).every(Duration::from_millis(10));
            triggered(file, || say(path.display())).await
        }
        "lost_heartbeat" => {
            let (_heartbeat, monitor) = Heartbeat::new("lease", Duration::from_millis(10));
            triggered(monitor, || ()).await
        }
        "signal_clean" => signalled(ExitPolicy::strict(), Duration::MAX).await,
        "signal_128" => signalled(ExitPolicy::strict().signal(None), Duration::MAX).await,
        "signal_timed_out" => signalled(ExitPolicy::strict(), Duration::ZERO).await,
        "signal_timed_out_lenient" => signalled(ExitPolicy::lenient(), Duration::ZERO).await,
        "signal_timed_out_lenient_error_alone" => {
            let (result, _) = stopped_by_a_signal(Duration::ZERO).await;
            ExitPolicy::lenient().exit(result)
        }
        "signal_reraised" => signalled(ExitPolicy::strict().reraise(), Duration::MAX).await,
        "signal_timed_out_reraised" => {
            signalled(ExitPolicy::strict().reraise(), Duration::ZERO).await
        }
        _ => unreachable!("no role {role}"),
    }
}

/// As a service has it that logs to stderr. This subscriber panics when stderr is closed.
fn log_everything() {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(io::stderr)
        .init();
}

/// Waits until the parent has closed stdin's pipe or told something: then it has closed the others.
async fn told() {
    let listen = || io::stdin().read_line(&mut String::new());
    tokio::task::spawn_blocking(listen).await.unwrap().unwrap();
}

/// Runs until the trigger comes.
async fn triggered(trigger: impl Trigger, then: impl FnOnce()) -> Exit {
    log_everything();
    let mut group = TaskGroup::builder().name("orders").build().unwrap();
    group.cancel_on(trigger);
    let token = group.token().clone();
    group.spawn(async move {
        token.cancelled().await;
        say("cancelled");
        Ok(())
    });
    then();
    Exit::from(group.wait().await)
}

async fn failed() -> Result<(), TaskError> {
    say("ready");
    told().await;
    let mut group = TaskGroup::new();
    group
        .task("worker")
        .spawn(async { Err::<(), _>("no table".into()) });
    group.wait().await
}

async fn panicked() -> Result<(), TaskError> {
    let mut group = TaskGroup::new();
    group.task("worker").spawn(async {
        if true {
            panic!("no table");
        }
        Ok(())
    });
    group.wait().await
}

async fn ended_early() -> Result<(), TaskError> {
    let mut group = TaskGroup::new();
    group.task("worker").essential().spawn(async { Ok(()) });
    group.wait().await
}

async fn timed_out() -> Result<(), TaskError> {
    let mut group = TaskGroup::new();
    group.task("worker").spawn(pending::<Result<(), _>>());
    group.shutdown(Duration::ZERO).await
}

async fn boxed() -> Result<(), BoxError> {
    timed_out().await?;
    Ok(())
}

fn own_code(error: &(dyn std::error::Error + 'static)) -> Option<u8> {
    (format!("{error:#}") == "no table").then_some(78)
}

/// A closure that nothing can end would keep the runtime, and so the process, alive.
async fn stuck() -> Exit {
    let mut group = TaskGroup::new();
    let (started, starts) = tokio::sync::oneshot::channel();
    group.task("stuck").spawn_blocking(|_| {
        started.send(()).unwrap();
        thread::sleep(Duration::MAX);
        Ok(())
    });
    starts.await.unwrap();
    let error = group.shutdown(Duration::ZERO).await.unwrap_err();
    assert!(!error.still_running().is_empty());
    Exit::from(Err::<(), _>(error)).now()
}

async fn signalled(policy: ExitPolicy, grace: Duration) -> Exit {
    let (result, cause) = stopped_by_a_signal(grace).await;
    policy.exit_caused_by(result, cause)
}

/// Waits for a signal; with a grace of zero the drain times out.
async fn stopped_by_a_signal(grace: Duration) -> (Result<(), TaskError>, Option<Cause>) {
    let mut group = TaskGroup::new();
    group.cancel_on(Signals::terminate().unwrap());
    let token = group.token().clone();
    group.task("worker").spawn(async move {
        token.cancelled().await;
        if grace.is_zero() {
            pending::<()>().await;
        }
        Ok(())
    });
    say("ready");
    group.token().clone().cancelled().await;
    (group.shutdown(grace).await, group.cause())
}
