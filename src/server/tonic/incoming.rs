//! The connections as tonic takes them.

use std::convert::Infallible;
use std::io;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::codegen::tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::layer::{Conns, Ends};
use crate::server::gate;
use crate::server::gate::Acceptor;

/// The stream of accepted connections. It never ends and never fails.
pub(super) struct Incoming {
    next: Accepting,
    conns: Conns,
}

/// The acceptor comes back with what it has accepted.
type Accepting = Pin<Box<dyn Future<Output = (Acceptor, gate::Io<TcpStream>, SocketAddr)> + Send>>;

impl Incoming {
    pub(super) fn new(acceptor: Acceptor, conns: Conns) -> Self {
        conns.set_gate(acceptor.gate());
        Self {
            next: accept(acceptor),
            conns,
        }
    }
}

fn accept(mut acceptor: Acceptor) -> Accepting {
    Box::pin(async move {
        let (io, peer) = acceptor.accept().await;
        (acceptor, io, peer)
    })
}

impl Stream for Incoming {
    type Item = Result<Io, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (acceptor, io, peer) = ready!(self.next.as_mut().poll(cx));
        self.next = accept(acceptor);
        let conns = self.conns.clone();
        let local = io.get_ref().local_addr().ok();
        let ends = Ends { local, peer };
        conns.insert(ends, io.conn());
        let io = io.until_served();
        Poll::Ready(Some(Ok(Io { io, ends, conns })))
    }
}

/// The stream of one connection, which can be found and cut.
pub(super) struct Io {
    io: gate::Io<TcpStream>,
    ends: Ends,
    conns: Conns,
}

impl Drop for Io {
    fn drop(&mut self) {
        self.conns.remove(self.ends, self.io.conn());
    }
}

/// The same as for a plain `TcpStream`: tonic looks for this type to answer `remote_addr()`.
impl Connected for Io {
    type ConnectInfo = TcpConnectInfo;

    /// tonic asks for it once, when it makes the service of the connection; after its handshake of TLS.
    fn connect_info(&self) -> TcpConnectInfo {
        self.io.conn().set_served();
        self.conns.begin(self.ends, self.io.conn());
        TcpConnectInfo {
            local_addr: self.ends.local,
            remote_addr: Some(self.ends.peer),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
