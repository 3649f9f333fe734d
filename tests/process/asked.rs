//! What asks a process to stop: which signals count, which are one, and what is left when none can be heard.

use std::future::pending;
use std::time::Duration;

use rustix::process::Resource;
use taskgroup::{BoxError, Exit, Signal, Signals, TaskGroup};

use crate::hangs::limit;
use crate::hangs::memory;
use crate::roles::listen;
use crate::roles::log_to_stderr;
use crate::roles::runtime;
use crate::roles::say;
use crate::roles::success;
use crate::roles::terminate;

pub(crate) fn play(role: &str) -> Exit {
    match role {
        "asked_without_descriptors" => refused(|| limit(Resource::Nofile, 0)),
        // Enough for all but the stack of a thread; a limit of processes would not hold for root.
        "asked_without_threads" => refused(|| limit(Resource::As, memory() + (1 << 20))),
        "asked_of_the_next" => of_the_next(),
        "asked_by_default" => by_default(),
        "asked_what_is_ignored" => what_is_ignored(),
        "asked_in_the_pause" => answering(terminate().insist_after(Duration::from_secs(3600))),
        "asked_to_insist" => answering(terminate().insist_on([Signal::Interrupt]).unwrap()),
        "asked_as_a_group_to_insist" => advised([Signal::Interrupt]),
        "asked_as_a_group_for_ever" => advised([]),
        "asked_in_three_steps" => answering(terminate().escalate()),
        "asked_in_three_steps_of_a_group" => in_three_steps(true),
        "asked_in_three_steps_after_the_group" => in_three_steps(false),
        "asked_without_words" => without_words(),
        _ => unreachable!("no role {role}"),
    }
}

fn refused(take_away: fn()) -> Exit {
    take_away();
    say(Signals::terminate().is_err());
    listen();
    success()
}

/// The first value has received its signal and is gone; the next one waits for a signal of its own.
fn of_the_next() -> Exit {
    let mut first = terminate();
    say("ready");
    say(runtime().block_on(first.recv()));
    drop(first);
    let mut next = terminate();
    say("again");
    say(runtime().block_on(next.recv()));
    success()
}

/// Answers until it is forced.
fn by_default() -> Exit {
    let _signals = Signals::terminate().unwrap();
    loop {
        say("alive");
        listen();
    }
}

/// Says what it hears, and which SIGUSR2 it has heard.
fn answering(mut signals: Signals) -> Exit {
    let mut marks = Signals::watch([Signal::User2]).unwrap();
    say("ready");
    runtime().block_on(async {
        loop {
            tokio::select! {
                signal = signals.recv() => say(signal),
                signal = marks.recv() => say(signal),
            }
        }
    })
}

/// A group that is deaf to its stop, and that only these signals can end.
fn advised(insist: impl IntoIterator<Item = Signal>) -> Exit {
    log_to_stderr();
    runtime().block_on(async {
        let mut group = TaskGroup::new();
        group.cancel_on(terminate().insist_on(insist).unwrap());
        group.task("deaf").spawn(pending::<Result<(), _>>());
        say("ready");
        Exit::from(group.wait().await)
    })
}

/// A group with a deaf task, or one that is over soon in a process that goes on.
fn in_three_steps(is_deaf: bool) -> Exit {
    log_to_stderr();
    runtime().block_on(async {
        let mut group = TaskGroup::new();
        group.cancel_on(terminate().escalate());
        let token = group.token().clone();
        group.spawn(async move {
            token.cancelled().await;
            Ok(say("cancelled"))
        });
        if is_deaf {
            group.task("deaf").spawn(pending::<Result<(), _>>());
        }
        say("ready");
        let result = group.wait().await;
        if !is_deaf {
            say("over");
            pending::<()>().await;
        }
        Exit::from(result)
    })
}

/// Has a failure to report when there is no thread left.
fn without_words() -> Exit {
    limit(Resource::As, memory() + (1 << 20));
    Exit::from(Err::<(), BoxError>("no table".into()))
}

fn what_is_ignored() -> Exit {
    let set = [Signal::Interrupt, Signal::Hangup, Signal::Terminate];
    let mut signals = Signals::terminate_on(set).unwrap();
    say("ready");
    say(runtime().block_on(signals.recv()));
    success()
}
