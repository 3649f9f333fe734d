//! The socket of the service manager.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends to the service manager, without ever waiting for it.
#[derive(Debug)]
pub(super) struct Socket {
    socket: UnixDatagram,
    /// Not connected, because a restarted manager has a new socket at the same address.
    to: SocketAddr,
}

impl Socket {
    /// Opens a socket to the address in `NOTIFY_SOCKET`.
    pub(super) fn open(address: &OsStr) -> io::Result<Self> {
        let to = parse(address.as_bytes())?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, to })
    }

    /// Sends one message. If the manager does not read, it returns [`io::ErrorKind::WouldBlock`].
    pub(super) fn send(&self, message: &str) -> io::Result<()> {
        self.socket
            .send_to_addr(message.as_bytes(), &self.to)
            .map(drop)
    }
}

pub(super) fn parse(address: &[u8]) -> io::Result<SocketAddr> {
    match address {
        [b'/', _, ..] => SocketAddr::from_pathname(OsStr::from_bytes(address)),
        [b'@', name @ ..] if !name.is_empty() => abstract_address(name),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither a path nor an abstract name",
        )),
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;

    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_address_is_refused() {
        for address in ["", "/", "@", "notify", "vsock:2:1234"] {
            let refused = Socket::open(OsStr::new(address)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{address:?}");
        }
        let long = "/".to_owned() + &"x".repeat(200);
        assert!(Socket::open(OsStr::new(&long)).is_err());
    }

    #[test]
    fn a_path_need_not_be_there_yet() {
        let socket = Socket::open(OsStr::new("/nonexistent/notify")).unwrap();
        assert_eq!(
            socket.send("READY=1").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
