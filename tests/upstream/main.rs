//! What the servers that a sidecar wraps do badly today.
//!
//! Each test asserts the bad behaviour of the unmodified server, so it fails on the day upstream has
//! repaired it, and its message says what may then go here. `docs/upstream.md` tells users the same.
//!
//! Nothing here depends on time: "forever" is many turns of the runtime and hours of its clock
//! after everybody has seen the stop, and then an end as soon as the client ends.
//!
//! One more is in `tests/descriptors.rs`, as it takes all file descriptors of its process.

mod axum_serve;
mod canary;
#[cfg(all(feature = "axum", feature = "http2", feature = "tonic"))]
mod parity;
mod tonic_server;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, yield_now};
use tokio::time;

use crate::canary::Canary;
use crate::support::wait::soon;

const HOUR: Duration = Duration::from_secs(3600);
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame, which has to come next.
const HTTP2_SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// Turns of the runtime in which a server that can stop has stopped.
const TURNS: u8 = 200;

impl Canary {
    async fn still_hangs<T>(&self, server: &JoinHandle<T>) {
        settle().await;
        self.still(!server.is_finished());
        // More than one jump, as one timer may set the next.
        for _ in 0..5 {
            pass(HOUR).await;
            self.still(!server.is_finished());
        }
    }

    /// The server hangs for as long as a client holds `held`, and ends well after that.
    async fn hangs_until_dropped<E: Debug>(
        &self,
        server: JoinHandle<Result<(), E>>,
        held: impl Sized,
    ) {
        self.still_hangs(&server).await;
        drop(held);
        soon(server).await.unwrap().unwrap();
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Gives every task that can go on its turns, and the sockets theirs.
///
/// What was written before this is read in it, as it is on the loopback and all servers in here have
/// `TCP_NODELAY`: without it the kernel holds small writes back, for longer than this takes.
async fn settle() {
    let (listener, address) = listen().await;
    let mut near = TcpStream::connect(address).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    for turn in 0..TURNS {
        near.write_u8(turn).await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), turn);
        yield_now().await;
    }
}

/// Lets `duration` pass on the runtime's clock, for code that has set a timer.
///
/// The clock is paused for the jump alone. A paused clock runs ahead whenever all tasks wait for
/// their sockets, and what is in flight would be out of time.
async fn pass(duration: Duration) {
    time::pause();
    time::advance(duration).await;
    for _ in 0..TURNS {
        yield_now().await;
    }
    time::resume();
    settle().await;
}
