//! [`Gated`]: a service whose requests are under the gate, whatever server it is in.
//!
//! A handler is raced with the cut, its body keeps the request in flight, and a client whose request
//! comes to nothing is told so in its own protocol. What differs from server to server is a [`Front`].

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Extensions, HeaderValue, Request, Response, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::body::{GatedBody, Length};
use super::conn::{Conn, Gate};
use super::farewell::{Asked, Farewell};
use super::request;
use super::request::Panicked;
use crate::group::log;
use crate::group::panic::Panic;
use crate::server::stop::Stop;

/// What a server puts between the gate and its service.
pub trait Front<B> {
    /// The body of a response as the server takes it.
    type Body;

    /// Finds the connection a request came on. One that nobody knows is not served.
    fn conn(&self, extensions: &Extensions) -> Option<Arc<Conn>>;

    /// Finds the connection of which nobody has shown a request yet.
    fn waiting(&self) -> Option<Arc<Conn>>;

    fn gate(&self) -> Option<&Gate>;

    /// Gives the handler its hint.
    fn add_stop(&self, stop: &Stop, extensions: &mut Extensions) {
        extensions.insert(stop.clone());
    }

    /// Makes the body of a response with a handler.
    fn body(body: GatedBody<B>) -> Self::Body;

    /// Makes the body of a response without a handler: `text`, if the server has a way to say it.
    fn farewell(text: &'static str) -> Self::Body;
}

/// Puts the requests of one connection under the gate, in a server that is nobody's but the user's.
///
/// It goes around the service of the connection whose stream it is of, once for each.
#[derive(Clone, Debug)]
pub struct ConnLayer(Arc<Conn>);

impl ConnLayer {
    pub(super) fn new(conn: &Arc<Conn>) -> Self {
        Self(Arc::clone(conn))
    }
}

impl<S> Layer<S> for ConnLayer {
    type Service = Gated<S, OneConn>;

    fn layer(&self, service: S) -> Self::Service {
        Gated::new(service, OneConn(Arc::clone(&self.0)))
    }
}

/// The connection is known, and the body is taken as it is.
#[derive(Clone, Debug)]
pub struct OneConn(Arc<Conn>);

impl<B> Front<B> for OneConn {
    type Body = GatedBody<B>;

    fn conn(&self, _extensions: &Extensions) -> Option<Arc<Conn>> {
        Some(Arc::clone(&self.0))
    }

    fn waiting(&self) -> Option<Arc<Conn>> {
        Some(Arc::clone(&self.0))
    }

    #[inline]
    fn gate(&self) -> Option<&Gate> {
        Some(self.0.gate())
    }

    fn body(body: GatedBody<B>) -> GatedBody<B> {
        body
    }

    fn farewell(_text: &'static str) -> GatedBody<B> {
        GatedBody::empty()
    }
}

/// A service under the gate.
#[derive(Debug)]
pub struct Gated<S, W> {
    service: S,
    front: W,
    /// The request for which the service is not ready yet. It is in flight already, or its connection
    /// would be an idle one.
    waiting: Option<Box<request::Request>>,
    /// Whether the service has panicked when it was asked whether it is ready, and that was caught.
    panicked: bool,
}

impl<S, W> Gated<S, W> {
    pub(crate) fn new(service: S, front: W) -> Self {
        Self {
            service,
            front,
            waiting: None,
            panicked: false,
        }
    }

    #[cold]
    fn call_catching<A>(
        &mut self,
        request: Request<A>,
        in_flight: request::Request,
        asked: Asked,
    ) -> Answer<S::Future, W>
    where
        S: Service<Request<A>>,
    {
        match in_flight.catch("handler", || self.service.call(request)) {
            Ok(handler) => Answer::of(handler, in_flight, asked),
            Err(Panicked) => Answer::without_handler(asked, Farewell::Panicked),
        }
    }

    /// Is to be called when the service is not ready; returns whether that has been cut.
    #[cold]
    fn is_cut_waiting<B>(&mut self, cx: &Context<'_>) -> bool
    where
        W: Front<B>,
    {
        if self.waiting.is_none() {
            let begin = |conn| Box::new(request::Request::begin(conn));
            self.waiting = self.front.waiting().map(begin);
        }
        let waiting = self.waiting.as_mut();
        waiting.is_some_and(|waiting| waiting.watch(cx))
    }
}

impl<S: Clone, W: Clone> Clone for Gated<S, W> {
    fn clone(&self) -> Self {
        Self::new(self.service.clone(), self.front.clone())
    }
}

impl<S, W, A, B> Service<Request<A>> for Gated<S, W>
where
    S: Service<Request<A>, Response = Response<B>>,
    W: Front<B>,
    B: Body,
{
    type Response = Response<W::Body>;
    type Error = S::Error;
    type Future = Answer<S::Future, W>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let gate = self.front.gate();
        let ready = if gate.is_some_and(|gate| gate.limits().catch_panics) {
            match caught(gate, || self.service.poll_ready(cx)) {
                Ok(ready) => ready,
                Err(Panicked) => {
                    self.panicked = true;
                    return Poll::Ready(Ok(()));
                }
            }
        } else {
            let mut asking = Asking {
                gate,
                is_over: false,
            };
            let ready = self.service.poll_ready(cx);
            asking.is_over = true;
            ready
        };
        match ready {
            // Ready for `call`, which does not ask the service then.
            Poll::Pending if self.is_cut_waiting(cx) => Poll::Ready(Ok(())),
            ready => ready,
        }
    }

    #[inline]
    fn call(&mut self, mut request: Request<A>) -> Answer<S::Future, W> {
        let asked = Asked::of(&request);
        // Until the request itself is in flight.
        let waiting = self.waiting.take();
        if waiting.as_ref().is_some_and(|waiting| waiting.is_cut()) {
            return Answer::without_handler(asked, Farewell::ShuttingDown);
        }
        if std::mem::take(&mut self.panicked) {
            return Answer::without_handler(asked, Farewell::Panicked);
        }
        let Some(conn) = self.front.conn(request.extensions()) else {
            return Answer::without_handler(asked, Farewell::ShuttingDown);
        };
        let mut in_flight = request::Request::begin(conn);
        in_flight.name(request.method(), request.uri().path());
        let stop = in_flight.conn().gate().stop();
        self.front.add_stop(stop, request.extensions_mut());
        if in_flight.catches_panics() {
            return self.call_catching(request, in_flight, asked);
        }
        in_flight.set_running(true);
        let handler = self.service.call(request);
        in_flight.set_running(false);
        Answer::of(handler, in_flight, asked)
    }
}

/// Counts a panic of a service that is asked whether it is ready.
struct Asking<'a> {
    gate: Option<&'a Gate>,
    is_over: bool,
}

impl Drop for Asking<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_over {
            self.gate.into_iter().for_each(Gate::add_panic);
        }
    }
}

/// Catches, counts and logs it instead.
#[cold]
fn caught<R>(gate: Option<&Gate>, ask: impl FnOnce() -> R) -> Result<R, Panicked> {
    Panic::catch(ask).map_err(|panic| {
        gate.into_iter().for_each(Gate::add_panic);
        let message = panic.message();
        log::guarded(|| {
            tracing::error!(target: "taskgroup", "a service panicked when it was asked whether it is ready: {message}");
        });
        Panicked
    })
}

pin_project! {
    /// A handler that is raced with the cut.
    #[derive(Debug)]
    #[project = Projected]
    pub struct Answer<F, W> {
        // Before the request, which says when it is dropped that nothing is left.
        #[pin]
        handler: Option<F>,
        // Nothing once the response has it, or where there is no handler.
        request: Option<request::Request>,
        asked: Asked,
        // What is said without a handler.
        farewell: Farewell,
        front: PhantomData<fn() -> W>,
    }

    impl<F, W> PinnedDrop for Answer<F, W> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(request) = this.request {
                request.drop_last(this.handler);
            }
        }
    }
}

impl<F, W> Answer<F, W> {
    #[inline]
    fn of(handler: F, request: request::Request, asked: Asked) -> Self {
        Self {
            handler: Some(handler),
            request: Some(request),
            asked,
            farewell: Farewell::ShuttingDown,
            front: PhantomData,
        }
    }

    fn without_handler(asked: Asked, farewell: Farewell) -> Self {
        Self {
            handler: None,
            request: None,
            asked,
            farewell,
            front: PhantomData,
        }
    }
}

impl<F, W, B, E> Future for Answer<F, W>
where
    F: Future<Output = Result<Response<B>, E>>,
    W: Front<B>,
    B: Body,
{
    type Output = Result<Response<W::Body>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (Some(request), Some(handler)) =
            (this.request.as_mut(), this.handler.as_mut().as_pin_mut())
        else {
            return Poll::Ready(Ok(farewell::<W, B>(*this.farewell, *this.asked)));
        };
        if request.is_cut() {
            return Poll::Ready(Ok(this.give_up(Farewell::ShuttingDown)));
        }
        let answer = if request.catches_panics() {
            match request.catch("handler", || handler.poll(cx)) {
                Ok(answer) => answer,
                Err(Panicked) => return Poll::Ready(Ok(this.give_up(Farewell::Panicked))),
            }
        } else {
            request.set_running(true);
            let answer = handler.poll(cx);
            request.set_running(false);
            answer
        };
        match answer {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(this.hand_over(response, cx))),
            Poll::Ready(Err(error)) => {
                this.end();
                Poll::Ready(Err(error))
            }
            Poll::Pending if request.watch(cx) => {
                Poll::Ready(Ok(this.give_up(Farewell::ShuttingDown)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<F, W> Projected<'_, F, W> {
    /// The handler is gone before its request is, whatever it holds.
    #[inline]
    fn end(&mut self) -> Option<request::Request> {
        if let Some(request) = self.request {
            request.drop_in(self.handler.as_mut());
        }
        self.request.take()
    }

    /// Makes the response that was made in time the server's.
    #[inline]
    fn hand_over<B>(&mut self, mut response: Response<B>, cx: &Context<'_>) -> Response<W::Body>
    where
        W: Front<B>,
        B: Body,
    {
        let asked = *self.asked;
        let Some(request) = self.request else {
            return response
                .map(|body| W::body(GatedBody::new(body, None, asked, Length::Unknown)));
        };
        if asked.is_upgraded_by(response.status()) {
            request.conn().add_upgrade();
        } else if asked.is_http1() && request.conn().gate().is_leaving() {
            response = say_close(response);
        }
        let length = Length::of(&response, asked);
        request.drop_in(self.handler.as_mut());
        // A body that nobody asks for anything, such as that of an answer to `HEAD`, is answered.
        request.set_answered(true);
        if !matches!(length, Length::Exact(_)) {
            // It may always be ready and never be asked, so it would never be seen waiting.
            request.watch(cx);
        }
        response.map(|body| W::body(GatedBody::new(body, self.request.take(), asked, length)))
    }

    #[cold]
    fn give_up<B>(mut self, why: Farewell) -> Response<W::Body>
    where
        W: Front<B>,
    {
        let mut response = farewell::<W, B>(why, *self.asked);
        if let Some(request) = self.end() {
            if self.asked.is_http1() && request.conn().gate().is_leaving() {
                response = say_close(response);
            }
        }
        response
    }
}

/// The whole response where no handler has made one.
#[cold]
fn farewell<W: Front<B>, B>(farewell: Farewell, asked: Asked) -> Response<W::Body> {
    let text = if asked.is_grpc() { "" } else { farewell.text() };
    let mut response = Response::new(W::farewell(text));
    if asked.is_grpc() {
        *response.headers_mut() = farewell.trailers();
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    } else {
        *response.status_mut() = farewell.status();
    }
    response
}

/// Tells the client of a server that stops not to use the connection again. HTTP/2 has a GOAWAY.
#[cold]
fn say_close<B>(mut response: Response<B>) -> Response<B> {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::task::Waker;

    use http::Version;
    use http_body::Frame;

    use super::super::conn::Limits;

    /// A body like that of no server: its data and its errors are its own.
    struct Letters(VecDeque<u8>);

    impl Body for Letters {
        type Data = VecDeque<u8>;
        type Error = std::fmt::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<VecDeque<u8>>, std::fmt::Error>>> {
            match self.0.pop_front() {
                Some(b'!') => Poll::Ready(Some(Err(std::fmt::Error))),
                Some(b'?') => std::panic::resume_unwind(Box::new("no hook")),
                Some(letter) => Poll::Ready(Some(Ok(Frame::data([letter].into())))),
                None => Poll::Pending,
            }
        }
    }

    /// Answers with the letters that it is asked for, or panics.
    #[derive(Clone)]
    struct Handler;

    impl Service<Request<&'static str>> for Handler {
        type Response = Response<Letters>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Letters>, Infallible>>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<&'static str>) -> Self::Future {
            assert!(request.extensions().get::<Stop>().is_some());
            if request.body().is_empty() {
                std::panic::resume_unwind(Box::new("no hook"));
            }
            let letters = request.body().bytes().collect();
            ready(Ok(Response::new(Letters(letters))))
        }
    }

    fn conn(catch_panics: bool) -> Arc<Conn> {
        let limits = Limits {
            catch_panics,
            ..Limits::default()
        };
        Gate::new(limits).register(None)
    }

    fn plain(letters: &'static str) -> Request<&'static str> {
        let mut request = Request::new(letters);
        *request.version_mut() = Version::HTTP_2;
        request
    }

    fn grpc(letters: &'static str) -> Request<&'static str> {
        let mut request = plain(letters);
        *request.method_mut() = http::Method::POST;
        let kind = HeaderValue::from_static("application/grpc+proto");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        request
    }

    #[track_caller]
    fn answer(conn: &Arc<Conn>, request: Request<&'static str>) -> Response<GatedBody<Letters>> {
        let mut service = ConnLayer::new(conn).layer(Handler);
        let mut answer = Box::pin(service.call(request));
        match answer
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(Ok(response)) => response,
            Poll::Pending => panic!("it is never pending"),
        }
    }

    /// What comes next of a body: a letter, the status of gRPC, an error, the end, or nothing yet.
    fn next(body: &mut GatedBody<Letters>) -> String {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(body).poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(letter) => format!("{letter:?}"),
                Err(frame) => format!("status {:?}", frame.into_trailers().unwrap()["grpc-status"]),
            },
            Poll::Ready(Some(Err(error))) => error.to_string(),
            Poll::Ready(None) => "the end".into(),
            Poll::Pending => "pending".into(),
        }
    }

    #[test]
    fn a_service_of_any_bodies_is_followed_to_the_end_of_its_answer() {
        let conn = conn(false);

        let mut body = answer(&conn, plain("a!")).into_body();

        assert_eq!(conn.requests(), 1);
        assert_eq!(next(&mut body), "[97]");
        assert_eq!(next(&mut body), std::fmt::Error.to_string());
        drop(body);
        assert_eq!(conn.requests(), 0);
    }

    #[test]
    fn a_body_that_is_cut_fails_and_never_ends() {
        let conn = conn(false);
        let mut body = answer(&conn, plain("ab")).into_body();
        assert_eq!(next(&mut body), "[97]");

        conn.cut();

        let cut = "the server has cut this response: it is shutting down";
        assert_eq!(next(&mut body), cut);
        assert!(!body.is_end_stream());
        assert_eq!(next(&mut body), cut);
    }

    #[test]
    fn a_stream_of_grpc_that_is_cut_ends_with_a_status() {
        let conn = conn(false);
        let mut body = answer(&conn, grpc("a")).into_body();
        assert_eq!(next(&mut body), "[97]");
        assert_eq!(next(&mut body), "pending");

        conn.cut();

        assert_eq!(next(&mut body), "status \"14\"");
        assert!(body.is_end_stream());
        assert_eq!(next(&mut body), "the end");
        assert_eq!(conn.requests(), 0);
    }

    #[test]
    fn what_comes_after_the_cut_gets_no_handler() {
        let conn = conn(false);
        conn.cut();

        let response = answer(&conn, plain("a"));
        assert_eq!(response.status(), 503);
        assert_eq!(next(&mut response.into_body()), "the end");
        let response = answer(&conn, grpc("a"));
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(conn.requests(), 0);
    }

    #[test]
    fn r20_a_panic_that_is_caught_is_answered_and_counted() {
        let conn = conn(true);

        assert_eq!(answer(&conn, plain("")).status(), 500);
        assert_eq!(answer(&conn, grpc("")).headers()["grpc-status"], "13");
        let mut body = answer(&conn, plain("a?")).into_body();
        assert_eq!(next(&mut body), "[97]");
        assert_eq!(next(&mut body), "the body of this response panicked");
        let mut body = answer(&conn, grpc("?")).into_body();
        assert_eq!(next(&mut body), "status \"13\"");
        assert_eq!(next(&mut body), "the end");

        assert_eq!(conn.gate().panicked(), 4);
        drop(body);
    }

    #[test]
    fn r20_a_panic_that_is_not_caught_goes_through_and_is_counted() {
        let conn = conn(false);

        let panic = Panic::catch(|| answer(&conn, plain(""))).err();

        assert_eq!(panic.as_ref().map(Panic::message), Some("no hook"));
        assert_eq!(conn.gate().panicked(), 1);
        assert_eq!(conn.requests(), 0);
    }
}
