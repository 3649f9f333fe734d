//! [`Answer`]: one request, from its head to its response.
//!
//! The handler is raced with the cut, and the body of its response keeps the request in flight. A client whose
//! request fails is told so in its own protocol.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use super::body::{GatedBody, Length};
use super::conn::Conn;
use super::farewell::{Asked, Farewell};
use super::options::Options;
use super::request;
use super::request::Panicked;
use crate::BoxError;

/// The framework-specific parts of answering a request.
pub trait Protocol: 'static {
    /// The body of a request as the service takes it.
    type Request: Send + 'static;
    /// The body of a response as the service makes it.
    type Response: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
    /// Answers the requests of one connection.
    type Service: Service<
            Request<Self::Request>,
            Response = Response<Self::Response>,
            Error: Into<BoxError>,
            Future: Send,
        > + Clone
        + Send
        + 'static;

    /// Returns how long the client is willing to wait for the response, if it says so.
    #[inline]
    fn patience(_request: &http::HeaderMap) -> Option<Duration> {
        None
    }

    /// Makes a response from a failure of the service.
    ///
    /// # Errors
    ///
    /// The failure itself if the protocol cannot express it. It ends the connection, or over HTTP/2 the stream.
    fn recover(error: BoxError) -> Result<Response<()>, BoxError> {
        Err(error)
    }

    /// Returns the failure of a service whose response has timed out, if the protocol has its own.
    fn timed_out() -> Option<BoxError> {
        None
    }
}

/// How long a request of one connection may take, and how many of them are answered at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds {
    pub(super) timeout: Option<Duration>,
    pub(super) turns: Option<Arc<Semaphore>>,
}

impl Bounds {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            timeout: options.request_timeout,
            turns: options
                .turns
                .map(|turns| Arc::new(Semaphore::new(turns.min(Semaphore::MAX_PERMITS)))),
        }
    }

    #[inline]
    fn of<P: Protocol>(&self, request: &Request<P::Request>) -> Option<Box<Bound>> {
        let asked = P::patience(request.headers());
        let timeout = [asked, self.timeout].into_iter().flatten().min();
        if timeout.is_none() && self.turns.is_none() {
            return None;
        }
        Some(Box::new(Bound {
            over: timeout.map(|timeout| Box::pin(sleep(timeout))),
            turn: self.turns.clone().map_or(Turn::Come(None), |turns| {
                Turn::Waits(Box::pin(async move { turns.acquire_owned().await.ok() }))
            }),
        }))
    }
}

/// Why one request may have to wait.
struct Bound {
    over: Option<Pin<Box<Sleep>>>,
    turn: Turn,
}

enum Turn {
    Waits(Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>),
    /// The permit is released when there is a response.
    Come(#[allow(dead_code, reason = "it is only held")] Option<OwnedSemaphorePermit>),
}

impl Bound {
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Turn::Waits(turn) = &mut self.turn {
            self.turn = Turn::Come(ready!(turn.as_mut().poll(cx)));
        }
        Poll::Ready(())
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let over = self.over.as_mut();
        over.is_some_and(|over| over.as_mut().poll(cx).is_ready())
    }
}

pin_project! {
    /// The source of an answer, first the service, and then the future that it returns.
    ///
    /// The service is called in the task that polls the answer. Over HTTP/2 that is the task of the stream, so
    /// a panic ends only that stream.
    #[project = Asking]
    enum Handler<S, R, F> {
        Service {
            service: S,
            // `None` once the service has it.
            request: Option<R>,
        },
        Future {
            #[pin]
            future: F,
        },
    }
}

impl<S, R> Handler<S, R, S::Future>
where
    S: Service<R>,
{
    fn poll(
        mut self: Pin<&mut Self>,
        bound: Option<&mut Bound>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, S::Error>> {
        if let Asking::Service { service, request } = self.as_mut().project() {
            if let Some(bound) = bound {
                ready!(bound.poll_turn(cx));
            }
            ready!(service.poll_ready(cx))?;
            let Some(request) = request.take() else {
                unreachable!("a service that has panicked is not polled again");
            };
            let future = service.call(request);
            self.set(Self::Future { future });
        }
        match self.project() {
            Asking::Future { future } => future.poll(cx),
            Asking::Service { .. } => unreachable!("it has been called"),
        }
    }
}

type Handling<P> = Handler<
    <P as Protocol>::Service,
    Request<<P as Protocol>::Request>,
    <<P as Protocol>::Service as Service<Request<<P as Protocol>::Request>>>::Future,
>;

pin_project! {
    /// A handler that is raced with the cut.
    #[project = Projected]
    pub(super) struct Answer<P>
    where
        P: Protocol,
    {
        // Before the request, whose drop reports that nothing is left. `None` once there is an answer.
        #[pin]
        handler: Option<Handling<P>>,
        // `None` once the response has it.
        request: Option<request::Request>,
        asked: Asked,
        bound: Option<Box<Bound>>,
        protocol: PhantomData<fn() -> P>,
    }

    impl<P> PinnedDrop for Answer<P>
    where
        P: Protocol,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(request) = this.request {
                request.drop_last(this.handler);
            }
        }
    }
}

impl<P: Protocol> Answer<P> {
    /// Begins a request. From here on it is in flight, even while its service is not ready for it.
    #[inline]
    pub(super) fn begin(
        service: P::Service,
        request: Request<P::Request>,
        conn: Arc<Conn>,
        bounds: &Bounds,
    ) -> Self {
        let asked = Asked::of(&request);
        let mut in_flight = request::Request::begin(conn, !asked.is_http1());
        in_flight.name(request.method(), request.uri().path());
        Self {
            asked,
            bound: bounds.of::<P>(&request),
            handler: Some(Handler::Service {
                service,
                request: Some(request),
            }),
            request: Some(in_flight),
            protocol: PhantomData,
        }
    }
}

impl<P: Protocol> Future for Answer<P> {
    type Output = Result<Response<GatedBody<P::Response>>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (Some(request), Some(handler)) =
            (this.request.as_mut(), this.handler.as_mut().as_pin_mut())
        else {
            unreachable!("a future that is over is not polled again");
        };
        if request.is_cut() {
            return Poll::Ready(Ok(this.give_up(Farewell::ShuttingDown)));
        }
        let bound = this.bound.as_deref_mut();
        let answer = if request.catches_panics() {
            match request.catch("handler", || handler.poll(bound, cx)) {
                Ok(answer) => answer,
                Err(Panicked) => return Poll::Ready(Ok(this.give_up(Farewell::Panicked))),
            }
        } else {
            request.set_running(true);
            let answer = handler.poll(bound, cx);
            request.set_running(false);
            answer
        };
        match answer {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(this.hand_over(response, cx))),
            Poll::Ready(Err(error)) => Poll::Ready(this.fail(error.into())),
            Poll::Pending if request.watch(cx) => {
                Poll::Ready(Ok(this.give_up(Farewell::ShuttingDown)))
            }
            Poll::Pending if this.bound.as_mut().is_some_and(|bound| bound.is_over(cx)) => {
                Poll::Ready(match P::timed_out() {
                    Some(error) => this.fail(error),
                    None => Ok(this.give_up(Farewell::TimedOut)),
                })
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<P: Protocol> Projected<'_, P> {
    /// The handler is dropped before its request, whatever it holds.
    #[inline]
    fn end(&mut self) -> Option<request::Request> {
        if let Some(request) = self.request {
            request.drop_in(self.handler.as_mut());
        }
        *self.bound = None;
        self.request.take()
    }

    /// Turns a response that was made in time into the server's.
    #[inline]
    fn hand_over(
        &mut self,
        mut response: Response<P::Response>,
        cx: &Context<'_>,
    ) -> Response<GatedBody<P::Response>> {
        let asked = *self.asked;
        let Some(mut request) = self.end() else {
            unreachable!("a request is in flight until there is a response");
        };
        if asked.is_upgraded_by(response.status()) {
            request.conn().add_upgrade();
        } else if asked.is_http1() && request.conn().gate().is_leaving() {
            response = say_close(response);
        }
        let length = Length::of(&response, asked);
        // A body that is never polled, such as that of an answer to `HEAD`, counts as answered.
        request.set_answered(true);
        if !matches!(length, Length::Exact(_)) {
            // The body may never be pending or never be polled, and then it would not watch the cut itself.
            request.watch(cx);
        }
        response.map(|body| GatedBody::new(body, request, asked, length))
    }

    #[cold]
    fn fail(&mut self, error: BoxError) -> Result<Response<GatedBody<P::Response>>, BoxError> {
        let request = self.end();
        let response = P::recover(error)?.map(|()| GatedBody::empty());
        Ok(self.close_if_leaving(request, response))
    }

    #[cold]
    fn give_up(&mut self, why: Farewell) -> Response<GatedBody<P::Response>> {
        let request = self.end();
        let response = farewell(why, *self.asked);
        self.close_if_leaving(request, response)
    }

    fn close_if_leaving<B>(
        &self,
        request: Option<request::Request>,
        response: Response<B>,
    ) -> Response<B> {
        match request {
            Some(request) if self.asked.is_http1() && request.conn().gate().is_leaving() => {
                say_close(response)
            }
            _ => response,
        }
    }
}

/// The whole response for a request that no handler has answered.
#[cold]
fn farewell<B: Body + 'static>(farewell: Farewell, asked: Asked) -> Response<GatedBody<B>> {
    if asked.is_grpc() {
        let mut response = Response::new(GatedBody::empty());
        *response.headers_mut() = farewell.trailers();
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(header::CONTENT_TYPE, grpc);
        return response;
    }
    let mut response = Response::new(if asked.takes_a_body() {
        GatedBody::farewell(farewell)
    } else {
        GatedBody::empty()
    });
    *response.status_mut() = farewell.status();
    response
}

/// Tells the client not to use the connection again, because the server stops. HTTP/2 has a GOAWAY for that.
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

    use bytes::Bytes;
    use http::Version;
    use http_body::Frame;

    use super::super::conn::Gate;
    use super::super::options::Options;
    use crate::group::panic::Panic;

    /// A body that no server uses, with its own types of data and errors.
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

    /// Answers with the letters of the request, or panics.
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
            if request.body().is_empty() {
                std::panic::resume_unwind(Box::new("no hook"));
            }
            let letters = request.body().bytes().collect();
            ready(Ok(Response::new(Letters(letters))))
        }
    }

    impl Protocol for Letters {
        type Request = &'static str;
        type Response = Self;
        type Service = Handler;
    }

    /// Fails, hangs, or answers with the gRPC status of a failed service.
    #[derive(Clone)]
    struct Weak;

    impl Service<Request<&'static str>> for Weak {
        type Response = Response<Letters>;
        type Error = BoxError;
        type Future = Pin<Box<dyn Future<Output = Result<Response<Letters>, BoxError>> + Send>>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<&'static str>) -> Self::Future {
            match *request.body() {
                "hangs" => Box::pin(std::future::pending()),
                error => Box::pin(ready(Err(error.into()))),
            }
        }
    }

    impl Protocol for Weak {
        type Request = &'static str;
        type Response = Letters;
        type Service = Self;

        fn recover(error: BoxError) -> Result<Response<()>, BoxError> {
            match error.to_string().parse() {
                Ok(status) => {
                    let mut response = Response::new(());
                    response.headers_mut().insert("grpc-status", status);
                    Ok(response)
                }
                Err(_) => Err(error),
            }
        }

        fn timed_out() -> Option<BoxError> {
            Some("late".into())
        }
    }

    fn conn(catch_panics: bool) -> Arc<Conn> {
        let options = Options {
            catch_panics,
            ..Options::default()
        };
        Gate::new(options).register(None)
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
        let bounds = Bounds::default();
        let answer = Answer::<Letters>::begin(Handler, request, Arc::clone(conn), &bounds);
        match Box::pin(answer)
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(response) => response.unwrap(),
            Poll::Pending => panic!("it is never pending"),
        }
    }

    /// The next event of a body, which is a letter, a gRPC status, an error, the end, or `pending`.
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
    fn a_request_after_the_cut_gets_no_handler() {
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

    /// A body whose data are `Bytes`.
    struct Text;

    impl Body for Text {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(None)
        }
    }

    #[test]
    fn r11_a_farewell_says_why_where_a_body_is_read_and_nothing_to_a_head() {
        let said = |method: http::Method| {
            let mut request = Request::new("");
            *request.method_mut() = method;
            *request.version_mut() = Version::HTTP_2;
            let asked = Asked::of(&request);
            farewell::<Text>(Farewell::ShuttingDown, asked)
        };

        let head = said(http::Method::HEAD);
        assert_eq!(head.status(), 503);
        assert!(head.body().is_end_stream());

        let mut body = said(http::Method::GET).into_body();
        let text = Farewell::ShuttingDown.text();
        assert_eq!(body.size_hint().exact(), Some(text.len() as u64));
        assert!(!body.is_end_stream());
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) else {
            panic!("it has something to say");
        };
        assert_eq!(frame.into_data().unwrap(), text);
        assert!(body.is_end_stream());
    }

    /// A bounded request, and its answer.
    fn bounded(
        body: &'static str,
        bounds: &Bounds,
        conn: &Arc<Conn>,
    ) -> tokio_test::task::Spawn<Answer<Weak>> {
        let answer = Answer::begin(Weak, plain(body), Arc::clone(conn), bounds);
        tokio_test::task::spawn(answer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_fails_or_takes_too_long_is_recovered_if_the_protocol_can() {
        let conn = conn(false);
        let bounds = Bounds {
            timeout: Some(Duration::from_secs(1)),
            turns: None,
        };

        let response = bounded("8", &bounds, &conn).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "8");
        let error = bounded("no\nheader", &bounds, &conn).await.err().unwrap();
        assert_eq!(error.to_string(), "no\nheader");
        let begin = tokio::time::Instant::now();
        let response = bounded("hangs", &bounds, &conn).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "late");
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
        assert_eq!(conn.requests(), 0);
    }

    #[tokio::test]
    async fn a_request_beyond_the_turns_of_its_connection_waits_and_is_in_flight() {
        let conn = conn(false);
        let bounds = Bounds {
            timeout: None,
            turns: Some(Arc::new(Semaphore::new(1))),
        };
        let mut first = bounded("hangs", &bounds, &conn);
        assert!(first.poll().is_pending());
        let mut second = bounded("8", &bounds, &conn);
        assert!(second.poll().is_pending());
        assert_eq!(conn.requests(), 2);

        drop(first);

        assert!(second.is_woken());
        assert!(matches!(second.poll(), Poll::Ready(Ok(_))));
    }
}
