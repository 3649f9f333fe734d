//! The listener and the streams as axum takes them.

use std::io;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::{IncomingStream, TapIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::transport::Transport;
use crate::group::log;
use crate::server::gate::Io;
use crate::server::serve::Acceptor;

/// A connection as [`serve`](super::serve) shows it to a make-service; of interest to those who write
/// their own.
pub type Incoming<'a> = IncomingStream<'a, TapIo<Listener, fn(&mut Io<Transport>)>>;

/// For the one thing `TapIo` is needed for: with it, axum knows the connect info of any listener.
pub(super) fn untouched(_io: &mut Io<Transport>) {}

/// The listener that [`serve`](super::serve) gives to axum; it appears in the type of [`Incoming`].
#[derive(Debug)]
pub struct Listener {
    acceptor: Acceptor,
    tls: Option<Handshakes>,
}

impl Listener {
    pub(super) fn new(acceptor: Acceptor, tls: Option<Handshake>) -> Self {
        Self {
            acceptor,
            tls: tls.map(Handshakes::new),
        }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Io<Transport>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Accepted {
        let Some(tls) = &mut self.tls else {
            let (io, peer) = self.acceptor.accept().await;
            return (io.map(Transport::Tcp), peer);
        };
        loop {
            tokio::select! {
                (io, peer) = self.acceptor.accept() => tls.begin(io, peer),
                accepted = tls.next() => return accepted,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.acceptor.local_addr()
    }
}

type Accepted = (Io<Transport>, SocketAddr);

/// What makes the inside of a connection of its outside.
pub(super) type Handshake = Box<
    dyn Fn(Io<TcpStream>) -> Pin<Box<dyn Future<Output = io::Result<Transport>> + Send>> + Send,
>;

/// The handshakes that are under way, each in a task of its own. They are bounded by the timeouts of the
/// first byte and of the header together, and end with the listener when axum is told of the stop.
struct Handshakes {
    handshake: Handshake,
    under_way: JoinSet<Option<Accepted>>,
}

impl Handshakes {
    fn new(handshake: Handshake) -> Self {
        Self {
            handshake,
            under_way: JoinSet::new(),
        }
    }

    fn begin(&mut self, io: Io<TcpStream>, peer: SocketAddr) {
        let conn = Arc::clone(io.conn());
        let limits = conn.gate().limits();
        let limit = limits.first_byte_timeout.zip(limits.header_timeout);
        let handshake = (self.handshake)(io);
        self.under_way.spawn(async move {
            match in_time(limit, handshake).await {
                Ok(inside) => Some((Io::inside(inside, conn), peer)),
                Err(error) => {
                    log::guarded(
                        || tracing::debug!(target: "taskgroup", "TLS handshake with {peer} failed: {error}"),
                    );
                    None
                }
            }
        });
    }

    /// Waits for the next connection that is ready; for ever if there is none.
    async fn next(&mut self) -> Accepted {
        while let Some(ended) = self.under_way.join_next().await {
            match ended {
                Ok(Some(accepted)) => return accepted,
                Ok(None) => {}
                Err(error) => {
                    if let Ok(panic) = error.try_into_panic() {
                        resume_unwind(panic);
                    }
                }
            }
        }
        std::future::pending().await
    }
}

/// The stream sees the records of TLS, and not whether they lead anywhere: so this is timed as well.
async fn in_time<T>(
    limit: Option<(Duration, Duration)>,
    handshake: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match limit {
        Some((first_byte, header)) => timeout(first_byte.saturating_add(header), handshake).await?,
        None => handshake.await,
    }
}

impl std::fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshakes")
            .field("under_way", &self.under_way.len())
            .finish_non_exhaustive()
    }
}
