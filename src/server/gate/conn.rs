//! [`Gate`]: shared by all parts of one server, and [`Conn`]: shared by all parts of one connection.
//!
//! Invariants:
//!
//! 1. Each part of a connection (its stream, its service, its requests) holds its `Conn`, and drops it last. So
//!    a connection leaves the register only when nothing of it is left.
//! 2. A connection that is registered after the gate was shut is cut from the start.
//! 3. The lock of the register is not held while a `Conn` is dropped, because the drop takes it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::label::Label;
use super::options::Options;
use crate::server::drain::MOST_PATHS;
use crate::server::stop::{Stop, StopSource};
use crate::server::switch::{Seat, Switch};
use crate::server::sync::Lock;

#[derive(Debug)]
pub(crate) struct Gate {
    options: Options,
    slots: Option<Arc<Semaphore>>,
    /// Set when clients should go elsewhere, at the stop at the latest.
    leaving: AtomicBool,
    /// Set when the stop begins. Reading the token of `stop` would take a lock.
    stopping: AtomicBool,
    stop: StopSource,
    /// For the acceptor. A handler may cancel the token of `stop`, and that must not close the sockets.
    closing: CancellationToken,
    /// Requests that were in flight when the stop began.
    at_stop: OnceLock<usize>,
    register: Lock<Register>,
    /// The keys of connections that may be idle, since the stop began.
    quiet: Lock<Vec<usize>>,
    /// Fired when the connections must end after what is in flight. HTTP/2 sends a GOAWAY then.
    pub(super) told: Switch<()>,
    /// Set when the socket is closed, to the number of connections that were waiting then.
    swept: OnceLock<usize>,
    /// Requests answered since the stop began.
    answered: AtomicUsize,
    /// Requests that have ended since the stop began, in whatever way.
    ended: AtomicUsize,
    /// Handlers and bodies that have panicked since the server began.
    panicked: AtomicUsize,
    /// For the task that runs the sequence. It keeps a permit for that task, so no change is lost.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Register {
    conns: Vec<Option<Weak<Conn>>>,
    free: Vec<usize>,
    open: usize,
    shut: bool,
}

/// Adds one request, both in flight and ever begun.
const REQUEST: u64 = (1 << 32) | 1;
const IN_FLIGHT: u64 = (1 << 32) - 1;

/// A write of at most so many bytes may be the answer to a PING, and must not keep an idle peer connected.
const CONTROL: usize = 64;

#[derive(Debug)]
pub(crate) struct Conn {
    gate: Arc<Gate>,
    key: usize,
    /// The number ever begun in the upper half, the number in flight in the lower half. As one word, it costs a
    /// request one atomic operation at each of its ends.
    requests: AtomicU64,
    /// Streams of this connection that no longer speak HTTP. An upgraded HTTP/1 connection counts as one
    /// stream.
    upgrades: AtomicUsize,
    /// Whether its task is being polled, and how many tasks of its streams are. One that stays inside for long
    /// blocks a thread.
    is_polled: AtomicBool,
    streams_polled: AtomicUsize,
    /// Whether the peer does not read what is there for it.
    unread: AtomicBool,
    /// Each piece of an answer over HTTP/2 that is on its way holds a clone. Long after an answer was handed
    /// over, with nothing unread, it may still wait for the window of its peer.
    pieces: Arc<()>,
    /// Whether the peer has taken something since the last look, once the stop has begun. For HTTP/2 bodies
    /// whose data are not `Bytes`, because their pieces cannot be followed.
    taken: AtomicBool,
    /// Of the last request, for the next.
    spare: Lock<Option<Box<Rest>>>,
    idle: Lock<Option<Idle>>,
    /// Cuts handlers and bodies.
    pub(super) work: Switch<Label>,
    /// Cuts the stream.
    pub(super) stream: Switch<()>,
    _slot: Option<OwnedSemaphorePermit>,
}

/// The larger part of a request. It stays where it is, because the request itself is moved a dozen times until its
/// response is handed over. The connection keeps it for the next request.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) label: Label,
    pub(super) seat: Seat,
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            label: Label::NONE,
            seat: Seat::default(),
        }
    }
}

/// What a look at a connection has shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Look {
    /// It says so itself when that is over.
    Busy,
    /// It must be looked at again, then or soon.
    Again(Option<Instant>),
    /// Its idle grace is over.
    Over,
}

/// Since when a connection has had no request.
#[derive(Clone, Copy, Debug)]
struct Idle {
    since: Instant,
    begun: u32,
}

/// A piece of an answer that is on its way.
struct Piece {
    data: Bytes,
    _on_its_way: Arc<()>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// What was in flight at the cut.
#[derive(Debug, Default)]
pub(super) struct Cut {
    pub(super) requests: usize,
    pub(super) connections: usize,
    pub(super) upgrades: usize,
    pub(super) idle: usize,
    pub(super) paths: Vec<String>,
}

impl Gate {
    pub(crate) fn new(options: Options) -> Arc<Self> {
        let slots = options.max_connections;
        Arc::new(Self {
            slots: slots.map(|slots| Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS)))),
            options,
            leaving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stop: StopSource::new(),
            closing: CancellationToken::new(),
            at_stop: OnceLock::new(),
            register: Lock::default(),
            quiet: Lock::default(),
            told: Switch::new(),
            swept: OnceLock::new(),
            answered: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            panicked: AtomicUsize::new(0),
            changed: Notify::new(),
        })
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn stop(&self) -> &Stop {
        self.stop.stop()
    }

    /// Returns whether answers tell their clients to go elsewhere.
    ///
    /// Relaxed is enough, because a request that just misses it counts as an earlier one.
    #[inline]
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Waits for the right to accept a connection.
    pub(super) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(self.slots.as_ref()?).acquire_owned().await.ok()
    }

    pub(super) fn register(self: &Arc<Self>, slot: Option<OwnedSemaphorePermit>) -> Arc<Conn> {
        let mut register = self.register.lock();
        let key = register.free.pop().unwrap_or_else(|| {
            register.conns.push(None);
            register.conns.len() - 1
        });
        let conn = Arc::new(Conn {
            gate: Arc::clone(self),
            key,
            requests: AtomicU64::new(0),
            upgrades: AtomicUsize::new(0),
            is_polled: AtomicBool::new(false),
            streams_polled: AtomicUsize::new(0),
            unread: AtomicBool::new(false),
            pieces: Arc::default(),
            taken: AtomicBool::new(false),
            spare: Lock::new(None),
            idle: Lock::new(None),
            work: Switch::new(),
            stream: Switch::new(),
            _slot: slot,
        });
        register.conns[key] = Some(Arc::downgrade(&conn));
        register.open += 1;
        let shut = register.shut;
        drop(register);
        if shut {
            conn.cut();
        }
        if self.stopping.load(Ordering::Relaxed) {
            self.add_quiet(key);
        }
        conn
    }

    fn remove(&self, key: usize) {
        let mut register = self.register.lock();
        register.conns[key] = None;
        register.free.push(key);
        register.open -= 1;
        let last = register.open == 0;
        drop(register);
        self.ended.fetch_add(1, Ordering::Relaxed);
        if last {
            self.changed.notify_one();
        }
    }

    /// Returns some connections by their place in the register, and the first of the rest.
    ///
    /// They are dropped outside of the lock, by invariant 3.
    pub(super) fn conns(&self, from: usize, places: usize) -> (Vec<Arc<Conn>>, Option<usize>) {
        let register = self.register.lock();
        let end = from.saturating_add(places).min(register.conns.len());
        let places = register.conns.get(from..end).unwrap_or_default();
        let conns = places.iter().flatten().filter_map(Weak::upgrade).collect();
        (conns, (end < register.conns.len()).then_some(end))
    }

    /// Returns the keys of all connections, and of the free places.
    pub(super) fn keys(&self) -> Range<usize> {
        0..self.register.lock().conns.len()
    }

    fn all(&self) -> impl Iterator<Item = Arc<Conn>> {
        self.conns(0, usize::MAX).0.into_iter()
    }

    /// Returns the connections with these keys that are still there.
    pub(super) fn with_keys(&self, keys: &[usize]) -> Vec<Arc<Conn>> {
        let register = self.register.lock();
        let conn = |key: &usize| register.conns.get(*key)?.as_ref()?.upgrade();
        keys.iter().filter_map(conn).collect()
    }

    /// Returns the keys of the connections that may have become idle since the last call.
    pub(super) fn take_quiet(&self) -> Vec<usize> {
        std::mem::take(&mut *self.quiet.lock())
    }

    #[cold]
    fn add_quiet(&self, key: usize) {
        let mut quiet = self.quiet.lock();
        quiet.push(key);
        let is_first = quiet.len() == 1;
        drop(quiet);
        if is_first {
            self.changed.notify_one();
        }
    }

    pub(super) fn open(&self) -> usize {
        self.register.lock().open
    }

    pub(super) fn requests(&self) -> usize {
        self.all().map(|conn| conn.requests()).sum()
    }

    /// Counts the requests in flight for the last time.
    pub(super) fn count_at_stop(&self) -> usize {
        *self.at_stop.get_or_init(|| self.requests())
    }

    /// Returns how many requests are in flight, or, once the stop has begun, how many were then.
    pub(crate) fn in_flight(&self) -> usize {
        let at_stop = self.at_stop.get().copied();
        at_stop.unwrap_or_else(|| self.requests())
    }

    pub(super) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    #[cold]
    pub(super) fn add_panic(&self) {
        self.panicked.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn panicked(&self) -> usize {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Waits until there may be something new to see. For one task at a time.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// [`tell_handlers`](Self::tell_handlers) must follow, for all places.
    pub(super) fn begin_stop(&self, grace: Duration) {
        self.leave();
        self.stopping.store(true, Ordering::Relaxed);
        self.stop.announce(grace);
        self.closing.cancel();
    }

    pub(super) fn tell_handlers(&self, from: usize, places: usize) -> Option<usize> {
        self.stop.tell(from, places)
    }

    /// Returns a number that grows as connections and requests end.
    pub(super) fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    /// Waits until the stop begins.
    pub(super) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    pub(super) fn set_swept(&self, waiting: usize) {
        // There is one acceptor, and it sweeps once.
        let _ = self.swept.set(waiting);
        self.changed.notify_one();
    }

    /// Returns how many connections were waiting to be accepted, once that is known.
    pub(super) fn swept(&self) -> Option<usize> {
        self.swept.get().copied()
    }

    /// From here on no connection can begin. [`cut_all`](Self::cut_all) must follow, for all places.
    pub(super) fn shut(&self) {
        self.begin_stop(Duration::ZERO);
        self.register.lock().shut = true;
    }

    pub(super) fn cut_all(&self, from: usize, places: usize) -> Option<usize> {
        let (conns, rest) = self.conns(from, places);
        conns.iter().for_each(|conn| conn.cut());
        rest
    }

    /// Shuts, and cuts all connections in one go.
    pub(super) fn force(&self) {
        self.shut();
        self.tell_handlers(0, usize::MAX);
        self.cut_all(0, usize::MAX);
    }

    /// Returns how many handlers block a thread although they were cut, and how many other connections have not
    /// ended.
    pub(super) fn left(&self) -> (usize, usize) {
        let (mut stuck, mut others) = (0, 0);
        for conn in self.all() {
            match conn.inside() {
                0 => others += 1,
                inside => stuck += inside,
            }
        }
        (stuck, others)
    }
}

impl Conn {
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Notes that the task of the connection is polled. Only that task calls this.
    #[inline]
    pub(super) fn set_polled(&self, polled: bool) {
        self.is_polled.store(polled, Ordering::Relaxed);
    }

    /// Notes that a request over HTTP/2 is polled, in a task of its own.
    #[inline]
    pub(super) fn begin_poll(&self) {
        self.streams_polled.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn end_poll(&self) {
        self.streams_polled.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns how many of its tasks are being polled.
    fn inside(&self) -> usize {
        let streams = self.streams_polled.load(Ordering::Relaxed);
        streams + usize::from(self.is_polled.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn take_spare(&self) -> Box<Rest> {
        let spare = self.spare.lock().take();
        spare.unwrap_or_default()
    }

    #[inline]
    pub(super) fn keep_spare(&self, rest: Box<Rest>) {
        let before = self.spare.lock().replace(rest);
        drop(before);
    }

    /// Relaxed is enough. The number is read by the task that runs the connection, and by the one that counts,
    /// which may always be a little early or late.
    #[inline]
    pub(super) fn begin_request(&self) {
        self.requests.fetch_add(REQUEST, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn end_request(&self, answered: bool) {
        let before = self.requests.fetch_sub(1, Ordering::Relaxed);
        if self.gate.stopping.load(Ordering::Relaxed) {
            self.end_request_in_stop(answered, before & IN_FLIGHT == 1);
        }
    }

    #[cold]
    fn end_request_in_stop(&self, answered: bool, last: bool) {
        if answered && !self.work.is_fired() {
            self.gate.answered.fetch_add(1, Ordering::Relaxed);
        }
        self.gate.ended.fetch_add(1, Ordering::Relaxed);
        if last {
            self.gate.add_quiet(self.key);
        }
    }

    pub(super) fn requests(&self) -> usize {
        let in_flight = self.requests.load(Ordering::Relaxed) & IN_FLIGHT;
        // The number fits, because the requests were all allocated.
        usize::try_from(in_flight).unwrap_or(usize::MAX)
    }

    /// Returns how many requests have ever begun. The count wraps.
    pub(super) fn begun(&self) -> u32 {
        (self.requests.load(Ordering::Relaxed) >> 32) as u32
    }

    #[cold]
    pub(crate) fn add_upgrade(&self) {
        self.upgrades.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn upgrades(&self) -> usize {
        self.upgrades.load(Ordering::Relaxed)
    }

    pub(super) fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn add_taken(&self, bytes: usize) {
        if bytes > CONTROL && self.gate.stopping.load(Ordering::Relaxed) {
            self.taken.store(true, Ordering::Relaxed);
        }
    }

    fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed) || Arc::strong_count(&self.pieces) > 1
    }

    /// Returns `data` that count as unread until they are dropped.
    #[inline]
    pub(super) fn on_its_way(&self, data: Bytes) -> Bytes {
        Bytes::from_owner(Piece {
            data,
            _on_its_way: Arc::clone(&self.pieces),
        })
    }

    pub(super) fn cut(&self) {
        self.work.fire();
        self.stream.fire();
    }

    pub(super) fn key(&self) -> usize {
        self.key
    }

    /// Looks whether it has been idle for `grace`.
    pub(super) fn look(&self, now: Instant, grace: Duration) -> Look {
        let Some(since) = self.idle_since(now) else {
            return match self.requests() + self.upgrades() {
                0 => Look::Again(None),
                _ => Look::Busy,
            };
        };
        match since.checked_add(grace) {
            Some(until) if until <= now => Look::Over,
            until => Look::Again(until),
        }
    }

    /// A request that came and went since the last look restarts the idle time, and so does data that the peer
    /// has taken.
    fn idle_since(&self, now: Instant) -> Option<Instant> {
        let mut idle = self.idle.lock();
        if self.requests() > 0 || self.upgrades() > 0 || self.is_unread() {
            *idle = None;
            return None;
        }
        let begun = self.begun();
        let taken = self.taken.swap(false, Ordering::Relaxed);
        let since = match *idle {
            Some(idle) if idle.begun == begun && !taken => idle.since,
            _ => now,
        };
        *idle = Some(Idle { since, begun });
        Some(since)
    }
}

impl Drop for Conn {
    /// The slot is freed after this, when the fields are dropped.
    fn drop(&mut self) {
        self.gate.remove(self.key);
    }
}

impl Cut {
    /// Idle connections do not count, because they lose nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.requests + self.connections + self.upgrades == 0
    }

    /// Counts what is in flight and **then** cuts its handlers and bodies. After the cut they could no longer be
    /// counted.
    pub(super) fn cut(&mut self, conn: &Conn) {
        // A connection whose stream is already cut has been counted as idle.
        if !conn.stream.is_fired() {
            self.add(conn);
        }
        conn.work.fire();
    }

    fn add(&mut self, conn: &Conn) {
        let (requests, upgrades) = (conn.requests(), conn.upgrades());
        self.requests += requests;
        self.upgrades += upgrades;
        if requests > 0 || (upgrades == 0 && conn.is_unread()) {
            self.connections += 1;
        } else if upgrades == 0 {
            self.idle += 1;
        }
        for path in conn.work.pending(Label::to_string) {
            if self.paths.len() <= MOST_PATHS && !self.paths.contains(&path) {
                self.paths.push(path);
            }
        }
    }
}
