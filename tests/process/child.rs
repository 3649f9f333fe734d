//! A child process that plays a role, and the parent's conversation with it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process;
use std::process::ChildStderr;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use rustix::pty::OpenptFlags;
use rustix::pty::grantpt;
use rustix::pty::openpt;
use rustix::pty::ptsname;
use rustix::pty::unlockpt;

/// The variable that makes this binary a child.
pub(crate) const ROLE: &str = "TASKGROUP_TEST_ROLE";

/// What platforms set: the tests may run in a pod or in a service themselves.
const PLATFORMS: [&str; 15] = [
    "DYNO",
    "ECS_CONTAINER_METADATA_URI_V4",
    "FLY_APP_NAME",
    "KUBERNETES_SERVICE_HOST",
    "K_SERVICE",
    "NOMAD_ALLOC_ID",
    "NOTIFY_SOCKET",
    "SYSTEMD_EXEC_PID",
    "PRE_STOP_SECONDS",
    "STOP_TIMEOUT_SECONDS",
    "TERMINATION_GRACE_PERIOD_SECONDS",
    "TERMINATION_MESSAGE_PATH",
    "TIMEOUT_STOP_SEC",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// A running child. It says what it does in lines on its stdout; a read is the only wait there is.
pub(crate) struct Child {
    process: process::Child,
    /// `None` if it is a socket of the test.
    stdin: Option<ChildStdin>,
    /// The other end of its stderr, if nobody reads it.
    _unread: Option<OwnedFd>,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<BufReader<ChildStderr>>,
}

impl Child {
    pub(crate) fn start(role: &str) -> Self {
        Self::start_with(role, Stdio::piped(), None, &[])
    }

    /// Starts a child with these variables, and none of those that platforms set.
    pub(crate) fn start_in(role: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_with(role, Stdio::piped(), None, variables)
    }

    /// Starts a child whose stderr takes not one byte, because nobody reads what is in it.
    pub(crate) fn start_with_full_stderr(role: &str) -> Self {
        let (unread, stderr) = UnixStream::pair().unwrap();
        stderr.set_nonblocking(true).unwrap();
        while (&stderr).write(&[b'x'; 4096]).is_ok() {}
        while (&stderr).write(b"x").is_ok() {}
        stderr.set_nonblocking(false).unwrap();
        Self::start_with(role, OwnedFd::from(stderr).into(), Some(unread.into()), &[])
    }

    /// Starts a child whose stderr is a terminal.
    pub(crate) fn start_at_a_terminal(role: &str) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let path = ptsname(&terminal, Vec::new()).unwrap();
        let path = Path::new(OsStr::from_bytes(path.as_bytes()));
        let stderr = File::options().write(true).open(path).unwrap();
        Self::start_with(role, stderr.into(), Some(terminal), &[])
    }

    /// Starts a child through a shell that ignores these signals, as `nohup` does with one of them.
    pub(crate) fn start_ignoring(role: &str, signals: &str) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("trap '' {signals}; exec \"$0\"");
        shell
            .arg("-c")
            .arg(script)
            .arg(std::env::current_exe().unwrap());
        Self::start_command(shell, role, Stdio::piped(), None, &[])
    }

    /// Starts a child whose stdin is this socket, as `inetd` does.
    pub(crate) fn start_on(role: &str, socket: OwnedFd) -> Self {
        let mut command = this_binary();
        command.stdin(socket);
        Self::spawn(command, role, Stdio::piped(), None, &[])
    }

    /// Starts a child that is given this socket as systemd gives one: number 3, named by two variables.
    pub(crate) fn start_passed(role: &str, socket: OwnedFd) -> Self {
        let mut command = Command::new("sh");
        let script = r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0""#;
        command.arg("-c").arg(script);
        command.arg(std::env::current_exe().unwrap()).stdin(socket);
        Self::spawn(command, role, Stdio::piped(), None, &[])
    }

    fn start_with(
        role: &str,
        stderr: Stdio,
        unread: Option<OwnedFd>,
        variables: &[(&str, &str)],
    ) -> Self {
        Self::start_command(this_binary(), role, stderr, unread, variables)
    }

    fn start_command(
        mut command: Command,
        role: &str,
        stderr: Stdio,
        unread: Option<OwnedFd>,
        variables: &[(&str, &str)],
    ) -> Self {
        command.stdin(Stdio::piped());
        Self::spawn(command, role, stderr, unread, variables)
    }

    fn spawn(
        mut command: Command,
        role: &str,
        stderr: Stdio,
        unread: Option<OwnedFd>,
        variables: &[(&str, &str)],
    ) -> Self {
        for variable in PLATFORMS {
            command.env_remove(variable);
        }
        let mut process = command
            .env(ROLE, role)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self {
            stdin: process.stdin.take(),
            stdout: process.stdout.take().map(BufReader::new),
            stderr: process.stderr.take().map(BufReader::new),
            _unread: unread,
            process,
        }
    }

    /// Waits until the child has said `line`.
    #[track_caller]
    pub(crate) fn expect(&mut self, line: &str) -> &mut Self {
        assert_eq!(self.line(), line);
        self
    }

    /// Waits for the child's next line.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        next_line(self.stdout.as_mut().unwrap())
    }

    /// Waits for a line on stderr that contains `part`, and returns it.
    #[track_caller]
    pub(crate) fn expect_logged(&mut self, part: &str) -> String {
        loop {
            let line = next_line(self.stderr.as_mut().unwrap());
            assert!(!line.is_empty(), "stderr ended without {part:?}");
            if line.contains(part) {
                return line;
            }
        }
    }

    pub(crate) fn send(&mut self, signal: Signal) -> &mut Self {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, signal).unwrap();
        self
    }

    /// Writes a line that the child waits for, and returns whether there is one that can take it.
    pub(crate) fn try_tell(&mut self, line: &str) -> bool {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").is_ok()
    }

    /// Writes a line that the child waits for.
    pub(crate) fn tell(&mut self, line: &str) -> &mut Self {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
        self
    }

    pub(crate) fn close_stdout_and_stderr(&mut self) -> &mut Self {
        self.stdout = None;
        self.close_stderr()
    }

    pub(crate) fn close_stderr(&mut self) -> &mut Self {
        self.stderr = None;
        self
    }

    /// Waits until the child is gone. Its stdin stays open, so it does not end for want of input.
    pub(crate) fn status(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }

    #[track_caller]
    pub(crate) fn expect_code(&mut self, code: i32) -> &mut Self {
        let status = self.status();
        assert_eq!(status.code(), Some(code), "{status}");
        self
    }

    #[track_caller]
    pub(crate) fn expect_killed_by(&mut self, signal: Signal) {
        let status = self.status();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
    }

    /// Returns all of what is left on stderr.
    pub(crate) fn rest_of_stderr(&mut self) -> String {
        std::io::read_to_string(self.stderr.as_mut().unwrap()).unwrap()
    }
}

/// This binary with all signals as by default: a background job of a script ignores SIGINT, and so would a child.
fn this_binary() -> Command {
    let this = std::env::current_exe().unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let ignored = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let asks = [Signal::HUP, Signal::INT, Signal::TERM];
    let is_set = |signal: &Signal| ignored.unwrap_or_default() >> (signal.as_raw() - 1) & 1 == 1;
    if !asks.iter().any(is_set) {
        return Command::new(this);
    }
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(this);
    command
}

impl Drop for Child {
    /// A failed test leaves no child behind.
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn next_line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}
