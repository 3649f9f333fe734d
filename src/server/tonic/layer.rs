//! The layer that puts each call under the gate.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};

use tonic::codegen::http::Extensions;
use tonic::transport::server::TcpConnectInfo;
use tower_layer::Layer;

use crate::group::lock::lock;
use crate::server::gate::Conn;
use crate::server::gate::Front;
use crate::server::gate::Gate;
use crate::server::gate::Gated;
use crate::server::gate::GatedBody;

/// The connections that are open, by their addresses.
///
/// These are all that tonic tells of where a call came from. Both are needed: a peer may connect from
/// one address of its own to two of ours.
#[derive(Clone, Debug, Default)]
pub(super) struct Conns(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    open: RwLock<HashMap<Ends, Weak<Conn>>>,
    /// The one that tonic is making a service for.
    begun: Mutex<Option<(Ends, Weak<Conn>)>>,
    /// Of the server, once it runs.
    gate: OnceLock<Arc<Gate>>,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) local: Option<SocketAddr>,
    pub(super) peer: SocketAddr,
}

impl Ends {
    fn of(extensions: &Extensions) -> Option<Self> {
        let info = extensions.get::<TcpConnectInfo>()?;
        Some(Self {
            local: info.local_addr(),
            peer: info.remote_addr()?,
        })
    }
}

impl Conns {
    pub(super) fn set_gate(&self, gate: &Arc<Gate>) {
        // There is one server.
        let _ = self.0.gate.set(Arc::clone(gate));
    }

    /// Is to be called when tonic makes the service of a connection.
    pub(super) fn begin(&self, ends: Ends, conn: &Arc<Conn>) {
        *self.begun() = Some((ends, Arc::downgrade(conn)));
    }

    fn begun(&self) -> MutexGuard<'_, Option<(Ends, Weak<Conn>)>> {
        lock(&self.0.begun)
    }

    pub(super) fn insert(&self, ends: Ends, conn: &Arc<Conn>) {
        let mut conns = self.0.open.write().unwrap_or_else(PoisonError::into_inner);
        conns.insert(ends, Arc::downgrade(conn));
    }

    /// A peer that has gone may have come again before it was noticed; the new one stays.
    pub(super) fn remove(&self, ends: Ends, conn: &Arc<Conn>) {
        let mut conns = self.0.open.write().unwrap_or_else(PoisonError::into_inner);
        if conns
            .get(&ends)
            .is_some_and(|found| std::ptr::eq(found.as_ptr(), Arc::as_ptr(conn)))
        {
            conns.remove(&ends);
        }
    }

    fn get(&self, ends: Ends) -> Option<Arc<Conn>> {
        let conns = self.0.open.read().unwrap_or_else(PoisonError::into_inner);
        conns.get(&ends)?.upgrade()
    }
}

/// The connections as a service of tonic knows them.
///
/// The service that tonic is given is cloned for each connection, and that clone for each of its calls.
/// So what the first clone has found belongs to its connection. tonic asks a connection for its
/// addresses right before the clone, so it is found at once, before there is a call. It is kept with the
/// addresses all the same, and is not taken for another's.
#[derive(Debug)]
pub struct Peers {
    conns: Conns,
    found: Option<Found>,
}

type Found = Arc<OnceLock<(Ends, Weak<Conn>)>>;

impl Clone for Peers {
    fn clone(&self) -> Self {
        let found = self.found.clone().unwrap_or_else(|| {
            let found = self.conns.begun().take();
            Arc::new(found.map_or_else(OnceLock::new, OnceLock::from))
        });
        Self {
            conns: self.conns.clone(),
            found: Some(found),
        }
    }
}

impl Peers {
    fn get(&self, ends: Ends) -> Option<Arc<Conn>> {
        let Some(found) = &self.found else {
            return self.conns.get(ends);
        };
        match found.get() {
            Some((of, conn)) if *of == ends => conn.upgrade(),
            Some(_) => self.conns.get(ends),
            None => {
                let conn = self.conns.get(ends)?;
                // Another call may have been quicker.
                let _ = found.set((ends, Arc::downgrade(&conn)));
                Some(conn)
            }
        }
    }
}

impl<B> Front<B> for Peers {
    type Body = GatedBody<B>;

    fn conn(&self, extensions: &Extensions) -> Option<Arc<Conn>> {
        self.get(Ends::of(extensions)?)
    }

    fn waiting(&self) -> Option<Arc<Conn>> {
        self.found.as_ref()?.get()?.1.upgrade()
    }

    #[inline]
    fn gate(&self) -> Option<&Gate> {
        self.conns.0.gate.get().map(|gate| &**gate)
    }

    fn body(body: GatedBody<B>) -> GatedBody<B> {
        body
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
    type Service = Gated<S, Peers>;

    fn layer(&self, service: S) -> Self::Service {
        let peers = Peers {
            conns: self.0.clone(),
            found: None,
        };
        Gated::new(service, peers)
    }
}
