//! [`StopFile`]: stops a group when a file exists.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Sleep;
use tokio::time::sleep;

use crate::group::Spawner;
use crate::group::cause::Cause;
use crate::group::log;
use crate::group::trigger::sealed::Listen;
use crate::group::trigger::{Trigger, listen_for};

/// Stops a group when a file exists, for example after `touch /run/orders/stop`.
///
/// It is for [`TaskGroup::cancel_on`](crate::TaskGroup::cancel_on). Use it for stops by a process that can
/// write a file but cannot send a signal, such as a `preStop` hook, another container with a shared volume,
/// or a deploy script. The cause is [`Cause::File`], and the stop is not a failure.
///
/// # What counts
///
/// The path has to exist, as an empty file, a directory, or a link to something that exists. The first look
/// is at once and the next ones follow [every 500 ms](Self::every).
///
/// - **A file that exists already stops the group at once,** and the cause says that it was there at the
///   start. A request that came while the service was starting must not be lost. A file that the last run has
///   left behind shows at once in the log, where it would otherwise be a stop that does not work. A service
///   that is started again while its file exists therefore stops again. Remove the file before each start
///   with `ExecStartPre=rm -f /run/orders/stop`.
/// - The file is never opened, changed or removed.
/// - Removing the file later does not take the stop back. A file that is made and removed between two looks
///   is not seen.
/// - If the system cannot tell whether the file exists (no permission, or a parent that is not a directory),
///   the group does not stop. The error is logged at WARN, once for each kind of error in a row, and the
///   looks go on. An empty path is such an error.
///
/// A relative path is resolved against the working directory at each look.
///
/// A look runs on a thread for blocking work. If it hangs, for example on a network file system that is gone,
/// it holds that thread, and `#[tokio::main]` waits for it at the end. A file on a local disk or in memory is
/// the better choice.
///
/// # Examples
///
/// ```
/// use taskgroup::{Cause, TaskGroup};
/// use taskgroup::process::StopFile;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// # let stop = std::env::temp_dir().join(format!("taskgroup-stop-{}", std::process::id()));
/// let mut group = TaskGroup::new();
/// group.cancel_on(StopFile::new(&stop));
/// let token = group.token().clone();
/// group.spawn(async move { Ok(token.cancelled().await) });
///
/// std::fs::write(&stop, "")?;
/// group.wait().await?;
/// assert!(matches!(group.cause(), Some(Cause::File { path, .. }) if path == stop));
/// # std::fs::remove_file(&stop)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a trigger does nothing until it is given to `TaskGroup::cancel_on`"]
pub struct StopFile {
    path: Arc<Path>,
    every: Duration,
}

impl StopFile {
    /// Makes a trigger that fires when `path` exists. It looks every 500 ms.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().into(),
            every: Duration::from_millis(500),
        }
    }

    /// Sets the pause between the end of one look and the next. The default is 500 ms.
    ///
    /// With zero the next look comes at once, which keeps a thread busy. With [`Duration::MAX`] the only look
    /// is at the start.
    pub fn every(mut self, pause: Duration) -> Self {
        self.every = pause;
        self
    }

    async fn found(self, first: Sleep) -> Cause {
        let mut pause = pin!(first);
        let mut at_start = true;
        let mut complained = None;
        loop {
            pause.as_mut().await;
            match self.look().await {
                Ok(false) => {}
                Ok(true) => {
                    let path = PathBuf::from(&*self.path);
                    return Cause::File { path, at_start };
                }
                Err(error) if complained == Some(error.kind()) => {}
                Err(error) => {
                    complained = Some(error.kind());
                    self.complain(&error);
                }
            }
            at_start = false;
            pause.set(sleep(self.every));
        }
    }

    async fn look(&self) -> io::Result<bool> {
        let path = Arc::clone(&self.path);
        let looked = spawn_blocking(move || {
            if path.as_os_str().is_empty() {
                // The system reports an empty path as a missing file. Its usual reason is a variable that is
                // not set.
                let error = io::Error::new(io::ErrorKind::InvalidInput, "the path is empty");
                return Err(error);
            }
            fs::exists(path)
        });
        looked.await.map_err(io::Error::other)?
    }

    fn complain(&self, error: &io::Error) {
        let path = self.path.display();
        log::guarded(
            || tracing::warn!(target: "taskgroup", "cannot look for stop file `{path}`: {error}"),
        );
    }
}

impl Listen for StopFile {
    fn listen<E: Send + 'static>(self, group: &Spawner<E>) -> Box<dyn Send> {
        listen_for(group, self.found(sleep(Duration::ZERO)))
    }
}

impl Trigger for StopFile {}
