//! A running `orders`, with its output and its end.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::http;

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What "at once" may take on a machine that is busy with other things.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(5);

const STEP: Duration = Duration::from_millis(5);

/// The two signals that ask for a stop, with the status of an exit that the second one forces.
pub(crate) const STOP_SIGNALS: [(Signal, i32); 2] = [(Signal::INT, 130), (Signal::TERM, 143)];

/// A process that is killed when the test is over.
pub(crate) struct Process {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

/// A process that serves.
pub(crate) struct Service {
    pub(crate) process: Process,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    /// If they were asked for.
    pub(crate) metrics: Option<SocketAddr>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct End {
    /// `None` if a signal killed it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// With all signals as by default: a background job of a script ignores SIGINT, and so would the service.
pub(crate) fn orders() -> Command {
    let orders = env!("CARGO_BIN_EXE_orders");
    if !asks_are_ignored() {
        return Command::new(orders);
    }
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(orders);
    command
}

fn asks_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let is_set = |signal: Signal| mask.unwrap_or_default() >> (signal.as_raw() - 1) & 1 == 1;
    STOP_SIGNALS.iter().any(|(signal, _)| is_set(*signal))
}

/// On free ports, with a database of its own.
pub(crate) fn orders_on_free_ports(options: &[&str]) -> Command {
    let database = format!("sqlite:{}", fresh_path("sqlite").display());
    let mut command = orders();
    command.args([
        "--http",
        "127.0.0.1:0",
        "--grpc",
        "127.0.0.1:0",
        "--db",
        &database,
    ]);
    command.args(options);
    command
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

impl Process {
    pub(crate) fn spawn(command: Command) -> Self {
        let mut process = Self::spawn_unread(command);
        let stdout = process.child.stdout.take().expect("stdout is a pipe");
        collect(stdout, Arc::clone(&process.stdout));
        let stderr = process.child.stderr.take().expect("stderr is a pipe");
        collect(stderr, Arc::clone(&process.stderr));
        process
    }

    /// Its output goes into pipes that nobody reads.
    pub(crate) fn spawn_unread(command: Command) -> Self {
        Self::spawn_with_stderr(command, Stdio::piped())
    }

    fn spawn_with_stderr(mut command: Command, stderr: Stdio) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let child = command.spawn().expect("the binary starts");
        Self {
            child,
            stdout: Arc::default(),
            stderr: Arc::default(),
        }
    }

    /// Closes the pipes that nobody reads.
    pub(crate) fn readers_leave(&mut self) {
        drop(self.child.stdout.take());
        drop(self.child.stderr.take());
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), signal).expect("the process can be signalled");
    }

    pub(crate) fn stdout(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// A set of signals in the process's own words, such as `SigCgt`.
    pub(crate) fn has_in_set(&self, set: &str, signal: Signal) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(set)?.strip_prefix(':'));
        let bits = line.map_or(0, |bits| u64::from_str_radix(bits.trim(), 16).unwrap());
        bits & (1 << (signal.as_raw() - 1)) != 0
    }

    #[track_caller]
    pub(crate) fn wait_for_stderr(&self, text: &str) {
        wait_until(&format!("{text:?} on stderr"), || {
            self.stderr().contains(text)
        });
    }

    /// Sends a signal until the process is gone.
    #[track_caller]
    pub(crate) fn insist(&mut self, signal: Signal) -> End {
        wait_until("the forced end of the process", || {
            self.signal(signal);
            self.child.try_wait().unwrap().is_some()
        });
        self.wait()
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> End {
        let mut status = None;
        wait_until("the end of the process", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        // The pipes close with the process; their readers may be a little behind.
        for output in [&self.stdout, &self.stderr] {
            wait_until("the end of the output", || Arc::strong_count(output) == 1);
        }
        let code = status.and_then(|status| status.code());
        End {
            code,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    /// Starts on free ports and waits for the line that says so.
    #[track_caller]
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_with(orders_on_free_ports(options))
    }

    #[track_caller]
    pub(crate) fn start_with(command: Command) -> Self {
        Self::when_ready(Process::spawn(command))
    }

    /// Its stderr is somewhere else.
    #[track_caller]
    pub(crate) fn start_with_stderr(options: &[&str], stderr: Stdio) -> Self {
        let mut process = Process::spawn_with_stderr(orders_on_free_ports(options), stderr);
        let stdout = process.child.stdout.take().expect("stdout is a pipe");
        collect(stdout, Arc::clone(&process.stdout));
        Self::when_ready(process)
    }

    #[track_caller]
    fn when_ready(mut process: Process) -> Self {
        wait_until("the ready line", || {
            process.stdout().contains('\n') || process.child.try_wait().unwrap().is_some()
        });
        let line = process.stdout();
        Self::ready(process, &line)
    }

    /// Those who read its output leave after the ready line.
    #[track_caller]
    pub(crate) fn start_with_readers_that_leave(options: &[&str]) -> Self {
        let mut process = Process::spawn_unread(orders_on_free_ports(options));
        let mut line = String::new();
        let stdout = process.child.stdout.as_mut().expect("stdout is a pipe");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("stdout is text");
        process.readers_leave();
        Self::ready(process, &line)
    }

    #[track_caller]
    fn ready(mut process: Process, line: &str) -> Self {
        let Some((http, grpc, metrics)) = addresses(line.trim_end()) else {
            panic!(
                "expected the ready line, got {line:?} and {:?}",
                process.wait()
            );
        };
        Self {
            process,
            http,
            grpc,
            metrics,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> End {
        self.process.wait()
    }

    /// Insists with a signal that comes until the process is gone: in the first 300 ms it is the same request.
    #[track_caller]
    pub(crate) fn insist(&mut self, signal: Signal) -> End {
        self.process.insist(signal)
    }

    /// Sends the first of the signals that ask for a stop, and waits until it has been understood.
    #[track_caller]
    pub(crate) fn begin_to_stop(&self, signal: Signal) {
        self.signal(signal);
        wait_until("the begin of the drain", || {
            match http::get(self.http, "/readyz") {
                Ok(answer) => answer.status == 503,
                // It does not listen any more.
                Err(_) => true,
            }
        });
    }
}

impl End {
    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
    }

    #[track_caller]
    pub(crate) fn assert_says(&self, text: &str) {
        assert!(
            self.stderr.contains(text),
            "expected {text:?} in:\n{}",
            self.stderr
        );
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

fn collect(mut pipe: impl Read + Send + 'static, text: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut bytes) {
            text.lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    });
}
