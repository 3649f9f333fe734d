//! A running `orders`, on free ports.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use taskgroup::Signal;
use taskgroup::testing::{Binary, Ended, Process};

use crate::http;

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What "at once" may take on a machine that is busy with other things.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(5);

const STEP: Duration = Duration::from_millis(5);

/// The two signals that ask for a stop, with the status of an exit that the second one forces.
pub(crate) const STOP_SIGNALS: [(Signal, i32); 2] =
    [(Signal::Interrupt, 130), (Signal::Terminate, 143)];

/// A process that serves.
pub(crate) struct Service {
    pub(crate) process: Process,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    /// If they were asked for.
    pub(crate) metrics: Option<SocketAddr>,
}

pub(crate) fn orders() -> Binary {
    Binary::new(env!("CARGO_BIN_EXE_orders")).patience(PATIENCE)
}

/// On free ports, with a database of its own.
pub(crate) fn orders_on_free_ports(options: &[&str]) -> Binary {
    let database = format!("sqlite:{}", fresh_path("sqlite").display());
    let ports = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
    orders()
        .args(ports)
        .args(["--db", &database])
        .args(options.iter().copied())
}

/// A path that no other test uses, and that does not exist.
pub(crate) fn fresh_path(extension: &str) -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("orders-{}-{number}.{extension}", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_file(&path);
    path
}

#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    look_until(what, condition, || thread::sleep(STEP));
}

/// Misses as little as possible of what happens right after the condition has come about.
#[track_caller]
pub(crate) fn spin_until(what: &str, condition: impl FnMut() -> bool) {
    look_until(what, condition, thread::yield_now);
}

#[track_caller]
fn look_until(what: &str, mut condition: impl FnMut() -> bool, pause: fn()) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "{what} has not come about");
        pause();
    }
}

/// Nobody reads what it writes, and the readers have left.
pub(crate) fn unread(command: &mut Command) {
    let gone = || {
        let (_, theirs) = UnixStream::pair().expect("a pair of sockets");
        OwnedFd::from(theirs)
    };
    command.stdout(gone()).stderr(gone());
}

impl Service {
    /// Starts on free ports and waits for the line that says so.
    #[track_caller]
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_with(&orders_on_free_ports(options))
    }

    #[track_caller]
    pub(crate) fn start_with(binary: &Binary) -> Self {
        Self::start_changed(binary, |_| {})
    }

    /// Starts it with another stderr, say.
    #[track_caller]
    pub(crate) fn start_changed(binary: &Binary, change: impl FnOnce(&mut Command)) -> Self {
        let process = binary.start_with(change);
        let line = process.ready_line("ready http=");
        Self::ready(process, &line)
    }

    /// Those who read its output leave after the ready line.
    #[track_caller]
    pub(crate) fn start_with_readers_that_leave(options: &[&str]) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let stderr = OwnedFd::from(theirs.try_clone().expect("a descriptor"));
        let process = orders_on_free_ports(options).start_with(|command| {
            command.stdout(OwnedFd::from(theirs)).stderr(stderr);
        });
        let mut lines = BufReader::new(ours).lines().map_while(Result::ok);
        let line = lines.find(|line| line.starts_with("ready "));
        Self::ready(process, &line.unwrap_or_default())
    }

    #[track_caller]
    fn ready(process: Process, line: &str) -> Self {
        let Some((http, grpc, metrics)) = addresses(line.trim_end()) else {
            panic!(
                "expected the ready line, got {line:?}:\n{}",
                process.story()
            );
        };
        Self {
            process,
            http,
            grpc,
            metrics,
        }
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    #[track_caller]
    pub(crate) fn wait(&self) -> Ended {
        self.process.wait()
    }

    #[track_caller]
    pub(crate) fn insist(&self, signal: Signal) -> Ended {
        self.process.insist(signal)
    }

    /// Sends the first of the signals that ask for a stop, and waits until it has been understood.
    #[track_caller]
    pub(crate) fn begin_to_stop(&self, signal: Signal) {
        self.process.deliver(signal);
        wait_until("the begin of the drain", || {
            match http::get(self.http, "/readyz") {
                Ok(answer) => answer.status == 503,
                // It no longer listens.
                Err(_) => true,
            }
        });
    }
}

fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr, Option<SocketAddr>)> {
    let (http, rest) = line.strip_prefix("ready http=")?.split_once(" grpc=")?;
    let (grpc, metrics) = match rest.split_once(" metrics=") {
        Some((grpc, metrics)) => (grpc, Some(metrics.parse().ok()?)),
        None => (rest, None),
    };
    Some((http.parse().ok()?, grpc.parse().ok()?, metrics))
}
