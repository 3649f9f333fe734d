//! What the children do.

use std::future::Future;
use std::future::pending;
use std::future::poll_fn;
use std::io::Write;
use std::pin::pin;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use taskgroup::process::ExitPolicy;
use taskgroup::{BoxError, CancellationToken, Exit, Signal, Signals, TaskGroup};
use tokio::runtime::Runtime;

use crate::asked;
#[cfg(feature = "process")]
use crate::children;
use crate::ends;
use crate::hangs;
use crate::lives;
use crate::mains;

pub(crate) fn play(role: &str) -> Exit {
    // No child outlives its test: one that hangs dies of SIGABRT, which no test expects.
    let (sender, started) = mpsc::channel();
    let limit = thread::Builder::new().name("limit".into());
    let limited = limit.spawn(move || {
        sender.send(()).unwrap();
        thread::sleep(Duration::from_secs(30));
        std::process::abort();
    });
    drop(limited.unwrap());
    // A test that limits or counts what the process has finds it as it will stay.
    started.recv().unwrap();
    match role {
        "recv" => recv(),
        "recv_later" => recv_later(),
        "recv_after_a_dropped_recv" => recv_after_a_dropped_recv(),
        "drain_for_ever" => drain_for_ever(),
        "drop" => drop_signals(),
        "drop_then_recv" => drop_then_recv(),
        "watch" => watch(),
        "two" => two(),
        "many" => many(),
        "group" => group(),
        "group_drains_for_ever" => group_drains_for_ever(),
        "group_has_a_grace" => group_has_a_grace(),
        "group_after_the_signal" => group_after_the_signal(),
        "group_fails" => group_fails(),
        "two_groups" => two_groups(),
        "blocked_runtime" => blocked_runtime(),
        "list" => list(),
        "passive_phase" => passive_phase(),
        "no_listener" => no_listener(),
        "panicking_log" => panicking_log(),
        "second_signal_is_3" => second_signal_is_3(),
        role if role.starts_with("asked_") => asked::play(role),
        #[cfg(feature = "process")]
        role if role.starts_with("children_") => children::play(role),
        role if role.starts_with("platform_") => crate::platform::play(role),
        #[cfg(all(target_os = "linux", feature = "axum"))]
        role if role.starts_with("sockets_") => crate::sockets::play(role),
        role if role.starts_with("lives_") => lives::play(role),
        role if role.starts_with("main_") => mains::play(role),
        #[cfg(feature = "systemd")]
        role if role.starts_with("systemd_") => crate::systemd::play(role),
        role if role.starts_with("watched_") => hangs::play(role),
        role => runtime().block_on(ends::play(role)),
    }
}

/// Says a line to the parent. The parent may be gone: a panic here would change the exit status.
pub(crate) fn say(line: impl std::fmt::Display) {
    let mut stdout = std::io::stdout().lock();
    drop(writeln!(stdout, "{line}").and_then(|()| stdout.flush()));
}

/// Waits until the parent has told something.
pub(crate) fn listen() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

pub(crate) fn success() -> Exit {
    Exit::from(Ok::<(), BoxError>(()))
}

pub(crate) fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

/// SIGINT and SIGTERM, of which the second one counts whenever it comes: no test has to wait for that.
pub(crate) fn terminate() -> Signals {
    Signals::terminate().unwrap().insist_after(Duration::ZERO)
}

/// A group that is cancelled by signals, and what cancels it.
pub(crate) fn stopped_by_signals() -> TaskGroup {
    let group = TaskGroup::builder().name("orders").build().unwrap();
    group.cancel_on(terminate());
    group
}

async fn say_when_cancelled(token: CancellationToken) -> Result<(), BoxError> {
    token.cancelled().await;
    say("cancelled");
    Ok(())
}

fn recv() -> Exit {
    let mut signals = terminate();
    say("ready");
    say(runtime().block_on(signals.recv()));
    success()
}

/// There is no runtime when the signal comes.
fn recv_later() -> Exit {
    let mut signals = terminate();
    say("ready");
    listen();
    say(runtime().block_on(signals.recv()));
    success()
}

fn recv_after_a_dropped_recv() -> Exit {
    let mut signals = terminate();
    runtime().block_on(async {
        for _ in 0..3 {
            let mut recv = pin!(signals.recv());
            poll_fn(|cx| Poll::Ready(assert!(recv.as_mut().poll(cx).is_pending()))).await;
        }
        say("ready");
        say(signals.recv().await);
    });
    success()
}

fn drain_for_ever() -> Exit {
    let mut signals = terminate();
    say("ready");
    runtime().block_on(async {
        say(signals.recv().await);
        pending().await
    })
}

fn drop_signals() -> Exit {
    drop(terminate());
    let mut marks = Signals::watch([Signal::User2]).unwrap();
    say("ready");
    runtime().block_on(async {
        loop {
            say(marks.recv().await);
        }
    })
}

/// The set is the same in whatever order it is written.
fn drop_then_recv() -> Exit {
    drop(Signals::terminate_on([Signal::Interrupt, Signal::Terminate]).unwrap());
    say("dropped");
    listen();
    let mut signals = Signals::terminate_on([Signal::Terminate, Signal::Interrupt]).unwrap();
    say(runtime().block_on(signals.recv()));
    success()
}

fn watch() -> Exit {
    let mut signals = Signals::watch([Signal::User1, Signal::Terminate]).unwrap();
    say("ready");
    runtime().block_on(async {
        for _ in 0..4 {
            say(signals.recv().await);
        }
    });
    success()
}

fn two() -> Exit {
    let mut one = terminate();
    let other = Signals::terminate_on([Signal::Terminate, Signal::Hangup]).unwrap();
    let mut other = other.insist_after(Duration::ZERO);
    say("ready");
    runtime().block_on(async {
        say(one.recv().await);
        say(other.recv().await);
        pending().await
    })
}

/// Makes and drops values in a loop, and says what is left of them.
fn many() -> Exit {
    let count = |what: &str| {
        std::fs::read_dir(format!("/proc/self/{what}"))
            .unwrap()
            .count()
    };
    // The one thread that hears all signals, and its pipe, are there for good.
    let first = (terminate(), count("task"));
    let with_both = first.1;
    drop(first);
    while count("task") >= with_both {
        thread::yield_now();
    }
    let before = (count("task"), count("fd"));
    for _ in 0..50 {
        drop(terminate());
        drop(Signals::watch([Signal::User2]).unwrap());
    }
    // The threads end by themselves, soon; a test that fails hangs here until it is aborted.
    while (count("task"), count("fd")) != before {
        thread::yield_now();
    }
    say("nothing is left");
    success()
}

fn group() -> Exit {
    log_to_stderr();
    runtime().block_on(async {
        let mut group = stopped_by_signals();
        group.spawn(say_when_cancelled(group.token().clone()));
        say("ready");
        let result = group.wait().await;
        say(group.cause().unwrap());
        Exit::from(result)
    })
}

fn group_drains_for_ever() -> Exit {
    log_to_stderr();
    runtime().block_on(async {
        let mut group = stopped_by_signals();
        group.spawn(say_when_cancelled(group.token().clone()));
        group.spawn(pending::<Result<(), _>>());
        say("ready");
        Exit::from(group.wait().await)
    })
}

fn group_has_a_grace() -> Exit {
    runtime().block_on(async {
        let grace = Duration::from_millis(50);
        let mut group = TaskGroup::builder().grace(grace).build().unwrap();
        group.cancel_on(terminate());
        group.task("deaf").spawn(pending::<Result<(), _>>());
        say("ready");
        Exit::from(group.wait().await)
    })
}

fn group_after_the_signal() -> Exit {
    let signals = terminate();
    say("ready");
    listen();
    runtime().block_on(async {
        let mut group = TaskGroup::new();
        group.cancel_on(signals);
        group.spawn(say_when_cancelled(group.token().clone()));
        Exit::from(group.wait().await)
    })
}

/// A failure cancels the group; the listener is no reason to go on.
fn group_fails() -> Exit {
    log_to_stderr();
    runtime().block_on(async {
        let mut group = stopped_by_signals();
        let token = group.token().clone();
        group
            .task("worker")
            .spawn(async { Err::<(), _>("no table".into()) });
        group.spawn(async move {
            token.cancelled().await;
            say("draining");
            tokio::task::spawn_blocking(listen).await?;
            Ok(())
        });
        Exit::from(group.wait().await)
    })
}

fn two_groups() -> Exit {
    runtime().block_on(async {
        let (mut one, mut other) = (stopped_by_signals(), stopped_by_signals());
        one.spawn(say_when_cancelled(one.token().clone()));
        other.spawn(say_when_cancelled(other.token().clone()));
        say("ready");
        let result = one.wait().await.and(other.wait().await);
        Exit::from(result)
    })
}

/// Every thread of the runtime sleeps forever, the one of `block_on` too.
fn blocked_runtime() -> Exit {
    log_to_stderr();
    let block = || loop {
        say("blocked");
        thread::sleep(Duration::MAX);
    };
    runtime().block_on(async {
        let group = stopped_by_signals();
        group.list_on(Signals::watch([Signal::User1]).unwrap());
        let token = group.token().clone();
        thread::spawn(move || futures_wait(token));
        for _ in 0..2 {
            group.task("stuck").spawn(async move {
                block();
                Ok(())
            });
        }
        block();
    });
    success()
}

/// Says it when the token fires, on a thread that no runtime has to wake.
fn futures_wait(token: CancellationToken) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    drop(runtime.block_on(say_when_cancelled(token)));
}

fn list() -> Exit {
    log_to_stderr();
    runtime().block_on(async {
        let mut group = stopped_by_signals();
        group.list_on(Signals::watch([Signal::User1]).unwrap());
        let wait = |token: CancellationToken| async move { Ok(token.cancelled().await) };
        group.task("kafka").spawn(wait(group.token().clone()));
        for _ in 0..3 {
            group.spawn(wait(group.token().clone()));
        }
        say("ready");
        Exit::from(group.wait().await)
    })
}

fn passive_phase() -> Exit {
    runtime().block_on(async {
        let mut group = stopped_by_signals();
        group.spawn(say_when_cancelled(group.token().clone()));
        say("ready");
        group.wait().await.unwrap();
        say("over");
        pending().await
    })
}

/// The listeners of a group that is over, and of one that was dropped, are gone.
fn no_listener() -> Exit {
    let listening = || {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let names = threads
            .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok());
        names
            .filter(|name| name.starts_with("taskgroup-sig"))
            .count()
    };
    runtime().block_on(async {
        let (mut over, dropped) = (stopped_by_signals(), stopped_by_signals());
        // A thread gives itself its name.
        while listening() < 2 {
            tokio::task::yield_now().await;
        }
        say("listening");
        over.cancel();
        over.wait().await.unwrap();
        drop(dropped);
        while listening() > 0 {
            tokio::task::yield_now().await;
        }
        say("not listening");
        Exit::from(over.wait().await)
    })
}

/// What a subscriber does that writes to a pipe whose reader is gone.
struct PanickingLog;

impl tracing::Subscriber for PanickingLog {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        say("logged");
        panic!("the reader is gone");
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

fn panicking_log() -> Exit {
    runtime().block_on(async {
        let group = TaskGroup::new();
        group.list_on(Signals::watch([Signal::User1]).unwrap());
        tracing::subscriber::set_global_default(PanickingLog).unwrap();
        say("ready");
        pending::<()>().await;
    });
    success()
}

fn second_signal_is_3() -> Exit {
    let policy = ExitPolicy::strict().second_signal(3);
    let signals = policy.terminate_on([Signal::Terminate]).unwrap();
    let mut signals = signals.insist_after(Duration::ZERO);
    say("ready");
    runtime().block_on(async {
        say(signals.recv().await);
        pending().await
    })
}
