//! [`Gate`]: shared by all parts of one server, and [`Conn`]: shared by all parts of one connection.
//!
//! Invariants:
//!
//! 1. Each part of a connection (its stream, its service, its requests) holds its `Conn`, and drops it last. So
//!    a connection leaves the register only when nothing of it is left.
//! 2. A connection that is registered after the gate was shut is cut from the start.
//! 3. The lock of the register is not held while a `Conn` is dropped, because the drop takes it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::crowd::{Candidate, Crowd};
use super::label::Label;
use super::options::Options;
use super::running;
use crate::server::drain::MOST_PATHS;
use crate::server::stop::{Stop, StopSource};
use crate::server::switch::{Seat, Switch};
use crate::server::sync::Lock;

#[derive(Debug)]
pub(crate) struct Gate {
    options: Options,
    crowd: Option<Crowd>,
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
const IN_FLIGHT: u64 = (1 << 31) - 1;
/// Set when a connection was closed because it was idle. It is in the same word, so that either the close or the
/// next request is first, and the other sees it.
const CLOSED: u64 = 1 << 31;

/// What is known of a connection, or wanted from it. Each is a bit of `marks`.
mod mark {
    /// It speaks HTTP, and a connection without a request is idle.
    pub(super) const HTTP: u16 = 1;
    /// It speaks HTTP/2.
    pub(super) const HTTP2: u16 = 1 << 1;
    /// Its peer and a loop that does not speak HTTP have exchanged bytes.
    pub(super) const SPOKE: u16 = 1 << 2;
    /// A part of the head of a request has arrived.
    pub(super) const HEAD: u16 = 1 << 3;
    /// It has been idle for too long.
    pub(super) const EXPIRED: u16 = 1 << 4;
    /// It is asked to give way.
    pub(super) const ASKED: u16 = 1 << 5;
    /// It is too old.
    pub(super) const OLD: u16 = 1 << 6;
    /// The body of its last request may not be read.
    pub(super) const BODY: u16 = 1 << 7;
    /// It has waited since that request ended.
    pub(super) const RESTED: u16 = 1 << 8;
    /// What its keeper has to look at.
    pub(super) const NEWS: u16 = EXPIRED | ASKED | OLD | BODY;
}

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
    marks: AtomicU16,
    /// When it became idle for the last time, if the number of connections is limited.
    idle_stamp: AtomicU64,
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
        Arc::new(Self {
            crowd: options.max_connections.map(Crowd::new),
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

    /// Returns a place for another connection, or `None` if all are taken. Without a limit there is always one.
    pub(super) fn try_slot(&self) -> Option<Option<OwnedSemaphorePermit>> {
        match &self.crowd {
            Some(crowd) => crowd.try_slot().map(Some),
            None => Some(None),
        }
    }

    /// Waits for a place for a connection that was accepted beyond the limit.
    ///
    /// # Cancel safety
    ///
    /// The connections that were asked to give way do so all the same.
    pub(super) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let crowd = self.crowd.as_ref()?;
        let all = || {
            let idle = self.all().filter(|conn| conn.may_give_way());
            idle.map(|conn| conn.candidate()).collect()
        };
        crowd.slot(all, |candidate| self.ask(candidate)).await
    }

    fn ask(&self, candidate: Candidate) -> bool {
        let register = self.register.lock();
        let conn = register.conns.get(candidate.key).and_then(Option::as_ref);
        let conn = conn.and_then(Weak::upgrade);
        drop(register);
        conn.is_some_and(|conn| conn.candidate() == candidate && conn.ask())
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
            marks: AtomicU16::new(0),
            idle_stamp: AtomicU64::new(self.crowd.as_ref().map_or(0, Crowd::stamp)),
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

    /// Returns the names of the handlers that are inside a poll.
    pub(super) fn running(&self) -> Vec<String> {
        let running = running::of(std::ptr::from_ref(self).addr());
        running.iter().map(Label::to_string).collect()
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
    ///
    /// Returns the number of the request, for [`set_running`](Self::set_running).
    #[inline]
    pub(super) fn begin_request(&self) -> u64 {
        let before = self.requests.fetch_add(REQUEST, Ordering::Relaxed);
        if before & CLOSED != 0 {
            self.refuse();
        }
        ((self.key as u64) << 32) | (before >> 32)
    }

    /// Cuts a request that was read on a connection in the moment in which that was closed.
    #[cold]
    fn refuse(&self) {
        self.cut();
    }

    #[inline]
    pub(super) fn end_request(&self, answered: bool) {
        let before = self.requests.fetch_sub(1, Ordering::Relaxed);
        if before & IN_FLIGHT == 1 && self.gate.crowd.is_some() {
            self.became_idle();
        }
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

    fn became_idle(&self) {
        if let Some(crowd) = &self.gate.crowd {
            self.idle_stamp.store(crowd.stamp(), Ordering::Relaxed);
            crowd.is_idle(self.candidate());
        }
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            stamp: self.idle_stamp.load(Ordering::Relaxed),
            key: self.key,
        }
    }

    /// Says that a handler of this connection is inside a poll, for the case that it blocks its thread.
    #[inline]
    pub(super) fn set_running(&self, request: u64, label: &Label) {
        running::enter(Arc::as_ptr(&self.gate).addr(), request, label);
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

    #[inline]
    fn is(&self, marks: u16) -> bool {
        self.marks.load(Ordering::Relaxed) & marks != 0
    }

    fn set(&self, marks: u16) {
        self.marks.fetch_or(marks, Ordering::Relaxed);
    }

    fn take(&self, marks: u16) -> bool {
        self.is(marks) && self.marks.fetch_and(!marks, Ordering::Relaxed) & marks != 0
    }

    pub(super) fn set_http(&self) {
        self.set(mark::HTTP);
    }

    pub(super) fn set_http2(&self) {
        self.set(mark::HTTP2);
    }

    pub(super) fn is_http2(&self) -> bool {
        self.is(mark::HTTP2)
    }

    /// Says that bytes went by on a connection that does not speak HTTP.
    #[inline]
    pub(super) fn set_spoke(&self) {
        if !self.is(mark::SPOKE | mark::HTTP) {
            self.set(mark::SPOKE);
        }
    }

    /// Says whether a part of a head has arrived, and the rest has not.
    pub(super) fn set_in_head(&self, is_in_head: bool) {
        if is_in_head {
            self.set(mark::HEAD);
        } else {
            self.take(mark::HEAD);
        }
    }

    /// Whether it is in the middle of a conversation, as far as that is known. A connection that does not speak
    /// HTTP may say when it is [busy](super::busy::Busy). If it never has, it may be waited for at any time.
    fn is_in_talk(&self) -> bool {
        self.marks.load(Ordering::Relaxed) & (mark::HTTP | mark::SPOKE) == mark::SPOKE
            && self.begun() == 0
    }

    /// Closes a connection that is idle, and returns whether it was. No request begins on it after that.
    fn close_if_idle(&self) -> bool {
        let word = self.requests.load(Ordering::Relaxed);
        if word & (IN_FLIGHT | CLOSED) != 0 || !self.rests() {
            return false;
        }
        let closed = word | CLOSED;
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        // A request that began in between has changed the word, and keeps it open.
        self.requests
            .compare_exchange(word, closed, success, failure)
            .is_ok()
    }

    /// Cuts a connection that is idle, and returns whether it was.
    pub(super) fn cut_if_idle(&self) -> bool {
        let is_idle = self.close_if_idle();
        if is_idle {
            self.cut();
        }
        is_idle
    }

    /// Says that it has been idle for too long. It is closed, over HTTP/2 after a GOAWAY.
    pub(super) fn expire(&self) {
        if self.is_http2() || self.close_if_idle() {
            self.set(mark::EXPIRED);
        }
    }

    pub(super) fn take_expired(&self) -> bool {
        self.take(mark::EXPIRED)
    }

    /// A connection that does not speak HTTP is never closed because it seems to be idle.
    fn may_give_way(&self) -> bool {
        self.is(mark::HTTP)
            && !self.is(mark::HEAD | mark::ASKED)
            && self.requests.load(Ordering::Relaxed) & (IN_FLIGHT | CLOSED) == 0
            && self.rests()
    }

    /// Asks it to give way, and returns whether it will answer.
    fn ask(&self) -> bool {
        if !self.may_give_way() {
            return false;
        }
        self.set(mark::ASKED);
        self.stream.nudge();
        true
    }

    /// Returns whether it was asked to give way, and does.
    pub(super) fn take_asked(&self) -> bool {
        if !self.take(mark::ASKED) {
            return false;
        }
        let gives_way = self.may_give_way() && (self.is_http2() || self.close_if_idle());
        if !gives_way {
            self.gate.crowd.as_ref().inspect(|crowd| crowd.declined());
        }
        gives_way
    }

    pub(super) fn set_old(&self) {
        self.set(mark::OLD);
    }

    /// Whether answers tell the client to go elsewhere. See [`Gate::is_leaving`].
    #[inline]
    pub(super) fn is_leaving(&self) -> bool {
        self.gate.is_leaving() || self.is(mark::OLD)
    }

    /// Says that the request that begins has a body.
    #[cold]
    pub(super) fn set_body(&self) {
        self.take(mark::RESTED);
        self.set(mark::BODY);
    }

    pub(super) fn has_body(&self) -> bool {
        self.is(mark::BODY)
    }

    /// Called when the connection waits.
    ///
    /// When a handler has not read the body of its request, hyper closes the connection in its next turn. If it
    /// waits once more, it waits for the next request, and the body was read.
    pub(super) fn rest(&self) {
        if self.is(mark::BODY)
            && self.requests() == 0
            && !self.unread.load(Ordering::Relaxed)
            && self.marks.fetch_or(mark::RESTED, Ordering::Relaxed) & mark::RESTED != 0
        {
            self.take(mark::BODY);
        }
    }

    /// Returns whether its keeper has something to look at.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        self.is(mark::NEWS)
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

    /// Returns whether nothing but a request could be in flight, and none of them is looked at.
    pub(super) fn rests(&self) -> bool {
        self.upgrades() == 0 && !self.is_unread() && !self.is_in_talk()
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
        if self.requests() > 0 || !self.rests() {
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
        if requests > 0 || (upgrades == 0 && !conn.rests()) {
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
