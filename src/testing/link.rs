//! [`Link`]: a connection in memory, with the faults of a real one.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time::Instant;
use tokio::time::Sleep;
use tokio::time::sleep_until;

use crate::group::lock::Lock;

/// A connection in memory, for a paused clock, with the faults of a real one.
///
/// | option | what it is |
/// |---|---|
/// | [`delay`](Self::delay) | each byte arrives so much later |
/// | [`slices`](Self::slices) | no read and no write is longer than so many bytes |
/// | [`holds`](Self::holds) | so many bytes are under way at most: a peer that stops reading stops the writer |
/// | [`cut_after`](Self::cut_after) | the connection is reset when so much time has passed |
/// | [`cut_after_bytes`](Self::cut_after_bytes) | the connection is reset when one end has sent so much |
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::testing::Link;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> std::io::Result<()> {
/// let (mut client, mut server) = Link::new().delay(Duration::from_millis(50)).slices(3).pair();
/// client.write_all(b"hello").await?;
/// drop(client);
/// let mut read = [0; 8];
/// assert_eq!(server.read(&mut read).await?, 3);
/// let mut rest = Vec::new();
/// server.read_to_end(&mut rest).await?;
/// assert_eq!(rest, b"lo");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a link does nothing until its ends are made"]
pub struct Link {
    delay: Duration,
    slice: usize,
    capacity: usize,
    cut_after: Option<Duration>,
    cut_after_bytes: Option<usize>,
}

/// One end of a [`Link`]. Dropping it closes the connection, as the end of a process does.
pub struct LinkEnd {
    wires: Arc<Lock<Wires>>,
    /// The number of the wire that this end reads from. It writes to the other wire.
    reads: usize,
    due: Option<Pin<Box<Sleep>>>,
    cut: Option<Pin<Box<Sleep>>>,
}

struct Wires {
    options: Link,
    wires: [Wire; 2],
    is_cut: bool,
}

#[derive(Default)]
struct Wire {
    /// The bytes under way, each part with the time at which it arrives.
    parts: VecDeque<(Instant, VecDeque<u8>)>,
    under_way: usize,
    sent: usize,
    /// Whether writing has ended.
    is_finished: bool,
    /// Whether reading has ended.
    is_deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// How many bytes are under way by default. This is less than most bodies, as in a system.
const CAPACITY: usize = 64 * 1024;

impl Link {
    /// Makes a link without faults, which holds 64 KiB in each direction.
    pub fn new() -> Self {
        Self {
            delay: Duration::ZERO,
            slice: usize::MAX,
            capacity: CAPACITY,
            cut_after: None,
            cut_after_bytes: None,
        }
    }

    /// Makes each byte arrive this much later.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Limits each read and each write to `longest` bytes.
    ///
    /// # Panics
    ///
    /// It is 0, so no byte would ever pass.
    pub fn slices(mut self, longest: usize) -> Self {
        assert_ne!(
            longest, 0,
            "slices of a link have to be longer than 0 bytes"
        );
        self.slice = longest;
        self
    }

    /// Sets how many bytes each direction holds. The default is 64 KiB. With 0 every write waits forever.
    pub fn holds(mut self, bytes: usize) -> Self {
        self.capacity = bytes;
        self
    }

    /// Resets the connection this long after it was made. Bytes under way are lost.
    pub fn cut_after(mut self, time: Duration) -> Self {
        self.cut_after = Some(time);
        self
    }

    /// Resets the connection when one end has sent this many bytes. Bytes under way are lost.
    pub fn cut_after_bytes(mut self, bytes: usize) -> Self {
        self.cut_after_bytes = Some(bytes);
        self
    }

    /// Makes the two ends, which are equal.
    ///
    /// # Panics
    ///
    /// The link is cut after a time, and the caller is not in a runtime with timers.
    #[must_use]
    pub fn pair(self) -> (LinkEnd, LinkEnd) {
        let cut = self.cut_after.map(|after| Instant::now() + after);
        let wires = Arc::new(Lock::new(Wires {
            options: self,
            wires: Default::default(),
            is_cut: false,
        }));
        let end = |reads| LinkEnd {
            wires: Arc::clone(&wires),
            reads,
            due: None,
            cut: cut.map(|at| Box::pin(sleep_until(at))),
        };
        (end(0), end(1))
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl Wires {
    fn cut(&mut self) -> Vec<Waker> {
        self.is_cut = true;
        let wires = self.wires.iter_mut();
        wires.flat_map(Wire::wakers).collect()
    }
}

impl Wire {
    fn wakers(&mut self) -> Vec<Waker> {
        let wakers = [self.reader.take(), self.writer.take()];
        wakers.into_iter().flatten().collect()
    }
}

impl LinkEnd {
    /// Cuts the connection if it is time.
    fn look_at_the_clock(&mut self, cx: &mut Context<'_>) {
        let is_time = |cut: &mut Pin<Box<Sleep>>| cut.as_mut().poll(cx).is_ready();
        if self.cut.as_mut().is_some_and(is_time) {
            self.cut = None;
            let wakers = self.wires.lock().cut();
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the link was cut")
}

impl AsyncRead for LinkEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.look_at_the_clock(cx);
        loop {
            let (due, writer) = {
                let mut wires = self.wires.lock();
                let (is_cut, slice) = (wires.is_cut, wires.options.slice);
                let wire = &mut wires.wires[self.reads];
                if is_cut {
                    return Poll::Ready(Err(reset()));
                }
                match wire.parts.front_mut() {
                    None if wire.is_finished => return Poll::Ready(Ok(())),
                    None => {
                        wire.reader = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                    Some((due, part)) if *due <= Instant::now() => {
                        let count = slice.min(part.len()).min(buffer.remaining());
                        for byte in part.drain(..count) {
                            buffer.put_slice(&[byte]);
                        }
                        if part.is_empty() {
                            wire.parts.pop_front();
                        }
                        wire.under_way -= count;
                        (None, wire.writer.take())
                    }
                    Some((due, _)) => (Some(*due), None),
                }
            };
            let Some(due) = due else {
                if let Some(writer) = writer {
                    writer.wake();
                }
                return Poll::Ready(Ok(()));
            };
            let timer = self.due.get_or_insert_with(|| Box::pin(sleep_until(due)));
            timer.as_mut().reset(due);
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for LinkEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.look_at_the_clock(cx);
        let (count, wakers) = {
            let mut wires = self.wires.lock();
            let options = wires.options.clone();
            let is_cut = wires.is_cut;
            let wire = &mut wires.wires[1 - self.reads];
            if is_cut {
                return Poll::Ready(Err(reset()));
            }
            if wire.is_deaf || wire.is_finished {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let free = options.capacity.saturating_sub(wire.under_way);
            let count = bytes.len().min(options.slice).min(free);
            if count == 0 && !bytes.is_empty() {
                wire.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let part: VecDeque<u8> = bytes[..count].iter().copied().collect();
            if count > 0 {
                wire.parts.push_back((Instant::now() + options.delay, part));
            }
            wire.under_way += count;
            wire.sent += count;
            let is_over = options
                .cut_after_bytes
                .is_some_and(|most| wire.sent >= most);
            let reader: Vec<_> = wire.reader.take().into_iter().collect();
            match is_over {
                true => (count, [reader, wires.cut()].concat()),
                false => (count, reader),
            }
        };
        wakers.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let reader = {
            let mut wires = self.wires.lock();
            let wire = &mut wires.wires[1 - self.reads];
            wire.is_finished = true;
            wire.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for LinkEnd {
    fn drop(&mut self) {
        let wakers = {
            let mut wires = self.wires.lock();
            wires.wires[self.reads].is_deaf = true;
            wires.wires[1 - self.reads].is_finished = true;
            let wires = wires.wires.iter_mut();
            wires.flat_map(Wire::wakers).collect::<Vec<_>>()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wires = self.wires.lock();
        f.debug_struct("LinkEnd")
            .field("is_cut", &wires.is_cut)
            .field("arriving", &wires.wires[self.reads].under_way)
            .finish_non_exhaustive()
    }
}
