//! [`Handshakes`]: turns the outside of a connection into its inside.

use std::fmt;
use std::io;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Extensions;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::io::Io;
use crate::group::log;
use crate::server::address::Address;
use crate::server::transport::{AnyStream, Transport};

pub(super) type Accepted = (Io, Address);

/// Turns the outside of a connection into its inside.
#[derive(Clone)]
pub(crate) struct Handshake(Arc<dyn Fn(Io) -> Inside + Send + Sync>);

type Inside = Pin<Box<dyn Future<Output = io::Result<Transport>> + Send>>;

impl Handshake {
    /// `know` asks the stream for what the requests of its connection should know.
    pub(crate) fn new<F, R, T>(handshake: F, know: fn(&T, &mut Extensions)) -> Self
    where
        F: Fn(Io) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self(Arc::new(move |io| {
            let known = io.get_ref().known().cloned();
            let handshake = handshake(io);
            Box::pin(async move {
                let stream = handshake.await?;
                let mut known = known.unwrap_or_default();
                know(&stream, &mut known);
                Ok(Transport::Tls(AnyStream::new(stream, known)))
            })
        }))
    }
}

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
        let handshake = self.handshake.clone();
        self.under_way.spawn(async move {
            let conn = Arc::clone(io.conn());
            // What it says before is not for anybody, and can be cut like a half head.
            conn.set_http();
            let options = conn.gate().options();
            let inside = async {
                let io = io.untimed();
                let Transport::Tcp(stream) = io.get_ref() else {
                    // What is no TCP cannot be asked without reading it.
                    let limit = both(options.first_byte_timeout, options.header_timeout);
                    return in_time(limit, (handshake.0)(io)).await;
                };
                in_time(options.first_byte_timeout, first_byte(stream)).await?;
                in_time(options.header_timeout, (handshake.0)(io)).await
            };
            match inside.await {
                Ok(inside) => Some((Io::inside(inside, conn).http(), peer)),
                Err(error) => {
                    log::guarded(
                        || tracing::debug!(target: "taskgroup", "handshake with {peer} failed: {error}"),
                    );
                    None
                }
            }
        });
    }

    /// Waits for the next connection that is ready, or forever without handshakes.
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

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").finish_non_exhaustive()
    }
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshakes")
            .field("under_way", &self.under_way.len())
            .finish_non_exhaustive()
    }
}
