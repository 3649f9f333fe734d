//! What the children do.

use std::future::Future;
use std::future::pending;
use std::future::poll_fn;
use std::io::Write;
use std::pin::pin;
use std::process::ExitCode;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use taskgroup::Signal;
use taskgroup::Signals;
use tokio::runtime::Runtime;

pub(crate) fn play(role: &str) -> ExitCode {
    // No child outlives its test: one that hangs dies of SIGABRT, which no test expects.
    thread::spawn(|| {
        thread::sleep(Duration::from_secs(30));
        std::process::abort();
    });
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
        _ => unreachable!("no role {role}"),
    }
}

/// Says a line to the parent. The parent may be gone: a panic here would change the exit status.
pub(crate) fn say(line: impl std::fmt::Display) {
    let mut stdout = std::io::stdout().lock();
    drop(writeln!(stdout, "{line}").and_then(|()| stdout.flush()));
}

/// Waits until the parent has told something.
fn listen() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn recv() -> ExitCode {
    let mut signals = Signals::terminate().unwrap();
    say("ready");
    say(runtime().block_on(signals.recv()));
    ExitCode::SUCCESS
}

/// There is no runtime when the signal comes.
fn recv_later() -> ExitCode {
    let mut signals = Signals::terminate().unwrap();
    say("ready");
    listen();
    say(runtime().block_on(signals.recv()));
    ExitCode::SUCCESS
}

fn recv_after_a_dropped_recv() -> ExitCode {
    let mut signals = Signals::terminate().unwrap();
    runtime().block_on(async {
        for _ in 0..3 {
            let mut recv = pin!(signals.recv());
            poll_fn(|cx| Poll::Ready(assert!(recv.as_mut().poll(cx).is_pending()))).await;
        }
        say("ready");
        say(signals.recv().await);
    });
    ExitCode::SUCCESS
}

fn drain_for_ever() -> ExitCode {
    let mut signals = Signals::terminate().unwrap();
    say("ready");
    runtime().block_on(async {
        say(signals.recv().await);
        pending().await
    })
}

fn drop_signals() -> ExitCode {
    drop(Signals::terminate().unwrap());
    loop {
        say("alive");
        listen();
    }
}

fn drop_then_recv() -> ExitCode {
    drop(Signals::terminate().unwrap());
    say("dropped");
    listen();
    let mut signals = Signals::terminate().unwrap();
    say(runtime().block_on(signals.recv()));
    ExitCode::SUCCESS
}

fn watch() -> ExitCode {
    let mut signals = Signals::watch([Signal::User1, Signal::Terminate]).unwrap();
    say("ready");
    runtime().block_on(async {
        for _ in 0..4 {
            say(signals.recv().await);
        }
    });
    ExitCode::SUCCESS
}

fn two() -> ExitCode {
    let mut one = Signals::terminate().unwrap();
    let mut other = Signals::terminate_on([Signal::Terminate, Signal::Hangup]).unwrap();
    say("ready");
    runtime().block_on(async {
        say(one.recv().await);
        say(other.recv().await);
        pending().await
    })
}

/// Makes and drops values in a loop, and says what is left of them.
fn many() -> ExitCode {
    let count = |what: &str| {
        std::fs::read_dir(format!("/proc/self/{what}"))
            .unwrap()
            .count()
    };
    let before = (count("task"), count("fd"));
    for _ in 0..50 {
        drop(Signals::terminate().unwrap());
        drop(Signals::watch([Signal::User2]).unwrap());
    }
    // The threads end by themselves, soon; a test that fails hangs here until it is aborted.
    while (count("task"), count("fd")) != before {
        thread::yield_now();
    }
    say("nothing is left");
    ExitCode::SUCCESS
}
