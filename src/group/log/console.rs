//! The lines that a program without a log of its own says on stderr.
//!
//! A library prints nothing, so this is closed until a program that this crate runs opens it. From then on
//! the lines that matter to the person at the terminal, which are events of `tracing` at INFO, are written
//! here as well, as long as no subscriber was ever installed. One that filters them out was installed:
//! its user has chosen.

use std::fmt;
use std::sync::Mutex;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use crate::group::lock::lock;
use crate::group::log::stderr;

/// How many lines wait while nobody reads stderr. Later ones are lost.
const WAITING: usize = 64;

static CONSOLE: Mutex<Console> = Mutex::new(Console::Closed);

enum Console {
    Closed,
    /// No line has come yet.
    Open,
    Writing(Writer),
}

/// A thread that writes the lines: a pipe that is full blocks this thread and nothing else.
struct Writer {
    lines: SyncSender<String>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

/// Begins to write what is said.
pub(crate) fn open() {
    *lock(&CONSOLE) = Console::Open;
}

/// Writes nothing more, and waits until what was said is written, or until `limit` is over.
pub(crate) fn close(limit: Duration) {
    let console = std::mem::replace(&mut *lock(&CONSOLE), Console::Closed);
    if let Console::Writing(Writer { lines, ended }) = console {
        drop(lines);
        let _ = ended.recv_timeout(limit);
    }
}

/// Says a line about the group or lifecycle `name`. Never blocks.
pub(crate) fn say(name: Option<&str>, line: fmt::Arguments<'_>) {
    if tracing::dispatcher::has_been_set() {
        return;
    }
    if let Console::Closed = *lock(&CONSOLE) {
        return;
    }
    // It may print what users have written, so not under the lock.
    let line = match name {
        Some(name) => format!("{name}: {line}"),
        None => line.to_string(),
    };
    let mut console = lock(&CONSOLE);
    if let Console::Open = *console {
        // Without a thread the next line tries again.
        if let Some(writer) = Writer::start() {
            *console = Console::Writing(writer);
        }
    }
    if let Console::Writing(writer) = &*console {
        let _ = writer.lines.try_send(line);
    }
}

impl Writer {
    fn start() -> Option<Self> {
        let (lines, said) = mpsc::sync_channel::<String>(WAITING);
        let (alive, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("taskgroup-console".into());
        let started = thread.spawn(move || {
            // Dropped when all is written.
            let _alive: mpsc::Sender<()> = alive;
            said.iter().for_each(|line| stderr::write_line(&line));
        });
        started.ok().map(|_| Self { lines, ended })
    }
}
