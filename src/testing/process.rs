//! [`Process`]: a program under test, running as its own process.

mod output;
mod status;

use std::fmt;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal;
use nix::unistd::Pid;

use crate::group::lock::Lock;
use crate::group::signal::Signal;
use crate::group::time::Rounded;
use crate::testing::directory::Directory;
use crate::testing::ended::Ended;
use crate::testing::journal::Journal;

use self::output::Output;
use self::output::Source;

/// A program under test, running as its own process.
///
/// Each wait is bounded by the [patience](super::Binary::patience), and ends when the process does. The test
/// then fails with the whole story, which is the command, the actions of the test, each line that the process
/// wrote, and its end.
///
/// # Ready
///
/// [`ready_line`](Self::ready_line), [`ready_port`](Self::ready_port), [`ready_http`](Self::ready_http) and
/// [`ready_notify`](Self::ready_notify) first wait until the program reports that it is ready. Then they wait
/// until it has a handler for SIGTERM, because an earlier signal would kill it. Only Linux tells whether it
/// has one.
///
/// # Drop
///
/// The process and its whole group are killed, and gone when the drop returns.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::Signal;
/// use taskgroup::testing::Binary;
///
/// let script = "trap 'echo stopping; exit 0' TERM; echo ready; while true; do sleep 0.01; done";
/// let process = Binary::new("sh").args(["-c", script]).start();
/// process.ready_line("ready");
/// process.signal(Signal::Terminate);
/// let end = process.wait();
/// end.assert_code(0).assert_within(Duration::from_secs(10)).assert_nothing_left();
/// assert_eq!(end.stdout(), "ready\nstopping\n");
/// ```
pub struct Process {
    id: u32,
    patience: Duration,
    journal: Journal,
    output: Output,
    began: Instant,
    state: Lock<State>,
    directory: Option<Directory>,
    _notify: Option<Directory>,
}

struct State {
    child: Child,
    /// When it was first asked to stop.
    asked: Option<Instant>,
    /// The status, once it has ended.
    status: Option<ExitStatus>,
}

/// The settings to start a process with.
pub(super) struct Start {
    pub(super) command: Command,
    pub(super) patience: Duration,
    pub(super) directory: Option<Directory>,
    pub(super) notify: Option<(Directory, UnixDatagram)>,
}

/// The pause between two looks of a wait.
const STEP: Duration = Duration::from_millis(2);

/// How long reading the output of a process may take after its end.
const READING: Duration = Duration::from_secs(5);

impl Process {
    #[track_caller]
    pub(super) fn start(start: Start) -> Self {
        let mut command = start.command;
        let journal = Journal::new();
        let words = [command.get_program()]
            .into_iter()
            .chain(command.get_args());
        let words: Vec<_> = words.map(|word| format!("{word:?}")).collect();
        journal.note(words.join(" "));
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {command:?}: {error}"),
        };
        journal.note(format_args!("pid {}", child.id()));
        let output = Output::new(&journal);
        if let Some(stdout) = child.stdout.take() {
            output.collect(Source::Stdout, stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            output.collect(Source::Stderr, stderr);
        }
        let (notify, socket) = start.notify.unzip();
        if let Some(socket) = socket {
            output.listen(socket);
        }
        Self {
            id: child.id(),
            patience: start.patience,
            journal,
            output,
            began: Instant::now(),
            state: Lock::new(State {
                child,
                asked: None,
                status: None,
            }),
            directory: start.directory,
            _notify: notify,
        }
    }

    /// Returns its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns its working directory, if the process has a [new one](super::Binary::in_a_new_directory).
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_ref().map(Directory::path)
    }

    /// Returns what it has written to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.output.text(Source::Stdout)
    }

    /// Returns what it has written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.output.text(Source::Stderr)
    }

    /// Returns its messages so far to the socket that [stands in for systemd's](super::Binary::notified),
    /// with a line for each assignment, such as `READY=1`, `MAINPID=17`, `STOPPING=1` or `WATCHDOG=1`.
    #[must_use]
    pub fn notified(&self) -> Vec<String> {
        let text = self.output.text(Source::Notify);
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for a line on stdout or stderr that contains `part`, and returns it.
    ///
    /// # Panics
    ///
    /// It does not come in time, or the process ends without it.
    #[track_caller]
    pub fn line(&self, part: &str) -> String {
        let mut found = None;
        self.until(&format!("a line with {part:?}"), |process| {
            found = process.output.find(part);
            found.is_some()
        });
        found.unwrap_or_default()
    }

    /// Waits until `condition` holds. `what` names the condition.
    ///
    /// # Panics
    ///
    /// It does not hold in time, or the process ends before it does.
    #[track_caller]
    pub fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        loop {
            // In this order, so that the last action and the last output of the process count.
            let is_over = self.is_over();
            if is_over {
                self.read_the_rest();
            }
            if condition(self) {
                return;
            }
            let waited = began.elapsed();
            if is_over {
                self.fail(&format!("the process has ended without {what}"));
            }
            if waited >= self.patience {
                self.fail(&format!("{what} has not come within {}", Rounded(waited)));
            }
            thread::sleep(STEP);
        }
    }

    /// Waits for a line that contains `part` and for a handler of SIGTERM, and returns the line. See
    /// [Ready](#ready).
    ///
    /// # Panics
    ///
    /// As [`until`](Self::until).
    #[track_caller]
    pub fn ready_line(&self, part: &str) -> String {
        let line = self.line(part);
        self.has_handler();
        line
    }

    /// Waits until a server listens at `address`, and for a handler of SIGTERM.
    ///
    /// # Panics
    ///
    /// As [`until`](Self::until).
    #[track_caller]
    pub fn ready_port(&self, address: SocketAddr) {
        self.until(&format!("a listener on {address}"), |_| {
            TcpStream::connect(address).is_ok()
        });
        self.has_handler();
    }

    /// Waits until `GET path` at `address` is answered with 200, and for a handler of SIGTERM.
    ///
    /// # Panics
    ///
    /// As [`until`](Self::until).
    #[track_caller]
    pub fn ready_http(&self, address: SocketAddr, path: &str) {
        let patience = self.patience;
        self.until(&format!("a 200 of http://{address}{path}"), |_| {
            get(address, path, patience).is_ok_and(|(status, _)| status == 200)
        });
        self.has_handler();
    }

    /// Waits until it has told systemd that it is ready, and for a handler of SIGTERM.
    ///
    /// # Panics
    ///
    /// As [`until`](Self::until).
    #[track_caller]
    pub fn ready_notify(&self) {
        self.until("READY=1", |process| {
            process.notified().iter().any(|line| line == "READY=1")
        });
        self.has_handler();
    }

    #[track_caller]
    fn has_handler(&self) {
        if cfg!(target_os = "linux") {
            self.until("a handler of SIGTERM", |process| {
                process.catches(Signal::Terminate)
            });
        }
        self.journal.note("it is ready");
    }

    /// Returns whether it has a handler for this signal. Outside of Linux it returns `false`.
    #[must_use]
    pub fn catches(&self, signal: Signal) -> bool {
        status::has(self.id, &["SigCgt"], signal)
    }

    /// Sends a signal, and returns at once.
    ///
    /// # Panics
    ///
    /// The system refuses it. It does not panic if the process is gone.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        self.state.lock().asked.get_or_insert_with(Instant::now);
        self.journal.note(format_args!("is sent {signal}"));
        self.send(i32::from(signal.number()));
    }

    /// Sends a signal, and waits until a handler of the process has taken it.
    ///
    /// It reads the state of the process, without a connection to it. The signal counts as taken when the
    /// handler runs, and the program may react a moment later. Outside of Linux it returns at once.
    ///
    /// # Panics
    ///
    /// The process blocks the signal for longer than the patience. It does not panic if the process ends.
    #[track_caller]
    pub fn deliver(&self, signal: Signal) {
        self.signal(signal);
        let pending = ["SigPnd", "ShdPnd"];
        let began = Instant::now();
        while !self.is_over() && status::has(self.id, &pending, signal) {
            if began.elapsed() >= self.patience {
                self.fail(&format!("it has not taken {signal}"));
            }
            thread::sleep(STEP);
        }
    }

    /// Waits until the process has accepted a connection, and read all that was sent on it.
    ///
    /// A test that stops a service while a request is in flight can then be sure that it is. It takes no
    /// connection of its own. Only Linux tells, elsewhere it returns at once. The peer must be in the same
    /// network namespace.
    ///
    /// # Panics
    ///
    /// It is not read within the patience, or the process has ended.
    #[track_caller]
    pub fn reads(&self, connection: &TcpStream) {
        let ends = connection
            .peer_addr()
            .and_then(|peer| Ok((peer, connection.local_addr()?)));
        let Ok((there, here)) = ends else {
            self.fail("the connection is gone")
        };
        let began = Instant::now();
        while cfg!(target_os = "linux") && status::has_read(there, here) != Some(true) {
            if self.is_over() || began.elapsed() >= self.patience {
                self.fail(&format!("what {here} has sent to {there} is not read"));
            }
            thread::sleep(STEP);
        }
    }

    /// Sends a signal again and again until the process is gone. Repeats are needed because a signal right
    /// after the first one is the same request.
    ///
    /// # Panics
    ///
    /// It does not end in time.
    #[track_caller]
    pub fn insist(&self, signal: Signal) -> Ended {
        self.signal(signal);
        let began = Instant::now();
        while !self.is_over() && began.elapsed() < self.patience {
            self.send(i32::from(signal.number()));
            thread::sleep(STEP);
        }
        self.wait()
    }

    /// Kills only the process with SIGKILL, and not its group.
    pub fn kill(&self) {
        self.state.lock().asked.get_or_insert_with(Instant::now);
        self.journal.note("is killed");
        // The process may be gone.
        let _ = self.state.lock().child.kill();
    }

    /// Waits until the process has ended, and all that it wrote is read.
    ///
    /// A child that it leaves behind may still write to stdout and stderr, but this does not wait for that.
    ///
    /// # Panics
    ///
    /// It does not end in time.
    #[track_caller]
    pub fn wait(&self) -> Ended {
        let began = Instant::now();
        while !self.is_over() {
            if began.elapsed() >= self.patience {
                self.fail(&format!(
                    "it has not ended within {}",
                    Rounded(self.patience)
                ));
            }
            thread::sleep(STEP);
        }
        let (asked, status) = {
            let state = self.state.lock();
            (state.asked, state.status)
        };
        let took = asked.unwrap_or(self.began).elapsed();
        let mut left = status::left_by(self.id);
        self.read_the_rest();
        if let Some(directory) = self.directory() {
            left.extend(files(directory));
        }
        Ended::new(
            status,
            took,
            [self.stdout(), self.stderr()],
            left,
            self.journal.clone(),
        )
    }

    /// Returns the whole story, with the actions of the test and each line of output.
    #[must_use]
    pub fn story(&self) -> &Journal {
        &self.journal
    }

    /// Reads the rest from the pipes of a process that has ended. A child of it may hold them open.
    fn read_the_rest(&self) {
        let began = Instant::now();
        let patience = self.patience.min(READING);
        while self.output.is_open() && began.elapsed() < patience && !status::has_left(self.id) {
            thread::sleep(STEP);
        }
    }

    /// Returns whether the process has ended.
    fn is_over(&self) -> bool {
        let mut state = self.state.lock();
        if state.status.is_none() {
            state.status = state.child.try_wait().unwrap_or_default();
            if let Some(status) = state.status {
                self.journal.note(format_args!("has ended: {status}"));
            }
        }
        state.status.is_some()
    }

    #[track_caller]
    fn send(&self, number: i32) {
        // After it has been waited for, a process no longer has its number.
        if self.is_over() {
            return;
        }
        let signal = signal::Signal::try_from(number).expect("a signal has its number");
        if let Err(error) = signal::kill(self.pid(), signal) {
            self.fail(&format!("cannot send {signal}: {error}"));
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.id).expect("a pid is a positive i32"))
    }

    #[track_caller]
    fn fail(&self, why: &str) -> ! {
        panic!("{why}\n{}", self.journal)
    }
}

/// Returns the files in a directory, including sockets and pipes.
fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.map(|name| format!("file {name}")).collect();
    names.sort();
    names
}

/// Sends a request on a new connection, and returns the status and the whole answer.
pub(super) fn get(
    address: SocketAddr,
    path: &str,
    patience: Duration,
) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    match status {
        Some(status) if answer.contains("\r\n\r\n") => Ok((status, answer)),
        _ => Err(io::Error::other(format!("no answer: {answer:?}"))),
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // When the leader has been waited for, the number is still that of its group while a member is alive.
        if !self.is_over() || status::has_left(self.id) {
            let _ = signal::killpg(self.pid(), signal::Signal::SIGKILL);
        }
        let child = &mut self.state.get_mut().child;
        let _ = child.kill();
        let _ = child.wait();
        // Killed processes, and their files, may take a moment to go.
        let began = Instant::now();
        while status::has_left(self.id) && began.elapsed() < self.patience {
            thread::sleep(STEP);
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("id", &self.id)
            .field("status", &self.state.lock().status)
            .field("story", &self.journal)
            .finish_non_exhaustive()
    }
}
