//! [`Transport`]: the stream that HTTP is spoken over.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Extensions;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::io::Io;

/// The stream that HTTP is spoken over, either plain TCP or what [`tls`](crate::server::serve::Serve::tls) has
/// made of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Transport {
    /// Plain TCP.
    Tcp(TcpStream),
    /// The inside of TLS.
    Tls(Tls),
}

/// The inside of TLS, the stream that the handshake has returned.
pub struct Tls {
    stream: Box<dyn Stream>,
    /// What the app has learned from the stream.
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

impl Tls {
    pub(super) fn new<T>(stream: T, known: Extensions) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self {
            stream: Box::new(stream),
            known,
        }
    }

    pub(crate) fn known(&self) -> &Extensions {
        &self.known
    }

    /// Returns the stream itself, if it is a `T`, for example to ask it for the certificate of the peer.
    #[must_use]
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        (*self.stream).as_any().downcast_ref()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// A new connection, as it is shown to the code that makes its service.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    pub(super) io: &'a Io<Transport>,
    pub(super) peer: SocketAddr,
}

impl<'a> Incoming<'a> {
    /// Returns the stream, for example to ask TLS for the certificate of the peer.
    #[must_use]
    pub fn transport(&self) -> &'a Transport {
        self.io.get_ref()
    }

    /// Returns the address of the peer.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        self.peer
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
            Self::Tls(Tls { stream, .. }) => Pin::new(stream).poll_read(cx, buf),
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
            Self::Tls(Tls { stream, .. }) => Pin::new(stream).poll_write(cx, buf),
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
            Self::Tls(Tls { stream, .. }) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(Tls { stream, .. }) => stream.is_write_vectored(),
        }
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(Tls { stream, .. }) => Pin::new(stream).poll_flush(cx),
        }
    }

    #[inline]
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(Tls { stream, .. }) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
