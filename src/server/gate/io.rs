//! [`Io`]: the stream of one connection, which can be cut and does not wait forever.

use std::any::Any;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::busy::Busy;
use super::conn::Conn;
use super::options::Options;
use crate::group::time::Rounded;
use crate::server::switch::Seat;
use crate::server::transport::Transport;

/// The stream of one connection, which can be cut.
///
/// A connection lasts as long as this stream, or a request on it. Reading and writing fail once it was cut, or
/// when the peer has let a [timeout](crate::server::serve::Serve::header_timeout) pass.
///
/// In a [`serve_loop`](crate::server::serve_loop) the server knows nothing of the protocol. See [`Busy`].
#[derive(Debug)]
pub struct Io<T = Transport> {
    // Before `conn`, whose drop reports that nothing is left.
    stream: T,
    // Two seats, because the halves of an upgraded connection may be in two tasks.
    reading: Seat,
    writing: Seat,
    patience: Patience,
    /// Whether the last write had to wait.
    blocked: bool,
    /// Whether this is the stream inside TLS. It writes into a buffer, and only the one outside knows what the
    /// peer takes.
    inside: bool,
    lingering: Option<Box<Lingering>>,
    conn: Arc<Conn>,
}

impl<T> Io<T> {
    pub(crate) fn new(stream: T, conn: Arc<Conn>) -> Self {
        Self {
            stream,
            reading: Seat::default(),
            writing: Seat::default(),
            patience: Patience::default(),
            blocked: false,
            inside: false,
            lingering: None,
            conn,
        }
    }

    /// For a stream that HTTP is spoken over.
    pub(super) fn http(mut self) -> Self {
        self.conn.set_http();
        self.patience = Patience::of_http(self.conn.gate().options());
        self
    }

    /// For the stream inside a TLS connection, which has an outside and an inside.
    pub(super) fn inside(stream: T, conn: Arc<Conn>) -> Self {
        Self {
            inside: true,
            ..Self::new(stream, conn)
        }
    }

    /// For the stream that TLS is spoken over. Its handshake has a separate timeout, and the data are
    /// encrypted.
    pub(super) fn untimed(mut self) -> Self {
        self.patience.stage = Stage::Exempt;
        self
    }

    pub(crate) fn conn(&self) -> &Arc<Conn> {
        &self.conn
    }

    /// Says that something is in flight on this connection, until the guard is dropped.
    ///
    /// The report calls it by the address of the peer, or as it is [named](Busy::named). It may be called for
    /// several things at once. Over HTTP it is of no use, because the server sees each request itself. [`Busy`]
    /// says what follows from it.
    ///
    /// # Examples
    ///
    /// See [`Busy`].
    pub fn busy(&self) -> Busy
    where
        T: 'static,
    {
        let stream = (&self.stream as &dyn Any).downcast_ref::<Transport>();
        let stream = stream.and_then(Transport::downcast_ref::<TcpStream>);
        let name = match stream.map(TcpStream::peer_addr) {
            Some(Ok(peer)) => peer.to_string(),
            _ => "a connection".to_owned(),
        };
        Busy::begin(Arc::clone(&self.conn), &name)
    }

    /// Returns the stream itself, to ask for its addresses or to set options.
    #[must_use]
    pub fn get_ref(&self) -> &T {
        &self.stream
    }

    /// Fails once the connection was cut, before the stream is touched again. An operation that then has to
    /// wait [watches] the switch, which is the only other thing that wakes it.
    ///
    /// [watches]: crate::server::switch::Switch::watch
    #[inline]
    fn check(&self) -> io::Result<()> {
        if self.conn.stream.is_fired() {
            return Err(was_cut());
        }
        Ok(())
    }

    /// Called by a write that has to wait.
    #[cold]
    fn wait_writing<R>(&mut self, cx: &Context<'_>) -> Poll<io::Result<R>> {
        if self.conn.stream.watch(&mut self.writing, cx, || ()) {
            return Poll::Ready(Err(was_cut()));
        }
        Poll::Pending
    }

    /// Records whether the peer takes what is there for it. This costs a store, and only when it changes.
    #[inline]
    fn wrote(
        &mut self,
        poll: Poll<io::Result<usize>>,
        cx: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(wrote) = poll else {
            return self.block(cx);
        };
        if self.blocked {
            self.set_blocked(false);
        }
        match wrote {
            Ok(bytes) if !self.inside => {
                self.conn.add_taken(bytes);
                if self.patience.is_raw {
                    self.conn.set_spoke();
                }
            }
            _ => {}
        }
        Poll::Ready(wrote)
    }

    #[cold]
    fn block<R>(&mut self, cx: &Context<'_>) -> Poll<io::Result<R>> {
        if !self.inside && !self.blocked {
            self.set_blocked(true);
        }
        self.wait_writing(cx)
    }

    #[cold]
    fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
        self.conn.set_unread(blocked);
    }
}

impl Io {
    /// Takes the connection itself back from an upgrade, for example to splice two sockets, together with the
    /// bytes that have been read and not used yet.
    ///
    /// The wrapper of hyper is gone then, and [`get_ref`](Self::get_ref) returns the socket. The connection still
    /// counts as upgraded until this is dropped.
    ///
    /// # Errors
    ///
    /// The upgrade itself if it is a stream of HTTP/2, which has no socket of its own, or was not made by a server
    /// of this crate.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::Request;
    /// use hyper::body::Incoming;
    /// use taskgroup::server::{Io, Transport};
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// async fn tunnel(request: Request<Incoming>) -> std::io::Result<()> {
    ///     let upgraded = hyper::upgrade::on(request).await.map_err(std::io::Error::other)?;
    ///     let (mut io, read) = Io::from_upgraded(upgraded).map_err(|_| std::io::ErrorKind::Unsupported)?;
    ///     if let Transport::Tcp(socket) = io.get_ref() {
    ///         socket.set_nodelay(true)?;
    ///     }
    ///     io.write_all(&read).await
    /// }
    /// # let _ = tunnel;
    /// ```
    pub fn from_upgraded(upgraded: Upgraded) -> Result<(Self, Bytes), Upgraded> {
        let parts = upgrade::downcast::<TokioIo<Self>>(upgraded)?;
        Ok((parts.io.into_inner(), parts.read_buf))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Io<T> {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        let Self {
            stream,
            reading,
            patience,
            conn,
            ..
        } = &mut *self;
        let before = buf.filled().len();
        match Pin::new(stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                patience.heard(&buf.filled()[before..], conn);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if conn.stream.watch(reading, cx, || ()) => Poll::Ready(Err(was_cut())),
            Poll::Pending => patience.wait(conn, cx),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Io<T> {
    #[inline]
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(poll, cx)
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(poll, cx)
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.wait_writing(cx),
            flushed => flushed,
        }
    }

    #[inline]
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        if self.lingering.is_none() {
            match Pin::new(&mut self.stream).poll_shutdown(cx) {
                Poll::Pending => return self.wait_writing(cx),
                // The outside of TLS does it.
                Poll::Ready(Ok(())) if !self.inside && self.conn.has_body() => {}
                shut => return shut,
            }
        }
        let Self {
            stream,
            writing,
            lingering,
            conn,
            ..
        } = &mut *self;
        let lingering = lingering.get_or_insert_with(Box::default);
        if lingering.poll(stream, cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if conn.stream.watch(writing, cx, || ()) {
            return Poll::Ready(Err(was_cut()));
        }
        Poll::Pending
    }
}

/// Reads and discards what a peer still sends after its request was answered and the sending half was shut.
///
/// A socket that is closed with unread data resets the connection, and the reset can overtake the answer. It ends
/// when the peer closes its half, which it does when it has read the answer, or at one of the bounds.
#[derive(Debug)]
struct Lingering {
    over: Pin<Box<Sleep>>,
    left: usize,
}

impl Lingering {
    const LONGEST: Duration = Duration::from_secs(1);
    const MOST: usize = 16 << 20;

    fn poll<T: AsyncRead + Unpin>(&mut self, stream: &mut T, cx: &mut Context<'_>) -> Poll<()> {
        let mut discarded = [std::mem::MaybeUninit::uninit(); 8192];
        loop {
            let mut buf = ReadBuf::uninit(&mut discarded);
            match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.left = self.left.saturating_sub(buf.filled().len());
                    if self.left == 0 {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.over.as_mut().poll(cx),
            }
        }
    }
}

impl Default for Lingering {
    fn default() -> Self {
        Self {
            over: Box::pin(sleep(Self::LONGEST)),
            left: Self::MOST,
        }
    }
}

#[cold]
fn was_cut() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the server has cut this connection",
    )
}

/// How long a connection may keep its server waiting for a request.
///
/// Three clocks follow each other. The first counts until the first byte, the second from there to the end of the
/// head, and the third while the connection is idle. Each is looked at only after a read that found nothing.
///
/// The first one is a single timer. It goes off once more, a moment later, if it was late, because a runtime that
/// was blocked may not have looked at the socket yet.
///
/// For the others the timer is made when a wait begins, and is not removed when the wait ends. Otherwise a request that
/// arrives in one piece, as nearly all do, would cost a timer. It goes off after a quarter of the limit and is
/// made anew only if the wait is still on. A wait in which it has gone off five times has lasted the limit, and
/// at most a quarter longer. The clock is never read.
#[derive(Debug)]
struct Patience {
    stage: Stage,
    /// How many bytes have been read, as long as they match the beginning of HTTP/2.
    preface: Option<usize>,
    timer: Option<Pin<Box<Sleep>>>,
    /// How often the timer has gone off in this stage.
    rings: u32,
    /// Whether it does not speak HTTP.
    is_raw: bool,
    /// Whether a connection must not be idle forever.
    times_idle: bool,
    /// How many requests had begun when it was seen to be idle.
    idle: u32,
}

/// A timer that is later than this has met a runtime that was blocked.
const LATE: Duration = Duration::from_millis(50);

/// So long the runtime has to look at the sockets.
const MOMENT: Duration = Duration::from_millis(10);

/// The number of parts of the limit. One more is waited for, because the first has begun before the wait.
const PARTS: u32 = 4;

#[derive(Debug)]
enum Stage {
    /// Nothing has been read.
    Silent,
    /// Bytes of a request have been read. `begun` is the number of requests that had begun then.
    Header { begun: u32 },
    /// The last request has begun or ended, and nothing has been read since then.
    Quiet,
    /// The connection speaks HTTP/2, where a silent peer does nothing wrong unless it is idle.
    Http2,
    /// TLS is spoken over it.
    Exempt,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// HTTP/2 has really begun with the frame head of the settings, which come next.
const HTTP2_BEGUN: usize = PREFACE.len() + 9;

/// Of a connection that does not speak HTTP.
impl Default for Patience {
    fn default() -> Self {
        Self {
            stage: Stage::Silent,
            preface: None,
            timer: None,
            rings: 0,
            is_raw: true,
            times_idle: false,
            idle: 0,
        }
    }
}

impl Patience {
    fn of_http(options: &Options) -> Self {
        Self {
            preface: Some(0),
            is_raw: false,
            times_idle: options.idle_timeout.is_some(),
            ..Self::default()
        }
    }

    /// Most requests come in one piece, and most others on connections that are exempt.
    #[inline]
    fn heard(&mut self, bytes: &[u8], conn: &Conn) {
        match self.stage {
            Stage::Exempt | Stage::Http2 => {}
            Stage::Quiet if self.is_end_of_head(bytes) => {}
            _ => self.heard_a_part(bytes, conn),
        }
    }

    #[cold]
    fn heard_a_part(&mut self, bytes: &[u8], conn: &Conn) {
        if bytes.is_empty() {
            return;
        }
        if self.is_raw {
            conn.set_spoke();
        }
        self.preface = self.preface.and_then(|seen| preface(seen, bytes));
        if self.preface.is_some_and(|seen| seen >= HTTP2_BEGUN) {
            conn.set_http2();
            self.enter(Stage::Http2, conn);
        } else if conn.requests() > 0 || self.is_end_of_head(bytes) {
            // Either a body or further requests behind the one in flight, which hyper asks for itself, or the
            // end of a head before hyper has called the service. This saves most connections the timer.
            self.enter(Stage::Quiet, conn);
        } else if !self.is_waiting(conn) {
            let begun = conn.begun();
            self.enter(Stage::Header { begun }, conn);
        }
    }

    #[inline]
    fn is_end_of_head(&self, bytes: &[u8]) -> bool {
        self.preface.is_none() && !self.is_raw && bytes.ends_with(b"\r\n\r\n")
    }

    /// Called when the stream has nothing to read.
    #[inline]
    fn wait(&mut self, conn: &Conn, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.stage {
            Stage::Exempt => Poll::Pending,
            Stage::Quiet | Stage::Http2 if !self.times_idle => Poll::Pending,
            _ => self.wait_for_more(conn, cx),
        }
    }

    #[cold]
    fn wait_for_more(&mut self, conn: &Conn, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let options = conn.gate().options();
        let limit = match self.stage {
            Stage::Silent => {
                return match options.first_byte_timeout {
                    Some(limit) if self.was_silent(limit, cx) => Poll::Ready(Err(too_slow(limit))),
                    _ => Poll::Pending,
                };
            }
            Stage::Header { .. } if self.is_waiting(conn) => options.header_timeout,
            _ => {
                if let Stage::Header { .. } = self.stage {
                    self.enter(Stage::Quiet, conn);
                }
                if let Some(limit) = options.idle_timeout {
                    self.be_idle(limit, conn, cx);
                }
                None
            }
        };
        let Some(limit) = limit else {
            return Poll::Pending;
        };
        while self.rang(limit / PARTS, cx).is_some() {
            self.rings += 1;
            if self.rings > PARTS {
                return Poll::Ready(Err(too_slow(limit)));
            }
        }
        Poll::Pending
    }

    /// Returns whether the peer has said nothing at all for `limit`.
    fn was_silent(&mut self, limit: Duration, cx: &mut Context<'_>) -> bool {
        loop {
            let length = if self.rings == 0 { limit } else { MOMENT };
            let Some(late) = self.rang(length, cx) else {
                return false;
            };
            self.rings += 1;
            if late < LATE || self.rings > 1 {
                return true;
            }
        }
    }

    /// Closes a connection that has been idle for `limit`.
    fn be_idle(&mut self, limit: Duration, conn: &Conn, cx: &mut Context<'_>) {
        // hyper does not read again when a request has ended, so the timer runs meanwhile.
        let is_busy = conn.requests() > 0 || !conn.rests();
        if is_busy || self.idle != conn.begun() {
            self.idle = conn.begun();
            self.rings = 0;
        }
        while self.rang(limit / PARTS, cx).is_some() {
            self.rings += u32::from(!is_busy);
            if self.rings > PARTS {
                conn.expire();
                // Unless it is told now, which the same task does, it is given as long again.
                self.rings = 0;
            }
        }
    }

    /// Returns how late the timer is that has gone off, and removes it then.
    ///
    /// It is polled each time, because the connection may have been handed to another task since, and because a
    /// task whose budget is used up polls a timer in vain.
    fn rang(&mut self, length: Duration, cx: &mut Context<'_>) -> Option<Duration> {
        let begin = || Box::pin(sleep(length));
        let timer = self.timer.get_or_insert_with(begin);
        if timer.as_mut().poll(cx).is_pending() {
            return None;
        }
        let late = Instant::now().saturating_duration_since(timer.deadline());
        self.timer = None;
        Some(late)
    }

    /// Returns whether a header has begun and is incomplete.
    fn is_waiting(&self, conn: &Conn) -> bool {
        matches!(self.stage, Stage::Header { begun } if begun == conn.begun())
            && conn.upgrades() == 0
    }

    fn enter(&mut self, stage: Stage, conn: &Conn) {
        let was_in_head = matches!(self.stage, Stage::Header { .. });
        let is_in_head = matches!(stage, Stage::Header { .. });
        if was_in_head != is_in_head {
            conn.set_in_head(is_in_head);
        }
        if matches!(self.stage, Stage::Silent) {
            // The timer for the first byte. Most connections never need another.
            self.timer = None;
        }
        self.stage = stage;
        self.rings = 0;
    }
}

/// Returns the number of bytes so far, if they still match the preface.
fn preface(seen: usize, bytes: &[u8]) -> Option<usize> {
    let expected = &PREFACE[seen.min(PREFACE.len())..];
    let compared = expected.len().min(bytes.len());
    (bytes[..compared] == expected[..compared]).then_some(seen + bytes.len())
}

fn too_slow(limit: Duration) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("the peer did not send a request within {}", Rounded(limit)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::timeout;

    use super::super::conn::{Gate, Look};

    const LIMIT: Duration = Duration::from_secs(10);

    /// The error of a connection that is silent after `bytes`, or `None` after a long time.
    async fn after(bytes: &[u8]) -> Option<io::ErrorKind> {
        let gate = Gate::new(Options {
            first_byte_timeout: Some(LIMIT),
            header_timeout: Some(LIMIT),
            ..Options::default()
        });
        let (mut client, server) = duplex(64);
        let mut server = Io::new(server, gate.register(None)).http();
        client.write_all(bytes).await.unwrap();
        let mut read = vec![0; bytes.len()];
        server.read_exact(&mut read).await.unwrap();
        let more = timeout(100 * LIMIT, server.read_u8()).await.ok()?;
        Some(more.unwrap_err().kind())
    }

    #[tokio::test(start_paused = true)]
    async fn r18_half_a_head_and_no_byte_at_all_are_timed() {
        assert_eq!(after(b"GET / HTTP").await, Some(io::ErrorKind::TimedOut));
        assert_eq!(after(b"").await, Some(io::ErrorKind::TimedOut));
    }

    #[tokio::test]
    async fn a_stream_is_told_of_the_cut_where_it_waits_or_at_its_next_step() {
        let gate = Gate::new(Options::default());
        let conn = gate.register(None);
        let (mut client, server) = duplex(64);
        let mut server = Io::new(server, Arc::clone(&conn));
        client.write_all(b"a").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'a');

        let mut waiting = tokio_test::task::spawn(server.read_u8());
        tokio_test::assert_pending!(waiting.poll());
        conn.cut();
        assert!(waiting.is_woken());

        let cut = Some(io::ErrorKind::ConnectionAborted);
        let kind = |error: io::Error| error.kind();
        assert_eq!(waiting.await.err().map(kind), cut);
        client.write_all(b"b").await.unwrap();
        assert_eq!(server.read_u8().await.err().map(kind), cut);
        assert_eq!(server.write_u8(b'c').await.err().map(kind), cut);
        assert_eq!(server.flush().await.err().map(kind), cut);
        assert_eq!(server.shutdown().await.err().map(kind), cut);
    }

    /// A silent connection, with its client.
    fn silent() -> (DuplexStream, Io<DuplexStream>) {
        let gate = Gate::new(Options {
            first_byte_timeout: Some(LIMIT),
            ..Options::default()
        });
        let (client, server) = duplex(64);
        (client, Io::new(server, gate.register(None)).http())
    }

    fn poll_read_once(io: &mut Io<DuplexStream>, cx: &mut Context<'_>) {
        let mut bytes = [0; 8];
        let mut buf = ReadBuf::new(&mut bytes);
        assert!(Pin::new(io).poll_read(cx, &mut buf).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn r18_a_task_whose_budget_was_used_up_is_woken_by_the_timer_anyway() {
        let (_client, mut server) = silent();

        poll_fn(|cx| {
            while pin!(tokio::task::consume_budget()).poll(cx).is_ready() {}
            poll_read_once(&mut server, cx);
            Poll::Ready(())
        })
        .await;

        let read = timeout(100 * LIMIT, server.read_u8()).await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn r18_a_connection_that_is_handed_to_another_task_is_timed_there() {
        let (_client, mut server) = silent();

        let first = tokio::spawn(async move {
            poll_fn(|cx| Poll::Ready(poll_read_once(&mut server, cx))).await;
            server
        });
        let mut server = first.await.unwrap();

        let read = timeout(100 * LIMIT, server.read_u8()).await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn r9_what_is_taken_inside_is_not_taken_by_the_peer() {
        let gate = Gate::new(Options::default());
        let conn = gate.register(None);
        let ((_client, socket), (mut tls, session)) = (duplex(1), duplex(1));
        let mut outside = Io::new(socket, Arc::clone(&conn));
        let mut inside = Io::inside(session, Arc::clone(&conn));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for io in [&mut inside, &mut outside] {
            assert!(Pin::new(&mut *io).poll_write(&mut cx, b"x").is_ready());
            assert!(Pin::new(&mut *io).poll_write(&mut cx, b"x").is_pending());
        }

        tls.read_u8().await.unwrap();
        assert!(Pin::new(&mut inside).poll_write(&mut cx, b"x").is_ready());

        let now = Instant::now();
        let look = conn.look(now, Duration::ZERO);
        assert!(matches!(look, Look::Again(None)), "{look:?}");
    }
}
