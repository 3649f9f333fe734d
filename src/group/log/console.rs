//! The lines that a program without its own log writes to stderr.
//!
//! A library does not print, so this is closed until a program that this crate runs opens it. From then
//! on it also writes the lines that matter to a person at the terminal, which are `tracing` events at
//! INFO. It stops once a subscriber is installed, even one that filters them out, because then the user
//! has chosen.

use std::fmt;
use std::sync::Mutex;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use crate::group::lock::lock;
use crate::group::log::stderr;

/// How many lines can wait while stderr has no reader. Later lines are lost.
const WAITING: usize = 64;

static CONSOLE: Mutex<Console> = Mutex::new(Console::Closed);

enum Console {
    Closed,
    /// No line has come yet.
    Open,
    Writing(Writer),
}

/// A thread that writes the lines, so that a full pipe blocks only this thread.
struct Writer {
    lines: SyncSender<String>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

/// Begins to write the lines.
pub(crate) fn open() {
    *lock(&CONSOLE) = Console::Open;
}

/// Stops accepting lines, and waits until the earlier ones are written or `limit` is over.
pub(crate) fn close(limit: Duration) {
    let console = std::mem::replace(&mut *lock(&CONSOLE), Console::Closed);
    if let Console::Writing(Writer { lines, ended }) = console {
        drop(lines);
        let _ = ended.recv_timeout(limit);
    }
}

/// Writes a line about the group or lifecycle `name`. Never blocks.
pub(crate) fn say(name: Option<&str>, line: fmt::Arguments<'_>) {
    if tracing::dispatcher::has_been_set() {
        return;
    }
    if let Console::Closed = *lock(&CONSOLE) {
        return;
    }
    // Formatting may run user code, so it happens outside the lock.
    let line = match name {
        Some(name) => format!("{name}: {line}"),
        None => line.to_string(),
    };
    let mut console = lock(&CONSOLE);
    if let Console::Open = *console {
        // If no thread can start, the next line tries again.
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
            // Dropped when all lines are written.
            let _alive: mpsc::Sender<()> = alive;
            said.iter().for_each(|line| stderr::write_line(&line));
        });
        started.ok().map(|_| Self { lines, ended })
    }
}
