//! A server that blocks a thread, as a future and a function that asks it to stop.

use std::io;
use std::panic::resume_unwind;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::BoxError;
use crate::group::end::End;
use crate::group::failure::Failure;
use crate::group::log;
use crate::group::panic::Panic;
use crate::group::run_future::RunFuture;
use crate::server::sidecar::error::{Fault, SidecarError};
use crate::server::sidecar::{Outcome, Remains, Sidecar, Stop};
use crate::server::stop_signal::{Parts, StopSignal};

impl Sidecar {
    /// Runs a server that blocks its thread.
    ///
    /// `run` is called on a separate thread with the name of the server, when the returned future is first
    /// polled. The thread does not belong to the runtime, so a server that does not stop cannot block the
    /// runtime's shutdown. When `token` has fired, `stop` is called with the grace on a helper thread
    /// (`NAME-stop`), so it may block too. The server has ended when another helper thread (`NAME-join`) has
    /// joined its thread.
    ///
    /// `stop` must make `run` return, for example with `tiny_http`'s `unblock`. If the server must also be
    /// dropped to close its socket, let `run` own it or its last reference.
    ///
    /// # Errors
    ///
    /// As [`serve`](Sidecar::serve). A thread cannot be forced. If it is running at the end of the grace it
    /// goes on, and the error names it. A panic of `run` is an error as well, and so is a panic of `stop`,
    /// after which the server still has its grace.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future while the server runs calls `stop`, if it has not been called yet, with a
    /// grace of zero on a helper thread. The drop does not wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use taskgroup::{CancellationToken, Sidecar};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let (stop, requests) = mpsc::channel::<()>();
    /// let token = CancellationToken::new();
    /// token.cancel();
    ///
    /// let stopped = Sidecar::new("requests")
    ///     .serve_blocking(
    ///         &token,
    ///         move || {
    ///             for _request in requests {}
    ///             Ok::<_, std::io::Error>(())
    ///         },
    ///         move |_grace| drop(stop),
    ///     )
    ///     .await;
    /// assert!(stopped.is_ok());
    /// # }
    /// ```
    pub fn serve_blocking<R, Err, S>(
        mut self,
        told: &dyn StopSignal,
        run: R,
        stop: S,
    ) -> RunFuture<impl Future<Output = Result<(), SidecarError>> + use<R, Err, S>, SidecarError>
    where
        R: FnOnce() -> Result<(), Err> + Send + 'static,
        Err: Into<BoxError>,
        S: FnOnce(Duration) + Send + 'static,
    {
        let told = told.parts();
        RunFuture::new(async move {
            self.check()?;
            let outcome = self.drive_thread(&told, run, stop).await;
            let name = thread_name(&self.name);
            let threads = match outcome.stop {
                Stop::Running => format!("still running: threads `{name}` and `{name}-stop`"),
                _ => format!("still running: thread `{name}`"),
            };
            self.conclude(outcome, Remains(End::StillRunning, threads.into()))
        })
    }

    async fn drive_thread<R, Err, S>(&mut self, told: &Parts, run: R, stop: S) -> Outcome
    where
        R: FnOnce() -> Result<(), Err> + Send + 'static,
        Err: Into<BoxError>,
        S: FnOnce(Duration) + Send + 'static,
    {
        let name = thread_name(&self.name);
        let server = match ServerThread::start(&name, run) {
            Ok(server) => server,
            Err(error) => {
                return Outcome {
                    end: Some(Err(Fault::serving(Failure::Failed(error.into())))),
                    stop: Stop::NotAsked,
                };
            }
        };
        let mut stop = StopOnDrop {
            name: &name,
            stop: Some(stop),
            ended: server.ended.clone(),
        };
        let ask = |grace| Panic::catch_future(stop.call(grace));
        self.drive(told, server.end(&name), ask).await
    }
}

/// A thread's name cannot contain a zero byte.
fn thread_name(server: &str) -> String {
    server.replace('\0', "")
}

/// The thread of a server.
struct ServerThread {
    thread: JoinHandle<Result<(), BoxError>>,
    /// Fires when the server has ended.
    ended: CancellationToken,
}

impl ServerThread {
    fn start<R, Err>(name: &str, run: R) -> io::Result<Self>
    where
        R: FnOnce() -> Result<(), Err> + Send + 'static,
        Err: Into<BoxError>,
    {
        let ended = CancellationToken::new();
        let running = ended.clone().drop_guard();
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            let _running = running;
            run().map_err(Into::into)
        })?;
        Ok(Self { thread, ended })
    }

    /// Waits until the server has ended, and joins its thread.
    async fn end(self, name: &str) -> Result<(), Failure> {
        self.ended.cancelled().await;
        // A thread that has left the server can still hang in the destructor of a thread-local, so it is not
        // joined here, on a thread of the runtime.
        let joined = on_thread(format!("{name}-join"), move || self.thread.join()).await;
        match joined {
            Ok(Ok(Ok(end))) => end.map_err(Failure::Failed),
            Ok(Ok(Err(payload))) => Err(Failure::Panicked(Panic::new(payload))),
            Ok(Err(panic)) => Err(Failure::Panicked(panic)),
            Err(error) => Err(Failure::Failed(error.into())),
        }
    }
}

/// The stop function of a server. If it has not been called, dropping this while the server runs calls it.
struct StopOnDrop<'a, S: FnOnce(Duration) + Send + 'static> {
    name: &'a str,
    stop: Option<S>,
    ended: CancellationToken,
}

impl<S: FnOnce(Duration) + Send + 'static> StopOnDrop<'_, S> {
    /// Calls the function on a separate thread. Its panic goes through the returned future.
    fn call(&mut self, grace: Duration) -> impl Future<Output = ()> + use<S> {
        let name = self.thread();
        let stop = self.stop.take();
        async move {
            let Some(stop) = stop else { return };
            match on_thread(name, move || stop(grace)).await {
                Ok(Ok(())) => (),
                Ok(Err(panic)) => panic.resume(),
                Err(error) => resume_unwind(Box::new(format!("not called: {error}"))),
            }
        }
    }

    fn thread(&self) -> String {
        format!("{}-stop", self.name)
    }
}

impl<S: FnOnce(Duration) + Send + 'static> Drop for StopOnDrop<'_, S> {
    fn drop(&mut self) {
        let Some(stop) = self.stop.take() else { return };
        if self.ended.is_cancelled() {
            return;
        }
        let name = self.thread();
        let spawned = Builder::new()
            .name(name)
            .spawn(move || stop(Duration::ZERO));
        if let Err(error) = spawned {
            let name = self.name;
            log::guarded(|| {
                tracing::error!(target: "taskgroup", "server `{name}` is not asked to stop: {error}");
            });
        }
    }
}

/// Runs `work` on a separate thread and returns how it ended.
async fn on_thread<T, W>(name: String, work: W) -> io::Result<Result<T, Panic>>
where
    T: Send + 'static,
    W: FnOnce() -> T + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    Builder::new().name(name).spawn(move || {
        let _ = sender.send(Panic::catch(work));
    })?;
    receiver.await.map_err(io::Error::other)
}
