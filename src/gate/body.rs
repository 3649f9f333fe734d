//! [`GatedBody`]: the body with which a request ends.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::farewell::{Asked, Farewell};
use super::request::{Panicked, Request};
use crate::BoxError;

pin_project! {
    /// A body that keeps its request in flight, and is cut with it.
    ///
    /// A stream of gRPC that is cut ends with a status. Any other body fails, and never seems to end: a
    /// client could not tell that from a whole one.
    #[derive(Debug)]
    pub struct GatedBody<B> {
        // Before the request, which says when it is dropped that nothing is left. Nothing once it
        // was cut.
        #[pin]
        body: Option<B>,
        // Nothing once the end has been told, and for a body that nobody follows.
        request: Option<Request>,
        takes_trailers: bool,
    }
}

impl<B> GatedBody<B> {
    pub(crate) fn empty() -> Self {
        Self {
            body: None,
            request: None,
            takes_trailers: false,
        }
    }
}

impl<B: Body> GatedBody<B> {
    /// Gives a body the request that it ends. The handler is gone by now, and all that is to be said
    /// of the response has been.
    #[inline]
    pub(super) fn new(body: B, request: Option<Request>, asked: Asked) -> Self {
        Self {
            body: Some(body),
            request,
            takes_trailers: asked.takes_trailers(),
        }
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
        if *this.takes_trailers {
            *this.request = None;
            return Poll::Ready(Some(Ok(Frame::trailers(why.trailers()))));
        }
        Poll::Ready(Some(Err(why.error().into())))
    }
}

impl<B> Body for GatedBody<B>
where
    B: Body,
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
                None => Poll::Ready(None),
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
        match &frame {
            Poll::Ready(None) => request.set_answered(true),
            Poll::Ready(Some(Ok(_))) => request.set_answered(body.is_end_stream()),
            Poll::Ready(Some(Err(_))) => {}
            Poll::Pending if !request.watch(cx) => {}
            Poll::Pending => return self.break_off(Farewell::ShuttingDown),
        }
        frame.map_err(Into::into)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.body {
            Some(body) => body.is_end_stream(),
            None => self.request.is_none(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match (&self.body, &self.request) {
            (Some(body), _) => body.size_hint(),
            (None, Some(_)) => SizeHint::default(),
            (None, None) => SizeHint::with_exact(0),
        }
    }
}
