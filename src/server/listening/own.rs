//! [`Own`]: a listener of the user's own, whatever its type.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Extensions;

use crate::server::address::Address;
use crate::server::listener::Listener;
use crate::server::transport::{AnyStream, Transport};

type Accepted = io::Result<(Transport, Address)>;

/// A listener of the user's own, whatever its type.
pub(crate) struct Own(State);

enum State {
    Resting(Box<dyn Any>),
    /// It owns the listener, so that it can be kept between two polls.
    Accepting(Accepting),
    /// While it is polled, and after a panic.
    Gone,
}

type Accepting = Pin<Box<dyn Future<Output = (Box<dyn Any>, Accepted)> + Send>>;

trait Any: Send {
    fn local_addr(&self) -> io::Result<Address>;
    fn accept(self: Box<Self>) -> Accepting;
}

impl<L: Listener> Any for L {
    fn local_addr(&self) -> io::Result<Address> {
        Listener::local_addr(self).map(Address::of)
    }

    fn accept(mut self: Box<Self>) -> Accepting {
        Box::pin(async move {
            let accepted = Listener::accept(&mut *self).await;
            let accepted = accepted.map(|(io, peer)| {
                let mut known = Extensions::new();
                self.extensions(&io, &peer, &mut known);
                let stream = AnyStream::new(io, known);
                (Transport::Other(stream), Address::of(peer))
            });
            (self as Box<dyn Any>, accepted)
        })
    }
}

impl Own {
    pub(super) fn new(listener: impl Listener) -> Self {
        Self(State::Resting(Box::new(listener)))
    }

    pub(super) fn local_addr(&self) -> io::Result<Address> {
        match &self.0 {
            State::Resting(listener) => listener.local_addr(),
            State::Accepting(_) | State::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Accepted> {
        let mut accepting = match std::mem::replace(&mut self.0, State::Gone) {
            State::Resting(listener) => listener.accept(),
            State::Accepting(accepting) => accepting,
            State::Gone => return Poll::Pending,
        };
        match accepting.as_mut().poll(cx) {
            Poll::Ready((listener, accepted)) => {
                self.0 = State::Resting(listener);
                Poll::Ready(accepted)
            }
            Poll::Pending => {
                self.0 = State::Accepting(accepting);
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").finish_non_exhaustive()
    }
}
