//! [`Address`]: where a server listens, and where a peer is.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// The address of a listener or of a peer, of any type.
///
/// It prints as the address itself. A Unix socket prints its path, or `(unnamed)` for a client that has no
/// path, which is nearly every client. An address of another [`Listener`](crate::server::Listener) prints
/// with its `Debug`.
///
/// # Examples
///
/// ```
/// use std::net::SocketAddr;
/// use taskgroup::server::Address;
///
/// let address = Address::from(SocketAddr::from(([127, 0, 0, 1], 8080)));
/// assert_eq!(address.to_string(), "127.0.0.1:8080");
/// assert_eq!(address.socket_addr().map(|address| address.port()), Some(8080));
/// ```
#[derive(Clone)]
pub struct Address(Kind);

#[derive(Clone)]
enum Kind {
    Ip(SocketAddr),
    Other(Arc<dyn Other>),
}

trait Other: fmt::Debug + Send + Sync + 'static {
    fn as_any(&self) -> &dyn Any;
}

impl<T: fmt::Debug + Send + Sync + 'static> Other for T {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Address {
    pub(crate) fn of<T: fmt::Debug + Send + Sync + 'static>(address: T) -> Self {
        match (&address as &dyn Any).downcast_ref() {
            Some(ip) => Self(Kind::Ip(*ip)),
            None => Self(Kind::Other(Arc::new(address))),
        }
    }

    /// Returns the IP address and the port, or `None` if it is of another kind.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.downcast_ref().copied()
    }

    /// Returns the address itself, if it is a `T`, for example a `tokio::net::unix::SocketAddr`.
    #[must_use]
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        match &self.0 {
            Kind::Ip(address) => (address as &dyn Any).downcast_ref(),
            Kind::Other(address) => (**address).as_any().downcast_ref(),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(Kind::Ip(address))
    }
}

#[cfg(unix)]
impl From<tokio::net::unix::SocketAddr> for Address {
    fn from(address: tokio::net::unix::SocketAddr) -> Self {
        Self(Kind::Other(Arc::new(address)))
    }
}

impl PartialEq<SocketAddr> for Address {
    fn eq(&self, other: &SocketAddr) -> bool {
        self.socket_addr() == Some(*other)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(unix)]
        if let Some(address) = self.downcast_ref::<tokio::net::unix::SocketAddr>() {
            return match address.as_pathname() {
                Some(path) => path.display().fmt(f),
                None => write!(f, "{address:?}"),
            };
        }
        match &self.0 {
            Kind::Ip(address) => address.fmt(f),
            Kind::Other(address) => address.fmt(f),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
