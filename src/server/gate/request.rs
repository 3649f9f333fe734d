//! [`Request`]: a request in flight.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;

use http::Method;

use super::conn::{Conn, Rest};
use super::label::Label;
use crate::group::log;
use crate::group::panic::Panic;

/// Counts as in flight until it is dropped, and knows whether it has been cut.
#[derive(Debug)]
pub(crate) struct Request {
    /// `None` only in the destructor.
    rest: Option<Box<Rest>>,
    conn: Arc<Conn>,
    answered: bool,
    running: bool,
    /// Whether it has a task of its own, as over HTTP/2.
    is_stream: bool,
    /// Copied from the options, because it is read four times for each request.
    catches_panics: bool,
}

/// A panic that was caught. It has been counted and logged.
#[derive(Debug)]
pub(super) struct Panicked;

impl Request {
    #[inline]
    pub(super) fn begin(conn: Arc<Conn>, is_stream: bool) -> Self {
        conn.begin_request();
        Self {
            catches_panics: conn.gate().options().catch_panics,
            rest: Some(conn.take_spare()),
            conn,
            answered: false,
            running: false,
            is_stream,
        }
    }

    /// Sets its name in the report.
    #[inline]
    pub(super) fn name(&mut self, method: &Method, path: &str) {
        if let Some(rest) = &mut self.rest {
            rest.label.write(method, path);
        }
    }

    #[inline]
    pub(super) fn conn(&self) -> &Conn {
        &self.conn
    }

    #[inline]
    pub(super) fn is_cut(&self) -> bool {
        self.conn.work.is_fired()
    }

    /// Must be called when the request is pending. Returns whether it has been cut.
    #[inline]
    pub(super) fn watch(&mut self, cx: &Context<'_>) -> bool {
        let Some(Rest { label, seat }) = self.rest.as_deref_mut() else {
            return self.is_cut();
        };
        self.conn.work.watch(seat, cx, || *label)
    }

    /// Sets whether all of the response has been handed over.
    #[inline]
    pub(super) fn set_answered(&mut self, answered: bool) {
        self.answered = answered;
    }

    #[inline]
    pub(super) fn catches_panics(&self) -> bool {
        self.catches_panics
    }

    /// Must be called before and after running user code. A request that is dropped in between has panicked.
    #[inline]
    pub(super) fn set_running(&mut self, running: bool) {
        self.running = running;
        self.set_polled(running);
    }

    #[inline]
    fn set_polled(&self, polled: bool) {
        match (self.is_stream, polled) {
            (false, _) => {}
            (true, true) => self.conn.begin_poll(),
            (true, false) => self.conn.end_poll(),
        }
    }

    /// Runs the `what` of this request, and counts, logs and catches its panic.
    #[cold]
    pub(super) fn catch<R>(&self, what: &str, f: impl FnOnce() -> R) -> Result<R, Panicked> {
        self.set_polled(true);
        let end = Panic::catch(f);
        self.set_polled(false);
        end.map_err(|panic| self.panicked(what, &panic))
    }

    /// Drops what is left of a handler or a body.
    #[inline]
    pub(super) fn drop_in<T>(&mut self, mut what: Pin<&mut Option<T>>) {
        if self.catches_panics() {
            let _ = self.catch("destructor", || what.set(None));
        } else {
            self.set_running(true);
            what.set(None);
            self.set_running(false);
        }
    }

    /// As [`drop_in`](Self::drop_in), but called from a destructor, which may run because of a panic. In that
    /// case the panic is what counts.
    #[inline]
    pub(super) fn drop_last<T>(&mut self, what: Pin<&mut Option<T>>) {
        if what.is_some() && !self.running {
            self.drop_in(what);
        }
    }

    fn panicked(&self, what: &str, panic: &Panic) -> Panicked {
        self.conn.gate().add_panic();
        log::guarded(|| {
            let label = self.rest.as_ref().map_or(Label::NONE, |rest| rest.label);
            let message = panic.message();
            tracing::error!(target: "taskgroup", "{what} of {label} panicked: {message}");
        });
        Panicked
    }
}

impl Drop for Request {
    #[inline]
    fn drop(&mut self) {
        if self.running {
            self.set_polled(false);
            self.conn.gate().add_panic();
        }
        if let Some(mut rest) = self.rest.take() {
            self.conn.work.leave(&mut rest.seat);
            rest.label.clear();
            self.conn.keep_spare(rest);
        }
        self.conn.end_request(self.answered);
    }
}
