//! Restart in place: a new process takes over the listening sockets while clients are served (feature `restart`,
//! Unix only).
//!
//! **Not for a container** whose first process is the service. The end of the old process is the end of the
//! container there, and the new one with it. A rolling restart is the tool for it. It is not for
//! a supervisor either that follows one process and cannot be told of another.
//!
//! It is for a service on a machine, under systemd or by hand, that must not refuse anyone while it is replaced
//! by a new version or with new settings. No load balancer takes part in it.
//!
//! # How it works
//!
//! Each process that may be replaced listens at a path, the **control socket**. A process that is started while
//! another one is there asks it for its sockets. It is only then that the roles differ.
//!
//! | step | the old process | the new process |
//! |---|---|---|
//! | 1 | accepts all the time, and passes a copy of each socket | takes them and binds only what is missing |
//! | 2 | accepts all the time | starts its components, and says that it is ready |
//! | 3 | stops accepting, and says so | |
//! | 4 | | accepts |
//! | 5 | closes its copies, answers what it has accepted, and ends | |
//! | 6 | | is alone, starts what may not run twice, and can be replaced in turn |
//!
//! The queue of a socket belongs to both of them, so a client that connects between steps 3 and 4 waits for a
//! moment and is not lost.
//!
//! - **A failed restart changes nothing.** The old process goes on if the new one exits, is killed or is not ready
//!   within the [timeout](Setup::handover_timeout), at any moment before it accepts. The next attempt works.
//! - **When the old process dies** in the middle, the new one has the sockets and goes on alone.
//! - **A handover is an end of its own.** The [`Cause`](crate::Cause) is `HandedOver`. There is no jitter and no
//!   lame duck, `/readyz` stays 200 on the connections that are left, and nothing is taken from the queues. What
//!   is in flight has its grace as in any stop.
//! - **One at a time.** A restart is refused while the process starts, stops, is handing over, or still drains
//!   after having handed over.
//!
//! Only TCP and Unix sockets that were made through [`Restart`] are passed. TLS tickets, and all else in
//! memory, are not.
//!
//! # Components that may not run twice
//!
//! For a while both processes run. Servers, pools and caches do not mind. A worker on a queue that one process
//! has to itself, a lock on a file, or the only writer of a database must not be there twice. Such a component
//! begins with [`Restart::lease`], which waits until the old process has given it up, or with [`Restart::alone`],
//! which waits until the old process is gone. The new process is ready without them.
//!
//! # systemd
//!
//! ```ini
//! [Service]
//! Type=notify
//! NotifyAccess=main
//! ExecStart=/usr/bin/orders
//! ExecReload=/usr/bin/orders --restart
//! KillMode=mixed
//! Restart=on-failure
//! RuntimeDirectory=orders
//! ```
//!
//! `ExecReload` has to be a command that waits and that fails with the reason. That is [`request`], which a
//! service calls when it is started with such an option. The process that runs starts the new one, so that it
//! belongs to the unit. When the new one accepts, the old one sends `MAINPID` and `READY=1` in one message, and
//! waits until systemd has read it. The observer of the feature `systemd` says nothing more in the old process,
//! never `STOPPING=1`, and it begins in the new one. With `Type=notify-reload` see
//! [`notify_reload`](Setup::notify_reload).
//!
//! # Examples
//!
//! A service that can be replaced. `examples/restart.rs` is a whole one.
//!
#![cfg_attr(feature = "signal", doc = "```no_run")]
#![cfg_attr(not(feature = "signal"), doc = "```ignore")]
//! use taskgroup::lifecycle::{Component, Lifecycle, Report};
//! use taskgroup::restart::Restart;
//! use taskgroup::{BoxError, Exit, Signals};
//!
//! const CONTROL: &str = "/run/orders/restart.sock";
//!
//! fn main() -> Exit {
//!     match std::env::args().nth(1).as_deref() {
//!         Some("--restart") => taskgroup::main(ask),
//!         _ => taskgroup::main(run),
//!     }
//! }
//!
//! async fn ask(_signals: Signals) -> Result<(), BoxError> {
//!     let pid = taskgroup::restart::request(CONTROL).await?;
//!     Ok(println!("process {pid} has taken over"))
//! }
//!
//! async fn run(signals: Signals) -> Result<Report, BoxError> {
//!     let restart = Restart::at(CONTROL).begin().await?;
//!     let listener = restart.tcp("http", "0.0.0.0:8080")?;
//!     let http = Component::new("http", async |ctx| {
//!         # #[cfg(feature = "axum")]
//!         let server = taskgroup::serve("http", listener, axum::Router::new());
//!         # #[cfg(not(feature = "axum"))]
//!         # let server = taskgroup::server::serve_loop("http", listener, async |_, stop| Ok(stop.cancelled().await));
//!         ctx.ready();
//!         Ok(server.run(&ctx).await?)
//!     });
//!     let lifecycle = Lifecycle::new("orders").component(http).restart(&restart);
//!     Ok(lifecycle.stop_on(signals).run().await?)
//! }
//! ```

mod error;
mod wire;
mod control;
mod program;
mod offer;
mod shared;
mod lease;
mod old;
mod new;
mod lifecycle;

use std::collections::HashSet;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::control::{Control, at, connect};
use self::offer::Offer;
use self::program::Program;
use self::shared::{Named, Shared, Stage};
use self::wire::{VERSION, Wire};
use crate::group::lock::Lock;
use crate::lifecycle::Context;
use crate::server::Listening;
use crate::server::hatch::Hatch;

pub use self::error::RestartError;
pub use self::lease::Lease;

/// How long a new process may take to be ready (60 seconds).
pub const DEFAULT_HANDOVER_TIMEOUT: Duration = Duration::from_secs(60);

/// As many as Tokio lets wait.
const BACKLOG: i32 = 1024;

/// Lets another process take over from this one, and this one from another. See the [module](self).
///
/// # Clones
///
/// A clone is another handle on the same.
///
/// # Drop
///
/// When the last handle is gone, the control socket is closed and its path removed, unless another process has
/// put its own there. A handover that is under way is given up.
#[derive(Clone)]
pub struct Restart {
    shared: Arc<Shared>,
    /// The task that talks to the other processes.
    _task: Arc<JoinSet<()>>,
}

/// The settings of a [`Restart`].
#[derive(Debug)]
#[must_use = "it does nothing until it begins"]
pub struct Setup {
    path: PathBuf,
    timeout: Duration,
    program: Program,
    notify_reload: bool,
}

impl Setup {
    /// Sets how long a new process may take from its first word until it is ready. The default is
    /// [60 seconds](DEFAULT_HANDOVER_TIMEOUT).
    ///
    /// The old process serves meanwhile, and goes on after that. A new process that the old one has started is
    /// killed. Zero is an error of [`begin`](Self::begin).
    pub fn handover_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the program that is started for a restart, with its arguments.
    ///
    /// By default it is the one that runs, with the same arguments, found by the path with which this process
    /// was started. So where that path is a link to a release, it is the release that the link points to by then.
    pub fn program<A: Into<std::ffi::OsString>>(
        mut self,
        program: impl Into<PathBuf>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        self.program = Program::new(program.into(), args.into_iter().map(Into::into).collect());
        self
    }

    /// Tells systemd of the begin and of the end of each attempt, for a unit of `Type=notify-reload`.
    ///
    /// It sends `RELOADING=1` with `MONOTONIC_USEC` when the new process knocks, and `READY=1` at the end, also
    /// after a failure, because systemd has no word for that. Needs the feature `systemd`.
    #[cfg(feature = "systemd")]
    pub fn notify_reload(mut self) -> Self {
        self.notify_reload = true;
        self
    }

    /// Begins. If another process listens at the path, this one asks it for its sockets. Otherwise this one
    /// is the first.
    ///
    /// # Errors
    ///
    /// - [Refused](RestartError::is_refused) by the other process, which says why.
    /// - The path cannot be used, or the process there belongs to another user, is of another kind, or does not
    ///   answer within the [timeout](Self::handover_timeout).
    ///
    /// # Panics
    ///
    /// Called outside of a Tokio runtime.
    pub async fn begin(self) -> Result<Restart, RestartError> {
        let Self {
            path,
            timeout,
            program,
            notify_reload,
        } = self;
        if timeout.is_zero() {
            let why = "`handover_timeout` cannot be 0s: no process could ever take over";
            return Err(RestartError::failed(why));
        }
        let (old, control) = match connect(&path).await? {
            Some(wire) => (Some(new::ask(wire, &path, timeout).await?), None),
            None => (None, Some(Control::bind(&path)?)),
        };
        #[cfg(feature = "systemd")]
        if old.is_some() {
            crate::process::systemd::hold_back();
        }
        let is_first = old.is_none();
        let (wire, pid, offers) = match old {
            Some(old) => (Some(old.wire), Some(old.pid), old.offers),
            None => (None, None, Vec::new()),
        };
        let shared = Arc::new(Shared {
            path,
            timeout,
            program,
            notify_reload,
            hatch: Hatch::new(is_first),
            offers: Lock::new(offers),
            sockets: Lock::default(),
            stage: Lock::new(Stage::Starting),
            old: pid,
            ready: CancellationToken::new(),
            ours: CancellationToken::new(),
            alone: CancellationToken::new(),
            of_old: watch::Sender::new(is_first.then(HashSet::new)),
            leases: Lock::default(),
            to_old: wire.as_ref().map(Wire::speaker),
            refused: watch::Sender::new(None),
            handed_over: watch::Sender::new(None),
            successor: Lock::default(),
            stops: CancellationToken::new(),
        });
        if is_first {
            shared.ours.cancel();
            shared.alone.cancel();
        }
        let mut task = JoinSet::new();
        task.spawn(run(Arc::clone(&shared), wire, control));
        Ok(Restart {
            shared,
            _task: Arc::new(task),
        })
    }
}

/// Takes over, if there is somebody to take over from, and then waits to be replaced.
async fn run(shared: Arc<Shared>, wire: Option<Wire>, control: Option<Control>) {
    if let Some(wire) = wire {
        if !new::take_over(&shared, wire).await {
            return;
        }
    }
    let control = control.map_or_else(|| Control::bind(&shared.path), Ok);
    match control {
        Ok(control) => old::wait(&shared, control).await,
        Err(error) => crate::group::log::guarded(|| {
            tracing::warn!(target: "taskgroup", "this process cannot be replaced: {error:#}");
        }),
    }
}

impl Restart {
    /// Makes the settings for a control socket at `path`.
    ///
    /// The directory has to exist, and should belong to the user of the service, such as the `RuntimeDirectory` of
    /// a unit. The socket is for processes of the same user only, and each checks the user of the other.
    pub fn at(path: impl Into<PathBuf>) -> Setup {
        Setup {
            path: path.into(),
            timeout: DEFAULT_HANDOVER_TIMEOUT,
            program: Program::this(),
            notify_reload: false,
        }
    }

    /// Listens at a TCP address, on the socket that the old process has under `name`, or on a new one.
    ///
    /// A server on it accepts as soon as the socket is this process's own.
    ///
    /// # Errors
    ///
    /// - The old process has a socket under that name that is not of TCP, does not listen, or listens elsewhere. An
    ///   address that is offered under another name is not bound a second time either.
    /// - The address cannot be bound.
    /// - The name is empty or taken.
    pub fn tcp(
        &self,
        name: impl Into<String>,
        address: impl ToSocketAddrs,
    ) -> Result<Listening, RestartError> {
        let name = name.into();
        let io = |error| RestartError::io(format!("listener `{name}`"), error);
        let wanted: Vec<SocketAddr> = address.to_socket_addrs().map_err(io)?.collect();
        let (listener, is_shared) = match self.offer(&name)? {
            Some(offer) => offer.tcp(&wanted)?,
            None => {
                self.not_offered(&wanted)?;
                (bind(&wanted).map_err(io)?, false)
            }
        };
        let copy = listener.try_clone().map_err(io)?;
        let listening = Listening::from(listener);
        Ok(self.join(name, listening, copy.into(), is_shared))
    }

    /// The same for a Unix socket at `path`. The path is removed by the process that has the socket last.
    ///
    /// # Errors
    ///
    /// As those of [`tcp`](Self::tcp), and of [`Listening::unix`].
    pub fn unix(
        &self,
        name: impl Into<String>,
        path: impl Into<PathBuf>,
    ) -> Result<Listening, RestartError> {
        let (name, path) = (name.into(), path.into());
        let io = |error| RestartError::io(format!("listener `{name}`"), error);
        let hatch = &self.shared.hatch;
        let (listening, copy) = match self.offer(&name)? {
            Some(offer) => {
                let listener = offer.unix(&path)?;
                let copy = listener.try_clone().map_err(io)?;
                (
                    Listening::taken_over(listener, &path, hatch).map_err(io)?,
                    copy,
                )
            }
            None => Listening::to_hand_over(&path, hatch).map_err(io)?,
        };
        Ok(self.join(name, listening, copy.into(), false))
    }

    /// Hands over a socket that came from elsewhere, such as one of systemd, under `name`.
    ///
    /// If the old process has one under that name, that one is taken, and `listener` is closed.
    ///
    /// # Errors
    ///
    /// As those of [`tcp`](Self::tcp).
    pub fn inherited(
        &self,
        name: impl Into<String>,
        listener: std::net::TcpListener,
    ) -> Result<Listening, RestartError> {
        let name = name.into();
        let io = |error| RestartError::io(format!("listener `{name}`"), error);
        let wanted = [listener.local_addr().map_err(io)?];
        let listener = match self.offer(&name)? {
            Some(offer) => offer.tcp(&wanted)?.0,
            None => listener,
        };
        let copy = listener.try_clone().map_err(io)?;
        let listening = Listening::from(listener).shared();
        Ok(self.join(name, listening, copy.into(), true))
    }

    /// Returns the id of the process that this one takes over from, or has taken over from.
    #[must_use]
    pub fn old(&self) -> Option<u32> {
        self.shared.old
    }

    /// Says that this process is ready to accept. Later calls do nothing.
    ///
    /// A lifecycle [calls it](crate::lifecycle::Lifecycle::restart) by itself. The sockets are taken over when there
    /// is a server at each of them too. Before this call no other process can take over from this one.
    pub fn ready(&self) {
        self.shared.ready.cancel();
        let mut stage = self.shared.stage.lock();
        if self.shared.alone.is_cancelled() && matches!(*stage, Stage::Starting) {
            *stage = Stage::Serving;
        }
    }

    /// Waits until this process has the sockets for its own. The first process has them from the beginning.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub fn taken_over(&self) -> impl Future<Output = ()> + Send + use<> {
        self.shared.ours.clone().cancelled_owned()
    }

    /// Waits until no old process is left, for a component that may not run twice, and returns `true` then. The
    /// first process is alone from the beginning.
    ///
    /// Returns `false` when the component is told to stop before. The component that waits does not have to be
    /// ready for the sockets to be taken over.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    #[must_use = "it is `false` when the component is to stop"]
    pub async fn alone(&self, ctx: &Context) -> bool {
        if self.shared.alone.is_cancelled() {
            return true;
        }
        let _waits = ctx.waits_for_another_process();
        let alone = self.shared.alone.cancelled();
        ctx.token().run_until_cancelled(alone).await.is_some()
    }

    /// Waits until the old process has given up what its component of the same name has a lease on, and takes it.
    ///
    /// A component without such a lease in the old process waits until the sockets are taken over, so that it never
    /// begins for a restart that fails. Returns `None` when the component is told to stop before, which is the only
    /// end of the wait in a process that has handed over itself. See [`alone`](Self::alone).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn lease(&self, ctx: &Context) -> Option<Lease> {
        let name: Arc<str> = ctx.name().into();
        let mut of_old = self.shared.of_old.subscribe();
        let is_free = |leases: &Option<HashSet<String>>| {
            let leases = leases.as_ref();
            leases.is_some_and(|leases| !leases.contains(&*name))
        };
        let is_free_now = is_free(&of_old.borrow());
        if !is_free_now {
            let _waits = ctx.waits_for_another_process();
            let free = of_old.wait_for(is_free);
            // The sender lives as long as this.
            ctx.token().run_until_cancelled(free).await?.ok()?;
        }
        let wanted = CancellationToken::new();
        if !self.shared.take(&name, &wanted) {
            ctx.stopping().await;
            return None;
        }
        Some(Lease {
            name,
            wanted,
            shared: Arc::clone(&self.shared),
        })
    }

    /// Waits until another process has taken over the sockets, and returns its id.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub fn handed_over(&self) -> impl Future<Output = u32> + Send + use<> {
        let mut handed_over = self.shared.handed_over.subscribe();
        async move {
            match handed_over.wait_for(Option::is_some).await.map(|pid| *pid) {
                Ok(Some(pid)) => pid,
                // Everything that could hand over is gone.
                _ => std::future::pending().await,
            }
        }
    }

    /// Waits until the old process has refused to hand over after all, and returns why. This process has no
    /// sockets then, and ends. A lifecycle fails by itself.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub fn refused(&self) -> impl Future<Output = RestartError> + Send + use<> {
        let mut refused = self.shared.refused.subscribe();
        async move {
            match refused
                .wait_for(Option::is_some)
                .await
                .map(|why| why.clone())
            {
                Ok(Some(why)) => RestartError::failed(why),
                _ => std::future::pending().await,
            }
        }
    }

    /// Starts the program again, waits until the new process has taken over, and returns its id. It is what
    /// [`request`] asks for, for a process that is asked in another way, for example by a signal.
    ///
    /// # Errors
    ///
    /// The restart was [refused](RestartError::is_refused), or has failed. This process goes on then, and the
    /// new one was killed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the restart up, and kills the new process unless it has taken over.
    pub async fn restart(&self) -> Result<u32, RestartError> {
        old::start_another(&self.shared).await
    }

    fn offer(&self, name: &str) -> Result<Option<Offer>, RestartError> {
        if name.is_empty() {
            return Err(RestartError::failed("a listener has an empty name"));
        }
        if self
            .shared
            .sockets
            .lock()
            .iter()
            .any(|named| named.name == name)
        {
            return Err(RestartError::failed(format!(
                "listener `{name}` is there already"
            )));
        }
        let mut offers = self.shared.offers.lock();
        let at = offers.iter().position(|offer| offer.name == name);
        Ok(at.map(|at| offers.remove(at)))
    }

    /// Two sockets at one address would have a queue each, and each would lose what is in it.
    fn not_offered(&self, wanted: &[SocketAddr]) -> Result<(), RestartError> {
        let offers = self.shared.offers.lock();
        match offers.iter().find(|offer| offer.is_at(wanted)) {
            Some(offer) => Err(RestartError::failed(format!(
                "the old process has {} under the name `{}`",
                offer.address, offer.name
            ))),
            None => Ok(()),
        }
    }

    fn join(
        &self,
        name: String,
        listening: Listening,
        copy: OwnedFd,
        is_shared: bool,
    ) -> Listening {
        let door = self.shared.hatch.door(copy);
        self.shared.sockets.lock().push(Named {
            key: door.key(),
            name,
            is_shared,
        });
        let listening = if is_shared {
            listening.shared()
        } else {
            listening
        };
        listening.behind(door)
    }
}

fn bind(wanted: &[SocketAddr]) -> std::io::Result<std::net::TcpListener> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in wanted {
        let listen = || {
            let socket = Socket::new(
                Domain::for_address(*address),
                Type::STREAM,
                Some(Protocol::TCP),
            )?;
            socket.set_reuse_address(true)?;
            socket.bind(&(*address).into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        };
        match listen() {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Asks the process whose control socket is at `path` to restart in place, waits until the new one accepts, and
/// returns the id of the new one.
///
/// It is for a command such as the `ExecReload` of a unit.
///
/// # Errors
///
/// - No process listens at `path`.
/// - The restart was [refused](RestartError::is_refused), or has failed. The running process goes on.
///
/// # Cancel safety
///
/// Dropping the future does not take the request back.
pub async fn request(path: impl AsRef<Path>) -> Result<u32, RestartError> {
    let path = path.as_ref();
    let io = |error| at(path, error);
    let Some(mut wire) = connect(path).await? else {
        let error = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(RestartError::io(
            format!("no process listens at {}", path.display()),
            error,
        ));
    };
    wire.send(&format!("RESTART {}", VERSION), None)
        .await
        .map_err(io)?;
    let answer = wire.receive().await.map_err(io)?;
    let answer = answer.ok_or_else(|| RestartError::failed("the process has ended"))?;
    let (word, rest) = answer.split_once(' ').unwrap_or((&answer, ""));
    match (word, rest.parse()) {
        ("DONE", Ok(pid)) => Ok(pid),
        ("REFUSED", _) => Err(RestartError::refused(rest)),
        ("FAILED", _) => Err(RestartError::failed(rest)),
        _ => Err(RestartError::failed(format!(
            "the process has answered {answer:?}"
        ))),
    }
}

impl fmt::Debug for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restart")
            .field("path", &self.shared.path)
            .field("old", &self.shared.old)
            .field("stage", &*self.shared.stage.lock())
            .finish_non_exhaustive()
    }
}
