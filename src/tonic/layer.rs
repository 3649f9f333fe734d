//! The layer that puts each call under the gate.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use tonic::codegen::http::{Extensions, Response};
use tonic::transport::server::TcpConnectInfo;
use tower_layer::Layer;

use crate::gate::Conn;
use crate::gate::Front;
use crate::gate::Gated;
use crate::gate::GatedBody;

/// The connections that are open, by the address of the peer.
///
/// That address is all that tonic tells of where a call came from. It is unique: a socket has one
/// peer at each address.
#[derive(Clone, Debug, Default)]
pub struct Conns(Arc<RwLock<HashMap<SocketAddr, Weak<Conn>>>>);

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
}

impl<B> Front<B> for Conns {
    type Body = GatedBody<B>;

    fn conn(&self, extensions: &Extensions) -> Option<Arc<Conn>> {
        self.get(extensions.get::<TcpConnectInfo>()?.remote_addr()?)
    }

    fn gated(
        response: Response<B>,
        gate: impl FnOnce(B) -> GatedBody<B>,
    ) -> Response<GatedBody<B>> {
        response.map(gate)
    }

    fn farewell(_text: &'static str) -> GatedBody<B> {
        GatedBody::empty()
    }
}

/// The outermost layer of every server of [`serve`](super::serve); it appears in the type of
/// [`Server`](super::Server).
#[derive(Clone, Debug)]
pub struct GateLayer(pub(super) Conns);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S, Conns>;

    fn layer(&self, service: S) -> Self::Service {
        Gated::new(service, self.0.clone())
    }
}
