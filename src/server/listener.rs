//! [`Listener`]: accepts connections of any kind.

use std::fmt;
use std::io;

use http::Extensions;
use tokio::io::{AsyncRead, AsyncWrite};

/// A listener of your own, for connections that are neither TCP nor Unix sockets.
///
/// Those two need none of it. [`Listening`](crate::server::Listening) says what a server listens on without
/// this trait. Implement it for virtual sockets, for streams in memory, for a TLS listener that comes whole, or
/// around a listener whose connections need something before HTTP begins.
///
/// # The stop
///
/// At the stop, the server takes what is ready and drops the listener. A socket of the system is known to the
/// server only as [`Listening`](crate::server::Listening), so clients that connect in this very moment may be
/// reset.
///
/// # Examples
///
/// Streams in memory, for a test.
///
/// ```
/// use std::io;
/// use taskgroup::server::{Listener, Listening};
/// use tokio::io::DuplexStream;
/// use tokio::sync::mpsc;
///
/// struct InMemory(mpsc::Receiver<DuplexStream>);
///
/// impl Listener for InMemory {
///     type Io = DuplexStream;
///     type Addr = &'static str;
///
///     async fn accept(&mut self) -> io::Result<(DuplexStream, &'static str)> {
///         match self.0.recv().await {
///             Some(stream) => Ok((stream, "a client")),
///             None => std::future::pending().await,
///         }
///     }
///
///     fn local_addr(&self) -> io::Result<&'static str> {
///         Ok("in memory")
///     }
/// }
///
/// # #[cfg(feature = "axum")]
/// # fn f() {
/// let (clients, listener) = mpsc::channel(16);
/// let http = taskgroup::serve("http", Listening::own(InMemory(listener)), axum::Router::new());
/// # drop((http, clients));
/// # }
/// ```
pub trait Listener: Send + 'static {
    /// The stream of a connection.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The address of a peer, and that of the listener. Its `Debug` is printed.
    type Addr: fmt::Debug + Send + Sync + 'static;

    /// Waits for the next connection.
    ///
    /// Dropping the future must lose no connection. It is dropped at the stop.
    ///
    /// # Errors
    ///
    /// After an error the server asks again. It does so at once if only one connection was aborted, reset,
    /// refused or interrupted. After any other error it waits for 5 milliseconds, and then ever longer, up to a
    /// second.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, Self::Addr)>> + Send;

    /// Returns the address at which the listener can be reached.
    ///
    /// # Errors
    ///
    /// Any error is an error of [`Serve::run`](crate::server::Serve::run).
    fn local_addr(&self) -> io::Result<Self::Addr>;

    /// Puts into `extensions` what each request of the connection is to know, such as the connect info of
    /// axum or tonic. By default that is nothing.
    fn extensions(&self, io: &Self::Io, peer: &Self::Addr, extensions: &mut Extensions) {
        let _ = (io, peer, extensions);
    }
}
