//! [`Request`]: a request in flight, and [`Tracked`]: the body with which it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::conn::Conn;
use super::label::Label;
use super::switch::Seat;
use crate::BoxError;

/// Counts as in flight until it is dropped, and says when it has been cut.
#[derive(Debug)]
pub(crate) struct Request {
    conn: Arc<Conn>,
    label: Label,
    seat: Seat,
    answered: bool,
}

impl Request {
    pub(crate) fn begin(conn: Arc<Conn>, method: &str, path: &str) -> Self {
        conn.begin_request();
        Self {
            conn,
            label: Label::new(method, path),
            seat: Seat::default(),
            answered: false,
        }
    }

    pub(crate) fn conn(&self) -> &Conn {
        &self.conn
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.conn.work.is_fired()
    }

    /// Is to be called by what is pending; returns whether the request has been cut.
    pub(crate) fn watch(&mut self, cx: &Context<'_>) -> bool {
        let label = self.label;
        self.conn.work.watch(&mut self.seat, cx, || label)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.conn.work.leave(&mut self.seat);
        self.conn.end_request(self.answered);
    }
}

pin_project! {
    /// A body that keeps its request in flight, and is cut with it.
    ///
    /// A body that was cut fails. It never seems to end: a client could not tell that from a whole one.
    #[derive(Debug)]
    pub(crate) struct Tracked<B> {
        // Before the request, which says when it is dropped that nothing is left.
        #[pin]
        body: B,
        request: Request,
        is_farewell: bool,
    }
}

impl<B: Body> Tracked<B> {
    /// For a response that was made in time. A body that nobody asks for anything, such as that of
    /// an answer to `HEAD`, is answered.
    pub(crate) fn new(body: B, mut request: Request, cx: &Context<'_>) -> Self {
        request.answered = true;
        if body.size_hint().exact().is_none() {
            // It may always be ready and never be asked, so it would never be seen waiting.
            request.watch(cx);
        }
        Self {
            body,
            request,
            is_farewell: false,
        }
    }

    /// For the response that tells of the cut.
    pub(crate) fn farewell(body: B, request: Request) -> Self {
        Self {
            body,
            request,
            is_farewell: true,
        }
    }

    /// Returns whether it fails because it was cut.
    pub(crate) fn is_cut(&self) -> bool {
        !self.is_farewell && self.request.is_cut()
    }
}

impl<B> Body for Tracked<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        if *this.is_farewell {
            return this.body.poll_frame(cx).map_err(Into::into);
        }
        if this.request.is_cut() {
            return Poll::Ready(Some(Err(was_cut())));
        }
        this.request.answered = false;
        let Poll::Ready(frame) = this.body.as_mut().poll_frame(cx) else {
            let cut = this.request.watch(cx);
            return if cut {
                Poll::Ready(Some(Err(was_cut())))
            } else {
                Poll::Pending
            };
        };
        this.request.answered = match &frame {
            None => true,
            Some(Ok(_)) => this.body.is_end_stream(),
            Some(Err(_)) => false,
        };
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn was_cut() -> BoxError {
    "the server has cut this response: it is shutting down".into()
}
