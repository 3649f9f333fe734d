//! Websockets that are closed when their server stops (feature `ws`).
//!
//! A server that stops does not touch its websockets before the end of its grace, and then it cuts
//! them: only the handler can close one the way the protocol wants it. A [`WebSocket`] does that for
//! it. It is axum's [`WebSocket`](ws::WebSocket) and the [`Stop`] of the server in one, for HTTP/1
//! and HTTP/2.
//!
//! | when | what |
//! |---|---|
//! | until the stop | it is axum's websocket |
//! | the stop begins | the peer is sent a Close with the code 1001, "going away"; nothing can be sent any more |
//! | until the peer answers | what it had sent before it saw the Close is received |
//! | the peer's Close, or the end of its stream | is received; then there is nothing more: `None` |
//! | 1 second in which the peer says nothing, or a little before the drain deadline | it is given up: `None` |
//! | with a grace of [`Duration::MAX`] | there is no deadline: a peer that never pauses is never given up |
//!
//! So a loop over what is received ends by itself, in time, and with it the handler. The drain is
//! clean then, except for a peer over HTTP/2 that does not read: what was handed over for it cannot be
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

use std::convert::Infallible;
use std::fmt;
use std::future::{pending, poll_fn};
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
use crate::server::stop::Stop;

/// How long a peer may say nothing after it was sent the Close: 1 second.
pub const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// What the peer is told with the Close.
const REASON: Utf8Bytes = Utf8Bytes::from_static("the server is shutting down");

/// A websocket that is closed with the code 1001 when its server stops.
///
/// It does nothing in the background: the Close is sent by whoever receives, or sends, when the stop
/// begins or later. A handler that waits for something else meanwhile receives too, with `select!`, or
/// in the other half of a [`split`]. One that does neither is cut at the end of the grace.
///
/// [`split`]: https://docs.rs/futures-util/0.3/futures_util/stream/trait.StreamExt.html#method.split
///
/// # Drop
///
/// Dropping it closes the stream without a Close, as dropping axum's does. Over HTTP/1 the connection
/// is reset if the peer has sent what was not received, and the peer may then miss the last messages,
/// the Close among them: leave when [`recv`](Self::recv) gives `None`.
///
/// # Comparison to axum's `WebSocket`
///
/// Axum's knows nothing of the stop. Its handler looks at [`Stop::stopping`] itself, sends the Close,
/// and bounds the wait for the answer with [`Stop::until_deadline`]. Take that one for another code,
/// another reason, or a last message before the Close.
///
/// # Examples
///
/// See the [module](self).
pub struct WebSocket {
    socket: ws::WebSocket,
    stop: Stop,
    phase: Phase,
    /// Who receives and who sends have one each: they may be in two tasks.
    receiving: Deadline,
    sending: Deadline,
    /// While the peer says nothing after the stop.
    silence: Option<Pin<Box<Sleep>>>,
    /// Who sends, and waits for the peer.
    sender: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The Close has not been sent, though the stop may have begun.
    Open,
    /// The Close is behind all that was sent, and nothing can be sent behind it.
    Closing,
    /// The peer has closed, or was given up, after the stop. Nothing is asked any more: not the
    /// socket, and not a deadline, which may have passed.
    Over,
}

/// The end of the time for outgoing work, which leaves some for the stream to be closed.
type Deadline = Pin<Box<dyn Future<Output = DeadlinePassed> + Send>>;

fn deadline(stop: Stop) -> Deadline {
    Box::pin(async move {
        match stop.until_deadline(pending::<Infallible>()).await {
            Err(passed) => passed,
            Ok(never) => match never {},
        }
    })
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
    /// Makes one of axum's websocket and of the stop of its server.
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
            receiving: deadline(stop.clone()),
            sending: deadline(stop.clone()),
            stop,
            silence: None,
            sender: None,
        }
    }

    /// Receives the next message, a Close included; `None` when there will be none.
    ///
    /// When the stop begins this sends the Close and goes on. It gives `None` after the Close of the
    /// peer or the end of its stream, and otherwise when the peer has said nothing for
    /// [1 second](CLOSE_GRACE), or when the time for outgoing work is over: before the drain deadline by a
    /// tenth of the drain, at most 250 ms. It gives `None` from then on.
    ///
    /// # Errors
    ///
    /// As axum's, until the stop. After it an error is an end like any other, and gives `None`.
    ///
    /// # Panics
    ///
    /// Panics if the runtime has no timer and the stop has begun.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no message is lost, and neither is the Close.
    ///
    /// # Examples
    ///
    /// See the [module](self).
    pub async fn recv(&mut self) -> Option<Result<Message, Error>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Sends a message.
    ///
    /// One that is being sent when the stop begins is sent as a whole, and the Close after it.
    ///
    /// # Errors
    ///
    /// As axum's. Once the stop has begun, the Close is sent instead of the message, and that is an
    /// error. It is no reason to leave: what the peer has sent can still be [received](Self::recv).
    /// [`DeadlinePassed`] is in the error if the peer did not take the message, or the Close, until the
    /// time for outgoing work was over.
    ///
    /// # Panics
    ///
    /// Panics if the runtime has no timer, the stop has begun, and the peer does not take the message.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the message is sent. The websocket can still be used.
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

    /// Sends the Close behind what was sent before. Ready when the peer has been told, or cannot be.
    fn poll_away(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut socket = Pin::new(&mut self.socket);
        if self.phase == Phase::Open {
            // An error, here and below, is a peer that is gone, or a Close that was sent before.
            let _ = ready!(socket.as_mut().poll_ready(cx));
            let _ = socket.as_mut().start_send(away());
            self.phase = Phase::Closing;
        }
        socket.poll_flush(cx).map(|_| ())
    }

    /// Gives up a peer that has been told and has said nothing for too long.
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

    /// Notes who waits for the peer to take something, and bounds that wait.
    fn in_time(
        &mut self,
        sent: Poll<Result<(), Error>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        self.sender = None;
        if sent.is_ready() {
            return sent;
        }
        let Poll::Ready(passed) = self.sending.as_mut().poll(cx) else {
            self.sender = Some(cx.waker().clone());
            return Poll::Pending;
        };
        self.phase = Phase::Over;
        Poll::Ready(Err(Error::new(passed)))
    }
}

impl Stream for WebSocket {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.phase == Phase::Over {
            return Poll::Ready(None);
        }
        let is_late = self.receiving.as_mut().poll(cx).is_ready();
        if !self.stop.is_stopping() {
            return Pin::new(&mut self.socket).poll_next(cx);
        }
        // Before the Close, as this is what has this task woken when the Close can be written. A peer
        // that never pauses is not asked beyond the deadline.
        let received = if is_late {
            Poll::Ready(None)
        } else {
            Pin::new(&mut self.socket).poll_next(cx)
        };
        // The socket keeps one waker for sending, which has to stay that of a message that waits.
        let sender = self.sender.clone();
        let sender = sender.unwrap_or_else(|| cx.waker().clone());
        let told = self.poll_away(&mut Context::from_waker(&sender));
        let received = match told {
            Poll::Ready(()) => self.unless_silent(received, cx),
            Poll::Pending => received,
        };
        if let Poll::Ready(None | Some(Err(_))) = received {
            self.phase = Phase::Over;
            // The peer takes nothing any more; whoever waits for that is told.
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

    /// The socket refuses a message behind a Close, which the other half may have sent by now.
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

    /// Sends a Close of its own, without a code, if there was none.
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
