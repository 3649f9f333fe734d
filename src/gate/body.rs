//! [`GatedBody`]: the body with which a request ends.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::farewell::{Asked, Farewell};
use super::request::Request;
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
        // Nothing once the end has been told.
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
    /// For a response that was made in time. A body that nobody asks for anything, such as that of
    /// an answer to `HEAD`, is answered.
    #[inline]
    pub(super) fn new(body: B, mut request: Request, asked: Asked, cx: &Context<'_>) -> Self {
        request.set_answered(true);
        if body.size_hint().exact().is_none() {
            // It may always be ready and never be asked, so it would never be seen waiting.
            request.watch(cx);
        }
        Self {
            body: Some(body),
            request: Some(request),
            takes_trailers: asked.takes_trailers(),
        }
    }

    #[cold]
    fn break_off(
        self: Pin<&mut Self>,
        why: Farewell,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        if let Some(request) = this.request.as_mut() {
            let _ = request.run("body", || this.body.set(None));
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
        let Some(request) = this.request.as_mut() else {
            return Poll::Ready(None);
        };
        let Some(mut body) = this.body.as_mut().as_pin_mut() else {
            return self.break_off(Farewell::ShuttingDown);
        };
        if request.is_cut() {
            return self.break_off(Farewell::ShuttingDown);
        }
        request.set_answered(false);
        match request.run("body", || body.as_mut().poll_frame(cx)) {
            Ok(Poll::Ready(frame)) => {
                request.set_answered(match &frame {
                    None => true,
                    Some(Ok(_)) => body.is_end_stream(),
                    Some(Err(_)) => false,
                });
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Ok(Poll::Pending) if !request.watch(cx) => Poll::Pending,
            Ok(Poll::Pending) => self.break_off(Farewell::ShuttingDown),
            Err(_) => self.break_off(Farewell::Panicked),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Some(body) => body.is_end_stream(),
            None => self.request.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.body, &self.request) {
            (Some(body), _) => body.size_hint(),
            (None, Some(_)) => SizeHint::default(),
            (None, None) => SizeHint::with_exact(0),
        }
    }
}
