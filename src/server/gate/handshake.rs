//! [`Handshakes`]: turns the outside of a connection into its inside.

use std::fmt;
use std::io;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::io::Io;
use crate::group::log;
use crate::server::address::Address;
use crate::server::transport::Transport;

pub(super) type Accepted = (Io, Address);

/// Turns the outside of a connection into its inside.
pub(super) type Handshake =
    Arc<dyn Fn(Io) -> Pin<Box<dyn Future<Output = io::Result<Transport>> + Send>> + Send + Sync>;

/// The handshakes that are under way, each in a separate task.
///
/// Each has two timeouts, the one for the first byte, and after that the one for the head of a request. All of
/// them end with the loop that accepts.
pub(super) struct Handshakes {
    handshake: Handshake,
    under_way: JoinSet<Option<Accepted>>,
}

impl Handshakes {
    pub(super) fn new(handshake: Handshake) -> Self {
        Self {
            handshake,
            under_way: JoinSet::new(),
        }
    }

    pub(super) fn begin(&mut self, io: Io, peer: Address) {
        let handshake = Arc::clone(&self.handshake);
        self.under_way.spawn(async move {
            let conn = Arc::clone(io.conn());
            let limits = conn.gate().limits();
            let inside = async {
                let io = io.untimed();
                let Transport::Tcp(stream) = io.get_ref() else {
                    // What is no TCP cannot be asked without reading it.
                    let limit = both(limits.first_byte_timeout, limits.header_timeout);
                    return in_time(limit, handshake(io)).await;
                };
                in_time(limits.first_byte_timeout, first_byte(stream)).await?;
                in_time(limits.header_timeout, handshake(io)).await
            };
            match inside.await {
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

    /// Waits for the next connection that is ready, or for ever without handshakes.
    pub(super) async fn next(&mut self) -> Accepted {
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

/// Waits until the peer has sent something, or has left.
///
/// It peeks at the socket itself, because Tokio takes a new socket for readable.
async fn first_byte(stream: &TcpStream) -> io::Result<()> {
    stream.peek(&mut [0]).await.map(|_| ())
}

fn both(first: Option<Duration>, second: Option<Duration>) -> Option<Duration> {
    Some(first?.saturating_add(second?))
}

async fn in_time<T>(
    limit: Option<Duration>,
    step: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match limit {
        Some(limit) => timeout(limit, step).await?,
        None => step.await,
    }
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshakes")
            .field("under_way", &self.under_way.len())
            .finish_non_exhaustive()
    }
}
