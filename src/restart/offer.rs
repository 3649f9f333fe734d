//! [`Offer`]: a socket that the old process has passed.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::net::{AddressFamily, SocketType};

use super::error::RestartError;

/// A socket of the old process.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) name: String,
    /// Where it listens, as it is printed.
    pub(super) address: String,
    descriptor: OwnedFd,
    is_shared: bool,
}

impl Offer {
    pub(super) fn new(text: &str, descriptor: OwnedFd) -> io::Result<Self> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("OFFER {text}"));
        let (shared, name) = text.split_once(' ').ok_or_else(malformed)?;
        let address = rustix::net::getsockname(&descriptor)?;
        let address = match SocketAddr::try_from(address.clone()) {
            Ok(address) => address.to_string(),
            Err(_) => match rustix::net::SocketAddrUnix::try_from(address) {
                Ok(unix) => unix.path().map(|path| path.to_string_lossy().into_owned()),
                Err(_) => None,
            }
            .unwrap_or_else(|| "somewhere".to_owned()),
        };
        Ok(Self {
            name: name.to_owned(),
            address,
            descriptor,
            is_shared: shared == "1",
        })
    }

    pub(super) fn is_at(&self, wanted: &[SocketAddr]) -> bool {
        let at = self.address.parse();
        at.is_ok_and(|at: SocketAddr| wanted.contains(&at))
    }

    /// Returns the socket if it is one of TCP that listens at one of these addresses, and whether it is shared. A
    /// wanted port of 0 is any.
    pub(super) fn tcp(self, wanted: &[SocketAddr]) -> Result<(TcpListener, bool), RestartError> {
        self.check(&[AddressFamily::INET, AddressFamily::INET6], "of TCP")?;
        let at: Option<SocketAddr> = self.address.parse().ok();
        let is_wanted = |wanted: &SocketAddr| {
            at.is_some_and(|at| {
                at.ip() == wanted.ip() && (wanted.port() == 0 || at.port() == wanted.port())
            })
        };
        if !wanted.iter().any(is_wanted) {
            return Err(self.elsewhere(&format!("{wanted:?}")));
        }
        Ok((self.descriptor.into(), self.is_shared))
    }

    /// Returns the socket if it is a Unix socket that listens at `path`.
    pub(super) fn unix(self, path: &Path) -> Result<UnixListener, RestartError> {
        self.check(&[AddressFamily::UNIX], "a Unix socket")?;
        if Path::new(&self.address) != path {
            return Err(self.elsewhere(&path.display().to_string()));
        }
        Ok(self.descriptor.into())
    }

    fn check(&self, families: &[AddressFamily], what: &str) -> Result<(), RestartError> {
        let name = &self.name;
        let io =
            |error: rustix::io::Errno| RestartError::io(format!("listener `{name}`"), error.into());
        let family = rustix::net::getsockname(&self.descriptor)
            .map_err(io)?
            .address_family();
        let kind = rustix::net::sockopt::socket_type(&self.descriptor).map_err(io)?;
        if !families.contains(&family) || kind != SocketType::STREAM {
            let why = format!("listener `{name}` of the old process is not {what}");
            return Err(RestartError::failed(why));
        }
        // Apple's systems do not tell.
        #[cfg(not(target_vendor = "apple"))]
        if !rustix::net::sockopt::socket_acceptconn(&self.descriptor).map_err(io)? {
            let why = format!("listener `{name}` of the old process does not listen");
            return Err(RestartError::failed(why));
        }
        Ok(())
    }

    fn elsewhere(&self, wanted: &str) -> RestartError {
        let Self { name, address, .. } = self;
        RestartError::failed(format!(
            "listener `{name}` of the old process is at {address}, and {wanted} is wanted: \
             another address needs another name"
        ))
    }
}
