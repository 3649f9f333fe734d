//! [`Incoming`]: a new connection.

use super::io::Io;
use crate::server::address::Address;
use crate::server::stop::Stop;
use crate::server::transport::Transport;

/// A new connection, as it is shown to the code that makes its service.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    pub(super) io: &'a Io,
    pub(super) peer: &'a Address,
}

impl<'a> Incoming<'a> {
    /// Returns the stream, for example to ask TLS for the certificate of the peer, or a Unix socket for its
    /// credentials.
    #[must_use]
    pub fn transport(&self) -> &'a Transport {
        self.io.get_ref()
    }

    /// Returns the address of the peer.
    #[must_use]
    pub fn remote_addr(&self) -> &'a Address {
        self.peer
    }

    /// Returns the stop of the server.
    ///
    /// A service that is made for each connection can keep it. Then its requests need none, see
    /// [`stop_in_requests`](crate::server::Serve::stop_in_requests).
    #[must_use]
    pub fn stop(&self) -> &'a Stop {
        self.io.conn().gate().stop()
    }
}
