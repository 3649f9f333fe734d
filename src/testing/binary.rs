//! [`Binary`]: starts a program under test.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use crate::testing::directory::Directory;
use crate::testing::process::Process;
use crate::testing::process::Start;

/// Starts a program under test, any number of times, each time as a new process.
///
/// The program does not inherit these from the runner of the tests:
///
/// - Ignored signals. A background job of a shell, for example, ignores SIGINT, and its children inherit
///   that. This needs `env --default-signal` of the GNU coreutils.
/// - The process group. The program leads its own group, so it does not get a Ctrl-C at the terminal of the
///   tests, and the processes that it leaves behind can be found.
/// - The variables of systemd, Kubernetes and other platforms.
///
/// # Examples
///
/// ```
/// use taskgroup::testing::Binary;
///
/// let sleep = Binary::new("sh").args(["-c", "echo ready; exec sleep 600"]);
/// for process in [sleep.start(), sleep.start()] {
///     process.line("ready");
///     process.kill();
///     assert_eq!(process.wait().code(), None);
/// }
/// ```
#[derive(Clone)]
#[must_use = "a binary does nothing until it is started"]
pub struct Binary {
    path: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    patience: Duration,
    has_directory: bool,
    is_notified: bool,
}

/// The variables that platforms set. The tests may run in a pod or in a service themselves.
const PLATFORMS: [&str; 11] = [
    "KUBERNETES_SERVICE_HOST",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "MAINPID",
    "NOTIFY_SOCKET",
    "SYSTEMD_EXEC_PID",
    "TERMINATION_GRACE_PERIOD_SECONDS",
    "TIMEOUT_STOP_SEC",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// The default maximum of any wait of a test.
const PATIENCE: Duration = Duration::from_secs(30);

impl Binary {
    /// Makes the start of the program at `path`, without arguments. In a test of a package the path is
    /// `env!("CARGO_BIN_EXE_name")`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            args: Vec::new(),
            envs: Vec::new(),
            patience: PATIENCE,
            has_directory: false,
            is_notified: false,
        }
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Sets how long any wait may take before the test fails. The default is 30 s.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts each process in a new directory of its own, which is removed with the [`Process`].
    ///
    /// Its files at the end are [left](super::Ended::left).
    pub fn in_a_new_directory(mut self) -> Self {
        self.has_directory = true;
        self
    }

    /// Gives each process a socket that stands in for systemd's, in `NOTIFY_SOCKET`.
    ///
    /// [`Process::notified`] returns the messages to it.
    pub fn notified(mut self) -> Self {
        self.is_notified = true;
        self
    }

    /// Starts a process.
    ///
    /// # Panics
    ///
    /// The program cannot be started.
    #[track_caller]
    pub fn start(&self) -> Process {
        self.start_with(|_| {})
    }

    /// Starts a process after `change` has changed its command. `change` may redirect stdout and stderr,
    /// which the test otherwise reads, or stdin, which is otherwise empty.
    ///
    /// # Panics
    ///
    /// The program cannot be started.
    #[track_caller]
    pub fn start_with(&self, change: impl FnOnce(&mut Command)) -> Process {
        let directory = self.has_directory.then(Directory::new);
        let notify = self.is_notified.then(|| {
            let home = Directory::new();
            let path = home.path().join("notify");
            let socket = UnixDatagram::bind(&path).expect("a socket in a new directory");
            (home, path, socket)
        });
        let mut command = self.command();
        for name in PLATFORMS {
            command.env_remove(name);
        }
        command
            .args(&self.args)
            .envs(self.envs.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(directory) = &directory {
            command.current_dir(directory.path());
        }
        if let Some((_, path, _)) = &notify {
            command.env("NOTIFY_SOCKET", path);
        }
        change(&mut command);
        Process::start(Start {
            command,
            patience: self.patience,
            directory,
            notify: notify.map(|(home, _, socket)| (home, socket)),
        })
    }

    fn command(&self) -> Command {
        if !ignores_signals() {
            return Command::new(&self.path);
        }
        let mut command = Command::new("env");
        command.arg("--default-signal").arg(&self.path);
        command
    }
}

/// Returns whether this process ignores a signal that asks for a stop, which a child inherits.
fn ignores_signals() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let ignored = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP, SIGINT, SIGQUIT and SIGTERM.
    ignored.is_some_and(|mask| {
        [1, 2, 3, 15]
            .iter()
            .any(|number| mask >> (number - 1) & 1 == 1)
    })
}

impl fmt::Debug for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binary")
            .field("path", &self.path)
            .field("args", &self.args)
            .finish_non_exhaustive()
    }
}
