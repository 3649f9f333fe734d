//! [`Busy`]: says that a connection that does not speak HTTP has something in flight.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::conn::Conn;
use super::label::Label;
use crate::server::switch::Seat;

/// Says that a connection of a [`serve_loop`](crate::server::serve_loop) has something in flight, until it is
/// dropped.
///
/// The server guesses nothing about a protocol that it does not speak. [`Io::busy`](crate::server::Io::busy)
/// tells it. A stop waits for a connection that is busy until the end of the grace, and counts what is in flight
/// on it as requests. The report names what had to be cut.
///
/// A connection that was busy before and no longer is counts as idle, and is closed at the stop after the
/// [idle grace](crate::server::Serve::idle_grace). A connection that has never been busy and on which nothing was
/// sent is idle too. One that has never been busy and on which bytes went by may be in the middle of anything, so
/// the stop waits for it, and the report counts it as cut if it does not end.
///
/// # Drop
///
/// Ends it. It counts as answered unless it was cut before.
///
/// # Examples
///
/// ```
/// use taskgroup::server::{Busy, Io};
/// use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
///
/// async fn echo(io: Io) -> std::io::Result<()> {
///     let (mut io, mut line) = (BufStream::new(io), String::new());
///     // Between two lines the connection is idle.
///     while io.read_line(&mut line).await? > 0 {
///         let _busy: Busy = io.get_ref().busy();
///         io.write_all(line.as_bytes()).await?;
///         io.flush().await?;
///         line.clear();
///     }
///     Ok(())
/// }
/// # let _ = echo;
/// ```
#[must_use = "it is over when this is dropped"]
pub struct Busy {
    conn: Arc<Conn>,
    label: Label,
    seat: Seat,
}

impl Busy {
    pub(super) fn begin(conn: Arc<Conn>, name: &str) -> Self {
        conn.begin_request();
        let busy = Self {
            conn,
            label: Label::NONE,
            seat: Seat::default(),
        };
        busy.named(name)
    }

    /// Sets what the report calls it, of which it keeps 63 bytes. By default that is the address of the peer.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::server::{Busy, Io};
    ///
    /// fn query(io: &Io) -> Busy {
    ///     io.busy().named("SELECT")
    /// }
    /// # let _ = query;
    /// ```
    pub fn named(mut self, name: impl AsRef<str>) -> Self {
        self.label = Label::NONE;
        self.label.write_text(name.as_ref());
        self.conn.work.leave(&mut self.seat);
        let label = self.label;
        // The report finds it there. Nothing has to be woken.
        let cx = Context::from_waker(Waker::noop());
        self.conn.work.watch(&mut self.seat, &cx, || label);
        self
    }

    /// Returns whether the time is up.
    ///
    /// The connection itself is cut 100 milliseconds later.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.conn.work.is_fired()
    }

    /// Waits until the time is up, so that the peer can be told in its own protocol.
    ///
    /// The connection itself is cut 100 milliseconds later.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::server::Io;
    /// use tokio::io::AsyncWriteExt;
    ///
    /// async fn answer<Q: Future<Output = String>>(mut io: Io, query: Q) -> std::io::Result<()> {
    ///     let mut busy = io.busy().named("QUERY");
    ///     let answer = tokio::select! {
    ///         answer = query => answer,
    ///         () = busy.cut() => "-ERR the server is shutting down\r\n".into(),
    ///     };
    ///     io.write_all(answer.as_bytes()).await
    /// }
    /// # let _ = answer::<std::future::Ready<String>>;
    /// ```
    pub async fn cut(&mut self) {
        let Self { conn, label, seat } = self;
        poll_fn(|cx| {
            if conn.work.watch(seat, cx, || *label) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.conn.work.leave(&mut self.seat);
        self.conn.end_request(!self.conn.work.is_fired());
    }
}

impl fmt::Debug for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Busy").field(&self.label).finish()
    }
}
