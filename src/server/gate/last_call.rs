//! The moment before a listening socket is closed, in which it takes no new connection any more and
//! those that are being made come through.
//!
//! Between the last accept and the close a connection can be completed, and the system resets it: its
//! client takes it for open and has sent a request by then. So from the last call on the socket
//! ignores whoever asks for a connection. Who has asked before is through after one round trip, and is
//! accepted; who comes later asks again, a second later, and is refused by then. Known from the
//! restarts of load balancers, where a packet filter of the system does it.
//!
//! The filter belongs to the socket and not to the descriptor. Somebody else may hold that too, such as
//! systemd or the next process, and would have a socket that is deaf for ever: so it is taken away again.

use std::time::Duration;

use tokio::net::TcpListener;

/// More than a round trip inside of a data centre.
pub(super) const LENGTH: Duration = Duration::from_millis(5);

/// Has `listener` ignore whoever asks for a new connection; returns whether the system can do that.
#[cfg(target_os = "linux")]
pub(super) fn last_call(listener: &TcpListener) -> bool {
    use socket2::{SockFilter, SockRef};

    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_OR_ACK: u32 = 0x12;
    // Classic BPF over the header of TCP: load the flags, leave SYN and ACK, drop a SYN alone.
    let filter = [
        SockFilter::new(0x30, 0, 0, FLAGS),
        SockFilter::new(0x54, 0, 0, SYN_OR_ACK),
        SockFilter::new(0x15, 0, 1, SYN),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    SockRef::from(listener).attach_filter(&filter).is_ok()
}

/// Has `listener` listen to everybody again.
#[cfg(target_os = "linux")]
pub(super) fn take_back(listener: &impl std::os::fd::AsFd) {
    // Without a filter this fails, and nothing is wrong.
    let _ = socket2::SockRef::from(listener).detach_filter();
}

#[cfg(not(target_os = "linux"))]
pub(super) fn take_back<T>(_listener: &T) {}

#[cfg(not(target_os = "linux"))]
pub(super) fn last_call(_listener: &TcpListener) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    use std::io;
    use std::net::TcpStream;

    #[tokio::test]
    async fn r7_who_was_connected_is_accepted_and_nobody_else_is_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let before = TcpStream::connect(address).unwrap();

        assert!(last_call(&listener));

        let after = TcpStream::connect_timeout(&address, 20 * LENGTH);
        assert_eq!(after.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, before.local_addr().unwrap());
        drop(listener);
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
