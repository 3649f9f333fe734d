//! [`Acceptor`]: accepts connections, and at the stop all that are waiting.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::conn::Gate;
use super::io::Io;
use crate::log;

type Accepted = (Io<TcpStream>, SocketAddr);

#[derive(Debug)]
pub(crate) struct Acceptor {
    gate: Arc<Gate>,
    address: io::Result<SocketAddr>,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Listening(TcpListener),
    /// It is closed; these were waiting then and are not handed over yet.
    Swept(VecDeque<Accepted>),
}

/// A queue that is filled faster than this is emptied is not waited for. Linux makes none longer
/// unless it is told to.
const MOST_SWEPT: usize = 4096;

impl Acceptor {
    pub(crate) fn new(listener: TcpListener, gate: Arc<Gate>) -> Self {
        Self {
            gate,
            address: listener.local_addr(),
            socket: Socket::Listening(listener),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }

    /// Accepts one connection.
    ///
    /// After the stop it hands over what was waiting, and then it waits for ever: a server that is
    /// not to know of the stop yet must not see an end either.
    pub(crate) async fn accept(&mut self) -> Accepted {
        loop {
            match &mut self.socket {
                Socket::Swept(waiting) => match waiting.pop_front() {
                    Some(accepted) => return accepted,
                    None => pending().await,
                },
                Socket::Listening(listener) => match before_stop(&self.gate, listener).await {
                    Some(accepted) => return accepted,
                    None => self.sweep(),
                },
            }
        }
    }

    /// Accepts all that is there and closes the socket.
    ///
    /// What waits has been connected to by somebody whose request may be here already; it is taken
    /// in even if the limit of connections is exceeded. The socket itself is asked, not Tokio, which
    /// knows only what its driver has had the time to see.
    fn sweep(&mut self) {
        let empty = Socket::Swept(VecDeque::new());
        let Socket::Listening(listener) = std::mem::replace(&mut self.socket, empty) else {
            return;
        };
        let mut waiting = VecDeque::new();
        if let Ok(listener) = listener.into_std() {
            for accepted in std::iter::repeat_with(|| listener.accept()).take(MOST_SWEPT) {
                match accepted.and_then(|(stream, peer)| Ok((registered(stream)?, peer))) {
                    Ok((stream, peer)) => {
                        let conn = self.gate.register(None);
                        set_options(&self.gate, &stream);
                        waiting.push_back((Io::new(stream, conn), peer));
                    }
                    Err(error) if is_of_peer(&error) => {}
                    Err(_) => break,
                }
            }
        }
        self.gate.set_swept(waiting.len());
        self.socket = Socket::Swept(waiting);
    }
}

/// Accepts one connection, or returns nothing when the stop begins.
async fn before_stop(gate: &Arc<Gate>, listener: &TcpListener) -> Option<Accepted> {
    let mut stopping = pin!(gate.stop().stopping());
    let mut next = pin!(next(gate, listener));
    poll_fn(|cx| match stopping.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => next.as_mut().poll(cx).map(Some),
    })
    .await
}

async fn next(gate: &Arc<Gate>, listener: &TcpListener) -> Accepted {
    // Before the accept: who has no place yet waits in the queue of the system.
    let slot = gate.slot().await;
    let mut pause = Pause::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                set_options(gate, &stream);
                return (Io::new(stream, gate.register(slot)), peer);
            }
            Err(error) if is_of_peer(&error) => {}
            Err(error) => {
                let pause = pause.next();
                log::guarded(|| {
                    tracing::warn!(target: "taskgroup", "accept failed, next try in {pause:?}: {error}");
                });
                sleep(pause).await;
            }
        }
    }
}

fn registered(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Without them it works as well, so a peer that is gone already is not looked at.
fn set_options(gate: &Gate, stream: &TcpStream) {
    if gate.limits().nodelay {
        let _ = stream.set_nodelay(true);
    }
}

/// Returns whether it was that one connection which failed, and not the accepting.
fn is_of_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// The time between two tries while the system has no file descriptor or no memory for us.
#[derive(Debug)]
struct Pause(Duration);

impl Pause {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(1);

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::LONGEST);
        pause
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self(Self::FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r17_the_pause_grows_from_5_ms_to_a_second() {
        let mut pause = Pause::default();
        let pauses: Vec<_> = (0..10).map(|_| pause.next().as_millis()).collect();

        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }

    #[test]
    fn r17_what_failed_for_one_peer_only_is_tried_again_at_once() {
        let is_of_peer = |kind: io::ErrorKind| is_of_peer(&kind.into());

        assert!(is_of_peer(io::ErrorKind::ConnectionAborted));
        assert!(is_of_peer(io::ErrorKind::ConnectionReset));
        assert!(!is_of_peer(io::ErrorKind::OutOfMemory));
        assert!(!is_of_peer(io::ErrorKind::Other));
    }
}
