//! The Windows engine of [`Signals`](crate::Signals), with console events and one thread.
//!
//! Windows calls a console handler on a thread of its own, so an event arrives without a runtime of the
//! program. The source here has its own runtime, without a reactor.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Context;
use std::task::Poll;

use tokio::runtime;
use tokio::runtime::Runtime;
use tokio::signal::windows;
use tokio::sync::mpsc;

use crate::group::signal::Signal;

use super::watched::Watched;

/// Registers events that the [`Source`] then hears.
#[derive(Debug)]
pub(super) struct Handle {
    added: mpsc::UnboundedSender<Event>,
    caught: Vec<Signal>,
}

/// Where the events arrive.
#[derive(Debug)]
pub(super) struct Source {
    runtime: Runtime,
    added: mpsc::UnboundedReceiver<Event>,
    events: Vec<Event>,
}

/// One console event, listened to since this value was made.
#[derive(Debug)]
struct Event {
    signal: Signal,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    C(windows::CtrlC),
    Break(windows::CtrlBreak),
    Close(windows::CtrlClose),
    Shutdown(windows::CtrlShutdown),
}

/// Events need not be held back.
pub(super) struct Held;

/// As on Unix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask;

impl Held {
    pub(super) fn back() -> io::Result<Self> {
        Ok(Self)
    }

    pub(super) fn before(&self) -> Mask {
        Mask
    }
}

impl Mask {
    pub(super) fn set(self) {}
}

pub(super) fn can_be_caught(signal: Signal) -> bool {
    matches!(
        signal,
        Signal::Interrupt | Signal::Break | Signal::Close | Signal::Shutdown
    )
}

/// No console event is ignored when a program starts.
pub(super) fn ignored() -> Vec<Signal> {
    Vec::new()
}

pub(super) fn open() -> io::Result<(Handle, Source)> {
    let runtime = runtime::Builder::new_current_thread().build()?;
    let (sender, added) = mpsc::unbounded_channel();
    let handle = Handle {
        added: sender,
        caught: Vec::new(),
    };
    let source = Source {
        runtime,
        added,
        events: Vec::new(),
    };
    Ok((handle, source))
}

impl Handle {
    /// Makes the events of `set` wake the source. It arms nothing, because no event ends a process by itself.
    pub(super) fn catch(
        &mut self,
        set: &[Watched],
        _armed: Option<&Arc<AtomicBool>>,
    ) -> io::Result<()> {
        let new = set.iter().copied();
        let new = new.filter(|watched| !self.caught.contains(&watched.signal));
        let events = new.map(Event::new).collect::<io::Result<Vec<_>>>()?;
        for event in events {
            self.caught.push(event.signal);
            // The source lives as long as the process.
            let _ = self.added.send(event);
        }
        Ok(())
    }
}

impl Source {
    /// Waits for an event.
    pub(super) fn wait(&mut self) -> Vec<Signal> {
        let Self {
            runtime,
            added,
            events,
        } = self;
        let next = poll_fn(|cx| {
            while let Poll::Ready(Some(event)) = added.poll_recv(cx) {
                events.push(event);
            }
            poll_next(events, cx)
        });
        vec![runtime.block_on(next)]
    }

    /// Returns whether another event has come. Never, because no undo takes time here.
    pub(super) fn more(&mut self) -> bool {
        false
    }
}

/// A process cannot die of a console event.
pub(super) fn die_of(_signal: Signal) {}

fn poll_next(events: &mut [Event], cx: &mut Context<'_>) -> Poll<Signal> {
    for event in events {
        if event.poll(cx).is_ready() {
            return Poll::Ready(event.signal);
        }
    }
    Poll::Pending
}

impl Event {
    fn new(watched: Watched) -> io::Result<Self> {
        let kind = match watched.signal {
            Signal::Break => windows::ctrl_break().map(Kind::Break),
            Signal::Close => windows::ctrl_close().map(Kind::Close),
            Signal::Shutdown => windows::ctrl_shutdown().map(Kind::Shutdown),
            _ => windows::ctrl_c().map(Kind::C),
        };
        let kind = kind.map_err(|error| watched.refused(&error))?;
        Ok(Self {
            signal: watched.signal,
            kind,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<()>> {
        match &mut self.kind {
            Kind::C(event) => event.poll_recv(cx),
            Kind::Break(event) => event.poll_recv(cx),
            Kind::Close(event) => event.poll_recv(cx),
            Kind::Shutdown(event) => event.poll_recv(cx),
        }
    }
}
