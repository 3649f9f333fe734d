//! [`LastCall`]: the moment before a listening socket is closed. The socket takes no new connections then, and
//! handshakes in progress complete.
//!
//! A connection that completes between the last accept and the close is reset by the system, although its
//! client takes it for open and may have sent a request. So from the last call on the socket ignores new
//! connections. Handshakes in progress finish within one round trip, and are accepted. A later SYN is dropped.
//! Its retry, a second later, is refused. Load balancers do the same when they restart, with a packet filter of
//! the system.
//!
//! The filter belongs to the socket and not to the descriptor. If systemd or the next process holds the same
//! socket, it would stay deaf forever. A socket that is known to be shared has no last call at all. For one that
//! is shared and looks as if it were not, the filter is removed when the last call ends, and in a forced exit.
//! After a SIGKILL nothing removes it, so a server also removes it from any socket that it is given.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use crate::server::forced::Seat;
use crate::server::forced::Undo;

/// More than a round trip inside of a data centre.
pub(super) const LENGTH: Duration = Duration::from_millis(5);

/// A listening socket that ignores new connections, if the system can do that, until this is dropped.
#[derive(Debug)]
pub(super) struct LastCall {
    socket: Arc<Socket>,
    /// Released last. Until then a forced exit removes the filter. `None` without a filter.
    seat: Option<Seat>,
}

#[derive(Debug)]
struct Socket(TcpListener);

impl LastCall {
    pub(super) fn of(listener: TcpListener) -> Self {
        let socket = Arc::new(Socket(listener));
        // A forced exit gives no more seats, and so no filter is set that would outlive it.
        let seat = Seat::take().filter(|_| filter::add(&socket.0).is_ok());
        if let Some(seat) = &seat {
            seat.fill(None, Arc::clone(&socket) as Arc<dyn Undo>);
        }
        Self { socket, seat }
    }

    /// Closes it as it is, because another process could be left with a socket that is deaf.
    pub(super) fn without(listener: TcpListener) -> Self {
        Self {
            socket: Arc::new(Socket(listener)),
            seat: None,
        }
    }

    /// Returns whether the socket really ignores new connections.
    pub(super) fn is_on(&self) -> bool {
        self.seat.is_some()
    }

    pub(super) fn listener(&self) -> &TcpListener {
        &self.socket.0
    }
}

impl Drop for LastCall {
    fn drop(&mut self) {
        if self.is_on() {
            self.socket.undo();
        }
    }
}

impl Undo for Socket {
    fn undo(&self) {
        filter::remove(&self.0);
    }
}

/// Removes the filter that an earlier server may have left on a socket.
pub(super) fn listen_to_all(listener: &tokio::net::TcpListener) {
    filter::remove(listener);
}

#[cfg(target_os = "linux")]
mod filter {
    use super::*;

    use std::os::fd::AsFd;

    use socket2::SockFilter;
    use socket2::SockRef;

    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_OR_ACK: u32 = 0x12;

    pub(super) fn add(listener: &TcpListener) -> io::Result<()> {
        // Classic BPF over the TCP header. It loads the flags, masks SYN and ACK, and drops a lone SYN.
        let filter = [
            SockFilter::new(0x30, 0, 0, FLAGS),
            SockFilter::new(0x54, 0, 0, SYN_OR_ACK),
            SockFilter::new(0x15, 0, 1, SYN),
            SockFilter::new(0x06, 0, 0, 0),
            SockFilter::new(0x06, 0, 0, u32::MAX),
        ];
        SockRef::from(listener).attach_filter(&filter)
    }

    pub(super) fn remove(listener: &impl AsFd) {
        // Without a filter this fails, which is fine.
        let _ = SockRef::from(listener).detach_filter();
    }
}

#[cfg(not(target_os = "linux"))]
mod filter {
    use super::*;

    pub(super) fn add(_listener: &TcpListener) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn remove<T>(_listener: &T) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    use std::net::TcpStream;

    #[test]
    fn r7_a_client_that_was_connected_is_accepted_and_no_other_is_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let before = TcpStream::connect(address).unwrap();

        let call = LastCall::of(listener);
        assert!(call.is_on());

        let after = TcpStream::connect_timeout(&address, 20 * LENGTH);
        assert_eq!(after.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (_, peer) = call.listener().accept().unwrap();
        assert_eq!(peer, before.local_addr().unwrap());
        drop(call);
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_socket_that_a_killed_process_has_left_deaf_listens_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // This is what a SIGKILL leaves, a filter that nothing removes.
        filter::add(&listener).unwrap();
        let deaf = TcpStream::connect_timeout(&address, 20 * LENGTH);
        assert_eq!(deaf.unwrap_err().kind(), io::ErrorKind::TimedOut);

        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        listen_to_all(&listener);

        let client = TcpStream::connect(address).unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }
}
