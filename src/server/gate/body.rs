//! [`GatedBody`]: the body with which a request ends.

use std::any::Any;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Response, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::conn::Conn;
use super::farewell::{Asked, Farewell};
use super::request::{Panicked, Request};
use crate::BoxError;

pin_project! {
    /// A body that keeps its request in flight, and is cut with it.
    ///
    /// A gRPC stream that is cut ends with a status. Any other body fails, and never seems to end, because a
    /// client could not distinguish that from a complete body.
    #[derive(Debug)]
    pub struct GatedBody<B> {
        // `None` once it was cut.
        #[pin]
        body: Option<B>,
        // `None` once the end was reported, and if no handler has answered.
        request: Option<Request>,
        // The text that is sent if no handler has answered.
        farewell: Option<Farewell>,
        asked: Asked,
        // The most that may still come. Over HTTP/1 the server does not poll for the end after that.
        left: u64,
    }

    impl<B> PinnedDrop for GatedBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(request) = this.request {
                // Before the request, whose drop reports that nothing is left.
                request.drop_last(this.body);
            }
        }
    }
}

/// The rest of a body whose length is unknown.
const UNKNOWN: u64 = u64::MAX;

/// A frame over HTTP/2 up to this size is not followed until its peer has taken it.
///
/// Following a frame costs an allocation, which is much for the answer to a unary call. h2 asks a body for its
/// next frame only if the window has room for some of it, so data that a peer does not take stay in flight by
/// themselves. The exception is the one frame that fits into the window only in part, and that is worth
/// following only if it is not tiny.
const UNSEEN: usize = 1024;

/// The length of a body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    /// The body knows it.
    Exact(u64),
    /// The headers promise it, and over HTTP/1 the body is not polled beyond it.
    Promised(u64),
    Unknown,
}

impl Length {
    #[inline]
    pub(super) fn of<B: Body>(response: &Response<B>, asked: Asked) -> Self {
        match response.body().size_hint().exact() {
            Some(length) => Self::Exact(length),
            None if asked.is_http1() => Self::promised(response.headers()),
            None => Self::Unknown,
        }
    }

    fn promised(headers: &HeaderMap) -> Self {
        let length = headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        length.map_or(Self::Unknown, Self::Promised)
    }
}

impl<B> GatedBody<B> {
    pub(super) fn empty() -> Self {
        Self {
            body: None,
            request: None,
            farewell: None,
            asked: Asked::default(),
            left: UNKNOWN,
        }
    }
}

impl<B: Body> GatedBody<B> {
    /// Gives a body the request that it ends. By now the handler is gone, and the head of the response is
    /// complete.
    #[inline]
    pub(super) fn new(body: B, request: Request, asked: Asked, length: Length) -> Self {
        Self {
            body: Some(body),
            request: Some(request),
            farewell: None,
            asked,
            left: match length {
                Length::Exact(length) | Length::Promised(length) => length,
                Length::Unknown => UNKNOWN,
            },
        }
    }

    /// Makes a body that says why the handler has not answered, if its data can be made from a text, as `Bytes` can.
    pub(super) fn farewell(farewell: Farewell) -> Self
    where
        B: 'static,
    {
        let mut body = Self::empty();
        body.farewell = data::<B::Data>(farewell).is_some().then_some(farewell);
        body
    }

    #[cold]
    fn say_farewell(self: Pin<&mut Self>) -> Option<Frame<B::Data>>
    where
        B: 'static,
    {
        self.project()
            .farewell
            .take()
            .and_then(data)
            .map(Frame::data)
    }

    #[cold]
    fn break_off(
        self: Pin<&mut Self>,
        why: Farewell,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.project();
        if let Some(request) = this.request.as_mut() {
            request.drop_in(this.body);
        }
        if this.asked.takes_trailers() {
            *this.request = None;
            return Poll::Ready(Some(Ok(Frame::trailers(why.trailers()))));
        }
        Poll::Ready(Some(Err(why.error().into())))
    }
}

impl<B> Body for GatedBody<B>
where
    B: Body + 'static,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    #[inline]
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.as_mut().project();
        let Some(mut body) = this.body.as_mut().as_pin_mut() else {
            return match this.request {
                Some(_) => self.break_off(Farewell::ShuttingDown),
                None => Poll::Ready(self.say_farewell().map(Ok)),
            };
        };
        let Some(request) = this.request.as_mut() else {
            return body.poll_frame(cx).map_err(Into::into);
        };
        if request.is_cut() {
            return self.break_off(Farewell::ShuttingDown);
        }
        request.set_answered(false);
        let frame = if request.catches_panics() {
            match request.catch("body", || body.as_mut().poll_frame(cx)) {
                Ok(frame) => frame,
                Err(Panicked) => return self.break_off(Farewell::Panicked),
            }
        } else {
            request.set_running(true);
            let frame = body.as_mut().poll_frame(cx);
            request.set_running(false);
            frame
        };
        match frame {
            Poll::Ready(None) => {
                request.set_answered(true);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                let is_whole = body.is_end_stream();
                request.set_answered(is_whole);
                if is_whole && this.asked.is_http1() {
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Ok(follow(frame, request, *this.asked, this.left))))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Pending if !request.watch(cx) => Poll::Pending,
            Poll::Pending => self.break_off(Farewell::ShuttingDown),
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.body {
            Some(body) => body.is_end_stream(),
            None => self.request.is_none() && self.farewell.is_none(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match (&self.body, &self.request) {
            (Some(body), _) => body.size_hint(),
            (None, Some(_)) => SizeHint::default(),
            (None, None) => {
                let text = self.farewell.map_or("", Farewell::text);
                SizeHint::with_exact(text.len() as u64)
            }
        }
    }
}

/// The text of a farewell as data of a body.
fn data<T: 'static>(farewell: Farewell) -> Option<T> {
    let mut text = Some(Bytes::from_static(farewell.text().as_bytes()));
    let text: Option<&mut Option<T>> = (&mut text as &mut dyn Any).downcast_mut();
    text?.take()
}

/// Tracks what the server may not report. Over HTTP/1 it does not poll for the end after the promised length,
/// and over HTTP/2 it drops the body before the peer has taken all of it.
#[inline(never)]
fn follow<T: Buf + 'static>(
    frame: Frame<T>,
    request: &mut Request,
    asked: Asked,
    left: &mut u64,
) -> Frame<T> {
    if !asked.is_http1() {
        return frame.map_data(|data| followed(data, request.conn()));
    }
    if *left != UNKNOWN {
        let data = frame.data_ref().map_or(0, Buf::remaining);
        *left = left.saturating_sub(data as u64);
        request.set_answered(*left == 0);
    }
    frame
}

/// Tracks `data` that are `Bytes`, as nearly all are, until they are dropped, because h2 keeps what does not
/// fit into the window of the peer.
fn followed<T: Buf + 'static>(mut data: T, conn: &Conn) -> T {
    if let Some(bytes) = (&mut data as &mut dyn Any).downcast_mut::<Bytes>() {
        if bytes.len() > UNSEEN {
            *bytes = conn.on_its_way(std::mem::take(bytes));
        }
    }
    data
}
