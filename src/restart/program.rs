//! [`Program`]: what is started for a restart.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use tokio::process::{Child, Command};

/// Variables that name the old process, or descriptors that the new one does not have.
const OF_THE_OLD: [&str; 4] = [
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_FDS_FIRST_FD",
    "LISTEN_PID",
];

/// What is started for a restart.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    directory: Option<PathBuf>,
}

impl Program {
    pub(super) fn new(path: PathBuf, args: Vec<OsString>) -> Self {
        let directory = env::current_dir().ok();
        Self {
            path,
            args,
            directory,
        }
    }

    /// The running program. The system knows the file that was started, which an update replaces, so the path
    /// counts with which this process was started. It is made absolute now, before the directory changes.
    pub(super) fn this() -> Self {
        let mut args = env::args_os();
        let started = args.next().map(PathBuf::from);
        let path = match started {
            Some(path) if path.components().count() > 1 => std::path::absolute(path).ok(),
            _ => None,
        };
        let path = path.or_else(|| env::current_exe().ok());
        Self::new(path.unwrap_or_default(), args.collect())
    }

    pub(super) fn start(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.path);
        command.args(&self.args);
        for name in OF_THE_OLD {
            command.env_remove(name);
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let error = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        };
        command.spawn().map_err(error)
    }
}
