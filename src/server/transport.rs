//! [`Transport`]: the stream that HTTP is spoken over.

use std::any::Any;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Extensions;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

/// The stream of a connection, which is what was accepted or what [`tls`](crate::server::Serve::tls) has made
/// of it.
///
/// # Examples
///
/// ```
/// use taskgroup::server::Transport;
///
/// fn has_tls(transport: &Transport) -> bool {
///     matches!(transport, Transport::Tls(_))
/// }
/// # let _ = has_tls;
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Transport {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
    /// The stream of a [`Listener`](crate::server::Listener) of the user's own.
    Other(AnyStream),
    /// The inside of TLS, the stream that the handshake has returned.
    Tls(AnyStream),
}

/// A stream of any type. [`downcast_ref`](Self::downcast_ref) returns it as the type that it has.
pub struct AnyStream {
    stream: Box<dyn Stream>,
    /// What each request of the connection is to know.
    known: Extensions,
}

/// Any stream.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    fn as_any(&self) -> &dyn Any;
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Transport {
    /// Returns the stream itself, if it is a `T`, for example a [`UnixStream`] to ask for the
    /// credentials of the peer, or a `TlsStream` to ask for its certificate.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::server::Incoming;
    ///
    /// # #[cfg(unix)]
    /// fn user_of(incoming: Incoming<'_>) -> Option<u32> {
    ///     let stream = incoming.transport().downcast_ref::<tokio::net::UnixStream>()?;
    ///     Some(stream.peer_cred().ok()?.uid())
    /// }
    /// ```
    #[must_use]
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        match self {
            Self::Tcp(stream) => (stream as &dyn Any).downcast_ref(),
            #[cfg(unix)]
            Self::Unix(stream) => (stream as &dyn Any).downcast_ref(),
            Self::Other(stream) | Self::Tls(stream) => stream.downcast_ref(),
        }
    }

    /// Returns what each request of the connection is to know, if there is anything.
    pub(crate) fn known(&self) -> Option<&Extensions> {
        match self {
            Self::Other(stream) | Self::Tls(stream) if !stream.known.is_empty() => {
                Some(&stream.known)
            }
            _ => None,
        }
    }
}

impl AnyStream {
    pub(crate) fn new<T>(stream: T, known: Extensions) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self {
            stream: Box::new(stream),
            known,
        }
    }

    /// Returns the stream itself, if it is a `T`, for example to ask it for the certificate of the peer.
    #[must_use]
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        (*self.stream).as_any().downcast_ref()
    }
}

impl fmt::Debug for AnyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyStream").finish_non_exhaustive()
    }
}

impl AsyncRead for Transport {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Other(AnyStream { stream, .. }) | Self::Tls(AnyStream { stream, .. }) => {
                Pin::new(stream).poll_read(cx, buf)
            }
        }
    }
}

impl AsyncWrite for Transport {
    #[inline]
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Other(AnyStream { stream, .. }) | Self::Tls(AnyStream { stream, .. }) => {
                Pin::new(stream).poll_write(cx, buf)
            }
        }
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Other(AnyStream { stream, .. }) | Self::Tls(AnyStream { stream, .. }) => {
                Pin::new(stream).poll_write_vectored(cx, bufs)
            }
        }
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(unix)]
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Other(AnyStream { stream, .. }) | Self::Tls(AnyStream { stream, .. }) => {
                stream.is_write_vectored()
            }
        }
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Other(AnyStream { stream, .. }) | Self::Tls(AnyStream { stream, .. }) => {
                Pin::new(stream).poll_flush(cx)
            }
        }
    }

    #[inline]
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Other(AnyStream { stream, .. }) | Self::Tls(AnyStream { stream, .. }) => {
                Pin::new(stream).poll_shutdown(cx)
            }
        }
    }
}
