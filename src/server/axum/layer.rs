//! The service of each connection, under the gate.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::listener::Incoming;
use crate::server::gate;
use crate::server::gate::Conn;
use crate::server::gate::Gate;
use crate::server::gate::Gated;
use crate::server::gate::GatedBody;
use crate::server::stop::Stop;

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
    type Response = Gated<M::Response, Front>;
    type Error = Infallible;
    type Future = Making<M::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.app.poll_ready(cx)
    }

    fn call(&mut self, incoming: Incoming<'a>) -> Self::Future {
        let front = Front(Arc::new(Shared {
            conn: Arc::clone(incoming.io().conn()),
            extensions: Arc::clone(&self.extensions),
        }));
        Making {
            service: self.app.call(incoming),
            front,
        }
    }
}

pin_project! {
    pub(super) struct Making<F> {
        #[pin]
        service: F,
        front: Front,
    }
}

impl<F, S> Future for Making<F>
where
    F: Future<Output = Result<S, Infallible>>,
{
    type Output = Result<Gated<S, Front>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(service) = ready!(this.service.poll(cx));
        Poll::Ready(Ok(Gated::new(service, this.front.clone())))
    }
}

/// What a connection of axum is to the gate. It is cloned for each request.
#[derive(Clone, Debug)]
pub(super) struct Front(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    conn: Arc<Conn>,
    /// What each request begins with.
    extensions: Arc<Extensions>,
}

impl gate::Front<Body> for Front {
    type Body = Body;

    #[inline]
    fn conn(&self, _extensions: &Extensions) -> Option<Arc<Conn>> {
        Some(Arc::clone(&self.0.conn))
    }

    fn waiting(&self) -> Option<Arc<Conn>> {
        Some(Arc::clone(&self.0.conn))
    }

    #[inline]
    fn gate(&self) -> Option<&Gate> {
        Some(self.0.conn.gate())
    }

    #[inline]
    fn add_stop(&self, stop: &Stop, extensions: &mut Extensions) {
        if extensions.is_empty() {
            *extensions = Extensions::clone(&self.0.extensions);
        } else {
            extensions.insert(stop.clone());
        }
    }

    #[inline]
    fn body(body: GatedBody<Body>) -> Body {
        Body::new(body)
    }

    fn farewell(text: &'static str) -> Body {
        Body::from(text)
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
