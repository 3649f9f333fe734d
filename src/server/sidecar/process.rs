//! A server that is a child process.

use std::borrow::Cow;
use std::error::Error;
use std::future::{pending, ready};
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::group::end::End;
use crate::group::failure::Failure;
use crate::group::run_future::RunFuture;
use crate::server::forced::{self, Seat, Undo};
use crate::server::sidecar::error::{Fault, SidecarError};
use crate::server::sidecar::{Outcome, Remains, Sidecar, Stop};
use crate::server::stop_signal::{Parts, StopSignal};

/// How long a killed process may take to be gone before it is reported as still running.
const REAP: Duration = Duration::from_secs(1);

impl Sidecar {
    /// Runs a child process as a server.
    ///
    /// The process is started when the returned future is first polled. When `token` has fired it gets SIGTERM,
    /// and at the end of the grace SIGKILL. Its exit status decides the outcome:
    ///
    /// | the process | before the token fired | after SIGTERM |
    /// |---|---|---|
    /// | exits with status 0 | ended early | `Ok` |
    /// | is ended by SIGTERM, or exits with status 143 | failed | `Ok` |
    /// | ends in any other way | failed | failed while draining |
    /// | is running at the end of the grace | | timed out, and killed |
    ///
    /// The process leads its own process group (it replaces one set on `command`), so Ctrl-C in the terminal
    /// reaches only the parent, which then asks the process to stop once. SIGTERM goes to the process alone,
    /// which may want to stop its own children in its own order. When the process has ended, the rest of the
    /// group is killed. Start a server from a shell with `exec`, or the shell gets the SIGTERM. Children that
    /// have left the group are not followed.
    ///
    /// Standard input, output and error are those of `command`. Do not leave the input on a terminal, from
    /// which a background group cannot read, and do not set up pipes, because nothing reads them.
    ///
    /// # Platforms
    ///
    /// Windows has neither SIGTERM nor any other request to stop that every process understands. The process is
    /// terminated as soon as the token has fired, which is `Ok`, and the grace only limits how long that may
    /// take. Its own children are not terminated. Its group is a console process group, so Ctrl-C reaches only
    /// the parent there as well.
    ///
    /// # Errors
    ///
    /// As [`serve`](Sidecar::serve), by the table above, and when the process cannot be started. The
    /// message names the exit status, and [`SidecarError::exit_status`] returns it.
    ///
    /// # Panics
    ///
    /// The returned future panics outside a Tokio runtime whose IO is enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future kills the process and its group at once. The runtime reaps the
    /// process later, when it can.
    ///
    /// # Forced exits
    ///
    /// When a second signal or a watchdog ends this process, no destructor runs. On Unix the child process gets
    /// SIGTERM first, or a second one if it is already stopping, and half a second to end. Then the rest of its
    /// group is killed. A third signal ends the waiting. From then on no process is started.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::{CancellationToken, Sidecar, SidecarError};
    /// use tokio::process::Command;
    ///
    /// # #[cfg(not(unix))] fn main() {}
    /// # #[cfg(unix)]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let token = CancellationToken::new();
    /// token.cancel();
    ///
    /// let mut command = Command::new("sleep");
    /// command.arg("3600");
    /// let stopped: Result<(), SidecarError> =
    ///     Sidecar::new("cache").serve_process(&token, command).await;
    /// assert!(stopped.is_ok());
    /// # }
    /// ```
    pub fn serve_process(
        mut self,
        stop: &dyn StopSignal,
        command: Command,
    ) -> RunFuture<impl Future<Output = Result<(), SidecarError>> + use<>, SidecarError> {
        let told = stop.parts();
        RunFuture::new(async move {
            self.check()?;
            let (outcome, remains) = self.drive_process(&told, command).await;
            self.conclude(outcome, remains)
        })
    }

    async fn drive_process(&mut self, told: &Parts, command: Command) -> (Outcome, Remains) {
        let mut process = match Process::start(command) {
            Ok(process) => process,
            Err(error) => {
                let outcome = Outcome {
                    end: Some(Err(Fault::serving(Failure::Failed(error.into())))),
                    stop: Stop::NotAsked,
                };
                return (outcome, Remains::KILLED);
            }
        };
        let asked = CancellationToken::new();
        let ask = |_| {
            asked.cancel();
            ready(Ok(()))
        };
        let outcome = self.drive(told, process.end(&asked), ask).await;
        if forced::has_begun() {
            // The forced exit has told or killed it. That is not an outcome, because this process is about to
            // end.
            pending::<()>().await;
        }
        let remains = match outcome.end {
            None => process.kill().await,
            Some(_) => Remains::KILLED,
        };
        (outcome, remains)
    }
}

impl Remains {
    /// Nothing. The process was killed and has ended.
    const KILLED: Self = Self(End::TimedOut, Cow::Borrowed("it was killed"));
}

impl SidecarError {
    /// Returns the exit status of a [child process](Sidecar::serve_process) that failed.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::{CancellationToken, Sidecar};
    /// use tokio::process::Command;
    ///
    /// # #[cfg(not(unix))] fn main() {}
    /// # #[cfg(unix)]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "exit 3"]);
    /// let failed = Sidecar::new("cache")
    ///     .serve_process(&CancellationToken::new(), command)
    ///     .await;
    ///
    /// let failed = failed.unwrap_err();
    /// assert_eq!(failed.exit_status().unwrap().code(), Some(3));
    /// assert_eq!(format!("{failed:#}"), "server `cache` failed: exit status: 3");
    /// # }
    /// ```
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        let exited = self.source()?.downcast_ref::<Exited>()?;
        Some(exited.0)
    }
}

/// A child process that is killed when this is dropped.
struct Process {
    child: Child,
    group: Arc<os::Group>,
    /// Released last. Until then a forced exit kills the group.
    _seat: Seat,
}

impl Process {
    fn start(mut command: Command) -> Result<Self, NotStarted> {
        os::Group::set(&mut command);
        command.kill_on_drop(true);
        let started = match Seat::take() {
            Some(seat) => command.spawn().map(|child| (child, seat)),
            None => Err(io::Error::other("the exit of this process is forced")),
        };
        match started {
            Ok((child, seat)) => {
                let group = Arc::new(os::Group::of(&child));
                let program = command.as_std().get_program().to_string_lossy();
                let id = child.id().unwrap_or_default();
                let name = format!("process {id} (`{program}`)");
                seat.fill(Some(&name), Arc::clone(&group) as Arc<dyn Undo>);
                Ok(Self {
                    child,
                    group,
                    _seat: seat,
                })
            }
            Err(source) => Err(NotStarted {
                program: command
                    .as_std()
                    .get_program()
                    .to_string_lossy()
                    .into_owned(),
                source,
            }),
        }
    }

    /// Waits until the process has ended, and asks it to end once `asked` has fired.
    async fn end(&mut self, asked: &CancellationToken) -> Result<(), Failure> {
        match asked.run_until_cancelled(self.child.wait()).await {
            Some(status) => judge(status, ExitStatus::success),
            None => {
                // The child has not been reaped here, so its id is still its own.
                os::stop(&mut self.child).map_err(|error| Failure::Failed(error.into()))?;
                judge(self.child.wait().await, os::is_stopped)
            }
        }
    }

    /// Kills the process with its group, and waits until it is gone.
    async fn kill(&mut self) -> Remains {
        self.group.kill();
        // The group may be gone while the process, if it has moved to another one, is not.
        let _ = self.child.start_kill();
        let id = self.child.id();
        match (timeout(REAP, self.child.wait()).await, id) {
            (Err(_), Some(id)) => {
                let what = format!("process {id} was killed and does not end");
                Remains(End::StillRunning, what.into())
            }
            _ => Remains::KILLED,
        }
    }
}

impl Drop for Process {
    /// Kills the rest of the group, including the process if it has not ended.
    ///
    /// If the process has been reaped and its group is empty, the id could belong to a new group by now. But an
    /// id is reused only after all others, and the process was reaped in the poll that has led here.
    fn drop(&mut self) {
        self.group.kill();
    }
}

/// Decides whether an exit status is a success.
fn judge(status: io::Result<ExitStatus>, is_good: fn(&ExitStatus) -> bool) -> Result<(), Failure> {
    match status {
        Ok(status) if is_good(&status) => Ok(()),
        Ok(status) => Err(Failure::Failed(Exited(status).into())),
        Err(error) => Err(Failure::Failed(error.into())),
    }
}

/// The error of a process that has ended with this status.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Exited(ExitStatus);

/// The error of a process that could not be started. The system's own error does not name the program.
#[derive(Debug, thiserror::Error)]
#[error("could not start `{program}`")]
struct NotStarted {
    program: String,
    source: io::Error,
}

#[cfg(unix)]
mod os {
    use std::io;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use rustix::process::Pid;
    use rustix::process::Signal;
    use rustix::process::WaitId;
    use rustix::process::WaitIdOptions;
    use rustix::process::kill_process;
    use rustix::process::kill_process_group;
    use rustix::process::waitid;
    use tokio::process::Child;
    use tokio::process::Command;

    use crate::server::forced::Undo;

    /// The process group that a child leads.
    pub(super) struct Group(Option<Pid>);

    impl Group {
        pub(super) fn set(command: &mut Command) {
            command.process_group(0);
        }

        pub(super) fn of(child: &Child) -> Self {
            Self(pid(child))
        }

        /// Kills the whole group. A failure is ignored, because it means that the group is gone or that we may
        /// not kill it.
        pub(super) fn kill(&self) {
            if let Some(leader) = self.0 {
                let _ = kill_process_group(leader, Signal::KILL);
            }
        }
    }

    /// In a forced exit the child is asked to end. If it has been asked before, this second request may make it
    /// force its own exit.
    impl Undo for Group {
        fn tell(&self) {
            if let Some(leader) = self.0 {
                let _ = kill_process(leader, Signal::TERM);
            }
        }

        fn is_over(&self) -> bool {
            // This looks at the child without reaping it, which is left to the runtime.
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let ended = |leader| !matches!(waitid(WaitId::Pid(leader), look), Ok(None));
            self.0.is_none_or(ended)
        }

        fn undo(&self) {
            self.kill();
            // The process may have moved to another group.
            if let (Some(leader), false) = (self.0, self.is_over()) {
                let _ = kill_process(leader, Signal::KILL);
            }
        }
    }

    /// Asks a child that has not been reaped to end.
    pub(super) fn stop(child: &mut Child) -> io::Result<()> {
        match pid(child) {
            Some(pid) => Ok(kill_process(pid, Signal::TERM)?),
            None => Ok(()),
        }
    }

    /// Returns whether a child that was asked to end has ended well.
    ///
    /// A JVM and many shells catch SIGTERM, clean up, and exit with the status that a shell would show for the
    /// signal.
    pub(super) fn is_stopped(status: &ExitStatus) -> bool {
        let term = Signal::TERM.as_raw();
        status.success() || status.signal() == Some(term) || status.code() == Some(128 + term)
    }

    fn pid(child: &Child) -> Option<Pid> {
        Pid::from_raw(i32::try_from(child.id()?).ok()?)
    }
}

#[cfg(not(unix))]
mod os {
    use std::io;
    use std::process::ExitStatus;

    use tokio::process::Child;
    use tokio::process::Command;

    use crate::server::forced::Undo;

    /// A console process group, which cannot be killed as a whole.
    pub(super) struct Group;

    impl Group {
        #[cfg(windows)]
        pub(super) fn set(command: &mut Command) {
            const CREATE_NEW_PROCESS_GROUP: u32 = 0x0000_0200;
            command.creation_flags(CREATE_NEW_PROCESS_GROUP);
        }

        #[cfg(not(windows))]
        pub(super) fn set(_command: &mut Command) {}

        pub(super) fn of(_child: &Child) -> Self {
            Self
        }

        pub(super) fn kill(&self) {}
    }

    /// A forced exit knows only its id, and leaves it alone.
    impl Undo for Group {
        fn undo(&self) {}
    }

    /// Terminates a child, which cannot be asked.
    pub(super) fn stop(child: &mut Child) -> io::Result<()> {
        child.start_kill()
    }

    /// A terminated child has the status that its terminator has chosen, so its status is ignored.
    pub(super) fn is_stopped(_status: &ExitStatus) -> bool {
        true
    }
}
