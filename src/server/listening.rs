//! [`Listening`]: what a server listens on.

mod own;
mod socket;
#[cfg(unix)]
mod unix_path;

use std::fmt;
use std::io;
use std::task::{Context, Poll, Waker};

use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

use crate::group::build_error::BuildError;
use crate::server::address::Address;
#[cfg(all(feature = "restart", unix))]
use crate::server::hatch::{Door, Hatch, Whose};
use crate::server::listener::Listener;
use crate::server::transport::Transport;

use self::own::Own;
#[cfg(unix)]
use self::unix_path::UnixPath;

/// What a server listens on. Anything that converts into it can be given to [`serve`](crate::serve()).
///
/// | from | what |
/// |---|---|
/// | `tokio::net::TcpListener`, `std::net::TcpListener` | TCP |
/// | `tokio::net::UnixListener`, `std::os::unix::net::UnixListener` | a Unix socket, whose path stays when the server has ended |
/// | [`unix`](Self::unix) | a Unix socket whose path is removed with it |
/// | [`own`](Self::own) | a [`Listener`] of your own |
///
/// A socket may come from the service manager or from any other process, for example through the crate
/// `listenfd`. When the server starts, it checks that the socket listens and is of its kind, and makes it
/// non-blocking, whatever it was before.
///
/// # Shared sockets
///
/// A socket that another process holds too outlives the server. The stop of the server then only closes its
/// own descriptor. It takes nothing from the queue, which belongs to the next process too, and does nothing to
/// the socket itself. A socket counts as shared in these cases:
///
/// - It had no close-on-exec flag when the server started, as each socket that a process inherits. The server
///   sets the flag then, so that children do not hold the socket.
/// - systemd has passed it to this process (`LISTEN_FDS`).
/// - Another process has made it (Unix sockets on Linux).
/// - [`shared`](Self::shared) says so.
///
/// A TCP socket that came in any other way, for example in a message over a Unix socket, looks like one that
/// this process has made. Call [`shared`](Self::shared) for it.
///
/// # Drop
///
/// Closes the socket.
///
/// # Examples
///
/// The same app over TCP and over a Unix socket.
///
/// ```
/// use taskgroup::server::Listening;
///
/// # #[cfg(all(unix, feature = "axum"))]
/// # async fn f() -> std::io::Result<()> {
/// let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let http = taskgroup::serve("http", tcp, axum::Router::new())
///     .also_on(Listening::unix("/run/orders/http.sock")?);
/// # drop(http);
/// # Ok(())
/// # }
/// ```
pub struct Listening {
    kind: Kind,
    is_shared: bool,
    #[cfg(all(feature = "restart", unix))]
    door: Option<Door>,
}

enum Kind {
    StdTcp(std::net::TcpListener),
    Tcp(TcpListener),
    #[cfg(unix)]
    StdUnix(std::os::unix::net::UnixListener, Option<UnixPath>),
    #[cfg(unix)]
    Unix(UnixListener, Option<UnixPath>),
    Own(Own),
}

impl Listening {
    /// Listens on a Unix socket at `path`, and removes the path when the server has stopped listening.
    ///
    /// A socket file that a dead process has left there is replaced. The path is removed only if the file is
    /// still the one that this call has made. Anyone whom the permissions of the file let write to it may
    /// connect. They are those of the umask, and `std::fs::set_permissions` changes them.
    ///
    /// # Errors
    ///
    /// - [`AddrInUse`](io::ErrorKind::AddrInUse) if a process listens at `path`, or if a file that is not a
    ///   socket is there. The message says which.
    /// - Any error of the system, for example because the directory is missing.
    #[cfg(unix)]
    pub fn unix(path: impl Into<std::path::PathBuf>) -> io::Result<Self> {
        let (listener, path) = UnixPath::bind(path.into())?;
        Ok(Self::of(Kind::StdUnix(listener, Some(path))))
    }

    /// Listens on a listener of your own.
    pub fn own(listener: impl Listener) -> Self {
        Self::of(Kind::Own(Own::new(listener)))
    }

    /// Says that another process holds the socket too. See [shared sockets](#shared-sockets).
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.is_shared = true;
        self
    }

    /// Returns the address at which it can be reached.
    ///
    /// # Errors
    ///
    /// The error of the system, or of the [`Listener`].
    pub fn local_addr(&self) -> io::Result<Address> {
        match &self.kind {
            Kind::StdTcp(listener) => listener.local_addr().map(Address::from),
            Kind::Tcp(listener) => listener.local_addr().map(Address::from),
            #[cfg(unix)]
            Kind::StdUnix(listener, _) => {
                let address = listener.local_addr()?;
                Ok(tokio::net::unix::SocketAddr::from(address).into())
            }
            #[cfg(unix)]
            Kind::Unix(listener, _) => listener.local_addr().map(Address::from),
            Kind::Own(listener) => listener.local_addr(),
        }
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            is_shared: false,
            #[cfg(all(feature = "restart", unix))]
            door: None,
        }
    }

    /// Puts it behind a door, which says when this process accepts.
    #[cfg(all(feature = "restart", unix))]
    pub(crate) fn behind(mut self, door: Door) -> Self {
        self.door = Some(door);
        self
    }

    /// As [`unix`](Self::unix), with a copy of the socket. The path is removed only if the socket is still ours.
    #[cfg(all(feature = "restart", unix))]
    pub(crate) fn to_hand_over(
        path: &std::path::Path,
        hatch: &std::sync::Arc<Hatch>,
    ) -> io::Result<(Self, std::os::unix::net::UnixListener)> {
        let (listener, mut path) = UnixPath::bind(path.to_owned())?;
        path.only_if_ours(hatch);
        let copy = listener.try_clone()?;
        Ok((Self::of(Kind::StdUnix(listener, Some(path))), copy))
    }

    /// The same for a socket that another process has made.
    #[cfg(all(feature = "restart", unix))]
    pub(crate) fn taken_over(
        listener: std::os::unix::net::UnixListener,
        path: &std::path::Path,
        hatch: &std::sync::Arc<Hatch>,
    ) -> io::Result<Self> {
        let mut path = UnixPath::of(path.to_owned())?;
        path.only_if_ours(hatch);
        Ok(Self::of(Kind::StdUnix(listener, Some(path))))
    }

    /// Checks it and begins to listen. It has to be called within a runtime.
    pub(crate) fn open(self, server: &str) -> Result<Open, BuildError> {
        let address = self.local_addr();
        let name = match &address {
            Ok(address) => address.to_string(),
            Err(_) => "this one".to_owned(),
        };
        let refuse =
            |why: String| BuildError::new(format!("server `{server}`"), "listener", name, why);
        let mut is_shared = self.is_shared;
        let opened = address.and_then(|address| {
            let socket = match self.kind {
                Kind::StdTcp(listener) => {
                    is_shared |= socket::prepare(&listener)?;
                    Socket::Tcp(TcpListener::from_std(listener)?)
                }
                Kind::Tcp(listener) => {
                    is_shared |= socket::prepare(&listener)?;
                    Socket::Tcp(listener)
                }
                #[cfg(unix)]
                Kind::StdUnix(listener, path) => {
                    is_shared |= socket::prepare_unix(&listener)?;
                    Socket::Unix(UnixListener::from_std(listener)?, path)
                }
                #[cfg(unix)]
                Kind::Unix(listener, path) => {
                    is_shared |= socket::prepare_unix(&listener)?;
                    Socket::Unix(listener, path)
                }
                Kind::Own(listener) => Socket::Own(listener),
            };
            Ok((address, socket))
        });
        let (address, socket) = opened.map_err(|error| refuse(error.to_string()))?;
        Ok(Open {
            address,
            socket,
            is_shared,
            #[cfg(all(feature = "restart", unix))]
            door: self.door,
        })
    }
}

/// A listener at work.
#[derive(Debug)]
pub(crate) struct Open {
    address: Address,
    socket: Socket,
    /// Whether another process holds the socket too.
    is_shared: bool,
    #[cfg(all(feature = "restart", unix))]
    door: Option<Door>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener, Option<UnixPath>),
    Own(Own),
}

/// What is left of a listener once its server stops.
#[derive(Debug)]
pub(crate) enum Closing {
    /// Nothing, because the queue belongs to another process as well.
    Left,
    Tcp {
        listener: std::net::TcpListener,
        is_shown: bool,
    },
    Queue(Queue),
}

/// The queue of a listener that takes no more connections, or is about to be dropped.
#[derive(Debug)]
pub(crate) struct Queue(Rest);

#[derive(Debug)]
enum Rest {
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
    Own(Own),
}

impl Queue {
    /// Whether Tokio's driver may know of connections a moment later only.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.0, Rest::Own(_))
    }

    /// Accepts a connection that waits, without waiting itself.
    pub(crate) fn accept(&mut self) -> io::Result<(Transport, Address)> {
        match &mut self.0 {
            #[cfg(unix)]
            Rest::Unix(listener) => {
                let (stream, peer) = listener.accept().map_err(|error| match error.kind() {
                    // It takes no more connections, and its queue is empty.
                    io::ErrorKind::InvalidInput => io::ErrorKind::WouldBlock.into(),
                    _ => error,
                })?;
                stream.set_nonblocking(true)?;
                let stream = tokio::net::UnixStream::from_std(stream)?;
                let peer = tokio::net::unix::SocketAddr::from(peer);
                Ok((Transport::Unix(stream), peer.into()))
            }
            Rest::Own(own) => match own.poll_accept(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(accepted) => accepted,
                Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            },
        }
    }
}

impl Open {
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The socket of the system, if it is one of TCP.
    pub(crate) fn tcp(&self) -> Option<&TcpListener> {
        match &self.socket {
            Socket::Tcp(listener) => Some(listener),
            _ => None,
        }
    }

    pub(crate) fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Transport, Address)>> {
        let socket = &mut self.socket;
        #[cfg(all(feature = "restart", unix))]
        if let Some(door) = &self.door {
            return door.pass(cx, |cx| socket.poll_accept(cx));
        }
        socket.poll_accept(cx)
    }

    /// Begins to close it. From here on the socket itself is polled, not Tokio, which knows only what its
    /// driver had time to see.
    pub(crate) fn close(self) -> Closing {
        // Whether another process, which is about to end, holds it for the moment.
        #[cfg_attr(not(all(feature = "restart", unix)), allow(unused_mut))]
        let mut is_shown = false;
        #[cfg(all(feature = "restart", unix))]
        if let Some(door) = &self.door {
            match door.close() {
                Whose::Ours => {}
                Whose::OursAndShown => is_shown = true,
                Whose::Other => return Closing::Left,
            }
        }
        if self.is_shared {
            return Closing::Left;
        }
        match self.socket {
            Socket::Tcp(listener) => match listener.into_std() {
                Ok(listener) => Closing::Tcp { listener, is_shown },
                Err(_) => Closing::Left,
            },
            #[cfg(unix)]
            Socket::Unix(listener, path) => {
                drop(path);
                let Ok(listener) = listener.into_std() else {
                    return Closing::Left;
                };
                if !is_shown {
                    socket::refuse_more(&listener);
                }
                Closing::Queue(Queue(Rest::Unix(listener)))
            }
            Socket::Own(own) => Closing::Queue(Queue(Rest::Own(own))),
        }
    }

    /// Returns the hatch that the socket is behind, if it may be handed over.
    #[cfg(all(feature = "restart", unix))]
    pub(crate) fn hatch(&self) -> Option<&std::sync::Arc<Hatch>> {
        self.door.as_ref().map(Door::hatch)
    }
}

impl Socket {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Transport, Address)>> {
        match self {
            Self::Tcp(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, peer)| (Transport::Tcp(stream), peer.into())),
            #[cfg(unix)]
            Self::Unix(listener, _) => listener
                .poll_accept(cx)
                .map_ok(|(stream, peer)| (Transport::Unix(stream), peer.into())),
            Self::Own(own) => own.poll_accept(cx),
        }
    }
}

impl From<TcpListener> for Listening {
    fn from(listener: TcpListener) -> Self {
        Self::of(Kind::Tcp(listener))
    }
}

impl From<std::net::TcpListener> for Listening {
    fn from(listener: std::net::TcpListener) -> Self {
        Self::of(Kind::StdTcp(listener))
    }
}

#[cfg(unix)]
impl From<UnixListener> for Listening {
    fn from(listener: UnixListener) -> Self {
        Self::of(Kind::Unix(listener, None))
    }
}

#[cfg(unix)]
impl From<std::os::unix::net::UnixListener> for Listening {
    fn from(listener: std::os::unix::net::UnixListener) -> Self {
        Self::of(Kind::StdUnix(listener, None))
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening")
            .field("address", &self.local_addr())
            .field("is_shared", &self.is_shared)
            .finish_non_exhaustive()
    }
}
