//! The service of each connection, under the gate.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderValue, Method, StatusCode, Version, header};
use axum::response::Response;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::listener::Incoming;
use crate::gate;
use crate::gate::Conn;
use crate::gate::Tracked;
use crate::stop::Stop;

/// Takes the [`Stop`] of the server out of a request.
///
/// Outside of a server of [`serve`](super::serve), in a test of a router say, it is one that
/// [never](Stop::never) comes.
impl<S: Sync> FromRequestParts<S> for Stop {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts
            .extensions
            .get::<Self>()
            .cloned()
            .unwrap_or_else(Self::never))
    }
}

/// Makes the service of each connection, under the gate.
#[derive(Clone, Debug)]
pub(super) struct MakeGated<M> {
    app: M,
    extensions: Arc<Extensions>,
}

impl<M> MakeGated<M> {
    pub(super) fn new(app: M, stop: &Stop) -> Self {
        Self {
            app,
            extensions: Arc::new(roomy(stop)),
        }
    }
}

impl<'a, M> Service<Incoming<'a>> for MakeGated<M>
where
    M: Service<Incoming<'a>, Error = Infallible>,
{
    type Response = Gated<M::Response>;
    type Error = Infallible;
    type Future = Making<M::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.app.poll_ready(cx)
    }

    fn call(&mut self, incoming: Incoming<'a>) -> Self::Future {
        let conn = Arc::clone(incoming.io().conn());
        Making {
            service: self.app.call(incoming),
            extensions: Arc::clone(&self.extensions),
            conn,
        }
    }
}

pin_project! {
    pub(super) struct Making<F> {
        #[pin]
        service: F,
        extensions: Arc<Extensions>,
        conn: Arc<Conn>,
    }
}

impl<F, S> Future for Making<F>
where
    F: Future<Output = Result<S, Infallible>>,
{
    type Output = Result<Gated<S>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(service) = ready!(this.service.poll(cx));
        Poll::Ready(Ok(Gated {
            service,
            extensions: Arc::clone(this.extensions),
            conn: Arc::clone(this.conn),
        }))
    }
}

/// The service of one connection.
#[derive(Clone, Debug)]
pub(super) struct Gated<S> {
    service: S,
    /// What each request begins with.
    extensions: Arc<Extensions>,
    conn: Arc<Conn>,
}

impl<S> Gated<S> {
    fn add_stop(&self, extensions: &mut Extensions) {
        if extensions.is_empty() {
            extensions.clone_from(&self.extensions);
        } else {
            extensions.insert(self.conn.gate().stop().clone());
        }
    }
}

/// Makes extensions with a [`Stop`] and with room for what axum adds.
///
/// A copy has the same room. One that has to grow, as each new one does, costs as much again.
fn roomy(stop: &Stop) -> Extensions {
    let mut extensions = Extensions::new();
    extensions.insert([(); 1]);
    extensions.insert([(); 2]);
    extensions.insert([(); 3]);
    extensions.insert([(); 4]);
    extensions.clear();
    extensions.insert(stop.clone());
    extensions
}

impl<S> Service<Request> for Gated<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let (method, path) = (request.method().as_str(), request.uri().path());
        let in_flight = gate::Request::begin(Arc::clone(&self.conn), method, path);
        let is_connect = request.method() == Method::CONNECT;
        let is_http1 = request.version() < Version::HTTP_2;
        self.add_stop(request.extensions_mut());
        Answer {
            handler: Some(self.service.call(request)),
            request: Some(in_flight),
            is_connect,
            is_http1,
        }
    }
}

pin_project! {
    /// A handler that is raced with the cut.
    pub(super) struct Answer<F> {
        // Before the request, which says when it is dropped that nothing is left.
        #[pin]
        handler: Option<F>,
        // Nothing once the response has it.
        request: Option<gate::Request>,
        is_connect: bool,
        is_http1: bool,
    }
}

impl<F> Future for Answer<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(request) = this.request.as_mut() else {
            return Poll::Pending;
        };
        let answer = match this.handler.as_mut().as_pin_mut() {
            Some(handler) if !request.is_cut() => handler.poll(cx),
            _ => Poll::Pending,
        };
        let is_late = answer.is_pending() && request.watch(cx);
        if answer.is_pending() && !is_late {
            return Poll::Pending;
        }
        // Gone before its request is, whatever it holds.
        this.handler.set(None);
        let Some(request) = this.request.take() else {
            return Poll::Pending;
        };
        let Poll::Ready(Ok(mut response)) = answer else {
            return Poll::Ready(Ok(farewell(request)));
        };
        if is_upgrade(response.status(), *this.is_connect) {
            request.conn().add_upgrade();
        } else if *this.is_http1 && request.conn().gate().is_leaving() {
            say_close(&mut response);
        }
        let response = response.map(|body| Body::new(Tracked::new(body, request, cx)));
        Poll::Ready(Ok(response))
    }
}

fn is_upgrade(status: StatusCode, is_connect: bool) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || (is_connect && status.is_success())
}

fn say_close(response: &mut Response) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
}

/// What a client gets whose handler was cut. HTTP/2 has no `Connection` header; hyper takes it away.
fn farewell(request: gate::Request) -> Response {
    let body = Tracked::farewell(Body::from("the server is shutting down\n"), request);
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    say_close(&mut response);
    response
}
