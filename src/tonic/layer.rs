//! The layer that puts each call under the gate.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;
use tonic::codegen::Bytes;
use tonic::codegen::http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header,
};
use tonic::transport::server::TcpConnectInfo;
use tower_layer::Layer;
use tower_service::Service;

use crate::BoxError;
use crate::gate;
use crate::gate::Conn;
use crate::gate::Tracked;

/// The connections that are open, by the address of the peer.
///
/// That address is all that tonic tells of where a call came from. It is unique: a socket has one
/// peer at each address.
#[derive(Clone, Debug, Default)]
pub(super) struct Conns(Arc<RwLock<HashMap<SocketAddr, Weak<Conn>>>>);

impl Conns {
    pub(super) fn insert(&self, peer: SocketAddr, conn: &Arc<Conn>) {
        let mut conns = self.0.write().unwrap_or_else(PoisonError::into_inner);
        conns.insert(peer, Arc::downgrade(conn));
    }

    /// A peer that has gone may have come again before it was noticed; the new one stays.
    pub(super) fn remove(&self, peer: SocketAddr, conn: &Arc<Conn>) {
        let mut conns = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if conns
            .get(&peer)
            .is_some_and(|found| std::ptr::eq(found.as_ptr(), Arc::as_ptr(conn)))
        {
            conns.remove(&peer);
        }
    }

    fn get(&self, peer: SocketAddr) -> Option<Arc<Conn>> {
        let conns = self.0.read().unwrap_or_else(PoisonError::into_inner);
        conns.get(&peer)?.upgrade()
    }

    fn of<B>(&self, request: &Request<B>) -> Option<Arc<Conn>> {
        let info = request.extensions().get::<TcpConnectInfo>()?;
        self.get(info.remote_addr()?)
    }
}

/// The outermost layer of every server of [`serve`](super::serve); it appears in the type of
/// [`Server`](super::Server).
#[derive(Clone, Debug)]
pub struct GateLayer(pub(super) Conns);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, service: S) -> Gated<S> {
        Gated {
            service,
            conns: self.0.clone(),
        }
    }
}

/// A service under the gate.
#[derive(Clone, Debug)]
pub struct Gated<S> {
    service: S,
    conns: Conns,
}

impl<S, A, B> Service<Request<A>> for Gated<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Response = Response<GatedBody<B>>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Answer<S::Future> {
        let call = Call::of(&request);
        let Some(conn) = self.conns.of(&request) else {
            return Answer {
                handler: None,
                request: None,
                call,
            };
        };
        let (method, path) = (request.method().as_str(), request.uri().path());
        let in_flight = gate::Request::begin(Arc::clone(&conn), method, path);
        request.extensions_mut().insert(conn.gate().stop().clone());
        Answer {
            handler: Some(self.service.call(request)),
            request: Some(in_flight),
            call,
        }
    }
}

/// What the answer to a call has to look like.
#[derive(Clone, Copy, Debug)]
struct Call {
    is_grpc: bool,
    is_http1: bool,
}

impl Call {
    fn of<A>(request: &Request<A>) -> Self {
        let kind = request.headers().get(header::CONTENT_TYPE);
        Self {
            is_grpc: kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")),
            is_http1: request.version() < Version::HTTP_2,
        }
    }
}

pin_project! {
    /// A handler that is raced with the cut.
    #[derive(Debug)]
    pub struct Answer<F> {
        // Before the request, which says when it is dropped that nothing is left.
        #[pin]
        handler: Option<F>,
        // Nothing once the response has it, or for a connection that nobody knows.
        request: Option<gate::Request>,
        call: Call,
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<GatedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(request) = this.request.as_mut() else {
            return Poll::Ready(Ok(farewell(*this.call)));
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
        let Poll::Ready(answer) = answer else {
            return Poll::Ready(Ok(farewell(*this.call)));
        };
        let mut response = answer?;
        if this.call.is_http1 && request.conn().gate().is_leaving() {
            say_close(response.headers_mut());
        }
        let is_grpc = this.call.is_grpc && !this.call.is_http1;
        Poll::Ready(Ok(response.map(|body| GatedBody {
            body: Some(Tracked::new(body, request, cx)),
            is_grpc,
        })))
    }
}

pin_project! {
    /// The body of a response, which is cut with its call.
    ///
    /// A stream of gRPC then ends with a status; any other body fails.
    #[derive(Debug)]
    pub struct GatedBody<B> {
        // Nothing once it was cut.
        #[pin]
        body: Option<Tracked<B>>,
        is_grpc: bool,
    }
}

impl<B> Body for GatedBody<B>
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
        let Some(mut body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let frame = ready!(body.as_mut().poll_frame(cx));
        if *this.is_grpc && matches!(frame, Some(Err(_))) && body.is_cut() {
            this.body.set(None);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers()))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

fn shutting_down() -> Status {
    Status::unavailable("the server is shutting down")
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // It fails for messages that are no header values.
    let _ = shutting_down().add_header(&mut trailers);
    trailers
}

/// What a client gets whose call was cut before it was answered.
fn farewell<B>(call: Call) -> Response<GatedBody<B>> {
    let mut response = if call.is_grpc {
        shutting_down().into_http::<()>()
    } else {
        unavailable()
    };
    if call.is_http1 {
        say_close(response.headers_mut());
    }
    response.map(|()| GatedBody {
        body: None,
        is_grpc: call.is_grpc,
    })
}

fn unavailable() -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

fn say_close(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}
