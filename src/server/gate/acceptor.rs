//! [`Acceptor`]: accepts connections, and at the stop all that are waiting.

use std::collections::VecDeque;
use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

use super::conn::Gate;
use super::handshake::Handshake;
use super::io::Io;
use super::last_call;
use super::last_call::LastCall;
use crate::backoff::{Backoff, Delays};
use crate::group::log;
use crate::group::time::Rounded;
use crate::server::address::Address;
use crate::server::listening::{Closing, Open, Queue};
use crate::server::transport::Transport;

type Accepted = (Io, Address);

/// Accepts the connections of a server, and at its stop all that are waiting.
///
/// Each server of [`serve`](crate::serve()) is given one. It enforces the limit of connections. When the system
/// has no file descriptor left, it tries again after 5 milliseconds, and then ever more rarely, up to once a
/// second.
///
/// # Drop
///
/// Closes the sockets, if they are open.
pub struct Acceptor {
    gate: Arc<Gate>,
    address: Option<Address>,
    sockets: Sockets,
    /// Accepted beyond the limit of connections. It waits for a place.
    waiting: Option<(Transport, Address)>,
    /// What the connections begin with.
    handshake: Option<Handshake>,
}

#[derive(Debug)]
enum Sockets {
    Listening(Listeners),
    /// In this state, handshakes that are under way complete, and no new connection does.
    LastCall(VecDeque<Called>, Option<Instant>),
    /// Waiting connections are accepted, and handed over. A socket whose queue is empty is closed.
    Sweeping(Sweep),
    /// The sockets are closed. The number of connections that were waiting then, and those not handed over yet.
    Swept(usize, VecDeque<Accepted>),
}

/// A queue that fills faster than the sweep empties it is abandoned after this many. Linux makes longer queues
/// only on request.
const MOST_SWEPT: usize = 4096;

impl Acceptor {
    pub(crate) fn new(listeners: Vec<Open>, gate: Arc<Gate>, handshake: Option<Handshake>) -> Self {
        listeners
            .iter()
            .filter_map(Open::tcp)
            .for_each(last_call::listen_to_all);
        Self {
            gate,
            address: listeners.first().map(|listener| listener.address().clone()),
            sockets: Sockets::Listening(Listeners { listeners, turn: 0 }),
            waiting: None,
            handshake,
        }
    }

    pub(super) fn handshake(&mut self) -> Option<Handshake> {
        self.handshake.take()
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Returns the address of the first listener, even after it was closed.
    ///
    /// # Errors
    ///
    /// There is no listener.
    pub fn local_addr(&self) -> io::Result<Address> {
        let address = self.address.clone();
        address.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Accepts one connection.
    ///
    /// After the stop it hands over the connections that were waiting, and then waits forever, because a
    /// server that must not know of the stop yet must not see an end either. Errors are not returned. The
    /// acceptor tries again.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. Dropping the future loses no connection.
    pub async fn accept(&mut self) -> (Io, Address) {
        loop {
            match &mut self.sockets {
                Sockets::Swept(count, waiting) => match waiting.pop_front() {
                    Some(accepted) => return accepted,
                    None => {
                        self.gate.set_swept(*count);
                        pending::<()>().await;
                    }
                },
                Sockets::Listening(listeners) => {
                    let accept = |cx: &mut Context<'_>| listeners.poll_accept(cx);
                    match before_stop(&self.gate, accept, &mut self.waiting).await {
                        Some(accepted) => return accepted,
                        None => self.sockets = std::mem::take(listeners).last_call(),
                    }
                }
                Sockets::LastCall(listeners, until) => {
                    if let Some(until) = *until {
                        sleep_until(until).await;
                    }
                    let mut sweep = Sweep::of(std::mem::take(listeners));
                    if let Some((stream, peer)) = self.waiting.take() {
                        sweep.push(Io::new(stream, self.gate.register(None)), peer);
                    }
                    self.sockets = Sockets::Sweeping(sweep);
                }
                Sockets::Sweeping(sweep) => {
                    if let Some(accepted) = sweep.waiting.pop_front() {
                        return accepted;
                    }
                    if let Some(again) = sweep.again {
                        sleep_until(again).await;
                    }
                    sweep.go_on(&self.gate);
                    if sweep.listeners.is_empty() {
                        let waiting = std::mem::take(&mut sweep.waiting);
                        self.sockets = Sockets::Swept(sweep.count, waiting);
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("sockets", &self.sockets)
            .finish_non_exhaustive()
    }
}

/// At least one, until the sockets are closed.
#[derive(Debug, Default)]
struct Listeners {
    listeners: Vec<Open>,
    /// The one to poll first, which is the one after the last that had a connection.
    turn: usize,
}

impl Listeners {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Transport, Address)>> {
        let count = self.listeners.len();
        for index in (self.turn..self.turn + count).map(|index| index % count) {
            if let Poll::Ready(accepted) = self.listeners[index].poll_accept(cx) {
                self.turn = index + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }

    /// A socket that another process holds too is closed, and nothing else is done to it.
    fn last_call(self) -> Sockets {
        let listeners = self.listeners.into_iter().map(Open::close);
        let called: VecDeque<_> = listeners.filter_map(Called::of).collect();
        let waits = called.iter().any(Called::waits);
        let until = waits.then(|| Instant::now() + last_call::LENGTH);
        Sockets::LastCall(called, until)
    }
}

/// A listener that has to be emptied.
#[derive(Debug)]
enum Called {
    Tcp(LastCall),
    Other(Queue),
}

impl Called {
    /// `None` if nothing is to be done, because the queue belongs to another process too.
    fn of(closing: Closing) -> Option<Self> {
        match closing {
            Closing::Left => None,
            Closing::Tcp { listener, is_shown } => {
                let call = if is_shown {
                    LastCall::without(listener)
                } else {
                    LastCall::of(listener)
                };
                Some(Self::Tcp(call))
            }
            Closing::Queue(queue) => Some(Self::Other(queue)),
        }
    }

    /// Whether there may be handshakes under way.
    fn waits(&self) -> bool {
        match self {
            Self::Tcp(call) => call.is_on(),
            Self::Other(queue) => queue.waits(),
        }
    }

    /// Accepts one that waits, without waiting itself.
    fn accept(&mut self) -> io::Result<(Transport, Address)> {
        match self {
            Self::Tcp(call) => {
                let (stream, peer) = call.listener().accept()?;
                Ok((registered(stream)?, peer.into()))
            }
            Self::Other(queue) => queue.accept(),
        }
    }
}

/// Accepts all waiting connections.
///
/// A waiting client is connected, and its request may be here already, so it is accepted even beyond the limit
/// of connections. While the system has no file descriptor left, the sweep tries again for a third of a second,
/// because connections that end in the stop free some.
#[derive(Debug, Default)]
struct Sweep {
    /// The sockets whose queue is not empty yet.
    listeners: VecDeque<Called>,
    waiting: VecDeque<Accepted>,
    /// How many were waiting, including those that were handed over.
    count: usize,
    pauses: Option<Delays>,
    /// When the next try is due.
    again: Option<Instant>,
}

impl Sweep {
    /// A longer pause is not made. All pauses together take twice as long.
    const LONGEST_PAUSE: Duration = Duration::from_millis(160);

    fn of(listeners: VecDeque<Called>) -> Self {
        Self {
            listeners,
            ..Self::default()
        }
    }

    fn push(&mut self, io: Io, peer: Address) {
        self.waiting.push_back((io, peer));
        self.count += 1;
    }

    fn go_on(&mut self, gate: &Arc<Gate>) {
        self.again = None;
        while let Some(listener) = self.listeners.front_mut() {
            let (accepted, failed) = swept(gate, listener);
            self.count += accepted.len();
            self.waiting.extend(accepted);
            let Some(error) = failed else {
                self.listeners.pop_front();
                continue;
            };
            let pause = self.pauses.get_or_insert_with(pauses).draw();
            if pause > Self::LONGEST_PAUSE {
                log::guarded(|| {
                    tracing::warn!(target: "taskgroup", "accept failed, whoever waits there still is reset: {error}");
                });
                self.listeners.clear();
                return;
            }
            log::guarded(|| {
                tracing::warn!(target: "taskgroup", "accept failed, next try in {}: {error}", Rounded(pause));
            });
            self.again = Some(Instant::now() + pause);
            return;
        }
    }
}

/// Accepts all connections that wait at `listener`, and returns the error that ended this early, if any.
fn swept(gate: &Arc<Gate>, listener: &mut Called) -> (Vec<Accepted>, Option<io::Error>) {
    let mut waiting = Vec::new();
    for accepted in std::iter::repeat_with(|| listener.accept()).take(MOST_SWEPT) {
        match accepted {
            Ok((stream, peer)) => {
                set_options(gate, &stream);
                waiting.push((Io::new(stream, gate.register(None)), peer));
            }
            Err(error) if is_of_peer(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (waiting, None),
            Err(error) => return (waiting, Some(error)),
        }
    }
    (waiting, None)
}

/// Accepts one connection, or returns `None` when the stop begins.
async fn before_stop<F>(
    gate: &Arc<Gate>,
    poll_accept: F,
    waiting: &mut Option<(Transport, Address)>,
) -> Option<Accepted>
where
    F: FnMut(&mut Context<'_>) -> Poll<io::Result<(Transport, Address)>>,
{
    let mut stopping = pin!(gate.closing());
    let mut next = pin!(next(gate, poll_accept, waiting));
    poll_fn(|cx| match stopping.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => next.as_mut().poll(cx).map(Some),
    })
    .await
}

/// Accepts one connection more than the limit allows, which is left in `waiting` until there is a place. So a
/// connection gives way only to a client that is there.
async fn next<F>(
    gate: &Arc<Gate>,
    mut poll_accept: F,
    waiting: &mut Option<(Transport, Address)>,
) -> Accepted
where
    F: FnMut(&mut Context<'_>) -> Poll<io::Result<(Transport, Address)>>,
{
    // Most calls never need one.
    let mut pauses: Option<Delays> = None;
    loop {
        if waiting.is_some() {
            let slot = match gate.try_slot() {
                Some(slot) => slot,
                None => gate.slot().await,
            };
            if let Some((stream, peer)) = waiting.take() {
                return (Io::new(stream, gate.register(slot)), peer);
            }
        }
        match poll_fn(&mut poll_accept).await {
            Ok((stream, peer)) => {
                set_options(gate, &stream);
                *waiting = Some((stream, peer));
            }
            Err(error) if is_of_peer(&error) => {}
            Err(error) => {
                let pause = pauses.get_or_insert_with(self::pauses).draw();
                log::guarded(|| {
                    tracing::warn!(target: "taskgroup", "accept failed, next try in {}: {error}", Rounded(pause));
                });
                sleep(pause).await;
            }
        }
    }
}

fn registered(stream: std::net::TcpStream) -> io::Result<Transport> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream).map(Transport::Tcp)
}

/// Errors are ignored, because the options are optional and the peer may be gone already.
fn set_options(gate: &Gate, stream: &Transport) {
    let Transport::Tcp(stream) = stream else {
        return;
    };
    if gate.options().nodelay {
        let _ = stream.set_nodelay(true);
    }
    if let Some(idle) = gate.options().tcp_keepalive {
        // The system counts in seconds.
        let idle = Duration::from_secs(idle.as_secs() + u64::from(idle.subsec_nanos() > 0));
        let keepalive = TcpKeepalive::new().with_time(idle);
        let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
    }
}

/// Returns whether only this connection failed, and not the accept itself.
fn is_of_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// The pauses between tries while the system is out of file descriptors or memory.
fn pauses() -> Delays {
    Backoff::new(Duration::from_millis(5), Duration::from_secs(1))
        .no_jitter()
        .delays()
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::options::Options;

    /// As when the process has no file descriptor left.
    fn out_of_files() -> io::Error {
        io::Error::from_raw_os_error(24)
    }

    #[tokio::test(start_paused = true)]
    async fn r17_a_system_without_resources_is_asked_again_ever_more_rarely() {
        let gate = Gate::new(Options::default());
        let begin = Instant::now();
        let mut asked = Vec::new();
        let accept = |_: &mut Context<'_>| {
            asked.push(begin.elapsed().as_millis());
            if asked.len() == 11 {
                gate.begin_stop(Duration::ZERO);
            }
            Poll::Ready(Err(out_of_files()))
        };

        // The stop comes within a pause, and does not wait for its end.
        assert!(before_stop(&gate, accept, &mut None).await.is_none());

        let expected = [0, 5, 15, 35, 75, 155, 315, 635, 1275, 2275, 3275];
        assert_eq!(asked, expected);
        assert_eq!(begin.elapsed().as_millis(), 3275);
    }

    #[tokio::test(start_paused = true)]
    async fn r17_what_failed_for_one_peer_only_is_tried_again_at_once() {
        let gate = Gate::new(Options::default());
        let begin = Instant::now();
        let mut errors = [
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::Interrupted,
        ]
        .into_iter();
        let accept = |_: &mut Context<'_>| {
            let error = errors.next();
            if error.is_none() {
                gate.begin_stop(Duration::ZERO);
            }
            Poll::Ready(Err(error.map_or_else(out_of_files, io::Error::from)))
        };

        assert!(before_stop(&gate, accept, &mut None).await.is_none());
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
