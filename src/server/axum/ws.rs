//! Websockets that are closed when their server stops (feature `ws`).
//!
//! A server that stops does not touch its websockets before the end of its grace, and cuts them then. Only the
//! handler can close a websocket the way the protocol wants it, and a [`WebSocket`] does that for the handler.
//! It combines axum's [`WebSocket`](ws::WebSocket) with the [`Stop`] of the server, for HTTP/1 and HTTP/2.
//!
//! | when | what |
//! |---|---|
//! | until the stop | it is axum's websocket |
//! | the stop begins | the peer is sent a Close with the code 1001, "going away"; nothing more can be sent |
//! | until the peer answers | what it had sent before it saw the Close is received |
//! | the peer's Close, or the end of its stream | is received, and then `None` |
//! | 1 second in which the peer says nothing, or a little before the drain deadline | it is given up, then `None` |
//! | with a grace of [`Duration::MAX`] | a peer that never pauses is never given up |
//!
//! A loop that receives messages therefore ends by itself, in time, and the handler with it. The drain is clean
//! then, except for a peer over HTTP/2 that does not read. Data that was handed over for such a peer cannot be
//! taken back, and its connection is cut at the end of the grace.
//!
//! # Examples
//!
//! ```
//! use axum::Router;
//! use axum::extract::WebSocketUpgrade;
//! use axum::response::Response;
//! use axum::routing::any;
//! use taskgroup::server::Stop;
//! use taskgroup::server::axum::ws::WebSocket;
//!
//! async fn handler(upgrade: WebSocketUpgrade, stop: Stop) -> Response {
//!     upgrade.on_upgrade(|socket| echo(WebSocket::new(socket, stop)))
//! }
//!
//! async fn echo(mut socket: WebSocket) {
//!     while let Some(Ok(message)) = socket.recv().await {
//!         // What makes this fail ends the loop too, when all that was sent before is received.
//!         let _ = socket.send(message).await;
//!     }
//! }
//!
//! // `any`, as a websocket over HTTP/2 is a CONNECT.
//! let app: Router = Router::new().route("/ws", any(handler));
//! # drop(app);
//! ```

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::Error;
use axum::extract::ws;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, close_code};
use axum::http::HeaderValue;
use futures_core::{FusedStream, Stream};
use futures_sink::Sink;

use tokio::time::{Sleep, sleep};

use crate::group::deadline::DeadlinePassed;
use crate::server::stop::{Stop, WorkDeadline};

/// How long a peer may stay silent after it was sent the Close (1 second).
pub const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// What the Close tells the peer.
const REASON: Utf8Bytes = Utf8Bytes::from_static("the server is shutting down");

/// A websocket that is closed with the code 1001 when its server stops.
///
/// It does nothing in the background. The task that receives or sends, when the stop begins or later, also
/// sends the Close. A handler that waits for something else meanwhile must receive too, with `select!` or in
/// the other half of a [`split`]. A handler that does neither is cut at the end of the grace.
///
/// [`split`]: https://docs.rs/futures-util/0.3/futures_util/stream/trait.StreamExt.html#method.split
///
/// # Drop
///
/// Dropping it closes the stream without a Close, as dropping axum's does. Over HTTP/1 the connection is reset
/// if the peer has sent data that was not received. The peer may then miss the last messages, the Close among
/// them. Leave when [`recv`](Self::recv) gives `None`.
///
/// # Comparison to axum's `WebSocket`
///
/// Axum's does not know of the stop. Its handler has to await [`Stop::stopping`], send the Close, and bound the
/// wait for the answer with [`Stop::until_deadline`]. Use axum's for another code, another reason, or a last
/// message before the Close.
///
/// # Examples
///
/// See the [module](self).
pub struct WebSocket {
    socket: ws::WebSocket,
    stop: Stop,
    phase: Phase,
    /// One for receiving and one for sending, which may be in two tasks.
    receiving: WorkDeadline,
    sending: WorkDeadline,
    /// Runs while the peer is silent after the stop.
    silence: Option<Pin<Box<Sleep>>>,
    /// Waker of the task that is waiting to send.
    sender: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The Close has not been sent, though the stop may have begun.
    Open,
    /// The Close is queued after all messages, and nothing can be sent after it.
    Closing,
    /// The peer has closed, or was given up, after the stop. The socket and the deadline, which may have
    /// passed, are no longer polled.
    Over,
}

fn away() -> Message {
    Message::Close(Some(CloseFrame {
        code: close_code::AWAY,
        reason: REASON,
    }))
}

fn closed() -> Error {
    Error::new("the websocket was closed: the server is shutting down")
}

impl WebSocket {
    /// Makes one from axum's websocket and the stop of its server.
    ///
    /// If the stop has begun, the Close is the first thing that is sent.
    ///
    /// # Examples
    ///
    /// See the [module](self).
    #[must_use]
    pub fn new(socket: ws::WebSocket, stop: Stop) -> Self {
        Self {
            socket,
            phase: Phase::Open,
            receiving: WorkDeadline::new(stop.clone()),
            sending: WorkDeadline::new(stop.clone()),
            stop,
            silence: None,
            sender: None,
        }
    }

    /// Receives the next message, a Close included, or `None` at the end.
    ///
    /// When the stop begins this sends the Close and goes on. It returns `None` in three cases, and from then
    /// on:
    ///
    /// * The peer has sent a Close, or its stream has ended.
    /// * The peer has been silent for [1 second](CLOSE_GRACE).
    /// * The time for outgoing work is over. That is before the drain deadline by a tenth of the drain, at most
    ///   250 ms.
    ///
    /// # Errors
    ///
    /// As axum's, until the stop. After it an error is treated as the end and gives `None`.
    ///
    /// # Panics
    ///
    /// Panics if the runtime has no timer and the stop has begun.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. Neither a message nor the Close is lost.
    ///
    /// # Examples
    ///
    /// See the [module](self).
    pub async fn recv(&mut self) -> Option<Result<Message, Error>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Sends a message.
    ///
    /// A message that is being sent when the stop begins is sent as a whole, and the Close after it.
    ///
    /// # Errors
    ///
    /// As axum's. Once the stop has begun, the Close is sent instead of the message, and the call fails. The
    /// handler should stay all the same, because it can still [receive](Self::recv) what the peer has sent. The
    /// error contains [`DeadlinePassed`] if the peer did not take the message or the Close before the time for
    /// outgoing work was over.
    ///
    /// # Panics
    ///
    /// Panics if the runtime has no timer, the stop has begun, and the peer does not take the message.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the message may or may not be sent. The websocket can still be used.
    ///
    /// # Examples
    ///
    /// See the [module](self).
    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        poll_fn(|cx| Pin::new(&mut *self).poll_ready(cx)).await?;
        Pin::new(&mut *self).start_send(message)?;
        poll_fn(|cx| Pin::new(&mut *self).poll_flush(cx)).await
    }

    /// Returns the subprotocol that was selected in the upgrade, if one was.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::server::axum::ws::WebSocket;
    ///
    /// fn speaks_json(socket: &WebSocket) -> bool {
    ///     socket.protocol().is_some_and(|name| name == "json")
    /// }
    /// # let _ = speaks_json;
    /// ```
    #[must_use]
    pub fn protocol(&self) -> Option<&HeaderValue> {
        self.socket.protocol()
    }

    /// Sends the Close after all messages. Ready when the peer has been told, or cannot be.
    fn poll_away(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut socket = Pin::new(&mut self.socket);
        if self.phase == Phase::Open {
            // An error, here and below, means that the peer is gone or that a Close was sent before.
            let _ = ready!(socket.as_mut().poll_ready(cx));
            let _ = socket.as_mut().start_send(away());
            self.phase = Phase::Closing;
        }
        socket.poll_flush(cx).map(|_| ())
    }

    /// Gives up a peer that has been told and has been silent for too long.
    fn unless_silent<T>(
        &mut self,
        received: Poll<Option<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<T>> {
        if received.is_ready() {
            self.silence = None;
            return received;
        }
        let begin = || Box::pin(sleep(CLOSE_GRACE));
        let silence = self.silence.get_or_insert_with(begin);
        silence.as_mut().poll(cx).map(|()| None)
    }

    /// Keeps the waker of a task that waits for the peer to take something, and bounds that wait.
    fn in_time(
        &mut self,
        sent: Poll<Result<(), Error>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        self.sender = None;
        if sent.is_ready() {
            return sent;
        }
        if self.sending.poll(cx).is_pending() {
            self.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.phase = Phase::Over;
        Poll::Ready(Err(Error::new(DeadlinePassed::new())))
    }
}

impl Stream for WebSocket {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.phase == Phase::Over {
            return Poll::Ready(None);
        }
        let is_late = self.receiving.poll(cx).is_ready();
        if !self.stop.is_stopping() {
            return Pin::new(&mut self.socket).poll_next(cx);
        }
        // Polled before the Close, because this wakes the task when the Close can be written. A peer that never
        // pauses is not polled beyond the deadline.
        let received = if is_late {
            Poll::Ready(None)
        } else {
            Pin::new(&mut self.socket).poll_next(cx)
        };
        // The socket keeps one waker for sending, which must stay that of a waiting message.
        let sender = self.sender.clone();
        let sender = sender.unwrap_or_else(|| cx.waker().clone());
        let told = self.poll_away(&mut Context::from_waker(&sender));
        let received = match told {
            Poll::Ready(()) => self.unless_silent(received, cx),
            Poll::Pending => received,
        };
        if let Poll::Ready(None | Some(Err(_))) = received {
            self.phase = Phase::Over;
            // The peer no longer reads, and the task that waits to send must learn of it.
            if let Some(sender) = self.sender.take() {
                sender.wake();
            }
            return Poll::Ready(None);
        }
        received
    }
}

impl FusedStream for WebSocket {
    fn is_terminated(&self) -> bool {
        self.phase == Phase::Over || self.socket.is_terminated()
    }
}

impl Sink<Message> for WebSocket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.phase == Phase::Over {
            return Poll::Ready(Err(closed()));
        }
        let ready = if self.stop.is_stopping() {
            self.poll_away(cx).map(|()| Err(closed()))
        } else {
            Pin::new(&mut self.socket).poll_ready(cx)
        };
        self.in_time(ready, cx)
    }

    /// The socket rejects a message after a Close, which the other half may have sent by now.
    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        Pin::new(&mut self.socket).start_send(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.phase == Phase::Over {
            return Poll::Ready(Err(closed()));
        }
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.in_time(flushed, cx)
    }

    /// Sends a Close without a code, if none was sent before.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.phase == Phase::Over {
            return Poll::Ready(Ok(()));
        }
        let closed = Pin::new(&mut self.socket).poll_close(cx);
        self.in_time(closed, cx)
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("phase", &self.phase)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}
